"""One connection in one thread; damage is set aside and said; newer files stay as they are."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from peer.database import (
    Database,
    DatabaseDiskFull,
    DatabaseError,
    DatabaseInUse,
    DatabaseOptions,
    DatabaseTooNew,
    Durability,
)
from tests.support.disks import full_disk_command


def first_schema(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE things(id INTEGER PRIMARY KEY, value BLOB NOT NULL)")


def second_schema(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE things ADD COLUMN colour TEXT")


def failing_schema(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE half(id INTEGER)")
    raise sqlite3.OperationalError("this migration fails")


def options(directory: Path, *, snapshots: int | None = None, versions: int = 1) -> DatabaseOptions:
    return DatabaseOptions(
        path=directory / "things.db",
        migrations=(first_schema, second_schema)[:versions],
        snapshots_kept=snapshots,
    )


def add(connection: sqlite3.Connection, value: bytes = b"x") -> None:
    connection.execute("INSERT INTO things(value) VALUES(?)", (value,))


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM things").fetchone()[0])


async def filled(directory: Path, rows: int, snapshots: int | None = None) -> None:
    """A closed database with `rows` rows of 3000 bytes."""
    database = await Database.open(options(directory, snapshots=snapshots))
    await database.run(lambda connection: [add(connection, os.urandom(3000)) for _ in range(rows)])
    await database.close()


def hashes(directory: Path) -> dict[str, str]:
    """Of the database and its log; -shm is rebuilt by whoever looks, and means nothing."""
    return {
        item.name: hashlib.sha256(item.read_bytes()).hexdigest()
        for item in sorted(directory.iterdir())
        if not item.name.endswith("-shm")
    }


async def test_a_new_database_is_private_and_remembers(tmp_path: Path) -> None:
    database = await Database.open(options(tmp_path))
    await database.run(add)
    await database.run(add, Durability.NORMAL)
    modes = {item.name: item.stat().st_mode & 0o777 for item in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    await database.close()
    await database.close()
    assert os.listdir(tmp_path) == ["things.db"]
    database = await Database.open(options(tmp_path))
    assert await database.run(count) == 2
    assert database.problems == []
    await database.close()


async def test_the_settings_are_in_force(tmp_path: Path) -> None:
    database = await Database.open(options(tmp_path))

    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "locking_mode", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.run(pragmas) == ["wal", 2, "exclusive", 1]
    assert await database.run(pragmas, Durability.NORMAL) == ["wal", 1, "exclusive", 1]
    assert await database.run(pragmas) == ["wal", 2, "exclusive", 1]
    await database.close()


async def test_an_exception_rolls_back_and_comes_back(tmp_path: Path) -> None:
    database = await Database.open(options(tmp_path))

    def fail(connection: sqlite3.Connection) -> None:
        add(connection)
        raise KeyError("why not")

    with pytest.raises(KeyError):
        await database.run(fail)
    with pytest.raises(DatabaseError, match="no such table"):
        await database.run(lambda connection: connection.execute("SELECT * FROM absent"))
    assert await database.run(count) == 0
    await database.close()


async def test_transactions_run_in_the_order_of_the_calls(tmp_path: Path) -> None:
    database = await Database.open(options(tmp_path))
    seen: list[int] = []
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            durability = Durability.NORMAL if number % 2 else Durability.FULL
            group.create_task(database.run(lambda _, number=number: seen.append(number), durability))
    assert seen == list(range(50))
    await database.close()


async def test_a_second_opener_is_told(tmp_path: Path) -> None:
    database = await Database.open(options(tmp_path))
    with pytest.raises(DatabaseInUse):
        await Database.open(options(tmp_path))
    await database.run(add)
    assert await database.run(count) == 1
    await database.close()


@pytest.mark.parametrize("log", ["folded in", "left by a kill"])
async def test_a_newer_database_stays_as_it_is(tmp_path: Path, log: str) -> None:
    await filled(tmp_path, 1)
    database = await Database.open(options(tmp_path, versions=2))  # the new number is in the log only
    home = tmp_path / "copy"
    if log == "left by a kill":
        shutil.copytree(tmp_path, home)
    await database.close()
    if log == "folded in":
        shutil.copytree(tmp_path, home)
    before = hashes(home)
    assert ("things.db-wal" in before) == (log == "left by a kill")
    with pytest.raises(DatabaseTooNew, match="newer version"):
        await Database.open(options(home, versions=1))
    assert hashes(home) == before


async def test_migration_keeps_rows_and_takes_a_snapshot(tmp_path: Path) -> None:
    await filled(tmp_path, 5)
    database = await Database.open(options(tmp_path, snapshots=3, versions=2))
    assert await database.run(count) == 5
    await database.run(lambda connection: connection.execute("SELECT colour FROM things").fetchall())
    await database.close()
    assert (tmp_path / "things.db.snapshot-1").exists()


async def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    await filled(tmp_path, 5)
    broken = DatabaseOptions(path=tmp_path / "things.db", migrations=(first_schema, failing_schema))
    with pytest.raises(DatabaseError, match="this migration fails"):
        await Database.open(broken)
    database = await Database.open(options(tmp_path))
    assert await database.run(count) == 5
    assert (
        await database.run(lambda c: c.execute("SELECT * FROM sqlite_schema WHERE name = 'half'").fetchall()) == []
    )
    await database.close()


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    match how:
        case "empty":
            data = bytearray()
        case "truncated":
            del data[len(data) // 2 + 100 :]
        case "one page":
            data[4096:8192] = bytes(byte ^ 0xFF for byte in data[4096:8192])
        case "garbage":
            data = bytearray(os.urandom(10_000))
        case "head":
            data[:16] = b"something else.."
        case _:
            path.unlink()
            return
    path.write_bytes(data)


HOW = ["empty", "truncated", "one page", "garbage", "head"]


@pytest.mark.parametrize("how", HOW)
async def test_damage_is_set_aside_and_said(tmp_path: Path, how: str) -> None:
    for number in (1, 2):
        await filled(tmp_path, 50)
        damage(tmp_path / "things.db", how)
        spoiled = (tmp_path / "things.db").read_bytes()
        (tmp_path / "things.db-wal").write_bytes(b"the log of another")
        database = await Database.open(options(tmp_path))
        assert await database.run(count) == 0
        assert len(database.problems) == 1
        assert f"set aside as things.db.damaged-{number}" in database.problems[0]
        assert database.replaced
        await database.close()
        assert (tmp_path / f"things.db.damaged-{number}").read_bytes() == spoiled
        if how in ("empty", "garbage", "head"):  # else SQLite had it open, and removes a log that is no log
            assert (tmp_path / f"things.db.damaged-{number}-wal").exists()


@pytest.mark.parametrize("how", [*HOW, "missing"])
async def test_the_last_good_snapshot_replaces_a_damaged_database(tmp_path: Path, how: str) -> None:
    database = await Database.open(options(tmp_path, snapshots=3))
    for rows in range(1, 6):
        await database.run(lambda connection: add(connection, os.urandom(5000)))
        snapshot = await database.snapshot()
        assert snapshot == tmp_path / f"things.db.snapshot-{rows}"
    await database.run(add)
    await database.close()
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == ["things.db", "things.db.snapshot-3", "things.db.snapshot-4", "things.db.snapshot-5"]
    damage(tmp_path / "things.db", how)
    damage(tmp_path / "things.db.snapshot-5", "truncated")
    database = await Database.open(options(tmp_path, snapshots=3))
    assert await database.run(count) == 4
    assert "snapshot-5 cannot be used" in database.problems[1]
    assert "snapshot-4 was put in place" in database.problems[2]
    await database.close()
    assert database.replaced
    database = await Database.open(options(tmp_path, snapshots=3))
    assert database.problems == []
    assert not database.replaced
    await database.close()


async def test_what_a_killed_process_committed_is_there(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from peer.database import Database, Durability
from tests.peer.test_database import add, options

async def main():
    database = await Database.open(options(Path(sys.argv[1])))
    for number in range(1_000_000):
        await database.run(add, Durability.NORMAL if number % 3 else Durability.FULL)
        print(number + 1, flush=True)

asyncio.run(main())
"""
    for wanted in (1, 40, 333):
        before = 0
        if (tmp_path / "things.db").exists():
            database = await Database.open(options(tmp_path))
            before = await database.run(count)
            await database.close()
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with child:
            assert child.stdout is not None
            said = 0
            for line in child.stdout:
                said = int(line)
                if said == wanted:
                    child.send_signal(signal.SIGKILL)
        database = await Database.open(options(tmp_path))
        assert database.problems == []
        assert said + before <= await database.run(count) <= said + before + 1
        await database.close()


