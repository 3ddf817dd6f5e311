"""Seals: an operator's signature under a text, which whoever knows the pipeline's authority can hold against it.

ECDSA over P-256 with SHA-256, by the key of the operator's certificate; the certificate, which the authority signed,
says that it is an operator's. A seal outlives its certificate: what an operator published while it was good stays good.
"""

from __future__ import annotations

from typing import Final

from pipeline.errors import ConfigError, TrisectError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID
except ImportError:
    raise ConfigError(
        "models that an operator of an enrolled pipeline has published are held against his signature, which takes the "
        "package cryptography: pip install 'trisect[enrol]'"
    ) from None

OPERATOR: Final = "operator"


class BadSeal(TrisectError):
    """A text that no operator of this pipeline has sealed."""


def sign(text: str, key: str) -> str:
    """The signature under a text, in hexadecimal, with a key in PEM. Raises ConfigError for a key of another kind."""
    loaded = serialization.load_pem_private_key(key.encode(), password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ConfigError("the member's key is not of an elliptic curve; enrol again")
    return loaded.sign(text.encode(), ec.ECDSA(hashes.SHA256())).hex()


def roles_in(certificate: str) -> tuple[str, ...]:
    """The roles that a certificate in PEM says its member has; none for one of an earlier trisect."""
    try:
        read = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as error:
        raise BadSeal(f"its certificate cannot be read: {str(error)[:200]}") from None
    return tuple(str(one.value) for one in read.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME))


def check(text: str, signature: str, certificate: str, authority: str, pipeline: str) -> None:
    """Raise BadSeal unless an operator of the pipeline whose authority this is has signed the text."""
    roles = roles_in(certificate)
    read = x509.load_pem_x509_certificate(certificate.encode())
    try:
        read.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
    except (ValueError, TypeError, InvalidSignature):
        raise BadSeal("its certificate is not of this pipeline's authority") from None
    names = [str(one.value) for one in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if OPERATOR not in roles or not names or not names[0].startswith(f"{pipeline}."):
        raise BadSeal(f"it is sealed by {names[:1]}, who is no operator of {pipeline}")
    key = read.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadSeal("its certificate's key is not of an elliptic curve")
    try:
        key.verify(bytes.fromhex(signature), text.encode(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise BadSeal("its signature is not under this text") from None
