"""Group commit: calls that wait for one SQLite connection share a transaction, and so one sync of the log.

Each call of a batch stands in a savepoint, so one that fails is undone alone. Answers are given after the commit. A
batch is what waits when the thread comes free; nobody waits for company.
Never knows: what the calls do, where the file came from.

Sources: sqlite.org lang_savepoint.html, pragma.html (synchronous), rescode.html, wal.html §2.3; reliability r5.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from peer.errors import PeerError

T = TypeVar("T")

BATCH_CALLS = 256
"""Calls in one transaction, at most."""
BATCH_S = 0.05
"""After so long no further call of the batch is begun, so that the first is not kept waiting for the last."""


class DatabaseError(PeerError):
    """Base: the database could not do what it was asked. `str(error)` is one sentence for the user."""


class DatabaseTooNew(DatabaseError):
    """Written by a newer version of this program; the file was not touched."""


class DatabaseInUse(DatabaseError):
    """Another process has it open."""


class DatabaseDiskFull(DatabaseError):
    """No space left for the change; nothing of it was stored."""


class Durability(StrEnum):
    """What a commit survives once it has returned. The values are SQLite's words for `synchronous`."""

    FULL = "FULL"
    """Power loss: the log is synced at every commit."""
    NORMAL = "NORMAL"
    """The end of the process at any instant, because the page cache outlives it; a power loss may undo it, but
    never damages the database and never reorders it with other commits."""


class _Call(Generic[T]):
    """One call that was handed over, and its outcome once it has one."""

    __slots__ = ("_answer", "_error", "_fn", "_result", "durability")

    def __init__(
        self, fn: Callable[[sqlite3.Connection], T], durability: Durability, answer: asyncio.Future[T]
    ) -> None:
        self.durability = durability
        self._fn = fn
        self._answer = answer
        self._result: tuple[T] | None = None
        self._error: BaseException | None = None

    def perform(self, connection: sqlite3.Connection) -> None:
        """In the database's thread; again after all was undone. Raises what the function raises."""
        self._error = None
        self._result = (self._fn(connection),)

    def fail(self, error: BaseException) -> None:
        """Its outcome is this error."""
        self._error = error

    def settle(self) -> None:
        """On the event loop: give the answer, unless its caller has left."""
        if self._answer.done():
            return
        if self._error is not None:
            self._answer.set_exception(self._error)
        elif self._result is not None:
            self._answer.set_result(self._result[0])


