"""Who this agent is: the id made from its key, the two TLS contexts, vouchers signed and checked.

The key never changes and never leaves its file (papers.py); whom to trust is decided in core/trust.py.
Never knows: sockets, peers, what is transferred, who is banned.

Sources: RFC 8446 (TLS 1.3), RFC 8032 (Ed25519).
"""

from __future__ import annotations

import socket
import ssl
from functools import lru_cache
from pathlib import Path
from weakref import WeakSet

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from peer.core.trust import Refusal, judge
from peer.core.voucher import PeerId, Voucher, signed_bytes
from peer.errors import GroupKeyError, IdentityError
from peer.group import AdminGroup, Authority, Group, GroupKey, authority_of
from peer.papers import MEMBER_DAYS, Papers, facts_of, papers_of, peer_id_of_key
from validation.content import ChunkIndex, ContentId
from validation.digest import ChunkDigest

__all__ = [
    "MEMBER_DAYS",
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

MAX_CERTIFICATE_BYTES = 16 * 1024
"""A member's certificate has about 500 bytes; an administrator's may have more, none has this many."""

MAX_NAME_CHARACTERS = 64


class Identity:
    """One agent's proof of who it is. Made by `load_or_create`; holds nothing that must be closed."""

    def __init__(self, home: Path, group: Group, authority: Authority, papers: Papers, name: str) -> None:
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
            papers = papers_of(home, group, authority, now)
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
            facts = facts_of(certificate, self._authority)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return Refusal.UNREADABLE
        return judge(facts, now)

    def renew(self, now: float) -> bool:
        """Prepare newer papers when ours are half over or an administrator replaced them (blocking: files).

        True when `reload` should follow. Raises IdentityError as `load_or_create` does.
        """
        papers = papers_of(self._home, self._group, self._authority, now)
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
