"""Our connections to peers for one purpose: at most so many to each peer, kept for a while after their use.

Never knows: what is asked, what an answer means. (A request that dies on a connection kept from earlier, before any
byte of an answer, is sent once more on a fresh one: that connection had ended before the request began.)
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from peer.call import Begin, Call
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import PeerId
from peer.identity import Identity

WAIT_FOR_CONNECTION_S = 30.0
CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer is said to be. Its certificate must have exactly this peer id."""

    peer_id: PeerId
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A request's head, and who takes the answer."""

    request: bytes
    begin: Begin


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """How many connections to one peer, and how long one that nobody uses is kept."""

    connections: int
    idle_s: float


@dataclass(slots=True)
class _Line:
    """The connections to one peer."""

    free: asyncio.Semaphore
    idle: list[tuple[PeerAddress, Call, asyncio.TimerHandle]] = field(default_factory=list)
    calls: set[Call] = field(default_factory=set)
    users: int = 0


class Lines:
    """Everything happens on the loop that uses it. Whoever makes it closes it."""

    def __init__(self, identity: Identity, limits: LineLimits) -> None:
        self._identity, self._limits = identity, limits
        self._context = identity.client_context()
        self._lines: dict[PeerId, _Line] = {}
        self._nobody_left = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Peers with a connection, or somebody who waits for one."""
        return len(self._lines)

    def full(self, peer_id: PeerId) -> bool:
        """Whoever comes now has to wait for a connection."""
        line = self._lines.get(peer_id)
        return line is not None and line.free.locked()

    async def perform(self, address: PeerAddress, errand: Errand) -> int | Failure:
        """One exchange, on a kept connection or a new one. The length of the answer's body, or why not."""
        if self._closed:
            return Failure(kind=FailureKind.ABORTED, message="the agent is stopping")
        line = self._lines.get(address.peer_id)
        if line is None:
            line = self._lines[address.peer_id] = _Line(asyncio.Semaphore(self._limits.connections))
        line.users += 1
        try:
            try:
                async with asyncio.timeout(WAIT_FOR_CONNECTION_S):
                    await line.free.acquire()
            except TimeoutError:
                return Failure(kind=FailureKind.BUSY, message="our connections to this peer are all in use")
            try:
                return await self._exchange(line, address, errand)
            finally:
                line.free.release()
        finally:
            line.users -= 1
            self._forget_empty(address.peer_id, line)

    def disconnect(self, peer_id: PeerId) -> None:
        """End the connections to this peer at once; exchanges under way fail with CONNECTION_CLOSED."""
        line = self._lines.get(peer_id)
        for call in list(line.calls) if line else []:
            call.channel.abort()

    async def close(self) -> None:
        """End all connections. Exchanges that are still under way fail."""
        self._closed = True
        for peer_id in list(self._lines):
            self.disconnect(peer_id)
        if any(line.calls for line in self._lines.values()):
            self._nobody_left.clear()
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._nobody_left.wait()

    async def _exchange(self, line: _Line, address: PeerAddress, errand: Errand) -> int | Failure:
        while True:
            call = self._take_idle(line, address) or await self._connect(line, address)
            if isinstance(call, Failure):
                return call
            outcome = await call.exchange(errand.request, errand.begin)
            if call.usable:
                timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self._drop_idle, line, call)
                line.idle.append((address, call, timer))
            gone = isinstance(outcome, Failure) and outcome.kind is FailureKind.CONNECTION_CLOSED
            if not (gone and call.reused and not call.heard):
                return outcome

    def _take_idle(self, line: _Line, address: PeerAddress) -> Call | None:
        """A kept connection to exactly this address; those to an earlier one are closed."""
        while line.idle:
            kept, call, timer = line.idle.pop()
            timer.cancel()
            if call.usable and kept == address:
                call.reused = True
                return call
            call.channel.close()
        return None

    async def _connect(self, line: _Line, address: PeerAddress) -> Call | Failure:
        def judge(certificate: bytes) -> Failure | None:
            who = self._identity.check_certificate(certificate, time.time())
            if who == address.peer_id:
                return None
            reason = "its certificate is not of our group" if who is None else "another agent answers there"
            return Failure(kind=FailureKind.NOT_TRUSTED, message=reason)

        def gone(call: Call) -> None:
            line.calls.discard(call)
            for kept in [kept for kept in line.idle if kept[1] is call]:
                kept[2].cancel()
                line.idle.remove(kept)
            self._forget_empty(address.peer_id, line)
            if not any(other.calls for other in self._lines.values()):
                self._nobody_left.set()

        call = Call(self._context, judge, gone)
        line.calls.add(call)
        failure = await call.connect(address.host, address.port)
        return call if failure is None else failure

    def _drop_idle(self, line: _Line, call: Call) -> None:
        line.idle = [kept for kept in line.idle if kept[1] is not call]
        call.channel.close()

    def _forget_empty(self, peer_id: PeerId, line: _Line) -> None:
        if not line.users and not line.calls:
            self._lines.pop(peer_id, None)
