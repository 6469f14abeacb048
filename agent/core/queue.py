"""Which queued jobs get a slot, and which running ones lose theirs. Decides; the manager moves the jobs.

FOREGROUND jobs run at once and need no slot. Of the background jobs only the highest priority that has any queued
or running job gets slots (BITS 1.3: a lower level gets nothing before the higher ones are through); a job that
waits in TRANSIENT_ERROR, rests, or waits for its application counts as through. Within one priority: oldest first,
and after `slice_s` seconds a job makes room for one that waits (round-robin; BITS does not publish its length).
At most `per_host` background jobs fetch from one host at once, so that one slow host cannot hold every slot.
Every call costs the number of slots and the logarithm of the number of hosts, however many jobs wait.
Never knows: files, bytes, wall-clock time.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NewType

JobId = NewType("JobId", str)
"""32 lower-case hexadecimal digits, random."""


class Rank(IntEnum):
    """BITS' priorities; lower runs first."""

    FOREGROUND = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


BACKGROUND = (Rank.HIGH, Rank.NORMAL, Rank.LOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much runs at once. BITS: one background job, one connection (bits-reference 1.3, 8)."""

    background_jobs: int = 4
    per_host: int = 4
    slice_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the queue must know of one job that wants a slot or has one."""

    job: JobId
    rank: Rank
    host: str


@dataclass(slots=True)
class _Engaged:
    wish: Wish
    since: float
    fixed: bool
    """It cannot be interrupted now (it is being validated)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the manager has to do now: revoke first, then grant."""

    revoked: tuple[JobId, ...]
    granted: tuple[JobId, ...]


@dataclass(slots=True)
class _Line:
    """The queued jobs of one priority, oldest first within each host."""

    hosts: dict[str, OrderedDict[JobId, int]] = field(default_factory=dict)
    _heads: list[tuple[int, str]] = field(default_factory=list)
    """A heap of the oldest of each host; those that are not the oldest any more are dropped when they come up."""

    def add(self, job: JobId, host: str, order: int) -> None:
        """The last of its host."""
        jobs = self.hosts.setdefault(host, OrderedDict())
        jobs[job] = order
        if len(jobs) == 1:
            heapq.heappush(self._heads, (order, host))

    def remove(self, job: JobId, host: str) -> None:
        """It waits no more."""
        jobs = self.hosts[host]
        order = jobs.pop(job)
        if not jobs:
            del self.hosts[host]
        elif (head := next(iter(jobs.values()))) > order:
            heapq.heappush(self._heads, (head, host))
        if len(self._heads) > 64 + 4 * len(self.hosts):
            self._heads = [(next(iter(jobs.values())), host) for host, jobs in self.hosts.items()]
            heapq.heapify(self._heads)

    def oldest(self, count: int, room: dict[str, int], each_host: int) -> list[JobId]:
        """So many of the oldest whose hosts have room; they stay in line. `room` says how many a host has left,
        `each_host` what one has that it does not name."""
        found: list[JobId] = []
        seen: list[tuple[int, str]] = []
        begun: list[tuple[int, JobId, str, Iterator[tuple[JobId, int]]]] = []
        while len(found) < count:
            self._drop_stale()
            if self._heads and (not begun or self._heads[0] < begun[0][:1]):
                seen.append(heapq.heappop(self._heads))
                host = seen[-1][1]
                rest = iter(self.hosts[host].items())
                job, _ = next(rest)
            elif begun:
                _, job, host, rest = heapq.heappop(begun)
            else:
                break
            left = room.get(host, each_host)
            if left > 0:
                found.append(job)
                room[host] = left - 1
                following = next(rest, None)
                if following is not None:
                    heapq.heappush(begun, (following[1], following[0], host, rest))
        for head in seen:
            heapq.heappush(self._heads, head)
        return found

    def _drop_stale(self) -> None:
        while self._heads:
            order, host = self._heads[0]
            jobs = self.hosts.get(host)
            if jobs is not None and next(iter(jobs.values())) == order:
                return
            heapq.heappop(self._heads)


class Queue:
    """All jobs that want a slot or hold one."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._queued: dict[JobId, Wish] = {}
        self._lines = {rank: _Line() for rank in Rank}
        self._foreground: dict[JobId, float] = {}
        """Since when each runs."""
        self._background: dict[JobId, _Engaged] = {}
        self._orders = 0

    def wait(self, wish: Wish) -> None:
        """The job is queued, behind its equals. One that is queued already keeps its place unless its rank or host
        changed."""
        if self._queued.get(wish.job) == wish:
            return
        self.leave(wish.job)
        self._orders += 1
        self._queued[wish.job] = wish
        self._lines[wish.rank].add(wish.job, wish.host, self._orders)

    def engage(self, wish: Wish, now: float, *, fixed: bool) -> None:
        """The job holds its slot. `fixed`: it must not be interrupted now."""
        engaged = self._background.get(wish.job)
        if engaged is not None and wish.rank is not Rank.FOREGROUND:
            engaged.wish, engaged.fixed = wish, fixed
            return
        since = now if engaged is None else engaged.since
        since = self._foreground.get(wish.job, since)
        self.leave(wish.job)
        if wish.rank is Rank.FOREGROUND:
            self._foreground[wish.job] = since
        else:
            self._background[wish.job] = _Engaged(wish, since, fixed)

    def leave(self, job: JobId) -> None:
        """The job neither wants a slot nor has one."""
        self._foreground.pop(job, None)
        self._background.pop(job, None)
        wish = self._queued.pop(job, None)
        if wish is not None:
            self._lines[wish.rank].remove(job, wish.host)

    def holds(self, job: JobId) -> bool:
        """The job has a slot."""
        return job in self._foreground or job in self._background

    def decide(self, now: float) -> Changes:
        """Who loses a slot and who gets one now. Changes nothing: the manager then says what it has done."""
        everyone = len(self._queued)
        foreground = self._lines[Rank.FOREGROUND].oldest(everyone, {}, everyone)
        level = self._level()
        if level is None:
            return Changes(revoked=(), granted=tuple(foreground))
        revoked = [
            job for job, engaged in self._background.items() if engaged.wish.rank > level and not engaged.fixed
        ]
        revoked += self._excess(set(revoked))
        granted = self._fill(level, set(revoked))
        if not granted and not revoked:
            revoked = self._expired(level, now)
        return Changes(revoked=tuple(revoked), granted=(*foreground, *granted))

    def deadline(self) -> float | None:
        """When a slice ends that somebody waits for."""
        level = self._level()
        if level is None or not self._lines[level].hosts:
            return None
        return min((each.since + self.limits.slice_s for each in self._replaceable(level)), default=None)

    # --- inside ----------------------------------------------------------------------------------------------

    def _level(self) -> Rank | None:
        """The highest background priority that wants something."""
        ranks = {engaged.wish.rank for engaged in self._background.values()}
        return next((rank for rank in BACKGROUND if rank in ranks or self._lines[rank].hosts), None)

    def _room(self, without: set[JobId]) -> dict[str, int]:
        """How many more background jobs may fetch from each host that is in use."""
        room: dict[str, int] = {}
        for job, engaged in self._background.items():
            if job not in without:
                room[engaged.wish.host] = room.get(engaged.wish.host, self.limits.per_host) - 1
        return room

    def _excess(self, revoked: set[JobId]) -> list[JobId]:
        """Who runs beyond the limits: its priority or its host is another one than when it got its slot. The last
        ones who came."""
        held = [engaged for job, engaged in self._background.items() if job not in revoked]
        held.sort(key=lambda engaged: (not engaged.fixed, engaged.since))
        free, room, excess = self.limits.background_jobs, dict[str, int](), list[JobId]()
        for engaged in held:
            host = engaged.wish.host
            left = room.get(host, self.limits.per_host)
            if (free > 0 and left > 0) or engaged.fixed:
                free -= 1
                room[host] = left - 1
            else:
                excess.append(engaged.wish.job)
        return excess

    def _fill(self, level: Rank, revoked: set[JobId]) -> list[JobId]:
        free = self.limits.background_jobs - (len(self._background) - len(revoked))
        return self._lines[level].oldest(free, self._room(revoked), self.limits.per_host)

    def _expired(self, level: Rank, now: float) -> list[JobId]:
        """The one whose slice ended longest ago, when somebody could take its place."""
        over = [each for each in self._replaceable(level) if now >= each.since + self.limits.slice_s]
        return [min(over, key=lambda each: each.since).wish.job] if over else []

    def _replaceable(self, level: Rank) -> list[_Engaged]:
        """Those in whose place a queued job of the same priority could run."""
        if len(self._background) > self.limits.background_jobs:
            return []
        room, hosts = self._room(set()), self._lines[level].hosts
        any_host = any(room.get(host, self.limits.per_host) > 0 for host in hosts)
        return [
            engaged
            for engaged in self._background.values()
            if engaged.wish.rank is level
            and not engaged.fixed
            and (any_host or (engaged.wish.host in hosts and room[engaged.wish.host] >= 0))
        ]
