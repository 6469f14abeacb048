"""Callbacks: called for each delivery, answered, called again by the agent that comes next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent import AgentClient, AgentError, AgentUnavailableError, DeliveryDocument, NotFoundError
from agent.client_listen import AT_ONCE, Callback, Listening
from tests.support.wire import (
    Answer,
    Seen,
    WireAgent,
    closing,
    event,
    job_document,
    problem,
    reply,
    silence,
    streaming,
)

LIMIT_S = 10.0
DONE: dict[str, object] = {"changed": True, "count": 1}


class Deliveries:
    """An agent that tells `streams`, one a connection, and notes how each delivery was answered."""

    def __init__(self, there: WireAgent) -> None:
        self.there = there
        self.streams: list[Answer] = []
        self.answered: dict[str, bool] = {}
        self.answer: Answer = reply(DONE)
        self._changed = asyncio.Event()
        there.answers.append(self._serve)

    async def _serve(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        if not seen.target.startswith("/v1/deliveries"):
            await reply({"records": 0})(seen, writer)
            return
        if seen.method == "GET":
            await self.streams.pop(0)(seen, writer)
            return
        self.answered[seen.target] = seen.document["ok"]
        self._changed.set()
        await self.answer(seen, writer)

    async def all_answered(self, count: int) -> dict[int, bool]:
        """How each delivery was answered, once there are so many answers."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.answered) < count:
                self._changed.clear()
                await self._changed.wait()
        return {int(target.removeprefix("/v1/deliveries/")): ok for target, ok in self.answered.items()}


@pytest.fixture(name="told")
async def answering(tmp_path: Path) -> AsyncIterator[Deliveries]:
    async with WireAgent(tmp_path) as there:
        yield Deliveries(there)


@pytest.fixture(name="client")
def speaking(tmp_path: Path) -> AgentClient:
    return AgentClient.connect(tmp_path, patience_s=5)


def delivery(number: int, job: str = "j1", notice: str = "job-transferred") -> bytes:
    document = {
        "delivery": number,
        "notice": notice,
        "file": None,
        "ranges": [],
        "serial": number,
        "job": job_document(job),
    }
    return event(document, kind="delivery")


@contextlib.asynccontextmanager
async def listening(client: AgentClient, callback: Callback, job: str | None = None) -> AsyncIterator[None]:
    """`client.listen` beside the block, cancelled at its end."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.listen(callback, job))
        yield
        task.cancel()


# --- what counts as taken well -------------------------------------------------------------------------------


def fails(delivery: DeliveryDocument) -> None:
    raise ValueError(f"about {delivery.job.id}")


async def fails_later(delivery: DeliveryDocument) -> None:
    await asyncio.sleep(0)
    raise ValueError(f"about {delivery.job.id}")


async def refuses(delivery: DeliveryDocument) -> bool:
    return False


async def takes(delivery: DeliveryDocument) -> None:
    await asyncio.sleep(0)


def future(delivery: DeliveryDocument) -> asyncio.Future[bool]:
    made: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    made.set_result(False)
    return made


@pytest.mark.parametrize(
    ("callback", "ok"),
    [
        (takes, True),
        (lambda delivery: None, True),
        (lambda delivery: 0, True),
        (lambda delivery: True, True),
        (lambda delivery: False, False),
        (refuses, False),
        (future, False),
        (fails, False),
        (fails_later, False),
    ],
)
async def test_how_a_callback_is_answered(
    told: Deliveries, client: AgentClient, callback: Callback, ok: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told.streams.append(streaming(b"retry: 1000\n\n", delivery(7), event({}, kind="unheard-of")))
    async with listening(client, callback):
        assert await told.all_answered(1) == {7: ok}
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info is not None for record in failed] == ([True] if "fails" in callback.__name__ else [])
    if failed:
        assert "job-transferred of job j1" in failed[0].getMessage()


@pytest.mark.parametrize(("job", "target"), [(None, "/v1/deliveries"), ("j2", "/v1/deliveries?job=j2")])
async def test_whose_callback_it_is(told: Deliveries, client: AgentClient, job: str | None, target: str) -> None:
    told.streams.append(streaming(delivery(1)))
    async with listening(client, takes, job):
        await told.all_answered(1)
    assert told.there.seen[0].target == target
    await told.there.seen[0].left()


async def test_a_callback_knows_what_happened(told: Deliveries, client: AgentClient) -> None:
    seen: list[DeliveryDocument] = []
    told.streams.append(streaming(delivery(1, "j5", "file-transferred")))
    async with listening(client, seen.append):
        await told.all_answered(1)
    assert [(item.notice, item.job.id, item.file) for item in seen] == [("file-transferred", "j5", None)]


# --- several at once -----------------------------------------------------------------------------------------


class Gate:
    """A callback that waits until it may go on."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[int] = []
        self.most = 0
        self.calls: list[int] = []
        self._changed = asyncio.Event()

    async def __call__(self, delivery: DeliveryDocument) -> None:
        self.calls.append(delivery.delivery)
        self.inside.append(delivery.delivery)
        self.most = max(self.most, len(self.inside))
        self._changed.set()
        try:
            await self.open.wait()
        finally:
            self.inside.remove(delivery.delivery)

    async def holds(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def test_four_jobs_at_once(told: Deliveries, client: AgentClient) -> None:
    gate = Gate()
    told.streams.append(streaming(*(delivery(number, f"j{number}") for number in range(7))))
    async with listening(client, gate):
        await gate.holds(lambda: len(gate.inside) == AT_ONCE)
        gate.open.set()
        assert set((await told.all_answered(7)).values()) == {True}
    assert gate.most == AT_ONCE == 4


async def test_one_job_one_after_the_other(told: Deliveries, client: AgentClient) -> None:
    """The second job's callback begins while the first job's second one still waits for its turn."""
    gate = Gate()
    told.streams.append(streaming(delivery(1), delivery(2), delivery(3, "j2"), delivery(4)))
    async with listening(client, gate):
        await gate.holds(lambda: gate.inside == [1, 3])
        gate.open.set()
        await told.all_answered(4)
    assert gate.calls == [1, 3, 2, 4]


# --- agents that go ------------------------------------------------------------------------------------------


async def test_the_next_agent_tells_it_again(told: Deliveries, client: AgentClient) -> None:
    """The first agent's numbers mean nothing to it: what ran then is not answered, what waited is not begun."""
    gate = Gate()
    first = streaming(delivery(1), delivery(2), then=lambda seen, writer: gate.holds(lambda: gate.inside == [1]))
    told.streams += [first, streaming(delivery(8), delivery(9))]
    async with listening(client, gate):
        await told.there.requests(2)
        gate.open.set()
        assert await told.all_answered(2) == {8: True, 9: True}
    assert gate.calls == [1, 8, 9]


async def test_an_agent_that_is_gone_when_it_is_answered(
    told: Deliveries, client: AgentClient, caplog: pytest.LogCaptureFixture
) -> None:
    told.answer = closing
    told.streams.append(streaming(delivery(1), delivery(2)))
    with caplog.at_level(logging.DEBUG, "agent.client_listen"):
        async with listening(client, takes):
            await told.all_answered(2)
    assert "may come again" in caplog.text


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (problem("DELIVERY_NOT_FOUND", "no delivery is open", 404), logging.DEBUG),
        (problem("UNEXPECTED", "a bug", 500), logging.WARNING),
    ],
)
async def test_an_answer_that_is_refused_ends_nothing(
    told: Deliveries, client: AgentClient, caplog: pytest.LogCaptureFixture, answer: Answer, level: int
) -> None:
    told.answer = answer
    told.streams.append(streaming(delivery(1), delivery(2)))
    with caplog.at_level(logging.DEBUG, "agent.client_listen"):
        async with listening(client, takes):
            await told.all_answered(2)
    assert caplog.records[0].levelno == level


