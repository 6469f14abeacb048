"""Meets peers: tries the addresses the roster names, tells it how each attempt ended.

One attempt is one `hello`, which proves the other's id, tells its name and makes us known to it. An address whose
owner is not known yet is asked for its certificate first.
Never knows: mDNS, bans, content, what peers are used for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from peer.call import Call
from peer.client import PeerAddress, PeerClient
from peer.core.failure import Failure, FailureKind
from peer.core.roster import Introduction, KnownPeer, Roster, Sighting
from peer.core.trust import Refusal as Distrust
from peer.core.voucher import PeerId
from peer.identity import Identity

ATTEMPT_TIMEOUT_S = 8.0
"""Connect and handshake have 5 s each in the client; the rest of a hello is one round trip."""

LONGEST_SLEEP_S = 15.0
SHORTEST_SLEEP_S = 0.02
"""A wrong deadline must not become a busy loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingListener:
    """Who is told, on the loop. `refused` is called for attempts that ended in distrust on either side."""

    peer_up: Callable[[KnownPeer], None]
    peer_down: Callable[[PeerId], None]
    refused: Callable[[Sighting, Failure], None]
    idle: Callable[[], None]
    """Called when no attempt runs and nobody is left who was never tried."""


class Meeting:
    """The loop between roster and client. `run` until cancelled; `wake` after every change of the roster."""

    def __init__(self, roster: Roster, client: PeerClient, identity: Identity, listener: MeetingListener) -> None:
        self._roster, self._client, self._identity, self._listener = roster, client, identity, listener
        self._context = identity.client_context()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """The roster has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Try whom the roster names, as soon as it names them. Ends when cancelled."""
        async with asyncio.TaskGroup() as attempts:
            while True:
                self._changed.clear()
                now = time.monotonic()
                for attempt in self._roster.candidates_to_try(now):
                    attempts.create_task(self._try(attempt))
                if self._roster.untried(now) == 0:
                    self._listener.idle()
                deadline = self._roster.deadline(now)
                pause = LONGEST_SLEEP_S if deadline is None else min(LONGEST_SLEEP_S, deadline - now)
                await _wait(self._changed, max(SHORTEST_SLEEP_S, pause))

    async def _try(self, attempt: Sighting) -> None:
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                outcome = await self._introduction(attempt)
        except TimeoutError:
            outcome = Failure(kind=FailureKind.CONNECT_TIMEOUT, message="it did not answer in time")
        except Exception as error:  # noqa: BLE001  a task's top: an address nobody foresaw ends one attempt only
            outcome = Failure(kind=FailureKind.CONNECT_FAILED, message=f"no connection: {error}")
        now = time.monotonic()
        if isinstance(outcome, Failure):
            if outcome.kind in DISTRUST:
                self._listener.refused(attempt, outcome)
            if (gone := self._roster.failed(attempt, outcome, now)) is not None:
                self._listener.peer_down(gone)
        elif (peer := self._roster.authenticated(outcome, now)) is not None:
            self._listener.peer_up(peer)
        self.wake()

    async def _introduction(self, attempt: Sighting) -> Introduction | Failure:
        peer_id = attempt.peer_id
        if peer_id is None:
            learnt = await self._owner_of(attempt.host, attempt.port)
            if isinstance(learnt, Failure):
                return learnt
            peer_id = learnt
        if peer_id == self._identity.peer_id:
            name, version = self._identity.name, ""
        else:
            hello = await self._client.hello(PeerAddress(peer_id, attempt.host, attempt.port))
            if isinstance(hello, Failure):
                return hello
            name, version = hello.name, hello.version
        return Introduction(peer_id=peer_id, host=attempt.host, port=attempt.port, name=name, version=version)

    async def _owner_of(self, host: str, port: int) -> PeerId | Failure:
        """Whose certificate is shown there; the connection is closed at once."""
        verdicts: list[PeerId | Distrust] = []
        over = asyncio.Event()

        def judge(certificate: bytes) -> Failure | None:
            verdict = self._identity.judge_certificate(certificate, time.time())
            verdicts.append(verdict)
            if isinstance(verdict, Distrust):
                return Failure(kind=FailureKind.NOT_TRUSTED, message=f"its certificate is refused: {verdict}")
            return None

        call = Call(self._context, judge, lambda _: over.set())
        try:
            failure = await call.connect(host, port)
        finally:
            call.channel.close()
        if failure is not None:
            return failure
        await over.wait()  # within the attempt's time: the channel lingers 2 s at most
        (verdict,) = verdicts
        assert not isinstance(verdict, Distrust)
        return verdict


DISTRUST = frozenset({FailureKind.NOT_TRUSTED, FailureKind.TLS_CERTIFICATE, FailureKind.TLS_FAILED})
"""Failures that mean: somebody is there, and one of us two does not want the other."""


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
