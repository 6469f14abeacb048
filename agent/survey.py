"""What an earlier process left on the disk of what its journal says. Asked once, for all jobs together.

Ten thousand files may be there, and an agent has to listen soon: each directory is listed at most once, and no
descriptor stays open. Blocks; never decides what becomes of a job.
Source: reliability 2.3 (Start), 3.3 row 80.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.destination import open_destination, show
from agent.errors import DestinationError
from agent.journal import FileKey, FileRecord
from agent.partfile import PartFile
from agent.partnames import remove_orphans


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One file's traces."""

    published: bool = False
    """The file at its destination is the one that was written."""
    part: PartFile | None = None
    """Its temporary file, at rest."""
    lost: str | None = None
    """Why the temporary file that was recorded cannot be used."""


def survey(rows: Iterable[FileRecord]) -> dict[FileKey, Seen]:
    """Look for the files of these rows, and remove temporary files that a kill left unrecorded."""
    by_directory: defaultdict[str, list[FileRecord]] = defaultdict(list)
    for row in rows:
        by_directory[row.directory].append(row)
    found = {}
    for name, inside in by_directory.items():
        for row, seen in _survey_one(Path(name), inside):
            found[FileKey(job_id=row.job_id, index=row.index)] = seen
        _sweep(Path(name), inside)
    return found


def _survey_one(directory: Path, rows: Iterable[FileRecord]) -> Iterator[tuple[FileRecord, Seen]]:
    try:
        directory_fd = open_destination(directory)
    except DestinationError as error:
        for row in rows:
            yield row, Seen(lost=None if row.temp_name is None else str(error))
        return
    try:
        there = os.fstat(directory_fd)
        for row in rows:
            yield row, _look(directory, directory_fd, (there.st_dev, there.st_ino), row)
    finally:
        os.close(directory_fd)


def _look(directory: Path, directory_fd: int, place: tuple[int, int], row: FileRecord) -> Seen:
    """By name and inode number; what is in a file, and whether it can be opened, is seen when it is used."""
    if row.inode is None:
        return Seen()
    if _same(_stat(row.base, directory_fd), row.inode):
        return Seen(published=True)
    if row.temp_name is None:
        return Seen()
    part, path = _stat(row.temp_name, directory_fd), show(directory / row.temp_name)
    if part is None:
        return Seen(lost=f"{path} is gone")
    if not _same(part, row.inode):
        return Seen(lost=f"{path} is another file than the one we wrote")
    return Seen(part=PartFile.at_rest(directory, place, row.temp_name, part))


def _stat(name: str, directory_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except OSError:
        return None


def _same(found: os.stat_result | None, inode: int) -> bool:
    return found is not None and stat.S_ISREG(found.st_mode) and found.st_ino == inode


def _sweep(directory: Path, rows: Iterable[FileRecord]) -> None:
    recorded = {row.temp_name for row in rows if row.temp_name is not None}
    wanted = [(row.base, row.job_id) for row in rows if row.temp_name is None]
    if wanted:
        remove_orphans(directory, wanted, recorded)
