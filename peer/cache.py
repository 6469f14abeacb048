"""The peer cache: verified chunks on disk, by content id.

A copy of its own (shared blocks where the file system can): what a user later does to a file never changes what
peers get. Chunks are not synced one by one; instead every chunk that an earlier process wrote is checked against
its digest before its first use in this one, and dropped when it does not match. Losing the cache loses nothing.
It accepts only what the caller says is verified, and never checks signatures.
Never knows: jobs, URLs, the network.

All methods belong to the event loop, but for `read`, which blocks and may be called in any thread.
Sources: architecture section 3; reliability 2.1 (D7), 2.3 (cache insert, evict); bits-reference 4.2.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer import cacheindex, durable
from peer.cachefiles import NotCached, ObjectFiles
from peer.cacheindex import ChunkRow, Record
from peer.core.eviction import EvictionLimits, Usage, choose, expired
from peer.core.voucher import PeerId, Voucher
from peer.database import Database, DatabaseOptions, Durability
from peer.workers import Workers
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, ContentId, bitfield, chunks_in
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

__all__ = ["CacheEntry", "CacheLimits", "CacheRecord", "NewChunk", "NotCached", "PeerCache"]

INDEX_NAME = "index.sqlite"
OBJECTS_NAME = "objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How much and how long. BITS: 1 % of the volume and 90 days since the last access (bits-reference 4.2)."""

    max_bytes: int | None = None
    max_share: float = 0.1
    """Of the disk's size; used when `max_bytes` is None."""
    max_age_s: float = 90 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """What the cache offers of one content, at the time of asking."""

    layout: ChunkLayout
    have: Bitfield
    """Chunks held, also those that are still to be checked before their first use."""
    content_ids: tuple[ContentId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A verified chunk to be copied in. `source_fd` holds its bytes at the same offset as in the content."""

    content_ids: tuple[ContentId, ...]
    """The content's ids (by URL, by digest): at least one; the first names it."""
    layout: ChunkLayout
    chunk: ChunkIndex
    digest: ChunkDigest
    vouchers: tuple[Voucher, ...]
    """Verified ones; those that name another chunk, digest or content are left out."""
    source_fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """One record as people see it. Times: seconds since 1970."""

    content_id: ContentId
    aliases: tuple[ContentId, ...]
    length: int
    chunks_held: int
    bytes_held: int
    last_access_at: float
    created_at: float


class PeerCache:
    """An open cache directory, which is this object's alone. `problems`: sentences about damage that was met."""

    def __init__(self, files: ObjectFiles, database: Database, limits: EvictionLimits, workers: Workers) -> None:
        """Use `open`."""
        self._files = files
        self._database = database
        self._limits = limits
        self._workers = workers
        self._clock: Callable[[], float] = float
        self._records: dict[int, Record] = {}
        self._by_id: dict[ContentId, Record] = {}
        self._next_key = 1
        self._closed = False
        self._withdrawals = 0
        self._withdrawn_at: dict[PeerId, int] = {}
        """Which withdrawal was the last for a signer: chunks that were being copied meanwhile lose its word too."""
        self.problems = database.problems

    @classmethod
    async def open(
        cls, directory: Path, limits: CacheLimits, workers: Workers, clock: Callable[[], float]
    ) -> PeerCache:
        """Open or make the cache; drops what expired and files that no record knows.

        `clock` gives seconds since 1970. Raises DatabaseError (in use, too new), OSError.
        """
        files, bounds = await workers.run(_prepare, directory, limits)
        try:
            options = DatabaseOptions(path=directory / INDEX_NAME, migrations=cacheindex.MIGRATIONS)
            database = await Database.open(options)
            try:
                self = cls(files, database, bounds, workers)
                self._clock = clock
                await self._load()
            except BaseException:
                await database.close()
                raise
        except BaseException:
            files.close()
            raise
        return self

    async def close(self) -> None:
        """Store the last accesses and close. Calls that are still running must have ended."""
        if self._closed:
            return
        self._closed = True
        await self._store_accesses()
        await self._database.close()
        self._files.close()

    @property
    def limit_bytes(self) -> int:
        """The most the cache may hold, in bytes."""
        return self._limits.max_bytes

    def find(self, content_id: ContentId) -> CacheEntry | None:
        """What is offered of this content; None when nothing is."""
        record = self._by_id.get(content_id)
        if record is None or record.have == NO_CHUNKS:
            return None
        return CacheEntry(layout=record.layout, have=record.have, content_ids=record.content_ids)

    def vouchers(self, content_id: ContentId, chunk: ChunkIndex) -> tuple[Voucher, ...]:
        """The chunk's vouchers that name exactly this content id (one for an alias proves its reader nothing)."""
        record = self._by_id.get(content_id)
        held = record.vouchers.get(chunk, ()) if record else ()
        return tuple(item for item in held if item.content_id == content_id)

    def digest_of(self, content_id: ContentId, chunk: ChunkIndex) -> ChunkDigest | None:
        """The digest the chunk was added with; None when it is not held."""
        record = self._by_id.get(content_id)
        return record.digests.get(chunk) if record else None

    def records(self) -> list[CacheRecord]:
        """Every record, oldest first."""
        return [
            CacheRecord(
                content_id=record.content_ids[0],
                aliases=record.content_ids[1:],
                length=record.layout.length,
                chunks_held=record.have.bit_count(),
                bytes_held=record.bytes_held,
                last_access_at=record.last_access_at,
                created_at=record.created_at,
            )
            for record in self._records.values()
            if record.have
        ]

    async def add_chunk(self, chunk: NewChunk) -> None:
        """Copy one verified chunk in, making room by dropping other records.

        Content larger than the whole cache is not taken, nor a chunk for which no room can be made. `source_fd`
        must stay open until this returns, also by cancellation. Raises OSError (no space), DatabaseError,
        ValueError (the content is already known with another layout).
        """
        item, began = chunk.layout.range_of(chunk.chunk), self._withdrawals
        if chunk.layout.length > self._limits.max_bytes:
            return
        record = self._record_for(chunk)
        if record.digests.get(chunk.chunk, chunk.digest) != chunk.digest:
            await self._lose(record, bitfield([chunk.chunk]))
        if record.leaving >> chunk.chunk & 1:
            return
        if not record.have >> chunk.chunk & 1:
            record.coming[chunk.chunk] = item.length
            try:
                if not await self._make_room():
                    return
                await self._workers.finish(self._copy_in, record, chunk.source_fd, item)
                if chunk.chunk not in record.coming:
                    return
            finally:
                record.coming.pop(chunk.chunk, None)
        await self._note(record, chunk, began)

    async def ensure_checked(self, content_id: ContentId, first: ChunkIndex, last: ChunkIndex) -> Bitfield:
        """Check the chunks `first` to `last` (both included) that this process has not checked yet.

        Returns those that are held and good; what does not match its digest is dropped.
        """
        record = self._by_id.get(content_id)
        if record is None:
            return NO_CHUNKS
        wanted = bitfield(range(first, min(last + 1, record.layout.count)))
        doubtful = Bitfield(record.have & ~record.checked & wanted)
        if doubtful:
            digests = {chunk: record.digests[chunk] for chunk in chunks_in(doubtful)}
            good = await self._workers.finish(self._files.matching, record.file, record.layout, digests)
            still = Bitfield(doubtful & record.have)
            record.checked = Bitfield(record.checked | good & still)
            if bad := Bitfield(still & ~good & ~record.checked):
                self.problems.append(
                    f"{bad.bit_count()} cached chunks of {content_id[:16]} were damaged and dropped"
                )
                await self._lose(record, bad)
        return Bitfield(record.checked & wanted)

    def read(self, content_id: ContentId, item: ByteRange) -> bytes:
        """The bytes of `item`; blocks, any thread. Raises NotCached unless `ensure_checked` found it all good."""
        record = self._usable(content_id, item)
        data = self._files.read(record.file, item)
        self._usable(content_id, item)  # dropped while we read: it may have been zeros already
        return data

    async def copy_out(self, content_id: ContentId, item: ByteRange, target_fd: int) -> None:
        """Copy `item` to the same place of another file, after checking it. Raises NotCached, OSError.

        `target_fd` must stay open until this returns, also by cancellation.
        """
        record = self._by_id.get(content_id)
        touched = record.layout.touched_by(item) if record else range(0)
        if touched:
            await self.ensure_checked(content_id, ChunkIndex(touched[0]), ChunkIndex(touched[-1]))
        await self._workers.finish(self._copy_out, content_id, item, target_fd)

    async def withdraw(self, content_id: ContentId) -> bool:
        """Drop the content under all its ids. False when it was not there."""
        record = self._by_id.get(content_id)
        if record is None:
            return False
        await self._drop([record])
        return True

    async def withdraw_chunks(self, content_id: ContentId, chunks: Bitfield) -> None:
        """Drop these chunks with their vouchers."""
        record = self._by_id.get(content_id)
        if record is not None:
            await self._lose(record, chunks)

    async def withdraw_vouched_by(self, signer: PeerId) -> int:
        """Forget all that `signer` said; chunks that rest on its word alone go. Returns how many went."""
        count = 0
        losses: list[tuple[Record, Bitfield]] = []
        self._withdrawals += 1
        self._withdrawn_at[signer] = self._withdrawals
        for record in self._records.values():
            alone = NO_CHUNKS
            for chunk, vouchers in list(record.vouchers.items()):
                others = tuple(item for item in vouchers if item.signer != signer)
                if vouchers and not others:
                    alone = Bitfield(alone | 1 << chunk)
                elif len(others) < len(vouchers):
                    record.vouchers[chunk] = others
            if alone:
                losses.append((record, alone))
                count += alone.bit_count()
        for record, alone in losses:
            await self._lose(record, alone)
        await self._change(lambda connection: cacheindex.delete_vouchers_of(connection, signer))
        return count

    async def clear(self) -> int:
        """Drop everything; returns how many records there were."""
        records = list(self._records.values())
        await self._drop(records)
        return len(records)

    async def tidy(self) -> int:
        """To be called now and then: drops what expired, stores last accesses. Returns how many records went."""
        aged = expired(self._usages(), self._clock(), self._limits)
        await self._drop([self._by_id[content_id] for content_id in aged])
        await self._store_accesses()
        return len(aged)

    def _record_for(self, chunk: NewChunk) -> Record:
        """The content's record, made when it is new, under all the ids given."""
        record = next((self._by_id[item] for item in chunk.content_ids if item in self._by_id), None)
        if record is None:
            now = self._clock()
            record = Record(
                key=self._next_key,
                file=secrets.token_hex(16),
                layout=chunk.layout,
                created_at=now,
                last_access_at=now,
                stored_access_at=now,
            )
            self._next_key += 1
            self._records[record.key] = record
        elif record.layout != chunk.layout:
            raise ValueError(f"{chunk.content_ids[0]} is cached as {record.layout}, not as {chunk.layout}")
        for content_id in chunk.content_ids:
            if content_id not in self._by_id:
                self._by_id[content_id] = record
                record.content_ids += (content_id,)
        return record

    async def _note(self, record: Record, chunk: NewChunk, began: int) -> None:
        """The chunk's bytes are here: hold it, and store that. `began`: withdrawals there were when it came."""
        named = tuple(
            item
            for item in chunk.vouchers
            if (item.chunk, item.digest) == (chunk.chunk, chunk.digest) and item.content_id in record.content_ids
        )
        kept = tuple(item for item in named if self._withdrawn_at.get(item.signer, 0) <= began)
        if record.gone or (named and not kept):
            return
        record.gain(chunk.chunk, chunk.digest)
        known = {(item.content_id, item.signer): item for item in (*record.vouchers.get(chunk.chunk, ()), *kept)}
        if known:
            record.vouchers[chunk.chunk] = tuple(known.values())
        row = ChunkRow(
            key=record.key,
            file=record.file,
            layout=record.layout,
            created_at=record.created_at,
            last_access_at=record.last_access_at,
            content_ids=record.content_ids,
            chunk=chunk.chunk,
            digest=chunk.digest,
            vouchers=kept,
        )
        await self._database.run(lambda connection: cacheindex.store_chunk(connection, row), Durability.NORMAL)

    async def _make_room(self) -> bool:
        drop = choose(self._usages(), 0, self._clock(), self._limits)
        if drop:
            await self._drop([self._by_id[content_id] for content_id in drop])
        return drop is not None

    def _usages(self) -> list[Usage]:
        return [
            Usage(
                content_id=record.content_ids[0],
                bytes_held=record.bytes_held + record.bytes_coming,
                last_access_at=record.last_access_at,
                busy=bool(record.coming),
            )
            for record in self._records.values()
        ]

    async def _lose(self, record: Record, chunks: Bitfield) -> None:
        """Drop chunks from memory at once, then from the index, then from the disk."""
        for chunk in [chunk for chunk in record.coming if chunks >> chunk & 1]:
            del record.coming[chunk]
        lost = record.lose(chunks)
        if not lost:
            return
        record.leaving = Bitfield(record.leaving | lost)
        try:
            rows = [(record.key, chunk) for chunk in chunks_in(lost)]
            await self._change(lambda connection: cacheindex.delete_chunks(connection, rows))
            items = [record.layout.range_of(chunk) for chunk in chunks_in(lost)]
            await self._workers.finish(self._files.release, record.file, items)
        finally:
            record.leaving = Bitfield(record.leaving & ~lost)

    async def _drop(self, records: Sequence[Record]) -> None:
        """Drop whole records from memory at once, then from the index, then from the disk."""
        if not records:
            return
        for record in records:
            record.gone = True
            record.lose(record.have)
            self._records.pop(record.key, None)
            for content_id in record.content_ids:
                self._by_id.pop(content_id, None)
        keys = [record.key for record in records]
        await self._change(lambda connection: cacheindex.delete_records(connection, keys))
        await self._workers.finish(self._files.remove, [record.file for record in records])

    async def _change(self, fn: Callable[[sqlite3.Connection], None]) -> None:
        """What is withdrawn stays withdrawn, also after a power loss."""
        await self._database.run(fn, Durability.FULL)

    async def _store_accesses(self) -> None:
        moved = [item for item in self._records.values() if item.last_access_at != item.stored_access_at]
        for record in moved:
            record.stored_access_at = record.last_access_at
        rows = [(record.stored_access_at, record.key) for record in moved]
        if rows:
            await self._database.run(
                lambda connection: cacheindex.store_accesses(connection, rows), Durability.NORMAL
            )

    async def _load(self) -> None:
        records = await self._database.run(cacheindex.load, Durability.NORMAL)
        files = await self._workers.run(self._files.names)
        for record in records:
            self._records[record.key] = record
            self._by_id.update(dict.fromkeys(record.content_ids, record))
        self._next_key = max(self._records, default=0) + 1
        await self._workers.run(self._files.remove, sorted(files - {record.file for record in records}))
        await self._drop(
            [item for item in records if not item.have or not item.content_ids or item.file not in files]
        )
        await self.tidy()

    def _usable(self, content_id: ContentId, item: ByteRange) -> Record:
        """The record, when all of `item` is held and checked. Any thread. Raises NotCached."""
        record = self._by_id.get(content_id)
        if record is None or item.stop > record.layout.length:
            raise NotCached(f"{content_id} is not cached up to byte {item.stop}")
        wanted = bitfield(record.layout.touched_by(item))
        if wanted & ~record.checked:
            raise NotCached(f"not all of [{item.start}, {item.stop}) of {content_id} is cached")
        record.last_access_at = self._clock()
        return record

    # These two block and run in worker threads.

    def _copy_in(self, record: Record, source_fd: int, item: ByteRange) -> None:
        self._files.copy_in(record.file, source_fd, item)
        if record.gone:
            self._files.remove([record.file])

    def _copy_out(self, content_id: ContentId, item: ByteRange, target_fd: int) -> None:
        record = self._usable(content_id, item)
        self._files.copy_out(record.file, item, target_fd)
        self._usable(content_id, item)


def _prepare(directory: Path, limits: CacheLimits) -> tuple[ObjectFiles, EvictionLimits]:
    durable.make_private_directory(directory)
    max_bytes = limits.max_bytes
    if max_bytes is None:
        volume = os.statvfs(directory)
        max_bytes = int(volume.f_blocks * volume.f_frsize * limits.max_share)
    return ObjectFiles(directory / OBJECTS_NAME), EvictionLimits(max_bytes=max_bytes, max_age_s=limits.max_age_s)
