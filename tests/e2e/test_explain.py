"""`job explain` by real agents: one from the origin, one from the peer; while it runs, ended, after a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import AgentClient, Explanation, FileExplanation, NewFile, NewJob, NotFoundError, SourceKind, SyncClient
from agent.client import socket_path
from tests.support.agents import Agent, Fleet
from tests.support.origin import Origin
from tests.support.rest import ask

MIB = 1024 * 1024
WAIT_S = 30.0


@pytest.fixture(scope="module", name="two")
def run_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Agent]]:
    """Two agents of one group that have met. Tests use jobs and contents of their own."""
    with Fleet(tmp_path_factory.mktemp("two")) as fleet:
        a, b = asyncio.run(fleet.start_together("a", "b"))
        yield a, b


async def begin(agent: Agent, url: str, place: Path, **properties: object) -> str:
    """A job of one file that is under way; its id."""
    new = NewJob(name="image", files=[NewFile(url=url, path=str(place / os.urandom(4).hex()), **properties)])  # type: ignore[arg-type]
    job = await agent.client.create_job(new)
    await agent.client.resume(job.id)
    return job.id


async def held(client: AgentClient, job: str, count: int) -> None:
    """Wait until so many bytes are there."""
    async with asyncio.timeout(WAIT_S):
        async for seen in client.watch(job):
            if seen.bytes_transferred >= count:
                return


def whole(file: FileExplanation) -> bool:
    """The ranges are all of the file, in order and without gaps."""
    place = 0
    for item in file.ranges:
        assert item.offset == place
        place += item.length
    return place == file.bytes_total == file.bytes_held


def told(found: Explanation) -> list[tuple[SourceKind, str | None, str]]:
    """Each source and reason of the only file, once."""
    (file,) = found.files
    return list(dict.fromkeys((item.source, item.id, item.reason) for item in file.ranges))


async def test_the_first_from_the_origin_and_the_second_from_the_peer(
    two: tuple[Agent, Agent], origin: Origin, place: Path
) -> None:
    a, b = two
    data = os.urandom(4 * MIB + 4321)
    origin.add("/file", data)
    first = await begin(a, origin.url("/file"), place)
    await a.client.wait(first, timeout_s=WAIT_S)
    second = await begin(b, origin.url("/file"), place)
    await b.client.wait(second, timeout_s=WAIT_S)

    cold, warm = await a.client.explain(first), await b.client.explain(second)
    assert told(cold) == [(SourceKind.ORIGIN, None, "nobody-near")]
    assert told(warm) == [(SourceKind.PEER, a.peer_id, "nearest")]
    assert whole(cold.files[0])
    assert whole(warm.files[0])
    assert (cold.files[0].origin_copies, warm.files[0].origin_copies) == (1.0, 0.0)
    (share,) = warm.files[0].sources
    assert (share.name, share.bytes_held, share.bytes_received) == ("a", len(data), len(data))
    assert warm.reasons == {"nearest": "nothing nearer had it"}
    with SyncClient.connect(b.home) as client:
        assert await asyncio.to_thread(client.explain, second) == warm

    shown = await b.call("job", "explain", second[:8])
    assert "peer a" in shown.out.splitlines()[-1]
    assert "nothing nearer had it" in shown.out.splitlines()[-1]
    plain = await b.call("job", "explain", second, "--json")
    served = await ask(socket_path(b.home), "GET", f"/v1/jobs/{second}/explain")
    assert plain.document == served.document
    assert served.document["files"][0]["ranges"][0]["source"] == "peer"

    assert b.stop() == 0
    b.start()
    assert await b.client.explain(second) == warm, "a restart changed the account of a finished file"
    await b.client.complete(second)
    ended = await b.client.explain(second)
    assert (ended.state, ended.files[0].ranges) == ("ACKNOWLEDGED", warm.files[0].ranges)


async def test_while_it_runs_and_after_a_kill(two: tuple[Agent, Agent], origin: Origin, place: Path) -> None:
    """What the kill took with it is said to be unknown, and made up of nothing."""
    a, _ = two
    origin.rate = 4 * MIB
    origin.add("/slow", os.urandom(16 * MIB))
    job = await begin(a, origin.url("/slow"), place)
    await held(a.client, job, 5 * MIB)
    running = (await a.client.explain(job)).files[0]
    assert 5 * MIB <= running.bytes_held == sum(item.length for item in running.ranges) < 16 * MIB
    assert {item.reason for item in running.ranges} == {"nobody-near"}
    assert running.distance is None or running.distance >= 1.0

    a.kill()
    origin.rate = None
    a.start()
    await a.client.wait(job, timeout_s=WAIT_S)
    found = await a.client.explain(job)
    assert whole(found.files[0])
    reasons = {item.reason for item in found.files[0].ranges}
    assert "unrecorded" in reasons
    assert reasons <= {"unrecorded", "nobody-near", "nearest"}, "nearest: its own cache"
    unrecorded = sum(item.length for item in found.files[0].ranges if item.reason == "unrecorded")
    assert found.files[0].bytes_unrecorded == unrecorded > 0
    shown = await a.call("job", "explain", job)
    assert "of unknown history" in shown.out


async def test_why_the_near_copy_was_not_used(two: tuple[Agent, Agent], origin: Origin, place: Path) -> None:
    a, b = two
    origin.add("/private", os.urandom(MIB), headers=(("Cache-Control", "private"),))
    origin.add("/open", os.urandom(MIB))
    jobs = [
        await begin(a, origin.url("/private"), place),
        await begin(a, origin.url("/open"), place),
        await begin(b, origin.url("/private"), place),
        await begin(b, origin.url("/open"), place, peers="never"),
    ]
    found = []
    for agent, job in zip((a, a, b, b), jobs, strict=True):
        await agent.client.wait(job, timeout_s=WAIT_S)
        found += told(await agent.client.explain(job))
    assert found == [
        (SourceKind.ORIGIN, None, reason)
        for reason in ("not-shareable", "nobody-near", "not-shareable", "peers-off")
    ]


async def test_a_job_that_is_not_there_and_one_without_files(two: tuple[Agent, Agent]) -> None:
    a, _ = two
    with pytest.raises(NotFoundError):
        await a.client.explain("0" * 32)
    empty = await a.client.create_job(NewJob(name="empty"))
    assert (await a.client.explain(empty.id)).files == []
    refused = await a.call("job", "explain", "nowhere")
    assert (refused.exit_code, "(JOB_NOT_FOUND)" in refused.line) == (3, True)
