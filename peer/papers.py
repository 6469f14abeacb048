"""An agent's papers: its key and certificate, stored, issued, read and renewed as files.

Never knows: TLS, sockets, peers, vouchers.

Sources: RFC 5280 (certificates), RFC 8410 (Ed25519 in them), RFC 5958 (the key's form). `ssl` reads papers only
from files, so both lie in HOME/identity, 0600 in 0700; an administrator's stay where they are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peer import durable
from peer.core.trust import CertificateFacts, Refusal, judge
from peer.core.voucher import PeerId
from peer.errors import IdentityError
from peer.group import AdminGroup, Authority, Group, is_authority, key_usage, read_file

MEMBER_DAYS = 90
"""How long a certificate that we issue to ourselves is valid: an old copy of a home dies by itself."""

_BACKDATED_DAYS = 1
"""Our certificates begin a day early: clocks of other members may be behind ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """A certificate and its key, in the files OpenSSL reads them from."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey
    certificate_file: Path
    key_file: Path


def papers_of(home: Path, group: Group, authority: Authority, now: float) -> Papers:
    """What the agent shows at `now` (seconds since 1970); made or renewed where that is due (blocking: files).

    Raises IdentityError, OSError.
    """
    if isinstance(group, AdminGroup):
        return _given_papers(group, authority, now)
    directory = home / "identity"
    durable.make_private_directory(directory)
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    if not key_file.exists():
        _store_new_key(key_file)
    key = _load_key(key_file, 0o077)
    certificate = _usable_certificate(certificate_file, authority, key, now)
    if certificate is None:
        certificate = _issue(authority, key, now)
        durable.write_atomically(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o600)
    return Papers(certificate=certificate, key=key, certificate_file=certificate_file, key_file=key_file)


def peer_id_of_key(key: Ed25519PublicKey) -> PeerId:
    """SHA-256 of the raw public key (32 bytes), in hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes_raw())
    return PeerId(digest.finalize().hex())


def _given_papers(group: AdminGroup, authority: Authority, now: float) -> Papers:
    key = _load_key(group.key_file, 0o007)  # a group of the system may read it, the world may not
    try:
        certificate = x509.load_pem_x509_certificate(read_file(group.certificate_file))
        verdict = judge(facts_of(certificate, authority), now)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{group.certificate_file} holds no PEM certificate", group.certificate_file) from error
    if isinstance(verdict, Refusal):
        reason = f"not issued by an authority in {group.ca_file}" if verdict is Refusal.OTHER_GROUP else verdict
        raise IdentityError(
            f"the certificate {group.certificate_file} is refused: {reason}", group.certificate_file
        )
    if verdict != peer_id_of_key(key.public_key()):
        raise IdentityError(
            f"the certificate {group.certificate_file} and the key {group.key_file} do not belong together",
            group.certificate_file,
        )
    if not _serves_both_ways(certificate):
        raise IdentityError(
            f"the certificate {group.certificate_file} must allow both serverAuth and clientAuth",
            group.certificate_file,
        )
    return Papers(
        certificate=certificate, key=key, certificate_file=group.certificate_file, key_file=group.key_file
    )


def _store_new_key(path: Path) -> None:
    """Whole or not at all, and never over a key that is there."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    directory = durable.open_directory(path.parent)
    temporary = durable.temporary_name(path.name)
    try:
        fd = durable.create_file(directory, temporary, 0o600)
        try:
            durable.pwrite_all(fd, pem, 0)
            durable.sync_file(fd)
            durable.link_new(directory, temporary, path.name)
        finally:
            os.close(fd)
            durable.remove(directory, temporary)
        durable.sync_directory(directory)
    finally:
        os.close(directory)


def _load_key(path: Path, forbidden_mode: int) -> Ed25519PrivateKey:
    pem = read_file(path)
    if path.stat().st_mode & forbidden_mode:
        raise IdentityError(f"the key {path} can be read by others: chmod 600 it, or make a new one", path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise IdentityError(f"the key {path} is encrypted: the agent cannot ask for its password", path) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path} holds no readable PEM key", path) from error
    if not isinstance(key, Ed25519PrivateKey):
        kind = type(key).__name__.lstrip("_").removesuffix("PrivateKey")
        raise IdentityError(f"the key {path} must be an Ed25519 key, this one is {kind}", path)
    return key


def _usable_certificate(
    path: Path, authority: Authority, key: Ed25519PrivateKey, now: float
) -> x509.Certificate | None:
    """The stored certificate, unless it is missing, damaged, of another group or key, or half over."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        facts = facts_of(certificate, authority)
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    half = (facts.not_before + facts.not_after) / 2
    fresh = facts.not_before <= now <= half
    return certificate if fresh and judge(facts, now) == peer_id_of_key(key.public_key()) else None


def _issue(authority: Authority, key: Ed25519PrivateKey, now: float) -> x509.Certificate:
    assert authority.key is not None
    issuer = authority.certificates[0]
    public = key.public_key()
    start = datetime.fromtimestamp(int(now), UTC) - timedelta(days=_BACKDATED_DAYS)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, peer_id_of_key(public))]))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=MEMBER_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .sign(authority.key, None)
    )


def facts_of(certificate: x509.Certificate, authority: Authority) -> CertificateFacts:
    """What `core/trust.py` decides on. Raises ValueError, TypeError, UnsupportedAlgorithm for odd certificates."""
    key = certificate.public_key()
    return CertificateFacts(
        issued_by_group=authority.issued(certificate),
        is_authority=is_authority(certificate),
        peer_id=peer_id_of_key(key) if isinstance(key, Ed25519PublicKey) else None,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _serves_both_ways(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usages)
