"""An agent that lies: nearfetch, with one byte altered in a share of the chunks that it gives to others.

What it keeps for itself is right, and so are its offers and vouchers: it looks like any other until somebody checks
what came. One that forges vouches for the altered chunks as well, with its own key; then it looks like any other
until somebody checks the whole file. Which chunks is decided by their numbers alone.
`python -m bench.liar [--forges] SHARE ARGUMENTS OF NEARFETCH...`
"""

from __future__ import annotations

import hashlib
import runpy
import sys
from pathlib import Path

from peer.cache import PeerCache
from peer.core.voucher import Voucher
from peer.identity import Group, Identity
from validation.content import ChunkIndex, ContentId
from validation.digest import chunk_digest
from validation.ranges import ByteRange


def lies_about(chunk: int, share: float) -> bool:
    """Whether this chunk is one of those."""
    drawn = int.from_bytes(hashlib.sha256(f"liar {chunk}".encode()).digest()[:4], "big")
    return drawn < share * 2**32


def altered(data: bytes, item: ByteRange, chunk_bytes: int, share: float) -> bytes:
    """What it gives instead: the first byte of such a chunk is another one."""
    wrong = bytearray(data)
    first, last = item.start // chunk_bytes, (item.stop - 1) // chunk_bytes
    for chunk in range(first, last + 1):
        place = chunk * chunk_bytes - item.start
        if place >= 0 and lies_about(chunk, share):
            wrong[place] ^= 0xFF
    return bytes(wrong)


def become(share: float) -> None:
    """From now on, reading for others lies. The agent itself copies out by another way."""
    honest = PeerCache.read

    def read(self: PeerCache, content_id: ContentId, item: ByteRange) -> bytes:
        entry = self.find(content_id)
        data = honest(self, content_id, item)
        return data if entry is None else altered(data, item, entry.layout.chunk_bytes, share)

    PeerCache.read = read  # type: ignore[method-assign]


def forge(share: float) -> None:
    """From now on, vouchers for others say what the lies are. After `become`, and before there is an agent."""
    honest_vouchers, honest_load = PeerCache.vouchers, Identity.load_or_create
    known: list[Identity] = []

    def load(home: Path, group: Group, now: float, name: str | None = None) -> Identity:
        known[:] = [honest_load(home, group, now, name)]
        return known[0]

    def vouchers(self: PeerCache, content_id: ContentId, chunk: ChunkIndex) -> tuple[Voucher, ...]:
        entry, given = self.find(content_id), honest_vouchers(self, content_id, chunk)
        if entry is None or not known or not lies_about(chunk, share):
            return given
        try:
            data = self.read(content_id, entry.layout.range_of(chunk))
        except LookupError:  # not checked since the start: nothing is given of it yet, either
            return given
        return (known[0].vouch(content_id, chunk, chunk_digest(data)),)

    PeerCache.vouchers = vouchers  # type: ignore[method-assign]
    Identity.load_or_create = staticmethod(load)  # type: ignore[method-assign]


def main(arguments: list[str]) -> None:
    """Never returns."""
    forges = arguments[:1] == ["--forges"]
    share, *rest = arguments[1:] if forges else arguments
    become(float(share))
    if forges:
        forge(float(share))
    sys.argv = ["nearfetch", *rest]
    runpy.run_module("agent.cli", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
