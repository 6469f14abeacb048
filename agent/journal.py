"""The journal: jobs, their files, how much of each file is held, and each job's log. SQLite.

It stores what it is told and gives it back. Two kinds of saves for progress: `note_progress` survives the end of
the process, because the page cache holds data and log alike, and is tagged with the boot it was made in;
`checkpoint_progress` comes after an fdatasync of the file and survives a power loss. When the journal is loaded in
another boot, only the checkpoint counts. Everything else is synced before the call returns.
Never knows: rules of transition, what documents mean, files, clocks.

Sources: reliability 2.1 (D2, D3, D8), 2.3.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from agent.boot import boot_id
from peer.database import Database, DatabaseOptions, Durability
from validation.ranges import ByteRange, RangeSet

SNAPSHOTS_KEPT = 3
BALLAST_BYTES = 1024 * 1024
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


class Journal:
    """An open journal. `problems`: sentences about damage met at opening and space given up since."""

    def __init__(self, database: Database, boot: str) -> None:
        """Use `open`."""
        self._database = database
        self._boot = boot
        self.problems = database.problems

    @classmethod
    async def open(cls, path: Path, boot: str | None = None) -> Journal:
        """Open or create the journal at `path`, in a directory that exists. `boot`: the current boot's id.

        A damaged one is set aside and the last good snapshot used: read `problems`. Raises DatabaseTooNew,
        DatabaseInUse, DatabaseError, OSError.
        """
        options = DatabaseOptions(
            path=path, migrations=MIGRATIONS, snapshots_kept=SNAPSHOTS_KEPT, ballast_bytes=BALLAST_BYTES
        )
        return cls(await Database.open(options), boot or boot_id())

    async def close(self) -> None:
        """Close; for a clean stop call `snapshot` first. Harmless when repeated."""
        await self._database.close()

    async def snapshot(self) -> Path | None:
        """Store a copy to fall back on (at a clean stop, and once a day); the last three are kept."""
        return await self._database.snapshot()

    async def load_all(self) -> list[StoredJob]:
        """Every job in order of creation, with `held` replaced by `durable` where it is of another boot."""
        jobs, files = await self._database.run(_load)
        by_job: dict[str, list[FileRecord]] = {}
        for file in files:
            by_job.setdefault(file.job_id, []).append(self._as_of_now(file))
        return [StoredJob(job=job, files=tuple(by_job.get(job.id, ()))) for job in jobs]

    async def save(self, *records: JobRecord | FileRecord) -> None:
        """Store jobs and files, new or changed, all or none. A job comes before its files.

        The progress in a FileRecord counts for a new file only: that of a known one changes by the methods made for
        it, so that a record read earlier cannot undo it. Raises sqlite3.IntegrityError for a file without its job.
        """
        await self._database.run(lambda connection: _save(connection, records))

    async def restart_file(self, file: FileRecord) -> None:
        """Store the file with the progress that is in the record, in one step: to be called before its bytes are
        thrown away (another version at the origin, a lost temporary file)."""
        await self._database.run(lambda connection: _restart(connection, file))

    async def delete_job(self, job_id: str) -> None:
        """Remove a job with its files and its log; an unknown one is fine."""
        await self._database.run(lambda connection: _delete(connection, job_id))

    async def note_progress(self, file: FileKey, held: RangeSet) -> None:
        """`held` is written. Survives `kill -9`, not a power loss. Raises KeyError for an unknown file."""
        twin, boot = held.copy(), self._boot
        await self._database.run(lambda connection: _note(connection, file, twin, boot), Durability.NORMAL)

    async def checkpoint_progress(self, file: FileKey, held: RangeSet) -> None:
        """`held` is on the disk: its file was synced before this call. Survives all. KeyError: unknown file."""
        twin, boot = held.copy(), self._boot
        await self._database.run(lambda connection: _checkpoint(connection, file, twin, boot))

    async def append_event(self, job_id: str, at: float, text: str) -> None:
        """Add a line to a job's log; may be lost by a power loss. A job that is gone is fine."""
        await self._database.run(lambda connection: _append(connection, job_id, at, text), Durability.NORMAL)

    async def events(self, job_id: str) -> list[LogLine]:
        """A job's log, oldest first, at most the last thousand lines."""
        return await self._database.run(lambda connection: _events(connection, job_id))

    async def set_meta(self, key: str, value: str) -> None:
        """Store a fact about the journal as a whole."""
        await self._database.run(lambda connection: _set_meta(connection, key, value))

    async def get_meta(self, key: str) -> str | None:
        """What `set_meta` stored; None when nothing."""
        return await self._database.run(lambda connection: _get_meta(connection, key))

    def _as_of_now(self, file: FileRecord) -> FileRecord:
        return file if file.held_boot == self._boot else replace(file, held=file.durable, held_boot=self._boot)


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


