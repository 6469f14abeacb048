"""What the journal keeps beside the jobs: the feed for listeners, keys of requests, the URLs of contents.

Values, and functions on a connection, to be run by `Database.run`. All of it outlives the jobs it is about.
Never knows: who listens, what an event's document says, clocks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FEED_KEPT = 100_000
"""Events kept for listeners, at most."""
FEED_PRUNED = 1000
"""The oldest go so many at a time, so that the cost is in one save of a thousand."""
REQUESTS_KEPT_S = 7 * 24 * 3600.0
"""A key can be repeated for so long; counted from one request to a later one."""

_FEED_OF_ALL = "SELECT sequence, job_id, kind, at, data FROM feed WHERE sequence > ? ORDER BY sequence LIMIT ?"
_FEED_OF_JOB = (
    "SELECT sequence, job_id, kind, at, data FROM feed WHERE job_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsItem:
    """Something that has happened to a job and is not recorded yet."""

    job_id: str
    kind: str
    at: float
    """Seconds since 1970."""
    data: bytes = b"{}"
    """JSON that only the engine reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedItem:
    """An event that is recorded. Numbers grow, and no number is ever given twice."""

    sequence: int
    """Counts from 1, over all jobs."""
    job_id: str
    kind: str
    at: float
    """Seconds since 1970."""
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """The key a client gave to the request that made a job, so that repeating it makes no second one."""

    key: str
    digest: bytes
    """Of the request, to tell a repetition from another one under the same key."""
    job_id: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Where a content of the peer cache came from."""

    content_id: str
    url: str
    """Without secrets: the caller saw to it."""
    length: int
    """Bytes."""
    at: float
    """Seconds since 1970."""


def append_news(connection: sqlite3.Connection, news: Sequence[NewsItem]) -> list[FeedItem]:
    """Number the items in their order and keep them; the oldest beyond FEED_KEPT go."""
    items = [
        FeedItem(sequence=_append(connection, item), job_id=item.job_id, kind=item.kind, at=item.at, data=item.data)
        for item in news
    ]
    if items:
        _prune(connection, items[-1].sequence)
    return items


def _append(connection: sqlite3.Connection, item: NewsItem) -> int:
    row = (item.at, item.job_id, item.kind, item.data)
    number = connection.execute("INSERT INTO feed(at, job_id, kind, data) VALUES(?, ?, ?, ?)", row).lastrowid
    assert number is not None
    return number


def _prune(connection: sqlite3.Connection, last: int) -> None:
    first = connection.execute("SELECT min(sequence) FROM feed").fetchone()[0]
    if last - first + 1 > FEED_KEPT:
        connection.execute("DELETE FROM feed WHERE sequence <= ?", (last - FEED_KEPT + FEED_PRUNED,))


def feed_after(connection: sqlite3.Connection, sequence: int, limit: int, job_id: str | None) -> list[FeedItem]:
    """At most `limit` events with higher numbers, in order; of one job, or of all (None)."""
    if job_id is None:
        rows = connection.execute(_FEED_OF_ALL, (sequence, limit))
    else:
        rows = connection.execute(_FEED_OF_JOB, (job_id, sequence, limit))
    return [
        FeedItem(sequence=number, job_id=job, kind=kind, at=at, data=data) for number, job, kind, at, data in rows
    ]


def feed_bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    """The first number kept and the last one ever given; (last + 1, last) when nothing is kept."""
    (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'feed'").fetchone()
    (first,) = connection.execute("SELECT min(sequence) FROM feed").fetchone()
    return (last + 1 if first is None else first, last)


def begin_anew(connection: sqlite3.Connection, at: float) -> None:
    """After the journal was replaced by an older one or an empty one: numbers may have been given that are not in
    it. The events go, and the next number is above all of those: milliseconds since 1970, which no agent can have
    outrun. Whoever knows a number from before learns that he has missed something."""
    _, last = feed_bounds(connection)
    connection.execute("DELETE FROM feed")
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'feed'")
    connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES('feed', ?)", (max(last, int(at * 1000)),))


def store_request(connection: sqlite3.Connection, request: RequestKey) -> None:
    """Keep the key, drop those that are too old. The same again is fine.

    Raises sqlite3.IntegrityError when it stands for another request or job.
    """
    connection.execute("DELETE FROM request_keys WHERE at < ?", (request.at - REQUESTS_KEPT_S,))
    stored = connection.execute(
        "INSERT INTO request_keys VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at"
        " WHERE digest = excluded.digest AND job_id = excluded.job_id",
        (os.fsencode(request.key), request.digest, request.job_id, request.at),
    )
    if stored.rowcount != 1:
        raise sqlite3.IntegrityError("the request's key stands for another job")


def find_request(connection: sqlite3.Connection, key: str) -> RequestKey | None:
    """The request that had this key."""
    row = connection.execute(
        "SELECT digest, job_id, at FROM request_keys WHERE key = ?", (os.fsencode(key),)
    ).fetchone()
    return None if row is None else RequestKey(key=key, digest=row[0], job_id=row[1], at=row[2])


def note_contents(connection: sqlite3.Connection, items: Iterable[Content]) -> None:
    """Keep where these came from; what was noted before under the same id is replaced."""
    connection.executemany(
        "INSERT OR REPLACE INTO contents VALUES(?, ?, ?, ?)",
        [(item.content_id, os.fsencode(item.url), item.length, item.at) for item in items],
    )


def contents(connection: sqlite3.Connection, content_ids: Sequence[str] | None) -> dict[str, Content]:
    """Those of the ids that are known; None: all."""
    select = "SELECT content_id, url, length, at FROM contents"
    if content_ids is None:
        rows = connection.execute(select).fetchall()
    else:
        found = (connection.execute(f"{select} WHERE content_id = ?", (name,)).fetchone() for name in content_ids)
        rows = [row for row in found if row is not None]
    return {
        name: Content(content_id=name, url=os.fsdecode(url), length=length, at=at) for name, url, length, at in rows
    }


def content_ids_of(connection: sqlite3.Connection, url: str) -> list[str]:
    """Every content that came from exactly this URL, in order of id."""
    rows = connection.execute("SELECT content_id FROM contents WHERE url = ? ORDER BY 1", (os.fsencode(url),))
    return [row[0] for row in rows]


def forget_contents(connection: sqlite3.Connection, content_ids: Iterable[str]) -> None:
    """Unknown ones are fine."""
    connection.executemany("DELETE FROM contents WHERE content_id = ?", [(name,) for name in content_ids])
