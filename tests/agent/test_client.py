"""The Python library against a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent import (
    AgentClient,
    AgentError,
    AgentUnavailableError,
    DestinationError,
    JobDocument,
    NewFile,
    NewJob,
    NotFoundError,
    Priority,
    StateError,
    UsageError,
    Validation,
    default_home,
)
from agent.client import socket_path
from tests.support.memory_engine import CONTENT, MemoryEngine, memory_agent

URL = "http://origin.example/"


@pytest.fixture(name="engine")
async def running(tmp_path: Path) -> AsyncIterator[MemoryEngine]:
    async with memory_agent(tmp_path / "home") as engine:
        yield engine


def new_job(tmp_path: Path, word: str = "file") -> NewJob:
    return NewJob(name="j", files=[NewFile(url=URL + word, path=str(tmp_path / "out"))])


async def started(client: AgentClient, tmp_path: Path, word: str) -> JobDocument:
    return await client.resume((await client.create_job(new_job(tmp_path, word))).id)


async def test_a_job_from_beginning_to_end(engine: MemoryEngine, tmp_path: Path) -> None:
    async with AgentClient.connect(engine.home) as client:
        job = await client.create_job(NewJob(name="j", priority=Priority.LOW))
        assert (job.state, job.priority) == ("SUSPENDED", Priority.LOW)
        job = await client.add_files(job.id, new_job(tmp_path).files)
        await client.resume(job.id)
        job = await client.wait(job.id, timeout_s=5)
        assert job.state == "TRANSFERRED"
        assert await client.temporary_path(job.id, 0) == tmp_path / "out.tmp"
        assert [item.id for item in await client.jobs()] == [job.id]
        assert (await client.complete(job.id)).state == "ACKNOWLEDGED"
        assert (tmp_path / "out").read_bytes() == CONTENT
        assert await client.jobs() == []


async def test_the_application_decides(engine: MemoryEngine, tmp_path: Path) -> None:
    async with AgentClient.connect(engine.home) as client:
        job = await started(client, tmp_path, "decide")
        job = await client.wait(job.id, timeout_s=5)
        assert job.state == "VALIDATING"
        job = await client.set_validation(job.id, 0, valid=True)
        assert job.files[0].validation is Validation.VALID
        with pytest.raises(StateError):
            await client.set_validation(job.id, 0, valid=True)


async def test_peers_and_cache(engine: MemoryEngine) -> None:
    async with AgentClient.connect(engine.home) as client:
        assert (await client.peers()).peers[0].bytes_taken == 5
        assert (await client.cache()).bytes == 9
        assert await client.clear_cache() == 3
        assert (await client.about()).problems == ["a database was set aside"]


async def test_wait_ends_at_any_state_asked_for(engine: MemoryEngine, tmp_path: Path) -> None:
    client = AgentClient.connect(engine.home)
    job = await started(client, tmp_path, "hang")
    assert (await client.wait(job.id, until={"TRANSFERRING"}, timeout_s=5)).state == "TRANSFERRING"
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait(job.id, until={"QUEUED"}))
        while not engine.waiting:
            await asyncio.sleep(0.01)
        engine.change(job.id, state="CONNECTING")
        engine.change(job.id, state="CANCELLED")
    assert waiting.result().state == "CANCELLED"


async def test_wait_times_out(engine: MemoryEngine, tmp_path: Path) -> None:
    client = AgentClient.connect(engine.home)
    job = await started(client, tmp_path, "hang")
    with pytest.raises(TimeoutError):
        await client.wait(job.id, timeout_s=0.2)


async def test_watch_yields_every_change_until_the_end(engine: MemoryEngine, tmp_path: Path) -> None:
    client = AgentClient.connect(engine.home)
    job = await started(client, tmp_path, "hang")
    seen = []
    async with asyncio.timeout(5):
        async for item in client.watch(job.id):
            seen.append(item.state)
            if len(seen) < 4:
                engine.change(job.id, state=("QUEUED", "CONNECTING", "CANCELLED")[len(seen) - 1])
    assert seen == ["TRANSFERRING", "QUEUED", "CONNECTING", "CANCELLED"]


async def test_a_call_may_be_cancelled(engine: MemoryEngine, tmp_path: Path) -> None:
    client = AgentClient.connect(engine.home)
    job = await started(client, tmp_path, "hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.wait_change(job.id, job.sequence, timeout_s=30)
    assert (await client.job(job.id)).state == "TRANSFERRING"


async def test_errors_come_back_as_themselves(engine: MemoryEngine, tmp_path: Path) -> None:
    client = AgentClient.connect(engine.home)
    with pytest.raises(NotFoundError) as missing:
        await client.job("ff")
    assert (missing.value.code, missing.value.context) == ("JOB_NOT_FOUND", "agent")
    wrong = NewFile(url=URL, path="/x", validators=["shasum:1"])
    with pytest.raises(UsageError, match="did you mean sha256") as unknown:
        await client.create_job(NewJob(name="j", files=[wrong]))
    assert unknown.value.code == "UNKNOWN_VALIDATOR"
    job = await client.create_job(NewJob(name="j"))
    with pytest.raises(StateError, match="no file"):
        await client.resume(job.id)
    with pytest.raises(StateError):
        await client.complete(job.id)
    await client.add_files(job.id, [NewFile(url=URL + "file", path=str(tmp_path / "none" / "x"))])
    await client.resume(job.id)
    with pytest.raises(DestinationError) as nowhere:
        await client.complete(job.id)
    assert nowhere.value.code == "DESTINATION_MISSING"
    with pytest.raises(NotFoundError, match="no file 3"):
        await client.temporary_path(job.id, 3)


async def test_a_bug_in_the_agent_is_an_agent_error(engine: MemoryEngine) -> None:
    engine.broken = True
    with pytest.raises(AgentError) as caught:
        await AgentClient.connect(engine.home).job("ff")
    assert caught.value.code == "UNEXPECTED"


@pytest.mark.parametrize("job_id", ["", "../agent", "a/b", "a?b", "é", "a b"])
async def test_ids_that_are_none_never_leave(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(NotFoundError):
        await AgentClient.connect(tmp_path).job(job_id)


async def test_text_that_is_not_unicode_is_refused(engine: MemoryEngine) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        await AgentClient.connect(engine.home).create_job(NewJob(name="\udcff"))


async def test_no_agent(tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        async with AgentClient.connect(tmp_path):
            pass
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path(tmp_path)))
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        await AgentClient.connect(tmp_path).about()


async def test_the_agent_stops_during_a_long_poll(tmp_path: Path) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group, memory_agent(tmp_path / "home") as engine:
        client = AgentClient.connect(engine.home)
        job = await started(client, tmp_path, "hang")
        waiting = group.create_task(_outcome(client, job.id))
        while not engine.waiting:
            await asyncio.sleep(0.01)
    assert isinstance(waiting.result(), AgentUnavailableError)


async def _outcome(client: AgentClient, job_id: str) -> object:
    try:
        return await client.wait(job_id)
    except AgentError as error:
        return error


@pytest.fixture(name="answers")
def answering(tmp_path: Path) -> Iterator[list[bytes]]:
    """Something that is no agent: it answers whatever is put into the list."""
    answers: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answers.pop())

        thread = threading.Thread(target=serve)
        thread.start()
        yield answers
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"", AgentUnavailableError, "stopped"),
        (b"SSH-2.0-x\r\n", AgentError, "no nearfetch agent"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", AgentUnavailableError, "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", AgentError, "cannot be understood"),
        (b"HTTP/1.1 404 No\r\n\r\n<html>", AgentError, "cannot be understood"),
    ],
)
async def test_something_else_answers(
    tmp_path: Path, answers: list[bytes], answer: bytes, kind: type[AgentError], said: str
) -> None:
    answers.append(answer)
    with pytest.raises(kind, match=said):
        await AgentClient.connect(tmp_path).about()


async def test_nobody_answers_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        with pytest.raises(AgentUnavailableError, match=r"within 0\.1 s"):
            await AgentClient(tmp_path / "agent.sock", timeout_s=0.1).about()


async def test_unknown_fields_in_answers_are_ignored(tmp_path: Path, answers: list[bytes]) -> None:
    body = b'{"records":1,"bytes_freed":7}'
    answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert await AgentClient.connect(tmp_path).clear_cache() == 1


def test_the_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEARFETCH_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv("NEARFETCH_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_home().name == "nearfetch"
