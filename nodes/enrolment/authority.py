"""X.509 of a pipeline: its authority, certificates for its broker and members, and the list of those revoked. No files.

Keys are of NIST's P-256, which all of mosquitto, OpenSSL and browsers take, and quick on small processors. A member's
certificate is for clients only and the broker's for servers only, so that no member can pose as the broker.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import Final

from pipeline.errors import ConfigError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    raise ConfigError("members are enrolled with the package cryptography: pip install 'trisect[enrol]'") from None

AUTHORITY_DAYS: Final = 20 * 365
BROKER_DAYS: Final = 825
MEMBER_DAYS: Final = 365
BACKDATED: Final = timedelta(days=1)
"""By so much a machine's clock may be behind when it shows a new certificate, or is shown one."""
LONGEST_NAME: Final = 64
"""Characters of a common name, as X.509 bounds it."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str = field(repr=False)
    serial: int
    expires: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> str:
        """The certificate, for all who hold the broker or its clients against it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key, which stays where the authority is."""
        return _pem_of(self.key)

    @property
    def expires(self) -> datetime:
        """The end of all that it has issued."""
        return self.certificate.not_valid_after_utc

    def issue_member(self, user: str, *, roles: Sequence[str] = (), days: float = MEMBER_DAYS) -> Issued:
        """A client's certificate with this user name; its organizational units are the member's roles.

        A node's is good for a server, too, since others may send it tensors directly. It names no host, so that no
        client takes it for the broker's. Raises ConfigError for a name that X.509 has no room for.
        """
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if "node" in roles:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        return self._issue(user, days, [], usages, roles)

    def issue_broker(self, pipeline: str, hosts: Sequence[str], *, days: float = BROKER_DAYS) -> Issued:
        """A server's certificate for these names and addresses."""
        return self._issue(f"{pipeline} broker"[:LONGEST_NAME], days, hosts, [ExtendedKeyUsageOID.SERVER_AUTH])

    def revocations(self, serials: Iterable[int], *, after: datetime | None = None) -> tuple[str, datetime]:
        """The list of revoked certificates in PEM, and its date, which is later than `after`.

        Of two lists a broker believes the later one, and a date has whole seconds: it begins in the past, so that it
        may be a little later each time without being in the future. It never ends before the authority, since a broker
        with a list that has ended lets nobody in.
        """
        now = datetime.now(timezone.utc).replace(microsecond=0)
        date = now - BACKDATED
        if after is not None:
            date = max(date, after + timedelta(seconds=1))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(date)
            .next_update(self.expires)
        )
        for serial in sorted(set(serials)):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date).build()
            builder = builder.add_revoked_certificate(revoked)
        signed = builder.add_extension(self._identifier, critical=False).sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode(), date

    @property
    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def _issue(
        self,
        name: str,
        days: float,
        hosts: Sequence[str],
        usages: list[x509.ObjectIdentifier],
        roles: Sequence[str] = (),
    ) -> Issued:
        if len(name) > LONGEST_NAME:
            raise ConfigError(
                f"{name!r} has {len(name)} characters, and a certificate's common name at most {LONGEST_NAME}; "
                "shorten the pipeline's name or this one's"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        begins = datetime.now(timezone.utc) - BACKDATED
        expires = min(begins + BACKDATED + timedelta(days=days), self.expires)
        builder = (
            _builder(name, self.certificate.subject, key, begins, expires, roles)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usages(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(self._identifier, critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False
            )
        signed = builder.sign(self.key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(pem, _pem_of(key), signed.serial_number, signed.not_valid_after_utc)


def new_authority(pipeline: str) -> Authority:
    """An authority of its own for a pipeline."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"{pipeline[: LONGEST_NAME - 19]} authority {secrets.token_hex(4)}"  # two of one pipeline are two
    begins = datetime.now(timezone.utc) - BACKDATED
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        _builder(name, subject, key, begins, begins + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usages(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(signed, key)


def read_authority(certificate: str, key: str) -> Authority:
    """An authority from its PEM texts. Raises ConfigError."""
    try:
        loaded = serialization.load_pem_private_key(key.encode(), password=None)
        read = x509.load_pem_x509_certificate(certificate.encode())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the authority's certificate and key cannot be read: {error}") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != read.public_key():
        raise ConfigError("the authority's key is not that of its certificate")
    return Authority(read, loaded)


def _builder(
    name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: datetime,
    expires: datetime,
    roles: Sequence[str] = (),
) -> x509.CertificateBuilder:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role) for role in roles]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usages(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
