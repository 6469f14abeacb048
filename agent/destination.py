"""Where and how a download is to appear: can it, and if not, what should the user do?

Every refusal is a DestinationError: one sentence that names the path and says what to do.
Never knows: jobs, sources, temporary files.

Sources: reliability 3.3 rows 81-83 and 97; path_resolution(7), rename(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from agent.errors import DestinationError
from peer import durable

MISSING, INVALID, EXISTS = "DESTINATION_MISSING", "DESTINATION_INVALID", "DESTINATION_EXISTS"
DENIED, FULL = "PERMISSION_DENIED", "DISK_FULL"

_CODES = {
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EROFS: DENIED,
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.ELOOP: INVALID,
    errno.ENAMETOOLONG: INVALID,
    errno.EISDIR: INVALID,
    errno.EEXIST: EXISTS,
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
}


class Overwrite(Enum):
    """What happens to a file that already has the destination's name."""

    REPLACE = "replace"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """How the finished file is to appear."""

    base: str
    """Its name in the directory it already lies in."""
    mode: int
    """Permission bits; see `mode_by_umask`."""
    modified_at: float | None = None
    """Seconds since 1970; None leaves the time of the last write."""
    overwrite: Overwrite = Overwrite.REPLACE


def check_destination(path: Path) -> None:
    """Raise DestinationError when no file could be made visible at `path`; blocks.

    Nothing is created or changed. An existing file is fine: what to do with it is decided when the job completes.
    """
    base = path.name
    if not path.is_absolute():
        raise DestinationError(f"{show(path)} is a relative path: give the whole path, from / on", code=INVALID)
    if not base or base == ".." or "\0" in str(path):
        raise DestinationError(f"{show(path)} names no file: add a file name to it", code=INVALID)
    directory = open_destination(path.parent)
    try:
        if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise DestinationError(
                f"no permission to write into {show(path.parent)}: change its permissions, or choose another one",
                code=DENIED,
            )
        check_target(directory, path.parent, base)
    finally:
        os.close(directory)


def open_destination(directory: Path) -> int:
    """A descriptor of the destination's directory. Raises DestinationError when there is none."""
    try:
        return durable.open_directory(directory)
    except FileNotFoundError as error:
        raise DestinationError(
            f"the directory {show(directory)} does not exist: create it, or choose another one", code=MISSING
        ) from error
    except NotADirectoryError as error:
        raise DestinationError(
            f"{show(directory)} is not a directory: choose a directory that exists", code=MISSING
        ) from error
    except OSError as error:
        raise destination_error(error, directory) from error


def check_target(directory_fd: int, directory: Path, base: str) -> None:
    """Raise DestinationError when `base` is something in this directory that no file can replace."""
    path = directory / base
    try:
        mode = os.stat(base, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DestinationError(
                f"the file name of {show(path)} is too long for this file system "
                f"({len(os.fsencode(base))} bytes): choose a shorter one",
                code=INVALID,
            ) from error
        raise destination_error(error, path) from error
    if stat.S_ISDIR(mode):
        raise DestinationError(f"{show(path)} is a directory: add a file name to it", code=INVALID)
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise DestinationError(f"{show(path)} is a device, pipe or socket: choose another name", code=INVALID)


def is_published(directory: Path, base: str, inode: int) -> bool:
    """True when the file with this inode number has the name `base`: a publish that was cut off did happen."""
    try:
        found = os.stat(directory / base, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_ino == inode


def mode_by_umask() -> int:
    """Permission bits an ordinary program would give a new file. Ask before narrowing the process's own umask."""
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/self/status", encoding="ascii", errors="replace") as file,
    ):
        for line in file:
            if line.startswith("Umask:"):
                return 0o666 & ~int(line.split()[1], 8)
    mask = os.umask(0o077)  # the only portable way to read it is to set it
    os.umask(mask)
    return 0o666 & ~mask


def destination_error(error: OSError, path: Path) -> DestinationError:
    """What the system said about `path`, as a sentence for the user with the errno's name."""
    name = errno.errorcode.get(error.errno or 0, "?")
    return DestinationError(
        f"cannot write {show(path)}: {os.strerror(error.errno or 0)} ({name})",
        code=_CODES.get(error.errno or 0, "IO_ERROR"),
    )


def show(path: Path) -> str:
    """The path as one printable line: control characters and bytes that are no UTF-8 escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
