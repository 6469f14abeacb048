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

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from peer import cacheindex, durable
from peer.cachefiles import NotCached, ObjectFiles
from peer.cacheindex import ChunkRow, Record
from peer.cacheshelf import Shelf, shown
from peer.cachevalues import CacheEntry, CacheLimits, CacheRecord, Deletion, NewChunk
from peer.core.eviction import EvictionLimits, choose, shrink
from peer.core.voucher import PeerId, Voucher
from peer.database import Database, DatabaseOptions, Durability
from peer.workers import Workers
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ContentId, bitfield, chunks_in
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

__all__ = ["CacheEntry", "CacheLimits", "CacheRecord", "Deletion", "NewChunk", "NotCached", "PeerCache"]

INDEX_NAME = "index.sqlite"
OBJECTS_NAME = "objects"


class PeerCache:
    """An open cache directory, which is this object's alone. `problems`: sentences about damage that was met."""

    def __init__(
        self, directory: Path, files: ObjectFiles, database: Database, workers: Workers, clock: Callable[[], float]
    ) -> None:
        """Use `open`."""
        self._directory = directory
        self._files = files
        self._database = database
        self._workers = workers
        self._clock = clock
        self._limits = CacheLimits()
        self._bounds = EvictionLimits(max_bytes=0, max_age_s=0.0)
        self._shelf = Shelf()
        self._too_full = False
        """Records in use hold more than the limit: room is to be made when one is let go."""
        self._closed = False
        self._withdrawals = 0
        self._withdrawn_at: dict[PeerId, int] = {}
        """Which withdrawal was the last for a signer: chunks that were being copied meanwhile lose its word too."""
        self.problems = database.problems
        self.on_change: Callable[[ContentId], None] = lambda _: None
        """Called with every id of a content whose chunks came or went, once that is so for `find`."""

    @classmethod
    async def open(
        cls, directory: Path, limits: CacheLimits, workers: Workers, clock: Callable[[], float]
    ) -> PeerCache:
        """Open or make the cache; drops what expired and files that no record knows.

        `clock` gives seconds since 1970. Raises DatabaseError (in use, too new), OSError.
        """
        files = await workers.run(_prepare, directory)
        try:
            options = DatabaseOptions(path=directory / INDEX_NAME, migrations=cacheindex.MIGRATIONS)
            database = await Database.open(options)
            try:
                self = cls(directory, files, database, workers, clock)
                await self._load()
                await self.set_limits(limits)
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
    def limits(self) -> CacheLimits:
        """What was asked for."""
        return self._limits

    @property
    def limit_bytes(self) -> int:
        """The most the cache may hold, in bytes."""
        return self._bounds.max_bytes

    async def set_limits(self, limits: CacheLimits) -> None:
        """New limits hold at once: what is above them goes now, what is in use when it is no more."""
        bounds = await self._workers.run(_bounds_of, self._directory, limits)
        self._limits, self._bounds = limits, bounds
        await self.sweep()

    def find(self, content_id: ContentId) -> CacheEntry | None:
        """What is offered of this content; None when nothing is."""
        record = self._shelf.find(content_id)
        if record is None or record.have == NO_CHUNKS:
            return None
        return CacheEntry(layout=record.layout, have=record.have, content_ids=record.content_ids)

    def vouchers(self, content_id: ContentId, chunk: ChunkIndex) -> tuple[Voucher, ...]:
        """The chunk's vouchers that name exactly this content id (one for an alias proves its reader nothing)."""
        record = self._shelf.find(content_id)
        held = record.vouchers.get(chunk, ()) if record else ()
        return tuple(item for item in held if item.content_id == content_id)

    def resting_on(self, content_id: ContentId, signers: frozenset[PeerId]) -> Bitfield:
        """Chunks for which these vouch under this id, and nobody else."""
        record = self._shelf.find(content_id)
        return NO_CHUNKS if record is None else record.resting_on(content_id, signers)

    def digest_of(self, content_id: ContentId, chunk: ChunkIndex) -> ChunkDigest | None:
        """The digest the chunk was added with; None when it is not held."""
        record = self._shelf.find(content_id)
        return record.digests.get(chunk) if record else None

    def records(self) -> list[CacheRecord]:
        """Every record, oldest first."""
        return [shown(record) for record in self._shelf if record.have and not record.doomed]

    def record(self, content_id: ContentId) -> CacheRecord | None:
        """One record, by any of its ids; None when there is none."""
        record = self._shelf.find(content_id)
        return shown(record) if record is not None and record.have else None

    def hold(self, content_id: ContentId) -> Callable[[], bool]:
        """Somebody begins to use this content: until the returned function is called, once, it stays readable
        unless it is withdrawn. That function returns True when `sweep` is to be called soon."""
        record = self._shelf.get(content_id)
        if record is None:
            return _nothing_to_do
        record.users += 1

        def let_go() -> bool:
            record.users -= 1
            return self._is_left(record)

        return let_go

    async def add_chunk(self, chunk: NewChunk) -> None:
        """Copy one verified chunk in, making room by dropping other records.

        Content larger than the whole cache is not taken, nor a chunk for which no room can be made. `source_fd`
        must stay open until this returns, also by cancellation. Raises OSError (no space), DatabaseError,
        ValueError (the content is already known with another layout).
        """
        stored = await self.take_chunk(chunk)
        if stored is not None:
            await stored

    async def take_chunk(self, chunk: NewChunk) -> asyncio.Future[None] | None:
        """As `add_chunk`, but returns as soon as the chunk is there for everybody: what is returned tells when the
        index has it too, or raises DatabaseError. What is called after this comes after it in the index."""
        if chunk.layout.length > self._bounds.max_bytes:
            return None
        record = self._shelf.put(chunk.content_ids, chunk.layout, self._clock())
        if record is None:
            return None
        stored = await self._add(record, chunk)
        if self._is_left(record):
            await self.sweep()
        return stored

    async def ensure_checked(self, content_id: ContentId, first: ChunkIndex, last: ChunkIndex) -> Bitfield:
        """Check the chunks `first` to `last` (both included) that this process has not checked yet.

        Returns those that are held and good; what does not match its digest is dropped.
        """
        record = self._shelf.get(content_id)
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
        record = self._shelf.find(content_id)
        if record is None:
            raise NotCached(f"{content_id} is not cached")
        touched = record.layout.touched_by(item)
        let_go = self.hold(content_id)
        try:
            if touched:
                await self.ensure_checked(content_id, ChunkIndex(touched[0]), ChunkIndex(touched[-1]))
            await self._workers.finish(self._copy_out, content_id, item, target_fd)
        finally:
            left = let_go()
        if left:
            await self.sweep()

    async def withdraw(self, content_id: ContentId) -> bool:
        """Drop the content under all its ids. False when it was not there."""
        record = self._shelf.get(content_id)
        if record is None:
            return False
        await self._drop([record])
        return True

    async def withdraw_chunks(self, content_id: ContentId, chunks: Bitfield) -> None:
        """Drop these chunks with their vouchers."""
        record = self._shelf.get(content_id)
        if record is not None:
            await self._lose(record, chunks)

    async def withdraw_vouched_by(self, signer: PeerId) -> int:
        """Forget all that `signer` said; chunks that rest on its word alone go. Returns how many went."""
        count = 0
        losses: list[tuple[Record, Bitfield]] = []
        self._withdrawals += 1
        self._withdrawn_at[signer] = self._withdrawals
        for record in self._shelf:
            if not any(key[1] == signer for key in record.signed):
                continue
            if alone := record.forget_signer(signer):
                losses.append((record, alone))
                count += alone.bit_count()
            else:
                self._tell(record.content_ids)
        for record, alone in losses:
            await self._lose(record, alone)
        await self._change(lambda connection: cacheindex.delete_vouchers_of(connection, signer))
        return count

    async def delete(self, content_id: ContentId) -> Deletion:
        """Drop one record, by any of its ids, unless it is in use."""
        record = self._shelf.find(content_id)
        if record is not None and record.busy:
            return Deletion.BUSY
        if record is None or not record.have:
            return Deletion.UNKNOWN
        await self._drop([record])
        return Deletion.DELETED

    async def clear(self) -> int:
        """Drop everything; returns how many records there were. Nobody finds them any more, also after a restart;
        those in use can be read by who uses them until that ends."""
        records = [record for record in self._shelf if not record.doomed]
        count = sum(record.have != NO_CHUNKS for record in records)
        await self._retire(records)
        return count

    async def sweep(self) -> int:
        """Drop what is left behind by its last user, what expired, and what is above the limits; returns how many
        records went."""
        largest = self._bounds.max_bytes
        left = [record for record in self._shelf if record.doomed and not record.busy]
        too_large = [item for item in self._shelf if item.layout.length > largest and not item.doomed]
        await self._drop(left)
        await self._retire(too_large)
        drop = shrink(self._shelf.usages(), self._clock(), self._bounds)
        await self._drop_ids(drop)
        self._too_full = sum(item.bytes_held for item in self._shelf.usages()) > largest
        return len(left) + len(too_large) + len(drop)

    async def tidy(self) -> int:
        """To be called now and then: sweeps and stores last accesses. Returns how many records went."""
        count = await self.sweep()
        await self._store_accesses()
        return count

    async def _add(self, record: Record, chunk: NewChunk) -> asyncio.Future[None] | None:
        item, began = chunk.layout.range_of(chunk.chunk), self._withdrawals
        if record.digests.get(chunk.chunk, chunk.digest) != chunk.digest:
            await self._lose(record, bitfield([chunk.chunk]))
        if record.leaving >> chunk.chunk & 1:
            return None
        if not record.have >> chunk.chunk & 1:
            record.coming[chunk.chunk] = item.length
            try:
                if not await self._make_room():
                    return None
                await self._workers.finish(self._copy_in, record, chunk.source_fd, item)
                if chunk.chunk not in record.coming:
                    return None
            finally:
                record.coming.pop(chunk.chunk, None)
        return self._note(record, chunk, began)

    def _is_left(self, record: Record) -> bool:
        """Somebody has just let go of it: is there anything to sweep?"""
        return not record.busy and (record.doomed or self._too_full)

    def _note(self, record: Record, chunk: NewChunk, began: int) -> asyncio.Future[None] | None:
        """The chunk's bytes are here: hold it, and store that. `began`: withdrawals there were when it came."""
        named = tuple(
            item
            for item in chunk.vouchers
            if (item.chunk, item.digest) == (chunk.chunk, chunk.digest) and item.content_id in record.content_ids
        )
        kept = tuple(item for item in named if self._withdrawn_at.get(item.signer, 0) <= began)
        if record.gone or record.doomed or (named and not kept):
            return None
        record.gain(chunk.chunk, chunk.digest)
        self._tell(record.content_ids)
        record.hear(chunk.chunk, kept)
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
        return self._database.begin(
            lambda connection: cacheindex.store_chunk(connection, row), Durability.NORMAL, patient=True
        )

    async def _make_room(self) -> bool:
        drop = choose(self._shelf.usages(), 0, self._clock(), self._bounds)
        await self._drop_ids(drop or ())
        return drop is not None

    async def _drop_ids(self, content_ids: Sequence[ContentId]) -> None:
        await self._drop([record for item in content_ids if (record := self._shelf.get(item)) is not None])

    async def _retire(self, records: Sequence[Record]) -> None:
        """Drop whole records; those in use are doomed. None of them is found again."""
        busy = [record for record in records if record.busy]
        for record in busy:
            record.doomed = True
            self._tell(record.content_ids)
        await self._drop([record for record in records if not record.doomed], also_unlisted=busy)

    async def _lose(self, record: Record, chunks: Bitfield) -> None:
        """Drop chunks from memory at once, then from the index, then from the disk."""
        for chunk in [chunk for chunk in record.coming if chunks >> chunk & 1]:
            del record.coming[chunk]
        lost = record.lose(chunks)
        if not lost:
            return
        self._tell(record.content_ids)
        record.leaving = Bitfield(record.leaving | lost)
        try:
            rows = [(record.key, chunk) for chunk in chunks_in(lost)]
            await self._change(lambda connection: cacheindex.delete_chunks(connection, rows))
            items = [record.layout.range_of(chunk) for chunk in chunks_in(lost)]
            await self._workers.finish(self._files.release, record.file, items)
        finally:
            record.leaving = Bitfield(record.leaving & ~lost)

    async def _drop(self, records: Sequence[Record], also_unlisted: Sequence[Record] = ()) -> None:
        """Drop whole records from memory at once, then from the index, then from the disk. `also_unlisted` leave
        the index only."""
        if not records and not also_unlisted:
            return
        self._shelf.take_away(records)
        for record in records:
            self._tell(record.content_ids)
        keys = [record.key for record in (*records, *also_unlisted)]
        await self._change(lambda connection: cacheindex.delete_records(connection, keys))
        await self._workers.finish(self._files.remove, [record.file for record in records])

    async def _change(self, fn: Callable[[sqlite3.Connection], None]) -> None:
        """What is withdrawn stays withdrawn, also after a power loss."""
        await self._database.run(fn, Durability.FULL)

    def _tell(self, content_ids: tuple[ContentId, ...]) -> None:
        for content_id in content_ids:
            self.on_change(content_id)

    async def _store_accesses(self) -> None:
        moved = [item for item in self._shelf if item.last_access_at != item.stored_access_at]
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
        self._shelf.load(records)
        await self._workers.run(self._files.remove, sorted(files - {record.file for record in records}))
        await self._drop(
            [item for item in records if not item.have or not item.content_ids or item.file not in files]
        )

    def _usable(self, content_id: ContentId, item: ByteRange) -> Record:
        """The record, when all of `item` is held and checked. Any thread. Raises NotCached."""
        record = self._shelf.get(content_id)
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


def _prepare(directory: Path) -> ObjectFiles:
    durable.make_private_directory(directory)
    return ObjectFiles(directory / OBJECTS_NAME)


def _bounds_of(directory: Path, limits: CacheLimits) -> EvictionLimits:
    max_bytes = limits.max_bytes
    if max_bytes is None:
        volume = os.statvfs(directory)
        max_bytes = int(volume.f_blocks * volume.f_frsize * limits.max_share)
    return EvictionLimits(max_bytes=max_bytes, max_age_s=limits.max_age_s)


def _nothing_to_do() -> bool:
    return False
