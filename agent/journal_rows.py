"""The journal's rows about jobs: their values, and how they are written and read.

Functions on a connection, to be run by `Database.run`.
Never knows: rules of transition, what documents mean, files, clocks.

Sources: reliability 2.1 (D2, D3), 2.3.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from validation.ranges import ByteRange
from validation.rangeset import RangeSet

EVENTS_KEPT = 1000
"""Log lines kept for each job; the oldest go first."""

_RANGES_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job. Times: seconds since 1970. Documents are JSON that only the engine reads."""

    id: str
    """32 hexadecimal digits."""
    name: str
    state: str
    priority: str
    created_at: float
    modified_at: float
    completed_at: float | None = None
    settings: bytes = b"{}"
    """What the user asked for."""
    document: bytes = b"{}"
    """What the engine wants to find again: retries, deadlines, attempts to notify …"""
    error: bytes | None = None
    intent: str = "none"
    """`completing` and `cancelling` are stored before the first file is touched; see reliability 2.3 (r2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKey:
    """Names one file of one job; `index` counts from 0."""

    job_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a job. Names are kept byte for byte, also those that are no UTF-8 (surrogateescape)."""

    job_id: str
    index: int
    url: str
    directory: str
    base: str
    state: str
    temp_name: str | None = None
    device: int | None = None
    inode: int | None = None
    length: int | None = None
    """Bytes."""
    document: bytes = b"{}"
    """JSON of the engine: validators, facts, provenance …"""
    held: bytes = b""
    """Ranges written (`encode_ranges`); meaningful while `held_boot` is the current boot."""
    held_boot: str = ""
    durable: bytes = b""
    """Ranges known to be on the disk (`encode_ranges`)."""

    @property
    def key(self) -> FileKey:
        """What progress is noted for."""
        return FileKey(job_id=self.job_id, index=self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A job with its files in order of index."""

    job: JobRecord
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a job's log; `at` in seconds since 1970."""

    at: float
    text: str


def encode_ranges(ranges: RangeSet) -> bytes:
    """A RangeSet as bytes: a version, then start and stop of each range in order, 8 bytes each, little endian.

    Made often, with up to thousands of ranges, so fast before small.
    """
    numbers = [number for item in ranges for number in (item.start, item.stop)]
    return struct.pack(f"<B{len(numbers)}Q", _RANGES_VERSION, *numbers)


def decode_ranges(data: bytes) -> RangeSet:
    """Reverse of `encode_ranges`; no bytes are no ranges. Raises ValueError for what that never made."""
    if not data:
        return RangeSet()
    if data[0] != _RANGES_VERSION or len(data) % 16 != 1:
        raise ValueError(f"not a set of ranges ({len(data)} bytes of kind {data[0]})")
    numbers = struct.unpack(f"<{len(data) // 8}Q", data[1:])
    if any(before >= after for before, after in pairwise(numbers)):
        raise ValueError("ranges that touch, overlap or are empty")
    return RangeSet(ByteRange(start, stop) for start, stop in zip(numbers[::2], numbers[1::2], strict=True))


def save(connection: sqlite3.Connection, records: Iterable[JobRecord | FileRecord]) -> None:
    """Jobs first, so that they may come in any order. Progress is stored for new files only."""
    jobs: list[JobRecord] = []
    files: list[FileRecord] = []
    for record in records:
        if isinstance(record, JobRecord):
            jobs.append(record)
        else:
            files.append(record)
    for job in jobs:
        _save_job(connection, job)
    for file in files:
        _save_file(connection, file)


def _save_job(connection: sqlite3.Connection, job: JobRecord) -> None:
    connection.execute(
        "INSERT INTO jobs(id, name, state, priority, created_at, modified_at, completed_at, settings, document,"
        " error, intent) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
        " name = excluded.name, state = excluded.state, priority = excluded.priority,"
        " created_at = excluded.created_at, modified_at = excluded.modified_at,"
        " completed_at = excluded.completed_at, settings = excluded.settings,"
        " document = excluded.document, error = excluded.error, intent = excluded.intent",
        (
            job.id,
            os.fsencode(job.name),
            job.state,
            job.priority,
            job.created_at,
            job.modified_at,
            job.completed_at,
            job.settings,
            job.document,
            job.error,
            job.intent,
        ),
    )


def _save_file(connection: sqlite3.Connection, file: FileRecord) -> None:
    connection.execute(
        "INSERT INTO files VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET url = excluded.url,"
        " directory = excluded.directory, base = excluded.base, state = excluded.state,"
        " temp_name = excluded.temp_name, device = excluded.device, inode = excluded.inode,"
        " length = excluded.length, document = excluded.document",
        (
            file.job_id,
            file.index,
            os.fsencode(file.url),
            os.fsencode(file.directory),
            os.fsencode(file.base),
            file.state,
            None if file.temp_name is None else os.fsencode(file.temp_name),
            _signed(file.device),
            _signed(file.inode),
            file.length,
            file.document,
        ),
    )
    connection.execute(
        "INSERT OR IGNORE INTO progress VALUES(?, ?, ?, ?, ?)",
        (file.job_id, file.index, file.held, file.held_boot, file.durable),
    )


def restart(connection: sqlite3.Connection, file: FileRecord) -> None:
    """Store the file together with the progress that is in the record."""
    connection.execute("DELETE FROM progress WHERE job_id = ? AND position = ?", (file.job_id, file.index))
    _save_file(connection, file)


def load(connection: sqlite3.Connection, boot: str) -> list[StoredJob]:
    """Every job in order of creation. Progress noted in another boot counts as far as it was durable."""
    files: dict[str, list[FileRecord]] = {}
    for file in _load_files(connection, boot):
        files.setdefault(file.job_id, []).append(file)
    return [StoredJob(job=job, files=tuple(files.get(job.id, ()))) for job in _load_jobs(connection)]


def _load_jobs(connection: sqlite3.Connection) -> Iterator[JobRecord]:
    for row in connection.execute(
        "SELECT id, name, state, priority, created_at, modified_at, completed_at, settings, document,"
        " error, intent FROM jobs ORDER BY number"
    ):
        yield JobRecord(
            id=row[0],
            name=os.fsdecode(row[1]),
            state=row[2],
            priority=row[3],
            created_at=row[4],
            modified_at=row[5],
            completed_at=row[6],
            settings=row[7],
            document=row[8],
            error=row[9],
            intent=row[10],
        )


def _load_files(connection: sqlite3.Connection, boot: str) -> Iterator[FileRecord]:
    for row in connection.execute(
        "SELECT job_id, position, url, directory, base, state, temp_name, device, inode, length, document,"
        " held, held_boot, durable FROM files JOIN progress USING(job_id, position) ORDER BY job_id, position"
    ):
        yield FileRecord(
            job_id=row[0],
            index=row[1],
            url=os.fsdecode(row[2]),
            directory=os.fsdecode(row[3]),
            base=os.fsdecode(row[4]),
            state=row[5],
            temp_name=None if row[6] is None else os.fsdecode(row[6]),
            device=_unsigned(row[7]),
            inode=_unsigned(row[8]),
            length=row[9],
            document=row[10],
            held=row[11] if row[12] == boot else row[13],
            held_boot=boot,
            durable=row[13],
        )


def delete(connection: sqlite3.Connection, job_ids: Iterable[str]) -> None:
    """Jobs with their files, progress and log; unknown ones are fine."""
    connection.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])


