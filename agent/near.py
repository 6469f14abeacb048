"""Asking near: who has this content? The own cache first, then every live peer, again while it may change.

Turns answers into `SourceOffered` and `SourceLost`. Never decides which source is used, never fetches.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from agent.context import Context
from agent.core.commands import AskNear
from agent.core.events import NearAnswered, SourceLost, SourceOffered
from agent.core.sources import CACHE, peer_source
from peer.core.failure import Failure
from peer.core.voucher import PeerId
from peer.core.wire import Offer
from validation.content import NO_CHUNKS, Bitfield, ContentId, decode_bitfield

if TYPE_CHECKING:
    from peer.network import PeerNetwork

ASK_AGAIN_S = 0.5
"""How often a peer is asked again that has only a part, or nothing yet."""
SETTLE_S = 0.8
"""Longest wait for the first round of discovery of an agent that has just started."""


class NearWatch:
    """Asks for one file until it is stopped."""

    def __init__(self, context: Context, command: AskNear) -> None:
        self._context = context
        self._command = command
        self._answered_for: dict[PeerId, ContentId] = {}
        self._complete: set[PeerId] = set()
        self._wake = asyncio.Event()
        self._stopped = False

    def stop(self) -> None:
        """Ask no more. Harmless when repeated."""
        self._stopped = True
        self._wake.set()

    def peer_up(self) -> None:
        """Somebody new is there: ask at once."""
        self._wake.set()

    def peer_down(self, peer: PeerId) -> None:
        """A peer went away, or was banned."""
        self._complete.discard(peer)
        if self._answered_for.pop(peer, None) is not None:
            self._post(SourceLost(file=self._command.file, source=peer_source(peer)))

    def id_for(self, peer: PeerId) -> ContentId:
        """By which id that peer knows the content."""
        return self._answered_for.get(peer, self._command.content_ids[0])

    async def run(self) -> None:
        """Until stopped: answers `AskNear`."""
        self._offer_cache()
        network = self._context.parts.network
        if network is None:
            self._post(NearAnswered(file=self._command.file))
            return
        await network.settled(SETTLE_S)
        await self._ask_all(network)
        self._post(NearAnswered(file=self._command.file))
        while not self._stopped:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), ASK_AGAIN_S)
            self._wake.clear()
            if not self._stopped:
                await self._ask_all(network)

    def _post(self, event: SourceOffered | SourceLost | NearAnswered) -> None:
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

    async def _ask_all(self, network: PeerNetwork) -> None:
        async with asyncio.TaskGroup() as group:
            for peer in network.live():
                if peer.peer_id not in self._complete:
                    group.create_task(self._ask(network, peer.peer_id))

    async def _ask(self, network: PeerNetwork, peer: PeerId) -> None:
        for content_id in self._command.content_ids:
            answer = await network.offer(peer, content_id)
            if isinstance(answer, Failure):
                break
            if answer is not None and (have := self._have(answer)):
                if have == self._command.layout.everything:
                    self._complete.add(peer)
                self._answered_for[peer] = content_id
                source = peer_source(peer)
                self._post(SourceOffered(file=self._command.file, source=source, have=have, claimed=NO_CHUNKS))
                return
        self.peer_down(peer)

    def _have(self, offer: Offer) -> Bitfield:
        """What the peer has; nothing when its idea of the content is not ours."""
        layout = self._command.layout
        if (offer.length, offer.chunk_bytes) != (layout.length, layout.chunk_bytes):
            return NO_CHUNKS
        try:
            return decode_bitfield(offer.have, layout.count)
        except ValueError:
            return NO_CHUNKS
