"""What the library makes of several requests: a job that is made once, long lists, waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agent import AgentClient, AgentUnavailableError, NewJob, NotFoundError, StateError, UsageError
from agent.client_http import BrokenOffError
from agent.client_jobs import LISTINGS
from tests.support.wire import Seen, WireAgent, closing, job_document, problem, raw, reply, silence, whole

LIMIT_S = 10.0
JOB = job_document()


@pytest.fixture(name="there")
async def answering(tmp_path: Path) -> AsyncIterator[WireAgent]:
    async with WireAgent(tmp_path) as there:
        yield there


@pytest.fixture(name="client")
def speaking(tmp_path: Path) -> AgentClient:
    return AgentClient.connect(tmp_path, timeout_s=5)


# --- a new job is made once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [raw(b""), raw(whole(JOB)[:40]), raw(whole(JOB)[:-1])])
@pytest.mark.parametrize("key", [None, "mine"])
async def test_a_lost_answer_makes_no_second_job(
    there: WireAgent, client: AgentClient, lost: Any, key: str | None
) -> None:
    there.answers += [lost, reply(JOB, 200)]
    assert (await client.create_job(NewJob(name="n"), key=key)).id == "j1"
    first, second = there.seen
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    if key is not None:
        assert first.headers["idempotency-key"] == key


async def test_a_second_lost_answer_is_told(there: WireAgent, client: AgentClient) -> None:
    there.answers.append(closing)
    with pytest.raises(BrokenOffError):
        await client.create_job(NewJob(name="n"))
    assert len(there.seen) == 2


@pytest.mark.parametrize("answer", [silence, problem("AGENT_UNAVAILABLE", "stopping", 503)])
async def test_other_failures_are_not_repeated(there: WireAgent, tmp_path: Path, answer: Any) -> None:
    there.answers.append(answer)
    with pytest.raises(AgentUnavailableError):
        await AgentClient.connect(tmp_path, timeout_s=0.2).create_job(NewJob(name="n"))
    assert len(there.seen) == 1


async def test_two_calls_make_two_jobs(there: WireAgent, client: AgentClient) -> None:
    there.answers.append(reply(JOB, 201))
    await client.create_job(NewJob(name="n"))
    await client.create_job(NewJob(name="n"))
    first, second = (seen.headers["idempotency-key"] for seen in there.seen)
    assert first != second
    assert len(first) == 32


@pytest.mark.parametrize("key", ["", "two words", "a\r\nX: y"])
async def test_a_key_that_is_no_header(there: WireAgent, client: AgentClient, key: str) -> None:
    with pytest.raises(UsageError, match="Idempotency-Key"):
        await client.create_job(NewJob(name="n"), key=key)
    assert there.seen == []


# --- a long list ---------------------------------------------------------------------------------------------


def page(*job_ids: str, after: str | None = None) -> Any:
    return reply({"jobs": [job_document(job_id) for job_id in job_ids], "total": 5, "next": after})


async def test_all_pages_of_a_list(there: WireAgent, client: AgentClient) -> None:
    there.answers += [page("a", "b", after="b"), page("c", "d", after="d"), page("e")]
    assert [job.id for job in await client.jobs()] == list("abcde")
    assert [seen.target.partition("after=")[2] for seen in there.seen] == ["", "b", "d"]


async def test_a_list_whose_page_mark_ended_is_begun_again(there: WireAgent, client: AgentClient) -> None:
    gone = problem("JOB_NOT_FOUND", "no job b", 404)
    there.answers += [page("a", "b", after="b"), gone, page("a", "c", after="c"), page("d")]
    assert [job.id for job in await client.jobs()] == ["a", "c", "d"]


async def test_that_has_an_end_too(there: WireAgent, client: AgentClient) -> None:
    gone = problem("JOB_NOT_FOUND", "no job b", 404)
    there.answers += [page("a", "b", after="b"), gone] * LISTINGS
    with pytest.raises(NotFoundError, match="no job b"):
        await client.jobs()
    assert len(there.seen) == 2 * LISTINGS


# --- waiting -------------------------------------------------------------------------------------------------


def states(there: WireAgent, *names: str) -> None:
    """Answers: the job goes through these states."""
    jobs = [job_document(state=name, sequence=number) for number, name in enumerate(names, 1)]
    there.answers += [reply(job) for job in jobs]


async def test_wait_goes_on_until_the_job_rests(there: WireAgent, client: AgentClient) -> None:
    states(there, "QUEUED", "CONNECTING", "SUSPENDED", "TRANSIENT_ERROR", "TRANSFERRED")
    assert (await client.wait("j1", timeout_s=5)).state == "TRANSFERRED"
    assert [seen.target.partition("after=")[2][:1] for seen in there.seen] == ["", "1", "2", "3", "4"]


@pytest.mark.parametrize("state", ["ERROR", "CANCELLED", "ACKNOWLEDGED"])
async def test_wait_ends_at_every_end(there: WireAgent, client: AgentClient, state: str) -> None:
    states(there, "QUEUED", state)
    assert (await client.wait("j1", timeout_s=5)).state == state


async def test_wait_ends_when_the_application_has_to_decide(there: WireAgent, client: AgentClient) -> None:
    there.answers += [reply(JOB), reply(job_document(state="VALIDATING", files=[file_document("deciding")]))]
    assert (await client.wait("j1", timeout_s=5)).state == "VALIDATING"


async def test_wait_for_a_state_ends_there_or_when_it_is_over(there: WireAgent, client: AgentClient) -> None:
    states(there, "QUEUED", "ERROR", "QUEUED", "CONNECTING")
    assert (await client.wait("j1", {"CONNECTING"}, timeout_s=5)).sequence == 4
    there.answers.clear()
    states(there, "QUEUED", "CANCELLED")
    assert (await client.wait("j1", {"CONNECTING"}, timeout_s=5)).state == "CANCELLED"


async def test_wait_has_a_limit(there: WireAgent, client: AgentClient) -> None:
    there.answers += [reply(JOB), silence]
    with pytest.raises(TimeoutError):
        await client.wait("j1", timeout_s=0.2)
    await there.seen[1].left()


async def test_a_long_poll_may_take_longer_than_a_call(there: WireAgent, tmp_path: Path) -> None:
    async def late(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(whole(JOB))

    there.answers.append(late)
    client = AgentClient.connect(tmp_path, timeout_s=0.2)
    assert (await client.wait_change("j1", 0, timeout_s=5)).id == "j1"
    with pytest.raises(AgentUnavailableError, match=r"within 0\.25 s"):
        await client.wait_change("j1", 0, timeout_s=0.05)


async def test_watch_yields_every_change_until_the_end(there: WireAgent, client: AgentClient) -> None:
    states(there, "QUEUED", "CONNECTING")
    there.answers += [reply(job_document(state="CONNECTING", sequence=2))]  # the poll's time was over
    there.answers += [reply(job_document(state="ERROR", sequence=4))]
    there.answers += [reply(job_document(state="CANCELLED", sequence=5))]
    async with asyncio.timeout(LIMIT_S), aclosing(client.watch("j1")) as jobs:
        assert [job.state async for job in jobs] == ["QUEUED", "CONNECTING", "ERROR", "CANCELLED"]


async def test_where_the_bytes_are(there: WireAgent, client: AgentClient) -> None:
    files = [file_document("fetching", temporary_path="/d/.x.part"), file_document("waiting")]
    there.answers.append(reply(job_document(files=files)))
    assert await client.temporary_path("j1", 0) == Path("/d/.x.part")
    with pytest.raises(StateError, match="no temporary file in state waiting"):
        await client.temporary_path("j1", 1)
    for index in (2, -1):
        with pytest.raises(NotFoundError, match=f"no file {index}"):
            await client.temporary_path("j1", index)


def file_document(state: str, **fields: object) -> dict[str, object]:
    return {
        "index": 0,
        "url": "http://o/x",
        "path": "/d/x",
        "temporary_path": None,
        "state": state,
        "validation": "undecided",
        "bytes_total": None,
        "bytes_transferred": 0,
        "bytes_from_origin": 0,
        "bytes_from_peers": 0,
        "bytes_from_cache": 0,
        "bytes_discarded": 0,
        "peers": {},
        "integrity": "none",
    } | fields
