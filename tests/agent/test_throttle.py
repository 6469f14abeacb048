"""Buckets: accurate over a real socket, fair, quick to notice another rate, and unharmed by cancelling.

Apart from the accuracy, which is measured in real time, a clock that the test moves says what is due. So nothing
depends on how busy the machine is: who must wait does so while the clock stands, who may go on has seconds for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import pytest

from agent.core.pacing import NO_LIMITS, Allowance
from agent.core.queue import BACKGROUND, Rank
from agent.throttle import BURST_S, SLICE_S, Bucket, Limiter, Throttles

MB = 1_000_000
WAIT_S = 10.0
NOTICE_S = 0.5
NOISE_S = 1.0


@dataclass
class Clock:
    """Seconds that go by when the test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def taking(limited: Bucket | Limiter, *counts: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Some who take, one after the other; who still waits at the end of the block is cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited.take(count)) for count in counts]
        await asyncio.sleep(0)
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()


async def gone(tasks: Iterable[asyncio.Task[None]]) -> None:
    """They have what they wanted."""
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*tasks)


async def held(tasks: Iterable[asyncio.Task[None]]) -> None:
    """None has got anything, though each has looked at the clock again."""
    done, _ = await asyncio.wait(tuple(tasks), timeout=2 * SLICE_S)
    assert not done


async def take_at_once(limited: Bucket | Limiter, count: int) -> None:
    """It is due already."""
    async with taking(limited, count) as tasks:
        await gone(tasks)


async def take_after(limited: Bucket | Limiter, count: int, clock: Clock, seconds: float) -> None:
    """It is due after so many seconds, and a little before it is not."""
    async with taking(limited, count) as tasks:
        clock.now += seconds - 0.001
        await held(tasks)
        clock.now += 0.002
        await gone(tasks)


# --- how fast ------------------------------------------------------------------------------------------------


