"""Administration of the peer cache: what people may ask of it (bits-reference 4.1 and 4.2, row by row)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from peer import durable
from peer.cache import CacheLimits, Deletion, NotCached, PeerCache
from tests.support.contents import ALICE, BOB, CHUNK, Clock, Content, MakeContent, Reopen, cid
from validation.content import ChunkIndex, bitfield
from validation.ranges import ByteRange

DAY_S = 86400.0


async def fill(cache: PeerCache, *films: Content) -> None:
    for film in films:
        for chunk in range(film.layout.count):
            await cache.add_chunk(film.chunk(chunk))


def kept(cache: PeerCache) -> list[str]:
    return [record.content_id for record in cache.records()]


def objects(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache" / "objects").iterdir()))


@pytest.fixture
def slow_copy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Copies stop in the middle: (begun, go on)."""
    begun, go, copy = threading.Event(), threading.Event(), durable.clone_or_copy

    def stop_and_copy(*arguments: int) -> None:
        begun.set()
        assert go.wait(10)
        copy(*arguments)

    monkeypatch.setattr(durable, "clone_or_copy", stop_and_copy)
    yield begun, go
    go.set()


@contextlib.asynccontextmanager
async def in_the_middle(
    work: object, slow_copy: tuple[threading.Event, threading.Event]
) -> AsyncIterator[asyncio.Task[None]]:
    """Work that copies, while it copies; it goes on at the end of the block and ends before the block is left."""
    begun, go = slow_copy
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)  # type: ignore[arg-type]
        assert await asyncio.to_thread(begun.wait, 10)
        yield task
        go.set()


# EnumRecords, GetRecord


async def test_a_record_is_shown_in_full_by_any_of_its_ids(
    reopen: Reopen, content: MakeContent, clock: Clock
) -> None:
    cache, film = await reopen(), content("film")
    film.ids = (film.ids[0], cid("mirror"))
    for chunk in (0, 1, 3, 9):
        await cache.add_chunk(film.chunk(chunk))
    clock.now += 50
    cache.read(film.ids[0], ByteRange(0, 1))
    record = cache.record(cid("mirror"))
    assert record is not None
    assert record == cache.record(film.ids[0]) == cache.records()[0]
    assert (record.content_id, record.aliases) == (film.ids[0], (cid("mirror"),))
    assert record.ranges_held == (
        (0, 2 * CHUNK),
        (3 * CHUNK, 4 * CHUNK),
        (9 * CHUNK, 10 * CHUNK - 100),
    )
    assert sum(stop - start for start, stop in record.ranges_held) == record.bytes_held
    assert (record.created_at, record.last_access_at) == (1000.0, 1050.0)


