"""Small contents of four-kilobyte chunks for tests of the peer cache, and a clock that stands still."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from peer.cache import NewChunk, PeerCache
from peer.core.voucher import PeerId, Voucher
from validation.content import ChunkIndex, ChunkLayout, ContentId
from validation.digest import chunk_digest

CHUNK = 4096
ALICE, BOB = PeerId("a" * 64), PeerId("b" * 64)


def cid(name: str) -> ContentId:
    return ContentId(hashlib.sha256(name.encode()).hexdigest())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Content:
    """Some bytes in a file, ready to be added chunk by chunk."""

    def __init__(self, directory: Path, name: str, length: int = 10 * CHUNK - 100) -> None:
        self.ids = (cid(name),)
        self.data = os.urandom(length)
        self.layout = ChunkLayout(length=length, chunk_bytes=CHUNK)
        path = directory / name
        path.write_bytes(self.data)
        self.fd = os.open(path, os.O_RDWR)

    def voucher(self, chunk: int, signer: PeerId, content_id: ContentId | None = None) -> Voucher:
        return Voucher(
            content_id=content_id or self.ids[0],
            chunk=ChunkIndex(chunk),
            digest=chunk_digest(self.bytes_of(chunk)),
            signer=signer,
            signature=signer[:1].encode() * 64,
        )

    def bytes_of(self, chunk: int) -> bytes:
        return self.data[chunk * CHUNK : (chunk + 1) * CHUNK]

    def chunk(self, chunk: int, *signers: PeerId) -> NewChunk:
        return NewChunk(
            content_ids=self.ids,
            layout=self.layout,
            chunk=ChunkIndex(chunk),
            digest=chunk_digest(self.bytes_of(chunk)),
            vouchers=tuple(self.voucher(chunk, signer) for signer in signers),
            source_fd=self.fd,
        )


MakeContent = Callable[..., Content]
Reopen = Callable[..., Awaitable[PeerCache]]
