"""Listening to one peer about one content: its news as they come, or a question every half second if it has none.

Says what the peer has now (`seen`) after each of them. Never knows: other peers, jobs, what an offer is used for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.core.backoff import Backoff
from agent.core.commands import AskNear
from peer.core.failure import Failure, FailureKind
from peer.core.state import State
from peer.core.voucher import PeerId
from validation.content import ContentId

if TYPE_CHECKING:
    from peer.network import PeerNetwork

SILENCE_S = 20
"""The peer says something at least so often; a connection that is dead without a sign is noticed 5 s later."""

ASK_AGAIN_S = 0.5
"""How often a peer is asked that tells no news (an old one, or one with too many listeners)."""

FIRST_BACKOFF_S = 1.0
"""Longest pause after a first failure; half of it is the shortest after any."""
LONGEST_BACKOFF_S = 5.0
UNKNOWN = (400, 404)
"""What an agent answers that knows no streams."""


class PeerWatch:
    """One peer. `run` until it is cancelled, or there is nothing more to learn of it."""

    def __init__(
        self, network: PeerNetwork, command: AskNear, peer: PeerId, told: Callable[[PeerWatch], None]
    ) -> None:
        """`told` is called after every word and failure of the peer."""
        self.peer = peer
        self.asked = False
        """It has said something, or failed."""
        self.seen: State | None = None
        """None: nothing of this content, or it does not answer."""
        self.content_id: ContentId | None = None
        """By which id it knows the content."""
        self.task: asyncio.Task[None] | None = None
        self._network, self._layout, self._told = network, command.layout, told
        self._content_ids = command.content_ids
        self._tells = True
        """It knows streams of news."""
        self._pause_s = 0.0
        self._backoff = Backoff(first_s=FIRST_BACKOFF_S, longest_s=LONGEST_BACKOFF_S, rng=random.Random())

    @property
    def finished(self) -> bool:
        """It has everything and wants nothing: that will not change."""
        return self.seen is not None and self.seen.have == self._layout.everything and not self.seen.wants

    async def run(self) -> None:
        """Ask, then listen, until it is `finished`. Questions share connections, a stream keeps one for itself: so
        many files that are begun at once, with many peers, have their first answers sooner."""
        known = False
        while not self.finished:
            await asyncio.sleep(self._pause_s)
            failure = await (self._follow() if known and self._tells else self._ask())
            if failure is None:
                self._backoff.reset()
                self._pause_s = ASK_AGAIN_S if known or not self._tells else 0.0
            else:
                self._pause_s = self._backoff.next_delay()
                self._heard(None, None)
            known = failure is None

    async def _follow(self) -> Failure | None:
        outcome = await self._network.follow(self.peer, self._content_ids, self._heard, SILENCE_S)
        if isinstance(outcome, Failure) and outcome.http_status in UNKNOWN:
            self._tells = False
        elif outcome is None or outcome.kind is not FailureKind.BUSY:
            return outcome
        return await self._ask()

    async def _ask(self) -> Failure | None:
        """Once, by the id that it knows, else by all."""
        for content_id in (self.content_id,) if self.content_id is not None else self._content_ids:
            answer = await self._network.offer(self.peer, content_id)
            if isinstance(answer, Failure):
                return answer
            if answer is not None:
                self._heard(
                    State(
                        layout=answer.layout,
                        have=answer.have_chunks,
                        claimed=answer.claimed_chunks,
                        wants=answer.wants,
                    ),
                    content_id,
                )
                return None
        self._heard(None, None)
        return None

    def _heard(self, state: State | None, content_id: ContentId | None) -> bool:
        """What it has now. False: that will not change, so that nothing more need be said."""
        ours = state is not None and state.layout == self._layout and (state.have or state.claimed or state.wants)
        self.seen, self.content_id = (state, content_id) if ours else (None, None)
        self.asked = True
        self._told(self)
        return not self.finished
