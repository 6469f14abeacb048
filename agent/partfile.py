"""The temporary file of one download, beside its destination until it is published.

It lies in the destination's directory, so that publishing is one rename. The directory stays open for the file's
life and every name is looked up in it: what happens to the path meanwhile cannot lead us elsewhere.
All methods block; call them in worker threads, several at once if you like. `close` waits for the calls that are
still inside, so no late write can meet a descriptor that was given to another file.
Never knows: digests to compare with, sources, jobs, which bytes are held.

Sources: reliability 2.1 (D1, D3), 2.3 (rules r1-r6, Complete steps 1-5), 3.3 rows 74-82.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from blake3 import blake3

from agent.destination import (
    EXISTS,
    FULL,
    MISSING,
    Overwrite,
    Publication,
    check_destination,
    check_target,
    destination_error,
    is_published,
    mode_by_umask,
    open_destination,
    show,
)
from agent.errors import DestinationError
from agent.partnames import create_unique
from peer import durable
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

__all__ = [
    "Overwrite",
    "PartFile",
    "PartFileLost",
    "Publication",
    "check_destination",
    "is_published",
    "mode_by_umask",
]

READ_BYTES = 1024 * 1024
"""The buffer each thread reads back through."""

_buffers = threading.local()


class PartFileLost(Exception):
    """The temporary file is gone or is not the one we made: nothing of it can be used. The text says why."""


class PartFile:
    """An open temporary file. Make one with `create` or `reopen`; whoever makes it closes it."""

    def __init__(self, directory: Path, directory_fd: int, name: str, fd: int) -> None:
        """Use `create` or `reopen`."""
        found, there = os.fstat(fd), os.fstat(directory_fd)
        self._begin(directory, name, (found.st_dev, found.st_ino))
        self.fd = fd
        """For reading by others; see `borrowed`."""
        self._directory_fd = directory_fd
        self._place = (there.st_dev, there.st_ino)

    def _begin(self, directory: Path, name: str, which: tuple[int, int]) -> None:
        self.directory = directory
        self.name = name
        """The temporary name; after `publish` the published one."""
        self.device, self.inode = which
        self._inside = 0
        self._change = threading.Condition()
        self._closed = False
        self._resting = False
        self._suspect = False
        self._published = False

    @classmethod
    def create(cls, directory: Path, base: str, tag: str, length: int | None) -> PartFile:
        """A new file for a download that will be called `base`, with the space for `length` bytes taken.

        `tag`: hexadecimal digits that tell jobs apart, the first 8 are used. Raises DestinationError (no such
        directory, no permission, no space), OSError for failures of the disk; nothing is left behind then.
        """
        directory_fd = open_destination(directory)
        try:
            name, fd = create_unique(directory_fd, directory, base, tag)
            try:
                _take_space(fd, directory / base, length)
                durable.sync_directory(directory_fd)
                return cls(directory, directory_fd, name, fd)
            except BaseException:
                os.close(fd)
                durable.remove(directory_fd, name)
                raise
        except BaseException:
            os.close(directory_fd)
            raise

    @classmethod
    def reopen(cls, directory: Path, temp_name: str, device: int, inode: int, at_least: int) -> PartFile:
        """The file made earlier, after checking that it is the same one and has `at_least` bytes.

        A file with reserved space has its full size from the start: the size proves nothing about what is in it.
        `device` is not compared: device numbers change between boots (device mapper, btrfs), and the random name
        with the inode number is proof enough. Raises PartFileLost (missing, another file, symbolic link, shorter),
        DestinationError (the directory is away).
        """
        directory_fd = open_destination(directory)
        try:
            fd = _open_same(directory_fd, directory / temp_name, temp_name)
            try:
                found = os.fstat(fd)
                _check_same(found, directory / temp_name, inode, at_least)
                return cls(directory, directory_fd, temp_name, fd)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            os.close(directory_fd)
            raise

    @classmethod
    def at_rest(cls, directory: Path, place: tuple[int, int], name: str, found: os.stat_result) -> PartFile:
        """A file made earlier, not opened: the next use does that, and looks whether it is still the same one.

        `place`: device and inode of the directory; `found`: what is there under the name.
        """
        self = cls.__new__(cls)
        self._begin(directory, name, (found.st_dev, found.st_ino))
        self.fd = self._directory_fd = -1
        self._place, self._resting = place, True
        return self

    @property
    def path(self) -> Path:
        """Where the file lies now (the temporary path until it is published)."""
        return self.directory / self.name

    @property
    def suspect(self) -> bool:
        """A sync failed: what was written since the last good one may be lost although reads still show it.

        The only way out: `close`, `reopen`, and write again everything since the last checkpoint.
        """
        return self._suspect

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[int]:
        """The descriptor, which stays open at least until the block ends.

        Raises ValueError after `close`; after `rest` also what `reopen` raises.
        """
        with self._change:
            if self._closed:
                raise ValueError(f"{self.name} is closed")
            if self._resting:
                self._wake()
            self._inside += 1
        try:
            yield self.fd
        finally:
            with self._change:
                self._inside -= 1
                self._change.notify_all()

    def write(self, offset: int, data: memoryview) -> None:
        """Store all of `data` at `offset`. Raises OSError (ENOSPC, EFBIG, EIO …)."""
        with self.borrowed() as fd:
            durable.pwrite_all(fd, data, offset)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns how many bytes there were, fewer only at the end of the file."""
        with self.borrowed() as fd:
            return _read_into(fd, offset, buffer)

    def pread(self, item: ByteRange) -> bytes:
        """The bytes of `item`. Raises OSError(EIO) when the file ends before."""
        data = bytearray(item.length)
        if self.read_into(item.start, memoryview(data)) != item.length:
            raise OSError(errno.EIO, f"{show(self.path)} ended before byte {item.stop}")
        return bytes(data)

    def digest_range(self, item: ByteRange) -> ChunkDigest:
        """BLAKE3 of the bytes of `item` as the file system gives them back. Raises OSError(EIO) at an early end."""
        state, buffer, offset = blake3(), _buffer(), item.start
        with self.borrowed() as fd:
            while offset < item.stop:
                piece = buffer[: min(READ_BYTES, item.stop - offset)]
                if _read_into(fd, offset, piece) != piece.nbytes:
                    raise OSError(errno.EIO, f"{show(self.path)} ended before byte {item.stop}")
                state.update(piece)
                offset += piece.nbytes
        return state.digest()

    def copy_from(self, source_fd: int, item: ByteRange) -> None:
        """Take the bytes of `item` from the same place of another file. Raises OSError."""
        with self.borrowed() as fd:
            durable.clone_or_copy(source_fd, item.start, fd, item.start, item.length)

    def sync(self) -> None:
        """Everything written before this call is on the disk when it returns (a checkpoint).

        Raises OSError; from then on the file is `suspect` and every later call raises too, without asking the
        disk: it would say yes and be wrong (reliability r5).
        """
        with self.borrowed() as fd:
            self._trusted(durable.sync_data, fd)

    def start_writeback(self, item: ByteRange) -> None:
        """Begin writing these bytes out, so that the next `sync` is short. A hint."""
        with self.borrowed() as fd:
            durable.start_writeback(fd, item.start, item.length)

    def truncate(self) -> None:
        """Forget every byte (record that none is held first). The reserved space goes too."""
        with self.borrowed() as fd:
            durable.truncate(fd, 0)

    def set_length(self, length: int) -> None:
        """Make the file exactly `length` bytes long, the space taken. Raises DestinationError (no space)."""
        with self.borrowed() as fd:
            before = os.fstat(fd).st_size
            try:
                _take_space(fd, self.path, length)
            except BaseException:
                durable.truncate(fd, before)
                raise
            durable.truncate(fd, length)

    def publish(self, publication: Publication) -> None:
        """Make the file visible under its name, complete and durable. The last thing done with it but `close`.

        Mode and times, sync, rename in the directory, sync of the directory. Raises DestinationError (the directory
        was moved or removed, the target is a directory, exists and is to be kept, permission), PartFileLost (the
        temporary name is gone or is another file), OSError. The file keeps its temporary name after each of them,
        but for an OSError of the very last step, after which `is_published` tells.
        """
        with self.borrowed() as fd:
            self._check_place(publication)
            try:
                os.fchmod(fd, stat.S_IMODE(publication.mode) & 0o777)
                if publication.modified_at is not None:
                    os.utime(fd, ns=(time.time_ns(), int(publication.modified_at * 1_000_000_000)))
                self._trusted(durable.sync_file, fd)
                self._rename(publication)
            except OSError as error:
                if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
                    raise
                raise destination_error(error, self.directory / publication.base) from error
            self.name, self._published = publication.base, True
            durable.sync_directory(self._directory_fd)

    def discard(self) -> None:
        """Remove the temporary file, if the name still belongs to it; nothing after `publish`. Raises OSError."""
        with self.borrowed():
            if not self._published and self._same_inode(self.name):
                durable.remove(self._directory_fd, self.name)
                durable.sync_directory(self._directory_fd)

    def close(self) -> None:
        """Wait until no call is inside, then close. The file stays. Harmless when repeated."""
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.wait_for(lambda: self._inside == 0)
            if self._resting:
                return
        os.close(self.fd)
        os.close(self._directory_fd)

    def rest(self) -> None:
        """Give the descriptors back until the file is used again; nothing while somebody uses it.

        Thousands of files may wait for the ends of their jobs, and a process has few descriptors.
        """
        with self._change:
            if self._closed or self._resting or self._inside:
                return
            self._resting = True
            os.close(self.fd)
            os.close(self._directory_fd)

    def _wake(self) -> None:
        """Open the same file in the same directory again."""
        directory_fd = open_destination(self.directory)
        try:
            there = os.fstat(directory_fd)
            if (there.st_dev, there.st_ino) != self._place:
                raise self._moved()
            fd = _open_same(directory_fd, self.path, self.name)
            try:
                _check_same(os.fstat(fd), self.path, self.inode, 0)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            os.close(directory_fd)
            raise
        self.fd, self._directory_fd, self._resting = fd, directory_fd, False

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _trusted(self, sync: Callable[[int], None], fd: int) -> None:
        if self._suspect:
            raise OSError(errno.EIO, f"an earlier sync of {show(self.path)} failed; nothing since can be believed")
        try:
            sync(fd)
        except OSError:
            self._suspect = True
            raise

    def _check_place(self, publication: Publication) -> None:
        """The directory is still where the user named it, the target can be replaced, the name is still ours."""
        wanted = self.directory / publication.base
        ours = os.fstat(self._directory_fd)
        try:
            there = os.stat(self.directory)
        except FileNotFoundError:
            there = None
        except OSError as error:
            raise destination_error(error, wanted) from error
        if there is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
            raise self._moved()
        check_target(self._directory_fd, self.directory, publication.base)
        if not self._same_inode(self.name):
            raise PartFileLost(f"{show(self.path)} was removed or replaced by another file")

    def _moved(self) -> DestinationError:
        return DestinationError(
            f"the directory {show(self.directory)} was moved, replaced or removed meanwhile: put it back",
            code=MISSING,
        )

    def _rename(self, publication: Publication) -> None:
        if publication.overwrite is Overwrite.REPLACE:
            durable.rename(self._directory_fd, self.name, publication.base)
        elif self._same_inode(publication.base):
            durable.remove(self._directory_fd, self.name)  # an earlier publish was cut off between its two names
        else:
            try:
                durable.rename_new(self._directory_fd, self.name, publication.base)
            except FileExistsError as error:
                path = show(self.directory / publication.base)
                raise DestinationError(
                    f"{path} already exists and is to be kept: move it away, then complete the job again",
                    code=EXISTS,
                ) from error

    def _same_inode(self, name: str) -> bool:
        try:
            found = os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


