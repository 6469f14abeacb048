"""The peer cache: what goes in comes out, damage never does, and what is withdrawn stays withdrawn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peer import cachefiles, durable
from peer.cache import CacheLimits, NewChunk, NotCached, PeerCache
from tests.support.contents import ALICE, BOB, CHUNK, Clock, MakeContent, Reopen, cid
from tests.support.disks import full_disk_command
from validation.content import Bitfield, ChunkIndex, ChunkLayout, bitfield
from validation.digest import chunk_digest
from validation.ranges import ByteRange


async def now_and_after_a_restart(cache: PeerCache, reopen: Reopen) -> AsyncIterator[PeerCache]:
    yield cache
    yield await reopen()


def objects(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "objects").iterdir())


async def test_what_goes_in_comes_out(reopen: Reopen, content: MakeContent, tmp_path: Path) -> None:
    cache, film = await reopen(), content("film")
    assert cache.find(film.ids[0]) is None
    for chunk in (0, 3, 9):
        await cache.add_chunk(film.chunk(chunk, ALICE))
    entry = cache.find(film.ids[0])
    assert entry is not None
    assert (entry.layout, entry.have, entry.content_ids) == (film.layout, bitfield([0, 3, 9]), film.ids)
    assert cache.read(film.ids[0], ByteRange(0, CHUNK)) == film.bytes_of(0)
    assert cache.read(film.ids[0], ByteRange(9 * CHUNK + 5, len(film.data))) == film.bytes_of(9)[5:]
    assert cache.vouchers(film.ids[0], ChunkIndex(3)) == (film.voucher(3, ALICE),)
    assert cache.digest_of(film.ids[0], ChunkIndex(3)) == chunk_digest(film.bytes_of(3))
    assert cache.digest_of(film.ids[0], ChunkIndex(4)) is None
    for item in (ByteRange(0, CHUNK + 1), ByteRange(len(film.data) - 1, len(film.data) + 1)):
        with pytest.raises(NotCached):
            cache.read(film.ids[0], item)
    (record,) = cache.records()
    assert (record.chunks_held, record.bytes_held, record.length) == (3, 3 * CHUNK - 100, len(film.data))
    assert objects(tmp_path)[0].stat().st_mode & 0o777 == 0o600


async def test_a_restart_keeps_everything_but_checks_before_use(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    for chunk in range(4):
        await cache.add_chunk(film.chunk(chunk, ALICE, BOB))
    before = cache.records()
    cache = await reopen()
    assert cache.records() == before
    assert cache.find(film.ids[0]).have == bitfield(range(4))
    assert set(cache.vouchers(film.ids[0], ChunkIndex(1))) == {film.voucher(1, ALICE), film.voucher(1, BOB)}
    with pytest.raises(NotCached):
        cache.read(film.ids[0], ByteRange(0, CHUNK))
    assert await cache.ensure_checked(film.ids[0], ChunkIndex(1), ChunkIndex(99)) == bitfield([1, 2, 3])
    assert cache.read(film.ids[0], ByteRange(CHUNK, 2 * CHUNK)) == film.bytes_of(1)
    with pytest.raises(NotCached):
        cache.read(film.ids[0], ByteRange(0, CHUNK))


@pytest.mark.parametrize("harm", ["bytes", "short", "missing"])
async def test_damaged_chunks_are_dropped_before_their_first_use(
    reopen: Reopen, content: MakeContent, tmp_path: Path, harm: str
) -> None:
    cache, film = await reopen(), content("film")
    for chunk in range(4):
        await cache.add_chunk(film.chunk(chunk, ALICE))
    await cache.close()
    (file,) = objects(tmp_path)
    if harm == "bytes":
        with file.open("r+b") as stream:
            stream.seek(2 * CHUNK + 7)
            stream.write(b"?")
        left = bitfield([0, 1, 3])
    elif harm == "short":
        os.truncate(file, 2 * CHUNK + 7)
        left = bitfield([0, 1])
    else:
        left = Bitfield(0)
    cache = await reopen()
    if harm == "missing":
        file.unlink()  # while we run; at the start it would not even be loaded
    assert await cache.ensure_checked(film.ids[0], ChunkIndex(0), ChunkIndex(9)) == left
    entry = cache.find(film.ids[0])
    assert (entry.have if entry else Bitfield(0)) == left
    assert "damaged" in cache.problems[0]
    cache = await reopen()
    entry = cache.find(film.ids[0])
    assert (entry.have if entry else Bitfield(0)) == left


async def test_a_changed_original_changes_nothing_here(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0))
    os.pwrite(film.fd, b"!" * CHUNK, 0)
    assert cache.read(film.ids[0], ByteRange(0, CHUNK)) == film.bytes_of(0)


async def test_aliases_name_one_record_but_vouchers_name_one_id(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0, ALICE))
    alias = cid("mirror")
    film.ids = (alias, film.ids[0])
    new = film.chunk(1, BOB)
    await cache.add_chunk(new)
    async for either in now_and_after_a_restart(cache, reopen):
        assert either.find(alias) == either.find(film.ids[1])
        assert either.find(alias).content_ids == (film.ids[1], alias)
        assert either.vouchers(alias, ChunkIndex(1)) == new.vouchers
        assert either.vouchers(film.ids[1], ChunkIndex(1)) == ()
        assert [item.aliases for item in either.records()] == [(alias,)]
    assert await either.withdraw(alias)
    assert either.find(film.ids[1]) is None


async def test_vouchers_about_something_else_are_left_out(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    new = film.chunk(0)
    strange = (film.voucher(1, ALICE), film.voucher(0, ALICE, cid("other")))
    await cache.add_chunk(
        NewChunk(
            content_ids=new.content_ids,
            layout=new.layout,
            chunk=new.chunk,
            digest=new.digest,
            vouchers=strange,
            source_fd=new.source_fd,
        )
    )
    assert cache.vouchers(film.ids[0], ChunkIndex(0)) == ()
    assert await cache.withdraw_vouched_by(ALICE) == 0
    assert cache.find(film.ids[0]).have == bitfield([0])
    await cache.add_chunk(film.chunk(0, BOB))
    assert cache.vouchers(film.ids[0], ChunkIndex(0)) == (film.voucher(0, BOB),)


async def test_another_digest_replaces_the_chunk(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0, ALICE))
    film.data = os.urandom(len(film.data))
    os.pwrite(film.fd, film.data, 0)
    await cache.add_chunk(film.chunk(0, BOB))
    async for either in now_and_after_a_restart(cache, reopen):
        await either.ensure_checked(film.ids[0], ChunkIndex(0), ChunkIndex(0))
        assert either.read(film.ids[0], ByteRange(0, CHUNK)) == film.bytes_of(0)
        assert either.vouchers(film.ids[0], ChunkIndex(0)) == (film.voucher(0, BOB),)


async def test_another_layout_is_refused(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0))
    film.layout = ChunkLayout(length=len(film.data), chunk_bytes=2 * CHUNK)
    with pytest.raises(ValueError, match="is cached as"):
        await cache.add_chunk(film.chunk(1))


async def test_copy_out(reopen: Reopen, content: MakeContent, tmp_path: Path) -> None:
    cache, film = await reopen(), content("film")
    for chunk in range(3):
        await cache.add_chunk(film.chunk(chunk))
    cache = await reopen()
    with (tmp_path / "part").open("w+b") as part:
        await cache.copy_out(film.ids[0], ByteRange(CHUNK, 3 * CHUNK), part.fileno())
        assert os.pread(part.fileno(), 4 * CHUNK, 0) == bytes(CHUNK) + film.data[CHUNK : 3 * CHUNK]
        for content_id, item in ((film.ids[0], ByteRange(CHUNK, 4 * CHUNK)), (cid("no"), ByteRange(0, 1))):
            with pytest.raises(NotCached):
                await cache.copy_out(content_id, item, part.fileno())


async def test_least_recently_used_goes_first(
    reopen: Reopen, content: MakeContent, clock: Clock, tmp_path: Path
) -> None:
    cache = await reopen(CacheLimits(max_bytes=20 * CHUNK))
    films = [content(f"film{number}", 8 * CHUNK) for number in range(3)]
    for film in films[:2]:
        clock.now += 10
        for chunk in range(8):
            await cache.add_chunk(film.chunk(chunk))
    clock.now += 10
    cache.read(films[0].ids[0], ByteRange(0, 1))
    cache = await reopen(CacheLimits(max_bytes=20 * CHUNK))  # the last access is remembered
    for chunk in range(8):
        await cache.add_chunk(films[2].chunk(chunk))
    assert [cache.find(film.ids[0]) is not None for film in films] == [True, False, True]
    assert len(objects(tmp_path)) == 2
    cache = await reopen(CacheLimits(max_bytes=8 * CHUNK))
    assert [item.content_id for item in cache.records()] == [films[2].ids[0]]  # a smaller limit holds at once
    big = content("big", 9 * CHUNK)
    await cache.add_chunk(big.chunk(0))
    assert cache.find(big.ids[0]) is None


async def test_the_aged_expire(reopen: Reopen, content: MakeContent, clock: Clock, tmp_path: Path) -> None:
    cache = await reopen(CacheLimits(max_age_s=100))
    old, new = content("old"), content("new")
    await cache.add_chunk(old.chunk(0))
    clock.now += 60
    await cache.add_chunk(new.chunk(0))
    assert await cache.tidy() == 0
    clock.now += 60
    assert await cache.tidy() == 1
    assert cache.find(old.ids[0]) is None
    clock.now += 1000
    cache = await reopen(CacheLimits(max_age_s=100))
    assert cache.records() == []
    assert objects(tmp_path) == []


async def test_withdraw_and_clear(reopen: Reopen, content: MakeContent, tmp_path: Path) -> None:
    cache = await reopen()
    films = [content(f"film{number}") for number in range(3)]
    for film in films:
        await cache.add_chunk(film.chunk(0, ALICE))
        await cache.add_chunk(film.chunk(1, ALICE))
    assert await cache.withdraw(films[0].ids[0])
    assert not await cache.withdraw(films[0].ids[0])
    with pytest.raises(NotCached):
        cache.read(films[0].ids[0], ByteRange(0, 1))
    await cache.withdraw_chunks(films[1].ids[0], bitfield([1, 2]))
    async for either in now_and_after_a_restart(cache, reopen):
        assert either.find(films[0].ids[0]) is None
        assert either.find(films[1].ids[0]).have == bitfield([0])
        assert either.records()[0].bytes_held == CHUNK
        assert either.vouchers(films[1].ids[0], ChunkIndex(1)) == ()
        assert len(objects(tmp_path)) == 2
    await either.add_chunk(films[1].chunk(1, BOB))
    assert either.read(films[1].ids[0], ByteRange(CHUNK, 2 * CHUNK)) == films[1].bytes_of(1)
    assert await either.clear() == 2
    assert objects(tmp_path) == []
    await either.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "index.sqlite")) as index:
        for table in ("contents", "names", "chunks", "vouchers"):
            assert index.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


async def test_a_banned_members_word_goes(reopen: Reopen, content: MakeContent) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0, ALICE))
    await cache.add_chunk(film.chunk(1, ALICE, BOB))
    await cache.add_chunk(film.chunk(2, BOB))
    await cache.add_chunk(film.chunk(3))
    assert await cache.withdraw_vouched_by(ALICE) == 1
    async for either in now_and_after_a_restart(cache, reopen):
        assert either.find(film.ids[0]).have == bitfield([1, 2, 3])
        assert either.vouchers(film.ids[0], ChunkIndex(1)) == (film.voucher(1, BOB),)
    await either.add_chunk(film.chunk(0, ALICE))  # somebody decided to trust it again
    assert either.find(film.ids[0]).have == bitfield(range(4))


@pytest.mark.parametrize("what", ["signer", "chunk", "content", "all"])
async def test_what_is_withdrawn_during_its_copy_does_not_come_back(
    reopen: Reopen, content: MakeContent, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(5, BOB))
    begun, go, copy = threading.Event(), threading.Event(), durable.clone_or_copy

    def slow_copy(*arguments: int) -> None:
        begun.set()
        assert go.wait(10)
        copy(*arguments)

    monkeypatch.setattr(durable, "clone_or_copy", slow_copy)
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.add_chunk(film.chunk(0, ALICE)))
        assert await asyncio.to_thread(begun.wait, 10)
        match what:
            case "signer":
                await cache.withdraw_vouched_by(ALICE)
            case "chunk":
                await cache.withdraw_chunks(film.ids[0], bitfield([0]))
            case "content":
                await cache.withdraw(film.ids[0])
            case _:
                await cache.clear()
        go.set()
    async for either in now_and_after_a_restart(cache, reopen):
        entry = either.find(film.ids[0])
        assert (entry.have if entry else 0) == (bitfield([5]) if what in ("signer", "chunk") else 0)


@pytest.mark.parametrize("way", ["read", "copy_out"])
async def test_what_is_withdrawn_while_it_is_read_is_not_given_out(
    reopen: Reopen, content: MakeContent, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its space may have been given back already: the bytes read may be zeros."""
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0))
    await cache.add_chunk(film.chunk(1))
    begun, go = threading.Event(), threading.Event()
    original = getattr(cachefiles.ObjectFiles, way)

    def slow(*arguments: object) -> object:
        begun.set()
        assert go.wait(10)
        return original(*arguments)

    monkeypatch.setattr(cachefiles.ObjectFiles, way, slow)

    async def withdraw() -> None:
        assert await asyncio.to_thread(begun.wait, 10)
        await cache.withdraw_chunks(film.ids[0], bitfield([0]))
        go.set()

    with (tmp_path / "part").open("w+b") as part:
        item = ByteRange(0, CHUNK)
        if way == "read":
            work = asyncio.to_thread(cache.read, film.ids[0], item)
        else:
            work = cache.copy_out(film.ids[0], item, part.fileno())
        outcome, nothing = await asyncio.gather(work, withdraw(), return_exceptions=True)
    assert isinstance(outcome, NotCached)
    assert nothing is None
    assert cache.find(film.ids[0]).have == bitfield([1])


