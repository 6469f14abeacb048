"""A journal of the version before opens, loses nothing, and is new afterwards; a newer one is left alone."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.core.jobs import JobError
from agent.core.spec import NearUse
from agent.journal import MIGRATIONS, FileRecord, JobRecord, Journal, NewsItem, RequestKey, StoredJob
from agent.journal import decode_ranges as decode
from agent.records import decode_error, decode_file, decode_job
from agent.schema import NewJob, Priority
from peer.database import DatabaseTooNew
from tests.agent.test_journal import ranges

FIRST_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE jobs(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name BLOB NOT NULL,
 state TEXT NOT NULL, priority TEXT NOT NULL, created_at REAL NOT NULL, modified_at REAL NOT NULL,
 completed_at REAL, settings BLOB NOT NULL, document BLOB NOT NULL, error BLOB, intent TEXT NOT NULL) STRICT;
CREATE TABLE files(job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, position INTEGER NOT NULL,
 url BLOB NOT NULL, directory BLOB NOT NULL, base BLOB NOT NULL, state TEXT NOT NULL, temp_name BLOB,
 device INTEGER, inode INTEGER, length INTEGER, document BLOB NOT NULL,
 PRIMARY KEY(job_id, position)) STRICT, WITHOUT ROWID;
CREATE TABLE progress(job_id TEXT NOT NULL, position INTEGER NOT NULL, held BLOB NOT NULL, held_boot TEXT NOT NULL,
 durable BLOB NOT NULL, PRIMARY KEY(job_id, position), FOREIGN KEY(job_id, position) REFERENCES files
 ON DELETE CASCADE) STRICT, WITHOUT ROWID;
CREATE TABLE events(number INTEGER PRIMARY KEY, job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
 at REAL NOT NULL, text BLOB NOT NULL) STRICT;
CREATE INDEX events_by_job ON events(job_id, number);
PRAGMA user_version=1;
"""
"""Word for word what the first released version made."""

ONE, TWO = "1" * 32, "2" * 32
SETTINGS = b'{"name":"old","priority":"low","files":[],"minimum_retry_delay_s":60.0,"no_progress_timeout_s":null}'
FILE = (
    b'{"new":{"url":"http://origin.example/a","path":"/data/a","digest":null,"validators":["size:5"],"peers":"prefer",'
    b'"overwrite":"keep","headers":{"X-Old":"1"}},"facts":{"length":100,"etag":"\\"e\\"","ranges":"promised"},'
    b'"from_origin":"3","from_origin_bytes":60,"by_peer":{"p":40}}'
)
ERROR = b'{"code":"HTTP_ERROR","message":"no","context":"origin","file":0,"http_status":500}'
HELD = b"\x01" + (0).to_bytes(8, "little") + (60).to_bytes(8, "little")
DURABLE = b"\x01" + (0).to_bytes(8, "little") + (40).to_bytes(8, "little")


