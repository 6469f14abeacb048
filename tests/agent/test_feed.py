"""What outlives the jobs: numbered events, keys of requests, where contents came from."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent import feed
from agent.journal import REQUESTS_KEPT_S, Content, FeedItem, Journal, NewsItem, RequestKey
from tests.agent.test_journal import BOOT, file, job

ONE, TWO = job(1).id, job(2).id
Reopen = Callable[[], Awaitable[Journal]]


def news(job_id: str = ONE, kind: str = "state", data: bytes = b"{}") -> NewsItem:
    return NewsItem(job_id=job_id, kind=kind, at=1.0, data=data)


def numbers(items: list[FeedItem]) -> list[int]:
    return [item.sequence for item in items]


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Reopen]:
    """A function that closes the journal it gave last and opens it again."""
    opened: list[Journal] = []

    async def again() -> Journal:
        if opened:
            await opened[-1].close()
        opened.append(await Journal.open(tmp_path / "journal.db", BOOT))
        return opened[-1]

    yield again
    if opened:
        await opened[-1].close()


# --- events ---------------------------------------------------------------------------------------------------


async def test_events_are_numbered_in_their_order_over_all_jobs_and_come_back(reopen: Reopen) -> None:
    journal = await reopen()
    assert await journal.feed_bounds() == (1, 0)
    first = await journal.save(job(1), file(1), news=[news(kind="created"), news(data=b'{"x":1}')])
    second = await journal.save(job(2), news=[news(TWO)])
    assert numbers([*first, *second]) == [1, 2, 3]
    journal = await reopen()
    found = await journal.feed_after(0, 100)
    assert found == [*first, *second]
    assert found[1].data == b'{"x":1}'
    assert await journal.feed_bounds() == (1, 3)
    assert numbers(await journal.feed_after(1, 1)) == [2]
    assert numbers(await journal.feed_after(0, 100, TWO)) == [3]
    assert await journal.feed_after(3, 100) == []


async def test_events_and_the_job_are_stored_together_or_not_at_all(reopen: Reopen) -> None:
    journal = await reopen()
    with pytest.raises(sqlite3.IntegrityError):
        await journal.save(job(1), file(7), news=[news()])
    assert await journal.feed_after(0, 10) == []
    assert numbers(await journal.save(job(1), news=[news()])) == [1]


async def test_the_end_of_a_job_is_told_although_its_rows_are_gone(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), file(1), news=[news()])
    last = await journal.delete_job(ONE, [news(kind="cancelled")])
    assert numbers(last) == [2]
    journal = await reopen()
    assert await journal.load_all() == []
    assert [item.kind for item in await journal.feed_after(0, 10, ONE)] == ["state", "cancelled"]


async def test_the_oldest_events_go_and_no_number_comes_twice(
    reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "FEED_KEPT", 20)
    monkeypatch.setattr(feed, "FEED_PRUNED", 5)
    journal = await reopen()
    given: list[int] = []
    for _ in range(30):
        given += numbers(await journal.save(job(1), news=[news(), news()]))
        first, last = await journal.feed_bounds()
        assert last == given[-1]
        assert last - first + 1 <= 20
        assert numbers(await journal.feed_after(0, 1000)) == list(range(first, last + 1))
    monkeypatch.setattr(feed, "FEED_KEPT", 0)  # everything goes, the last one too
    given += numbers(await journal.save(job(1), news=[news()]))
    assert await journal.feed_after(0, 10) == []
    assert await journal.feed_bounds() == (given[-1] + 1, given[-1])
    journal = await reopen()
    given += numbers(await journal.save(job(1), news=[news()]))
    assert given == list(range(1, len(given) + 1))


@pytest.mark.parametrize("snapshot", [True, False])
async def test_after_damage_no_number_comes_twice_and_all_who_know_one_have_missed_something(
    reopen: Reopen, tmp_path: Path, snapshot: bool
) -> None:
    journal = await reopen()
    await journal.save(job(1), news=[news()])
    if snapshot:
        await journal.snapshot()
    given = numbers(await journal.save(job(1), news=[news()] * 5))
    await journal.close()
    (tmp_path / "journal.db").write_bytes(os.urandom(9000))
    journal = await reopen()
    assert len(journal.problems) == 1 + snapshot
    first, last = await journal.feed_bounds()
    assert first == last + 1 > given[-1] + 1
    fresh = numbers(await journal.save(job(1), news=[news()]))
    assert fresh == [first]
    assert fresh[0] < (time.time() + 60) * 1000
    assert numbers(await (await reopen()).feed_after(0, 10)) == fresh


# --- keys of requests -----------------------------------------------------------------------------------------


def request(key: str = "key", digest: bytes = b"digest", job_id: str = ONE, at: float = 1e9) -> RequestKey:
    return RequestKey(key=key, digest=digest, job_id=job_id, at=at)


async def test_a_key_is_found_again_and_outlives_its_job(reopen: Reopen) -> None:
    journal = await reopen()
    assert await journal.find_request("key") is None
    await journal.save(job(1), request=request())
    await journal.delete_job(ONE)
    assert await (await reopen()).find_request("key") == request()


async def test_a_key_stands_for_one_job_and_one_request(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), request=request())
    await journal.save(job(1), request=request(at=1e9 + 5))
    assert await journal.find_request("key") == request(at=1e9 + 5)
    for other in (request(digest=b"other"), request(job_id=TWO)):
        with pytest.raises(sqlite3.IntegrityError):
            await journal.save(job(2), request=other, news=[news(TWO)])
    assert [stored.job.id for stored in await journal.load_all()] == [ONE]
    assert await journal.feed_after(0, 10) == []


async def test_keys_of_more_than_a_week_ago_go(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), request=request("old"))
    await journal.save(job(1), request=request("young", at=1e9 + 1))
    await journal.save(job(1), request=request("now", at=1e9 + 1 + REQUESTS_KEPT_S))
    found = [await journal.find_request(key) for key in ("old", "young", "now")]
    assert [item is not None for item in found] == [False, True, True]


async def test_odd_keys(reopen: Reopen) -> None:
    journal = await reopen()
    for key in ("", "ü\n\0", "\udcff", "x" * 10_000):
        await journal.save(job(1), request=request(key))
        assert await journal.find_request(key) == request(key)


# --- contents -------------------------------------------------------------------------------------------------


def content(name: str, url: str = "http://origin.example/a", length: int = 5) -> Content:
    return Content(content_id=name, url=url, length=length, at=2.0)


async def test_where_contents_came_from(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.note_contents([content("b"), content("a"), content("c", "http://origin.example/\udcff")])
    await journal.note_contents([content("a", length=6)])
    journal = await reopen()
    assert await journal.contents(["a", "absent"]) == {"a": content("a", length=6)}
    assert set(await journal.contents()) == {"a", "b", "c"}
    assert await journal.contents([]) == {}
    assert await journal.content_ids_of("http://origin.example/a") == ["a", "b"]
    assert await journal.content_ids_of("http://origin.example/\udcff") == ["c"]
    assert await journal.content_ids_of("http://origin.example/A") == []
    await journal.forget_contents(["a", "absent"])
    assert await journal.content_ids_of("http://origin.example/a") == ["b"]


# --- acknowledged means stored (D2) ----------------------------------------------------------------------------


async def test_what_was_answered_survives_a_kill_at_once(tmp_path: Path) -> None:
    """Many at once, as clients would; each says its number once it has its answer, and then comes the kill."""
    code = """
