"""Who this agent is: a key and a certificate on disk, the id made from them, and the two TLS contexts.

The key never changes and never leaves its file; the certificate is issued anew when more than half of its time is
over. Never knows: sockets, peers, what is transferred, who is banned.

Sources: RFC 8446 (TLS 1.3), RFC 5280 (certificates), RFC 8410 (Ed25519 in them); trust decisions are in
core/trust.py. `ssl.SSLContext.load_cert_chain` takes only files, so both lie in HOME/identity, 0600 in 0700.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from weakref import WeakSet

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peer import durable
from peer.core.trust import CertificateFacts, Refusal, judge
from peer.core.voucher import PeerId, Voucher, signed_bytes
from peer.errors import GroupKeyError, IdentityError
from peer.group import AdminGroup, Authority, Group, GroupKey, authority_of, is_authority, key_usage, read_file
from validation.content import ChunkIndex, ContentId
from validation.digest import ChunkDigest

__all__ = [
    "AdminGroup",
    "Group",
    "GroupKey",
    "GroupKeyError",
    "Identity",
    "end_of_certificate",
    "peer_id_of_certificate",
    "peer_id_of_key",
    "verify_voucher",
]

MEMBER_DAYS = 90
"""How long a certificate that we issue to ourselves is valid: an old copy of a home dies by itself."""

MAX_CERTIFICATE_BYTES = 16 * 1024
"""A member's certificate has about 500 bytes; an administrator's may have more, none has this many."""

MAX_NAME_CHARACTERS = 64
_BACKDATED_DAYS = 1
"""Our certificates begin a day early: clocks of other members may be behind ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Papers:
    """A certificate and its key, in the files OpenSSL reads them from."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey
    certificate_file: Path
    key_file: Path


class Identity:
    """One agent's proof of who it is. Made by `load_or_create`; holds nothing that must be closed."""

    def __init__(self, home: Path, group: Group, authority: Authority, papers: _Papers, name: str) -> None:
        self._home, self._group, self._authority, self._papers = home, group, authority, papers
        self._contexts: WeakSet[ssl.SSLContext] = WeakSet()
        self.peer_id: PeerId = peer_id_of_key(papers.key.public_key())
        self.name = name
        self.group_tag = authority.tag

    @classmethod
    def load_or_create(cls, home: Path, group: Group, now: float, name: str | None = None) -> Identity:
        """The identity that lives in `home` (blocking: files). `now`: seconds since 1970; `name`: for people.

        Raises IdentityError: a damaged or readable-by-others key, an administrator's files that do not fit.
        """
        try:
            authority = authority_of(group)
            papers = _papers(home, group, authority, now)
        except OSError as error:
            raise IdentityError(
                f"{home / 'identity'} cannot be used: {error.strerror}", home / "identity"
            ) from error
        return cls(home, group, authority, papers, _clean_name(name or socket.gethostname()))

    @property
    def certificate_der(self) -> bytes:
        """Our certificate."""
        return self._papers.certificate.public_bytes(serialization.Encoding.DER)

    def server_context(self) -> ssl.SSLContext:
        """A context for accepting: TLS 1.3 only, and the caller must show a certificate of the group.

        Session tickets are off: a resumed session would skip the certificate, so a banned or expired one.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context for calling: TLS 1.3 only, certificate of the group required.

        Host names mean nothing between peers: the caller compares the peer id of the certificate instead.
        """
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def vouch(self, content_id: ContentId, chunk: ChunkIndex, digest: ChunkDigest) -> Voucher:
        """Sign that this chunk came from the origin itself with this digest. About 50 µs."""
        signature = self._papers.key.sign(signed_bytes(content_id, chunk, digest))
        return Voucher(content_id=content_id, chunk=chunk, digest=digest, signer=self.peer_id, signature=signature)

    def check_certificate(self, der: bytes, now: float) -> PeerId | None:
        """The member this certificate stands for at `now` (seconds since 1970), or None. Never raises."""
        verdict = self.judge_certificate(der, now)
        return None if isinstance(verdict, Refusal) else verdict

    def judge_certificate(self, der: bytes, now: float) -> PeerId | Refusal:
        """As `check_certificate`, with the reason for a refusal."""
        try:
            certificate = _parse(der)
            facts = _facts(certificate, self._authority)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return Refusal.UNREADABLE
        return judge(facts, now)

    def renew(self, now: float) -> bool:
        """Prepare newer papers when ours are half over or an administrator replaced them (blocking: files).

        True when `reload` should follow. Raises IdentityError as `load_or_create` does.
        """
        papers = _papers(self._home, self._group, self._authority, now)
        if papers.certificate == self._papers.certificate:
            return False
        if peer_id_of_key(papers.key.public_key()) != self.peer_id:
            raise IdentityError("the key was replaced by another one: restart the agent to use it", papers.key_file)
        self._papers = papers
        return True

    def reload(self) -> None:
        """Let the contexts made so far use the newer papers, for connections to come. On the event loop."""
        for context in self._contexts:
            context.load_cert_chain(self._papers.certificate_file, self._papers.key_file)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an administrator's authority may be intermediate
        trusted = [item.public_bytes(serialization.Encoding.DER) for item in self._authority.certificates]
        context.load_verify_locations(cadata=b"".join(trusted))
        context.load_cert_chain(self._papers.certificate_file, self._papers.key_file)
        self._contexts.add(context)
        return context


