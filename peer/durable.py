"""Every durable file operation: open for writing, rename, unlink, fsync, link.

No other module makes these calls, so that one place knows their order and one place can be watched or broken
in tests: callers write `durable.rename(...)` (module attribute), never `from peer.durable import rename`.
All functions block and raise OSError; call them in a worker thread. Names are single components looked up in an
open directory, so that nobody can move the path under us.
Never knows: what the files mean, digests, databases, jobs.

Sources: fsync(2), rename(2), ioctl_ficlonerange(2), sync_file_range(2), fallocate(2); fcntl(2) of macOS for
F_FULLFSYNC; reliability notes 2.2-2.3 for why each order is as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
import struct
import sys
from pathlib import Path

COPY_BYTES = 1024 * 1024
"""Buffer of the plain copy loop."""

NAME_MAX = 255
"""Bytes in one path component, on every file system we know (ext4, XFS, btrfs, APFS; limits.h)."""

_FICLONERANGE = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range), 32 bytes
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_TMPFS_MAGIC = 0x01021994  # linux/magic.h
_STATFS_BYTES = 256  # more than struct statfs has on any architecture
_RENAME_NOREPLACE = 1  # linux/fs.h
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # linux/falloc.h

_NO_CLONE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM})
_NO_RESERVE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})


def open_directory(path: str | os.PathLike[str]) -> int:
    """A descriptor of an existing directory. Raises NotADirectoryError, FileNotFoundError, PermissionError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def create_file(directory_fd: int, name: str, mode: int = 0o600) -> int:
    """A new, empty file open for reading and writing. Raises FileExistsError, also for a symbolic link."""
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=directory_fd)


def open_file(directory_fd: int, name: str) -> int:
    """An existing file, open for reading and writing. A symbolic link raises OSError(ELOOP)."""
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)


def open_or_create_file(directory_fd: int, name: str, mode: int = 0o600) -> int:
    """The file of that name, made empty when it is missing, open for reading and writing."""
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
    return os.open(name, flags, mode, dir_fd=directory_fd)


def sync_data(fd: int) -> None:
    """Data, and the size needed to read it back, are on the disk. A failure must not be retried on this fd."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_file(fd: int) -> None:
    """As `sync_data`, and mode and times as well."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_directory(fd: int) -> None:
    """Names made, changed and removed in the directory are on the disk (where the file system can say so)."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: this file system has no such operation on directories
            raise


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing these bytes out now, so that the next sync finds little left to do.

    A hint without any guarantee; does nothing where the system has no such call. Raises nothing.
    """
    if sys.platform == "linux" and length > 0:
        _libc().sync_file_range(
            ctypes.c_int(fd),
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
            ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
        )


def reserve(fd: int, length: int) -> None:
    """Take the disk space for `length` bytes now; the file's size becomes at least that.

    Raises OSError(ENOSPC) and the like (part of the space may then be taken: truncate or remove the file). Where
    the file system cannot reserve, it does nothing. The plain system call is used, because glibc's
    posix_fallocate would write a byte into every block instead of saying that it cannot. On tmpfs it would
    clear all pages before the first byte can come (a quarter of a second a GiB, measured), which writing does as
    well: there the space is only counted.
    """
    if sys.platform == "linux" and length > 0 and _in_memory(fd):
        _extend(fd, length)
    elif sys.platform == "linux" and length > 0:
        while _libc().fallocate(ctypes.c_int(fd), ctypes.c_int(0), ctypes.c_int64(0), ctypes.c_int64(length)):
            code = ctypes.get_errno()
            if code in _NO_RESERVE:
                return
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))


def _extend(fd: int, length: int) -> None:
    found, volume = os.fstat(fd), os.fstatvfs(fd)
    if length - found.st_blocks * 512 > volume.f_bavail * volume.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if found.st_size < length:
        os.ftruncate(fd, length)


def _in_memory(fd: int) -> bool:
    """The file lies on tmpfs (statfs(2): `f_type`, the first word of the structure)."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc().fstatfs(ctypes.c_int(fd), buffer) != 0:
        return False
    return int.from_bytes(buffer.raw[: struct.calcsize("l")], sys.byteorder) == _TMPFS_MAGIC


def release(fd: int, offset: int, length: int) -> None:
    """Give the disk space of these bytes back; they read as zeros then. A hint: some systems cannot."""
    if sys.platform == "linux" and length > 0:
        _libc().fallocate(
            ctypes.c_int(fd), ctypes.c_int(_PUNCH_HOLE_KEEP_SIZE), ctypes.c_int64(offset), ctypes.c_int64(length)
        )


def rename(directory_fd: int, source: str, target: str) -> None:
    """Give `source` the name `target` in the same directory, replacing a file of that name atomically."""
    os.rename(source, target, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def link_new(directory_fd: int, source: str, target: str) -> None:
    """Give `source` a second name `target` in the same directory. Raises FileExistsError, never replaces."""
    os.link(source, target, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=False)


def rename_new(directory_fd: int, source: str, target: str) -> None:
    """Give `source` the name `target` in the same directory. Raises FileExistsError, never replaces.

    In one step where the system can. Else by a second name whose first one then goes: an interruption may leave
    both names for the one file.
    """
    if sys.platform == "linux":
        names = (ctypes.c_char_p(os.fsencode(source)), ctypes.c_char_p(os.fsencode(target)))
        directory = ctypes.c_int(directory_fd)
        code = 0
        if _libc().renameat2(directory, names[0], directory, names[1], ctypes.c_uint(_RENAME_NOREPLACE)) != 0:
            code = ctypes.get_errno()
        if code not in (0, errno.EINVAL, errno.ENOSYS):  # these two: this file system or kernel has no such call
            raise OSError(code, os.strerror(code), source, None, target)
        if code == 0:
            return
    link_new(directory_fd, source, target)
    remove(directory_fd, source)


def remove(directory_fd: int, name: str) -> None:
    """Unlink; a missing file is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory_fd)


