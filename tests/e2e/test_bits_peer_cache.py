"""The administration of the peer cache, by real agents: every row of the table (bits-reference 4.1), and trap 6."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import NotFoundError, StateError, UsageError
from agent.schema import CacheChange, CacheRecordDocument, HttpSettings, NewFile, NewJob, RedirectPolicy
from tests.support.agents import Agent, Fleet, Outcome, download
from tests.support.origin import Fault, Origin

MIB = 1024 * 1024
DAY_S = 86_400.0
Two = tuple[Agent, Agent]


@pytest.fixture(scope="module", name="two")
def run_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two agents of one group that have met. Tests use contents of their own, and put the switches back."""
    with Fleet(tmp_path_factory.mktemp("two")) as fleet:
        a, b = asyncio.run(fleet.start_together("a", "b"))
        yield a, b


def content(origin: Origin, name: str, size: int = MIB) -> str:
    """The URL of bytes that no other test has."""
    origin.add(f"/{name}", os.urandom(size))
    return origin.url(f"/{name}")


async def with_job(agent: Agent, url: str, path: Path, **settings: Any) -> Outcome:
    """One file by a job with settings of its own."""
    job = await agent.client.create_job(NewJob(name="job", files=[NewFile(url=url, path=str(path))], **settings))
    await agent.client.resume(job.id)
    job = await agent.client.wait(job.id, {"TRANSFERRED", "ERROR"}, timeout_s=30)
    if job.state == "TRANSFERRED":
        job = await agent.client.complete(job.id)
    return Outcome(job=job, states=(), seconds=0.0)


async def record_of(agent: Agent, url: str) -> CacheRecordDocument | None:
    """The record that came from a URL."""
    return next((each for each in (await agent.client.cache()).records if each.url == url), None)


async def test_trap_06_both_the_machine_and_the_job_must_allow_it(two: Two, origin: Origin, place: Path) -> None:
    """Get/SetConfigurationFlags: CLIENT and SERVER, for the machine and for the job; both must be on."""
    a, b = two
    url = content(origin, "switches.bin")
    length = MIB
    await with_job(a, url, place / "1", peer_serve=False)
    got = await with_job(b, url, place / "2", peer_serve=False)
    assert got.file.bytes_from_origin == length, "the job of a forbade to serve it"
    await a.client.change_cache(CacheChange(peer_serve=False))
    await with_job(a, url, place / "3")
    got = await with_job(b, url, place / "4", peer_serve=False)
    assert got.file.bytes_from_origin == length, "a's machine serves nobody"
    shown = await a.client.change_cache(CacheChange(peer_serve=True))
    assert (shown.peer_fetch, shown.peer_serve) == (True, True)
    await with_job(a, url, place / "5")
    got = await with_job(b, url, place / "6", peer_serve=False, peer_fetch=False)
    assert got.file.bytes_from_origin == length, "b's job does not want peers"
    await b.client.change_cache(CacheChange(peer_fetch=False))
    got = await with_job(b, url, place / "7", peer_serve=False)
    assert got.file.bytes_from_origin == length, "b's machine does not want peers"
    await b.client.change_cache(CacheChange(peer_fetch=True))
    got = await with_job(b, url, place / "8", peer_serve=False)
    assert got.file.peers == {a.peer_id: length}, "now both are on, on both sides"


async def test_trap_06_a_reported_redirect_shifts_the_key(two: Two, origin: Origin, place: Path) -> None:
    a, b = two
    url = content(origin, "final.bin")
    origin.add("/first", b"", faults=[Fault("redirect", value="/final.bin", count=302)])
    http = HttpSettings(redirects=RedirectPolicy.REPORT)

    await with_job(a, origin.url("/first"), place / "a", http=http)

    got = await download(b, url, place / "b")
    assert got.file.peers == {a.peer_id: MIB}, "whoever asks for the final URL finds it"


async def test_records_are_listed_and_shown_with_where_they_came_from(
    two: Two, origin: Origin, place: Path
) -> None:
    """EnumRecords, GetRecord; IBitsPeerCacheRecord: id, URL, size, ranges, times."""
    a, _ = two
    url = content(origin, "listed.bin", 600_000)
    await download(a, url, place / "a")

    found = await record_of(a, url)

    assert found is not None
    assert (found.length, found.bytes, found.chunks_held) == (600_000, 600_000, found.chunks_total)
    assert found.ranges == [(0, 600_000)]
    assert found.created_at <= found.last_access_at
    assert await a.client.cache_record(found.id) == found
    with pytest.raises(NotFoundError) as caught:
        await a.client.cache_record("0" * 64)
    assert caught.value.code == "RECORD_NOT_FOUND"


