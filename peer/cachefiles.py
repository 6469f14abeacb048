"""The peer cache's object files: one sparse file a content, each chunk at its own offset, under a random name.

Everything here blocks and runs in worker threads. Never knows: content ids, vouchers, the index.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from peer import durable
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, bitfield
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

_READ_BYTES = 1024 * 1024
_KEPT_OPEN = 32
"""Files that stay open for the next read: opening one costs about as much as reading 64 KiB of it."""


class NotCached(LookupError):
    """Not (or no longer) all of the asked bytes are here, checked and good."""


@dataclass(slots=True)
class _Kept:
    """An open file. One that was dropped is closed by its last reader."""

    fd: int
    readers: int = 0
    dropped: bool = False


class _KeptOpen:
    """The files read last, still open. Any thread."""

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._lock = threading.Lock()  # held for a few instructions, and for an open
        self._files: OrderedDict[str, _Kept] = OrderedDict()

    def take(self, name: str) -> _Kept:
        """The file, open until it is given back. Raises NotCached, OSError."""
        with self._lock:
            kept = self._files.get(name)
            if kept is None:
                kept = self._files[name] = _Kept(_open(self._directory_fd, name))
                if len(self._files) > _KEPT_OPEN:
                    self._drop(next(iter(self._files)))
            else:
                self._files.move_to_end(name)
            kept.readers += 1
            return kept

    def give(self, kept: _Kept) -> None:
        """A reader is done with it."""
        with self._lock:
            kept.readers -= 1
            if kept.dropped and not kept.readers:
                os.close(kept.fd)

    def forget(self, names: Iterable[str]) -> None:
        """These are removed, or everything is closed: their space is free once nobody reads them any more."""
        with self._lock:
            for name in names:
                if name in self._files:
                    self._drop(name)

    def forget_all(self) -> None:
        """Close everything that nobody is reading."""
        self.forget(list(self._files))

    def _drop(self, name: str) -> None:
        kept = self._files.pop(name)
        kept.dropped = True
        if not kept.readers:
            os.close(kept.fd)


class ObjectFiles:
    """The directory of object files. Whoever makes it closes it."""

    def __init__(self, directory: Path) -> None:
        """Make or open it, private to its owner. Raises OSError."""
        durable.make_private_directory(directory)
        self._directory_fd = durable.open_directory(directory)
        self._kept = _KeptOpen(self._directory_fd)

    def close(self) -> None:
        """Harmless when repeated; calls that are still running must have ended."""
        self._kept.forget_all()
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
        kept = self._kept.take(name)
        try:
            data = os.pread(kept.fd, item.length, item.start)
            while len(data) < item.length:
                more = os.pread(kept.fd, item.length - len(data), item.start + len(data))
                if not more:
                    raise NotCached("the cached file ended early")
                data += more
        finally:
            self._kept.give(kept)
        return data

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
        names = list(names)
        self._kept.forget(names)
        for name in names:
            durable.remove(self._directory_fd, name)

    def _open(self, name: str) -> int:
        return _open(self._directory_fd, name)


def _open(directory_fd: int, name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
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
