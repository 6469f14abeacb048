"""Server-sent events: taken apart as the standard says, and opened again when the agent comes back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agent import (
    AgentClient,
    AgentError,
    AgentUnavailableError,
    EventDocument,
    EventKind,
    NotFoundError,
    client_http,
    client_stream,
)
from agent.client_stream import EventParser, ServerEvent
from tests.support.agents import environment
from tests.support.wire import (
    STREAM_HEAD,
    WireAgent,
    chunk,
    closing,
    event,
    problem,
    raw,
    reply,
    silence,
    streaming,
)

LIMIT_S = 10.0

# --- the parser: the examples of the standard first ----------------------------------------------------------

PARSED: list[tuple[bytes, list[ServerEvent]]] = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerEvent(data="YHOO\n+2\n10")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [
            ServerEvent(data="first event", id="1"),
            ServerEvent(data="second event"),
            ServerEvent(data=" third event"),
        ],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [ServerEvent(data=""), ServerEvent(data="\n")]),
    (b"data:test\n\ndata: test\n\n", [ServerEvent(data="test"), ServerEvent(data="test")]),
    (
        b"event: add\ndata: 73\n\nevent: remove\ndata: 2\n\ndata: x\n\n",
        [ServerEvent(data="73", kind="add"), ServerEvent(data="2", kind="remove"), ServerEvent(data="x")],
    ),
    (b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\r\rdata: c\n\n", [ServerEvent(data=c) for c in "abc"]),
    (b"data: a\r\ndata: b\rdata: c\n\r\n", [ServerEvent(data="a\nb\nc")]),
    (b"id: 7\n\nevent: unheard\n\ndata: x\n\n", [ServerEvent(data="x", id="7")]),
    (b"id: 7\ndata: x\nid: 8\0\n\n", [ServerEvent(data="x", id="7")]),
    (b"id: 7\ndata: x\n\ndata: y\n\n", [ServerEvent(data="x", id="7"), ServerEvent(data="y", id="7")]),
    (b"retry: 1000\n\n:\n\ndata : x\nData: y\ndata: a:b\n\n", [ServerEvent(data="a:b")]),
    (b"data: caf\xc3\xa9 \xff\n\n", [ServerEvent(data="café \N{REPLACEMENT CHARACTER}")]),
    (b"id: 3\ndata: not ended\n", []),
]


@pytest.mark.parametrize(("coded", "events"), PARSED)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_events_are_parsed_however_they_are_cut(coded: bytes, events: list[ServerEvent], size: int) -> None:
    parser = EventParser()
    found = [parser.feed(coded[start : start + size]) for start in range(0, len(coded), size)]
    assert [item for some in found for item in some] == events


def test_a_number_counts_once_its_block_has_ended() -> None:
    parser = EventParser("4")
    assert parser.feed(b"data: x\n\n") == [ServerEvent(data="x", id="4")]
    parser.feed(b"id: 5\ndata: y\n")
    assert parser.last_id == "4"
    parser.feed(b"\n")
    assert parser.last_id == "5"
    assert parser.feed(b"id: 6\n\n") == []
    assert parser.last_id == "6"


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 99 + b"\n", b"x" * 105])
def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(client_stream, "MAX_ANSWER_BYTES", 1000)
    parser = EventParser()
    for _ in range(9):
        parser.feed(piece)
    with pytest.raises(AgentError, match="longer than 1000 bytes"):
        parser.feed(piece + piece)
    fresh = EventParser()
    for _ in range(30):
        fresh.feed(b"data: " + b"x" * 99 + b"\n\n")


# --- events of a client --------------------------------------------------------------------------------------


@pytest.fixture(name="there")
async def answering(tmp_path: Path) -> AsyncIterator[WireAgent]:
    async with WireAgent(tmp_path) as there:
        yield there


@pytest.fixture(name="client")
def speaking(tmp_path: Path) -> AgentClient:
    return AgentClient.connect(tmp_path, patience_s=5)


def happened(number: int | None, kind: str = "state") -> bytes:
    return event({"sequence": number, "at": 1.0, "kind": kind, "job": "j1", "new": True}, kind=kind, number=number)


async def first(events: AsyncIterator[EventDocument], count: int) -> list[int | None]:
    """The sequence numbers of the next ones."""
    async with asyncio.timeout(LIMIT_S):
        return [(await anext(events)).sequence for _ in range(count)]


def targets(there: WireAgent) -> list[str]:
    return [seen.target for seen in there.seen]


async def test_events_come_as_they_happen(there: WireAgent, client: AgentClient) -> None:
    there.answers.append(streaming(b"retry: 1000\n\n", happened(1), b": alive\n\n", happened(2)))
    async with aclosing(client.events()) as events:
        assert await first(events, 2) == [1, 2]
    assert targets(there) == ["/v1/events"]
    await there.seen[0].left()


async def test_events_of_a_newer_agent_are_passed_over(there: WireAgent, client: AgentClient) -> None:
    there.answers.append(streaming(happened(1, "unheard-of"), b"data: x\n\n", happened(2)))
    async with aclosing(client.events()) as events:
        assert await first(events, 1) == [2]


async def test_leaving_the_loop_ends_it(there: WireAgent, client: AgentClient) -> None:
    there.answers.append(streaming(happened(1)))
    async with asyncio.timeout(LIMIT_S):
        async for item in client.events():
            assert item.kind is EventKind.STATE
            break
        await there.seen[0].left()


@pytest.mark.parametrize(
    ("after", "job", "target"),
    [(None, "j1", "?job=j1"), (0, None, "?after=0"), (7, "j1", "?job=j1&after=7")],
)
async def test_which_events(
    there: WireAgent, client: AgentClient, after: int | None, job: str | None, target: str
) -> None:
    there.answers.append(streaming(happened(8)))
    async with aclosing(client.events(after, job)) as events:
        assert await first(events, 1) == [8]
    assert targets(there) == [f"/v1/events{target}"]


async def test_a_new_agent_is_asked_for_what_came_after(there: WireAgent, client: AgentClient) -> None:
    """The last event of the first agent is cut in its middle, in the chunk and in the event."""
    cut = STREAM_HEAD + chunk(happened(4)) + chunk(happened(None, "job-modification")) + chunk(happened(5))[:-9]
    there.answers += [raw(cut), streaming(happened(5), happened(6)[:20], then=closing), streaming(happened(6))]
    async with aclosing(client.events(3, "j1")) as events:
        assert await first(events, 4) == [4, None, 5, 6]
    assert targets(there) == [f"/v1/events?job=j1&after={number}" for number in (3, 4, 5)]


async def test_an_agent_that_is_away_for_a_while(there: WireAgent, client: AgentClient) -> None:
    there.answers += [streaming(happened(1)), streaming(happened(2))]
    async with aclosing(client.events()) as events:
        assert await first(events, 1) == [1]
        await there.stop()
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(first(events, 1))
            with pytest.raises(AgentUnavailableError):
                await client.about()
            await there.start()
        assert coming.result() == [2]
    assert targets(there) == ["/v1/events", "/v1/events?after=1"]


async def test_a_place_that_is_told_without_an_event_is_kept(there: WireAgent, client: AgentClient) -> None:
    there.answers += [streaming(b"id: 41\n\n", then=closing), streaming(happened(42))]
    async with aclosing(client.events()) as events:
        assert await first(events, 1) == [42]
    assert targets(there) == ["/v1/events", "/v1/events?after=41"]


async def test_a_listener_is_told_when_nobody_knows_what_it_missed(there: WireAgent, client: AgentClient) -> None:
    there.answers += [streaming(happened(None, "job-modification"), then=closing), streaming(happened(9))]
    async with aclosing(client.events()) as events, asyncio.timeout(LIMIT_S):
        assert [(await anext(events)).kind for _ in range(3)] == ["job-modification", EventKind.LOST, "state"]


async def test_silence_is_an_agent_that_hangs(
    there: WireAgent, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_http, "SILENCE_S", 0.1)
    there.answers += [streaming(happened(1)), streaming(happened(2))]
    async with aclosing(client.events()) as events:
        assert await first(events, 2) == [1, 2]


@pytest.mark.parametrize("patience_s", [5.0, None])
async def test_no_agent_at_the_beginning(tmp_path: Path, patience_s: float | None) -> None:
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        await first(AgentClient.connect(tmp_path, patience_s=patience_s).events(), 1)


async def test_an_agent_that_stays_away(there: WireAgent, tmp_path: Path) -> None:
    there.answers += [streaming(happened(1), then=closing), raw(b"")]
    client = AgentClient.connect(tmp_path, patience_s=0.3)
    async with aclosing(client.events()) as events:
        assert await first(events, 1) == [1]
        with pytest.raises(AgentUnavailableError, match="stopped"):
            await first(events, 1)
    assert 3 <= len(there.seen) <= 9  # delays from 0.05 s on, growing: neither one try nor a storm


async def test_a_refusal_is_no_reason_to_try_again(there: WireAgent, client: AgentClient) -> None:
    there.answers += [streaming(happened(1), then=closing), problem("JOB_NOT_FOUND", "no job j1", 404)]
    events = client.events(job_id="j1")
    assert await first(events, 1) == [1]
    with pytest.raises(NotFoundError, match="no job j1"):
        await first(events, 1)


async def test_an_agent_that_is_stopping_is(there: WireAgent, client: AgentClient) -> None:
    stopping = problem("AGENT_UNAVAILABLE", "the agent is stopping", 503)
    there.answers += [streaming(happened(1), then=closing), stopping, streaming(happened(2))]
    async with aclosing(client.events()) as events:
        assert await first(events, 2) == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        reply({}),
        streaming(event({})),
        streaming(b"event: state\ndata: \xff\n\n"),
        raw(STREAM_HEAD, event({}) + b"\r\n"),
    ],
)
async def test_what_is_no_stream_of_events(there: WireAgent, client: AgentClient, answer: object) -> None:
    there.answers += [answer, silence]  # type: ignore[list-item]
    with pytest.raises(AgentError, match=r"no stream|cannot be understood|not coded"):
        await first(client.events(), 1)
    assert len(there.seen) == 1


LEAVES = """
import asyncio, sys
from agent import AgentClient
kept = []
async def main():
    client = AgentClient.connect(sys.argv[1])
    async for event in client.events():
        break
    kept.append(client.events())
    print((await anext(kept[0])).sequence)
asyncio.run(main())
"""


async def test_a_program_that_leaves_streams_open_ends_quietly(there: WireAgent, tmp_path: Path) -> None:
    there.answers.append(streaming(happened(1)))
    ended = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", LEAVES, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    async with asyncio.timeout(LIMIT_S):
        assert (await ended.communicate())[0] == b"1\n"
    assert ended.returncode == 0
