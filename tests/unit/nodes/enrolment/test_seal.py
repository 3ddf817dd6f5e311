"""Seals: an operator's signature holds, nobody else's does, and not under another text."""

import pytest

from broker.acl import user_of
from nodes.enrolment.authority import Issued, new_authority
from nodes.enrolment.seal import BadSeal, check, roles_in, sign

AUTHORITY = new_authority("lab")
TEXT = "trisect package lab 0123456789abcdef"


def member(*roles: str, pipeline: str = "lab") -> Issued:
    return AUTHORITY.issue_member(user_of(pipeline, "somebody"), roles=roles)


def test_an_operators_seal_holds() -> None:
    operator = member("operator")
    assert roles_in(operator.certificate) == ("operator",)
    check(TEXT, sign(TEXT, operator.key), operator.certificate, AUTHORITY.pem, "lab")


def test_a_seal_is_under_one_text_only() -> None:
    operator = member("operator", "viewer")
    signature = sign(TEXT, operator.key)
    with pytest.raises(BadSeal, match="not under this text"):
        check(TEXT + "0", signature, operator.certificate, AUTHORITY.pem, "lab")
    with pytest.raises(BadSeal, match="not under this text"):
        check(TEXT, "00" * 70, operator.certificate, AUTHORITY.pem, "lab")


@pytest.mark.parametrize("roles", [(), ("node",), ("viewer", "camera")])
def test_another_members_is_refused(roles: tuple[str, ...]) -> None:
    other = member(*roles)
    with pytest.raises(BadSeal, match="no operator"):
        check(TEXT, sign(TEXT, other.key), other.certificate, AUTHORITY.pem, "lab")


def test_one_of_another_authority_or_pipeline_is_refused() -> None:
    stranger = new_authority("lab").issue_member(user_of("lab", "operator"), roles=["operator"])
    with pytest.raises(BadSeal, match="authority"):
        check(TEXT, sign(TEXT, stranger.key), stranger.certificate, AUTHORITY.pem, "lab")
    other = member("operator", pipeline="elsewhere")
    with pytest.raises(BadSeal, match="no operator of lab"):
        check(TEXT, sign(TEXT, other.key), other.certificate, AUTHORITY.pem, "lab")


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(BadSeal, match="cannot be read"):
        check(TEXT, "00", "-----BEGIN CERTIFICATE-----\nx\n", AUTHORITY.pem, "lab")