async def test_cancelling_cancels_the_callbacks(told: Deliveries, client: AgentClient) -> None:
    gate = Gate()
    told.streams.append(streaming(delivery(1), delivery(2)))
    async with listening(client, gate):
        await gate.holds(lambda: gate.inside == [1])
    assert (gate.inside, gate.calls, told.answered) == ([], [1], {})
    await told.there.seen[0].left()


async def test_no_agent_at_the_beginning(client: AgentClient) -> None:
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        await client.listen(takes)


async def test_a_job_that_is_gone_ends_it(told: Deliveries, client: AgentClient) -> None:
    """As the error itself and not as a group of errors; the callback under way is cancelled."""
    gate = Gate()
    first = streaming(delivery(1), delivery(2), then=lambda seen, writer: gate.holds(lambda: gate.inside == [1]))
    told.streams += [first, problem("JOB_NOT_FOUND", "no job j1", 404)]
    with pytest.raises(NotFoundError, match="no job j1"):
        async with asyncio.timeout(LIMIT_S):
            await client.listen(gate, "j1")
    assert (gate.inside, gate.calls) == ([], [1])


async def test_ids_that_are_none_never_leave(told: Deliveries, client: AgentClient) -> None:
    with pytest.raises(NotFoundError):
        await client.listen(takes, "j1&x=1")
    assert told.there.seen == []


@pytest.mark.parametrize("document", [b"event: delivery\ndata: {\n\n", event({"delivery": 1}, kind="delivery")])
async def test_a_delivery_that_is_none(told: Deliveries, client: AgentClient, document: bytes) -> None:
    told.streams.append(streaming(document))
    with pytest.raises(AgentError, match="delivery cannot be understood"):
        await client.listen(takes)


# --- leaving in order ----------------------------------------------------------------------------------------


def with_leave(client: AgentClient, callback: Callback) -> Listening:
    return Listening(client._wire, "/deliveries", callback, patience_s=5)


async def test_leaving_lets_callbacks_end_and_answers_them(told: Deliveries, client: AgentClient) -> None:
    gate = Gate()
    told.streams.append(streaming(delivery(1), delivery(2, "j2")))
    there = with_leave(client, gate)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(there.run())
        await gate.holds(lambda: len(gate.inside) == 2)
        there.leave()
        await client.clear_cache()  # time enough to leave
        assert not running.done()
        assert not told.there.seen[0].gone.is_set()
        gate.open.set()
    assert await told.all_answered(2) == {1: True, 2: True}


async def test_leaving_from_inside(told: Deliveries, client: AgentClient) -> None:
    told.streams.append(streaming(delivery(1)))
    there = with_leave(client, lambda delivery: there.leave())
    async with asyncio.timeout(LIMIT_S):
        await there.run()
    assert await told.all_answered(1) == {1: True}


@pytest.mark.parametrize("agent", [silence, streaming()])
async def test_leaving_with_nothing_under_way(told: Deliveries, client: AgentClient, agent: Answer) -> None:
    """Also while the agent has not even answered."""
    told.streams.append(agent)
    there = with_leave(client, takes)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(there.run())
        (seen,) = await told.there.requests(1)
        there.leave()
        there.leave()
        await seen.left()
    there.leave()


async def test_leaving_before_it_begins(told: Deliveries, client: AgentClient) -> None:
    there = with_leave(client, takes)
    there.leave()
    async with asyncio.timeout(LIMIT_S):
        await there.run()
