"""A TLS context made of texts, and the words for what goes wrong."""

from __future__ import annotations

import ssl

import pytest

from broker.errors import SettingsError
from broker.tls import Tls, context_of, explained
from nodes.enrolment.authority import new_authority


def test_a_context_is_made_of_texts_alone() -> None:
    authority = new_authority("lab")
    issued = authority.issue_member("lab.edge-1")
    context = context_of(Tls(authority.pem, issued.certificate, issued.key))
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1


def test_a_key_of_another_certificate_is_refused() -> None:
    authority = new_authority("lab")
    one, other = authority.issue_member("lab.a"), authority.issue_member("lab.b")
    with pytest.raises(SettingsError, match="cannot be used together"):
        context_of(Tls(authority.pem, one.certificate, other.key))


def test_a_text_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        context_of(Tls("nothing"))


def test_a_certificate_goes_with_its_key() -> None:
    with pytest.raises(SettingsError, match="give both or neither"):
        Tls("a", certificate="c")


def test_a_key_is_shown_nowhere() -> None:
    issued = new_authority("lab").issue_member("lab.a")
    assert "PRIVATE" not in repr(issued)
    assert "PRIVATE" not in repr(Tls(None, issued.certificate, issued.key))


def test_errors_are_explained_with_a_remedy() -> None:
    assert "clock" in explained(ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] alert"))
    assert "without encryption" in explained(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"))
    assert explained(OSError("Connection refused")) == "Connection refused"
    assert explained("anything else") == "anything else"