def note(connection: sqlite3.Connection, file: FileKey, held: RangeSet, boot: str) -> None:
    """`held` is written. Raises KeyError for an unknown file."""
    found = connection.execute(
        "UPDATE progress SET held = ?, held_boot = ? WHERE job_id = ? AND position = ?",
        (encode_ranges(held), boot, file.job_id, file.index),
    )
    if found.rowcount != 1:
        raise KeyError(file)


def checkpoint(connection: sqlite3.Connection, file: FileKey, held: RangeSet, boot: str) -> None:
    """`held` is on the disk. Raises KeyError for an unknown file."""
    data = encode_ranges(held)
    found = connection.execute(
        "UPDATE progress SET held = ?, held_boot = ?, durable = ? WHERE job_id = ? AND position = ?",
        (data, boot, data, file.job_id, file.index),
    )
    if found.rowcount != 1:
        raise KeyError(file)


def append_line(connection: sqlite3.Connection, job_id: str, at: float, text: str) -> None:
    """To the job's log, which keeps its last EVENTS_KEPT lines; nothing when the job is gone."""
    connection.execute(
        "INSERT INTO events(job_id, at, text) SELECT id, ?, ? FROM jobs WHERE id = ?",
        (at, os.fsencode(text), job_id),
    )
    connection.execute(
        "DELETE FROM events WHERE job_id = ? AND number <= (SELECT number FROM events WHERE job_id = ?"
        " ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (job_id, job_id, EVENTS_KEPT),
    )


def lines_of(connection: sqlite3.Connection, job_id: str) -> list[LogLine]:
    """The job's log, oldest first."""
    rows = connection.execute("SELECT at, text FROM events WHERE job_id = ? ORDER BY number", (job_id,))
    return [LogLine(at=at, text=os.fsdecode(text)) for at, text in rows]


def last_lines(connection: sqlite3.Connection, lines: int) -> dict[str, list[str]]:
    """The last `lines` log lines of each job that has any, oldest first.

    For each job the index is walked from its end to the last line that is not wanted; a window function would
    number every line of every log instead.
    """
    found: dict[str, list[str]] = {}
    for job_id, text in connection.execute(
        "SELECT jobs.id, events.text FROM jobs CROSS JOIN events ON events.job_id = jobs.id"
        " AND events.number > coalesce((SELECT number FROM events WHERE job_id = jobs.id"
        " ORDER BY number DESC LIMIT 1 OFFSET ?), 0) ORDER BY jobs.number, events.number",
        (lines,),
    ):
        found.setdefault(job_id, []).append(os.fsdecode(text))
    return found


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """A fact about the journal as a whole."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))


def get_meta(connection: sqlite3.Connection, key: str) -> str | None:
    """What `set_meta` stored."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _signed(number: int | None) -> int | None:
    """Device and inode numbers have 64 bits without sign, SQLite's integers have one."""
    return None if number is None else number - (1 << 64) if number >= 1 << 63 else number


def _unsigned(number: int | None) -> int | None:
    return None if number is None else number % (1 << 64)
