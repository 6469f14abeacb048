"""Groups: agents that trust each other, either by one secret text or by certificates an administrator made.

From a group key every agent derives the same authority, byte for byte, so nothing has to be exchanged but the
text. Whoever holds the text can make members: a group key is for machines that one party controls.
Never knows: this agent's own key, sockets, peers.

Sources: RFC 5869 (HKDF), RFC 8032 and RFC 8410 (Ed25519, also in certificates), RFC 5280 §4.1.2.5 (99991231235959Z
for "no end"), §4.2.1 (extensions), RFC 4648 §6 (base32).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from peer.errors import GroupKeyError, IdentityError

SECRET_BYTES = 20
"""160 bits: above the strength of the Ed25519 key made from it, and still short enough to read to somebody."""

CHECK_BYTES = 5
"""With the secret 25 bytes, which is 40 characters of base32 without padding. A mistake passes once in 2^40."""

PREFIX = "nf1"
_BODY_CHARACTERS = (SECRET_BYTES + CHECK_BYTES) * 8 // 5
_GROUP_CHARACTERS = 5
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_AUTHORITY_FROM = datetime(2000, 1, 1, tzinfo=UTC)
_AUTHORITY_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminGroup:
    """A group whose authority somebody runs. All three files are PEM; the member's key must be Ed25519."""

    ca_file: Path
    """One or more authorities; the first one names the group in discovery."""
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whose signature makes a certificate one of ours."""

    certificates: tuple[x509.Certificate, ...]
    tag: str
    """16 hexadecimal digits, public: tells groups apart in discovery and says nothing about their secrets."""
    key: Ed25519PrivateKey | None = None
    """None when an administrator keeps it."""

    def issued(self, certificate: x509.Certificate) -> bool:
        """True when one of the authorities signed this certificate itself."""
        return any(_directly_issued(certificate, authority) for authority in self.certificates)


class GroupKey:
    """The secret of a group. `str()` is the secret text; `repr()` shows only the public tag."""

    __slots__ = ("__dict__", "_secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a group's secret has {SECRET_BYTES} bytes, not {len(secret)}")
        self._secret = secret

    @classmethod
    def create(cls) -> GroupKey:
        """A new group."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> GroupKey:
        """Read the text form in any case, with or without its dashes, spaces and line breaks.

        Raises GroupKeyError with one sentence that says what is wrong.
        """
        body = _body_of(text)
        data = base64.b32decode(body)
        secret, check = data[:SECRET_BYTES], data[SECRET_BYTES:]
        if not hmac.compare_digest(check, _check(secret)):
            raise GroupKeyError("the group key has a typing mistake: at least one character is wrong")
        return cls(secret)

    def __str__(self) -> str:
        body = base64.b32encode(self._secret + _check(self._secret)).decode("ascii")
        groups = (body[at : at + _GROUP_CHARACTERS] for at in range(0, len(body), _GROUP_CHARACTERS))
        return "-".join((PREFIX, *groups))

    def __repr__(self) -> str:
        return f"<GroupKey of group {self.tag}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupKey):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.tag)

    @cached_property
    def tag(self) -> str:
        """16 hexadecimal digits, public."""
        return self._derive(b"tag", 8).hex()

    @cached_property
    def authority(self) -> Authority:
        """The group's own authority; the same bytes on every agent that holds the key."""
        key = Ed25519PrivateKey.from_private_bytes(self._derive(b"authority", 32))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"nearfetch group {self.tag}")])
        public = key.public_key()
        serial = int.from_bytes(self._derive(b"serial", 16), "big") >> 1 | 1  # positive, below 20 octets
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(_AUTHORITY_FROM)
            .not_valid_after(_AUTHORITY_UNTIL)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, None)
        )
        return Authority(certificates=(certificate,), tag=self.tag, key=key)

    def _derive(self, purpose: bytes, length: int) -> bytes:
        info = b"nearfetch group v1 " + purpose
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(self._secret)


Group = GroupKey | AdminGroup


def authority_of(group: Group) -> Authority:
    """The authority of either kind of group. Reads files for an AdminGroup. Raises IdentityError."""
    if isinstance(group, GroupKey):
        return group.authority
    try:
        certificates = tuple(x509.load_pem_x509_certificates(read_file(group.ca_file)))
    except ValueError as error:
        raise IdentityError(f"{group.ca_file} holds no PEM certificate", group.ca_file) from error
    if not all(is_authority(certificate) for certificate in certificates):
        raise IdentityError(f"{group.ca_file} holds a certificate that is no authority", group.ca_file)
    der = certificates[0].public_bytes(serialization.Encoding.DER)
    tag = hashlib.sha256(b"nearfetch group v1 tag" + der).hexdigest()[:16]
    return Authority(certificates=certificates, tag=tag)


def is_authority(certificate: x509.Certificate) -> bool:
    """True when the certificate may sign others (RFC 5280 §4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Either an authority's usage or a member's: nobody has both."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def read_file(path: Path) -> bytes:
    """The whole file. Raises IdentityError with the reason."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}", path) from error


def _check(secret: bytes) -> bytes:
    return hashlib.sha256(b"nearfetch group key v1" + secret).digest()[:CHECK_BYTES]


def _body_of(text: str) -> str:
    """The 40 characters after the prefix, upper case, without what copying adds."""
    kept = "".join(
        character
        for character in text
        if unicodedata.category(character) not in {"Pd", "Zs", "Zl", "Zp", "Cc", "Cf"}
    ).upper()
    if not kept.startswith("NF"):
        raise GroupKeyError("this is not a group key: a group key begins with nf1-")
    if not kept.startswith(PREFIX.upper()):
        raise GroupKeyError("the group key is of a format that this version does not know: it must begin with nf1-")
    body = kept[len(PREFIX) :]
    for character in body:
        if character not in _ALPHABET:
            raise GroupKeyError(
                f"the group key has a character that no group key has: {character!r} "
                "(after nf1- come only the letters A to Z and the digits 2 to 7)"
            )
    if len(body) != _BODY_CHARACTERS:
        what = "is incomplete" if len(body) < _BODY_CHARACTERS else "is too long"
        raise GroupKeyError(f"the group key {what}: it has {len(body)} of {_BODY_CHARACTERS} characters after nf1-")
    return body


def _directly_issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