def _take_space(fd: int, path: Path, length: int | None) -> None:
    """Reserve, or at least count, the space for `length` bytes. Raises DestinationError(DISK_FULL), OSError."""
    if length is None:
        return
    volume = os.fstatvfs(fd)
    missing = length - os.fstat(fd).st_blocks * 512
    free = volume.f_bavail * volume.f_frsize
    try:
        if missing > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        durable.reserve(fd, length)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DestinationError(
            f"not enough space for {show(path)}: {missing} bytes are needed, {free} are free: free some space, or "
            f"choose another disk ({errno.errorcode[error.errno]})",
            code=FULL,
        ) from error


def _open_same(directory_fd: int, path: Path, name: str) -> int:
    try:
        return durable.open_file(directory_fd, name)
    except FileNotFoundError as error:
        raise PartFileLost(f"{show(path)} is gone") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise PartFileLost(f"{show(path)} is not a file any more ({errno.errorcode[error.errno]})") from error
        raise destination_error(error, path) from error


def _check_same(found: os.stat_result, path: Path, inode: int, at_least: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise PartFileLost(f"{show(path)} is not a file any more")
    if found.st_ino != inode:
        raise PartFileLost(f"{show(path)} is another file than the one we wrote")
    if found.st_size < at_least:
        raise PartFileLost(f"{show(path)} has {found.st_size} bytes, of {at_least} that were written")


def _read_into(fd: int, offset: int, buffer: memoryview) -> int:
    done = 0
    while done < buffer.nbytes:
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def _buffer() -> memoryview:
    found: memoryview | None = getattr(_buffers, "view", None)
    if found is None:
        found = _buffers.view = memoryview(bytearray(READ_BYTES))
    return found