def create_tables(connection: sqlite3.Connection) -> None:
    """Schema 1. Texts from outside are bytes; progress is apart, so that noting it rewrites one small row."""
    connection.execute("CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")
    connection.execute(
        "CREATE TABLE jobs(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name BLOB NOT NULL,"
        " state TEXT NOT NULL, priority TEXT NOT NULL, created_at REAL NOT NULL, modified_at REAL NOT NULL,"
        " completed_at REAL, settings BLOB NOT NULL, document BLOB NOT NULL, error BLOB,"
        " intent TEXT NOT NULL) STRICT"
    )
    connection.execute(
        "CREATE TABLE files(job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, position INTEGER NOT NULL,"
        " url BLOB NOT NULL, directory BLOB NOT NULL, base BLOB NOT NULL, state TEXT NOT NULL, temp_name BLOB,"
        " device INTEGER, inode INTEGER, length INTEGER, document BLOB NOT NULL,"
        " PRIMARY KEY(job_id, position)) STRICT, WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE progress(job_id TEXT NOT NULL, position INTEGER NOT NULL, held BLOB NOT NULL,"
        " held_boot TEXT NOT NULL, durable BLOB NOT NULL, PRIMARY KEY(job_id, position),"
        " FOREIGN KEY(job_id, position) REFERENCES files ON DELETE CASCADE) STRICT, WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE events(number INTEGER PRIMARY KEY,"
        " job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, at REAL NOT NULL, text BLOB NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX events_by_job ON events(job_id, number)")


MIGRATIONS = (create_tables,)


def _save(connection: sqlite3.Connection, records: tuple[JobRecord | FileRecord, ...]) -> None:
    for record in records:
        if isinstance(record, JobRecord):
            _save_job(connection, record)
        else:
            _save_file(connection, record)


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


def _restart(connection: sqlite3.Connection, file: FileRecord) -> None:
    connection.execute("DELETE FROM progress WHERE job_id = ? AND position = ?", (file.job_id, file.index))
    _save_file(connection, file)


def _load(connection: sqlite3.Connection) -> tuple[list[JobRecord], list[FileRecord]]:
    jobs = [
        JobRecord(
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
        for row in connection.execute(
            "SELECT id, name, state, priority, created_at, modified_at, completed_at, settings, document,"
            " error, intent FROM jobs ORDER BY number"
        )
    ]
    files = [
        FileRecord(
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
            held=row[11],
            held_boot=row[12],
            durable=row[13],
        )
        for row in connection.execute(
            "SELECT job_id, position, url, directory, base, state, temp_name, device, inode, length, document,"
            " held, held_boot, durable FROM files JOIN progress USING(job_id, position) ORDER BY job_id, position"
        )
    ]
    return jobs, files


def _delete(connection: sqlite3.Connection, job_id: str) -> None:
    connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))


def _note(connection: sqlite3.Connection, file: FileKey, held: RangeSet, boot: str) -> None:
    found = connection.execute(
        "UPDATE progress SET held = ?, held_boot = ? WHERE job_id = ? AND position = ?",
        (encode_ranges(held), boot, file.job_id, file.index),
    )
    if found.rowcount != 1:
        raise KeyError(file)


def _checkpoint(connection: sqlite3.Connection, file: FileKey, held: RangeSet, boot: str) -> None:
    data = encode_ranges(held)
    found = connection.execute(
        "UPDATE progress SET held = ?, held_boot = ?, durable = ? WHERE job_id = ? AND position = ?",
        (data, boot, data, file.job_id, file.index),
    )
    if found.rowcount != 1:
        raise KeyError(file)


def _append(connection: sqlite3.Connection, job_id: str, at: float, text: str) -> None:
    connection.execute(
        "INSERT INTO events(job_id, at, text) SELECT id, ?, ? FROM jobs WHERE id = ?",
        (at, os.fsencode(text), job_id),
    )
    connection.execute(
        "DELETE FROM events WHERE job_id = ? AND number <= (SELECT number FROM events WHERE job_id = ?"
        " ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (job_id, job_id, EVENTS_KEPT),
    )


def _events(connection: sqlite3.Connection, job_id: str) -> list[LogLine]:
    rows = connection.execute("SELECT at, text FROM events WHERE job_id = ? ORDER BY number", (job_id,))
    return [LogLine(at=at, text=os.fsdecode(text)) for at, text in rows]


def _set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))


def _get_meta(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _signed(number: int | None) -> int | None:
    """Device and inode numbers have 64 bits without sign, SQLite's integers have one."""
    return None if number is None else number - (1 << 64) if number >= 1 << 63 else number


def _unsigned(number: int | None) -> int | None:
    return None if number is None else number % (1 << 64)
