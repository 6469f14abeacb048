"""What happened in a swarm, as its cores saw it: what each was told and what it commanded, in order.

    diary = Diary(layout, patience_s)
    diary.note(agent, transfer, now, event, commands)      # for each call of `transfer.handle`
    diary.requests, diary.fed(agent, piece_s), diary.has(agent, at)

Everything comes from the two sides of `FileTransfer.handle` and from what a transfer shows of itself: it does not
matter which world they live in. What must never be is asserted as soon as it is: a chunk under way twice to one
agent, an agent that waits for nothing. Never knows: links, rates, how news travel.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.sources import SourceId
from agent.core.transfer import FileTransfer
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout
from validation.ranges import ByteRange


@dataclass(slots=True)
class Request:
    """One `FetchRange` and what became of it."""

    agent: int
    source: SourceId
    item: ByteRange
    at: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When bytes were told of, and up to which offset."""
    aborted_at: float | None = None
    alone: bool = True
    """When it was aborted, nothing else was asked for."""
    ended_at: float | None = None
    right: bool = False

    @property
    def cursor(self) -> int:
        """The next byte that is expected."""
        return self.arrivals[-1][1] if self.arrivals else self.item.start

    @property
    def heard_at(self) -> float:
        """When it last moved."""
        return self.arrivals[-1][0] if self.arrivals else self.at

    def brought(self, chunk: int, layout: ChunkLayout) -> float | None:
        """When it had brought this chunk; None: never."""
        stop = min((chunk + 1) * layout.chunk_bytes, layout.length)
        return next((at for at, cursor in self.arrivals if cursor >= stop), None)


@dataclass
class _Life:
    """One agent."""

    began_at: float | None = None
    ended_at: float | None = None
    open: dict[ev.RequestId, Request] = field(default_factory=dict)
    owed: list[str] = field(default_factory=list)
    """Answers, other than to requests, that its world owes it."""
    proven: list[tuple[float, Bitfield]] = field(default_factory=list)
    heard: list[tuple[float, ev.SourceOffered | ev.SourceLost]] = field(default_factory=list)


class Diary:
    """Of one swarm. `patience_s`: no timer of a core is further away than that."""

    def __init__(self, layout: ChunkLayout, patience_s: float) -> None:
        self.layout = layout
        self.requests: list[Request] = []
        self.lives: dict[int, _Life] = {}
        self._patience_s = patience_s

    def note(
        self, agent: int, transfer: FileTransfer, now: float, event: ev.FileEvent, commands: list[cmd.Command]
    ) -> None:
        """A core was told something."""
        life = self.lives.setdefault(agent, _Life())
        self._take(agent, life, now, event)
        asks = any(isinstance(each, cmd.FetchRange) for each in commands)
        for command in commands:
            self._commanded(agent, life, now, command, asks)
        proven = NO_CHUNKS if transfer.chunks is None else transfer.chunks.proven
        if not life.proven or life.proven[-1][1] != proven:
            life.proven.append((now, proven))
        self._check_waiting(agent, life, transfer, now)

    def _take(self, agent: int, life: _Life, now: float, event: ev.FileEvent) -> None:
        match event:
            case ev.Begun():
                life.began_at = now if life.began_at is None else life.began_at
                self._answered(life, "Troubled", "Refetching")
            case ev.OriginProbed() | ev.ProbeFailed():
                self._answered(life, "ProbeOrigin")
            case ev.NearAnswered():
                self._answered(life, "AskNear")
            case ev.ChunkDigested():
                self._answered(life, "DigestChunk")
            case ev.ContentAccepted() | ev.ContentRejected():
                self._answered(life, "ValidateContent")
            case ev.RangeArrived(request=request, item=item):
                life.open[request].arrivals.append((now, item.stop))
            case ev.RangeReceived(request=request) | ev.RangeFailed(request=request):
                over = life.open.pop(request)
                over.ended_at, over.right = now, isinstance(event, ev.RangeReceived)
            case ev.SourceOffered() | ev.SourceLost():
                life.heard.append((now, event))
            case _:
                pass

    @staticmethod
    def _answered(life: _Life, *names: str) -> None:
        for name in names:
            if name in life.owed:
                life.owed.remove(name)

    def _commanded(self, agent: int, life: _Life, now: float, command: cmd.Command, asks: bool) -> None:
        match command:
            case cmd.FetchRange(request=request, source=source, item=item):
                for other in life.open.values():
                    both = range(max(item.start, other.cursor), min(item.stop, other.item.stop))
                    assert not both, f"{now:.3f}: agent {agent} asks {source} for {item}, as it does {other}"
                made = life.open[request] = Request(agent=agent, source=source, item=item, at=now)
                self.requests.append(made)
            case cmd.AbortFetch(request=request):
                life.open[request].aborted_at, life.open[request].alone = now, not asks
            case cmd.Finished():
                life.ended_at = now
            case (
                cmd.ProbeOrigin()
                | cmd.AskNear()
                | cmd.DigestChunk()
                | cmd.ValidateContent()
                | cmd.Troubled()
                | cmd.Refetching()
            ):
                life.owed.append(type(command).__name__)
            case _:
                pass

    def _check_waiting(self, agent: int, life: _Life, transfer: FileTransfer, now: float) -> None:
        """It is over, somebody owes it an answer, or it wants to be woken up soon."""
        if life.began_at is None or life.ended_at is not None or life.open or life.owed:
            return
        due = transfer.deadline()
        where = f"{now:.3f}: agent {agent} in {transfer.phase}"
        assert due is not None, f"{where} waits for nothing"
        assert due <= now + self._patience_s, f"{where} wants to be woken up in {due - now:.1f} s"

    # --- what was, when --------------------------------------------------------------------------------------

    def has(self, agent: int, at: float) -> Bitfield:
        """What it had proven then."""
        life = self.lives.get(agent)
        if life is None:
            return NO_CHUNKS
        place = bisect_right(life.proven, at, key=lambda each: each[0])
        return life.proven[place - 1][1] if place else NO_CHUNKS

    def fed(self, agent: int, piece_s: float, source: SourceId | None = None) -> list[tuple[float, float]]:
        """When bytes came to it (from this source): merged, in order. They are told of every `piece_s`."""
        spans = []
        for request in self.requests:
            if request.agent == agent and source in (None, request.source):
                before = request.at
                for at, _ in request.arrivals:
                    spans.append((max(before, at - piece_s), at))
                    before = at
        return merged(spans)

    def quietest_s(self) -> float:
        """The longest that a request neither moved nor ended."""
        longest = 0.0
        for request in self.requests:
            if request.ended_at is not None:
                times = [request.at, *(at for at, _ in request.arrivals), request.ended_at]
                longest = max(longest, *(later - sooner for sooner, later in itertools.pairwise(times)))
        return longest


def merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time, without overlaps."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found
