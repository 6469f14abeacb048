"""The peer cache's object files: one sparse file a content, each chunk at its own offset, under a random name.

Everything here blocks and runs in worker threads. Never knows: content ids, vouchers, the index.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from blake3 import blake3

from peer import durable
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, bitfield
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

_READ_BYTES = 1024 * 1024


class NotCached(LookupError):
    """Not (or no longer) all of the asked bytes are here, checked and good."""


class ObjectFiles:
    """The directory of object files. Whoever makes it closes it."""

    def __init__(self, directory: Path) -> None:
        """Make or open it, private to its owner. Raises OSError."""
        durable.make_private_directory(directory)
        self._directory_fd = durable.open_directory(directory)

    def close(self) -> None:
        """Harmless when repeated; calls that are still running must have ended."""
        directory_fd, self._directory_fd = self._directory_fd, -1
        if directory_fd >= 0:
            os.close(directory_fd)

    def names(self) -> set[str]:
        """Every file there is."""
        return set(os.listdir(self._directory_fd))

    def copy_in(self, name: str, source_fd: int, item: ByteRange) -> None:
        """Take `item` from the same place of another file; the object file is made when it is missing."""
        fd = durable.open_or_create_file(self._directory_fd, name)
        try:
            durable.clone_or_copy(source_fd, item.start, fd, item.start, item.length)
        except BaseException:
            durable.release(fd, item.start, item.length)
            raise
        finally:
            os.close(fd)

    def copy_out(self, name: str, item: ByteRange, target_fd: int) -> None:
        """Copy `item` to the same place of another file. Raises NotCached, OSError."""
        fd = self._open(name)
        try:
            durable.clone_or_copy(fd, item.start, target_fd, item.start, item.length)
        finally:
            os.close(fd)

    def read(self, name: str, item: ByteRange) -> bytes:
        """The bytes of `item`. Raises NotCached when they are not all there, OSError."""
        data = bytearray(item.length)
        view, done = memoryview(data), 0
        fd = self._open(name)
        try:
            while done < item.length:
                count = os.preadv(fd, [view[done:]], item.start + done)
                if count == 0:
                    raise NotCached("the cached file ended early")
                done += count
        finally:
            os.close(fd)
        return bytes(data)

    def matching(self, name: str, layout: ChunkLayout, digests: Mapping[ChunkIndex, ChunkDigest]) -> Bitfield:
        """Those of the chunks whose bytes on disk have their digest. Bytes that cannot be read do not match."""
        buffer = memoryview(bytearray(_READ_BYTES))
        try:
            fd = self._open(name)
        except (NotCached, OSError):
            return NO_CHUNKS
        try:
            return bitfield(
                chunk for chunk, digest in digests.items() if _digest(fd, layout.range_of(chunk), buffer) == digest
            )
        finally:
            os.close(fd)

    def release(self, name: str, items: Iterable[ByteRange]) -> None:
        """Give the space of these bytes back, where the file system can."""
        try:
            fd = durable.open_file(self._directory_fd, name)
        except OSError:
            return  # gone already: nothing is left to give back
        try:
            for item in items:
                durable.release(fd, item.start, item.length)
        finally:
            os.close(fd)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are fine."""
        for name in names:
            durable.remove(self._directory_fd, name)

    def _open(self, name: str) -> int:
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory_fd)
        except FileNotFoundError as error:
            raise NotCached("the cached file is gone") from error


def _digest(fd: int, item: ByteRange, buffer: memoryview) -> ChunkDigest | None:
    """BLAKE3 of the bytes on disk; None when they cannot be read."""
    state, offset = blake3(), item.start
    try:
        while offset < item.stop:
            count = os.preadv(fd, [buffer[: min(buffer.nbytes, item.stop - offset)]], offset)
            if count == 0:
                return None
            state.update(buffer[:count])
            offset += count
    except OSError:
        return None
    return state.digest()