async def test_a_killed_first_opening_is_not_damage(tmp_path: Path) -> None:
    """The name appears only with a whole database behind it; what an interrupted one left is cleaned up."""
    for name in ("things.db.new", "things.db.new-wal", "things.db.snapshot-new"):
        (tmp_path / name).write_bytes(b"half of something")
    database = await Database.open(options(tmp_path, snapshots=1))
    assert database.problems == []
    await database.snapshot()
    await database.close()
    assert sorted(os.listdir(tmp_path)) == ["things.db", "things.db.snapshot-1"]


def test_a_full_disk_is_said_and_the_ballast_lets_the_state_be_stored(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from pathlib import Path
from peer.database import Database, DatabaseDiskFull, DatabaseOptions
from tests.peer.test_database import add, count, first_schema

async def main():
    path = Path(sys.argv[1]) / "things.db"
    database = await Database.open(DatabaseOptions(path=path, migrations=(first_schema,), ballast_bytes=1 << 20))
    filler = open(path.with_name("filler"), "wb", buffering=0)
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
    await database.run(lambda connection: add(connection, os.urandom(20000)))
    assert not path.with_name("things.db.ballast").exists()
    assert "full" in database.problems[-1], database.problems
    stored = 1
    try:
        while True:
            await database.run(lambda connection: add(connection, os.urandom(20000)))
            stored += 1
    except DatabaseDiskFull as error:
        print(error)
    await database.close()
    options = DatabaseOptions(path=path, migrations=(first_schema,), ballast_bytes=1 << 20)
    database = await Database.open(options)  # the disk is still full
    assert await database.run(count) == stored
    filler.truncate(0)
    await database.run(add)
    await database.close()
    database = await Database.open(options)
    assert await database.run(count) == stored + 1
    assert database.problems == []
    assert path.with_name("things.db.ballast").exists()
    await database.close()

asyncio.run(main())
"""
    command = full_disk_command(tmp_path, [sys.executable, "-c", code], size=3 << 20)
    if command is None:
        pytest.skip("no permission to mount a small tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "no space left" in done.stdout


def test_a_snapshot_without_room_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """Nor does a database that is empty take the place of a snapshot that only lacks room to be brought back."""
    code = """
import asyncio, os, sys
from pathlib import Path
from peer.database import Database, DatabaseDiskFull, DatabaseOptions
from tests.peer.test_database import add, count, first_schema

def fill(filler):
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass

async def full(work):
    try:
        await work
    except DatabaseDiskFull as error:
        print(error)
    else:
        raise AssertionError("there was room")

async def main():
    home = Path(sys.argv[1])
    path = home / "things.db"
    options = DatabaseOptions(path=path, migrations=(first_schema,), snapshots_kept=2, ballast_bytes=1 << 16)
    database = await Database.open(options)
    await database.run(lambda connection: add(connection, os.urandom(700_000)))
    await database.snapshot()
    (home / "things.db.ballast").unlink()
    filler = open(home / "filler", "ab", buffering=0)
    fill(filler)
    before = sorted(os.listdir(home))
    await full(database.snapshot())
    assert sorted(os.listdir(home)) == before
    assert await database.run(count) == 1
    filler.truncate(0)
    await database.close()
    path.write_bytes(b"damage")
    fill(filler)
    filler.truncate(os.path.getsize(filler.name) - (128 << 10))  # enough for an empty database
    await full(Database.open(options))
    assert not path.exists()
    filler.truncate(0)
    database = await Database.open(options)
    assert database.replaced
    assert await database.run(count) == 1
    assert await database.snapshot() == home / "things.db.snapshot-2"
    assert (home / "things.db.ballast").exists()
    await database.close()

asyncio.run(main())
"""
    command = full_disk_command(tmp_path, [sys.executable, "-c", code], size=3 << 20)
    if command is None:
        pytest.skip("no permission to mount a small tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


async def test_room_for_the_ballast_is_taken_again_with_the_next_snapshot(tmp_path: Path) -> None:
    with_ballast = DatabaseOptions(
        path=tmp_path / "things.db", migrations=(first_schema,), snapshots_kept=1, ballast_bytes=4096
    )
    database = await Database.open(with_ballast)
    ballast = tmp_path / "things.db.ballast"
    ballast.unlink()
    await database.snapshot()
    assert ballast.stat().st_size == 4096
    await database.close()


async def test_after_a_failed_sync_the_log_is_not_believed(tmp_path: Path) -> None:
    """The first FULL commit meets EIO; the next one first moves everything out of the log (reliability r5)."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not there or may not trace")
    await filled(tmp_path, 1)
    log = tmp_path / "things.db-wal"
    code = """
import asyncio, os, sys
from pathlib import Path
from peer.database import Database, DatabaseError, Durability
from tests.peer.test_database import add, count, options

async def main():
    database = await Database.open(options(Path(sys.argv[1])))
    for _ in range(200):
        await database.run(lambda connection: add(connection, os.urandom(3000)), Durability.NORMAL)
    try:
        await database.run(add)
    except DatabaseError as error:
        print(error)
    await database.run(add)
    print(os.path.getsize(sys.argv[2]))
    assert await database.run(count) == 202
    os._exit(0)

asyncio.run(main())
"""
    # The log's own first sync is that of its header; the second is the first FULL commit's.
    inject = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=2"]
    command = [strace, "-f", "-o", str(tmp_path / "trace"), "-P", str(log), *inject]
    arguments = [sys.executable, "-c", code, str(tmp_path), str(log)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "INJECTED" in (tmp_path / "trace").read_text()
    message, size = done.stdout.splitlines()
    assert "disk I/O error" in message
    assert int(size) < 100_000
    database = await Database.open(options(tmp_path))
    assert await database.run(count) == 202
    await database.close()


async def test_closed_means_closed(tmp_path: Path) -> None:
    database = await Database.open(options(tmp_path))
    await database.close()
    with pytest.raises((DatabaseError, RuntimeError)):
        await database.run(count)
    assert not issubclass(DatabaseDiskFull, OSError)
