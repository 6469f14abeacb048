"""What we offer of each content, and who listens for what changes of it.

Listening costs no task and no polling: whoever changes something says so (`changed`), and all who listen for that
content hear of it in the loop's next turn.

Never knows: sockets, time, why something changed, how it is told.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from peer.core.state import State
from peer.core.voucher import PeerId
from peer.core.wire import NOBODY
from validation.content import NO_CHUNKS, Bitfield, ContentId

if TYPE_CHECKING:
    from peer.house import Claim, Store

LISTENERS_A_PEER = 8
"""Contents that one peer may listen for at once: more than an agent downloads at a time by default."""

LISTENERS = 256
"""Streams in all: eight times the peers that one agent listens to for one content."""


class Listener(Protocol):
    """Somebody who is told of changes."""

    @property
    def peer_id(self) -> PeerId: ...

    def offer_changed(self) -> None:
        """Something may be new about the content that it listens for."""


class Offers:
    """The offers of one server. Everything happens on its loop."""

    def __init__(self, store: Store, claims: Callable[[ContentId], Claim | None]) -> None:
        self._store, self._claims = store, claims
        self._serving = True
        self._listening: dict[ContentId, dict[Listener, None]] = {}
        self._by_peer: Counter[PeerId] = Counter()
        self._stale: dict[ContentId, None] = {}
        self._seen: dict[ContentId, State | None] | None = None
        """What was found in this turn, in which nothing changes."""

    @property
    def serving(self) -> bool:
        """False: nothing is offered, as if nothing were there."""
        return self._serving

    @serving.setter
    def serving(self, on: bool) -> None:
        self._serving = on
        for content_id in list(self._listening):
            self.changed(content_id)

    @property
    def listening(self) -> int:
        """Who listens, counted once for each content."""
        return self._by_peer.total()

    def now(
        self, content_id: ContentId, distrusted: frozenset[PeerId] = NOBODY, *, avoided: bool = False
    ) -> State | None:
        """What is said of a content now, to somebody who distrusts these: what is held on their word alone is left
        out. `avoided`: we ask it for nothing; so it is told that we bring all that is missing, for what it brought
        itself would be of use to nobody else. None: nothing, whether it is unknown or not for sharing."""
        state = self._state(content_id)
        if state is None or not (distrusted or avoided):
            return state
        useless = self._store.resting_on(content_id, distrusted) & state.have if distrusted else NO_CHUNKS
        missing = Bitfield(state.layout.everything & ~state.have)
        claimed = missing if avoided and state.wants else state.claimed
        return replace(state, have=Bitfield(state.have & ~useless), claimed=claimed)

    def listen(self, content_ids: Sequence[ContentId], listener: Listener) -> bool:
        """`listener` is told of changes until it leaves. False: too many listen already."""
        if self._by_peer[listener.peer_id] >= LISTENERS_A_PEER or self.listening >= LISTENERS:
            return False
        for content_id in content_ids:
            self._listening.setdefault(content_id, {})[listener] = None
        self._by_peer[listener.peer_id] += 1
        return True

    def leave(self, content_ids: Sequence[ContentId], listener: Listener) -> None:
        """It listens no more."""
        for content_id in content_ids:
            listeners = self._listening[content_id]
            del listeners[listener]
            if not listeners:
                del self._listening[content_id]
        self._by_peer[listener.peer_id] -= 1
        if not self._by_peer[listener.peer_id]:
            del self._by_peer[listener.peer_id]

    def changed(self, content_id: ContentId) -> None:
        """What we have, claim or want of it may have changed. Costs nothing when nobody listens for it."""
        if content_id not in self._listening:
            return
        if not self._stale:
            asyncio.get_running_loop().call_soon(self._tell)
        self._stale[content_id] = None

    def _tell(self) -> None:
        stale, self._stale = self._stale, {}
        listeners = dict.fromkeys(item for content_id in stale for item in self._listening.get(content_id, ()))
        self._seen = {}
        try:
            for listener in listeners:
                listener.offer_changed()
        finally:
            self._seen = None

    def _state(self, content_id: ContentId) -> State | None:
        if self._seen is None:
            return self._look(content_id)
        if content_id not in self._seen:
            self._seen[content_id] = self._look(content_id)
        return self._seen[content_id]

    def _look(self, content_id: ContentId) -> State | None:
        if not self._serving:
            return None
        entry, claim = self._store.find(content_id), self._claims(content_id)
        if entry is None:
            return (
                None
                if claim is None
                else State(layout=claim.layout, have=NO_CHUNKS, claimed=claim.chunks, wants=claim.wants)
            )
        if claim is None or claim.layout != entry.layout:
            return State(layout=entry.layout, have=entry.have, claimed=NO_CHUNKS, wants=False)
        return State(layout=entry.layout, have=entry.have, claimed=claim.chunks, wants=claim.wants)