async def test_a_cancelled_copy_lets_go_of_the_descriptor_first(
    reopen: Reopen, content: MakeContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, film = await reopen(), content("film")
    begun, go, ended, copy = threading.Event(), threading.Event(), threading.Event(), durable.clone_or_copy

    def slow_copy(*arguments: int) -> None:
        begun.set()
        assert go.wait(10)
        copy(*arguments)
        ended.set()

    monkeypatch.setattr(durable, "clone_or_copy", slow_copy)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cache.add_chunk(film.chunk(0)))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        assert ended.is_set()
    assert cache.find(film.ids[0]) is None
    assert cache.records() == []


async def test_many_at_once(reopen: Reopen, content: MakeContent, clock: Clock) -> None:
    cache = await reopen(CacheLimits(max_bytes=35 * CHUNK))
    films = [content(f"film{number}", 16 * CHUNK) for number in range(4)]
    async with asyncio.TaskGroup() as group:
        for chunk in range(16):
            for film in films[:2]:
                group.create_task(cache.add_chunk(film.chunk(chunk, ALICE)))
    assert [cache.find(film.ids[0]).have for film in films[:2]] == [films[0].layout.everything] * 2
    async with asyncio.TaskGroup() as group:
        for chunk in range(16):
            group.create_task(cache.add_chunk(films[chunk % 4].chunk(chunk)))
    assert sum(item.bytes_held for item in cache.records()) <= 35 * CHUNK
    cache = await reopen()
    for record in cache.records():
        film = next(film for film in films if film.ids[0] == record.content_id)
        have = cache.find(record.content_id).have
        assert await cache.ensure_checked(record.content_id, ChunkIndex(0), ChunkIndex(15)) == have
        assert have.bit_count() == record.chunks_held
        for chunk in range(16):
            if have >> chunk & 1:
                whole = film.layout.range_of(ChunkIndex(chunk))
                assert cache.read(record.content_id, whole) == film.bytes_of(chunk)


