"""The journal: jobs, their files, how much of each file is held, their logs, and what listeners are told. SQLite.

It stores what it is told and gives it back. Two kinds of saves for progress: `note_progress` survives the end of
the process, because the page cache holds data and log alike, and is tagged with the boot it was made in;
`checkpoint_progress` comes after an fdatasync of the file and survives a power loss. When the journal is loaded in
another boot, only the checkpoint counts. Jobs, their news and the keys of requests are synced before the call
returns; calls made at the same time share the sync.
Never knows: rules of transition, what documents mean, files.

Sources: reliability 2.1 (D2, D3, D5, D8), 2.3.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agent import feed, journal_rows
from agent.boot import boot_id
from agent.feed import FEED_KEPT, REQUESTS_KEPT_S, Content, FeedItem, NewsItem, RequestKey
from agent.journal_rows import (
    EVENTS_KEPT,
    FileKey,
    FileRecord,
    JobRecord,
    LogLine,
    StoredJob,
    decode_ranges,
    encode_ranges,
)
from agent.journal_schema import MIGRATIONS
from peer.database import Database, DatabaseError, DatabaseOptions, Durability
from validation.rangeset import RangeSet

__all__ = [
    "BALLAST_BYTES",
    "EVENTS_KEPT",
    "FEED_KEPT",
    "MIGRATIONS",
    "REQUESTS_KEPT_S",
    "SNAPSHOTS_KEPT",
    "Content",
    "FeedItem",
    "FileKey",
    "FileRecord",
    "JobRecord",
    "Journal",
    "LogLine",
    "NewsItem",
    "RequestKey",
    "StoredJob",
    "decode_ranges",
    "encode_ranges",
]

SNAPSHOTS_KEPT = 3
BALLAST_BYTES = 1024 * 1024


class Journal:
    """An open journal. `problems`: sentences about damage met at opening and space given up since.

    Every method but `open`, `close` and `snapshot` raises DatabaseError, DatabaseDiskFull.
    """

    def __init__(self, database: Database, boot: str) -> None:
        """Use `open`."""
        self._database = database
        self._boot = boot
        self.problems = database.problems

    @classmethod
    async def open(cls, path: Path, boot: str | None = None) -> Journal:
        """Open or create the journal at `path`, in a directory that exists. `boot`: the current boot's id.

        A damaged one is set aside and the last good snapshot used: read `problems`. The feed's numbers then go on
        far above the snapshot's. Raises DatabaseTooNew, DatabaseInUse, DatabaseError, OSError.
        """
        options = DatabaseOptions(
            path=path, migrations=MIGRATIONS, snapshots_kept=SNAPSHOTS_KEPT, ballast_bytes=BALLAST_BYTES
        )
        database = await Database.open(options)
        if database.replaced:
            now = time.time()
            try:
                await database.run(lambda connection: feed.begin_anew(connection, now))
            except BaseException:
                await database.close()
                raise
        return cls(database, boot or boot_id())

    async def close(self) -> None:
        """Close; for a clean stop call `snapshot` first. Harmless when repeated."""
        await self._database.close()

    async def snapshot(self) -> Path | None:
        """Store a copy to fall back on (at a clean stop, and once a day); the last three are kept. None when it
        could not be stored: `problems` says why. Raises nothing."""
        try:
            return await self._database.snapshot()
        except DatabaseError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None

    # --- jobs ------------------------------------------------------------------------------------------------

    async def load_all(self) -> list[StoredJob]:
        """Every job in order of creation, with `held` replaced by `durable` where it is of another boot."""
        boot = self._boot
        return await self._database.run(lambda connection: journal_rows.load(connection, boot), Durability.NORMAL)

    async def save(
        self,
        *records: JobRecord | FileRecord,
        news: Sequence[NewsItem] = (),
        request: RequestKey | None = None,
    ) -> list[FeedItem]:
        """Store jobs and files, new or changed, with what has happened to them, all or none. Returns the news with
        their numbers, in order: now they may be told.

        The progress in a FileRecord counts for a new file only: that of a known one changes by the methods made for
        it, so that a record read earlier cannot undo it. Raises sqlite3.IntegrityError for a file without its job,
        and for a request whose key stands for another job or another request.
        """
        rows, told = tuple(records), tuple(news)

        def change(connection: sqlite3.Connection) -> list[FeedItem]:
            if request is not None:
                feed.store_request(connection, request)
            journal_rows.save(connection, rows)
            return feed.append_news(connection, told)

        return await self._database.run(change)

    async def restart_file(self, file: FileRecord) -> None:
        """Store the file with the progress that is in the record, in one step: to be called before its bytes are
        thrown away (another version at the origin, a lost temporary file)."""
        await self._database.run(lambda connection: journal_rows.restart(connection, file))

    async def delete_job(
        self, job_id: str, news: Sequence[NewsItem] = (), meta: Mapping[str, str] | None = None
    ) -> list[FeedItem]:
        """Remove a job with its files and its log, and record its last news, in one step; an unknown job is fine.
        Returns the news with their numbers. `meta`: facts about the journal as a whole that change with it."""
        told, facts = tuple(news), dict(meta or {})

        def change(connection: sqlite3.Connection) -> list[FeedItem]:
            journal_rows.delete(connection, (job_id,))
            for key, value in facts.items():
                journal_rows.set_meta(connection, key, value)
            return feed.append_news(connection, told)

        return await self._database.run(change)

    # --- progress --------------------------------------------------------------------------------------------

    async def note_progress(self, file: FileKey, held: RangeSet) -> None:
        """`held` is written. Survives `kill -9`, not a power loss. Raises KeyError for an unknown file."""
        twin, boot = held.copy(), self._boot
        await self._database.run(
            lambda connection: journal_rows.note(connection, file, twin, boot), Durability.NORMAL
        )

    async def checkpoint_progress(self, file: FileKey, held: RangeSet) -> None:
        """`held` is on the disk: its file was synced before this call. Survives all. KeyError: unknown file."""
        twin, boot = held.copy(), self._boot
        await self._database.run(lambda connection: journal_rows.checkpoint(connection, file, twin, boot))

    # --- logs of jobs ----------------------------------------------------------------------------------------

    async def append_event(self, job_id: str, at: float, text: str) -> None:
        """Add a line to a job's log; may be lost by a power loss. A job that is gone is fine."""
        await self._database.run(
            lambda connection: journal_rows.append_line(connection, job_id, at, text), Durability.NORMAL
        )

    async def events(self, job_id: str) -> list[LogLine]:
        """A job's log, oldest first, at most the last thousand lines."""
        return await self._database.run(
            lambda connection: journal_rows.lines_of(connection, job_id), Durability.NORMAL
        )

    async def recent_events(self, lines: int) -> dict[str, list[str]]:
        """The last `lines` lines of every job's log, oldest first, by the job's id; jobs without any left out."""
        return await self._database.run(
            lambda connection: journal_rows.last_lines(connection, lines), Durability.NORMAL
        )

    # --- the feed --------------------------------------------------------------------------------------------

    async def feed_after(self, sequence: int, limit: int, job_id: str | None = None) -> list[FeedItem]:
        """The first `limit` events with a number above `sequence`, in order; of one job, be it gone, or of all."""
        return await self._database.run(
            lambda connection: feed.feed_after(connection, sequence, limit, job_id), Durability.NORMAL
        )

    async def feed_bounds(self) -> tuple[int, int]:
        """The first number that is kept and the last one that was ever given; (1, 0) before the first event."""
        return await self._database.run(feed.feed_bounds, Durability.NORMAL)

    # --- requests --------------------------------------------------------------------------------------------

    async def find_request(self, key: str) -> RequestKey | None:
        """The request that `save` stored under this key; for seven days at least, until later ones push it out."""
        return await self._database.run(lambda connection: feed.find_request(connection, key), Durability.NORMAL)

    # --- contents of the peer cache --------------------------------------------------------------------------

    async def note_contents(self, items: Sequence[Content]) -> None:
        """Keep which URL contents came from. As the cache's own index: may be lost by a power loss."""
        noted = tuple(items)
        await self._database.run(lambda connection: feed.note_contents(connection, noted), Durability.NORMAL)

    async def contents(self, content_ids: Sequence[str] | None = None) -> dict[str, Content]:
        """What is known about these contents, by id; None: about all. Unknown ones are left out."""
        wanted = None if content_ids is None else tuple(content_ids)
        return await self._database.run(lambda connection: feed.contents(connection, wanted), Durability.NORMAL)

    async def content_ids_of(self, url: str) -> list[str]:
        """Every content that came from exactly this URL, in order of id."""
        return await self._database.run(lambda connection: feed.content_ids_of(connection, url), Durability.NORMAL)

    async def forget_contents(self, content_ids: Iterable[str]) -> None:
        """These are in the peer cache no more; unknown ones are fine."""
        gone = tuple(content_ids)
        await self._database.run(lambda connection: feed.forget_contents(connection, gone), Durability.NORMAL)

    # --- facts -----------------------------------------------------------------------------------------------

    async def set_meta(self, key: str, value: str) -> None:
        """Store a fact about the journal as a whole."""
        await self._database.run(lambda connection: journal_rows.set_meta(connection, key, value))

    async def get_meta(self, key: str) -> str | None:
        """What `set_meta` stored; None when nothing."""
        return await self._database.run(
            lambda connection: journal_rows.get_meta(connection, key), Durability.NORMAL
        )
