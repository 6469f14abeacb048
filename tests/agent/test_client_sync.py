"""The library without `await`, in threads and in plain scripts, against an agent in a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import (
    AgentClient,
    AgentUnavailableError,
    DeliveryDocument,
    EventKind,
    NewFile,
    NewJob,
    NotFoundError,
    SyncClient,
    UsageError,
)
from agent.client_sync import Listener, SyncIterator
from tests.support.agents import ROOT, Agent, environment
from tests.support.wire import WireAgent, event, job_document, reply, silence, streaming

LIMIT_S = 20.0
CONTENT = b"near before far\n" * 64


@pytest.fixture(name="running", scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(home=tmp_path_factory.mktemp("sync") / "home").start()
    yield agent
    assert agent.stop() == 0


@pytest.fixture(name="client")
def connected(running: Agent) -> Iterator[SyncClient]:
    with SyncClient.connect(running.home) as client:
        yield client
        for job in client.jobs(brief=True):
            client.cancel(job.id)


@pytest.fixture(name="url", scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("origin")
    (directory / "file").write_bytes(CONTENT)
    command = [sys.executable, "-m", "tests.support.origin", "--directory", str(directory), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as serving:
        assert serving.stdout is not None
        yield serving.stdout.readline().decode().split()[1].rstrip("/") + "/file"
        serving.terminate()


def ended(condition: Callable[[], bool]) -> bool:
    """Whether it becomes so within the limit."""
    until = time.monotonic() + LIMIT_S
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


# --- the same methods ----------------------------------------------------------------------------------------


def public(kind: type[object]) -> dict[str, Callable[..., object]]:
    return {name: item for name, item in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_every_method_is_there() -> None:
    assert set(public(SyncClient)) == set(public(AgentClient)) | {"close"}


@pytest.mark.parametrize("name", sorted(set(public(AgentClient)) - {"connect", "listen"}))
def test_it_is_the_method_of_that_name(name: str) -> None:
    ours, theirs = public(SyncClient)[name], public(AgentClient)[name]
    assert inspect.unwrap(ours) is theirs
    assert ours.__doc__ == theirs.__doc__
    assert not inspect.iscoroutinefunction(ours)


@pytest.mark.parametrize("name", ["__init__", "connect", "listen"])
def test_what_is_written_here_takes_the_same(name: str) -> None:
    ours, theirs = getattr(SyncClient, name), getattr(AgentClient, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_types_are_known(tmp_path: Path) -> None:
    """mypy sees what each call takes and returns."""
    script = tmp_path / "script.py"
    script.write_text(
        "from agent import JobDocument, NewJob, SyncClient\n"
        "with SyncClient.connect() as client:\n"
        "    job: JobDocument = client.create_job(NewJob(name='n'), key='k')\n"
        "    states: list[str] = [seen.state for seen in client.watch(job.id)]\n"
        "    count: int = client.clear_cache()\n"
        "    client.listen(lambda delivery: delivery.job.id).stop()\n"
        "    wrong: str = client.clear_cache()\n"
        "    client.create_job('n')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "script.py" in line]
    assert [line.split(":")[1] for line in lines] == ["7", "8"], done.stdout + done.stderr


# --- calls ---------------------------------------------------------------------------------------------------


def test_a_job_from_beginning_to_end(client: SyncClient, url: str, tmp_path: Path) -> None:
    job = client.create_job(NewJob(name="j", files=[NewFile(url=url, path=str(tmp_path / "out"))]))
    client.resume(job.id)
    assert client.wait(job.id, timeout_s=LIMIT_S).state == "TRANSFERRED"
    assert client.temporary_path(job.id, 0).read_bytes() == CONTENT
    assert client.complete(job.id).state == "ACKNOWLEDGED"
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_errors_come_back_as_themselves(client: SyncClient, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.job("ff")
    assert caught.value.code == "JOB_NOT_FOUND"
    with pytest.raises(TimeoutError):
        client.wait(client.create_job(NewJob(name="j")).id, timeout_s=0.1)
    with pytest.raises(AgentUnavailableError, match="nearfetch run"), SyncClient.connect(tmp_path):
        pytest.fail("there is nobody")
    assert loops() == 1  # nothing is left of the one that could not be entered


def test_threads_share_a_client(client: SyncClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: client.create_job(NewJob(name=f"j{number}")).id, range(40)))
    assert len(set(made)) == 40
    assert {job.id for job in client.jobs(brief=True)} == set(made)
    assert loops() == 1


def test_a_closed_client_is_closed(running: Agent) -> None:
    client = SyncClient.connect(running.home)
    assert client.socket == running.home / "agent.sock"
    assert client.about().home == str(running.home)
    client.close()
    client.close()
    assert loops() == 0
    for call in (client.about, lambda: next(client.events()), lambda: client.listen(print)):
        with pytest.raises(UsageError, match="is closed"):
            call()


def test_a_client_that_nobody_has_any_more_ends_its_thread(running: Agent) -> None:
    client = SyncClient.connect(running.home)
    client.about()
    assert loops() == 1
    del client
    assert ended(lambda: loops() == 0)


def test_closing_ends_what_is_under_way(running: Agent) -> None:
    client = SyncClient.connect(running.home)
    job = client.create_job(NewJob(name="j"))
    events = client.events(0)
    assert next(events).kind is EventKind.CREATED
    listener = client.listen(print)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.wait, job.id)
        looking = pool.submit(list, events)
        assert ended(pool._work_queue.empty)
        client.close()
        with pytest.raises(UsageError, match="closed"):
            waiting.result(LIMIT_S)
        with pytest.raises(UsageError, match="closed"):
            looking.result(LIMIT_S)
    listener.wait(LIMIT_S)
    assert not listener.running
    with SyncClient.connect(running.home) as another:
        another.cancel(job.id)


def loops() -> int:
    return sum(thread.name == "nearfetch-client" for thread in threading.enumerate())


# --- iterators -----------------------------------------------------------------------------------------------


def test_watch_is_a_plain_loop(client: SyncClient) -> None:
    job = client.create_job(NewJob(name="j"))
    states = []
    for seen in client.watch(job.id):
        states.append(seen.state)
        if seen.state == "SUSPENDED":
            client.cancel(job.id)
    assert states == ["SUSPENDED", "CANCELLED"]


def test_events_are_a_plain_loop(client: SyncClient) -> None:
    job = client.create_job(NewJob(name="j"))
    with client.events(0, job.id) as events:
        assert isinstance(events, SyncIterator)
        assert next(events).kind is EventKind.CREATED
    assert list(events) == []
    events.close()


async def test_closing_an_iterator_closes_its_connection(tmp_path: Path) -> None:
    """Also while somebody still has it."""
    async with WireAgent(tmp_path) as there:
        there.answers.append(streaming(event({"sequence": 1, "at": 1.0, "kind": "state", "job": "j1"})))
        client = SyncClient.connect(tmp_path)
        events = client.events()
        assert (await asyncio.to_thread(next, events)).sequence == 1
        await asyncio.to_thread(events.close)
        await there.seen[0].left()
        await asyncio.to_thread(client.close)


def test_an_iterator_may_be_closed_from_another_thread(client: SyncClient) -> None:
    job = client.create_job(NewJob(name="j"))
    events = client.events(0, job.id)
    got = threading.Event()

    def look() -> list[EventKind]:
        kinds = []
        for item in events:
            kinds.append(item.kind)
            got.set()
        return kinds

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        assert got.wait(LIMIT_S)
        assert ended(lambda: events._waiting is not None)
        events.close()
        assert looking.result(LIMIT_S) == [EventKind.CREATED]


def test_an_iterator_raises_what_went_wrong(client: SyncClient) -> None:
    with pytest.raises(NotFoundError):
        next(client.watch("ff"))


# --- callbacks -----------------------------------------------------------------------------------------------


def test_a_callback_may_use_the_client(client: SyncClient, url: str, tmp_path: Path) -> None:
    """It may also stop its own listener."""
    done = threading.Event()

    def callback(delivery: DeliveryDocument) -> None:
        assert client.job(delivery.job.id).state == "TRANSFERRED"
        client.complete(delivery.job.id)
        listener.stop()
        done.set()

    job = client.create_job(NewJob(name="j", files=[NewFile(url=url, path=str(tmp_path / "out"))]))
    listener = client.listen(callback, job.id)
    client.resume(job.id)
    assert done.wait(LIMIT_S)
    listener.wait(LIMIT_S)
    assert not listener.running
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_leaving_the_block_lets_the_callback_end(client: SyncClient, url: str, tmp_path: Path) -> None:
    """The answer still goes out: the notice does not come again."""
    began, may_end = threading.Event(), threading.Event()
    called: list[str] = []

    def callback(delivery: DeliveryDocument) -> None:
        called.append(delivery.notice)
        began.set()
        assert may_end.wait(LIMIT_S)

    job = client.create_job(NewJob(name="j", files=[NewFile(url=url, path=str(tmp_path / "out"))]))
    client.resume(job.id)
    with client.listen(callback, job.id) as listener:
        assert began.wait(LIMIT_S)
        threading.Timer(0.1, may_end.set).start()
    assert not listener.running
    with client.listen(callback, job.id):
        assert client.complete(job.id).state == "ACKNOWLEDGED"
    assert called == ["job-transferred"]


def test_why_a_listener_ended_is_told(client: SyncClient, caplog: pytest.LogCaptureFixture) -> None:
    listener = client.listen(print, "ff")
    assert isinstance(listener, Listener)
    with pytest.raises(NotFoundError, match="ff"):
        listener.wait(LIMIT_S)
    listener.stop()
    client.about()  # a round trip: the loop has seen to that
    assert ended(lambda: any("the listener ended" in record.getMessage() for record in caplog.records))
    assert [(record.name, record.levelno) for record in caplog.records] == [("agent.client_sync", logging.ERROR)]


def test_an_asynchronous_callback_is_refused(client: SyncClient) -> None:
    async def callback(delivery: DeliveryDocument) -> None:
        pytest.fail("it was called")

    with pytest.raises(UsageError, match=r"AgentClient\.listen"):
        client.listen(callback)


# --- plain scripts -------------------------------------------------------------------------------------------

DOWNLOAD = """
import sys
from agent import NewFile, NewJob, SyncClient
home, url, path = sys.argv[1:]
with SyncClient.connect(home) as client:
    job = client.create_job(NewJob(name="script", files=[NewFile(url=url, path=path)]))
    client.resume(job.id)
    if client.wait(job.id, timeout_s=20).state == "TRANSFERRED":
        print(client.complete(job.id).state)
