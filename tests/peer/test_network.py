"""Whole peer networks on loopback: real mDNS, real TLS, real caches on disk."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from peer.core.failure import Failure, FailureKind
from peer.core.roster import Offence, Standing
from peer.errors import ListenError
from peer.network import Claim, Discovering
from peer.refusals import Refused
from peer.sink import Fetched
from tests.support.networks import CONTENT, DATA, LAYOUT, LOOPBACK, Agent, Lan, fetch, publish, until
from validation.content import ContentId, bitfield

# finding each other


async def test_two_agents_meet_within_a_second_of_the_seconds_start(lan: Lan) -> None:
    ann = await lan.start("ann")
    began = time.monotonic()
    ben = await lan.start("ben")
    await ann.watch.until(ben.id)
    await ben.watch.until(ann.id)
    assert time.monotonic() - began < 1.0
    (peer,) = ann.network.live()
    assert (peer.peer_id, peer.name, peer.host, peer.port) == (ben.id, "ben", LOOPBACK, ben.network.port)
    assert peer.standing is Standing.GOOD


async def test_three_that_start_together_all_meet(lan: Lan) -> None:
    async with asyncio.TaskGroup() as group:
        starting = [group.create_task(lan.start(name)) for name in ("ann", "ben", "cid")]
    agents = [task.result() for task in starting]
    for agent in agents:
        await agent.watch.until(*(other.id for other in agents if other is not agent))


async def test_settled_means_that_who_was_there_is_known(lan: Lan) -> None:
    ann = await lan.start("ann")
    ben = await lan.start("ben")
    began = time.monotonic()
    await ben.network.settled(5.0)
    assert time.monotonic() - began < 1.0
    assert [peer.peer_id for peer in ben.network.live()] == [ann.id]


async def test_settled_with_nobody_there_is_quick_and_bounded(lan: Lan) -> None:
    ann = await lan.start("ann")
    began = time.monotonic()
    await ann.network.settled(0.01)
    assert time.monotonic() - began < 0.3
    await ann.network.settled(5.0)
    assert time.monotonic() - began < 1.5
    assert ann.network.live() == []


async def test_who_closes_says_goodbye_and_is_gone(lan: Lan) -> None:
    ann, ben = await lan.start("ann"), await lan.start("ben")
    await ann.watch.until(ben.id)
    await ben.watch.until(ann.id)
    began = time.monotonic()
    await ben.close()
    assert time.monotonic() - began < 1.5
    await ann.watch.until()
    assert ann.network.live() == []
    assert time.monotonic() - began < 2.5
    assert ann.watch.log == [("up", ben.id), ("down", ben.id)]


async def test_who_comes_back_is_met_again(lan: Lan) -> None:
    ann, ben = await lan.start("ann"), await lan.start("ben")
    await ann.watch.until(ben.id)
    await ben.close()
    await ann.watch.until()
    again = await lan.start("ben")
    await ann.watch.until(again.id)
    assert again.id == ben.id
    assert ann.network.live()[0].port == again.network.port


async def test_who_was_killed_is_met_at_its_new_port(lan: Lan) -> None:
    """No goodbye, and before Ann has any reason to look: both ways of hearing of it lead to the new port."""
    ann, ben = await lan.start("ann"), await lan.start("ben")
    for _ in range(3):
        await ann.watch.until(ben.id)
        discovery = ben.network._search._locating._discovery  # type: ignore[union-attr]
        discovery._zeroconf.async_send = lambda *_, **__: None  # type: ignore[method-assign, union-attr]
        await lan.stop("ben")
        ben = await lan.start("ben")
        port = ben.network.port
        await until(
            lambda port=port: [peer.port for peer in ann.network.live()] == [port],  # type: ignore[misc]
            "Ann has the new port",
        )


async def test_static_peers_need_no_mdns(lan: Lan) -> None:
    ann = await lan.start("ann", discovering=Discovering.OFF)
    ben = await lan.start("ben", discovering=Discovering.OFF, static_peers=((LOOPBACK, ann.network.port),))
    await ben.watch.until(ann.id)
    await ann.watch.until(ben.id)  # Ben called, so Ann knows him as well
    await ben.network.settled(1.0)


async def test_a_static_address_that_is_our_own_is_no_peer(lan: Lan) -> None:
    ann = await lan.start("ann", discovering=Discovering.OFF)
    port = ann.network.port
    await ann.close()
    ann = await lan.start("ann", discovering=Discovering.OFF, port=port, static_peers=((LOOPBACK, port),))
    await ann.network.settled(5.0)
    assert ann.network.peers() == []
    assert ann.network.refusals() == []
    assert ann.network._server.counters.requests == 0  # it did not even say hello to itself


async def test_a_static_address_where_nobody_is_does_no_harm(lan: Lan) -> None:
    ann = await lan.start(
        "ann", discovering=Discovering.OFF, static_peers=((LOOPBACK, 1), ("nosuch.invalid", 2), ("a..b", 3))
    )
    await ann.network.settled(5.0)
    assert ann.network.live() == []


async def test_without_mdns_the_network_works_and_says_why(lan: Lan) -> None:
    ann = await lan.start("ann")
    ben = await lan.start("ben", interfaces=("nosuch0",), static_peers=((LOOPBACK, ann.network.port),))
    await ben.network.settled(5.0)
    assert [peer.peer_id for peer in ben.network.live()] == [ann.id]
    (problem,) = ben.network.problems
    assert "'nosuch0'" in problem
    assert ann.network.problems == []


async def test_a_port_in_use_is_one_clear_error(lan: Lan) -> None:
    ann = await lan.start("ann")
    with pytest.raises(ListenError, match="in use"):
        await lan.start("ben", port=ann.network.port)


async def test_closing_leaves_nothing_behind(lan: Lan) -> None:
    threads = set(threading.enumerate())
    tasks = asyncio.all_tasks()
    ann, ben = await lan.start("ann"), await lan.start("ben")
    await ann.watch.until(ben.id)
    await lan.stop("ann")
    await lan.stop("ben")
    await ann.network.close()
    # asyncio's own pool ends with the loop; the database's thread is told to end and does so a moment later
    await until(
        lambda: all(item.name.startswith("asyncio_") for item in set(threading.enumerate()) - threads),
        "the threads end",
    )
    assert asyncio.all_tasks() == tasks


async def test_closing_in_the_middle_of_starting(lan: Lan) -> None:
    for _ in range(3):
        await lan.start("ann")
        await lan.stop("ann")


# other groups


async def test_another_group_is_never_listed_and_is_shown_with_a_reason(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start("ann")
    async with Lan(tmp_path / "strangers") as others:
        others.directory.mkdir()
        eve = await others.start("eve", static_peers=((LOOPBACK, ann.network.port),))
        await eve.network.settled(5.0)

        def told(agent: Agent, what: Refused, reason: str) -> bool:
            return any(item.what is what and reason in item.reason for item in agent.network.refusals())

        port = eve.network.port
        await until(lambda: told(ann, Refused.ANNOUNCEMENT, "another group"), "Ann heard of Eve")
        await until(lambda: told(ann, Refused.CALL, ""), "Eve's call was refused")
        await until(lambda: told(eve, Refused.ANSWER, "certificate"), "Eve refused Ann as well")
        assert ann.network.live() == eve.network.live() == []
        assert ann.network.peers() == eve.network.peers() == []
        assert {item.port for item in ann.network.refusals()} >= {port, None}
        assert all(item.reason for item in ann.network.refusals())


async def test_a_refusal_that_repeats_is_one_line(lan: Lan) -> None:
    ann = await lan.start("ann", discovering=Discovering.OFF)
    for _ in range(3):
        reader, writer = await asyncio.open_connection(LOOPBACK, ann.network.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read(1000)
        writer.close()
        await writer.wait_closed()
    await until(lambda: sum(item.count for item in ann.network.refusals()) == 3, "three refusals")
    (refusal,) = ann.network.refusals()
    assert (refusal.what, refusal.host, refusal.port) == (Refused.CALL, LOOPBACK, None)
    assert abs(refusal.last_at - time.time()) < 5


# content


async def test_bytes_come_with_vouchers_and_are_counted(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await publish(ann, tmp_path)
    offer = await ben.network.offer(ann.id, CONTENT)
    assert not isinstance(offer, Failure | None)
    assert offer.have_chunks == LAYOUT.everything
    assert await ben.network.offer(ann.id, ContentId("d" * 64)) is None
    outcome, sink = await fetch(ben, ann.id)
    assert isinstance(outcome, Fetched)
    assert bytes(sink.data) == DATA
    assert [voucher.signer for voucher in outcome.vouchers] == [ann.id, ann.id]
    (ann_seen,) = ben.network.peers()
    (ben_seen,) = ann.network.peers()
    assert (ann_seen.taken, ann_seen.given, ann_seen.available) == (len(DATA), 0, True)
    assert (ben_seen.taken, ben_seen.given, ben_seen.name) == (0, len(DATA), "ben")


async def test_bytes_given_and_taken_survive_a_restart(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await publish(ann, tmp_path)
    await fetch(ben, ann.id)
    await lan.stop("ann")
    await lan.stop("ben")
    (seen,) = (await lan.start("ann")).network.peers()
    assert (seen.given, seen.available, seen.name, seen.address) == (len(DATA), False, "ben", None)
    assert seen.last_seen == pytest.approx(time.time(), abs=30)


async def test_what_a_member_said_can_be_checked_when_it_is_gone(lan: Lan, tmp_path: Path) -> None:
    """Ann fetched from the origin, Ben relays, Ann and even Ben's first life are over: Cid can still check."""
    ann, ben = await lan.start("ann"), await lan.start("ben")
    await ben.watch.until(ann.id)
    await until(lambda: ben.network._certificates.find(ann.id) is not None, "Ben has Ann's certificate")
    await publish(ben, tmp_path, signers=(ann,))
    await lan.stop("ann")
    await lan.stop("ben")
    ben, cid = await lan.start("ben"), await lan.start("cid")
    await cid.watch.until(ben.id)
    outcome, _ = await fetch(cid, ben.id)
    assert isinstance(outcome, Fetched)
    assert [voucher.signer for voucher in outcome.vouchers] == [ann.id, ann.id]