def peer_id_of_key(key: Ed25519PublicKey) -> PeerId:
    """SHA-256 of the raw public key (32 bytes), in hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes_raw())
    return PeerId(digest.finalize().hex())


def peer_id_of_certificate(der: bytes) -> PeerId:
    """Whose certificate this is. Says nothing about trust. Raises IdentityError when nobody's."""
    try:
        return peer_id_of_key(_member_key(der))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError("not a readable certificate with an Ed25519 key") from error


def end_of_certificate(der: bytes) -> float:
    """When a certificate ends, in seconds since 1970; minus infinity when it cannot be read."""
    try:
        return _parse(der).not_valid_after_utc.timestamp()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return float("-inf")


def verify_voucher(voucher: Voucher, certificate_der: bytes) -> bool:
    """True when the certificate is the signer's and the signature is right. About 150 µs; never raises.

    Whether the certificate is of our group is another question: `Identity.check_certificate`.
    """
    try:
        key = _member_key(certificate_der)
        if peer_id_of_key(key) != voucher.signer:
            return False
        key.verify(voucher.signature, signed_bytes(voucher.content_id, voucher.chunk, voucher.digest))
    except (InvalidSignature, ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        return False
    return True


def _papers(home: Path, group: Group, authority: Authority, now: float) -> _Papers:
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
    return _Papers(certificate=certificate, key=key, certificate_file=certificate_file, key_file=key_file)


def _given_papers(group: AdminGroup, authority: Authority, now: float) -> _Papers:
    key = _load_key(group.key_file, 0o007)  # a group of the system may read it, the world may not
    try:
        certificate = x509.load_pem_x509_certificate(read_file(group.certificate_file))
        verdict = judge(_facts(certificate, authority), now)
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
    return _Papers(
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
        facts = _facts(certificate, authority)
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


def _facts(certificate: x509.Certificate, authority: Authority) -> CertificateFacts:
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


def _parse(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise ValueError(f"a certificate of {len(der)} bytes")
    return x509.load_der_x509_certificate(der)


@lru_cache(maxsize=256)
def _member_key(der: bytes) -> Ed25519PublicKey:
    """The Ed25519 key of a certificate; kept, because one signer vouches for thousands of chunks."""
    key = _parse(der).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError("not an Ed25519 key")
    return key


def _clean_name(name: str) -> str:
    """A name that can stand in a table: printable, on one line, not too long."""
    return "".join(item for item in name if item.isprintable()).strip()[:MAX_NAME_CHARACTERS] or "unnamed"
