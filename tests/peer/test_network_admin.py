"""Administration of the peers: what people may ask of the network (bits-reference 4.1 and 4.4, row by row).

Real networks on loopback. What becomes of a ban that an offence led to is in test_network.py.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from peer.core.failure import Failure, FailureKind
from peer.core.roster import Standing
from peer.core.voucher import PeerId
from peer.ledger import ABSENCE_S, Ledger
from peer.network import Claim
from peer.refusals import Refused
from peer.settings import Discovering
from peer.sink import Fetched
from tests.support.networks import CONTENT, DATA, LAYOUT, LOOPBACK, Agent, Lan, fetch, publish, until
from validation.content import ContentId, bitfield

STRANGER = PeerId("5" * 64)
YEAR_S = 365 * 86400.0


async def again(agent: Agent, other: Agent) -> None:
    """`agent` meets `other` once more: it asks for something, so that the other hears of it."""
    async with asyncio.timeout(5):
        while other.id not in agent.watch.up or agent.id not in other.watch.up:
            await agent.network.offer(other.id, CONTENT)
            await asyncio.sleep(0.02)


# EnumPeers: IsAuthenticated, IsAvailable


async def test_a_peer_is_authenticated_for_good_and_available_while_it_is_there(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    assert ann.network.peers() == []
    ben = await lan.start_beside("ben", ann)
    (status,) = ann.network.peers()
    assert (status.peer_id, status.name, status.authenticated, status.available) == (ben.id, "ben", True, True)
    assert status.address == f"{LOOPBACK}:{ben.network.port}"
    await ben.close()
    assert isinstance(await ann.network.offer(ben.id, CONTENT), Failure)
    (status,) = ann.network.peers()
    assert (status.authenticated, status.available) == (True, False)


async def test_a_peer_of_an_earlier_life_is_known_as_it_was_seen_last(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await until(lambda: ann.network._certificates.has_shown(ben.id), "its certificate is known")
    seen = ann.network.peers()[0].last_seen
    await lan.stop("ben")
    await lan.stop("ann")
    ann = await lan.start_beside("ann")
    (status,) = ann.network.peers()
    assert (status.peer_id, status.name, status.authenticated, status.available) == (ben.id, "ben", True, False)
    assert seen is not None
    assert status.last_seen is not None
    assert seen - 1 <= status.last_seen <= time.time()


async def test_who_was_absent_for_long_is_dropped(
    lan: Lan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await lan.stop("ben")
    await lan.stop("ann")
    ledger = Ledger.load(tmp_path / "ann" / "peers.json", time.time())
    ledger.met(ben.id, "ben", time.time() - ABSENCE_S - 60)
    ledger.met(STRANGER, "cid", time.time() - ABSENCE_S + 60)
    ledger.save()
    monkeypatch.setattr("peer.network.SAVE_S", 0.01)
    ann = await lan.start_beside("ann")
    await until(lambda: [item.peer_id for item in ann.network.peers()] == [STRANGER], "Ben is dropped")


# ClearPeers


async def test_who_is_forgotten_is_cut_off_and_may_come_back(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await publish(ann, tmp_path)
    await fetch(ben, ann.id)
    assert ann.network.forget(ben.id)
    assert ann.network.peers() == []
    assert ann.watch.log == [("up", ben.id), ("down", ben.id)]
    assert not ann.network.forget(ben.id)
    assert not ann.network.forget(STRANGER)
    assert ann.network.traffic.given == len(DATA)
    await until(lambda: ann.network._server.connected == 0, "Ben's connection is cut")
    await again(ben, ann)
    (status,) = ann.network.peers()
    assert (status.peer_id, status.given, status.available) == (ben.id, 0, True)


async def test_all_are_forgotten_but_not_their_bans(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    eve = await lan.start_beside("eve", ann)
    assert ann.network.ban(eve.id, "", YEAR_S)
    assert not ann.network.forget(eve.id)
    assert ann.network.forget_all() == 1
    assert ann.network.live() == []
    (status,) = ann.network.peers()
    assert (status.peer_id, status.standing) == (eve.id, Standing.BANNED)
    assert ann.network.forget_all() == 0
    await again(ben, ann)
    assert [peer.peer_id for peer in ann.network.live()] == [ben.id]
    await lan.stop("ann")
    assert {item.peer_id for item in (await lan.start_beside("ann")).network.peers()} == {ben.id, eve.id}


# DiscoverPeers


async def test_looking_again_finds_who_was_forgotten(lan: Lan) -> None:
    """By its announcement: it does not call, and says nothing new."""
    ann, ben = await lan.start("ann"), await lan.start("ben")
    await ann.watch.until(ben.id)
    await ben.watch.until(ann.id)
    await ann.network.settled(5.0)
    ben.network._meeting.wake = lambda: None  # type: ignore[method-assign]
    ann.network.forget(ben.id)
    assert ann.network.live() == []
    began = time.monotonic()
    assert ann.network.discover()
    await ann.watch.until(ben.id)
    assert time.monotonic() - began < 2.0


async def test_one_search_at_a_time(lan: Lan) -> None:
    ann = await lan.start("ann")
    assert not ann.network.discover()  # the first round is under way
    await ann.network.settled(5.0)
    assert ann.network.discover()
    assert not ann.network.discover()
    began = time.monotonic()
    await until(ann.network.discover, "the second round is over")
    assert 0.3 < time.monotonic() - began < 2.0


async def test_looking_again_without_mdns_tries_the_known_addresses(lan: Lan) -> None:
    """An address that failed would be tried again after a minute."""
    ben = await lan.start("ben", discovering=Discovering.OFF)
    port = ben.network.port
    await lan.stop("ben")
    ann = await lan.start("ann", discovering=Discovering.OFF, static_peers=((LOOPBACK, port),))
    await ann.network.settled(5.0)
    assert ann.network.live() == []
    ben = await lan.start("ben", discovering=Discovering.OFF, port=port)
    await until(ann.network.discover, "the first round is over")
    await ann.watch.until(ben.id)


async def test_looking_again_where_mdns_cannot_work_ends_too(lan: Lan) -> None:
    ann = await lan.start("ann", interfaces=("nosuch0",))
    await ann.network.settled(5.0)
    assert ann.network.discover()
    await until(ann.network.discover, "the second round is over")
    assert len(ann.network.problems) == 1


# bans by people


async def test_a_ban_by_people_works_like_one_for_a_lie(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    eve = await lan.start_beside("eve", ann)
    await publish(ann, tmp_path, signers=(eve,))
    assert ann.network.ban(eve.id, "left the company", YEAR_S)
    assert ann.network.live() == []
    assert ann.watch.log == [("up", eve.id), ("down", eve.id)]
    await until(lambda: ann.network._server.connected == 0, "Eve's connection is cut")
    await until(lambda: ann.cache.find(CONTENT) is None, "what rests on her word is gone")
    assert isinstance(await eve.network.offer(ann.id, CONTENT), Failure)
    refused = await ann.network.offer(eve.id, CONTENT)
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.NOT_TRUSTED
    await lan.stop("ann")
    ann = await lan.start_beside("ann")
    (status,) = ann.network.peers()
    assert (status.standing, status.available, status.reason) == (Standing.BANNED, False, "left the company")
    assert status.banned_until == pytest.approx(time.time() + YEAR_S, abs=60)
    assert ann.network.unban(eve.id)
    assert ann.network.peers()[0].standing is Standing.GOOD


async def test_a_member_that_was_never_met_can_be_banned(lan: Lan) -> None:
    ben = await lan.start("ben", discovering=Discovering.OFF)
    await lan.stop("ben")
    ann = await lan.start_beside("ann")
    assert ann.network.ban(ben.id, "", YEAR_S)
    (status,) = ann.network.peers()
    assert (status.authenticated, status.available, status.last_seen) == (False, False, None)
    assert status.reason == "banned by an administrator"
    ben = await lan.start("ben", discovering=Discovering.OFF, static_peers=((LOOPBACK, ann.network.port),))

    def refused() -> bool:
        return any((item.what, item.reason) == (Refused.CALL, "banned") for item in ann.network.refusals())

    await until(refused, "his call is refused")
    assert ann.network.live() == ben.network.live() == []
    assert ann.network.unban(ben.id)
    assert ann.network.peers() == []


async def test_a_ban_ends_by_itself(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    assert ann.network.ban(ben.id, "for a moment", 0.3)
    assert ann.network.live() == []
    await until(lambda: ann.network.peers()[0].standing is Standing.GOOD, "the ban is over")
    assert ann.network.peers()[0].reason == ""


@pytest.mark.parametrize("peer_id", ["", "5", "g" * 64, "A" * 64, "5" * 65])
async def test_what_is_no_id_cannot_be_banned(lan: Lan, peer_id: str) -> None:
    ann = await lan.start_beside("ann")
    assert not ann.network.ban(PeerId(peer_id), "", YEAR_S)
    assert not ann.network.ban(ann.id, "ourselves", YEAR_S)
    assert ann.network.peers() == []


# Get/SetConfigurationFlags: CLIENT, SERVER


async def test_without_fetching_there_is_nobody_to_ask(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await publish(ann, tmp_path)
    await publish(ben, tmp_path)
    ben.network.set_fetching(False)
    ben.network.set_fetching(False)
    assert ben.network.live() == []
    assert ben.watch.log == [("up", ann.id), ("down", ann.id)]
    requests = ann.network._server.counters.requests
    assert isinstance(await ben.network.offer(ann.id, CONTENT), Failure)
    refused, _ = await fetch(ben, ann.id)
    assert isinstance(refused, Failure)
    assert ann.network._server.counters.requests == requests
    assert ben.network.peers()[0].available
    outcome, _ = await fetch(ann, ben.id)  # he serves as before
    assert isinstance(outcome, Fetched)
    ben.network.set_fetching(True)
    assert list(ben.watch.up) == [ann.id]
    outcome, _ = await fetch(ben, ann.id)
    assert isinstance(outcome, Fetched)


async def test_who_comes_and_goes_while_fetching_is_off_is_no_news(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    ann.network.set_fetching(False)
    ben = await lan.start("ben", discovering=Discovering.OFF, static_peers=((LOOPBACK, ann.network.port),))
    await until(lambda: [item.available for item in ann.network.peers()] == [True], "she knows him")
    ann.network.ban(ben.id, "", YEAR_S)
    ann.network.set_fetching(True)
    assert ann.watch.log == []


async def test_without_serving_there_is_nothing_to_get(lan: Lan, tmp_path: Path) -> None:
    claimed = ContentId("d" * 64)
    claim = Claim(layout=LAYOUT, chunks=bitfield([1]))
    ann = await lan.start_beside("ann", claims=lambda item: claim if item == claimed else None)
    ben = await lan.start_beside("ben", ann)
    await publish(ann, tmp_path)
    ann.network.set_serving(False)
    assert await ben.network.offer(ann.id, CONTENT) is None
    assert await ben.network.offer(ann.id, claimed) is None
    outcome, sink = await fetch(ben, ann.id)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, sink.count) == (FailureKind.NOT_FOUND, 0)
    assert ben.network.peers()[0].available  # she is there, and no worse for it
    assert ben.network.peers()[0].standing is Standing.GOOD
    ann.network.set_serving(True)
    assert not isinstance(await ben.network.offer(ann.id, claimed), Failure | None)
    outcome, _ = await fetch(ben, ann.id)
    assert isinstance(outcome, Fetched)


# what was given


async def test_bytes_given_of_a_content_count_under_all_its_ids(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await publish(ann, tmp_path)
    assert ann.network.given_of(CONTENT) == 0
    await fetch(ben, ann.id)
    await fetch(ben, ann.id)
    assert ann.network.given_of(CONTENT) == 2 * len(DATA)
    assert ann.network.given_of(ContentId("d" * 64)) == 0
    assert (ann.network.traffic.given, ben.network.traffic.taken) == (2 * len(DATA), 2 * len(DATA))