def truncate(fd: int, length: int) -> None:
    """Set the file's size in bytes."""
    os.ftruncate(fd, length)


def write_atomically(path: str | os.PathLike[str], data: bytes, mode: int = 0o600) -> None:
    """The file at `path` holds its former content or all of `data`, whatever happens meanwhile."""
    target = Path(path)
    directory = open_directory(target.parent)
    try:
        temporary = temporary_name(target.name)
        fd = create_file(directory, temporary, mode)
        try:
            try:
                pwrite_all(fd, data, 0)
                os.fchmod(fd, mode)
                sync_file(fd)
            finally:
                os.close(fd)
            rename(directory, temporary, target.name)
        except BaseException:
            remove(directory, temporary)
            raise
        sync_directory(directory)
    finally:
        os.close(directory)


def temporary_name(base: str) -> str:
    """A name for a temporary file beside `base`: hidden, random, never longer than a name may be."""
    return f".{cut_name(base, NAME_MAX - 14)}.{secrets.token_hex(4)}.tmp"


def cut_name(name: str, limit: int) -> str:
    """As much of `name` as fits `limit` bytes, without cutting a character in two."""
    raw = os.fsencode(name)
    if len(raw) <= limit:
        return name
    end = limit
    while end > 0 and raw[end] & 0xC0 == 0x80:  # a UTF-8 continuation byte (RFC 3629 §3)
        end -= 1
    return os.fsdecode(raw[: end or limit])


def clone_or_copy(source_fd: int, source_offset: int, target_fd: int, target_offset: int, length: int) -> None:
    """Copy bytes from file to file: shared blocks where the file system can, else in the kernel, else by hand.

    Raises OSError(EIO) when the source ends before `length` bytes. Offsets of the descriptors stay as they are.
    """
    if length <= 0 or _clone(source_fd, source_offset, target_fd, target_offset, length):
        return
    done = _copy_in_kernel(source_fd, source_offset, target_fd, target_offset, length)
    buffer = memoryview(bytearray(min(COPY_BYTES, length - done)))
    while done < length:
        count = os.preadv(source_fd, [buffer[: length - done]], source_offset + done)
        if count == 0:
            raise OSError(errno.EIO, "the file to copy from ended early")
        pwrite_all(target_fd, buffer[:count], target_offset + done)
        done += count


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls it takes."""
    rest = memoryview(data).cast("B")
    while rest.nbytes:
        count = os.pwrite(fd, rest, offset)
        if count == 0:
            raise OSError(errno.EIO, "the file system took no byte")
        offset += count
        rest = rest[count:]


def make_private_directory(path: str | os.PathLike[str]) -> None:
    """Make `path` (and missing parents) readable by its owner alone; one that exists is narrowed to 0700.

    Raises PermissionError when it belongs to another user, NotADirectoryError when it is something else.
    """
    directory = Path(path)
    missing = [item for item in (directory, *directory.parents) if not item.exists()]
    for item in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(item, 0o700)
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    if os.geteuid() not in (0, found.st_uid):
        raise PermissionError(errno.EPERM, "the directory belongs to another user", str(directory))
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(directory, 0o700)
    for item in missing:
        fd = open_directory(item.parent)
        try:
            sync_directory(fd)
        finally:
            os.close(fd)


def _clone(source_fd: int, source_offset: int, target_fd: int, target_offset: int, length: int) -> bool:
    if sys.platform == "linux":
        request = struct.pack("=qQQQ", source_fd, source_offset, length, target_offset)
        try:
            fcntl.ioctl(target_fd, _FICLONERANGE, request)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
        else:
            return True
    return False


def _copy_in_kernel(source_fd: int, source_offset: int, target_fd: int, target_offset: int, length: int) -> int:
    """Bytes that copy_file_range moved before it ended or gave up; the caller goes on by hand."""
    done = 0
    if sys.platform == "linux":
        try:
            while done < length:
                count = os.copy_file_range(
                    source_fd, target_fd, length - done, source_offset + done, target_offset + done
                )
                if count == 0:
                    break
                done += count
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
    return done


def _libc() -> ctypes.CDLL:
    """The C library this process runs on. Calls through it release the interpreter lock."""
    global _LIBC  # noqa: PLW0603  # opened at first use, then kept
    if _LIBC is None:
        _LIBC = ctypes.CDLL(None, use_errno=True)
    return _LIBC


_LIBC: ctypes.CDLL | None = None