async def test_a_record_that_is_not_there(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    assert cache.record(film.ids[0]) is None
    await cache.add_chunk(film.chunk(0))
    await cache.withdraw_chunks(film.ids[0], bitfield([0]))
    assert cache.record(film.ids[0]) is None
    assert await cache.delete(film.ids[0]) is Deletion.UNKNOWN
    assert await cache.clear() == 0


# DeleteRecord


async def test_one_record_is_deleted_for_good(reopen: Reopen, content: MakeContent, tmp_path: Path) -> None:
    cache, film, other = await reopen(), content("film"), content("other")
    film.ids = (film.ids[0], cid("mirror"))
    await fill(cache, film, other)
    assert await cache.delete(cid("mirror")) is Deletion.DELETED
    assert await cache.delete(film.ids[0]) is Deletion.UNKNOWN
    assert kept(cache) == [other.ids[0]]
    assert objects(tmp_path) == 1
    assert kept(await reopen()) == [other.ids[0]]


async def test_a_record_in_use_is_busy(reopen: Reopen, content: MakeContent) -> None:
    """Twice served at once: it is busy until both are over."""
    cache, film = await reopen(), content("film")
    await fill(cache, film)
    first, second = cache.hold(film.ids[0]), cache.hold(film.ids[0])
    for let_go in (first, second):
        assert await cache.delete(film.ids[0]) is Deletion.BUSY
        assert cache.find(film.ids[0]) is not None
        assert not let_go()
    assert await cache.delete(film.ids[0]) is Deletion.DELETED


async def test_a_record_that_is_added_to_is_busy(
    reopen: Reopen, content: MakeContent, slow_copy: tuple[threading.Event, threading.Event]
) -> None:
    cache, film = await reopen(), content("film")
    async with in_the_middle(cache.add_chunk(film.chunk(0)), slow_copy):
        assert await cache.delete(film.ids[0]) is Deletion.BUSY
    assert await cache.delete(film.ids[0]) is Deletion.DELETED


async def test_a_record_that_a_job_reads_is_busy(
    reopen: Reopen, content: MakeContent, tmp_path: Path, slow_copy: tuple[threading.Event, threading.Event]
) -> None:
    cache, film = await reopen(), content("film")
    slow_copy[1].set()
    await fill(cache, film)
    for event in slow_copy:
        event.clear()
    with (tmp_path / "part").open("w+b") as part:
        copying = cache.copy_out(film.ids[0], ByteRange(0, CHUNK), part.fileno())
        async with in_the_middle(copying, slow_copy):
            assert await cache.delete(film.ids[0]) is Deletion.BUSY
        assert os.pread(part.fileno(), CHUNK, 0) == film.bytes_of(0)
    assert await cache.delete(film.ids[0]) is Deletion.DELETED


# ClearRecords


async def test_clearing_leaves_what_is_in_use_to_its_users_only(
    reopen: Reopen, content: MakeContent, tmp_path: Path
) -> None:
    cache, film, other = await reopen(), content("film"), content("other")
    await fill(cache, film, other)
    let_go = cache.hold(film.ids[0])
    assert await cache.clear() == 2
    assert (cache.find(film.ids[0]), cache.record(film.ids[0]), cache.records()) == (None, None, [])
    assert await cache.delete(film.ids[0]) is Deletion.UNKNOWN
    assert await cache.clear() == 0
    with pytest.raises(NotCached):
        cache.read(other.ids[0], ByteRange(0, 1))
    assert cache.read(film.ids[0], ByteRange(0, CHUNK)) == film.bytes_of(0)  # its user reads on
    await cache.add_chunk(film.chunk(0))  # nothing is added to what is going
    assert cache.find(film.ids[0]) is None
    assert objects(tmp_path) == 1
    assert let_go()
    assert await cache.sweep() == 1
    assert objects(tmp_path) == 0
    await cache.add_chunk(film.chunk(2))
    assert [record.ranges_held for record in cache.records()] == [((2 * CHUNK, 3 * CHUNK),)]


async def test_what_was_cleared_in_use_does_not_come_back_by_a_restart(
    reopen: Reopen, content: MakeContent, tmp_path: Path
) -> None:
    cache, film = await reopen(), content("film")
    await fill(cache, film)
    cache.hold(film.ids[0])  # nobody ever lets go: as if we were killed
    await cache.clear()
    assert (await reopen()).records() == []
    assert objects(tmp_path) == 0


async def test_nor_does_what_was_added_to_it_meanwhile(
    reopen: Reopen, content: MakeContent, slow_copy: tuple[threading.Event, threading.Event]
) -> None:
    cache, film = await reopen(), content("film")
    slow_copy[1].set()
    await cache.add_chunk(film.chunk(0))
    for event in slow_copy:
        event.clear()
    cache.hold(film.ids[0])
    async with in_the_middle(cache.add_chunk(film.chunk(1)), slow_copy):
        assert await cache.clear() == 1
    assert (await reopen()).records() == []


async def test_a_withdrawn_content_is_gone_whoever_uses_it(
    reopen: Reopen, content: MakeContent, tmp_path: Path
) -> None:
    """It was found to be wrong: that is no administration."""
    cache, film = await reopen(), content("film")
    await fill(cache, film)
    let_go = cache.hold(film.ids[0])
    assert await cache.withdraw(film.ids[0])
    with pytest.raises(NotCached):
        cache.read(film.ids[0], ByteRange(0, 1))
    await fill(cache, film)
    assert not let_go()  # says nothing about the new record
    assert await cache.delete(film.ids[0]) is Deletion.DELETED
    assert objects(tmp_path) == 0


async def test_clearing_does_not_touch_the_files_of_jobs(
    reopen: Reopen, content: MakeContent, tmp_path: Path
) -> None:
    cache, film = await reopen(), content("film")
    await fill(cache, film)
    await cache.clear()
    assert (tmp_path / "film").read_bytes() == film.data


# Get/SetMaximumCacheSize


async def test_shrinking_evicts_now_the_least_recently_used_first(
    reopen: Reopen, content: MakeContent, clock: Clock, tmp_path: Path
) -> None:
    cache = await reopen(CacheLimits(max_bytes=1 << 20))
    films = [content(f"film{number}", 4 * CHUNK) for number in range(3)]
    for film in films:
        clock.now += 10
        await fill(cache, film)
    clock.now += 10
    cache.read(films[0].ids[0], ByteRange(0, 1))
    smaller = CacheLimits(max_bytes=9 * CHUNK)
    await cache.set_limits(smaller)
    assert (cache.limits, cache.limit_bytes) == (smaller, 9 * CHUNK)
    assert kept(cache) == [films[0].ids[0], films[2].ids[0]]
    assert objects(tmp_path) == 2
    await cache.set_limits(CacheLimits(max_bytes=0))
    assert (kept(cache), objects(tmp_path)) == ([], 0)


async def test_shrinking_evicts_what_is_in_use_when_it_is_no_more(
    reopen: Reopen, content: MakeContent, clock: Clock, tmp_path: Path
) -> None:
    cache = await reopen(CacheLimits(max_bytes=1 << 20))
    films = [content(f"film{number}", 4 * CHUNK) for number in range(3)]
    for film in films:
        clock.now += 10
        await fill(cache, film)
    used, also_used = cache.hold(films[0].ids[0]), cache.hold(films[1].ids[0])
    await cache.set_limits(CacheLimits(max_bytes=4 * CHUNK))
    assert kept(cache) == [films[0].ids[0], films[1].ids[0]]  # the idle one went, though that was not enough
    assert cache.read(films[0].ids[0], ByteRange(0, CHUNK)) == films[0].bytes_of(0)
    assert used()
    assert await cache.sweep() == 1
    assert kept(cache) == [films[1].ids[0]]
    assert not also_used()  # it fits now
    assert objects(tmp_path) == 1


async def test_growing_lets_more_in(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(CacheLimits(max_bytes=4 * CHUNK)), content("film", 5 * CHUNK)
    await fill(cache, film)
    assert kept(cache) == []
    await cache.set_limits(CacheLimits(max_bytes=5 * CHUNK))
    await fill(cache, film)
    assert kept(cache) == [film.ids[0]]


async def test_a_share_of_the_disk(reopen: Reopen, tmp_path: Path) -> None:
    cache = await reopen()
    await cache.set_limits(CacheLimits(max_share=0.02))
    volume = os.statvfs(tmp_path)
    assert cache.limit_bytes == int(volume.f_blocks * volume.f_frsize * 0.02)
    await cache.set_limits(CacheLimits(max_bytes=5, max_share=0.02))
    assert cache.limit_bytes == 5


# Get/SetMaximumContentAge


async def test_age_counts_from_the_last_access_and_a_lower_limit_holds_at_once(
    reopen: Reopen, content: MakeContent, clock: Clock
) -> None:
    cache, old, used = await reopen(), content("old"), content("used")
    assert cache.limits.max_age_s == 90 * DAY_S
    await fill(cache, old, used)
    clock.now += 2 * DAY_S
    cache.read(used.ids[0], ByteRange(0, 1))
    await cache.set_limits(CacheLimits(max_age_s=DAY_S))
    assert kept(cache) == [used.ids[0]]
    clock.now += DAY_S + 1
    assert await cache.tidy() == 1
    assert kept(cache) == []


async def test_what_is_in_use_does_not_expire(reopen: Reopen, content: MakeContent, clock: Clock) -> None:
    cache, film = await reopen(CacheLimits(max_age_s=DAY_S)), content("film")
    await fill(cache, film)
    let_go = cache.hold(film.ids[0])
    clock.now += 2 * DAY_S
    assert await cache.tidy() == 0
    let_go()
    assert await cache.tidy() == 1


# 4.2: a file larger than the whole cache


async def test_a_content_larger_than_the_cache_is_not_cached_nor_kept(reopen: Reopen, content: MakeContent) -> None:
    cache = await reopen(CacheLimits(max_bytes=8 * CHUNK))
    small, large = content("small", 2 * CHUNK), content("large", 9 * CHUNK)
    await fill(cache, small)
    await cache.add_chunk(large.chunk(0))
    assert kept(cache) == [small.ids[0]]
    await cache.set_limits(CacheLimits(max_bytes=9 * CHUNK))
    await cache.add_chunk(large.chunk(0))
    assert kept(cache) == [small.ids[0], large.ids[0]]
    let_go = cache.hold(large.ids[0])
    await cache.set_limits(CacheLimits(max_bytes=8 * CHUNK))
    assert kept(cache) == [small.ids[0]]  # it could never be completed
    assert let_go()
    assert await cache.sweep() == 1


async def test_a_limit_that_shrinks_during_a_copy(
    reopen: Reopen,
    content: MakeContent,
    tmp_path: Path,
    slow_copy: tuple[threading.Event, threading.Event],
) -> None:
    cache, film = await reopen(), content("film")
    async with in_the_middle(cache.add_chunk(film.chunk(0, ALICE, BOB)), slow_copy):
        await cache.set_limits(CacheLimits(max_bytes=CHUNK))
        assert cache.find(film.ids[0]) is None
    assert (cache.records(), objects(tmp_path)) == ([], 0)
    assert cache.vouchers(film.ids[0], ChunkIndex(0)) == ()
