"""One that lies among agents that trust each other: who was lied to says so, and the others need not find out."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from agent.schema import PeerDocument
from tests.support.agents import Agent, Fleet, download
from tests.support.hostile_peer import HostilePeer, Mischief
from tests.support.origin import Origin

SIZE = 2 * 1024 * 1024
SAID = "left alone: two others say that it lies"


async def shown(agent: Agent, liar: HostilePeer) -> PeerDocument:
    return next(each for each in (await agent.client.peers()).peers if each.id == liar.peer_id)


async def test_who_lied_to_two_is_asked_by_nobody_else(tmp_path: Path, origin: Origin, place: Path) -> None:
    """The same bytes at several URLs: several contents, and the liar offers each of them."""
    data, other = os.urandom(SIZE), os.urandom(SIZE + 1000)
    for name in "abc":
        origin.add(f"/{name}.bin", data)
    origin.add("/other.bin", other)
    with Fleet(tmp_path / "fleet") as fleet:
        ann, ben, cid = await fleet.start_together("ann", "ben", "cid")
        async with HostilePeer(tmp_path / "liar", fleet.group_key, data, Mischief.WRONG_BYTES) as liar:
            for agent in (ann, ben, cid):
                await liar.introduce(agent.peer_id, agent.peer_port)
                await agent.sees(lambda peers: len([peer for peer in peers if peer.available]) == 3, "the liar too")
            for agent, name in ((ann, "a"), (ben, "b")):
                assert (await shown(agent, liar)).standing == "good", "one word is not enough"
                got = await download(agent, origin.url(f"/{name}.bin"), place / name)
                assert (got.job.state, got.job.error_count) == ("ACKNOWLEDGED", 0)
                assert (place / name).read_bytes() == data
                assert (await shown(agent, liar)).standing == "banned"
                await download(agent, origin.url("/other.bin"), place / f"other {name}")  # asks the others about it
            seen = await shown(cid, liar)
            assert (seen.standing, seen.available, seen.reason) == ("on parole", False, SAID)
            assert SAID in cid.run("peer", "list").out
            asked = len(liar.requests)
            got = await download(cid, origin.url("/c.bin"), place / "c")
            assert (place / "c").read_bytes() == data
            assert (got.file.bytes_from_peers, len(liar.requests)) == (0, asked)
            assert not any("Traceback" in agent.log for agent in (ann, ben, cid))


async def test_what_a_forger_gave_to_all_comes_again_once(tmp_path: Path, origin: Origin, place: Path) -> None:
    """Three take everything from one who vouches for what it altered. Each finds out, and what one of them fetches
    from the origin it passes on to the others."""
    data = os.urandom(3 * SIZE)
    origin.add("/file.bin", data)
    origin.rate = 2_000_000.0
    digest = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    with Fleet(tmp_path / "fleet") as fleet:
        three = await fleet.start_together("ann", "ben", "cid")
        async with HostilePeer(tmp_path / "forger", fleet.group_key, data, Mischief.FORGED) as forger:
            for agent in three:
                await forger.introduce(agent.peer_id, agent.peer_port)
                await agent.sees(
                    lambda peers: len([peer for peer in peers if peer.available]) == 3, "the forger too"
                )
            runs = [
                download(agent, origin.url("/file.bin"), place / agent.peer_id, settings=digest) for agent in three
            ]
            for agent, got in zip(three, await asyncio.gather(*runs), strict=True):
                assert (got.job.state, got.job.error_count) == ("ACKNOWLEDGED", 0), got.job.log
                assert (place / agent.peer_id).read_bytes() == data
                assert forger.peer_id in got.file.peers, "the forger was never asked: this proves nothing"
                standings = {peer.id: peer.standing for peer in (await agent.client.peers()).peers}
                assert [peer for peer, standing in standings.items() if standing == "banned"] == [forger.peer_id]
                assert any("comparing with the origin" in line for line in got.job.log), got.job.log
    assert len(data) <= origin.sent("/file.bin") < 2 * len(data), "three would be one copy for each"
