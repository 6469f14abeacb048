"""The journal's tables, one function a version.

A function that was released is never changed: journals made by it are out there. What is new gets a function of
its own at the end of `MIGRATIONS`.
Never knows: who reads and writes the rows.

Sources: reliability 2.3; sqlite.org autoinc.html, stricttables.html, withoutrowid.html.
"""

from __future__ import annotations

import sqlite3


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


def add_feed(connection: sqlite3.Connection) -> None:
    """Schema 2: what listeners are told, keys of requests, URLs of contents. None of it goes with a job.

    AUTOINCREMENT, because a number that a listener has seen must never name another event.
    """
    connection.execute(
        "CREATE TABLE feed(sequence INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, job_id TEXT NOT NULL,"
        " kind TEXT NOT NULL, data BLOB NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX feed_by_job ON feed(job_id)")
    connection.execute(
        "CREATE TABLE request_keys(key BLOB PRIMARY KEY, digest BLOB NOT NULL, job_id TEXT NOT NULL,"
        " at REAL NOT NULL) STRICT, WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX request_keys_by_age ON request_keys(at)")
    connection.execute(
        "CREATE TABLE contents(content_id TEXT PRIMARY KEY, url BLOB NOT NULL, length INTEGER NOT NULL,"
        " at REAL NOT NULL) STRICT, WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX contents_by_url ON contents(url)")


MIGRATIONS = (create_tables, add_feed)
