"""Readers of the feed, listeners, and commands, with a real journal and real programs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent import announcer as announcing
from agent import feed
from agent.announcer import WAITING_DELIVERIES, Announcer, Mark, numbered
from agent.core.jobs import Job
from agent.core.notices import Deliver, DeliveryId, Notice, NoticeKind, RunNotifyCommand
from agent.core.queue import JobId
from agent.journal import FeedItem, Journal, NewsItem
from agent.schema import DeliveryDocument, EventDocument, EventKind, JobDocument, Priority
from tests.agent.test_journal import job as record
from tests.support.desk import Desk

WAIT_S = 5.0
ONE, TWO = "1" * 32, "2" * 32


def document(job_id: str = ONE, **changes: object) -> JobDocument:
    plain = JobDocument(
        id=job_id,
        name="a job",
        state="TRANSFERRED",
        priority=Priority.NORMAL,
        created_at=1.0,
        modified_at=2.0,
        completed_at=None,
        error=None,
        error_count=0,
        retry_in_s=None,
        bytes_total=10,
        bytes_transferred=4,
        files_total=1,
        files_transferred=0,
        files=[],
        log=[],
        sequence=1,
    )
    return msgspec.structs.replace(plain, **changes)


class Studio:
    """An announcer, its journal, and what happens."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.announcer = Announcer(journal, "/the/home")

    async def happens(self, *jobs: str, kind: EventKind = EventKind.STATE) -> list[FeedItem]:
        """One event for each job, recorded and announced."""
        news = [
            NewsItem(
                job_id=job,
                kind=kind.value,
                at=1.0,
                data=msgspec.json.encode(EventDocument(sequence=None, at=1.0, kind=kind, job=job, name="n")),
            )
            for job in jobs
        ]
        items = await self.journal.save(record(1), news=news)
        self.announcer.recorded(items)
        return items

    @contextlib.asynccontextmanager
    async def reading(self, after: int | None = None, job: str | None = None) -> AsyncIterator[Reading]:
        async with contextlib.aclosing(self.announcer.events(after, job)) as events:  # type: ignore[type-var]
            reading = Reading(events, self.journal)
            yield reading
            await reading.stop()


