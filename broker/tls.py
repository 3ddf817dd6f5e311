"""TLS to a broker: a context made of PEM texts, a socket that is quick with tensors, and its errors in plain words."""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.errors import SettingsError

_RECORD: Final = 16_384
"""Bytes of a TLS record: what one call of OpenSSL takes or gives."""

_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "it asks for a certificate, and this client has none: enrol it, or give one with its key",
    "HANDSHAKE_FAILURE": "it asks for a certificate, or for other versions of TLS than this machine has",
    "CERTIFICATE_REVOKED": "this client's certificate has been revoked",
    "CERTIFICATE_EXPIRED": "this client's certificate has expired: `trisect renew` makes another; or a clock is wrong",
    "UNKNOWN_CA": "this client's certificate is from an authority that the broker does not know",
    "BAD_CERTIFICATE": "the broker does not take this client's certificate",
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS: is that the port without encryption?",
}
_NOT_VERIFIED: Final = {
    9: "the broker's certificate is not valid yet: is this machine's clock right?",
    10: "the broker's certificate has expired: renew it, or set this machine's clock right",
    12: "the authority's list of revoked certificates has expired",
    18: "the broker's certificate is signed by itself, not by the authority that was given",
    19: "the broker's certificate is from another authority than the one that was given",
    20: "the broker's certificate is from another authority than the one that was given",
    26: "the certificate there is for clients only, so that is no broker; or it is a node of an earlier version: "
    "`trisect renew` makes it another",
    62: "the broker's certificate is not for this host name: use a name that it has, or enrol the broker again with it",
    64: "the broker's certificate is not for this address: use one that it has, or enrol the broker again with it",
}
"""By OpenSSL's number of the fault, as in x509_vfy.h."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates in PEM: the authority that a broker is held against (None: the system's), and this client's own.

    `peers` are the common names of which the other end's certificate must have one, where that is no broker but another
    node, which is known by its name and not by its host.
    """

    authority: str | None = None
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("a certificate goes with its key; give both or neither")


class _Socket(ssl.SSLSocket):
    """Takes and gives many records in a call.

    paho copies the rest of a packet for each call of `send`, and OpenSSL takes 16 KiB in one: of a megabyte that would
    copy 32. And `recv` makes a buffer for all that is asked for each time.
    """

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; paho would leave a socket open whose handshake fails."""
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """Send as much as goes without waiting."""
        view, sent = memoryview(data), 0
        while sent < len(view):
            try:
                sent += super().send(view[sent : sent + _RECORD], flags)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not sent:
                    raise
                break
        return sent

    def recv(self, buflen: int = _RECORD, flags: int = 0) -> bytes:
        """Receive at most one record."""
        return super().recv(min(buflen, _RECORD), flags)


def context_of(tls: Tls) -> ssl.SSLContext:
    """A context for clients that verifies chain and host name. Raises SettingsError for what is no PEM."""
    try:
        context = ssl.create_default_context(cadata=tls.authority)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"the authority's certificate cannot be read: {error}") from error
    context.sslsocket_class = _Socket
    context.check_hostname = not tls.peers
    if tls.certificate is not None and tls.key is not None:
        _load_chain(context, tls.certificate, tls.key)
    return context


def receiving_context_of(tls: Tls) -> ssl.SSLContext:
    """A context for a node that others connect to; each has to show a certificate of the authority.

    Raises SettingsError for what is no PEM, or not there.
    """
    if tls.authority is None or tls.certificate is None or tls.key is None:
        raise SettingsError(
            "with TLS the direct way needs the authority's certificate, and the node's own with its key: give all, "
            "or leave it out"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=tls.authority)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"the authority's certificate cannot be read: {error}") from error
    _load_chain(context, tls.certificate, tls.key)
    return context


def common_name_of(sock: ssl.SSLSocket) -> str:
    """Common name of the other end's certificate, which has been held against the authority; empty without one."""
    subject = (sock.getpeercert() or {}).get("subject", ())
    pairs = [pair for names in subject for pair in names if isinstance(pair, tuple)]
    return next((str(value) for name, value in pairs if name == "commonName"), "")


def require_peer(sock: ssl.SSLSocket, tls: Tls) -> None:
    """Raise PermissionError when the other end is none of `tls.peers`, if there are any."""
    name = common_name_of(sock) if tls.peers else ""
    if tls.peers and name not in tls.peers:
        raise PermissionError(f"the certificate of {name[:80]!r} answers there, not that of {tls.peers[0]!r}")


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Hand both over in a file, which is the only way that `ssl` knows; in memory, where the system can."""

    def refuse_password() -> str:
        raise SettingsError("the key is encrypted, and nobody is there to give its password; store it without one")

    text = f"{certificate}\n{key}\n".encode()
    try:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("trisect-key")
            try:
                os.write(descriptor, text)
                context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=refuse_password)
            finally:
                os.close(descriptor)
        else:
            with tempfile.NamedTemporaryFile(prefix="trisect-") as file:  # for its owner only
                Path(file.name).write_bytes(text)
                context.load_cert_chain(file.name, password=refuse_password)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"the client's certificate and key cannot be used together: {error}") from error


def explained(error: object) -> str:
    """An error of TLS in words that say what to do; any other as it is."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_VERIFIED:
        return _NOT_VERIFIED[error.verify_code]
    text = str(error) or repr(error)
    found = re.search(r"ALERT_([A-Z_]+)|(WRONG_VERSION_NUMBER)", text)
    if found is None:
        return text
    name = found[1] or found[2]
    return next((words for alert, words in _ALERTS.items() if alert in name), text)
