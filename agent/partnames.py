"""The names of temporary files: `.<base, cut>.<8 digits of the job>.<8 random>.part`, beside the destination.

Made here, and found again here after a kill. Never knows: what is in a file, jobs.
Source: reliability 2.3, rule r6.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Container, Iterable
from pathlib import Path

from agent.destination import destination_error
from peer import durable

_NAME_ATTEMPTS = 8
"""Random names tried before giving up; one is enough unless the 32 random bits meet a file of that name."""
_RANDOM_BYTES = 4
_BEHIND = ".part"
_AROUND_BASE = len("..12345678.12345678") + len(_BEHIND)


def remove_orphans(directory: Path, wanted: Iterable[tuple[str, str]], recorded: Container[str] = ()) -> int:
    """Remove temporary files for these names and tags that nobody recorded: the process was killed between making
    one and recording it. Returns how many. The directory is listed once; one that is away holds none.

    `wanted`: base and tag of each; `recorded`: names that stay. Blocks; raises OSError.
    """
    try:
        directory_fd = durable.open_directory(directory)
    except OSError:
        return 0
    try:
        befores: set[str | None] = {_before(directory_fd, base, tag) for base, tag in wanted}
        found = [name for name in os.listdir(directory_fd) if name not in recorded and _beginning(name) in befores]
        for name in found:
            durable.remove(directory_fd, name)
        return len(found)
    finally:
        os.close(directory_fd)


def _beginning(name: str) -> str | None:
    """What stands before the random part; None when this is no name of ours."""
    stem = name.removesuffix(_BEHIND)
    digits = stem[-2 * _RANDOM_BYTES :]
    ours = stem != name and len(digits) == 2 * _RANDOM_BYTES and set(digits) <= set("0123456789abcdef")
    return stem[: -2 * _RANDOM_BYTES] if ours else None


def _before(directory_fd: int, base: str, tag: str) -> str:
    try:
        longest = os.fpathconf(directory_fd, "PC_NAME_MAX")
    except (OSError, ValueError):
        longest = durable.NAME_MAX
    stem = durable.cut_name(base, longest - _AROUND_BASE)
    return f".{stem}.{tag[:8]:0>8}."


def create_unique(directory_fd: int, directory: Path, base: str, tag: str) -> tuple[str, int]:
    """A new file with a temporary name: the name and its descriptor. Raises DestinationError, FileExistsError."""
    before = _before(directory_fd, base, tag)
    for _ in range(_NAME_ATTEMPTS):
        name = f"{before}{secrets.token_hex(_RANDOM_BYTES)}{_BEHIND}"
        try:
            return name, durable.create_file(directory_fd, name)
        except FileExistsError:
            continue
        except OSError as error:
            raise destination_error(error, directory / name) from error
    raise FileExistsError(errno.EEXIST, "every temporary name tried is taken", str(directory / base))
