"""How a download is shown while it runs: a bar on a terminal, plain lines otherwise, nothing with `--json`.

The bar is drawn by hand: one line, redrawn at most ten times a second; a library for it would cost more time at
start than a small download takes.
Never knows: the agent, how a job came about. It gets job documents and draws.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, TextIO

from agent.cli_support import printable
from agent.schema import FileState, JobDocument

REDRAW_S = 0.1
LINE_S = 2.0
RATE_WINDOW_S = 5.0
BAR_WIDTH = 24
MIN_RATE_SPAN_S = 0.2
"""Below it a rate is noise."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Reporter(Protocol):
    """Who shows progress."""

    def update(self, job: JobDocument) -> None:
        """The job as it is now; as often as one likes."""

    def note(self, text: str) -> None:
        """One line that stays."""

    def close(self) -> None:
        """Nothing follows."""


class Silent:
    """Shows nothing."""

    def update(self, job: JobDocument) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Rate:
    """Bytes per second over the last few seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> float | None:
        """Note that `done` bytes were there at `now` (seconds). The rate, None while it cannot be known."""
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # bytes were thrown away: begin again
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_WINDOW_S:
            self._samples.popleft()
        since, first = self._samples[0]
        return (done - first) / (now - since) if now - since >= MIN_RATE_SPAN_S else None


class TerminalBar:
    """One line that is drawn over and over."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._rate = Rate()
        self._drawn_at = -REDRAW_S
        self._shown = False

    def update(self, job: JobDocument) -> None:
        """Redraw, unless that was just done."""
        now = self._clock()
        rate = self._rate.add(now, job.bytes_transferred)
        if now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at, self._shown = now, True
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + bar_line(job, rate)[:width])
        self._stream.flush()

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._clear()
        self._stream.write(printable(text) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Take the bar away."""
        self._clear()
        self._stream.flush()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._shown, self._drawn_at = False, -REDRAW_S


class PlainLines:
    """A line when the state changes, and at most one every two seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._rate = Rate()
        self._written_at = clock()
        self._state: str | None = None

    def update(self, job: JobDocument) -> None:
        """Write a line if it is time."""
        now = self._clock()
        rate = self._rate.add(now, job.bytes_transferred)
        if job.state == self._state and now - self._written_at < LINE_S:
            return
        self._state, self._written_at = job.state, now
        self.note(plain_line(job, rate))

    def note(self, text: str) -> None:
        """Write the line."""
        self._stream.write(printable(text) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to take away."""


def reporter_for(stream: TextIO | None = None) -> Reporter:
    """A bar when the stream is a terminal, else lines."""
    stream = sys.stderr if stream is None else stream
    return TerminalBar(stream) if stream.isatty() else PlainLines(stream)


def bar_line(job: JobDocument, rate: float | None) -> str:
    """The line on a terminal, without its ends."""
    done, total = job.bytes_transferred, job.bytes_total
    if job.state != "TRANSFERRING" or total is None:
        return plain_line(job, rate)
    filled = BAR_WIDTH if total == 0 else BAR_WIDTH * min(done, total) // total
    bar = "█" * filled + "░" * (BAR_WIDTH - filled)
    return f"{bar} {_amounts(job, rate)}"


def plain_line(job: JobDocument, rate: float | None) -> str:
    """The same as words."""
    if job.state == "TRANSFERRING":
        return _amounts(job, rate)
    if job.state == "TRANSIENT_ERROR" and job.error is not None:
        soon = "soon" if job.retry_in_s is None else f"in {max(0, round(job.retry_in_s))} s"
        return f"trying again {soon}: {printable(job.error.message)} ({job.error.code})"
    if job.state == "ERROR" and job.error is not None:
        return f"failed: {printable(job.error.message)} ({job.error.code})"
    if any(file.state is FileState.DECIDING for file in job.files):
        return "waiting for the application to set the validation state"
    return _WORDS.get(job.state, job.state.lower())


def split_of(job: JobDocument) -> str:
    """Where the bytes came from: `peers 60 % (2), origin 40 %`. Empty before the first byte."""
    if job.files:
        parts = {
            "cache": sum(file.bytes_from_cache for file in job.files),
            "peers": sum(file.bytes_from_peers for file in job.files),
            "origin": sum(file.bytes_from_origin for file in job.files),
        }
    else:  # a brief document
        parts = {"cache": job.bytes_from_cache, "peers": job.bytes_from_peers, "origin": job.bytes_from_origin}
    received = sum(parts.values())
    peers = len({peer for file in job.files for peer in file.peers})
    words = []
    for name, count in parts.items():
        if count:
            number = f" ({peers})" if name == "peers" and peers else ""
            words.append(f"{name}{number} {_percent(count, received)}")
    return ", ".join(words)


def size_text(count: float) -> str:
    """`1.5 MiB`."""
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.0f} B" if power == 0 else f"{count:.1f} {_UNITS[power]}"


def time_text(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


_WORDS = {
    "SUSPENDED": "suspended",
    "QUEUED": "waiting for a turn",
    "CONNECTING": "asking the origin",
    "VALIDATING": "validating",
    "TRANSFERRED": "all bytes are there",
    "ACKNOWLEDGED": "done",
    "CANCELLED": "cancelled",
}


def _amounts(job: JobDocument, rate: float | None) -> str:
    done, total = job.bytes_transferred, job.bytes_total
    words = [f"{size_text(done)}" if total is None else f"{_percent(done, total)} of {size_text(total)}"]
    if rate is not None:
        words.append(f"{size_text(rate)}/s")
        if total is not None and rate > 0:
            words.append(f"{time_text((total - done) / rate)} left")
    split = split_of(job)
    return ", ".join(words) + (f"; {split}" if split else "")


def _percent(part: int, whole: int) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{100 if whole == 0 else 100 * part // whole} %"