async def test_claims_are_offered(lan: Lan) -> None:
    claim = Claim(layout=LAYOUT, chunks=bitfield([1]))
    ann = await lan.start_beside("ann", claims=lambda content_id: claim if content_id == CONTENT else None)
    ben = await lan.start_beside("ben", ann)
    offer = await ben.network.offer(ann.id, CONTENT)
    assert not isinstance(offer, Failure | None)
    assert offer.claimed_chunks == bitfield([1])


async def test_a_peer_that_does_not_answer_any_more_is_down(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await ann.network._server.close()  # as if it had been killed: no goodbye
    outcome = await ben.network.offer(ann.id, CONTENT)
    assert isinstance(outcome, Failure)
    await ben.watch.until()
    outcome = await ben.network.offer(ann.id, CONTENT)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.CONNECT_FAILED


# bans


async def test_a_liar_is_banned_at_once_and_still_answered(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    eve = await lan.start_beside("eve", ann)
    await publish(ann, tmp_path)
    await ann.network.offer(eve.id, CONTENT)
    assert eve.network._server.connected == 1  # Ann's, kept open
    ann.network.report(eve.id, Offence.CORRUPT_BYTES, "chunk 3")
    await until(lambda: eve.network._server.connected == 0, "Ann hangs up")
    assert ann.network.live() == []
    assert ann.watch.log[-1] == ("down", eve.id)
    refused = await ann.network.offer(eve.id, CONTENT)
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.NOT_TRUSTED
    _, sink = await fetch(eve, ann.id)
    assert bytes(sink.data) == DATA, "it may be a machine that is broken"
    (status,) = ann.network.peers()
    assert (status.peer_id, status.standing, status.available) == (eve.id, Standing.BANNED, False)
    assert status.reason == "sent bytes that do not match their digest: chunk 3"
    assert status.banned_until == pytest.approx(time.time() + 30 * 86400, abs=60)


async def test_a_ban_survives_a_restart_and_can_be_lifted(lan: Lan) -> None:
    ann, eve = await lan.start("ann"), await lan.start("eve")
    await ann.watch.until(eve.id)
    ann.network.report(eve.id, Offence.FALSE_VOUCHER, "")
    await lan.stop("ann")
    ann = await lan.start("ann")
    await ann.network.settled(5.0)
    await until(lambda: [peer.port for peer in eve.network.live()] == [ann.network.port], "Eve met Ann again")
    assert ann.network.live() == []
    assert ann.network.peers()[0].standing is Standing.BANNED
    assert ann.network.unban(eve.id)
    await ann.watch.until(eve.id)
    assert not ann.network.unban(eve.id)
    assert ann.network.peers()[0].standing is Standing.GOOD


async def test_a_ban_is_stored_before_anything_else_happens(lan: Lan, tmp_path: Path) -> None:
    """A kill right after it must not free the liar: the file is there without a close."""
    ann = await lan.start_beside("ann")
    eve = await lan.start_beside("eve", ann)
    ann.network.report(eve.id, Offence.CORRUPT_BYTES, "")
    ledger = tmp_path / "ann" / "peers.json"
    await until(lambda: ledger.exists() and b"CORRUPT_BYTES" in ledger.read_bytes(), "the ban is on disk")


async def test_what_a_liar_vouched_for_is_withdrawn(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    eve = await lan.start_beside("eve", ann)
    await publish(ann, tmp_path, signers=(eve,))
    assert ann.cache.find(CONTENT) is not None
    ann.network.report(eve.id, Offence.FALSE_VOUCHER, "")
    await until(lambda: ann.cache.find(CONTENT) is None, "the chunks are gone")


async def test_a_kill_between_ban_and_withdrawal_is_made_good(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    eve = await lan.start_beside("eve", ann)
    ann.network.report(eve.id, Offence.FALSE_VOUCHER, "")
    await until((tmp_path / "ann" / "peers.json").exists, "the ban is on disk")
    await publish(ann, tmp_path, signers=(eve,))  # as if the withdrawal had never happened
    await lan.stop("ann")
    ann = await lan.start("ann")
    assert ann.cache.find(CONTENT) is None


async def test_a_liars_word_does_not_come_in_through_others(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    eve = await lan.start_beside("eve", ann, ben)
    await publish(ben, tmp_path, signers=(eve,))
    before, _ = await fetch(ann, ben.id)
    assert isinstance(before, Fetched)
    assert len(before.vouchers) == 2
    ann.network.report(eve.id, Offence.FALSE_VOUCHER, "")
    after, _ = await fetch(ann, ben.id)
    assert isinstance(after, Fetched)
    assert after.vouchers == ()


async def test_an_accident_is_no_ban(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    ann.network.report(ben.id, Offence.STALLED, "")
    (peer,) = ann.network.live()
    assert peer.standing is Standing.ON_PAROLE
    for _ in range(2):
        ann.network.report(ben.id, Offence.STALLED, "")
    assert ann.network.live() == []
    assert ann.watch.log == [("up", ben.id), ("down", ben.id)]
    assert ann.network.peers()[0].standing is Standing.ON_PAROLE
