"""The attacker of the demo: somebody who has stolen an agent's home and uses its key to lie.

Opens the home of an agent that is stopped, flips a byte in some chunks of one cached content, and vouches for the
altered chunks with the agent's own key, so that every check of the peer protocol is passed. A program of its own:
`python -m bench.forge HOME LENGTH`, with the group's key in NEARFETCH_GROUP_KEY; prints one JSON document.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from blake3 import blake3

from peer.cache import CacheLimits, CacheRecord, NewChunk, PeerCache
from peer.group import GroupKey
from peer.identity import Identity
from peer.workers import Workers
from validation.content import ChunkIndex, ChunkLayout

FORGED_CHUNKS = 2


async def forge(home: Path, group_key: str, length: int) -> dict[str, object]:
    """Alter the one cached content of this length; says what was done. Raises LookupError when there is not one."""
    workers = Workers(1)
    try:
        identity = Identity.load_or_create(home, GroupKey.parse(group_key), time.time())
        cache = await PeerCache.open(home / "cache", CacheLimits(), workers, time.time)
        try:
            records = [item for item in cache.records() if item.length == length]
            if len(records) != 1:
                raise LookupError(f"{len(records)} contents of {length} bytes are in the cache of {home}")
            record = records[0]
            chunks = await _alter(cache, identity, record)
        finally:
            await cache.close()
    finally:
        workers.close()
    return {"peer_id": identity.peer_id, "content_id": record.content_id, "chunks": chunks}


async def _alter(cache: PeerCache, identity: Identity, record: CacheRecord) -> list[int]:
    entry = cache.find(record.content_id)
    assert entry is not None
    layout = entry.layout
    step = max(1, layout.count // FORGED_CHUNKS)
    chunks = list(range(step // 2, layout.count, step))[:FORGED_CHUNKS]
    for chunk in chunks:
        await _alter_chunk(cache, identity, (record, layout, ChunkIndex(chunk)))
    return chunks


async def _alter_chunk(
    cache: PeerCache, identity: Identity, what: tuple[CacheRecord, ChunkLayout, ChunkIndex]
) -> None:
    record, layout, chunk = what
    item = layout.range_of(chunk)
    await cache.ensure_checked(record.content_id, chunk, chunk)
    altered = bytearray(cache.read(record.content_id, item))
    altered[len(altered) // 2] ^= 0xFF
    digest = blake3(altered).digest()
    ids = (record.content_id, *record.aliases)
    with tempfile.TemporaryFile() as copy:
        os.pwrite(copy.fileno(), altered, item.start)
        await cache.add_chunk(
            NewChunk(
                content_ids=ids,
                layout=layout,
                chunk=chunk,
                digest=digest,
                vouchers=tuple(identity.vouch(each, chunk, digest) for each in ids),
                source_fd=copy.fileno(),
            )
        )


def main(arguments: list[str]) -> int:
    """The exit code."""
    home, length = arguments
    try:
        done = asyncio.run(forge(Path(home), os.environ["NEARFETCH_GROUP_KEY"], int(length)))
    except LookupError as error:
        print(f"forge: {error}", file=sys.stderr)
        return 1
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
