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


class VoucherBook:
    """Every voucher heard for one content, by chunk. Two digests for one chunk are a conflict: one is wrong."""

    def __init__(self) -> None:
        self._only: dict[ChunkIndex, Voucher] = {}
        """Of nearly every chunk one voucher is heard: it needs no more room than this."""
        self._heard: dict[ChunkIndex, dict[ChunkDigest, dict[PeerId, Voucher]]] = {}
        """Of the others."""
        self._liars: set[PeerId] = set()

    def hear(self, voucher: Voucher) -> bool:
        """Remember a voucher whose signature has been checked. False when its signer's word counts no more."""
        if voucher.signer in self._liars:
            return False
        chunk = voucher.chunk
        if chunk not in self._heard and (only := self._only.setdefault(chunk, voucher)) is not voucher:
            self._heard[chunk] = {only.digest: {only.signer: only}}
            del self._only[chunk]
        if chunk in self._heard:
            self._heard[chunk].setdefault(voucher.digest, {})[voucher.signer] = voucher
        return True

    def digests(self, chunk: ChunkIndex) -> tuple[ChunkDigest, ...]:
        """The digests claimed for a chunk, in the order they were first heard; more than one is a conflict."""
        only = self._only.get(chunk)
        return tuple(self._heard.get(chunk, ())) if only is None else (only.digest,)

    def vouchers(self, chunk: ChunkIndex, digest: ChunkDigest) -> tuple[Voucher, ...]:
        """The vouchers for one digest of a chunk, in the order they were heard."""
        only = self._only.get(chunk)
        if only is not None:
            return (only,) if only.digest == digest else ()
        return tuple(self._heard.get(chunk, {}).get(digest, {}).values())

    def refute(
        self, chunk: ChunkIndex, truth: ChunkDigest, content_ids: tuple[ContentId, ...]
    ) -> tuple[PeerId, ...]:
        """A chunk's digest is known for certain: name everybody who vouched for another under one of these ids."""
        return tuple(
            voucher.signer
            for digest in self.digests(chunk)
            if digest != truth
            for voucher in self.vouchers(chunk, digest)
            if voucher.content_id in content_ids
        )

    def forget_signer(self, signer: PeerId) -> list[tuple[ChunkIndex, ChunkDigest]]:
        """A banned signer's word counts no more. Returns what rested on it alone."""
        self._liars.add(signer)
        baseless = [(chunk, only.digest) for chunk, only in self._only.items() if only.signer == signer]
        for chunk, _ in baseless:
            del self._only[chunk]
        for chunk, claims in self._heard.items():
            for digest in list(claims):
                if claims[digest].pop(signer, None) is not None and not claims[digest]:
                    del claims[digest]
                    baseless.append((chunk, digest))
        return baseless
