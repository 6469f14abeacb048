"""Real peer networks on 127.0.0.1: opened for a test, watched, closed after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from peer.cache import CacheLimits, NewChunk, PeerCache
from peer.core.failure import Failure
from peer.core.roster import KnownPeer
from peer.core.voucher import PeerId
from peer.identity import GroupKey
from peer.network import Claim, Discovering, NetworkSettings, PeerNetwork
from peer.sink import Fetched
from peer.workers import Workers
from validation.content import ChunkIndex, ChunkLayout, ContentId
from validation.digest import chunk_digest
from validation.ranges import ByteRange

LOOPBACK = "127.0.0.1"
WAIT_S = 5.0

CONTENT = ContentId("c" * 64)
DATA = bytes(range(256)) * 2048
LAYOUT = ChunkLayout.for_length(len(DATA))
assert LAYOUT.count == 2


class Watch:
    """A `PeerListener` that remembers, and lets tests wait for what it hears."""

    def __init__(self) -> None:
        self.log: list[tuple[str, PeerId]] = []
        self.up: dict[PeerId, KnownPeer] = {}
        self.on_up: list[Callable[[], None]] = []
        self.on_down: list[Callable[[PeerId], None]] = []
        self._news = asyncio.Event()

    def peer_up(self, peer: KnownPeer) -> None:
        assert peer.peer_id not in self.up, "twice up"
        self.up[peer.peer_id] = peer
        self.log.append(("up", peer.peer_id))
        self._news.set()
        for tell in self.on_up:
            tell()

    def peer_down(self, peer_id: PeerId) -> None:
        del self.up[peer_id]  # KeyError: was not up
        self.log.append(("down", peer_id))
        self._news.set()
        for tell in self.on_down:
            tell(peer_id)

    async def until(self, *peers: PeerId) -> None:
        """Exactly these are up."""
        async with asyncio.timeout(WAIT_S):
            while set(self.up) != set(peers):
                self._news.clear()
                await self._news.wait()


@dataclass
class Agent:
    """One opened network with what belongs to it."""

    network: PeerNetwork
    watch: Watch
    cache: PeerCache
    started_in_s: float
    close: Callable[[], Awaitable[None]]

    @property
    def id(self) -> PeerId:
        """Its peer id."""
        return self.network.identity.peer_id


@dataclass
class Lan:
    """Opens agents below `directory` and closes what is still open at the end."""

    directory: Path
    group: GroupKey = field(default_factory=GroupKey.create)
    _open: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def __aenter__(self) -> Lan:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with asyncio.TaskGroup() as closing:
            for name in list(self._open):
                closing.create_task(self.stop(name))

    async def start(
        self, name: str, *, claims: Callable[[ContentId], Claim | None] = lambda _: None, **changes: object
    ) -> Agent:
        """Open the agent `name` (again: with the home it had)."""
        async with AsyncExitStack() as stack:
            workers = Workers(2)
            stack.callback(workers.close)
            home = self.directory / name
            home.mkdir(exist_ok=True)
            cache = await PeerCache.open(home / "cache", CacheLimits(max_bytes=1 << 30), workers, time.time)
            stack.push_async_callback(cache.close)
            settings = NetworkSettings(
                home=home, group=self.group, name=name, host=LOOPBACK, interfaces=(LOOPBACK,)
            )
            settings = replace(settings, **changes)  # type: ignore[arg-type]
            watch = Watch()
            began = time.monotonic()
            network = await PeerNetwork.open(settings, cache, workers, watch, claims=claims)
            stack.push_async_callback(network.close)
            self._open[name] = stack.pop_all()
            return Agent(network, watch, cache, time.monotonic() - began, lambda: self.stop(name))

    async def start_beside(
        self, name: str, *others: Agent, claims: Callable[[ContentId], Claim | None] = lambda _: None
    ) -> Agent:
        """Open it without mDNS (which takes its time to say goodbye), knowing the addresses of `others`."""
        addresses = tuple((LOOPBACK, other.network.port) for other in others)
        agent = await self.start(name, claims=claims, discovering=Discovering.OFF, static_peers=addresses)
        await agent.watch.until(*(other.id for other in others))
        for other in others:
            await until(lambda other=other: agent.id in other.watch.up, "the other knows it too")  # type: ignore[misc]
        return agent

    async def stop(self, name: str) -> None:
        """Close it, in order."""
        await self._open.pop(name).aclose()


class Memory:
    """A `Sink` in memory."""

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self.count = 0

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def arrived(self, item: ByteRange) -> None:
        self.count += item.length


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for something that no event tells, with a limit."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        await asyncio.sleep(0.01)


async def publish(agent: Agent, tmp_path: Path, signers: tuple[Agent, ...] = ()) -> None:
    """Both chunks of DATA go into the agent's cache, vouched for by `signers` (itself when none is named)."""
    path = tmp_path / "content"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        for chunk in map(ChunkIndex, range(LAYOUT.count)):
            item = LAYOUT.range_of(chunk)
            digest = chunk_digest(DATA[item.start : item.stop])
            await agent.cache.add_chunk(
                NewChunk(
                    content_ids=(CONTENT,),
                    layout=LAYOUT,
                    chunk=chunk,
                    digest=digest,
                    vouchers=tuple(
                        signer.network.identity.vouch(CONTENT, chunk, digest) for signer in signers or (agent,)
                    ),
                    source_fd=file.fileno(),
                )
            )


async def fetch(agent: Agent, peer_id: PeerId) -> tuple[Fetched | Failure, Memory]:
    sink = Memory(len(DATA))
    return await agent.network.fetch(peer_id, CONTENT, LAYOUT, LAYOUT.whole, sink), sink