def old_journal(path: Path) -> None:
    """As the version before left it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(FIRST_SCHEMA)
    rows = [
        (1, ONE, b"caf\xe9", "TRANSIENT_ERROR", "low", 1.5, 2.5, None, SETTINGS, b"{}", ERROR, "none"),
        (2, TWO, b"two", "SUSPENDED", "normal", 3.0, 4.0, 5.0, b'{"name":"two"}', b"{}", None, "completing"),
    ]
    connection.executemany("INSERT INTO jobs VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    file = (ONE, 0, b"http://origin.example/a", b"/data", b"a", "fetching", b".a.part", -1, 7, 100, FILE)
    connection.execute("INSERT INTO files VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", file)
    connection.execute("INSERT INTO progress VALUES(?, ?, ?, ?, ?)", (ONE, 0, HELD, "boot-1", DURABLE))
    connection.executemany(
        "INSERT INTO events(job_id, at, text) VALUES(?, ?, ?)", [(ONE, 1.0, b"made"), (ONE, 2.0, b"failed")]
    )
    connection.execute("INSERT INTO meta VALUES('cache', '{}')")
    connection.close()


EXPECTED = [
    StoredJob(
        job=JobRecord(
            id=ONE,
            name="caf\udce9",
            state="TRANSIENT_ERROR",
            priority="low",
            created_at=1.5,
            modified_at=2.5,
            settings=SETTINGS,
            error=ERROR,
        ),
        files=(
            FileRecord(
                job_id=ONE,
                index=0,
                url="http://origin.example/a",
                directory="/data",
                base="a",
                state="fetching",
                temp_name=".a.part",
                device=2**64 - 1,
                inode=7,
                length=100,
                document=FILE,
                held=HELD,
                held_boot="boot-1",
                durable=DURABLE,
            ),
        ),
    ),
    StoredJob(
        job=JobRecord(
            id=TWO,
            name="two",
            state="SUSPENDED",
            priority="normal",
            created_at=3.0,
            modified_at=4.0,
            completed_at=5.0,
            settings=b'{"name":"two"}',
            intent="completing",
        ),
        files=(),
    ),
]


async def test_a_journal_of_the_version_before_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    old_journal(path)
    journal = await Journal.open(path, "boot-1")
    assert journal.problems == []
    assert await journal.load_all() == EXPECTED
    assert [(line.at, line.text) for line in await journal.events(ONE)] == [(1.0, "made"), (2.0, "failed")]
    assert await journal.get_meta("cache") == "{}"
    assert await journal.feed_bounds() == (1, 0)
    news = await journal.save(EXPECTED[1].job, news=[NewsItem(job_id=TWO, kind="state", at=6.0)])
    assert [item.sequence for item in news] == [1]
    await journal.save(request=RequestKey(key="k", digest=b"d", job_id=TWO, at=1.0))
    await journal.close()
    again = await Journal.open(path, "boot-2")
    assert decode((await again.load_all())[0].files[0].held) == ranges((0, 40))
    assert await again.find_request("k") is not None
    await again.close()
    with sqlite3.connect(tmp_path / "journal.db.snapshot-1") as before:  # to go back to
        assert before.execute("PRAGMA user_version").fetchone() == (1,)
        assert before.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    before.close()


async def test_what_the_version_before_wrote_into_its_documents_is_understood() -> None:
    new = msgspec.json.decode(SETTINGS, type=NewJob)
    assert (new.name, new.priority, new.minimum_retry_delay_s) == ("old", Priority.LOW, 60.0)
    file = decode_file(FILE)
    assert (file.new.url, file.new.validators, file.new.headers) == (
        "http://origin.example/a",
        ["size:5"],
        {"X-Old": "1"},
    )
    assert file.snapshot.facts is not None
    assert (file.snapshot.facts.length, file.snapshot.facts.etag) == (100, '"e"')
    assert (file.snapshot.near, file.snapshot.from_origin_bytes) == (NearUse.PREFERRED, 60)
    assert decode_job(b"{}").error_count == 0
    assert decode_job(b"").credentials == []
    error = decode_error(ERROR)
    assert isinstance(error, JobError)
    assert (error.code, error.http_status) == ("HTTP_ERROR", 500)


async def test_a_journal_that_was_killed_in_its_log_is_brought_forward_too(tmp_path: Path) -> None:
    """The rows are in the write-ahead log alone; nobody folded them in."""
    code = """
import os, sys
from pathlib import Path
import sqlite3
real = sqlite3.connect
kept = []
class Open(sqlite3.Connection):
    def close(self):
        os._exit(0)
sqlite3.connect = lambda *a, **k: real(*a, factory=Open, **k)
from tests.agent.test_journal_schema import old_journal
old_journal(Path(sys.argv[1]))
"""
    path = tmp_path / "journal.db"
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=30, check=True)
    assert path.with_name("journal.db-wal").stat().st_size > 0
    bare = shutil.copy(path, tmp_path / "bare.db")
    with sqlite3.connect(bare) as alone:
        assert alone.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    alone.close()
    journal = await Journal.open(path, "boot-1")
    assert journal.problems == []
    assert await journal.load_all() == EXPECTED
    await journal.close()


@pytest.mark.parametrize("ahead", [1, 7])
async def test_a_newer_journal_is_refused_and_not_touched(tmp_path: Path, ahead: int) -> None:
    path = tmp_path / "journal.db"
    old_journal(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + ahead}")
    connection.close()
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    with pytest.raises(
        DatabaseTooNew, match=f"schema {len(MIGRATIONS) + ahead}, this program knows {len(MIGRATIONS)}"
    ):
        await Journal.open(path)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before