async def test_two_seconds_over_loopback_at_a_megabyte_a_second() -> None:
    """Within 5 %, by the bytes that came in the time that it really took."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()

    received, bucket = 0, Bucket(MB, time.monotonic)
    server = await asyncio.start_server(send, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        started = time.monotonic()
        while time.monotonic() - started < 2.0:
            data = await reader.read(16_384)
            received += len(data)
            await bucket.take(len(data))
        took_s = time.monotonic() - started
        writer.close()
        await writer.wait_closed()
    assert 0.95 * MB <= received / took_s <= 1.05 * MB


@pytest.mark.parametrize("count", [1, 1_000, 5_000])
async def test_so_many_bytes_take_so_long(count: int) -> None:
    clock = Clock()
    await take_after(Bucket(1_000, clock), count, clock, count / 1_000)


async def test_a_new_bucket_is_empty_and_an_idle_one_saves_a_quarter_of_a_second() -> None:
    clock = Clock()
    bucket = Bucket(1_000, clock)
    await take_after(bucket, 1_000, clock, 1.0)
    clock.now += 3_600
    await take_after(bucket, 1_250, clock, 1.0)


async def test_a_late_event_loop_costs_no_bandwidth() -> None:
    """Whoever waits is owed the whole time, also when the loop was held up for longer than the burst."""
    clock = Clock()
    async with taking(Bucket(1_000, clock), 3_000, 500, 500, 500, 500, 1) as tasks:
        clock.now += 5.0
        await gone(tasks[:-1])
        await held(tasks[-1:])


async def test_without_a_limit_nobody_waits() -> None:
    await take_at_once(Bucket(None, Clock()), 10**12)


# --- another rate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("after", [None, 100 * MB])
async def test_who_waits_notices_a_higher_rate(before: int, after: int | None) -> None:
    bucket = Bucket(before, time.monotonic)
    async with taking(bucket, 1_000) as tasks:
        await held(tasks)
        bucket.set_rate(after)
        changed = time.monotonic()
        await gone(tasks)
        assert time.monotonic() - changed < NOTICE_S + NOISE_S


async def test_a_rate_of_zero_gives_nothing_however_long_it_lasts() -> None:
    clock = Clock()
    bucket = Bucket(0, clock)
    async with taking(bucket, 1) as tasks:
        clock.now += 3_600
        await held(tasks)
        bucket.set_rate(1)
        await held(tasks)
        clock.now += 1
        await gone(tasks)


async def test_a_lower_rate_holds_at_once_and_what_was_earned_before_stays_earned() -> None:
    clock = Clock()
    bucket = Bucket(1_000, clock)
    async with taking(bucket, 2_000) as tasks:
        clock.now += 1.9
        bucket.set_rate(10)
        clock.now += 9.9
        await held(tasks)
        clock.now += 0.2
        await gone(tasks)


@pytest.mark.parametrize("before", [None, 0])
async def test_time_at_another_rate_saves_nothing(before: int | None) -> None:
    clock = Clock()
    bucket = Bucket(before, clock)
    clock.now += 3_600
    bucket.set_rate(1_000)
    await take_after(bucket, 10, clock, 0.01)


async def test_what_an_idle_bucket_saved_is_lost_when_it_is_blocked() -> None:
    clock = Clock()
    bucket = Bucket(1_000, clock)
    clock.now += 3_600
    bucket.set_rate(0)
    async with taking(bucket, 1) as tasks:
        await held(tasks)


# --- fairness and cancelling ---------------------------------------------------------------------------------


async def test_first_come_first_served() -> None:
    """The small ones behind the large one could go sooner, and must not."""
    clock = Clock()
    async with taking(Bucket(1_000, clock), 3_000, 1, 500) as tasks:
        clock.now += 2.9
        await held(tasks)
        clock.now += 0.102
        await gone(tasks[:2])
        await held(tasks[2:])


async def test_two_who_take_turn_about_get_the_same() -> None:
    bucket, got = Bucket(MB, time.monotonic), [0, 0]

    async def keep_taking(number: int) -> None:
        while sum(got) < 200_000:
            await bucket.take(4_000)
            got[number] += 4_000

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(keep_taking(0), keep_taking(1))
    assert abs(got[0] - got[1]) <= 4_000


async def test_who_is_cancelled_has_taken_nothing_and_holds_nobody_up() -> None:
    clock = Clock()
    async with taking(Bucket(1_000, clock), 10_000, 10_000, 2_000) as (first, second, third):
        clock.now += 1.9
        second.cancel()
        first.cancel()
        await held((third,))
        clock.now += 0.2
        await gone((third,))
    assert first.cancelled()
    assert second.cancelled()


async def test_cancelling_leaves_no_more_than_the_burst() -> None:
    clock = Clock()
    bucket = Bucket(1_000, clock)
    async with taking(bucket, 10_000) as tasks:
        clock.now += 5.0
        await held(tasks)
    await take_after(bucket, 1_000 + int(1_000 * BURST_S), clock, 1.0)


# --- many jobs -----------------------------------------------------------------------------------------------


def limiters(throttles: Throttles, *jobs: tuple[Rank, int | None]) -> list[Limiter]:
    found = [throttles.for_job(rank, own) for rank, own in jobs]
    return [limiter for limiter in found if limiter is not None]


async def test_foreground_is_held_back_by_its_own_limit_alone() -> None:
    clock = Clock()
    throttles = Throttles(clock=clock)
    throttles.apply(Allowance(high=0, normal=0, low=0))
    assert throttles.for_job(Rank.FOREGROUND, None) is None
    (own,) = limiters(throttles, (Rank.FOREGROUND, 1_000))
    await take_after(own, 2_000, clock, 2.0)


async def test_priorities_that_never_have_a_limit_are_read_without_asking() -> None:
    throttles = Throttles(limited=[Rank.LOW])
    assert throttles.for_job(Rank.HIGH, None) is None
    assert throttles.for_job(Rank.LOW, None) is not None


async def test_jobs_of_one_priority_share_its_limit() -> None:
    clock = Clock()
    throttles = Throttles(clock=clock)
    throttles.apply(Allowance(normal=1_000))
    one, other = limiters(throttles, (Rank.NORMAL, None), (Rank.NORMAL, None))
    async with taking(one, 1_000):
        await take_after(other, 1_000, clock, 2.0)


async def test_each_priority_has_its_own_limit() -> None:
    clock = Clock()
    throttles = Throttles(clock=clock)
    throttles.apply(Allowance(high=None, normal=0, low=1_000))
    high, normal, low = limiters(throttles, *((rank, None) for rank in BACKGROUND))
    async with taking(normal, 1) as tasks:
        await take_at_once(high, MB)
        await take_after(low, 1_000, clock, 1.0)
        await held(tasks)


@pytest.mark.parametrize(("shared", "own"), [(1_000, MB), (MB, 1_000), (None, 1_000), (1_000, None)])
async def test_the_lower_of_the_two_limits_holds(shared: int | None, own: int | None) -> None:
    throttles = Throttles()
    throttles.apply(Allowance(low=shared))
    (job,) = limiters(throttles, (Rank.LOW, own))
    started = time.monotonic()
    await take_at_once(job, 300)
    assert time.monotonic() - started >= 0.3


async def test_a_job_that_is_slow_by_itself_holds_up_no_other() -> None:
    clock = Clock()
    throttles = Throttles(clock=clock)
    throttles.apply(Allowance(low=MB))
    slow, other = limiters(throttles, (Rank.LOW, 1), (Rank.LOW, None))
    async with taking(slow, 1_000) as tasks:
        clock.now += 1.0
        await take_at_once(other, MB // 10)
        await held(tasks)


async def test_limits_come_and_go_while_a_job_runs() -> None:
    throttles = Throttles()
    (job,) = limiters(throttles, (Rank.NORMAL, None))
    await take_at_once(job, 10**9)
    throttles.apply(Allowance(normal=0))
    async with taking(job, 1) as tasks:
        await held(tasks)
        throttles.apply(NO_LIMITS)
        await gone(tasks)
