"""Streams of events over a real unix socket: what is told, what ends them, and what they bear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.api import Limits, make_app, serving
from agent.errors import NotFoundError
from agent.schema import DeliveryDocument, EventDocument, EventKind, NewJob
from tests.support.memory_engine import MemoryEngine
from tests.support.rest import Listening, ask, listening

SOON = Limits(heartbeat_s=0.05, gone_s=0.02, slow_reader_s=0.2)


class Teller(MemoryEngine):
    """An engine whose news are what the test says."""

    some_job = NewJob(name="j")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.news: asyncio.Queue[EventDocument | None] = asyncio.Queue()
        self.asked: list[tuple[int | None, str | None]] = []
        self.left = asyncio.Event()
        """A listener's iteration was ended."""

    async def events(self, after: int | None, job_id: str | None) -> AsyncIterator[EventDocument]:
        self.asked.append((after, job_id))
        try:
            while (event := await self.news.get()) is not None:
                yield event
            raise RuntimeError("secret detail")
        finally:
            self.left.set()

    def deliveries(self, job_id: str | None) -> AsyncIterator[DeliveryDocument]:
        if job_id is not None:
            self.job(job_id)
        return self._deliveries()

    async def _deliveries(self) -> AsyncIterator[DeliveryDocument]:
        job, _ = await self.create_job(self.some_job)
        yield DeliveryDocument(delivery=7, serial=1, notice="job-transferred", file=None, ranges=[], job=job)
        await asyncio.Event().wait()

    async def answer_delivery(self, delivery: int, ok: bool) -> object:
        if delivery != 7:
            raise NotFoundError(f"no delivery {delivery} is open", code="DELIVERY_NOT_FOUND")
        return {"changed": ok, "count": 1}


def news(sequence: int | None, kind: EventKind = EventKind.STATE) -> EventDocument:
    return EventDocument(sequence=sequence, at=1.5, kind=kind, job="ab", name="line\nbreak", state="QUEUED")


@pytest.fixture(name="teller")
async def telling(tmp_path: Path) -> AsyncIterator[Teller]:
    teller = Teller(tmp_path)
    async with serving(make_app(teller, SOON), tmp_path / "agent.sock"):
        yield teller


def to(teller: Teller) -> Path:
    return teller.home / "agent.sock"


async def test_an_event_carries_number_kind_and_document(teller: Teller) -> None:
    async with listening(to(teller), "/v1/events?after=3&job=ab") as stream:
        teller.news.put_nowait(news(4))
        teller.news.put_nowait(news(None, EventKind.JOB_MODIFICATION))
        number, kind, document = await stream.event()
        assert (number, kind, document["sequence"]) == ("4", "state", 4)
        assert document["name"] == "line\nbreak"
        number, kind, _ = await stream.event()
        assert (number, kind) == (None, "job-modification")
    assert teller.asked == [(3, "ab")]


async def test_the_last_event_id_wins_over_after(teller: Teller) -> None:
    async with listening(to(teller), "/v1/events?after=3", {"Last-Event-ID": "12"}):
        pass
    async with listening(to(teller), "/v1/events"):
        pass
    assert teller.asked == [(12, None), (None, None)]


@pytest.mark.parametrize(
    ("target", "headers", "named"),
    [
        ("/v1/events?after=-1", {}, "$.after"),
        ("/v1/events?after=9223372036854775808", {}, "$.after"),
        ("/v1/events?since=1", {}, "there are after, job"),
        ("/v1/events", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("/v1/deliveries?after=1", {}, "there are job"),
    ],
)
async def test_what_no_stream_can_begin_with(
    teller: Teller, target: str, headers: dict[str, str], named: str
) -> None:
    refused = await ask(to(teller), "GET", target, headers=headers)
    assert refused.status == 400
    assert named in refused.document["detail"]
    assert teller.asked == []


async def test_deliveries_and_their_answers(teller: Teller) -> None:
    assert (await ask(to(teller), "GET", "/v1/deliveries?job=ab")).document["code"] == "JOB_NOT_FOUND"
    async with listening(to(teller), "/v1/deliveries") as stream:
        number, kind, document = await stream.event()
    assert (number, kind, document["delivery"]) == (None, "delivery", 7)
    assert (await ask(to(teller), "POST", "/v1/deliveries/7", {"ok": True})).document["changed"] is True
    assert (await ask(to(teller), "POST", "/v1/deliveries/8", {"ok": True})).document[
        "code"
    ] == "DELIVERY_NOT_FOUND"
    assert (await ask(to(teller), "POST", "/v1/deliveries/x", {"ok": True})).status == 400


async def test_silence_is_filled_with_comments(teller: Teller) -> None:
    async with listening(to(teller), "/v1/events") as stream:
        assert await stream.block() == {"": "alive"}
        assert await stream.block() == {"": "alive"}


async def test_a_listener_that_goes_away_is_noticed(tmp_path: Path) -> None:
    """Without a heartbeat that would fail: deliveries must not wait for one who is gone."""
    teller = Teller(tmp_path)
    async with serving(make_app(teller, Limits(gone_s=0.02)), to(teller)):
        async with listening(to(teller), "/v1/events"):
            pass
        async with asyncio.timeout(5):
            await teller.left.wait()


async def test_a_listener_that_does_not_read_is_dropped(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(to(teller), "/v1/events") as stream:
        stream.writer.transport.pause_reading()
        for number in range(20_000):  # 4 MB, more than all buffers together
            teller.news.put_nowait(news(number))
        async with asyncio.timeout(10):
            await teller.left.wait()
        assert teller.news.qsize() > 10_000
        stream.writer.transport.resume_reading()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_on(stream)
    assert "does not read was dropped" in caplog.text


async def test_streams_end_when_the_agent_stops(tmp_path: Path) -> None:
    teller = Teller(tmp_path)
    async with asyncio.timeout(3), asyncio.TaskGroup() as group:
        async with serving(make_app(teller), to(teller)):
            streams = [await _opened(group, to(teller)) for _ in range(3)]
        assert [await stream for stream in streams] == [None, None, None]


async def test_a_stream_that_fails_is_cut_off_and_tells_nothing(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(to(teller), "/v1/events") as stream:
        teller.news.put_nowait(None)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_on(stream)
    assert "secret detail" in caplog.text


async def test_streams_and_polls_are_counted(tmp_path: Path) -> None:
    teller = Teller(tmp_path)
    async with serving(make_app(teller, Limits(lasting=2, gone_s=0.02)), to(teller)):
        job, _ = await teller.create_job(teller.some_job)
        async with listening(to(teller), "/v1/events"), listening(to(teller), "/v1/events"):
            for target in ("/v1/events", "/v1/deliveries", f"/v1/jobs/{job.id}?after=0"):
                refused = await ask(to(teller), "GET", target)
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
                assert "2 listeners" in refused.document["detail"]
            assert (await ask(to(teller), "GET", "/v1/agent")).status == 200
        async with asyncio.timeout(5):
            while (await ask(to(teller), "GET", f"/v1/jobs/{job.id}?after=0")).status == 503:
                pass


async def read_on(stream: Listening) -> None:
    while (block := await stream.block()) is not None:
        assert "secret" not in str(block)


async def _opened(group: asyncio.TaskGroup, socket: Path) -> asyncio.Task[dict[str, str] | None]:
    """A stream that has begun; the task's result is how it ended."""
    begun = asyncio.Event()

    async def read() -> dict[str, str] | None:
        async with listening(socket, "/v1/events") as stream:
            begun.set()
            return await stream.block()

    task = group.create_task(read())
    await begun.wait()
    return task
