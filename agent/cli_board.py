"""The table of `job watch` on a terminal, drawn with rich. The only module that loads it.

Never knows: the agent. It gets job documents and draws.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.cli_support import printable
from agent.progress import Rate, plain_line
from agent.schema import JobDocument

SHOWN_CHARACTERS = 8
BAR_WIDTH = 20
ROOM_FOR_FRAME = 4
"""Lines that are not jobs: the head, its rule, the line of what is left out, and one that stays free."""

_FIRST = (
    "TRANSFERRING",
    "VALIDATING",
    "CONNECTING",
    "TRANSIENT_ERROR",
    "ERROR",
    "TRANSFERRED",
    "QUEUED",
    "SUSPENDED",
)
"""Which jobs come first when not all fit."""
_STYLES = {"ERROR": "red", "TRANSIENT_ERROR": "yellow", "TRANSFERRED": "green", "ACKNOWLEDGED": "green"}


class LiveBoard:
    """A context: while it is open the table stands at the bottom of the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._rates: dict[str, Rate] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, jobs: Sequence[JobDocument], changed: Sequence[JobDocument]) -> None:
        """Draw them."""
        now = time.monotonic()
        rates = {job.id: self._rates.get(job.id) or Rate() for job in jobs}
        self._rates = rates
        speeds = {job.id: rates[job.id].add(now, job.bytes_transferred) for job in jobs}
        self._live.update(table_of(jobs, speeds, self._console.height), refresh=True)


def table_of(jobs: Sequence[JobDocument], speeds: dict[str, float | None], height: int) -> Table:
    """The table, for a terminal of that many lines."""
    table = Table(box=None, pad_edge=False, expand=False)
    for head in ("ID", "NAME", "STATE", ""):
        table.add_column(head, no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    room = max(1, height - ROOM_FOR_FRAME)
    ranks = {state: rank for rank, state in enumerate(_FIRST)}
    shown = sorted(jobs, key=lambda job: ranks.get(job.state, len(ranks)))[:room]
    for job in shown:
        table.add_row(
            Text(job.id[:SHOWN_CHARACTERS]),
            Text(printable(job.name)),
            Text(job.state, style=_STYLES.get(job.state, "")),
            _bar(job),
            Text(plain_line(job, speeds.get(job.id))),
        )
    hidden = len(jobs) - len(shown)
    table.caption = Text(_caption(len(jobs), hidden))
    return table


def _caption(count: int, hidden: int) -> str:
    jobs = "1 job" if count == 1 else f"{count} jobs"
    return f"{jobs}, {hidden} of them below" if hidden else jobs


def _bar(job: JobDocument) -> ProgressBar | Text:
    total = job.bytes_total
    if not total:  # not known, or nothing to fetch
        return Text("")
    return ProgressBar(total=total, completed=job.bytes_transferred, width=BAR_WIDTH)
