"""`job watch`, `job events`: what is shown of jobs while they run. A real agent, a real terminal (pty)."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console as RichConsole

from agent.cli_board import LiveBoard, table_of
from agent.cli_events import line_of
from agent.cli_watch import Lines, all_for_ever
from agent.errors import ExitCode
from agent.schema import ErrorDocument, EventDocument, EventKind, JobDocument, Priority
from tests.support.agents import Agent, Fleet, command_line, environment
from tests.support.console import Console, origin_beside
from tests.support.origin import Origin
from tests.support.origin_faults import Fault

CONTENT = bytes(64 * 1024)
LIMIT_S = 20.0


@pytest.fixture(scope="module", name="agent")
def run_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet.start("a", group=False)


@pytest.fixture(scope="module", name="origin")
def run_origin() -> Iterator[Origin]:
    with origin_beside() as origin:
        origin.add("/a", CONTENT)
        origin.add("/slow", CONTENT, faults=[Fault("drip", count=20_000)])
        yield origin


@pytest.fixture(name="console")
def make_console(agent: Agent, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    """Every job is gone after the test."""
    console = Console(agent.home, capsys)
    yield console
    console.run("job", "reset", "--yes")


@pytest.fixture(name="job")
def make_job() -> JobDocument:
    return JobDocument(
        id="4f2a" * 8,
        name="[bold]images\x1b[2J",
        state="TRANSFERRING",
        priority=Priority.NORMAL,
        created_at=1.0,
        modified_at=1.0,
        completed_at=None,
        error=None,
        error_count=0,
        retry_in_s=None,
        bytes_total=2 * 1024 * 1024,
        bytes_transferred=1024 * 1024,
        files_total=1,
        files_transferred=0,
        files=[],
        log=[],
        sequence=1,
    )


def running(console: Console, origin: Origin, path: Path, name: str, url: str = "/a") -> str:
    job = console.ok("job", "create", name)
    console.ok("job", "add", job, origin.url(url), path / name)
    console.ok("job", "resume", job)
    return job


# watch


def test_watching_ends_when_the_jobs_rest(console: Console, origin: Origin, tmp_path: Path) -> None:
    one, two = (running(console, origin, tmp_path, name, "/slow") for name in ("one", "two"))
    lines = console.ok("job", "watch", "one", "two", "--refresh", "0.05").splitlines()
    for job, name in ((one, "one"), (two, "two")):
        mine = [line for line in lines if line.startswith(f"{job} {name}: ")]
        assert mine[-1].endswith(": TRANSFERRED: all bytes are there")
        assert any("TRANSFERRING" in line and "of 64.0 KiB" in line for line in mine)
        assert len(set(mine)) == len(mine)


def test_watching_in_json_is_a_document_for_each_change(console: Console, origin: Origin, tmp_path: Path) -> None:
    job = running(console, origin, tmp_path, "one", "/slow")
    console.ok("job", "watch", job, "--refresh", "0.05", "--json")
    documents = [json.loads(line) for line in console.out.splitlines()]
    numbers = [document["sequence"] for document in documents]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 2
    assert documents[-1]["state"] == "TRANSFERRED"
    assert {document["id"] for document in documents} == {job}


def watch(console: Console, *options: str) -> subprocess.Popen[str]:
    words = [*command_line(), "--home", str(console.home), "job", "watch", "--refresh", "0.05", *options]
    return subprocess.Popen(
        words,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_jobs_are_watched_until_interrupted(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.ok("job", "create", "waits")
    with watch(console, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["name"] == "waits"
        job = running(console, origin, tmp_path, "new")
        seen = []
        for line in process.stdout:
            document = json.loads(line)
            if document["id"] == job:
                seen.append(document["state"])
                if seen[-1] == "TRANSFERRED":
                    console.ok("job", "complete", job)
                elif seen[-1] == "ACKNOWLEDGED":  # told once more when it has ended
                    break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == ExitCode.INTERRUPTED
    assert err == ""
    assert job not in out


def test_what_ended_is_told_once_more(agent: Agent, console: Console) -> None:
    job = console.ok("job", "create", "ends")

    async def follow() -> list[list[tuple[str, str]]]:
        looks = all_for_ever(agent.client, 0.01)
        first = await anext(looks)
        await agent.client.cancel(job)
        seen = [first, await anext(looks), await anext(looks)]
        await looks.aclose()
        return [[(item.id, item.state) for item in look] for look in seen]

    assert asyncio.run(follow()) == [[(job, "SUSPENDED")], [(job, "CANCELLED")], []]


def test_a_line_is_not_repeated(job: JobDocument, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for state in ("QUEUED", "QUEUED", "CONNECTING"):
        now = msgspec.structs.replace(job, state=state, name="n")
        lines.update([now], [now])
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["QUEUED", "CONNECTING"]


def test_on_a_terminal_a_table_is_drawn(console: Console, origin: Origin, tmp_path: Path) -> None:
    running(console, origin, tmp_path, "drawn", "/slow")
    master, slave = pty.openpty()
    words = [*command_line(), "--home", str(console.home), "job", "watch", "--refresh", "0.05"]
    with subprocess.Popen(
        words,
        env=environment({"TERM": "xterm", "COLUMNS": "120", "LINES": "20"}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        text = _read_until(master, "all bytes are there")
        process.send_signal(signal.SIGINT)
        text += _read_until(master, "\x1b[?25h")  # the cursor is back
        assert process.wait(LIMIT_S) == ExitCode.INTERRUPTED
    os.close(master)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"drawn\s+TRANSFERRING\s+━+.* of 64\.0 KiB", plain)
    assert "1 job" in plain
    assert "\x1b[1A" in text  # drawn over, not scrolled


def _read_until(terminal: int, wanted: str) -> str:
    text, deadline = "", time.monotonic() + LIMIT_S
    while wanted not in text:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, text
        text += os.read(terminal, 65536).decode(errors="replace")
    return text


def drawn(jobs: list[JobDocument], height: int = 24) -> str:
    stream = io.StringIO()
    console = RichConsole(file=stream, width=110, height=height)
    console.print(table_of(jobs, {jobs[0].id: 1024.0 * 1024}, height))
    return stream.getvalue()


def test_the_table(job: JobDocument) -> None:
    text = drawn([job])
    assert "4f2a4f2a" in text
    assert "[bold]images\\x1b[2J" in text  # neither markup nor control characters
    assert "50 % of 2.0 MiB, 1.0 MiB/s, 0:01 left" in text


def test_the_table_shows_what_runs_first_when_not_all_fit(job: JobDocument) -> None:
    waiting = [msgspec.structs.replace(job, id=f"{n:032x}", state="SUSPENDED", name=f"job-{n}") for n in range(9)]
    failed = msgspec.structs.replace(job, id="e" * 32, state="ERROR", name="failed")
    text = drawn([*waiting, failed, job], height=8)
    assert [name in text for name in ("images", "failed", "job-0", "job-1", "job-2")] == [True] * 4 + [False]
    assert "11 jobs, 7 of them below" in text


def test_the_board_forgets_what_has_gone(job: JobDocument) -> None:
    stream = io.StringIO()
    with LiveBoard(RichConsole(file=stream, width=100, height=20, force_terminal=True)) as board:
        board.update([job], [job])
        board.update([], [])
    assert stream.getvalue().count("4f2a4f2a") == 1
    assert "0 jobs" in stream.getvalue()


# events


def test_the_feed(console: Console, origin: Origin, tmp_path: Path) -> None:
    start = console.json("job", "events", "--after", "0", "--count", "1", "--job", console.ok("job", "create", "x"))
    first = start["sequence"]
    job = running(console, origin, tmp_path, "told")
    console.ok("job", "wait", job, "--timeout", "20")
    console.ok("job", "events", "--after", str(first), "--job", "told", "--count", "4", "--json")
    events = [json.loads(line) for line in console.out.splitlines()]
    assert [event["kind"] for event in events[:2]] == ["created", "modified"]
    assert {event["job"] for event in events} == {job}
    numbers = [event["sequence"] for event in events]
    assert numbers == sorted(numbers)
    assert numbers[0] > first
    lines = console.ok("job", "events", "--after", str(numbers[0]), "--job", "told", "--count", "3").splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(number) for number in numbers[1:]]
    assert all(f"  {job}  told  " in line for line in lines)


def test_following_the_feed_is_interrupted(console: Console) -> None:
    job = console.ok("job", "create", "first")
    words = [*command_line(), "--home", str(console.home), "job", "events", "--after", "0", "--job", job]
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "  created  " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (ExitCode.INTERRUPTED, "")


def test_an_event_as_a_line() -> None:
    event = EventDocument(
        sequence=None,
        at=0.0,
        kind=EventKind.FILE_RANGES_TRANSFERRED,
        job="4f2a",
        name="j\n",
        state="ERROR",
        file=0,
        ranges=[(0, 10), (20, 25)],
        error=ErrorDocument(code="NOT_FOUND", message="gone", context="origin"),
        bytes_transferred=15,
    )
    assert line_of(event).split("  ")[2:] == [
        "file-ranges-transferred", "4f2a", "j\n", "ERROR", "file 0", "0:10", "20:5", "15 B of ?", "gone (NOT_FOUND)"
    ]  # fmt: skip
    lost = EventDocument(sequence=None, at=0.0, kind=EventKind.LOST, job="")
    assert line_of(lost).startswith("-  ")
    assert line_of(lost).endswith("  lost")
