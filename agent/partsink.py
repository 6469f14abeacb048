"""Bytes of one request into the part file, and the digest of every chunk that they fill, in one go.

The bytes are hashed where they are written, while the processor still has them at hand: reading a chunk back for
its digest would cost one copy more. Offsets are those of the part file; a job that asks for ranges has remote ones
too, which `ShiftedSink` knows. Runs in worker threads; never knows: jobs, sources, what a digest has to be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from agent.partfile import PartFile
from validation.content import ChunkIndex, ChunkLayout
from validation.digest import Algorithm, ChunkDigest, Hasher, hasher
from validation.ranges import ByteRange

WRITEBACK_BYTES = 16 * 1024 * 1024
"""The disk is told to begin after this many bytes, so that the sync at the end has little left to do."""
RESERVE_CHECK_BYTES = 16 * 1024 * 1024
RESERVE_BYTES = 1024 * 1024 * 1024
RESERVE_SHARE = 0.05
"""Content of unknown length may not take the last GiB, or the last 5 % of a smaller disk: it may be endless."""


class FreshDigests:
    """Digests of chunks as they were written in this process, for one part file.

    A chunk has one only if all of it was written by one request, and nothing was written over it since.
    """

    def __init__(self) -> None:
        self._found: dict[ChunkIndex, ChunkDigest] = {}

    def take(self, chunk: ChunkIndex) -> ChunkDigest | None:
        """The chunk's digest, once; None when it has to be read back."""
        return self._found.pop(chunk, None)

    def found(self, chunk: ChunkIndex, digest: ChunkDigest) -> None:
        """All of the chunk has just been written."""
        self._found[chunk] = digest

    def forget(self, chunk: ChunkIndex) -> None:
        """Something is about to be written into the chunk."""
        self._found.pop(chunk, None)


class PartSink:
    """A `Sink` (peer/sink.py) into a part file. `layout` None: the length is not known, nothing is hashed."""

    def __init__(
        self,
        part: PartFile,
        layout: ChunkLayout | None,
        fresh: FreshDigests,
        on_arrived: Callable[[ByteRange], None],
    ) -> None:
        self._part = part
        self._layout = layout
        self._fresh = fresh
        self._on_arrived = on_arrived
        self._behind: ByteRange | None = None
        self._hasher: Hasher | None = None
        self._hashed_to = -1

    def write(self, offset: int, data: memoryview) -> None:
        """In a worker thread, never twice at once."""
        stop = offset + data.nbytes
        if self._layout is None:
            if offset // RESERVE_CHECK_BYTES != stop // RESERVE_CHECK_BYTES:
                _leave_some_space(self._part)
            self._part.write(offset, data)
        else:
            for chunk in self._layout.touched_by(ByteRange(offset, stop)):
                self._fresh.forget(ChunkIndex(chunk))
            self._part.write(offset, data)
            self._hash(self._layout, offset, data)
        begun = self._behind.start if self._behind is not None else offset
        self._behind = ByteRange(begun, stop)
        if self._behind.length >= WRITEBACK_BYTES:
            self._part.start_writeback(self._behind)
            self._behind = None

    def arrived(self, item: ByteRange) -> None:
        """On the loop."""
        self._on_arrived(item)

    def _hash(self, layout: ChunkLayout, offset: int, data: memoryview) -> None:
        done = 0
        while done < data.nbytes:
            at = offset + done
            chunk = ChunkIndex(at // layout.chunk_bytes)
            whole = layout.range_of(chunk)
            count = min(whole.stop - at, data.nbytes - done)
            if at == whole.start:
                self._hasher = hasher(Algorithm.BLAKE3)
            elif at != self._hashed_to:
                self._hasher = None  # its beginning was written by another request
            if self._hasher is not None:
                self._hasher.update(data[done : done + count])
                if at + count == whole.stop:
                    self._fresh.found(chunk, self._hasher.digest())
            done += count
            self._hashed_to = offset + done


class ShiftedSink:
    """A `Sink` for a piece of a remote file whose bytes lie elsewhere in the part file."""

    def __init__(self, sink: PartSink, shift: int) -> None:
        """`shift`: local offset less remote offset."""
        self._sink = sink
        self._shift = shift

    def write(self, offset: int, data: memoryview) -> None:
        """In a worker thread, never twice at once."""
        self._sink.write(offset + self._shift, data)

    def arrived(self, item: ByteRange) -> None:
        """On the loop."""
        self._sink.arrived(ByteRange(item.start + self._shift, item.stop + self._shift))


def _leave_some_space(part: PartFile) -> None:
    with part.borrowed() as fd:
        volume = os.fstatvfs(fd)
    size, free = volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize
    if free < min(RESERVE_BYTES, int(size * RESERVE_SHARE)):
        raise OSError(errno.ENOSPC, "the content does not end, and the disk is nearly full")
