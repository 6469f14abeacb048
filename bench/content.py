"""Content for the demo and the bench: an archive of this Python's standard library, and bytes like no others.

Everything here blocks. Never knows: agents, servers.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

MIN_ARCHIVE_BYTES = 30_000_000
MAX_ARCHIVE_BYTES = 120_000_000
PIECE_BYTES = 1024 * 1024
ARCHIVE_NAME = f"python{sys.version_info.major}.{sys.version_info.minor}-stdlib.tar"

_LATER = ("__pycache__", "test", "tests", "idle_test")
"""Parts of the library that are taken only when the rest is smaller than `MIN_ARCHIVE_BYTES`."""

_NEVER = ("site-packages", "dist-packages")


def archive_of_the_library(target: Path) -> int:
    """Write the running Python's own standard library as an uncompressed tar; its size in bytes.

    Between `MIN_ARCHIVE_BYTES` and about `MAX_ARCHIVE_BYTES` where the library allows it.
    """
    root = Path(sysconfig.get_path("stdlib"))
    with tarfile.open(target, "w") as archive:
        for parts in (_files(root, later=False), _files(root, later=True)):
            if archive.offset >= MIN_ARCHIVE_BYTES:
                break
            for file in parts:
                if archive.offset + file.stat().st_size > MAX_ARCHIVE_BYTES:
                    continue
                archive.add(file, arcname=str(Path("lib") / file.relative_to(root)), recursive=False)
    return target.stat().st_size


def random_file(target: Path, size: int) -> str:
    """Write `size` random bytes, which nobody can have seen before; their SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            piece = os.urandom(min(PIECE_BYTES, size - start))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def seeded_file(target: Path, size: int, seed: str) -> str:
    """Write `size` bytes that the seed alone decides; their SHA-256 in hexadecimal."""
    rng, digest = random.Random(seed), hashlib.sha256()
    with target.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            piece = rng.randbytes(min(PIECE_BYTES, size - start))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def altered_copy(source: Path, target: Path) -> None:
    """A copy with one byte changed in the middle."""
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 0xFF
    target.write_bytes(data)


def sha256_of(file: Path) -> str:
    """In hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _files(root: Path, *, later: bool) -> Iterator[Path]:
    """Readable plain files in a fixed order: either those of `_LATER` directories, or all others."""
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _NEVER)
        inside = Path(directory).relative_to(root).parts
        if any(part in _LATER for part in inside) != later:
            continue
        for name in sorted(files):
            file = Path(directory, name)
            if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK):
                yield file
