"""Reading a candidate's file, for the plug-ins of this package.

Opens regular files only, so that neither a symbolic link nor a pipe that took the file's place is followed or
waited for. Never knows: what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from validation.validator import Patience

BLOCK_BYTES = 1024 * 1024


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the regular file at `path`, for reading; closed at the end. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield fd
    finally:
        os.close(fd)


def blocks(path: Path, patience: Patience) -> Iterator[memoryview]:
    """The file's bytes, up to 1 MiB at a time; each block is valid until the next one is asked for.

    Raises OSError, and ValidationStopped between two blocks.
    """
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with opened(path) as fd:
        patience.check()
        while count := os.readv(fd, [buffer]):
            yield buffer[:count]
            patience.check()
