"""When what is remembered of peers is written, and what happens when that is interrupted or fails."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peer.core.voucher import PeerId
from peer.identity import GroupKey, Identity
from peer.ledger import Ledger
from peer.memory import LEDGER_NAME, Memory
from peer.workers import Workers

ANN = PeerId("a" * 64)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


@pytest.fixture
async def memory(tmp_path: Path, workers: Workers) -> Memory:
    identity = Identity.load_or_create(tmp_path, GroupKey.create(), time.time())
    return await Memory.open(tmp_path, identity, workers)


def taken(tmp_path: Path) -> int:
    return Ledger.load(tmp_path / LEDGER_NAME, time.time()).traffic(ANN).taken


async def test_given_bytes_are_counted_once(memory: Memory) -> None:
    for total in (10, 10, 25):
        memory.count_given({ANN: total})
    assert memory.ledger.traffic(ANN).given == 25


async def test_a_failure_is_told_and_made_good_later(memory: Memory, tmp_path: Path) -> None:
    memory.ledger.count(ANN, taken=1)
    tmp_path.rename(tmp_path.with_name("away"))
    await memory.save()
    assert memory.problem is not None
    assert "could not be stored" in memory.problem
    tmp_path.with_name("away").rename(tmp_path)
    await memory.save()
    assert memory.problem is None
    assert taken(tmp_path) == 1


async def test_an_interrupted_write_cannot_overtake_a_later_one(memory: Memory, tmp_path: Path) -> None:
    """The first write hangs in its thread while it is cancelled; the second waits for it."""
    entered, go_on = threading.Event(), threading.Event()
    write = memory.ledger.write

    def slow(data: bytes) -> None:
        if not entered.is_set():  # only the first one
            entered.set()
            assert go_on.wait(5.0)
        write(data)

    memory.ledger.write = slow  # type: ignore[method-assign]
    memory.ledger.count(ANN, taken=1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(memory.save())
        assert await asyncio.to_thread(entered.wait, 5.0)
        first.cancel()
        memory.ledger.count(ANN, taken=1)
        second = group.create_task(memory.save())
        await asyncio.sleep(0.2)  # time for a second write that did not wait
        assert not first.done()
        assert not second.done()
        go_on.set()
    assert first.cancelled()
    assert taken(tmp_path) == 2
    assert os.listdir(tmp_path / "certificates") == []
