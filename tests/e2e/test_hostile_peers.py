"""Peers that lie, stall, or are nobody: a download takes some time and ends right; liars are banned, others not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.schema import PeerDocument
from tests.support.agents import Agent, Fleet, Outcome, download, leftovers, nearfetch
from tests.support.hostile_peer import HostilePeer, Mischief, Stranger
from tests.support.members import context_of, forge
from tests.support.origin import Origin

BOUND_S = 35.0
"""For 25 jobs at once on two cores: a claim that leads to nothing is believed for 12 s after the last chunk."""
SIZE = 3 * 1024 * 1024
LIARS = {Mischief.WRONG_BYTES, Mischief.FORGED, Mischief.CONFLICT}
"""Proven to have lied: banned. The others may be unlucky."""

HARMLESS = {Mischief.NONE}


@dataclass
class Case:
    """One hostile peer, the content that only it offers, and what came of the job."""

    peer: HostilePeer
    data: bytes
    path: Path
    outcome: Outcome | None = None
    seen: PeerDocument | None = None

    def complaints(self) -> list[str]:
        """What is not as it must be."""
        done, peer = self.outcome, self.peer
        if done is None:
            return ["did not end in time"]
        found = []
        if done.job.state != "ACKNOWLEDGED" or self.path.read_bytes() != self.data:
            return [f"{done.job.state}, {done.error}: {done.job.error}"]
        if any("ERROR" in state for state in done.states) or done.job.error_count:
            found.append(f"the job showed an error: {done.states}")
        if not any("/content/" in target or "/news?" in target for target in peer.requests):
            found.append("the peer was never asked: this proves nothing")
        banned = self.seen is not None and self.seen.standing == "banned"
        if banned != (peer.mischief in LIARS):
            found.append(f"banned: {banned} ({self.seen})")
        if banned and self.seen is not None and not self.seen.reason:
            found.append("banned without a reason")
        from_peer = done.file.peers.get(peer.peer_id, 0)
        if peer.mischief in HARMLESS and (from_peer, done.file.bytes_from_origin) != (len(self.data), 0):
            found.append(f"an honest peer gave {from_peer}, the origin {done.file.bytes_from_origin}")
        if from_peer > 3 * len(self.data):
            found.append(f"{from_peer} bytes were taken from it")
        if done.seconds > BOUND_S:
            found.append(f"it took {done.seconds:.1f} s")
        return [f"{text}; log: {done.job.log}" for text in found]


@contextlib.asynccontextmanager
async def hostile_peers(directory: Path, group_key: str, agent: Agent) -> AsyncIterator[list[Case]]:
    """One of each kind, known to the agent. Lengths differ, so that each is asked for its own content only."""
    async with contextlib.AsyncExitStack() as stack:
        cases = []
        for index, mischief in enumerate(Mischief):
            data = os.urandom(SIZE + index * 1000)
            peer = HostilePeer(directory / str(index), group_key, data, mischief)
            cases.append(Case(await stack.enter_async_context(peer), data, directory / "place" / f"f{index}"))
        for case in cases:  # one by one: an agent allows one address only so many handshakes at once
            await case.peer.introduce(agent.peer_id, agent.peer_port)
        wanted = {case.peer.peer_id for case in cases}
        await agent.sees(lambda peers: wanted <= {peer.id for peer in peers if peer.available}, "all of them")
        yield cases


async def test_every_kind_of_hostile_peer(tmp_path: Path, origin: Origin) -> None:
    """All at once, each with a job of its own, beside an honest agent."""
    (tmp_path / "place").mkdir()
    with Fleet(tmp_path / "fleet") as fleet:
        victim = fleet.agent("victim", config="background_jobs = 50\n")
        honest = fleet.agent("honest")
        await asyncio.gather(asyncio.to_thread(victim.start), asyncio.to_thread(honest.start))
        await victim.met(honest)
        async with hostile_peers(tmp_path, fleet.group_key, victim) as cases:
            await asyncio.gather(*(run(victim, origin, case) for case in cases))
            await fill_in(victim, cases)
            for case in cases:
                print(line_of(case))
            complaints = {case.peer.mischief.value: found for case in cases if (found := case.complaints())}
            assert complaints == {}
            assert leftovers(tmp_path / "place") == sorted(case.path.name for case in cases)

            listed = {peer.id: peer for peer in (await victim.client.peers()).peers}
            assert listed[honest.peer_id].standing == "good"
            await check_bans_last(victim, cases)


async def run(agent: Agent, origin: Origin, case: Case) -> None:
    path = f"/{case.path.name}"
    origin.add(path, case.data)
    digest = {"digest": f"sha256:{hashlib.sha256(case.data).hexdigest()}"}
    with contextlib.suppress(TimeoutError):
        case.outcome = await download(agent, origin.url(path), case.path, settings=digest, timeout_s=2 * BOUND_S)


async def fill_in(agent: Agent, cases: list[Case]) -> None:
    """How the agent thinks of each."""
    listed = {peer.id: peer for peer in (await agent.client.peers()).peers}
    for case in cases:
        case.seen = listed.get(case.peer.peer_id)


def line_of(case: Case) -> str:
    """For people who run this with -s."""
    done, seen = case.outcome, case.seen
    if done is None:
        return f"{case.peer.mischief.value:32} did not end"
    file = done.file
    thought = "unknown" if seen is None else f"{seen.standing:10} {seen.reason or ''}"
    return (
        f"{case.peer.mischief.value:32} {done.seconds:5.1f} s  peer {file.bytes_from_peers:>9,}"
        f"  origin {file.bytes_from_origin:>9,}  {thought}"
    )


async def check_bans_last(victim: Agent, cases: list[Case]) -> None:
    """A ban survives a restart, and a banned peer that calls again is not made use of."""
    assert await asyncio.to_thread(victim.stop) == 0
    await asyncio.to_thread(victim.start)
    for case in cases:
        await case.peer.introduce(victim.peer_id, victim.peer_port)
    listed = {peer.id: peer for peer in (await victim.client.peers()).peers}
    for case in cases:
        banned = case.peer.peer_id in listed and listed[case.peer.peer_id].standing == "banned"
        assert banned == (case.peer.mischief in LIARS), case.peer.mischief
        if banned:
            assert listed[case.peer.peer_id].reason
            assert not listed[case.peer.peer_id].available


async def test_an_honest_peer_beside_a_liar(tmp_path: Path, origin: Origin, place: Path) -> None:
    """Both have the content: the liar is banned, the honest one keeps its good standing, the file is right."""
    data = os.urandom(SIZE)
    origin.add("/both.bin", data)
    digest = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    with Fleet(tmp_path / "fleet") as fleet:
        victim, honest = await fleet.start_together("victim", "honest")
        await download(honest, origin.url("/both.bin"), place / "honest")
        async with HostilePeer(tmp_path / "liar", fleet.group_key, data, Mischief.FORGED) as liar:
            await liar.introduce(victim.peer_id, victim.peer_port)
            await victim.sees(lambda peers: len(peers) == 2 and all(p.available for p in peers), "both")
            got = await download(victim, origin.url("/both.bin"), place / "file", settings=digest)
            assert got.job.state == "ACKNOWLEDGED"
            assert got.job.error_count == 0
            assert (place / "file").read_bytes() == data
            standings = {peer.id: peer.standing for peer in (await victim.client.peers()).peers}
            assert standings[honest.peer_id] == "good"
            if any("/bytes" in target for target in liar.requests):
                assert standings[liar.peer_id] == "banned"


@pytest.fixture(name="strangers")
async def run_strangers(tmp_path: Path) -> AsyncIterator[dict[str, Stranger]]:
    """Everybody who is no member, listening somewhere."""
    other_group = str(nearfetch("group", "create", "--json", home=tmp_path / "other").document["key"])
    foreign = HostilePeer(tmp_path / "foreign", other_group, b"x" * 300_000, Mischief.NONE)
    self_signed = forge(tmp_path / "self-signed", None)
    made = {
        "plain HTTP": Stranger(says=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
        "says nothing": Stranger(),
        "self-signed": Stranger(context_of(self_signed, ssl.PROTOCOL_TLS_SERVER)),
        "another group": Stranger(context_of_identity(foreign)),
    }
    async with contextlib.AsyncExitStack() as stack:
        for stranger in made.values():
            await stack.enter_async_context(stranger)
        yield made


def context_of_identity(peer: HostilePeer) -> ssl.SSLContext:
    """A member of another group that would talk to anybody."""
    context = peer.identity.server_context()
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_strangers_get_nothing_and_cost_nothing(
    tmp_path: Path, origin: Origin, place: Path, strangers: dict[str, Stranger]
) -> None:
    data = os.urandom(SIZE)
    origin.add("/canary.bin", data)
    with Fleet(tmp_path / "fleet") as fleet:
        flags = [word for stranger in strangers.values() for word in ("--peer", stranger.address)]
        agent = await asyncio.to_thread(fleet.start, "agent", *flags, "--peer", "127.0.0.1:9")
        got = await download(agent, origin.url("/canary.bin"), place / "f")
        assert got.job.state == "ACKNOWLEDGED"
        assert (place / "f").read_bytes() == data
        assert got.seconds < 5.0, "a download waited for strangers"
        assert got.file.bytes_from_origin == len(data)
        found = await agent.client.peers()
        assert [peer for peer in found.peers if peer.authenticated or peer.available] == []
        assert [name for name, stranger in strangers.items() if b"content" in stranger.heard] == []
        assert [name for name in ("self-signed", "another group") if strangers[name].heard] == []
        ports = [
            strangers[name].address.rpartition(":")[2] for name in ("plain HTTP", "self-signed", "another group")
        ]
        async with asyncio.timeout(10):
            while not all(any(f":{port}:" in line for line in found.refused) for port in ports):
                await asyncio.sleep(0.05)
                found = await agent.client.peers()
        print("\n".join(found.refused))
        assert "Traceback" not in agent.log


async def test_callers_without_a_certificate_are_closed_out(tmp_path: Path) -> None:
    with Fleet(tmp_path / "fleet") as fleet:
        agent = await asyncio.to_thread(fleet.start, "agent")
        forged = forge(tmp_path / "self-signed", None)
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
        for context in (None, nobody, old, context_of(forged, ssl.PROTOCOL_TLS_CLIENT)):
            assert await ask(agent.peer_port, context) == b""
        assert "Traceback" not in agent.log
        assert (await agent.client.about()).peer_id == agent.peer_id


async def ask(port: int, context: ssl.SSLContext | None) -> bytes:
    """What an agent says to such a caller."""
    async with asyncio.timeout(15):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        except (ssl.SSLError, OSError):
            return b""
        try:
            writer.write(b"GET /nearfetch/1/hello HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.read()
        except (ssl.SSLError, OSError):
            return b""
        finally:
            writer.transport.abort()
    return answer if b"HTTP" in answer else b""
