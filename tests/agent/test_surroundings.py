"""The network and the hours of the week reach the engine and the throttles, when they change."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent import surroundings
from agent.config import Config
from agent.core.obstacles import Surroundings
from agent.core.queue import Rank
from agent.surroundings import SurroundingsWatch
from agent.throttle import Throttles
from tests.support.netns import alone, ip, plug_in

WAIT_S = 5.0
SETTINGS = {
    "bandwidth_limit": "high=off,normal=1MB,low=0",
    "work_hours": "mon-fri 08:00-17:00",
    "work_limit": "high=off,normal=0,low=0",
    "maintenance_hours": "wed 12:00-13:00",
    "maintenance_limit": "0",
}
ALL = frozenset({Rank.HIGH, Rank.NORMAL, Rank.LOW})
WORKING = frozenset({Rank.NORMAL, Rank.LOW})
RESTING = frozenset({Rank.LOW})


def moment(weekday: int, clock: str) -> time.struct_time:
    """Of the week that began on Monday, 5 January 2026."""
    hours, minutes, seconds = map(int, clock.split(":"))
    return time.struct_time((2026, 1, 5 + weekday, hours, minutes, seconds, weekday, 5 + weekday, 0))


@dataclass
class Place:
    """A watch, the clock on its wall, and everything it has told."""

    clock: time.struct_time
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    told: list[tuple[bool, frozenset[Rank]]] = field(default_factory=list)
    network_changes: int = 0
    arrivals: int = 0
    throttles: Throttles = field(default_factory=Throttles)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def make(self) -> SurroundingsWatch:
        config = Config.load(Path("/nowhere"), self.settings, {})
        return SurroundingsWatch(
            config, self.throttles, self.tell, self.network_changed, local_time=lambda: self.clock
        )

    def tell(self, surroundings: Surroundings) -> None:
        self.told.append((surroundings.connected, surroundings.forbidden))
        self.arrivals = surroundings.arrivals
        self.news.set()

    def network_changed(self) -> None:
        self.network_changes += 1

    async def until(self, *, connected: bool, blocked: frozenset[Rank]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not self.told or self.told[-1] != (connected, blocked):
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def running(watch: SurroundingsWatch) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run())
        yield
        task.cancel()


@pytest.mark.parametrize(
    ("weekday", "clock", "blocked"),
    [
        (0, "07:59:59", RESTING),
        (0, "08:00:00", WORKING),
        (4, "16:59:59", WORKING),
        (4, "17:00:00", RESTING),
        (5, "10:00:00", RESTING),
        (2, "12:30:00", ALL),
        (2, "13:00:00", WORKING),
    ],
)
async def test_what_is_blocked_at_an_hour(weekday: int, clock: str, blocked: frozenset[Rank]) -> None:
    place = Place(moment(weekday, clock))
    watch = place.make()
    watch.look()
    assert place.told == [(watch.connected, blocked)]


async def test_without_limits_nothing_is_blocked_and_nothing_held_back() -> None:
    place = Place(moment(0, "10:00:00"), settings={})
    place.make().look()
    assert place.told[-1][1] == frozenset()
    for rank in Rank:
        limiter = place.throttles.for_job(rank, None)
        if limiter is not None:
            async with asyncio.timeout(1):
                await limiter.take(10**9)


async def test_the_throttles_follow_the_hours() -> None:
    place = Place(moment(0, "07:00:00"))
    watch = place.make()
    watch.look()
    limiter = place.throttles.for_job(Rank.NORMAL, None)
    assert limiter is not None
    place.clock = moment(0, "09:00:00")
    watch.look()  # 0 for NORMAL
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await limiter.take(1_000_000)
    place.clock = moment(0, "18:00:00")
    watch.look()  # a megabyte a second
    began = time.monotonic()
    await limiter.take(500_000)
    assert 0.2 < time.monotonic() - began < 2


async def test_it_looks_when_the_next_hours_begin() -> None:
    place = Place(moment(0, "07:59:59"))
    watch = place.make()
    async with running(watch):
        await place.until(connected=watch.connected, blocked=RESTING)
        place.clock = moment(0, "08:00:00")
        began = time.monotonic()
        await place.until(connected=watch.connected, blocked=WORKING)
        assert time.monotonic() - began < 2


async def test_a_changed_clock_is_noticed_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LOOK_S", 0.05)
    place = Place(moment(6, "01:00:00"))
    watch = place.make()
    async with running(watch):
        await place.until(connected=watch.connected, blocked=RESTING)
        place.clock = moment(2, "12:00:00")
        await place.until(connected=watch.connected, blocked=ALL)
        place.clock = moment(1, "03:00:00")
        await place.until(connected=watch.connected, blocked=RESTING)


def test_the_network_comes_and_goes() -> None:
    """An agent that starts before the network is there says so from the beginning."""

    async def test() -> None:
        place = Place(moment(6, "01:00:00"))
        watch = place.make()
        assert not watch.connected
        watch.look()
        assert place.told == [(False, RESTING)]
        async with running(watch):
            plug_in("test0", "192.0.2.1/24")
            await place.until(connected=True, blocked=RESTING)
            assert place.network_changes == 1
            ip("addr add 192.0.2.2/24 dev test0")  # nothing for the jobs, something for the peers
            async with asyncio.timeout(WAIT_S):
                while place.network_changes < 2:
                    await asyncio.sleep(0.01)
            ip("link del test0")
            await place.until(connected=False, blocked=RESTING)
        assert place.network_changes == 3

    alone(test)


def test_a_network_that_was_there_is_there_from_the_beginning() -> None:
    async def test() -> None:
        plug_in("test0", "192.0.2.1/24")
        assert Place(moment(0, "01:00:00")).make().connected

    alone(test)
