"""An agent that lies: nearfetch, with one byte altered in a share of the chunks that it gives to others.

What it keeps for itself is right, and so are its offers and vouchers: it looks like any other until somebody checks
what came. `python -m bench.liar SHARE ARGUMENTS OF NEARFETCH...`; which chunks is decided by their numbers alone.
"""

from __future__ import annotations

import hashlib
import runpy
import sys

from peer.cache import PeerCache
from validation.content import ContentId
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


def main(arguments: list[str]) -> None:
    """Never returns."""
    share, *rest = arguments
    become(float(share))
    sys.argv = ["nearfetch", *rest]
    runpy.run_module("agent.cli", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
