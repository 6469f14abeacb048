"""Vouchers: signed statements that a chunk, fetched from the origin, has this digest.

Decides who vouches for which chunk and what a contradiction means. Never knows: keys, TLS, files; signatures
are checked by whoever owns the keys before a voucher comes in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from validation.content import ChunkIndex, ContentId
from validation.digest import ChunkDigest

PeerId = NewType("PeerId", str)
"""64 lower-case hexadecimal digits: SHA-256 of the agent's raw Ed25519 public key (32 bytes)."""

_DOMAIN = b"nearfetch voucher v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """`signer` fetched chunk `chunk` of `content_id` from the origin itself, and it had `digest`."""

    content_id: ContentId
    chunk: ChunkIndex
    digest: ChunkDigest
    signer: PeerId
    signature: bytes
    """Ed25519 (RFC 8032) over `signed_bytes`: 64 bytes."""


def signed_bytes(content_id: ContentId, chunk: ChunkIndex, digest: ChunkDigest) -> bytes:
    """What a voucher's signature covers: a domain string, the id (32 bytes), the chunk (8 bytes, big endian),
    the digest (32 bytes)."""
    return _DOMAIN + bytes.fromhex(content_id) + int(chunk).to_bytes(8, "big") + digest
