"""One piece of work of a job after another, in order; jobs do not wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.core.queue import JobId
from agent.lanes import Lanes

A, B = JobId("a"), JobId("b")
WAIT_S = 5.0


@dataclass
class Shop:
    """Lanes in a task group, and pieces of work that wait until they are let go."""

    lanes: Lanes
    log: list[str] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def work(self, name: str) -> None:
        self.log.append(f"begin {name}")
        await self.gate(name).wait()
        self.log.append(f"end {name}")

    async def quick(self, name: str) -> None:
        self.log.append(name)

    async def save(self, job: JobId) -> None:
        await self.work(f"save {job}")

    async def until(self, line: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while line not in self.log:
                await asyncio.sleep(0)

    async def settled(self, job: JobId) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.lanes.idle(job, lambda: False)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with asyncio.TaskGroup() as group:

        def spawn(work: Coroutine[Any, Any, None], what: str) -> None:
            made.tasks.append(group.create_task(work, name=what))

        async def guarded(work: Coroutine[Any, Any, None], what: str) -> None:
            try:
                await work
            except ValueError as error:
                made.failures.append(f"{what}: {error}")

        made = Shop(Lanes(spawn, guarded))
        yield made


async def test_one_after_the_other_in_the_order_asked_for(shop: Shop) -> None:
    for name in ("one", "two", "three"):
        shop.lanes.add(A, shop.work(name))
    await shop.until("begin one")
    shop.gate("two").set()
    shop.gate("three").set()
    await asyncio.sleep(0)
    assert shop.log == ["begin one"]
    shop.gate("one").set()
    await shop.settled(A)
    assert shop.log == [f"{step} {name}" for name in ("one", "two", "three") for step in ("begin", "end")]


async def test_jobs_do_not_wait_for_each_other(shop: Shop) -> None:
    shop.lanes.add(A, shop.work("slow"))
    shop.lanes.add(B, shop.quick("other"))
    await shop.settled(B)
    assert shop.log == ["begin slow", "other"]
    shop.gate("slow").set()
    await shop.settled(A)


async def test_a_save_that_waits_already_is_not_asked_for_twice(shop: Shop) -> None:
    shop.lanes.add(A, shop.work("first"))
    await shop.until("begin first")
    for _ in range(5):
        shop.lanes.save(A, shop.save)
    shop.gate("first").set()
    shop.gate("save a").set()
    await shop.settled(A)
    assert shop.log.count("begin save a") == 1


async def test_a_save_under_way_may_lack_what_is_newer_so_another_one_follows(shop: Shop) -> None:
    shop.lanes.save(A, shop.save)
    await shop.until("begin save a")
    shop.lanes.save(A, shop.save)
    shop.lanes.save(A, shop.save)
    shop.gate("save a").set()
    await shop.settled(A)
    assert shop.log.count("begin save a") == 2


async def test_a_save_is_not_moved_before_work_that_was_asked_for_after_it(shop: Shop) -> None:
    shop.lanes.add(A, shop.work("hold"))
    await shop.until("begin hold")
    shop.lanes.save(A, shop.save)
    shop.lanes.add(A, shop.quick("publish"))
    shop.lanes.save(A, shop.save)
    shop.gate("hold").set()
    shop.gate("save a").set()
    await shop.settled(A)
    assert [line for line in shop.log if line.startswith(("begin save", "publish"))] == [
        "begin save a",
        "publish",
        "begin save a",
    ]


async def test_saves_of_two_savers_are_two(shop: Shop) -> None:
    shop.lanes.add(A, shop.work("hold"))
    shop.lanes.save(A, shop.save)
    shop.lanes.save(A, shop.quick)
    shop.gate("hold").set()
    shop.gate("save a").set()
    await shop.settled(A)
    assert shop.log[-2:] == ["end save a", "a"]


async def test_a_failure_does_not_stop_the_lane(shop: Shop) -> None:
    async def fail() -> None:
        raise ValueError("no")

    shop.lanes.add(A, fail())
    shop.lanes.add(A, shop.quick("after"))
    await shop.settled(A)
    assert (shop.failures, shop.log) == (["job a: no"], ["after"])


async def test_work_may_ask_for_more_work(shop: Shop) -> None:
    async def first() -> None:
        shop.lanes.add(A, shop.quick("second"))

    shop.lanes.add(A, first())
    await shop.settled(A)
    assert shop.log == ["second"]
    shop.lanes.add(A, shop.quick("third"))
    await shop.settled(A)
    assert shop.log == ["second", "third"]


async def test_a_job_that_rests_is_idle_at_once(shop: Shop) -> None:
    await shop.settled(A)
    assert shop.tasks == []


async def test_idle_waits_for_what_is_still_to_come(shop: Shop) -> None:
    more = True
    task = asyncio.get_running_loop().create_task(shop.lanes.idle(A, lambda: more))
    await asyncio.sleep(0)
    shop.lanes.add(A, shop.work("late"))
    await shop.until("begin late")
    more = False
    shop.gate("late").set()
    async with asyncio.timeout(WAIT_S):
        await task
    assert shop.log[-1] == "end late"


async def test_idle_does_not_burn_the_processor_while_it_waits(shop: Shop) -> None:
    looks = 0

    def again() -> bool:
        nonlocal looks
        looks += 1
        return looks < 5

    began = asyncio.get_running_loop().time()
    await shop.lanes.idle(A, again)
    assert asyncio.get_running_loop().time() - began >= 0.03
    assert looks == 5


async def test_what_waits_for_a_job_that_is_gone_is_not_done(shop: Shop) -> None:
    async def last() -> None:
        shop.log.append("removed")
        shop.lanes.forget(A)

    shop.lanes.add(A, last())
    shop.lanes.add(A, shop.work("too late"))  # never awaited: closed, or pytest complains
    shop.lanes.save(A, shop.save)
    await shop.settled(A)
    assert shop.log == ["removed"]
    shop.lanes.forget(A)


async def test_cancelling_leaves_nothing_behind(shop: Shop) -> None:
    shop.lanes.add(A, shop.work("under way"))
    shop.lanes.add(A, shop.work("waiting"))
    await shop.until("begin under way")
    waiter = asyncio.get_running_loop().create_task(shop.lanes.idle(A, lambda: False))
    await asyncio.sleep(0)
    shop.tasks[0].cancel()
    async with asyncio.timeout(WAIT_S):
        await waiter
    assert shop.log == ["begin under way"]
    await asyncio.wait(shop.tasks)


async def test_ten_thousand_jobs_rest_without_a_task(shop: Shop) -> None:
    for number in range(10_000):
        shop.lanes.add(JobId(str(number)), shop.quick("x"))
    await asyncio.wait(shop.tasks)
    assert len(shop.log) == 10_000
    assert all(task.done() for task in shop.tasks)
    await shop.settled(JobId("77"))
