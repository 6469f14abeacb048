"""One that lies among agents that trust each other: who was lied to says so, and the others need not find out."""

from __future__ import annotations

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
