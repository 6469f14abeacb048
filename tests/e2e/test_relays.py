"""A chunk poisoned two hops away: A forges, B hands on in good faith, C finds out. A is banned, B is not.

A is a hostile member that vouches with its own key for bytes that it altered; B and C are real agents. C never
meets A: all that it knows of A is A's signature and, from B, A's certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.agents import Agent, Fleet, Outcome, download
from tests.support.hostile_peer import HostilePeer, Mischief
from tests.support.origin import Origin

SIZE = 3 * 1024 * 1024


@dataclass
class Chain:
    """Who gives to whom: forger -> relay -> victim."""

    forger: HostilePeer
    relay: Agent
    victim: Agent
    data: bytes

    @property
    def digest(self) -> dict[str, str]:
        """What a job needs to see what is wrong."""
        return {"digest": f"sha256:{hashlib.sha256(self.data).hexdigest()}"}

    async def standings(self, agent: Agent) -> dict[str, str]:
        """How it thinks of the others."""
        return {peer.id: peer.standing for peer in (await agent.client.peers()).peers}


@pytest.fixture(name="chain")
async def run_chain(tmp_path: Path) -> AsyncIterator[Chain]:
    data = os.urandom(SIZE)
    async with contextlib.AsyncExitStack() as stack:
        fleet = stack.enter_context(Fleet(tmp_path / "fleet"))
        relay, victim = await fleet.start_together("relay", "victim")
        forger = HostilePeer(tmp_path / "forger", fleet.group_key, data, Mischief.FORGED)
        await stack.enter_async_context(forger)
        await forger.introduce(relay.peer_id, relay.peer_port)
        await relay.sees(lambda peers: any(peer.id == forger.peer_id and peer.available for peer in peers), "A")
        yield Chain(forger, relay, victim, data)


async def poison(chain: Chain, url: str, path: Path) -> None:
    """The relay believes the forger: its job knows nothing to check the content with."""
    got = await download(chain.relay, url, path)
    assert got.job.state == "ACKNOWLEDGED"
    assert got.file.peers == {chain.forger.peer_id: SIZE}
    assert await asyncio.to_thread(path.read_bytes) != chain.data


def assert_right(chain: Chain, got: Outcome, path: Path) -> None:
    assert (got.job.state, got.job.error_count) == ("ACKNOWLEDGED", 0), got.job.log
    assert path.read_bytes() == chain.data


async def test_the_forger_is_banned_by_whom_it_never_met(chain: Chain, origin: Origin, place: Path) -> None:
    for name in ("/one.bin", "/two.bin"):
        origin.add(name, chain.data)
    await poison(chain, origin.url("/one.bin"), place / "relay-one")
    await poison(chain, origin.url("/two.bin"), place / "relay-two")

    got = await download(chain.victim, origin.url("/one.bin"), place / "one", settings=chain.digest)

    assert_right(chain, got, place / "one")
    assert list(got.file.peers) == [chain.relay.peer_id], "nothing came by way of the relay: this proves nothing"
    assert SIZE <= got.file.bytes_from_peers < 3 * SIZE, (
        "it was asked once more for what it has on the forger's word"
    )
    assert got.file.bytes_from_origin <= SIZE
    standings = await chain.standings(chain.victim)
    assert standings == {chain.relay.peer_id: "good", chain.forger.peer_id: "banned"}
    seen = next(peer for peer in (await chain.victim.client.peers()).peers if peer.standing == "banned")
    assert "vouched" in (seen.reason or "")
    assert not seen.available

    # the relay still has more on the forger's word: that is no fault of its own, and harms nobody
    again = await download(chain.victim, origin.url("/two.bin"), place / "two", settings=chain.digest)
    assert_right(chain, again, place / "two")
    assert await chain.standings(chain.victim) == standings
    assert (await chain.standings(chain.relay))[chain.victim.peer_id] == "good"


async def test_a_relay_that_finds_out_takes_back_what_it_had(chain: Chain, origin: Origin, place: Path) -> None:
    origin.add("/one.bin", chain.data)

    first = await download(chain.relay, origin.url("/one.bin"), place / "relay", settings=chain.digest)
    assert_right(chain, first, place / "relay")
    assert first.file.peers[chain.forger.peer_id] > 0, "the forger was never asked: this proves nothing"
    assert (await chain.standings(chain.relay))[chain.forger.peer_id] == "banned"

    got = await download(chain.victim, origin.url("/one.bin"), place / "victim")
    assert_right(chain, got, place / "victim")
    assert got.file.bytes_from_origin == 0
    assert await chain.standings(chain.victim) == {chain.relay.peer_id: "good"}