import asyncio, os, sys
from pathlib import Path
from agent.journal import Journal, RequestKey
from tests.agent.test_feed import news
from tests.agent.test_journal import file, job

async def client(journal, number):
    while True:
        key = RequestKey(key=str(number), digest=b"d", job_id=job(number).id, at=1.0)
        told = await journal.save(job(number), file(number), news=[news(job(number).id)], request=key)
        os.write(1, b"%d %d\\n" % (number, told[0].sequence))
        number += 8

async def main():
    journal = await Journal.open(Path(sys.argv[1]))
    await asyncio.gather(*(client(journal, int(sys.argv[2]) + each) for each in range(8)))

asyncio.run(main())
"""
    path = tmp_path / "journal.db"
    answered: dict[int, int] = {}
    for begin, wanted in ((0, 1), (10_000, 50), (20_000, 400)):
        arguments = [sys.executable, "-c", code, str(path), str(begin)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for count, line in enumerate(child.stdout, 1):
                number, sequence = map(int, line.split())
                assert sequence not in answered.values()
                answered[number] = sequence
                if count == wanted:
                    child.send_signal(signal.SIGKILL)
        journal = await Journal.open(path)
        assert journal.problems == []
        found = {stored.job.id: len(stored.files) for stored in await journal.load_all()}
        told = {item.sequence: item.job_id for item in await journal.feed_after(0, 100_000)}
        for number, sequence in answered.items():
            assert found[job(number).id] == 1
            assert told[sequence] == job(number).id
            assert await journal.find_request(str(number)) is not None
        assert len(told) == len(found)
        await journal.close()
