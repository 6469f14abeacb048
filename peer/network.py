"""The other agents, as the agent sees them: the only thing of this package that jobs are built on.

Composition of identity, roster, memory, discovery, server and client: who is there, what each has, bytes from one
of them, and what happens to one that lies.
Never knows: jobs, the origin, which chunk is best, whether bytes match a digest (the caller sees that and reports).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from peer import durable
from peer.cache import PeerCache
from peer.client import Offer, PeerAddress, PeerClient, PeerFetch
from peer.core.admission import Admission
from peer.core.failure import Failure, FailureKind
from peer.core.roster import KnownPeer, Offence, Roster, Sighted, Sighting
from peer.core.state import State
from peer.core.voucher import PeerId
from peer.discovery import Announcement, DiscoveryListener, Foreign
from peer.errors import IdentityError
from peer.exclusion import Effects, Exclusion
from peer.following import Told
from peer.identity import Identity
from peer.ledger import Traffic
from peer.meeting import DISTRUST, Meeting, MeetingListener
from peer.memory import Memory
from peer.questions import Questions
from peer.refusals import Refusal, Refusals, Refused
from peer.search import Search
from peer.server import Caller, Claim, PeerServer
from peer.settings import Discovering, NetworkSettings, PeerStatus
from peer.sink import Fetched, Sink
from peer.tasks import Tasks
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
        self._tasks = Tasks("a task of the peer network failed")
        self._certificate_problem: str | None = None
        self._listening: dict[ContentId, list[Callable[[PeerId], None]]] = {}
        self._fetching = True
        self._closing = False
        self._client = PeerClient(
            identity,
            workers,
            own_port=lambda: self.port or None,
            signers=self._certificates.find,
            distrusts=lambda: self._exclusion.distrusted(),  # noqa: PLW0108  it is made below
        )
        self._questions = Questions()
        self._search = Search(self._wake)
        self._meeting = Meeting(
            self._roster,
            self._client,
            identity,
            MeetingListener(
                peer_up=self._peer_up,
                peer_down=self._peer_down,
                refused=self._refused_there,
                idle=self._search.all_tried,
            ),
        )
        effects = Effects(
            cut_off=self._cut_off,
            hang_up=self._client.disconnect,
            down=self._peer_down,
            store=self._store,
            wake=self._meeting.wake,
            ask_anew=self._questions.ask_anew,
            spawn=self._tasks.spawn,
        )
        self._exclusion = Exclusion(identity.peer_id, self._roster, self._ledger, cache, effects)
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
        await self._exclusion.restore()
        self._server = PeerServer(
            identity,
            cache,
            Admission(settings.admission),
            workers,
            on_caller=self._called,
            is_banned=self._exclusion.shuts_out,
            certificates=self._certificates.find,
            claims=claims,
            on_asked=self._asked,
            on_denounced=self._exclusion.denounced,
            is_avoided=lambda peer_id: self._roster.is_avoided(peer_id, time.monotonic()),
        )
        cache.on_change = self.changed
        self.port = await self._server.start(settings.host, settings.port)
        await self._tasks.start()
        self._begin()
        return self

    async def close(self) -> None:
        """Say goodbye and end everything (about 0.3 s, at most 6 s). Harmless when repeated."""
        if self._closing:
            return
        self._closing = True
        await self._tasks.stop()
        await self._server.close()  # before the goodbye: who checks it must find nobody
        await self._search.close()
        await self._client.close()
        for peer in self._roster.live(time.monotonic()):
            self._ledger.met(peer.peer_id, peer.name, time.time() - (time.monotonic() - peer.last_seen))
        await self._save()

    # who is there

    def live(self) -> list[KnownPeer]:
        """Peers that can be used now, by id; nobody while fetching is switched off."""
        return self._roster.live(time.monotonic()) if self._fetching else []

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
        now = [self._certificate_problem, self._exclusion.problem, self._search.problem, self._memory.problem]
        return [*self._ledger.problems, *(item for item in now if item is not None)]

    @property
    def traffic(self) -> Traffic:
        """Payload given and taken over the life of this agent, also of peers that were forgotten."""
        self._memory.count_given(self._server.counters.bytes_by_peer)
        return self._ledger.total()

    def given_of(self, content_id: ContentId) -> int:
        """Bytes of this content given to peers since the start, under all its ids."""
        record = self._cache.record(content_id)
        ids = {content_id, *((record.content_id, *record.aliases) if record is not None else ())}
        return sum(self._server.counters.bytes_by_content[item] for item in ids)

    async def settled(self, timeout_s: float) -> None:
        """Returns when the first round of discovery is over, at the latest after `timeout_s` seconds."""
        await self._search.settled(timeout_s)

    def network_changed(self) -> None:
        """The machine has other addresses: discovery looks at once instead of within ten seconds."""
        self._search.network_changed()

    def discover(self) -> bool:
        """Look for peers now: ask the network, and try every address once more. False: a search is under way."""
        if not self._search.again():
            return False
        self._roster.look_again(time.monotonic())
        self._meeting.wake()
        return True

    # the machine's two switches

    def set_fetching(self, on: bool) -> None:
        """False: jobs have no peers, nobody is asked. Others are still met, and served."""
        if on == self._fetching:
            return
        live = self._roster.live(time.monotonic())
        self._fetching = True  # so that the listener hears of it
        for peer in live:
            if on:
                self._listener.peer_up(peer)
            else:
                self._listener.peer_down(peer.peer_id)
        self._fetching = on

    def set_serving(self, on: bool) -> None:
        """False: offers and ranges are answered as if nothing were here. What is being sent is sent to its end."""
        self._server.serving = on

    # what they have

    async def offer(self, peer_id: PeerId, content_id: ContentId) -> Offer | Failure | None:
        """What a live peer has of a content; None when it has nothing to offer."""
        address = self._address(peer_id)
        if isinstance(address, Failure):
            return address
        answer = await self._client.offer(address, content_id)
        self._heard_from(peer_id, answer)
        return answer

    async def follow(
        self, peer_id: PeerId, content_ids: Sequence[ContentId], told: Told, wait_s: int
    ) -> Failure | None:
        """`told` hears what a live peer has of a content, and every change (see `PeerClient.follow`); from the
        beginning when others are banned than before."""
        address = self._address(peer_id)
        if isinstance(address, Failure):
            return address

        def heard(state: State | None, content_id: ContentId) -> bool:
            self._roster.spoke(peer_id, time.monotonic())
            return told(state, content_id)

        outcome = await self._questions.answer(lambda: self._client.follow(address, content_ids, heard, wait_s))
        self._heard_from(peer_id, outcome)
        return outcome

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
            self._tasks.spawn(self._learn_certificate(address, signer))
        return replace(outcome, vouchers=good)

    # what we have ourselves

    def changed(self, content_id: ContentId) -> None:
        """What we claim of this content changed, or whether we want it: peers that watch it hear of that. To be
        called for each of a content's ids, on the loop. (The cache tells of its own changes itself.)"""
        self._server.changed(content_id)

    def listen(self, content_ids: Sequence[ContentId], heard: Callable[[PeerId], None]) -> Callable[[], None]:
        """`heard` is told who asks us for one of these contents, every time, until what is returned is called."""
        for content_id in content_ids:
            self._listening.setdefault(content_id, []).append(heard)

        def end() -> None:
            for content_id in content_ids:
                self._listening[content_id].remove(heard)
                if not self._listening[content_id]:
                    del self._listening[content_id]

        return end

    # who misbehaved, and whom people decide about

    def report(self, peer_id: PeerId, offence: Offence, detail: str) -> None:
        """A peer misbehaved. A lie bans it: it is not asked any more, what it vouched for is withdrawn, the ban is
        stored. Anything else is a strike (roster). `detail`: one sentence for people, without URLs."""
        self._exclusion.report(peer_id, offence, detail)

    def ban(self, peer_id: PeerId, reason: str, duration_s: float) -> bool:
        """Leave a member out as if it had lied, and give it nothing; also one that was never met. False: that is no
        other's id."""
        return self._exclusion.ban(peer_id, reason, duration_s)

    def unban(self, peer_id: PeerId) -> bool:
        """Forgive a member; it is tried again at once. False when it was not banned."""
        return self._exclusion.unban(peer_id)

    def forget(self, peer_id: PeerId) -> bool:
        """Drop a member from the list, with its connections. It comes back when it calls or is found again. False:
        it was not in the list, or it is banned and stays there."""
        return self._exclusion.forget(peer_id)

    def forget_all(self) -> int:
        """Empty the list, but for bans (BITS: ClearPeers). Returns how many were dropped."""
        return self._exclusion.forget_all()

    # inside: what others tell us
    def _begin(self) -> None:
        now = time.monotonic()
        for host, port in self._settings.static_peers:
            self._roster.heard(Sighting(host=host, port=port, peer_id=None, how=Sighted.CONFIGURED), now)
        self._tasks.spawn(self._meeting.run())
        self._tasks.spawn(self._keep_house())
        if self._settings.discovering is Discovering.OFF:
            self._search.without_mdns()
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
        self._tasks.spawn(self._search.by_mdns(ours, self._settings.interfaces, listener))

    def _sighted(self, sighting: Sighting) -> None:
        self._roster.heard(sighting, time.monotonic())
        self._meeting.wake()

    def _lost(self, peer_id: PeerId) -> None:
        self._roster.lost(peer_id, time.monotonic())
        self._meeting.wake()

    def _foreign(self, foreign: Foreign) -> None:
        self._refuse(Refused.ANNOUNCEMENT, foreign.host, foreign.port, foreign.reason)

    def _called(self, caller: Caller) -> None:
        self._roster.called(caller.peer_id, caller.address, caller.port, time.monotonic())
        self._meeting.wake()

    def _asked(self, peer_id: PeerId, content_id: ContentId) -> None:
        for heard in tuple(self._listening.get(content_id, ())):
            heard(peer_id)

    def _wake(self) -> None:
        self._meeting.wake()

    def _peer_up(self, peer: KnownPeer) -> None:
        self._ledger.met(peer.peer_id, peer.name, time.time())
        if self._certificates.find(peer.peer_id) is None:
            address = PeerAddress(peer.peer_id, peer.host, peer.port)
            self._tasks.spawn(self._learn_certificate(address, peer.peer_id))
        if self._fetching:
            self._listener.peer_up(peer)

    def _peer_down(self, peer_id: PeerId) -> None:
        now = time.monotonic()
        if (peer := self._roster.member(peer_id, now)) is not None:
            self._ledger.met(peer_id, peer.name, time.time() - (now - peer.last_seen))
        if self._fetching:
            self._listener.peer_down(peer_id)

    def _cut_off(self, peer_id: PeerId) -> None:
        self._memory.count_given(self._server.counters.bytes_by_peer)
        self._server.disconnect(peer_id)
        self._client.disconnect(peer_id)

    def _store(self) -> None:
        self._tasks.spawn(self._save())

    def _refused_there(self, attempt: Sighting, failure: Failure) -> None:
        self._refuse(Refused.ANSWER, attempt.host, attempt.port, failure.message)

    def _refuse(self, what: Refused, host: str, port: int, reason: str) -> None:
        self._refusals.add(Refusal(what=what, host=host, port=port, reason=reason, last_at=time.time()))

    def _address(self, peer_id: PeerId) -> PeerAddress | Failure:
        if not self._fetching:
            return Failure(kind=FailureKind.CONNECT_FAILED, message="fetching from peers is switched off")
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
            self._peer_down(peer_id)
        self._meeting.wake()

    def _status(self, peer_id: PeerId, peer: KnownPeer | None, now: float) -> PeerStatus:
        at = time.time()
        ban, traffic = self._ledger.ban_of(peer_id, at), self._ledger.traffic(peer_id)
        said_to_lie = self._roster.is_said_to_lie(peer_id, now)
        return PeerStatus(
            peer_id=peer_id,
            name=peer.name if peer else self._ledger.name_of(peer_id),
            address=f"{peer.host}:{peer.port}" if peer else None,
            authenticated=peer is not None or self._certificates.has_shown(peer_id),
            available=self._roster.find(peer_id, now) is not None,
            standing=self._roster.standing(peer_id, now),
            last_seen=at - (now - peer.last_seen) if peer else self._ledger.seen(peer_id),
            given=traffic.given,
            taken=traffic.taken,
            version=peer.version if peer else "",
            reason=ban.reason if ban is not None else _SAID_TO_LIE if said_to_lie else "",
            banned_until=ban.until if ban else None,
        )

    # inside: what takes time

    async def _learn_certificate(self, address: PeerAddress, signer: PeerId) -> None:
        answer = await self._client.certificate(address, signer)
        if not isinstance(answer, Failure):
            self._certificates.add(answer)

    async def _keep_house(self) -> None:
        renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(SAVE_S)
            self._exclusion.forget_absent()
            await self._save()
            if time.monotonic() - renewed_at >= RENEW_S:
                renewed_at = time.monotonic()
                await self._renew()

    async def _renew(self) -> None:
        try:
            if await self._workers.run(self.identity.renew, time.time()):
                self.identity.reload()
            self._certificate_problem = None
        except (IdentityError, OSError) as error:
            self._certificate_problem = f"the certificate could not be renewed: {error}"

    async def _save(self) -> None:
        self._memory.count_given(self._server.counters.bytes_by_peer)
        await self._memory.save()


_SAID_TO_LIE = "left alone: two others say that it lies"


def _load_identity(settings: NetworkSettings) -> Identity:
    durable.make_private_directory(settings.home)
    return Identity.load_or_create(settings.home, settings.group, time.time(), settings.name)
