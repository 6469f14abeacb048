"""Calls that wait share one transaction and one sync; each has its own outcome, given after the commit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from peer.database import Database, DatabaseDiskFull, DatabaseError, DatabaseOptions, Durability
from peer.groupcommit import BATCH_CALLS, BATCH_S
from tests.support.disks import full_disk_command

WAIT_S = 10.0


def schema(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE things(id INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    connection.execute("CREATE TABLE parents(id INTEGER PRIMARY KEY)")
    connection.execute(
        "CREATE TABLE children(parent INTEGER NOT NULL REFERENCES parents(id) DEFERRABLE INITIALLY DEFERRED)"
    )


def options(directory: Path) -> DatabaseOptions:
    return DatabaseOptions(path=directory / "things.db", migrations=(schema,))


def add(number: int) -> Callable[[sqlite3.Connection], int]:
    def change(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO things VALUES(?, ?)", (number, b"x"))
        return number

    return change


def ids(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]


async def stored(directory: Path) -> list[int]:
    """What another process would find."""
    database = await Database.open(options(directory))
    try:
        assert database.problems == []
        return await database.run(ids)
    finally:
        await database.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(options(tmp_path))
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def busy(database: Database) -> AsyncIterator[None]:
    """Inside, the thread is at work: what is handed over now waits, and goes together afterwards."""
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(WAIT_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(database.run(hold, Durability.NORMAL))
        async with asyncio.timeout(WAIT_S):
            await began.wait()
        try:
            yield
            await asyncio.sleep(0)  # the tasks made inside hand over what they have
        finally:
            go_on.set()


async def statements(database: Database) -> list[str]:
    """Everything that the connection executes from now on."""
    seen: list[str] = []
    await database.run(lambda connection: connection.set_trace_callback(seen.append), Durability.NORMAL)
    return seen


async def test_those_who_wait_share_a_transaction(database: Database) -> None:
    seen = await statements(database)
    async with asyncio.TaskGroup() as group, busy(database):
        tasks = [group.create_task(database.run(add(number))) for number in range(BATCH_CALLS + 44)]
    assert [task.result() for task in tasks] == list(range(BATCH_CALLS + 44))
    # Its own, one full batch, and the rest; one more when the thread was free before all of them were there.
    assert seen.count("COMMIT") - seen.count("BEGIN IMMEDIATE") in (0, 1)
    assert seen.count("BEGIN IMMEDIATE") in (3, 4)


async def test_who_fails_fails_alone_and_loses_nobodys_work(database: Database, tmp_path: Path) -> None:
    def refused(connection: sqlite3.Connection) -> None:
        add(100)(connection)
        add(1)(connection)

    def mistaken(connection: sqlite3.Connection) -> None:
        add(200)(connection)
        raise KeyError("why not")

    def ended(connection: sqlite3.Connection) -> None:
        add(300)(connection)
        next(iter(()))

    async with busy(database):
        calls = (
            add(1),
            refused,
            add(2),
            mistaken,
            add(3),
            lambda c: c.execute("SELECT * FROM absent"),
            ended,
            add(4),
        )
        tasks = asyncio.gather(*(database.run(call) for call in calls), return_exceptions=True)  # type: ignore[arg-type]
        await asyncio.sleep(0)
    found = await tasks
    assert [found[place] for place in (0, 2, 4, 7)] == [1, 2, 3, 4]
    kinds = [type(found[place]) for place in (1, 3, 5, 6)]
    assert kinds == [sqlite3.IntegrityError, KeyError, DatabaseError, RuntimeError]
    await database.close()
    assert await stored(tmp_path) == [1, 2, 3, 4]


async def test_a_commit_that_fails_is_told_to_all_who_shared_it_and_to_nobody_else(
    database: Database, tmp_path: Path
) -> None:
    async with busy(database):
        calls = (add(1), lambda c: c.execute("INSERT INTO children VALUES(7)").rowcount, ids)
        tasks = asyncio.gather(*(database.run(call) for call in calls), return_exceptions=True)  # type: ignore[arg-type]
        await asyncio.sleep(0)
    assert [type(each) for each in await tasks] == [sqlite3.IntegrityError] * 3
    assert await database.run(add(2)) == 2
    await database.close()
    assert await stored(tmp_path) == [2]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((Durability.NORMAL, Durability.NORMAL), 1), ((Durability.NORMAL, Durability.FULL, Durability.NORMAL), 2)],
)
async def test_the_strongest_durability_of_a_batch_holds_for_all(
    database: Database, asked: tuple[Durability, ...], expected: int
) -> None:
    def level(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    async with asyncio.TaskGroup() as group, busy(database):
        tasks = [group.create_task(database.run(level, each)) for each in asked]
    assert [task.result() for task in tasks] == [expected] * len(asked)


async def test_a_slow_call_does_not_keep_the_first_one_waiting_for_the_last(database: Database) -> None:
    seen = await statements(database)
    pause = threading.Event()
    async with asyncio.TaskGroup() as group, busy(database):
        group.create_task(database.run(add(1)))
        group.create_task(database.run(lambda _: pause.wait(BATCH_S * 1.2)))
        group.create_task(database.run(add(2)))
    begun = [place for place, text in enumerate(seen) if text == "BEGIN IMMEDIATE"]
    inserts = [place for place, text in enumerate(seen) if text.startswith("INSERT")]
    assert len(begun) == 3
    assert begun[1] < inserts[0] < begun[2] < inserts[1]


async def test_who_leaves_stops_neither_his_call_nor_the_others(database: Database) -> None:
    async with asyncio.TaskGroup() as group, busy(database):
        gone = group.create_task(database.run(add(1)))
        stays = group.create_task(database.run(add(2)))
        await asyncio.sleep(0)
        gone.cancel()
    assert gone.cancelled()
    assert stays.result() == 2
    assert await database.run(ids) == [1, 2]


async def test_an_answer_comes_after_the_commit(database: Database) -> None:
    seen = await statements(database)
    for number in range(20):
        await database.run(add(number))
        assert seen[-1] == "COMMIT"


async def test_closing_finishes_what_was_handed_over_and_refuses_the_rest(
    database: Database, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as group:
        async with busy(database):
            early = [group.create_task(database.run(add(number))) for number in range(600)]
            await asyncio.sleep(0)
            closing = group.create_task(database.close())
            await asyncio.sleep(0)
        await closing
    assert len({task.result() for task in early}) == 600
    late = await asyncio.gather(*(database.run(add(number)) for number in (1000, 1001)), return_exceptions=True)
    assert [type(each) for each in late] == [DatabaseError] * 2
    assert await stored(tmp_path) == list(range(600))


def test_of_many_at_once_on_a_full_disk_exactly_the_answered_ones_are_stored(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from pathlib import Path
from peer.database import Database, DatabaseDiskFull, DatabaseOptions
from tests.peer.test_groupcommit import ids, schema

def fat(number):
    return lambda c: c.execute("INSERT INTO things VALUES(?, ?)", (number, os.urandom(20000))) and number

async def main():
    path = Path(sys.argv[1]) / "things.db"
    options = DatabaseOptions(path=path, migrations=(schema,), ballast_bytes=1 << 20)
    database = await Database.open(options)
    filler = open(path.with_name("filler"), "wb", buffering=0)
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
    answered, refused = [], 0
    for begin in range(0, 120, 12):
        numbers = range(begin, begin + 12)
        found = await asyncio.gather(*(database.run(fat(n)) for n in numbers), return_exceptions=True)
        answered += [each for each in found if isinstance(each, int)]
        refused += sum(isinstance(each, DatabaseDiskFull) for each in found)
    assert len(answered) + refused == 120, (len(answered), refused)
    assert answered and refused, (answered, refused)
    assert not path.with_name("things.db.ballast").exists()
    await database.close()
    database = await Database.open(options)
    assert await database.run(ids) == answered
    await database.close()

asyncio.run(main())
"""
    command = full_disk_command(tmp_path, [sys.executable, "-c", code], size=3 << 20)
    if command is None:
        pytest.skip("no permission to mount a small tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert DatabaseDiskFull.__name__ not in done.stderr


def test_answers_are_given_after_the_log_was_synced(tmp_path: Path) -> None:
    """Seen from the kernel: a hundred calls at once share a few syncs, and every answer comes after its sync."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not there or may not trace")
    code = """
import asyncio, os, sys
from pathlib import Path
from peer.database import Database
from tests.peer.test_groupcommit import add, options

async def answered(database, number):
    await database.run(add(number))
    os.write(1, b"answer %d\\n" % number)

async def main():
    database = await Database.open(options(Path(sys.argv[1])))
    os.write(1, b"one by one\\n")
    for number in range(5):
        await answered(database, number)
    os.write(1, b"all at once\\n")
    await asyncio.gather(*(answered(database, number) for number in range(5, 105)))
    os.write(1, b"end\\n")
    os._exit(0)

asyncio.run(main())
"""
    trace = tmp_path / "trace"
    command = [strace, "-f", "-y", "-o", str(trace), "-e", "trace=fdatasync,fsync,write"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"answer") == 105
    seen = re.findall(r'(sync)\(\d+<[^>]*-wal>|write\(1<[^>]*>, "(one|all|end|answer)', trace.read_text())
    words = " ".join(sync or word for sync, word in seen)
    singles, crowd = words.partition("one ")[2].partition(" all ")[::2]
    assert re.fullmatch(r"((sync )+answer ?){5}", singles), words
    crowd = crowd.removesuffix(" end")
    assert crowd.startswith("sync")
    assert 1 <= crowd.count("sync") <= 20
    assert crowd.count("answer") == 100
    assert os.path.getsize(tmp_path / "things.db-wal") > 0
