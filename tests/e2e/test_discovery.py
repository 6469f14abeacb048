"""Agents find each other by real mDNS on `lo`, within a second, and say goodbye."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.support.agents import Agent, Fleet

SEEN_S = 1.0
"""From the second agent's ready document until each sees the other (the issue's figure)."""
GOODBYE_S = 2.0


async def seen_after(agent: Agent, other: Agent, since: float) -> float:
    """Seconds from `since` until `agent` has shaken hands with `other`."""
    await agent.met(other)
    return time.monotonic() - since


async def test_two_agents_see_each_other_within_a_second(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        first = await asyncio.to_thread(fleet.start, "first")
        second = await asyncio.to_thread(fleet.start, "second")
        took = await asyncio.gather(
            seen_after(first, second, second.ready_at), seen_after(second, first, second.ready_at)
        )
        from_start = max(took) + second.ready_at - second.started_at
        print(f"seen {max(took):.3f} s after ready, {from_start:.3f} s after the process was started")
        assert max(took) < SEEN_S

        listed = (await first.call("peer", "list", "--json")).document["peers"]
        (row,) = [row for row in listed if row["id"] == second.peer_id]
        assert (row["name"], row["port"], row["standing"]) == ("second", second.peer_port, "good")
        assert (row["authenticated"], row["available"]) == (True, True)
        assert "second" in (await first.call("peer", "list")).out
        doctor = await second.call("doctor")
        assert doctor.exit_code == 0, doctor.out

        began = time.monotonic()
        assert await asyncio.to_thread(second.stop) == 0
        await first.sees(
            lambda peers: not any(peer.available for peer in peers), "that the second has left", GOODBYE_S
        )
        assert time.monotonic() - began < GOODBYE_S + 5

        again = await asyncio.to_thread(second.start)
        await asyncio.gather(first.met(again), again.met(first))
        assert (again.peer_id, len((await first.client.peers()).peers)) == (second.peer_id, 1)


async def test_agents_of_another_group_are_not_met(tmp_path: Path) -> None:
    with Fleet(tmp_path / "ours") as ours, Fleet(tmp_path / "theirs") as theirs:
        a, b = await ours.start_together("a", "b")
        stranger = await asyncio.to_thread(theirs.start, "stranger")
        assert stranger.peer_id not in {a.peer_id, b.peer_id}
        await a.met(b)
        for agent in (a, b, stranger):
            known = {peer.id for peer in (await agent.client.peers()).peers}
            assert known <= {a.peer_id, b.peer_id}
            assert (agent is stranger) == (known == set())


async def test_a_static_peer_needs_no_multicast(tmp_path: Path) -> None:
    """Two agents on different loopback addresses that only know each other's port."""
    with Fleet(tmp_path) as fleet:
        a = await asyncio.to_thread(fleet.start, "a")
        b = fleet.agent("b", "--peer", f"127.0.0.1:{a.peer_port}")
        b.interface = "127.0.0.2"
        await asyncio.to_thread(b.start)
        await asyncio.gather(a.met(b), b.met(a))


async def test_killed_agents_are_met_at_their_new_port(tmp_path: Path) -> None:
    """Again and again, also while the last meeting is still fresh: the new port has proof, the old one had too."""
    with Fleet(tmp_path) as fleet:
        a, b = await fleet.start_together("a", "b")
        for _ in range(3):
            old = b.peer_port
            b.kill()
            await asyncio.to_thread(b.start)
            assert b.peer_port != old
            await asyncio.gather(a.met(b), b.met(a))
            assert len((await a.client.peers()).peers) == 1
