"""Asking one peer about one content, again and again: held questions, or one every half second where it holds none.

Says what the peer has now (`seen`) after each answer. Never knows: other peers, jobs, what an offer is used for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.backoff import Backoff
from agent.core.commands import AskNear
from peer.core import wire
from peer.core.failure import Failure
from peer.core.voucher import PeerId
from peer.core.wire import Offer
from validation.content import Bitfield, ContentId

if TYPE_CHECKING:
    from peer.network import PeerNetwork

HOLD_S = 20.0
"""How long the peer holds a question; a connection that is dead without a sign is noticed 5 s later."""

HOLD_EACH_S = 2.0
"""The same, while it knows the content by none of several ids: they are asked in turn."""

ASK_AGAIN_S = 0.5
"""How often a peer is asked that does not hold questions (an old one, or one with too many)."""

LEAST_PAUSE_S = 0.1
"""Between two questions, whatever the answers: the peer waits longer by itself when it is honest (0.15 s)."""

FIRST_BACKOFF_S = 1.0
"""Longest pause after a first failure; half of it is the shortest after any."""
LONGEST_BACKOFF_S = 5.0
BAD_REQUEST = 400
"""What an agent answers that does not know held questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a peer said it has, and is fetching itself."""

    have: Bitfield
    claimed: Bitfield
    wants: bool


class PeerWatch:
    """One peer. `run` until it is cancelled, or there is nothing more to learn of it."""

    def __init__(
        self, network: PeerNetwork, command: AskNear, peer: PeerId, told: Callable[[PeerWatch], None]
    ) -> None:
        """`told` is called after every answer and failure."""
        self.peer = peer
        self.asked = False
        """The first question was answered, or failed."""
        self.seen: Seen | None = None
        """None: nothing of this content, or it does not answer."""
        self.content_id: ContentId | None = None
        """By which id it knows the content."""
        self.task: asyncio.Task[None] | None = None
        self._network, self._layout, self._told = network, command.layout, told
        self._known: dict[ContentId, int | None] = dict.fromkeys(command.content_ids)
        """Its versions; None: not asked yet."""
        self._holds_questions = True
        self._pause_s = 0.0
        self._backoff = Backoff(first_s=FIRST_BACKOFF_S, longest_s=LONGEST_BACKOFF_S, rng=random.Random())

    @property
    def finished(self) -> bool:
        """It has everything and wants nothing: that will not change."""
        return self.seen is not None and self.seen.have == self._layout.everything and not self.seen.wants

    async def run(self) -> None:
        """Ask until it is `finished`."""
        while not self.finished:
            await asyncio.sleep(self._pause_s)
            began = asyncio.get_running_loop().time()
            failure = await self._ask_once()
            if failure is not None:
                self.content_id = self.seen = None
                self._known = dict.fromkeys(self._known)
                self._pause_s = self._backoff.next_delay()
            else:
                self._backoff.reset()
                took_s = asyncio.get_running_loop().time() - began
                self._pause_s = max(0.0, self._pause_s - took_s)
            self.asked = True
            self._told(self)

    async def _ask_once(self) -> Failure | None:
        """The id that it knows; else all that it was not asked about yet; else the one whose turn it is."""
        if self.content_id is not None:
            return await self._question(self.content_id)
        unasked = [item for item, version in self._known.items() if version is None]
        for content_id in unasked:
            failure = await self._question(content_id)
            if failure is not None or self.content_id is not None:
                return failure
        return None if unasked else await self._question(next(iter(self._known)))

    async def _question(self, content_id: ContentId) -> Failure | None:
        answer = await self._ask(content_id)
        if isinstance(answer, Failure):
            return answer
        self._take(content_id, answer)
        return None

    async def _ask(self, content_id: ContentId) -> Offer | Failure | None:
        after = self._known[content_id]
        if not self._holds_questions:
            return await self._network.offer(self.peer, content_id)
        alone = self.content_id is not None or len(self._known) == 1
        answer = await self._network.watch(self.peer, content_id, after, HOLD_S if alone else HOLD_EACH_S)
        if isinstance(answer, Failure) and answer.http_status == BAD_REQUEST and after is not None:
            self._holds_questions = False
            return await self._network.offer(self.peer, content_id)
        return answer

    def _take(self, content_id: ContentId, answer: Offer | None) -> None:
        """What this answer says, and how soon the next question may follow."""
        version = wire.NOTHING if answer is None else answer.version
        news = version != self._known[content_id]
        if answer is not None and version == wire.NOTHING:
            self._holds_questions = False
        self._pause_s = LEAST_PAUSE_S if news and self._holds_questions else ASK_AGAIN_S
        del self._known[content_id]
        self._known[content_id] = version  # the last in turn
        self.seen = None if answer is None else self._read(answer)
        self.content_id = None if self.seen is None else content_id

    def _read(self, offer: Offer) -> Seen | None:
        """Nothing when its idea of the content is not ours, or it has no part in it."""
        if offer.layout != self._layout:
            return None
        seen = Seen(have=offer.have_chunks, claimed=offer.claimed_chunks, wants=offer.wants)
        return seen if seen.have or seen.claimed or seen.wants else None