async def test_a_damaged_index_costs_the_cache_and_is_said(
    reopen: Reopen, content: MakeContent, tmp_path: Path
) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0))
    await cache.close()
    (tmp_path / "cache" / "index.sqlite").write_bytes(os.urandom(5000))
    cache = await reopen()
    assert cache.records() == []
    assert "set aside as index.sqlite.damaged-1" in cache.problems[0]
    assert objects(tmp_path) == []
    await cache.add_chunk(film.chunk(0))
    assert cache.find(film.ids[0]).have == bitfield([0])


async def test_a_missing_object_and_an_unknown_one(reopen: Reopen, content: MakeContent, tmp_path: Path) -> None:
    cache, film = await reopen(), content("film")
    await cache.add_chunk(film.chunk(0))
    await cache.close()
    objects(tmp_path)[0].unlink()
    (tmp_path / "cache" / "objects" / "orphan").write_bytes(b"x")
    cache = await reopen()
    assert cache.records() == []
    assert objects(tmp_path) == []


async def test_killed_while_adding(reopen: Reopen, tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from peer.cache import CacheLimits, PeerCache
from peer.workers import Workers
from tests.support.contents import CHUNK, Content

async def main():
    home = Path(sys.argv[1])
    workers = Workers()
    cache = await PeerCache.open(home / "cache", CacheLimits(), workers, lambda: 1000.0)
    film = Content(home, "film", 5000 * CHUNK)
    for chunk in range(5000):
        await cache.add_chunk(film.chunk(chunk))
        print(chunk + 1, flush=True)

asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    said = 0
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            said = int(line)
            if said == 100:
                child.send_signal(signal.SIGKILL)
    data = (tmp_path / "film").read_bytes()
    cache = await reopen()
    have = cache.find(cid("film")).have
    assert have & bitfield(range(said)) == bitfield(range(said))
    assert await cache.ensure_checked(cid("film"), ChunkIndex(0), ChunkIndex(4999)) == have
    assert cache.read(cid("film"), ByteRange(0, said * CHUNK)) == data[: said * CHUNK]
    assert cache.problems == []


def test_a_full_disk_keeps_the_cache_usable(tmp_path: Path) -> None:
    code = """
import asyncio, errno, sys
from pathlib import Path
from peer.cache import CacheLimits, PeerCache
from peer.workers import Workers
from tests.support.contents import Content
from validation.content import ChunkLayout

SIZE = 1 << 18

async def main():
    home = Path(sys.argv[1])
    workers = Workers()
    cache = await PeerCache.open(home / "cache", CacheLimits(max_bytes=1 << 30), workers, lambda: 1000.0)
    film = Content(Path("/tmp"), f"film-{home.name}", 16 * SIZE)
    Path(f"/tmp/film-{home.name}").unlink()
    film.layout = ChunkLayout(length=16 * SIZE, chunk_bytes=SIZE)
    film.bytes_of = lambda chunk: film.data[chunk * SIZE : (chunk + 1) * SIZE]
    for chunk in range(16):
        try:
            await cache.add_chunk(film.chunk(chunk))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            break
    else:
        raise AssertionError("the disk never filled up")
    have = cache.find(film.ids[0]).have
    assert have == (1 << chunk) - 1 and chunk > 2
    cache.read(film.ids[0], film.layout.span(0, chunk - 1))
    await cache.withdraw_chunks(film.ids[0], 1)
    await cache.add_chunk(film.chunk(chunk))
    assert cache.find(film.ids[0]).have == (have | 1 << chunk) & ~1
    await cache.close()
    workers.close()

asyncio.run(main())
"""
    command = full_disk_command(tmp_path, [sys.executable, "-c", code])
    if command is None:
        pytest.skip("no permission to mount a small tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