class Reading:
    """A reader of the feed."""

    def __init__(self, events: AsyncIterator[EventDocument | Mark], journal: Journal) -> None:
        self.marks: list[int] = []
        self._events = events
        self._journal = journal
        self._next: asyncio.Task[EventDocument] | None = None

    def start(self) -> asyncio.Task[EventDocument]:
        """Ask for the next one; the reader is known to the announcer soon."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._following())
        return self._next

    async def _following(self) -> EventDocument:
        while isinstance(event := await anext(self._events), Mark):
            self.marks.append(event.number)
        return event

    async def listens(self) -> None:
        """It has read everything there is, and waits."""
        task = self.start()
        for _ in range(8):  # the journal answers in order: the reader's own questions lie between these
            await self._journal.feed_bounds()
        assert not task.done()

    async def next(self) -> EventDocument:
        async with asyncio.timeout(WAIT_S):
            event = await self.start()
        self._next = None
        return event

    async def sequences(self, count: int) -> list[int | None]:
        return [(await self.next()).sequence for _ in range(count)]

    async def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    journal = await Journal.open(tmp_path / "journal.db")
    yield Studio(journal)
    await journal.close()


# --- the feed ---------------------------------------------------------------------------------------------------


async def test_a_reader_learns_where_it_stands_before_any_event(studio: Studio) -> None:
    await studio.happens(ONE, TWO)
    async with studio.reading() as fresh, studio.reading(after=1) as knowing, studio.reading(after=9) as lost:
        await fresh.listens()
        assert fresh.marks == [2]
        assert (await knowing.next()).sequence == 2
        assert knowing.marks == []
        assert (await lost.next()).kind is EventKind.LOST
        await lost.listens()
        assert lost.marks == [2]


async def test_a_reader_that_comes_back_misses_nothing(studio: Studio) -> None:
    await studio.happens(ONE, TWO, ONE)
    async with studio.reading(after=0) as reading:
        first = await reading.next()
        assert (first.sequence, first.kind, first.job, first.name) == (1, EventKind.STATE, ONE, "n")
        assert await reading.sequences(2) == [2, 3]
    await studio.happens(TWO, ONE)
    async with studio.reading(after=3) as reading:
        assert await reading.sequences(2) == [4, 5]


async def test_without_a_number_it_begins_now(studio: Studio) -> None:
    await studio.happens(ONE)
    async with studio.reading() as reading:
        await reading.listens()
        await studio.happens(TWO)
        assert await reading.sequences(1) == [2]


async def test_events_come_as_they_happen_to_every_reader(studio: Studio) -> None:
    async with studio.reading(after=0) as one, studio.reading(after=0, job=TWO) as two:
        await one.listens()
        await two.listens()
        await studio.happens(ONE, TWO)
        assert await one.sequences(2) == [1, 2]
        assert await two.sequences(1) == [2]
        await studio.happens(TWO)
        assert await one.sequences(1) == await two.sequences(1) == [3]


async def test_many_pages(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "PAGE", 7)
    for _ in range(10):
        await studio.happens(*([ONE] * 5))
    async with studio.reading(after=3) as reading:
        assert await reading.sequences(47) == list(range(4, 51))
        await reading.listens()


async def test_events_while_it_reads_old_ones_are_not_lost(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "PAGE", 1)
    await studio.happens(ONE, ONE)
    async with studio.reading(after=0) as reading:
        assert await reading.sequences(1) == [1]
        await studio.happens(ONE)
        assert await reading.sequences(2) == [2, 3]


async def test_a_reader_with_nothing_to_read_asks_for_nothing(tmp_path: Path) -> None:
    asked = 0

    class Counted(Journal):
        async def feed_after(self, sequence: int, limit: int, job_id: str | None = None) -> list[FeedItem]:
            nonlocal asked
            asked += 1
            return await super().feed_after(sequence, limit, job_id)

    journal = await Counted.open(tmp_path / "journal.db")
    studio = Studio(journal)
    async with studio.reading() as reading:
        await reading.listens()
        await studio.happens(ONE)
        assert await reading.sequences(1) == [1]
        await reading.listens()
        before = asked
        for _ in range(20):
            await journal.feed_bounds()
        assert asked == before
    await journal.close()


async def test_what_is_not_kept_any_more_is_said(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "FEED_KEPT", 5)
    monkeypatch.setattr(feed, "FEED_PRUNED", 2)
    for _ in range(10):
        await studio.happens(ONE)
    first, last = await studio.journal.feed_bounds()
    assert first > 3
    for after in (0, 2, first - 2):
        async with studio.reading(after=after) as reading:
            lost = await reading.next()
            assert (lost.kind, lost.sequence, lost.job) == (EventKind.LOST, None, "")
            assert await reading.sequences(last - first + 1) == list(range(first, last + 1))
    async with studio.reading(after=first - 1) as reading:
        assert await reading.sequences(1) == [first]


async def test_a_number_of_another_life_is_no_reason_to_wait_for_ever(studio: Studio) -> None:
    """The home was removed and made anew: the reader knows a higher number than there is."""
    await studio.happens(ONE)
    async with studio.reading(after=1_000) as reading:
        assert (await reading.next()).kind is EventKind.LOST
        await reading.listens()
        await studio.happens(ONE)
        assert await reading.sequences(1) == [2]


# --- progress -----------------------------------------------------------------------------------------------------


def a_job() -> Job:
    return Desk().job(ONE, "a")


async def test_progress_reaches_who_reads_and_needs_no_number(studio: Studio) -> None:
    job = a_job()
    async with studio.reading() as all_jobs, studio.reading(job=ONE) as this, studio.reading(job=TWO) as other:
        for reading in (all_jobs, this, other):
            await reading.listens()
        studio.announcer.progressed(job, document)
        for reading in (all_jobs, this):
            event = await reading.next()
            assert (event.kind, event.sequence, event.job) == (EventKind.JOB_MODIFICATION, None, ONE)
            assert (event.bytes_transferred, event.bytes_total, event.state) == (4, 10, "TRANSFERRED")
        await other.listens()


async def test_progress_is_told_twice_a_second_at_most(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def found() -> JobDocument:
        nonlocal asked
        asked += 1
        return document(bytes_transferred=asked)

    job = a_job()
    studio.announcer.progressed(job, found)
    assert asked == 0, "nobody reads"
    async with studio.reading() as reading:
        await reading.listens()
        for _ in range(100):
            studio.announcer.progressed(job, found)
        assert asked == 1
        assert (await reading.next()).bytes_transferred == 1
        monkeypatch.setattr(announcing, "PROGRESS_S", 0.0)
        await reading.listens()
        for _ in range(3):
            studio.announcer.progressed(job, found)
        assert (await reading.next()).bytes_transferred == 4, "the latest only"


async def test_progress_comes_after_what_is_recorded_and_not_after_the_end(studio: Studio) -> None:
    job = a_job()
    async with studio.reading() as reading:
        await reading.listens()
        studio.announcer.progressed(job, document)
        await studio.happens(ONE)
        kinds = {(await reading.next()).kind, (await reading.next()).kind}
        assert kinds == {EventKind.STATE, EventKind.JOB_MODIFICATION}
        await reading.listens()
        studio.announcer.gone(job.job)
        studio.announcer.progressed(job, document)
        studio.announcer.gone(job.job)
        await reading.listens()


# --- callbacks ----------------------------------------------------------------------------------------------------


def delivery(listener: int, number: int = 1) -> Deliver:
    notice = Notice(kind=NoticeKind.FILE_RANGES_TRANSFERRED, job=JobId(ONE), file=0, ranges=((0, 5),), serial=1)
    return Deliver(delivery=DeliveryId(number), listener=listener, notice=notice)  # type: ignore[arg-type]


async def test_a_listener_gets_its_deliveries_in_their_order(studio: Studio) -> None:
    one, two = studio.announcer.new_listener(), studio.announcer.new_listener()
    assert one != two
    for number in (1, 2):
        assert studio.announcer.deliver(delivery(one, number), document())
    assert studio.announcer.deliver(delivery(two, 3), document())
    found: list[DeliveryDocument] = []
    async with contextlib.aclosing(studio.announcer.deliveries_of(one)) as deliveries:  # type: ignore[type-var]
        async for each in deliveries:
            found.append(each)
            if len(found) == 2:
                break
    assert [each.delivery for each in found] == [1, 2]
    assert found[0] == DeliveryDocument(
        delivery=1, serial=1, notice="file-ranges-transferred", file=0, ranges=[(0, 5)], job=document()
    )


async def test_a_listener_that_left_or_sleeps_takes_nothing(studio: Studio) -> None:
    listener = studio.announcer.new_listener()
    for number in range(WAITING_DELIVERIES):
        assert studio.announcer.deliver(delivery(listener, number), document())
    assert not studio.announcer.deliver(delivery(listener), document())
    studio.announcer.drop_listener(listener)
    assert not studio.announcer.deliver(delivery(listener), document())
    studio.announcer.drop_listener(listener)


# --- commands -----------------------------------------------------------------------------------------------------


def command(serial: int = 7) -> RunNotifyCommand:
    notice = Notice(kind=NoticeKind.JOB_TRANSFERRED, job=JobId(ONE), serial=serial)
    return RunNotifyCommand(delivery=DeliveryId(1), notice=notice)


async def test_a_command_is_told_the_job_the_state_and_the_event(studio: Studio, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nenv | grep ^NEARFETCH_ | sort; cat\n", encoding="utf-8")
    program.chmod(0o755)
    about = document(notify_command=[str(program)])
    result = await studio.announcer.run_command(command(), about)
    assert (result.exit_code, result.problem) == (0, None)
    *words, body = result.output.splitlines()
    assert words == [
        "NEARFETCH_EVENT=job-transferred",
        "NEARFETCH_HOME=/the/home",
        f"NEARFETCH_JOB={ONE}",
        "NEARFETCH_SERIAL=7",
        "NEARFETCH_STATE=TRANSFERRED",
    ]
    told = msgspec.json.decode(body)
    assert told["event"] == "job-transferred"
    assert msgspec.convert(told["job"], JobDocument) == about


async def test_a_command_that_was_taken_away_meanwhile_is_a_problem_and_no_error(studio: Studio) -> None:
    result = await studio.announcer.run_command(command(), document())
    assert result.exit_code is None
    assert result.problem is not None


def test_an_event_gets_its_number_when_it_is_read() -> None:
    event = EventDocument(sequence=None, at=1.0, kind=EventKind.CREATED, job=ONE)
    item = FeedItem(sequence=9, job_id=ONE, kind="created", at=1.0, data=msgspec.json.encode(event))
    assert numbered(item) == msgspec.structs.replace(event, sequence=9)
