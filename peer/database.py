"""One SQLite database: one connection, in one thread of its own.

Opening checks the file and never loses one in silence: a damaged database is set aside (renamed, together with
its write-ahead log), the last good snapshot or a fresh one takes its place, and `problems` says so. A database
written by a newer version is left alone. A new one appears under its name only when it is complete, so an empty
file under that name is damage too.
Never knows: what is stored.

Sources: sqlite.org wal.html, pragma.html (synchronous, locking_mode, quick_check), howtocorrupt.html §1.2-1.4 (a
log beside the wrong database), fileformat2.html §1.3 (user version at byte 60).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from peer import durable
from peer.groupcommit import (
    DatabaseDiskFull,
    DatabaseError,
    DatabaseInUse,
    DatabaseTooNew,
    Durability,
    GroupCommit,
    primary_code,
    transaction,
    translated,
)

__all__ = [
    "Database",
    "DatabaseDiskFull",
    "DatabaseError",
    "DatabaseInUse",
    "DatabaseOptions",
    "DatabaseTooNew",
    "Durability",
    "Migration",
    "stored_version",
]

T = TypeVar("T")

Migration = Callable[[sqlite3.Connection], None]
"""Brings the schema from version n to n + 1, n being its place in the list. Runs inside a transaction, so it uses
`execute`, never `executescript` (which commits)."""

_MAGIC = b"SQLite format 3\0"
_WAL_LIMIT_BYTES = 16 * 1024 * 1024
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
PATIENT_S = 0.2
"""Waking a thread costs more than most of what it is then asked to do."""

_SIDE_FILES = ("-wal", "-shm", "-journal")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Where the database is and how its schema came to be."""

    path: Path
    migrations: Sequence[Migration]
    snapshots_kept: int | None = None
    """How many `NAME.snapshot-<n>` files to keep; None: no snapshots, an empty database replaces a damaged one."""
    ballast_bytes: int | None = None
    """Size of a file that is given up when the disk is full, so that "disk full" itself can be recorded."""


class _Damaged(Exception):
    """The file is no database any more; the text says what is wrong with it."""