async def test_a_record_is_deleted_and_nobody_gets_it_any_more(two: Two, origin: Origin, place: Path) -> None:
    """DeleteRecord; the file of the job is a separate copy."""
    a, b = two
    url = content(origin, "deleted.bin")
    await download(a, url, place / "a")
    found = await record_of(a, url)
    assert found is not None

    assert (await a.client.delete_record(found.id)).changed

    assert await record_of(a, url) is None
    assert (place / "a").stat().st_size == MIB
    with pytest.raises(NotFoundError):
        await a.client.delete_record(found.id)
    got = await download(b, url, place / "b")
    assert got.file.bytes_from_origin == MIB


async def test_a_url_is_deleted(two: Two, origin: Origin, place: Path) -> None:
    """DeleteUrl; `changed` False is BITS' S_FALSE."""
    a, _ = two
    url = content(origin, "by-url.bin")
    await download(a, url, place / "a")

    assert (await a.client.delete_url(url)).count == 1
    assert not (await a.client.delete_url(url)).changed
    assert await record_of(a, url) is None


async def test_the_limits(two: Two, origin: Origin, place: Path) -> None:
    """Get/SetMaximumCacheSize (a share, at most 80 %, or bytes; less evicts now), Get/SetMaximumContentAge."""
    a, _ = two
    before = await a.client.cache()
    url = content(origin, "evicted.bin")
    await download(a, url, place / "a")

    shown = await a.client.change_cache(CacheChange(limit_bytes=MIB // 2))

    assert (shown.limit_bytes, shown.limit_share) == (MIB // 2, None)
    assert shown.bytes <= MIB // 2
    assert await record_of(a, url) is None
    await download(a, content(origin, "too-large.bin"), place / "b")
    assert (await a.client.cache()).bytes <= MIB // 2, "larger than the whole cache: not kept"
    shown = await a.client.change_cache(CacheChange(limit_share=0.8, max_age_s=DAY_S))
    assert (shown.limit_share, shown.max_age_s) == (0.8, DAY_S)
    for wrong in ({"limit_share": 0.81}, {"max_age_s": DAY_S - 1}, {"max_age_s": 121 * DAY_S}):
        with pytest.raises(UsageError):
            await a.client.change_cache(CacheChange(**wrong))
    await a.client.change_cache(CacheChange(limit_share=before.limit_share or 0.1, max_age_s=before.max_age_s))


async def test_all_records_are_cleared(two: Two, origin: Origin, place: Path) -> None:
    """ClearRecords; running jobs and finished files are untouched."""
    a, _ = two
    await download(a, content(origin, "cleared.bin"), place / "a")
    count = len((await a.client.cache()).records)

    assert await a.client.clear_cache() == count > 0
    assert (await a.client.cache()).records == []
    assert (place / "a").exists()


async def test_the_peers(two: Two, origin: Origin, place: Path) -> None:
    """EnumPeers (name, authenticated, available), ClearPeers, DiscoverPeers; and what BITS has not: ban, unban."""
    a, b = two
    url = content(origin, "given.bin")
    await download(a, url, place / "a")
    await download(b, url, place / "b")
    (row,) = [peer for peer in (await b.client.peers()).peers if peer.id == a.peer_id]
    assert (row.name, row.authenticated, row.available, row.standing) == ("a", True, True, "good")
    assert row.bytes_taken >= MIB
    assert (await b.client.statistics()).by_peer[a.peer_id][0] == row.bytes_taken
    assert (await a.client.statistics()).bytes_given >= MIB

    await b.client.ban_peer(a.peer_id, reason="a test", duration_s=60)
    (row,) = [peer for peer in (await b.client.peers()).peers if peer.id == a.peer_id]
    assert (row.standing, row.reason) == ("banned", "a test")
    other = content(origin, "banned.bin")
    await download(a, other, place / "c")
    assert (await download(b, other, place / "d")).file.bytes_from_origin == MIB
    with pytest.raises(StateError, match="unban it first"):
        await b.client.forget_peer(a.peer_id)
    assert (await b.client.unban_peer(a.peer_id)).changed
    await b.met(a)

    assert (await b.client.forget_peers()).count == 1
    await b.client.discover_peers()
    await b.met(a)
    with pytest.raises(NotFoundError) as caught:
        await b.client.forget_peer("ab" * 32)
    assert caught.value.code == "PEER_NOT_FOUND"