"""

CARELESS = """
import sys
from agent import SyncClient
client = SyncClient.connect(sys.argv[1])
print(client.about().version)
events = client.events(0)
next(events)
listener = client.listen(print)
"""

WAITING = """
import sys
from agent import SyncClient
client = SyncClient.connect(sys.argv[1])
try:
    client.wait("j1")
except KeyboardInterrupt:
    print("interrupted")
    input()
"""


def script(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )


def said(process: subprocess.Popen[str], given: str | None = None) -> tuple[str, str]:
    """What it wrote until its end, without asyncio's notes on slow steps: a busy machine makes those."""
    out, err = process.communicate(given, timeout=LIMIT_S)
    return out, "".join(line for line in err.splitlines(True) if not line.startswith("Executing <"))


def test_a_plain_script_downloads(running: Agent, url: str, tmp_path: Path) -> None:
    with script(DOWNLOAD, running.home, url, tmp_path / "out") as done:
        assert said(done) == ("ACKNOWLEDGED\n", "")
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_a_script_that_closes_nothing_ends_all_the_same(running: Agent) -> None:
    with script(CARELESS, running.home) as done:
        out, err = said(done)
    assert (out.count("\n"), err, done.returncode) == (1, "", 0)


async def test_ctrl_c_ends_a_call_that_waits(tmp_path: Path) -> None:
    async with WireAgent(tmp_path) as there:
        there.answers += [reply(job_document()), silence]
        with script(WAITING, tmp_path) as waiting:
            _, poll = await there.requests(2)
            waiting.send_signal(signal.SIGINT)
            await poll.left()
            assert waiting.poll() is None
            assert await asyncio.to_thread(said, waiting, "\n") == ("interrupted\n", "")
    assert waiting.returncode == 0
