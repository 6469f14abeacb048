"""Offers to those who distrust somebody, over real TLS: what is left out, who hears of it, and how soon."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from peer.cache import CacheLimits, NewChunk, PeerCache
from peer.client import Offer, PeerAddress
from peer.core import wire
from peer.core.roster import Offence, Standing
from peer.core.state import State
from peer.core.voucher import PeerId, Voucher
from peer.house import Claim
from peer.questions import GRACE_S, Questions
from peer.workers import Workers
from tests.support.networks import CONTENT, DATA, LAYOUT, LOOPBACK, Agent, Lan, fetch, publish
from tests.support.networks import until as soon
from tests.support.peers import (
    CHUNK,
    Members,
    NewsTalk,
    Serving,
    Talk,
    content_id,
    noise,
    serving,
    silence,
    talking,
)
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, ContentId, bitfield

A = content_id("a")
LIAR, ANN, BEN = (PeerId(letter * 64) for letter in "eab")
LONG_S = 25
PROMPT_S = 3.0


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path)


@pytest.fixture
def caller(members: Members) -> ssl.SSLContext:
    return members.identity("caller").client_context()


@pytest.fixture
async def it(members: Members, workers: Workers) -> AsyncIterator[Serving]:
    async with serving(members, workers) as made:
        yield made


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with silence(caplog):
        yield


def voucher(signer: PeerId, chunk: int, content: ContentId = A) -> Voucher:
    """Nobody looks at its signature here."""
    return Voucher(
        content_id=content, chunk=ChunkIndex(chunk), digest=bytes(32), signer=signer, signature=bytes(64)
    )


def hold(it: Serving, *signers: tuple[PeerId, ...]) -> None:
    """The server has a chunk for each of these, on their word."""
    item = it.store.add(A, noise(len(signers) * CHUNK))
    for chunk, who in enumerate(signers):
        item.vouchers[chunk] = tuple(voucher(signer, chunk) for signer in who)


async def ask(talk: Talk, *distrusted: PeerId) -> Offer:
    headers = [f"Nearfetch-Distrusts: {', '.join(distrusted)}"] if distrusted else []
    talk.ask(wire.offer_target(A), *headers)
    head, body = await talk.answer()
    assert head.status == 200
    return wire.parse_offer(body)


async def listen(talk: Talk, *distrusted: PeerId) -> NewsTalk:
    """News for who distrusts these; the first is still to be heard."""
    return await talk.listen(A, headers=[f"Nearfetch-Distrusts: {', '.join(distrusted)}", "Nearfetch-Wait: 30"])


# what is left out


async def test_what_rests_on_distrusted_word_alone_is_left_out(it: Serving, caller: ssl.SSLContext) -> None:
    hold(it, (ANN,), (LIAR,), (LIAR, ANN), (LIAR, BEN), ())
    async with talking(it.address, caller) as talk:
        assert (await ask(talk)).have_chunks == bitfield(range(5))
        assert (await ask(talk, LIAR)).have_chunks == bitfield([0, 2, 3, 4])
        assert (await ask(talk, LIAR, ANN)).have_chunks == bitfield([3, 4])
        assert (await ask(talk, LIAR, BEN)).have_chunks == bitfield([0, 2, 4])
        assert (await ask(talk, BEN)).have_chunks == bitfield(range(5))


async def test_the_distrustful_hear_what_concerns_them(it: Serving, caller: ssl.SSLContext) -> None:
    """When somebody else vouches as well, and when what rests on distrusted word comes."""
    hold(it, (ANN,), (LIAR,), (LIAR,))
    item = it.store.items[A]
    item.have = bitfield([0, 1])
    async with talking(it.address, caller) as talk:
        stream = await listen(talk, LIAR)
        told = await stream.next()
        assert told is not None
        assert told.have == bitfield([0])
        item.have = bitfield([0, 1, 2])
        it.server.changed(A)  # nothing that concerns this one
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        item.vouchers[1] = (voucher(LIAR, 1), voucher(BEN, 1))
        it.server.changed(A)
        told = await stream.next()
        assert told is not None
        assert told.have == bitfield([0, 1])


async def test_whom_we_avoid_may_leave_to_us_what_is_missing(
    it: Serving, caller: ssl.SSLContext, members: Members
) -> None:
    """What it brought would be of use to nobody else. When we bring nothing, it is not told so."""
    it.store.add(A, noise(4 * CHUNK), have=bitfield([1])).vouchers[1] = (voucher(LIAR, 1),)
    it.claims[A] = Claim(layout=it.store.items[A].layout, chunks=bitfield([2]))
    async with talking(it.address, caller) as talk:
        plain = await ask(talk)
        assert (plain.have_chunks, plain.claimed_chunks) == (bitfield([1]), bitfield([2]))
        it.avoided.add(members.identity("caller").peer_id)
        offer = await ask(talk)
        assert (offer.have_chunks, offer.claimed_chunks, offer.wants) == (bitfield([1]), bitfield([0, 2, 3]), True)
        useless = await ask(talk, LIAR)
        assert (useless.have_chunks, useless.claimed_chunks) == (0, bitfield([0, 2, 3])), "we have it: no claim"
        it.claims[A] = Claim(layout=it.store.items[A].layout, chunks=bitfield([2]), wants=False)
        offer = await ask(talk)
        assert (offer.claimed_chunks, offer.wants) == (bitfield([2]), False)


async def test_nonsense_is_a_bad_request(it: Serving, caller: ssl.SSLContext) -> None:
    hold(it, (ANN,))
    async with talking(it.address, caller) as talk:
        talk.ask(wire.offer_target(A), f"Nearfetch-Distrusts: {LIAR}, {LIAR}")
        assert (await talk.answer())[0].status == 400


# what the cache knows


async def test_the_cache_knows_what_rests_on_whom(workers: Workers, tmp_path: Path) -> None:
    """Also after it was opened again, lost chunks, and forgot a signer."""
    other = ContentId("d" * 64)
    file = tmp_path / "content"
    file.write_bytes(noise(4 * CHUNK))
    layout = ChunkLayout(length=4 * CHUNK, chunk_bytes=CHUNK)

    async def add(cache: PeerCache, chunk: int, *vouchers: Voucher) -> None:
        with file.open("rb") as source:
            await cache.add_chunk(
                NewChunk(
                    content_ids=(A, other),
                    layout=layout,
                    chunk=ChunkIndex(chunk),
                    digest=bytes(32),
                    vouchers=vouchers,
                    source_fd=source.fileno(),
                )
            )

    def resting(cache: PeerCache, *signers: PeerId) -> list[int]:
        return [chunk for chunk in range(4) if cache.resting_on(A, frozenset(signers)) >> chunk & 1]

    limits = CacheLimits(max_bytes=1 << 30)
    cache = await PeerCache.open(tmp_path / "cache", limits, workers, time.time)
    await add(cache, 0, voucher(LIAR, 0))
    await add(cache, 1, voucher(LIAR, 1), voucher(ANN, 1, other))
    await add(cache, 2, voucher(ANN, 2))
    await add(cache, 3, voucher(BEN, 3))
    assert resting(cache, LIAR) == [0, 1], "a voucher under another id proves nothing under this one"
    await add(cache, 3, voucher(LIAR, 3))
    assert (resting(cache, BEN), resting(cache, LIAR, BEN)) == ([], [0, 1, 3])
    await cache.close()
    cache = await PeerCache.open(tmp_path / "cache", limits, workers, time.time)
    assert (resting(cache, LIAR), resting(cache, LIAR, BEN)) == ([0, 1], [0, 1, 3])
    await cache.withdraw_chunks(A, bitfield([0]))
    assert resting(cache, LIAR) == [1]
    await cache.withdraw_vouched_by(BEN)
    assert (resting(cache, LIAR), resting(cache, BEN)) == ([1, 3], [])
    await cache.withdraw_vouched_by(LIAR)
    assert (resting(cache, LIAR), resting(cache, ANN, LIAR)) == ([], [2])
    await cache.close()


# questions that are asked anew


async def test_a_question_is_asked_anew_only_when_no_answer_comes() -> None:
    questions, asked = Questions(), 0
    first = asyncio.Event()

    async def wait() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            await first.wait()
        return asked

    questions.ask_anew()
    async with asyncio.TaskGroup() as tasks:
        quick = tasks.create_task(questions.answer(wait))
        await asyncio.sleep(0)
        questions.ask_anew()
        first.set()
    assert quick.result() == 1
    asked = 0
    first.clear()
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(questions.answer(wait))
        await asyncio.sleep(0)
        questions.ask_anew()
        questions.ask_anew()
    assert slow.result() == 2
    assert GRACE_S * 0.9 < time.monotonic() - began < PROMPT_S
    questions.ask_anew()
    assert not questions._waiting


async def test_an_error_of_the_question_is_its_own() -> None:
    async def fail() -> None:
        raise TimeoutError("not ours")

    with pytest.raises(TimeoutError, match="not ours"):
        await Questions().answer(fail)


# networks


async def four(lan: Lan) -> tuple[Agent, Agent, Agent, Agent]:
    """Ann, Ben, Cid, and Eve, who will be found lying."""
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    cid = await lan.start_beside("cid", ann, ben)
    return ann, ben, cid, await lan.start_beside("eve", ann, ben, cid)


async def test_who_is_banned_counts_no_more_in_what_is_heard_of_others(lan: Lan, tmp_path: Path) -> None:
    """Ben has what Eve vouched for; Ann listens for news of him when she finds out about Eve."""
    ann, ben, _, eve = await four(lan)
    await publish(ben, tmp_path, signers=(eve,))
    heard: list[Bitfield] = []

    def told(state: State | None, _: ContentId) -> bool:
        heard.append(NO_CHUNKS if state is None else state.have)
        return True

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(ann.network.follow(ben.id, [CONTENT], told, LONG_S))
        await soon(lambda: heard == [LAYOUT.everything], "she hears what he has")
        began = time.monotonic()
        ann.network.report(eve.id, Offence.CORRUPT_BYTES, "chunk 0")
        await soon(lambda: heard[1:] == [NO_CHUNKS], "it is of no use to her")
        assert time.monotonic() - began < PROMPT_S
        assert eve.id in ben.watch.up, "one word is not enough"
        ann.network.unban(eve.id)
        await soon(lambda: heard[2:] == [LAYOUT.everything], "she believes again")
        following.cancel()


async def test_who_lied_to_two_is_left_alone_by_the_third_and_still_gets_what_it_asks_for(
    lan: Lan, tmp_path: Path
) -> None:
    ann, ben, cid, eve = await four(lan)
    await publish(ann, tmp_path)
    await publish(cid, tmp_path)
    for victim in (ann, ben):
        victim.network.report(eve.id, Offence.CORRUPT_BYTES, "chunk 0")
        assert eve.id in cid.watch.up
        await victim.network.offer(cid.id, CONTENT)
    assert eve.id not in cid.watch.up
    (seen,) = [status for status in cid.network.peers() if status.peer_id == eve.id]
    assert (seen.standing, seen.available, seen.banned_until) == (Standing.ON_PAROLE, False, None)
    assert seen.reason == "left alone: two others say that it lies"
    for other in (ann, cid):
        assert isinstance(await eve.network.offer(other.id, CONTENT), Offer)
        _, sink = await fetch(eve, other.id)
        assert bytes(sink.data) == DATA


async def test_who_was_found_lying_hears_that_it_may_leave_the_origin_alone(lan: Lan) -> None:
    claims = {CONTENT: Claim(layout=LAYOUT, chunks=bitfield([]))}
    ann = await lan.start_beside("ann", claims=claims.get)
    eve = await lan.start_beside("eve", ann)
    before = await eve.network.offer(ann.id, CONTENT)
    assert isinstance(before, Offer)
    assert before.claimed_chunks == 0
    ann.network.report(eve.id, Offence.CORRUPT_BYTES, "chunk 0")
    after = await eve.network.offer(ann.id, CONTENT)
    assert isinstance(after, Offer)
    assert after.claimed_chunks == LAYOUT.everything


async def test_slander_of_one_harms_nobody(lan: Lan) -> None:
    ann, ben, cid, eve = await four(lan)
    for honest in (ann, ben, cid):
        eve.network.report(honest.id, Offence.CORRUPT_BYTES, "so I say")
    for honest in (ann, ben, cid):
        address = PeerAddress(honest.id, LOOPBACK, honest.network.port)
        await eve.network._client.offer(address, CONTENT)
    assert all(
        set(each.watch.up) == {other.id for other in (ann, ben, cid, eve) if other is not each}
        for each in (ann, ben, cid)
    )


async def test_what_people_decide_is_no_denunciation(lan: Lan, tmp_path: Path) -> None:
    ann, ben, cid, eve = await four(lan)
    await publish(cid, tmp_path, signers=(eve,))
    for other in (ann, ben):
        other.network.ban(eve.id, "its disk is broken", 60.0)
        offer = await other.network.offer(cid.id, CONTENT)
        assert isinstance(offer, Offer)
        assert offer.have_chunks == 0
    assert eve.id in cid.watch.up
