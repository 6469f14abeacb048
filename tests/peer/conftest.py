"""What tests of the peer cache and of networks have in common."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from peer.cache import CacheLimits, PeerCache
from peer.workers import Workers
from tests.support.contents import CHUNK, Clock, Content, MakeContent, Reopen
from tests.support.networks import Lan


@pytest.fixture
def content(tmp_path: Path) -> Iterator[MakeContent]:
    made: list[Content] = []

    def make(name: str, length: int = 10 * CHUNK - 100) -> Content:
        made.append(Content(tmp_path, name, length))
        return made[-1]

    yield make
    for item in made:
        os.close(item.fd)


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers()
    yield pool
    pool.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def reopen(tmp_path: Path, workers: Workers, clock: Clock) -> AsyncIterator[Reopen]:
    """A function that closes the cache it gave last and opens it again."""
    opened: list[PeerCache] = []

    async def again(limits: CacheLimits | None = None) -> PeerCache:
        if opened:
            await opened[-1].close()
        opened.append(await PeerCache.open(tmp_path / "cache", limits or CacheLimits(), workers, clock))
        return opened[-1]

    yield again
    if opened:
        await opened[-1].close()


@pytest.fixture
async def lan(tmp_path: Path) -> AsyncIterator[Lan]:
    async with Lan(tmp_path) as opened:
        yield opened