class GroupCommit:
    """The queue of calls: filled on the event loop it was made on, emptied by `work` in the database's thread."""

    def __init__(self, path: Path, make_room: Callable[[], bool]) -> None:
        """`path` is for messages. `make_room` is called in the database's thread when the disk is full; True: there
        is more space now."""
        self._path = path
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Any]] = deque()
        self._scheduled = False
        self._durability: Durability | None = None
        self._log_is_suspect = False
        self._begun = 0
        self._room_was_made = False

    def hand_over(
        self, fn: Callable[[sqlite3.Connection], T], durability: Durability, answer: asyncio.Future[T]
    ) -> bool:
        """Put a call at the end of the queue. True: `work` must be scheduled; False: it is on its way."""
        call = _Call(fn, durability, answer)
        with self._lock:
            self._waiting.append(call)
            idle, self._scheduled = not self._scheduled, True
        return idle

    def work(self, connection: sqlite3.Connection | None) -> bool:
        """Carry out one batch (None: the database is closed, so refuse it). True: more is waiting, call again."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_CALLS))]
        done = self._refuse(batch) if connection is None else self._carry_out(connection, batch)
        if done:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the answers
                self._loop.call_soon_threadsafe(_settle, batch[:done])
        with self._lock:
            self._waiting.extendleft(reversed(batch[done:]))
            self._scheduled = bool(self._waiting)
            return self._scheduled

    def _refuse(self, batch: Sequence[_Call[Any]]) -> int:
        for call in batch:
            call.fail(DatabaseError(f"the database {self._path} is closed"))
        return len(batch)

    def _carry_out(self, connection: sqlite3.Connection, batch: Sequence[_Call[Any]]) -> int:
        """How many calls of the batch, counted from the first, have their outcome now."""
        if not batch:
            return 0
        self._begun, self._room_was_made = len(batch), False
        try:
            self._prepare(connection, batch)
            try:
                self._transact(connection, batch)
            except sqlite3.OperationalError as error:
                if not (self._room_was_made or self._makes_room(error)):
                    raise
                self._transact(connection, batch)
        except BaseException as error:  # noqa: BLE001  top of the thread's work: handed to those who called
            for call in batch[: self._begun]:
                call.fail(self._seen(error))
        return self._begun

    def _prepare(self, connection: sqlite3.Connection, batch: Sequence[_Call[Any]]) -> None:
        if self._log_is_suspect:
            self._leave_the_log(connection)
        full = any(call.durability is Durability.FULL for call in batch)
        durability = Durability.FULL if full else Durability.NORMAL
        if durability is not self._durability:  # inside a transaction SQLite would refuse to change it
            connection.execute(f"PRAGMA synchronous={durability}")
            self._durability = durability

    def _transact(self, connection: sqlite3.Connection, batch: Sequence[_Call[Any]]) -> None:
        """The calls that can be begun in time, in one transaction. An error that leaves here has undone all."""
        limit = time.monotonic() + BATCH_S
        with transaction(connection):
            if len(batch) == 1:  # the transaction does for it what a savepoint would
                batch[0].perform(connection)
                return
            for number, call in enumerate(batch, 1):
                self._begun = number
                self._attempt(connection, call)
                if time.monotonic() > limit:
                    return

    def _attempt(self, connection: sqlite3.Connection, call: _Call[Any]) -> None:
        """One call of several. Its own failure is noted; raised is one that undid the others too, or that will not
        come again because room was made."""
        connection.execute("SAVEPOINT one_call")
        try:
            call.perform(connection)
        except BaseException as error:
            if not connection.in_transaction or self._makes_room(error):
                raise
            connection.execute("ROLLBACK TO one_call")
            call.fail(self._seen(error))
        connection.execute("RELEASE one_call")

    def _makes_room(self, error: BaseException) -> bool:
        full = isinstance(error, sqlite3.OperationalError) and primary_code(error) == sqlite3.SQLITE_FULL
        self._room_was_made = full and self._make_room()
        return self._room_was_made

    def _leave_the_log(self, connection: sqlite3.Connection) -> None:
        """After a failed sync the kernel may have forgotten pages of the log that reads still show, and a second
        sync would believe it. So everything is written again, into the database itself, and the log begun anew."""
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._log_is_suspect = bool(busy)

    def _seen(self, error: BaseException) -> BaseException:
        """The error as a caller is to see it."""
        if isinstance(error, StopIteration):  # no future takes it
            found: BaseException = RuntimeError(f"{error!r} left a call of the database {self._path}")
        elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
            self._log_is_suspect |= primary_code(error) == sqlite3.SQLITE_IOERR
            found = translated(error, self._path)
        else:
            return error
        found.__cause__ = error
        return found


def _settle(calls: Sequence[_Call[Any]]) -> None:
    for call in calls:
        call.settle()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction around the body; any error in it or in the commit undoes it and goes on."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def primary_code(error: sqlite3.Error) -> int:
    """The error's primary code (rescode.html: the low byte)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def translated(error: sqlite3.Error, path: Path) -> DatabaseError:
    """What SQLite said of the database at `path`, as an error for the user."""
    code = primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseInUse(f"another process has {path} open: {error}")
    if code == sqlite3.SQLITE_FULL:
        return DatabaseDiskFull(f"no space left on the disk of {path}")
    return DatabaseError(f"the database {path} failed: {error}")
