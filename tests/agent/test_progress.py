"""What is drawn while a download runs."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import msgspec
import pytest

from agent.cli_support import printable
from agent.progress import (
    PlainLines,
    Rate,
    TerminalBar,
    bar_line,
    plain_line,
    reporter_for,
    size_text,
    split_of,
    time_text,
)
from agent.schema import ErrorDocument, JobDocument, NewFile, NewJob
from tests.support.memory_engine import MemoryEngine

MIB = 1024 * 1024


class Clock:
    """Goes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(name="job")
def make_job() -> JobDocument:
    new = NewJob(name="j", files=[NewFile(url="http://x/y", path="/y")])
    return asyncio.run(MemoryEngine(Path("/")).create_job(new))[0]


def running(job: JobDocument, done: int, total: int | None = 100 * MIB) -> JobDocument:
    """A quarter from the origin, the rest from a peer."""
    file = msgspec.structs.replace(
        job.files[0], bytes_from_origin=done // 4, bytes_from_peers=done - done // 4, peers={"p": 1} if done else {}
    )
    return msgspec.structs.replace(
        job, state="TRANSFERRING", bytes_transferred=done, bytes_total=total, files=[file]
    )


def test_the_bar_says_how_much_how_fast_how_long_and_from_where(job: JobDocument) -> None:
    line = bar_line(running(job, 25 * MIB), 5.0 * MIB)
    assert line.startswith("██████░")
    assert line.endswith(" 25 % of 100.0 MiB, 5.0 MiB/s, 0:15 left; peers (1) 75 %, origin 25 %")
    assert "0 % of 100.0 MiB" in bar_line(running(job, 0), None)
    assert bar_line(running(job, 0, total=0), None).startswith("█" * 24)
    assert bar_line(running(job, 5 * MIB, total=None), None).startswith("5.0 MiB")


def test_other_states_are_words(job: JobDocument) -> None:
    assert plain_line(msgspec.structs.replace(job, state="CONNECTING"), None) == "asking the origin"
    error = ErrorDocument(code="CONNECT_FAILED", message="refused\x1b[2J", context="origin")
    waiting = msgspec.structs.replace(job, state="TRANSIENT_ERROR", error=error, retry_in_s=4.4)
    assert plain_line(waiting, None) == "trying again in 4 s: refused\\x1b[2J (CONNECT_FAILED)"
    assert split_of(job) == ""


def test_failures_and_ends_are_said(job: JobDocument) -> None:
    error = ErrorDocument(code="NOT_FOUND", message="no\nsuch file", context="origin")
    failed = msgspec.structs.replace(job, state="ERROR", error=error)
    assert plain_line(failed, None) == "failed: no\\nsuch file (NOT_FOUND)"
    assert plain_line(msgspec.structs.replace(job, state="CANCELLED"), None) == "cancelled"


def test_a_brief_document_says_where_bytes_came_from(job: JobDocument) -> None:
    brief = msgspec.structs.replace(job, files=[], bytes_from_peers=300, bytes_from_origin=100)
    assert split_of(brief) == "peers 75 %, origin 25 %"


def test_the_terminal_is_drawn_ten_times_a_second_at_most(job: JobDocument) -> None:
    stream, clock = Terminal(), Clock()
    bar = TerminalBar(stream, clock)
    for step in range(10):
        bar.update(running(job, step * MIB))
        clock.now += 0.03
    assert stream.getvalue().count("\r") == 3
    bar.note("a\nline")
    bar.close()
    assert stream.getvalue().endswith("\r\x1b[Ka\\nline\n")


def test_lines_come_every_two_seconds_and_with_each_state(job: JobDocument) -> None:
    stream, clock = io.StringIO(), Clock()
    lines = PlainLines(stream, clock)
    lines.update(msgspec.structs.replace(job, state="CONNECTING"))
    for step in range(40):
        lines.update(running(job, step * MIB))
        clock.now += 0.125
    lines.update(msgspec.structs.replace(job, state="VALIDATING"))
    lines.close()
    got = stream.getvalue().splitlines()
    assert [line.split(" ")[0] for line in got] == ["asking", "0", "16", "32", "validating"]
    assert "\r" not in stream.getvalue()


def test_a_bar_only_on_a_terminal() -> None:
    assert isinstance(reporter_for(Terminal()), TerminalBar)
    assert isinstance(reporter_for(io.StringIO()), PlainLines)


def test_the_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.add(0.0, 0) is None
    assert rate.add(0.1, 100) is None
    assert rate.add(1.0, 1000) == pytest.approx(1000)
    for second in range(2, 20):
        latest = rate.add(float(second), 1000)
    assert latest == 0
    assert rate.add(20.0, 10) is None  # bytes were thrown away


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (2**42, "4.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (67, "1:07"), (3723, "1:02:03")])
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_nothing_printed_can_move_the_cursor() -> None:
    assert printable("é\x1b[31m\r\n\u202eab\udcff") == "é\\x1b[31m\\r\\n\\u202eab\\udcff"