class Database:
    """An open database. `problems` holds sentences about what was found at opening and since. `replaced`: what was
    stored last is not in it, because the file was damaged or missing."""

    def __init__(self, options: DatabaseOptions) -> None:
        """Use `open`."""
        self._options = options
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{options.path.name}")
        self._connection: sqlite3.Connection | None = None
        self._calls = GroupCommit(options.path, self._drop_ballast)
        self._later: asyncio.TimerHandle | None = None
        """Calls are waiting, and patient."""
        self.problems: list[str] = []
        self.replaced = False

    @classmethod
    async def open(cls, options: DatabaseOptions) -> Database:
        """Open or create, check, migrate. The directory must exist.

        Raises DatabaseTooNew, DatabaseInUse, DatabaseDiskFull, DatabaseError, OSError.
        """
        self = cls(options)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def run(
        self,
        fn: Callable[[sqlite3.Connection], T],
        durability: Durability = Durability.FULL,
        *,
        patient: bool = False,
    ) -> T:
        """Call `fn(connection)` inside a transaction in the database's thread; what it returns comes back.

        Calls are carried out one after the other, in the order of the calls to `run`. Those that wait share one
        transaction with the strongest durability among them, so one that only reads asks for NORMAL. An exception
        from `fn` undoes what it did, that alone, and comes back; when the commit fails, all who shared it are told.
        `fn` leaves transactions alone. When the disk is full and there is ballast, it is called a second time after
        the rollback. Cancelling the caller does not stop a call that was handed over. Only on the event loop that
        `open` ran on. A `patient` call waits up to PATIENT_S for others to share its transaction, when it is not
        begun for theirs at once. Raises DatabaseDiskFull, DatabaseError; sqlite3.IntegrityError passes as it is.
        """
        return await self.begin(fn, durability, patient=patient)

    def begin(
        self,
        fn: Callable[[sqlite3.Connection], T],
        durability: Durability = Durability.FULL,
        *,
        patient: bool = False,
    ) -> asyncio.Future[T]:
        """As `run`: the call is handed over now, before any that follows; the answer is for whoever awaits it."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._calls.hand_over(fn, durability, answer):
            if patient:
                self._later = asyncio.get_running_loop().call_later(PATIENT_S, self._schedule)
            else:
                self._schedule()
        elif self._later is not None and not patient:
            self._schedule()
        return answer

    async def snapshot(self) -> Path | None:
        """Store a consistent copy beside the database and drop the oldest beyond the number kept. None: none are
        kept, or the database is closed. Raises DatabaseDiskFull, DatabaseError; then nothing is left behind."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._routine_snapshot)

    async def close(self) -> None:
        """Finish what was handed over, fold the log into the file, close. Harmless when repeated."""
        with contextlib.suppress(RuntimeError):  # the thread is gone: closed before
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _schedule(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        try:
            self._thread.submit(self._work)
        except RuntimeError:  # the thread is gone: closed before
            while self._calls.work(None):
                pass

    # Everything below runs in the database's thread.

    def _open(self) -> None:
        try:
            self._connection = self._establish()
            self._lay_ballast()
        except sqlite3.Error as error:
            raise translated(error, self._options.path) from error

    def _establish(self) -> sqlite3.Connection:
        path, traces = self._options.path, self._traces()
        if not path.exists():
            if traces:
                self.problems.append(f"the database {path} is missing although {traces[-1].name} is there")
                self.replaced = True
            self._set_aside()
            self._install()
        try:
            return self._connect()
        except _Damaged as damage:
            aside = self._set_aside()
            self.replaced = True
            self.problems.append(f"the database {path} was damaged ({damage}); it was set aside as {aside.name}")
            self._install()
        try:
            return self._connect()
        except _Damaged as damage:
            raise DatabaseError(f"the database {path} cannot be made anew: {damage}") from damage

    def _connect(self) -> sqlite3.Connection:
        """A checked, migrated, configured connection. Raises _Damaged, DatabaseTooNew, sqlite3.Error."""
        path = self._options.path
        self._refuse_newer(stored_version(path))
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            with _damage_reported():
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA foreign_keys=ON")
                connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
                _check(connection)
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_newer(self, version: int) -> None:
        known = len(self._options.migrations)
        if version > known:
            raise DatabaseTooNew(
                f"{self._options.path} was written by a newer version (schema {version}, this program knows "
                f"{known}); install that version again or move the file away"
            )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        self._refuse_newer(version)
        if 0 < version < len(self._options.migrations):
            self._snapshot(connection)
        for number, migration in enumerate(self._options.migrations[version:], version + 1):
            with transaction(connection):
                migration(connection)
                connection.execute(f"PRAGMA user_version={number}")

    def _work(self) -> None:
        """One batch; the next one comes after what else was asked of the thread meanwhile."""
        if self._calls.work(self._connection):
            self._schedule()

    def _close(self) -> None:
        while self._calls.work(self._connection):
            pass
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _routine_snapshot(self) -> Path | None:
        path = self._options.path
        try:
            taken = self._snapshot()
        except sqlite3.Error as error:
            raise translated(error, path) from error
        except OSError as error:
            kind = DatabaseDiskFull if error.errno in _FULL else DatabaseError
            raise kind(f"no snapshot of {path} could be stored: {error.strerror or error}") from error
        if taken is not None:
            self._lay_ballast()  # there is space again
        return taken

    def _snapshot(self, connection: sqlite3.Connection | None = None) -> Path | None:
        source, kept = connection or self._connection, self._options.snapshots_kept
        if source is None or kept is None:
            return None
        path, taken = self._options.path, self._numbered_files("snapshot")
        temporary = path.name + ".snapshot-new"
        target = f"{path.name}.snapshot-{taken[-1][0] + 1 if taken else 1}"
        directory = durable.open_directory(path.parent)
        try:
            durable.remove(directory, temporary)
            fd = durable.create_file(directory, temporary)
            try:
                with contextlib.closing(sqlite3.connect(path.parent / temporary)) as copy:
                    source.backup(copy)
                durable.sync_file(fd)
            finally:
                os.close(fd)
            durable.rename(directory, temporary, target)
            for _, old in taken[: max(0, len(taken) + 1 - kept)]:
                durable.remove(directory, old.name)
            durable.sync_directory(directory)
        except BaseException:
            with contextlib.suppress(OSError):
                durable.remove(directory, temporary)
            raise
        finally:
            os.close(directory)
        return path.parent / target

    def _install(self) -> None:
        """Put the last good snapshot, or else an empty database, under our name."""
        path = self._options.path
        for _, snapshot in reversed(self._numbered_files("snapshot")):
            if self._try_snapshot(snapshot):
                self.problems.append(
                    f"the snapshot {snapshot.name} was put in place of {path}; later changes are lost"
                )
                return
        self._make(lambda fd: None)

    def _try_snapshot(self, snapshot: Path) -> bool:
        try:
            self._refuse_newer(stored_version(snapshot))
            source = os.open(snapshot, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(source).st_size
                self._make(lambda fd: durable.clone_or_copy(source, 0, fd, 0, size))
            finally:
                os.close(source)
        except (_Damaged, DatabaseTooNew, OSError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:  # later it can be used: nothing takes its place
                raise DatabaseDiskFull(f"no space left on the disk of {snapshot} to bring it back") from error
            self.problems.append(f"the snapshot {snapshot.name} cannot be used ({error})")
            return False
        return True

    def _make(self, fill: Callable[[int], None]) -> None:
        """A checked database, made under another name, gets ours. _Damaged: `fill` wrote something else."""
        path = self._options.path
        temporary = path.with_name(path.name + ".new")
        directory = durable.open_directory(path.parent)
        try:
            for suffix in ("", *_SIDE_FILES):
                durable.remove(directory, temporary.name + suffix)
            fd = durable.create_file(directory, temporary.name)
            try:
                fill(fd)
                fresh = os.fstat(fd).st_size == 0
                made = sqlite3.connect(temporary, isolation_level=None)
                with contextlib.closing(made) as connection, _damage_reported():
                    _check(connection)
                    if fresh:
                        self._migrate(connection)
                durable.sync_file(fd)
            finally:
                os.close(fd)
            durable.rename(directory, temporary.name, path.name)
            durable.sync_directory(directory)
        finally:
            os.close(directory)

    def _set_aside(self) -> Path:
        """Rename the database and its side files to `NAME.damaged-<n>`, side files first: a log must never lie
        beside a database that is not its own."""
        path = self._options.path
        taken = self._numbered_files("damaged")
        target = f"{path.name}.damaged-{taken[-1][0] + 1 if taken else 1}"
        directory = durable.open_directory(path.parent)
        try:
            for suffix in (*_SIDE_FILES, ""):
                with contextlib.suppress(FileNotFoundError):
                    durable.rename(directory, path.name + suffix, target + suffix)
            durable.sync_directory(directory)
        finally:
            os.close(directory)
        return path.with_name(target)

    def _traces(self) -> list[Path]:
        """Files which show that there was a database under our name."""
        return [item for kind in ("snapshot", "damaged") for _, item in self._numbered_files(kind)]

    def _numbered_files(self, kind: str) -> list[tuple[int, Path]]:
        """`NAME.KIND-<n>` files (also when only a side file is left) in order of n."""
        path = self._options.path
        prefix = f"{path.name}.{kind}-"
        found: dict[int, Path] = {}
        for name in os.listdir(path.parent):
            number = name.removeprefix(prefix).partition("-")[0]
            if name.startswith(prefix) and number.isascii() and number.isdigit():
                found[int(number)] = path.with_name(prefix + number)
        return sorted(found.items())

    def _lay_ballast(self) -> None:
        size, ballast = self._options.ballast_bytes, self._ballast
        if size is not None and (not ballast.exists() or ballast.stat().st_size != size):
            with contextlib.suppress(OSError):  # the disk is full already: there is nothing to put by
                durable.write_atomically(ballast, os.urandom(size))

    def _drop_ballast(self) -> bool:
        if self._options.ballast_bytes is None or not self._ballast.exists():
            return False
        directory = durable.open_directory(self._ballast.parent)
        try:
            durable.remove(directory, self._ballast.name)
        finally:
            os.close(directory)
        self.problems.append(
            f"the disk of {self._options.path} is full; the last reserve was used: free some space"
        )
        return True

    @property
    def _ballast(self) -> Path:
        return self._options.path.with_name(self._options.path.name + ".ballast")


def stored_version(path: Path) -> int:
    """The schema number (`user_version`) of a database file, read without changing a byte of it.

    Raises _Damaged when it is no database, OSError.
    """
    with open(path, "rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(_MAGIC):
        raise _Damaged("it is empty" if not head else "it does not begin like a database")
    version = int.from_bytes(head[60:64], "big")
    with contextlib.suppress(FileNotFoundError), open(path.with_name(path.name + "-wal"), "rb") as log:
        version = _version_in_log(log) or version
    return version


def _version_in_log(log: BinaryIO) -> int | None:
    """The user version in the last committed page 1 of a write-ahead log (fileformat2.html §4.1-4.2).

    Read by hand, because any connection would write: an index beside the log, or the log into the database.
    Checksums are left to SQLite, which looks at the version once more when the database is open.
    """
    head = log.read(32)
    page_bytes, salts = int.from_bytes(head[8:12], "big"), head[16:24]
    found = pending = None
    while len(frame := log.read(24)) == 24 and frame[8:16] == salts:
        if frame[:4] == b"\0\0\0\1":
            pending = int.from_bytes(log.read(64)[60:64], "big")
            log.seek(-64, os.SEEK_CUR)
        if frame[4:8] != b"\0\0\0\0":
            found = pending
        log.seek(page_bytes, os.SEEK_CUR)
    return found


def _check(connection: sqlite3.Connection) -> None:
    findings = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if findings != ["ok"]:
        raise _Damaged(" ".join(str(findings[0]).split()) if findings else "the check found nothing")


class _damage_reported(contextlib.AbstractContextManager[None]):  # noqa: N801  # reads as a phrase
    """Turns SQLite's two words for damage into `_Damaged`."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError) and primary_code(error) in _DAMAGE:
            raise _Damaged(str(error)) from error
