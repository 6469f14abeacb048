"""How the jobs of one agent wait: for a time, for a listener, for a slot.

Two things keep every call cheap with ten thousand jobs. A job stands in a line only while it has something whose
time has come. And the line depends on the job alone: jobs that need a listener to all jobs stand in a line of their
own, which is passed over while there is none, so that the coming and going of such listeners moves no job.
Never knows: what is told, deliveries, the journal.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto
from typing import assert_never

from agent.core.agenda import Agenda
from agent.core.notice_listeners import Listeners
from agent.core.notice_queue import JobQueue
from agent.core.notice_values import NEVER
from agent.core.queue import JobId


class Lane(Enum):
    """One job's notices in one lane are told one after the other."""

    KEPT = auto()
    """file-transferred in order, then job-transferred or job-error."""
    RANGES = auto()
    CHANGES = auto()


class Line(Enum):
    """What a job stands for."""

    NOW = auto()
    """It can be served, whoever listens."""
    LISTENER = auto()
    """It can be served while somebody listens to all jobs."""
    SPARE = auto()
    """It may be served when nobody else can, and a slot stays free."""


Place = tuple[JobId, Lane]


class Lines:
    """Who waits for what. First come, first served: a job that was served and wants more goes behind the others."""

    def __init__(self, listeners: Listeners) -> None:
        self.now = NEVER
        """The latest time known, in seconds."""
        self._listeners = listeners
        self._lines: dict[Line, OrderedDict[Place, int]] = {line: OrderedDict() for line in Line}
        self._where: dict[Place, Line] = {}
        self._tickets = 0
        self._agenda: Agenda[Place] = Agenda()
        self._shaken: dict[JobId, None] = {}
        """Jobs that wait after a failed callback, and have no listener of their own."""

    def first(self, *, spare: bool) -> Place | None:
        """Whose turn it is; stays in line. `spare`: another slot would stay free."""
        lines = (Line.NOW, Line.LISTENER) if self._listeners.to_all() else (Line.NOW,)
        heads = [next(iter(self._lines[line].items())) for line in lines if self._lines[line]]
        if heads:
            return min(heads, key=lambda head: head[1])[0]
        return next(iter(self._lines[Line.SPARE]), None) if spare else None

    def next_time(self) -> float | None:
        """When somebody will have waited long enough."""
        return self._agenda.next()

    def due(self, now: float) -> list[Place]:
        """It is that late now. Who has waited long enough, and is to be lined up."""
        self.now = max(self.now, now)
        return self._agenda.due(self.now)

    def shaken(self) -> list[JobId]:
        """Who may wait for less when a listener to all jobs comes, and is to be lined up then."""
        return list(self._shaken)

    def line_up(self, job: JobId, queue: JobQueue, lane: Lane) -> None:
        """Put it where it belongs now: into a line, on the agenda, or nowhere. In its line it keeps its place."""
        match lane:
            case Lane.KEPT:
                self._line_up_kept(job, queue)
            case Lane.RANGES:
                self._line_up_at((job, lane), queue.ranges_at(), Line.NOW)
            case Lane.CHANGES:
                self._line_up_at((job, lane), queue.changes_at(), Line.SPARE)
            case _:
                assert_never(lane)

    def forget(self, job: JobId) -> None:
        """It waits for nothing."""
        for lane in Lane:
            self._put((job, lane), None)
            self._agenda.set((job, lane), None)
        self._shaken.pop(job, None)

    # --- inside ----------------------------------------------------------------------------------------------

    def _line_up_kept(self, job: JobId, queue: JobQueue) -> None:
        own, since = self._listeners.own(job), self._listeners.since(job)
        heard = None if queue.in_hand else queue.heard_at(since)
        alone = None if queue.in_hand else heard if own else queue.unheard_at(since)
        place = (job, Lane.KEPT)
        if heard is None or heard > self.now:
            self._line_up_at(place, heard, Line.NOW)
        elif alone is not None and alone <= self.now:
            self._line_up_at(place, alone, Line.NOW)
        else:
            self._put(place, Line.LISTENER)
            self._agenda.set(place, alone)
        if heard is not None and heard > self.now and not own:
            self._shaken[job] = None
        else:
            self._shaken.pop(job, None)

    def _line_up_at(self, place: Place, at: float | None, line: Line) -> None:
        waits = at is not None and at > self.now
        self._put(place, None if at is None or waits else line)
        self._agenda.set(place, at if waits else None)

    def _put(self, place: Place, line: Line | None) -> None:
        before = self._where.get(place)
        if before is line:
            return
        if before is not None:
            del self._lines[before][place]
            del self._where[place]
        if line is not None:
            self._tickets += 1
            self._lines[line][place] = self._tickets
            self._where[place] = line
