"""Asking near: who has this content? The own cache first, then the live peers, each watched for what changes.

Turns answers into `SourceOffered` and `SourceLost`. Never decides which source is used, never fetches.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from agent.context import Context
from agent.core.commands import AskNear
from agent.core.events import CrowdSized, NearAnswered, SourceLost, SourceOffered
from agent.core.neighbours import neighbours_among
from agent.core.rendezvous import Group
from agent.core.sources import CACHE, peer_source
from agent.near_peer import PeerWatch
from peer.core.state import State
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ContentId

if TYPE_CHECKING:
    from peer.network import PeerNetwork

CALLERS_KEPT = 256
"""Peers that asked us for the content and are asked before others; a group can be larger than that."""

SETTLE_S = 0.8
"""Longest wait for the first round of discovery of an agent that has just started."""

LOOK_S = 5.0
"""How often the list of live peers is looked at when nobody says that it changed."""


class NearWatch:
    """Asks for one file until it is stopped."""

    def __init__(self, context: Context, command: AskNear) -> None:
        self._context = context
        self._command = command
        self._rng = random.Random()
        self._watches: dict[PeerId, PeerWatch] = {}
        """At most `_most`, those included that have everything and are watched no more."""
        self._most = 0
        self._posted: dict[PeerId, State] = {}
        """What was said of each peer that is offered."""
        self._asked: set[PeerId] = set()
        """Live peers that were asked, watched or not."""
        self._callers: set[PeerId] = set()
        self._unasked: list[PeerId] = []
        self._spare: list[PeerId] = []
        """Peers that were asked and had nothing; both lists are in random order, the next one last."""
        self._look = True
        """The live peers are others than before."""
        self._wake = asyncio.Event()
        self._stopped = False
        self._gathering = True
        """Those who were asked first have not all answered."""
        self._size, self._sized_at = 0, float("-inf")
        """How many were said to want it, and when that was looked at."""

    def stop(self) -> None:
        """Ask no more. Harmless when repeated."""
        self._stopped = True
        self._wake.set()

    def peer_up(self) -> None:
        """Somebody new is there: ask at once."""
        self._look = True
        self._wake.set()

    def peer_down(self, peer: PeerId) -> None:
        """A peer went away, or was banned."""
        self._leave(peer)
        self._asked.discard(peer)
        self._callers.discard(peer)
        self._look = True
        self._wake.set()

    def id_for(self, peer: PeerId) -> ContentId:
        """By which id that peer knows the content."""
        watch = self._watches.get(peer)
        known = None if watch is None else watch.content_id
        return known or self._command.content_ids[0]

    async def run(self) -> None:
        """Until stopped: answers `AskNear`."""
        self._offer_cache()
        network = self._context.parts.network
        if network is None:
            self._post(NearAnswered(file=self._command.file))
            return
        end_listening = network.listen(self._command.content_ids, self._called)
        try:
            await network.settled(SETTLE_S)
            async with asyncio.TaskGroup() as group:
                await self._watch_all(network, group)
                for peer in list(self._watches):
                    self._leave(peer)
        finally:
            end_listening()

    async def _watch_all(self, network: PeerNetwork, group: asyncio.TaskGroup) -> None:
        self._fill(network, group)
        first = list(self._watches.values())
        while not self._stopped:
            if self._gathering and all(watch.asked for watch in first):
                self._gathering = False
                self._size_up(network)
                self._post(NearAnswered(file=self._command.file))
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                self._look = True
            self._wake.clear()
            if not self._stopped:
                self._fill(network, group)
                if not self._gathering and asyncio.get_running_loop().time() >= self._sized_at + LOOK_S:
                    self._size_up(network)

    def _size_up(self, network: PeerNetwork) -> None:
        """Of those that were asked a share wants it; of all others about as many, in proportion, will do."""
        self._sized_at = asyncio.get_running_loop().time()
        live, watches = network.live(), self._watches.values()
        wanting = sum(watch.seen is not None and watch.seen.wants for watch in watches)
        answered = len(self._asked) - sum(not watch.asked for watch in watches)
        size = 1 + round(len(live) * wanting / max(1, answered))
        if (len(live) <= self._most and not self._size) or abs(size - self._size) <= self._size // 4:
            return
        self._size = size
        group = Group((network.identity.peer_id, *(peer.peer_id for peer in live)))
        self._post(CrowdSized(file=self._command.file, size=size, group=group))

    def _post(self, event: SourceOffered | SourceLost | NearAnswered | CrowdSized) -> None:
        if not self._stopped:
            self._context.post(event)

    def _offer_cache(self) -> None:
        have = NO_CHUNKS
        for content_id in self._command.content_ids:
            entry = self._context.parts.cache.find(content_id)
            if entry is not None and entry.layout == self._command.layout:
                have = Bitfield(have | entry.have)
        if have:
            self._post(SourceOffered(file=self._command.file, source=CACHE, have=have, claimed=NO_CHUNKS))

    # --- whom to watch ---------------------------------------------------------------------------------------

    def _called(self, peer: PeerId) -> None:
        """It asks us for this content: it has a part in it, or will have."""
        if peer not in self._watches and peer not in self._callers and len(self._callers) < CALLERS_KEPT:
            self._callers.add(peer)
            self._asked.discard(peer)
            self._look = True
            self._wake.set()

    def _fill(self, network: PeerNetwork, group: asyncio.TaskGroup) -> None:
        """Watch as many as there may be. Who was never asked goes before who had nothing, and takes its place."""
        if self._look:
            self._look = False
            self._see_who_is_there(network)
        while self._unasked or self._spare:
            if len(self._watches) >= self._most and not (self._unasked and self._make_room()):
                return
            peer = (self._unasked or self._spare).pop()
            watch = PeerWatch(network, self._command, peer, self._told)
            self._watches[peer] = watch
            self._asked.add(peer)
            watch.task = group.create_task(watch.run())

    def _see_who_is_there(self, network: PeerNetwork) -> None:
        live = [peer.peer_id for peer in network.live()]
        self._most = neighbours_among(len(live))
        for peer in self._watches.keys() - live:
            if self._watches[peer].seen is None:
                self._leave(peer)
                self._asked.discard(peer)
        self._unasked = [peer for peer in live if peer not in self._asked]
        self._rng.shuffle(self._unasked)
        self._unasked.sort(key=self._callers.__contains__)
        self._spare = [peer for peer in live if peer in self._asked and peer not in self._watches]
        self._rng.shuffle(self._spare)

    def _make_room(self) -> bool:
        """One that had nothing is watched no more."""
        for peer, watch in self._watches.items():
            if watch.asked and watch.seen is None:
                self._leave(peer)
                self._spare.insert(0, peer)
                return True
        return False

    def _leave(self, peer: PeerId) -> None:
        watch = self._watches.pop(peer, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()
            watch.asked = True
        self._offer(peer, None)

    # --- what they said --------------------------------------------------------------------------------------

    def _told(self, watch: PeerWatch) -> None:
        if self._watches.get(watch.peer) is watch:
            self._offer(watch.peer, watch.seen)
            if self._gathering or watch.seen is None:
                self._wake.set()

    def _offer(self, peer: PeerId, seen: State | None) -> None:
        """Report what is new about a peer."""
        if seen == self._posted.get(peer):
            return
        file, source = self._command.file, peer_source(peer)
        if seen is None:
            del self._posted[peer]
            self._post(SourceLost(file=file, source=source))
        else:
            self._posted[peer] = seen
            self._post(
                SourceOffered(file=file, source=source, have=seen.have, claimed=seen.claimed, wants=seen.wants)
            )
