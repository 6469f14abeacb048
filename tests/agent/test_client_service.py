"""The library against a whole agent: a job's life, and listeners that outlive the agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agent import (
    AgentClient,
    ByteSpan,
    CacheChange,
    CredentialChange,
    CredentialScheme,
    CredentialTarget,
    DeliveryDocument,
    EventDocument,
    EventKind,
    JobChange,
    LimitError,
    NewFile,
    NewJob,
    NotFoundError,
    Priority,
    RangeRequest,
    StateError,
)
from agent.config import Config
from agent.service import Service
from tests.support.origin import Origin

LIMIT_S = 20.0
CONTENT = bytes(range(256)) * 40


@pytest.fixture(name="origin")
async def serving() -> AsyncIterator[Origin]:
    async with Origin() as origin:
        origin.add("/file", CONTENT)
        yield origin


@pytest.fixture(name="home")
def place(tmp_path: Path) -> Path:
    return tmp_path / "home"


def agent(home: Path) -> Service:
    return Service(Config.load(home, {}, {}))


@pytest.fixture(name="client")
async def running(home: Path) -> AsyncIterator[AgentClient]:
    async with agent(home), AgentClient.connect(home) as client:
        yield client


def new_job(origin: Origin, tmp_path: Path, name: str = "out", **settings: object) -> NewJob:
    return NewJob(name=name, files=[NewFile(url=origin.url("/file"), path=str(tmp_path / name))], **settings)  # type: ignore[arg-type]


# --- one job -------------------------------------------------------------------------------------------------


async def test_a_job_from_beginning_to_end(client: AgentClient, origin: Origin, tmp_path: Path) -> None:
    job = await client.create_job(NewJob(name="j", priority=Priority.LOW))
    assert (job.state, job.priority) == ("SUSPENDED", Priority.LOW)
    with pytest.raises(StateError, match="no file"):
        await client.resume(job.id)
    job = await client.add_files(job.id, new_job(origin, tmp_path).files)
    job = await client.change_job(job.id, JobChange(description="d", priority=Priority.FOREGROUND))
    assert (job.name, job.description, job.priority) == ("j", "d", Priority.FOREGROUND)
    await client.resume(job.id)
    job = await client.wait(job.id, timeout_s=LIMIT_S)
    assert job.state == "TRANSFERRED"
    assert await client.filled_ranges(job.id, 0) == [ByteSpan(offset=0, length=len(CONTENT))]
    assert (await client.temporary_path(job.id, 0)).read_bytes() == CONTENT
    job = await client.set_validation(job.id, 0, valid=True)
    assert [item.id for item in await client.jobs()] == [job.id]
    assert (await client.complete(job.id)).state == "ACKNOWLEDGED"
    assert (await client.complete(job.id)).state == "ACKNOWLEDGED"
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert await client.jobs() == []
    assert (await client.statistics()).bytes_from_origin >= len(CONTENT)


async def test_urls_credentials_and_ranges(client: AgentClient, origin: Origin, tmp_path: Path) -> None:
    job = await client.create_job(new_job(origin, tmp_path, on_demand=True))
    elsewhere = await client.change_file(job.id, 0, "http://elsewhere.example/old/file")
    assert elsewhere.files[0].url == "http://elsewhere.example/old/file"
    replaced = await client.replace_prefix(job.id, "http://elsewhere.example/old", origin.url(""))
    assert (replaced.files_changed, replaced.job.files[0].url) == (1, origin.url("/file"))
    bearer = CredentialChange(scheme=CredentialScheme.BEARER, password="t")
    job = await client.set_credentials(job.id, bearer)
    assert [item.scheme for item in job.credentials] == [CredentialScheme.BEARER]
    job = await client.remove_credentials(job.id, CredentialTarget.SERVER, CredentialScheme.BEARER)
    assert job.credentials == []
    await client.resume(job.id)
    await client.want_ranges(job.id, 0, [RangeRequest(offset=100, length=50)])
    async with asyncio.timeout(LIMIT_S):
        while not any(
            span.offset <= 100 and span.offset + span.length >= 150 for span in await filled(client, job.id)
        ):
            job = await client.wait_change(job.id, job.sequence, timeout_s=1)
    assert (await client.temporary_path(job.id, 0)).read_bytes()[100:150] == CONTENT[100:150]
    await client.set_position(job.id, 0, 512)
    assert (await client.cancel(job.id)).state == "CANCELLED"
    with pytest.raises(NotFoundError):
        await client.filled_ranges(job.id, 0)


async def filled(client: AgentClient, job_id: str) -> list[ByteSpan]:
    return await client.filled_ranges(job_id, 0)


async def test_a_key_makes_one_job(client: AgentClient) -> None:
    first = await client.create_job(NewJob(name="j"), key="mine")
    assert (await client.create_job(NewJob(name="j"), key="mine")).id == first.id
    with pytest.raises(LimitError) as caught:
        await client.create_job(NewJob(name="another"), key="mine")
    assert caught.value.code == "IDEMPOTENCY_CONFLICT"
    assert (await client.create_job(NewJob(name="j"))).id != first.id


async def test_pages(client: AgentClient) -> None:
    made = [(await client.create_job(NewJob(name=f"j{number}"))).id for number in range(5)]
    page = await client.job_page(limit=2, brief=True)
    assert ([job.id for job in page.jobs], page.total, page.next) == (made[:2], 5, made[1])
    page = await client.job_page(page.next, limit=10)
    assert ([job.id for job in page.jobs], page.next) == (made[2:], None)
    assert [job.id for job in await client.jobs()] == made


async def test_what_concerns_no_job(client: AgentClient, home: Path) -> None:
    assert (await client.about()).home == str(home)
    assert (await client.peers()).peers == []
    with pytest.raises(StateError, match="no group"):
        await client.discover_peers()
    changed = await client.change_cache(CacheChange(peer_serve=False, limit_bytes=123_456_789))
    assert (changed.peer_serve, changed.limit_bytes) == (False, 123_456_789)
    assert (await client.cache()).peer_serve is False
    with pytest.raises(NotFoundError) as caught:
        await client.cache_record("ab")
    assert caught.value.code == "RECORD_NOT_FOUND"
    assert not (await client.delete_url("http://nowhere.example/")).changed
    assert await client.clear_cache() == 0
    assert str((await client.openapi())["openapi"]).startswith("3.")


# --- listeners -----------------------------------------------------------------------------------------------


async def test_events_go_on_over_a_restart(home: Path, tmp_path: Path) -> None:
    """What happens while nobody is connected is not missed; nothing comes twice."""
    client = AgentClient.connect(home)
    seen: list[EventDocument] = []
    async with asyncio.timeout(LIMIT_S), aclosing(client.events(0)) as events:
        async with agent(home):
            first = await client.create_job(NewJob(name="first"))
            await until(events, seen, EventKind.CREATED, first.id)
        async with agent(home):
            second = await client.create_job(NewJob(name="second"))
            await client.cancel(first.id)
        async with agent(home):
            third = await client.create_job(NewJob(name="third"))
            await until(events, seen, EventKind.CREATED, third.id)
    numbers = [item.sequence for item in seen if item.sequence is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [item.job for item in seen if item.kind is EventKind.CREATED] == [first.id, second.id, third.id]
    assert [item.job for item in seen if item.kind is EventKind.CANCELLED] == [first.id]


async def until(events: AsyncIterator[EventDocument], seen: list[EventDocument], kind: EventKind, job: str) -> None:
    async for item in events:
        seen.append(item)
        if (item.kind, item.job) == (kind, job):
            return


async def test_a_callback_completes_its_job(client: AgentClient, origin: Origin, tmp_path: Path) -> None:
    async def complete(delivery: DeliveryDocument) -> None:
        assert delivery.notice == "job-transferred"
        await client.complete(delivery.job.id)

    async with asyncio.timeout(LIMIT_S), listening(client, complete):
        for name in ("a", "b", "c"):
            await client.resume((await client.create_job(new_job(origin, tmp_path, name))).id)
        async with asyncio.TaskGroup() as group:
            for job in await client.jobs():
                group.create_task(client.wait(job.id, {"ACKNOWLEDGED"}))
    assert {(tmp_path / name).read_bytes() for name in ("a", "b", "c")} == {CONTENT}


async def test_a_callback_that_fails_is_called_again(client: AgentClient, origin: Origin, tmp_path: Path) -> None:
    called: list[str] = []
    done = asyncio.Event()

    def callback(delivery: DeliveryDocument) -> None:
        called.append(delivery.notice)
        if len(called) == 1:
            raise ValueError("not yet")
        done.set()

    job = await client.create_job(new_job(origin, tmp_path))
    await client.resume(job.id)
    assert (await client.wait(job.id, timeout_s=LIMIT_S)).state == "TRANSFERRED"
    async with asyncio.timeout(LIMIT_S), listening(client, callback, job.id):  # it registers late
        await done.wait()
    assert called == ["job-transferred"] * 2


async def test_a_callback_outlives_the_agent(home: Path, origin: Origin, tmp_path: Path) -> None:
    """The first agent stops while the callback runs, so nobody hears its answer: the next one tells it again."""
    client = AgentClient.connect(home)
    called: asyncio.Queue[DeliveryDocument] = asyncio.Queue()
    may_end = asyncio.Event()

    async def callback(delivery: DeliveryDocument) -> None:
        called.put_nowait(delivery)
        await may_end.wait()

    async with asyncio.timeout(LIMIT_S), contextlib.AsyncExitStack() as stack:
        async with agent(home):
            job = await client.create_job(new_job(origin, tmp_path))
            await stack.enter_async_context(listening(client, callback))
            await client.resume(job.id)
            assert (await called.get()).job.id == job.id
        async with agent(home):
            may_end.set()
            again = await called.get()
            assert (again.job.id, again.job.state, again.notice) == (job.id, "TRANSFERRED", "job-transferred")


@contextlib.asynccontextmanager
async def listening(client: AgentClient, callback: object, job: str | None = None) -> AsyncIterator[None]:
    """`client.listen` beside the block, cancelled at its end."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.listen(callback, job))  # type: ignore[arg-type]
        yield
        task.cancel()
