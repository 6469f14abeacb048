"""The pool of threads, and what cancelling a caller means for a call that has begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from peer.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(threads=1)
    yield pool
    pool.close()


async def test_results_and_errors_come_back(workers: Workers) -> None:
    assert await workers.run(divmod, 7, 2) == (3, 1)
    assert await workers.finish(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        await workers.finish(divmod, 1, 0)
    assert await workers.run(threading.current_thread) is not threading.main_thread()


async def test_a_cancelled_finish_leaves_after_the_call(workers: Workers) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(10)
        ended.set()
        raise OSError("nobody is there to hear this")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(workers.finish(work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(2):  # a second cancellation does not cut it short either
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done()
        go.set()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        assert ended.is_set()


async def test_a_cancelled_finish_drops_a_call_that_has_not_begun(workers: Workers) -> None:
    go, calls = threading.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(workers.finish(go.wait, 10))
        second = group.create_task(workers.finish(calls.append, "second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second], timeout=10)
        assert second.cancelled()
        assert not first.done()
        go.set()
    await workers.run(calls.append, "third")
    assert calls == ["third"]


async def test_closed_twice_and_refusing_work() -> None:
    pool = Workers()
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(divmod, 1, 1)
