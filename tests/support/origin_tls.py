"""A certificate authority made on the spot, and server certificates of it: good, expired, for another name.

Never knows: HTTP, the product. RFC 5280; names in the subjectAltName only (RFC 9110 §4.3.4).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = dt.timedelta(days=1)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate and its key in one PEM file each, ready for `ssl`."""

    certificate_file: Path
    key_file: Path

    def context(self, client_ca: Path | None = None) -> ssl.SSLContext:
        """A server's TLS context that shows this certificate, and wants one of `client_ca` in return."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @property
    def serial_number(self) -> int:
        return x509.load_pem_x509_certificate(self.certificate_file.read_bytes()).serial_number


class Authority:
    """A CA of its own in `directory`; `ca_file` is what a client must be told to trust."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def good(self) -> ServerCertificate:
        """Valid now, for localhost and the loopback addresses."""
        return self.issue("good")

    def expired(self) -> ServerCertificate:
        """Ended yesterday."""
        now = dt.datetime.now(dt.UTC)
        return self.issue("expired", valid=(now - 3 * _DAY, now - _DAY))

    def wrong_name(self) -> ServerCertificate:
        """Valid now, for a host that nobody here is called."""
        return self.issue("wrong-name", names=("elsewhere.example",))

    def client(self, label: str = "client") -> ServerCertificate:
        """A certificate that a client may show."""
        return self.issue(label, usage=ExtendedKeyUsageOID.CLIENT_AUTH)

    def with_revocations(self, *revoked: ServerCertificate, label: str = "ca-and-crl") -> Path:
        """A file with the authority's certificate and its list of what it took back."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - _DAY)
            .next_update(now + _DAY)
        )
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now - _DAY)
                .build()
            )
        revocations = builder.sign(self._key, hashes.SHA256())
        file = self._directory / f"{label}.pem"
        file.write_bytes(self.ca_file.read_bytes() + revocations.public_bytes(serialization.Encoding.PEM))
        return file

    def issue(
        self,
        label: str,
        names: tuple[str, ...] = LOOPBACK_NAMES,
        valid: tuple[dt.datetime, dt.datetime] | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> ServerCertificate:
        """A server certificate for `names` (DNS names or addresses), stored under `label`."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        start, stop = valid or (now - _DAY, now + 7 * _DAY)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(stop)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        made = ServerCertificate(self._directory / f"{label}.crt", self._directory / f"{label}.key")
        made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
