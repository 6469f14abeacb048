"""The other agents, as the agent sees them: the only thing of this package that jobs are built on.

Composition of identity, roster, memory, discovery, server and client: who is there, what each has, bytes from one
of them, and what happens to one that lies.
Never knows: jobs, the origin, which chunk is best, whether bytes match a digest (the caller sees that and reports).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Protocol, TypeVarTuple

from peer import durable
from peer.cache import PeerCache
from peer.client import Offer, PeerAddress, PeerClient, PeerFetch
from peer.core.admission import Admission
from peer.core.failure import Failure, FailureKind
from peer.core.roster import BAN_S, Consequence, KnownPeer, Offence, Roster, Sighted, Sighting
from peer.core.voucher import PeerId
from peer.database import DatabaseError
from peer.discovery import Announcement, DiscoveryListener, Foreign
from peer.errors import IdentityError
from peer.identity import Identity
from peer.ledger import Ban
from peer.locating import Locating
from peer.meeting import DISTRUST, Meeting, MeetingListener
from peer.memory import Memory
from peer.refusals import Refusal, Refusals, Refused
from peer.server import Caller, Claim, PeerServer
from peer.settings import Discovering, NetworkSettings, PeerStatus
from peer.sink import Fetched, Sink
from peer.workers import Workers
from validation.content import ChunkLayout, ContentId
from validation.ranges import ByteRange

__all__ = [
    "Claim",
    "Discovering",
    "KnownPeer",
    "NetworkSettings",
    "Offence",
    "PeerListener",
    "PeerNetwork",
    "PeerStatus",
]

Ts = TypeVarTuple("Ts")

FIRST_ROUND_S = 0.35
"""From the first mDNS question to the last answer that can be expected: the question waits up to 0.12 s (RFC 6762
§5.2), answers as long again (§6), and the way there and back."""

SAVE_S = 30.0
RENEW_S = 6 * 3600.0


class PeerListener(Protocol):
    """Who is told of comings and goings, on the loop. The two alternate for each peer, `peer_up` first."""

    def peer_up(self, peer: KnownPeer) -> None: ...

    def peer_down(self, peer_id: PeerId) -> None: ...


class PeerNetwork:
    """An agent among others. Made by `open`; whoever opened it closes it. Everything happens on that loop."""

    def __init__(
        self, settings: NetworkSettings, identity: Identity, memory: Memory, cache: PeerCache, workers: Workers
    ) -> None:
        """Use `open`."""
        self.identity = identity
        self.port = 0
        """Where other agents reach us."""
        self._settings, self._cache, self._workers = settings, cache, workers
        self._memory, self._ledger, self._certificates = memory, memory.ledger, memory.certificates
        self._listener: PeerListener
        self._roster = Roster(identity.peer_id)
        self._refusals = Refusals()
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._problems: dict[str, str] = {}
        self._discovery_started: float | None = None
        self._settled = asyncio.Event()
        self._closing = False
        self._client = PeerClient(identity, workers, lambda: self.port or None, self._certificates.find)
        self._meeting = Meeting(
            self._roster,
            self._client,
            identity,
            MeetingListener(
                peer_up=self._peer_up,
                peer_down=self._peer_down,
                refused=self._refused_there,
                idle=self._first_round_over,
            ),
        )
        self._locating: Locating | None = None
        self._server: PeerServer

    @classmethod
    async def open(
        cls,
        settings: NetworkSettings,
        cache: PeerCache,
        workers: Workers,
        listener: PeerListener,
        *,
        claims: Callable[[ContentId], Claim | None] = lambda _: None,
    ) -> PeerNetwork:
        """Listen, announce, and look for others; returns before any is found. `claims`: see PeerServer.

        Raises IdentityError, LedgerError, ListenError, OSError. That mDNS cannot run is only a problem.
        """
        identity = await workers.run(_load_identity, settings)
        self = cls(settings, identity, await Memory.open(settings.home, identity, workers), cache, workers)
        self._listener = listener
        await self._restore_bans()
        self._server = PeerServer(
            identity,
            cache,
            Admission(settings.admission),
            workers,
            on_caller=self._called,
            is_banned=lambda peer_id: self._roster.is_banned(peer_id, time.monotonic()),
            certificates=self._certificates.find,
            claims=claims,
        )
        self.port = await self._server.start(settings.host, settings.port)
        await self._tasks.__aenter__()
        self._begin()
        return self

    async def close(self) -> None:
        """Say goodbye and end everything (about 0.3 s, at most 6 s). Harmless when repeated."""
        if self._closing:
            return
        self._closing = True
        for task in list(self._running):
            task.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._server.close()  # before the goodbye: who checks it must find nobody
        if self._locating is not None:
            await self._locating.close()
        await self._client.close()
        await self._save()

    # who is there

    def live(self) -> list[KnownPeer]:
        """Peers that can be used now, by id."""
        return self._roster.live(time.monotonic())

    def peers(self) -> list[PeerStatus]:
        """Everybody we have met or banned, by id."""
        self._memory.count_given(self._server.counters.bytes_by_peer)
        now, known = time.monotonic(), {}
        for peer in self._roster.known(now):
            known[peer.peer_id] = peer
        return [self._status(item, known.get(item), now) for item in sorted({*known, *self._ledger.peers()})]

    def refusals(self) -> list[Refusal]:
        """Recent refusals in both directions, newest first."""
        both = Refusals()
        for item in reversed(self._refusals.newest_first()):
            both.add(item)
        offset = time.time() - time.monotonic()
        for call in self._server.counters.refusals:
            both.add(
                Refusal(
                    what=Refused.CALL, host=call.address, port=None, reason=call.reason, last_at=call.at + offset
                )
            )
        return both.newest_first()

    @property
    def problems(self) -> list[str]:
        """Sentences about what does not work at the moment, or was found damaged."""
        now = [self._locating.problem if self._locating else None, self._memory.problem]
        return [*self._ledger.problems, *self._problems.values(), *(item for item in now if item is not None)]

    async def settled(self, timeout_s: float) -> None:
        """Returns when the first round of discovery is over, at the latest after `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()

    def network_changed(self) -> None:
        """The machine has other addresses: discovery looks at once instead of within ten seconds."""
        if self._locating is not None:
            self._locating.network_changed()

    # what they have

    async def offer(self, peer_id: PeerId, content_id: ContentId) -> Offer | Failure | None:
        """What a live peer has of a content; None when it has nothing to offer."""
        address = self._address(peer_id)
        if isinstance(address, Failure):
            return address
        answer = await self._client.offer(address, content_id)
        self._heard_from(peer_id, answer)
        return answer

    async def fetch(
        self, peer_id: PeerId, content_id: ContentId, layout: ChunkLayout, item: ByteRange, sink: Sink
    ) -> Fetched | Failure:
        """Bytes from a live peer (at most 16 chunks), with the vouchers that verify and are not of banned members.

        Cancelling ends the request and its connection.
        """
        address = self._address(peer_id)
        if isinstance(address, Failure):
            return address
        request = PeerFetch(address=address, content_id=content_id, layout=layout, item=item)
        outcome = await self._client.fetch(request, sink)
        self._heard_from(peer_id, outcome)
        if isinstance(outcome, Failure):
            return outcome
        self._ledger.count(peer_id, taken=outcome.item.length)
        now = time.monotonic()
        good = tuple(item for item in outcome.vouchers if not self._roster.is_banned(item.signer, now))
        unknown = {item.signer for item in good if self._certificates.find(item.signer) is None}
        for signer in sorted(unknown - {self.identity.peer_id}):
            self._spawn(self._learn_certificate, address, signer)
        return replace(outcome, vouchers=good)

    # who misbehaved

    def report(self, peer_id: PeerId, offence: Offence, detail: str) -> None:
        """A peer misbehaved. A lie bans it: its connections end, what it vouched for is withdrawn, the ban is
        stored. Anything else is a strike (roster). `detail`: one sentence for people, without URLs."""
        now = time.monotonic()
        was_live = self._roster.find(peer_id, now) is not None
        consequence = self._roster.offend(peer_id, offence, now)
        if consequence is Consequence.BANNED:
            at = time.time()
            self._ledger.ban(Ban(peer_id=peer_id, offence=offence, detail=detail, since=at, until=at + BAN_S))
            self._server.disconnect(peer_id)
            self._client.disconnect(peer_id)
            self._spawn(self._withdraw, peer_id)
            self._spawn(self._save)
        if was_live and consequence is not Consequence.PAROLE:
            self._listener.peer_down(peer_id)
        self._meeting.wake()

    def unban(self, peer_id: PeerId) -> bool:
        """Forgive a member; it is tried again at once. False when it was not banned."""
        lifted = self._ledger.unban(peer_id)
        self._roster.unban(peer_id, time.monotonic())
        self._spawn(self._save)
        self._meeting.wake()
        return lifted

    # inside: what others tell us

    def _begin(self) -> None:
        now = time.monotonic()
        for host, port in self._settings.static_peers:
            self._roster.heard(Sighting(host=host, port=port, peer_id=None, how=Sighted.CONFIGURED), now)
        self._spawn(self._meeting.run)
        self._spawn(self._keep_house)
        if self._settings.discovering is Discovering.OFF:
            self._discovery_started = now - FIRST_ROUND_S
            return
        loop = asyncio.get_running_loop()

        def on_loop(act: Callable[..., None], *args: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed while zeroconf's thread still ran
                loop.call_soon_threadsafe(act, *args)

        listener = DiscoveryListener(
            on_found=lambda sighting: on_loop(self._sighted, sighting),
            on_lost=lambda peer_id: on_loop(self._lost, peer_id),
            on_foreign=lambda foreign: on_loop(self._foreign, foreign),
        )
        ours = Announcement(peer_id=self.identity.peer_id, group_tag=self.identity.group_tag, port=self.port)
        self._locating = Locating(ours, self._settings.interfaces, listener, self._looking)
        self._spawn(self._locating.run)

    def _looking(self) -> None:
        failed = self._locating is not None and self._locating.problem is not None
        self._discovery_started = time.monotonic() - (FIRST_ROUND_S if failed else 0.0)
        asyncio.get_running_loop().call_later(FIRST_ROUND_S, self._meeting.wake)
        self._meeting.wake()

    def _sighted(self, sighting: Sighting) -> None:
        self._roster.heard(sighting, time.monotonic())
        self._meeting.wake()

    def _lost(self, peer_id: PeerId) -> None:
        self._roster.lost(peer_id, time.monotonic())
        self._meeting.wake()

    def _foreign(self, foreign: Foreign) -> None:
        self._refuse(Refused.ANNOUNCEMENT, foreign.host, foreign.port, foreign.reason)

    def _called(self, caller: Caller) -> None:
        now = time.monotonic()
        self._roster.spoke(caller.peer_id, now)
        if caller.port is not None:
            self._roster.heard(
                Sighting(host=caller.address, port=caller.port, peer_id=caller.peer_id, how=Sighted.CALLED_US),
                now,
            )
        self._meeting.wake()

    def _peer_up(self, peer: KnownPeer) -> None:
        self._ledger.met(peer.peer_id, peer.name, time.time())
        if self._certificates.find(peer.peer_id) is None:
            address = PeerAddress(peer.peer_id, peer.host, peer.port)
            self._spawn(self._learn_certificate, address, peer.peer_id)
        self._listener.peer_up(peer)

    def _peer_down(self, peer_id: PeerId) -> None:
        self._listener.peer_down(peer_id)

    def _refused_there(self, attempt: Sighting, failure: Failure) -> None:
        self._refuse(Refused.ANSWER, attempt.host, attempt.port, failure.message)

    def _refuse(self, what: Refused, host: str, port: int, reason: str) -> None:
        self._refusals.add(Refusal(what=what, host=host, port=port, reason=reason, last_at=time.time()))

    def _first_round_over(self) -> None:
        if self._discovery_started is not None and time.monotonic() >= self._discovery_started + FIRST_ROUND_S:
            self._settled.set()

    def _address(self, peer_id: PeerId) -> PeerAddress | Failure:
        now = time.monotonic()
        peer = self._roster.find(peer_id, now)
        if peer is not None:
            return PeerAddress(peer_id, peer.host, peer.port)
        if self._roster.is_banned(peer_id, now):
            return Failure(kind=FailureKind.NOT_TRUSTED, message="the peer is banned")
        return Failure(kind=FailureKind.CONNECT_FAILED, message="the peer is gone")

    def _heard_from(self, peer_id: PeerId, outcome: object) -> None:
        """What a request says about the peer being there."""
        now = time.monotonic()
        if not isinstance(outcome, Failure):
            self._roster.spoke(peer_id, now)
            return
        peer = self._roster.find(peer_id, now)
        if peer is not None and outcome.kind in DISTRUST:
            self._refuse(Refused.ANSWER, peer.host, peer.port, outcome.message)
        if self._roster.troubled(peer_id, outcome, now) is not None:
            self._listener.peer_down(peer_id)
        self._meeting.wake()

    def _status(self, peer_id: PeerId, peer: KnownPeer | None, now: float) -> PeerStatus:
        at = time.time()
        ban, traffic = self._ledger.ban_of(peer_id, at), self._ledger.traffic(peer_id)
        return PeerStatus(
            peer_id=peer_id,
            name=peer.name if peer else self._ledger.name_of(peer_id),
            address=f"{peer.host}:{peer.port}" if peer else None,
            live=self._roster.find(peer_id, now) is not None,
            standing=self._roster.standing(peer_id, now),
            last_seen=at - (now - peer.last_seen) if peer else self._ledger.seen(peer_id),
            given=traffic.given,
            taken=traffic.taken,
            version=peer.version if peer else "",
            reason=": ".join(filter(None, (ban.offence, ban.detail))) if ban else "",
            banned_until=ban.until if ban else None,
        )

    # inside: what takes time

    async def _restore_bans(self) -> None:
        at, now = time.time(), time.monotonic()
        for ban in self._ledger.bans(at):
            self._roster.ban(ban.peer_id, now, ban.until - at)
            await self._withdraw(ban.peer_id)  # we may have been killed right after the ban

    async def _withdraw(self, peer_id: PeerId) -> None:
        try:
            await self._cache.withdraw_vouched_by(peer_id)
        except (OSError, DatabaseError) as error:
            self._problems["cache"] = f"chunks that a banned peer vouched for stay in the cache: {error}"

    async def _learn_certificate(self, address: PeerAddress, signer: PeerId) -> None:
        answer = await self._client.certificate(address, signer)
        if not isinstance(answer, Failure):
            self._certificates.add(answer)

    async def _keep_house(self) -> None:
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(SAVE_S)
            await self._save()
            if time.monotonic() - renewed_at >= RENEW_S:
                renewed_at = time.monotonic()
                await self._renew()

    async def _renew(self) -> None:
        try:
            if await self._workers.run(self.identity.renew, time.time()):
                self.identity.reload()
            self._problems.pop("certificate", None)
        except (IdentityError, OSError) as error:
            self._problems["certificate"] = f"the certificate could not be renewed: {error}"

    async def _save(self) -> None:
        self._memory.count_given(self._server.counters.bytes_by_peer)
        await self._memory.save()

    def _spawn(self, work: Callable[[*Ts], Coroutine[None, None, None]], *args: *Ts) -> None:
        if not self._closing:
            task = self._tasks.create_task(_guarded(work, *args))
            self._running.add(task)
            task.add_done_callback(self._running.discard)


def _load_identity(settings: NetworkSettings) -> Identity:
    durable.make_private_directory(settings.home)
    return Identity.load_or_create(settings.home, settings.group, time.time(), settings.name)


async def _guarded(work: Callable[[*Ts], Coroutine[None, None, None]], *args: *Ts) -> None:
    """A task's top: one that fails is told to the loop's handler and takes nobody with it."""
    try:
        await work(*args)
    except Exception as error:  # noqa: BLE001  a task's top: nobody above could do more than tell it
        context = {"message": "a task of the peer network failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
