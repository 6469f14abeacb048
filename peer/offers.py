"""What we offer of each content, as numbered answers that are made once, and who waits for the next of them.

A content's number grows with every change of what is said of it. Waiting costs no task and no polling: whoever
changes something says so (`changed`), and all who wait for that content hear of it in the loop's next turn.

Never knows: sockets, time, why something changed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from peer.core import wire
from peer.core.news import State
from peer.core.voucher import PeerId
from peer.core.wire import NOBODY
from validation.content import NO_CHUNKS, Bitfield, ContentId

if TYPE_CHECKING:
    from peer.house import Claim, Store

OFFERS_KEPT = 1024
"""Contents whose answer is kept. One that was dropped gets a new number when it is asked for again."""

FILTERED_KEPT = 256
"""The same for answers to who distrusts somebody or is avoided, apart from the others: anybody can name anybody."""

WAITERS_A_PEER = 8
"""Contents that one peer may wait for at once: more than an agent downloads at a time by default."""

WAITERS = 256
"""Held requests in all: eight times the peers that one agent watches for one content."""

FIRST_VERSIONS = 1 << 40
"""Where numbers begin: anywhere below this, so that those of an earlier life are not taken for ours."""


K = TypeVar("K", bound=Hashable)


class Waiter(Protocol):
    """A connection with a held request."""

    @property
    def peer_id(self) -> PeerId: ...

    def offer_changed(self) -> None:
        """Something may be new about the content that it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is said of a content now."""

    version: int
    response: bytes
    """The whole answer, head and body."""
    state: State | None = None
    """What it says; None: nothing is offered."""


NOTHING_SAID = Said(version=wire.NOTHING, response=wire.format_response(404))
"""The same bytes whether content is unknown or not for sharing."""


class Offers:
    """The offers of one server. Everything happens on its loop."""

    def __init__(self, store: Store, claims: Callable[[ContentId], Claim | None]) -> None:
        self._store, self._claims = store, claims
        self._serving = True
        self._last_version = secrets.randbelow(FIRST_VERSIONS)
        self._said: dict[ContentId, Said] = {}
        self._filtered: dict[tuple[ContentId, frozenset[PeerId], bool], Said] = {}
        self._waiting: dict[ContentId, dict[Waiter, None]] = {}
        self._by_peer: Counter[PeerId] = Counter()
        self._stale: dict[ContentId, None] = {}

    @property
    def serving(self) -> bool:
        """False: nothing is offered, as if nothing were there."""
        return self._serving

    @serving.setter
    def serving(self, on: bool) -> None:
        self._serving = on
        for content_id in list(self._waiting):
            self.changed(content_id)

    @property
    def waiting(self) -> int:
        """Held requests."""
        return self._by_peer.total()

    def now(self, content_id: ContentId, distrusted: frozenset[PeerId] = NOBODY, *, avoided: bool = False) -> Said:
        """What is said of a content now, under which number, to somebody who distrusts these: what is held on
        their word alone is left out. `avoided`: we ask it for nothing; so it is told that we bring all that is
        missing, for what it brought itself would be of use to nobody else. Whom neither concerns gets the same
        answer as all others."""
        state = self._state(content_id)
        if state is None:
            self._said.pop(content_id, None)
            return NOTHING_SAID
        useless = self._store.resting_on(content_id, distrusted) & state.have if distrusted else NO_CHUNKS
        ours = avoided and state.wants
        if not useless and not ours:
            return self._numbered(self._said, content_id, state, OFFERS_KEPT)
        claimed = Bitfield(state.layout.everything & ~state.have) if ours else state.claimed
        told = replace(state, have=Bitfield(state.have & ~useless), claimed=claimed)
        return self._numbered(self._filtered, (content_id, distrusted, ours), told, FILTERED_KEPT)

    def _numbered(self, kept: dict[K, Said], key: K, state: State, most: int) -> Said:
        """What was said of this state before, or a new answer with a new number."""
        known = kept.get(key)
        if known is not None and known.state == state:
            return known
        self._last_version += 1
        said = kept[key] = _say(state, self._last_version)
        if len(kept) > most:
            del kept[next(iter(kept))]
        return said

    def wait(self, content_id: ContentId, waiter: Waiter) -> bool:
        """`waiter` is told of changes until it leaves. False: too many wait already, answer it at once."""
        if self._by_peer[waiter.peer_id] >= WAITERS_A_PEER or self.waiting >= WAITERS:
            return False
        self._waiting.setdefault(content_id, {})[waiter] = None
        self._by_peer[waiter.peer_id] += 1
        return True

    def leave(self, content_id: ContentId, waiter: Waiter) -> None:
        """It waits no more."""
        waiters = self._waiting[content_id]
        del waiters[waiter]
        if not waiters:
            del self._waiting[content_id]
        self._by_peer[waiter.peer_id] -= 1
        if not self._by_peer[waiter.peer_id]:
            del self._by_peer[waiter.peer_id]

    def changed(self, content_id: ContentId) -> None:
        """What we have, claim or want of this content may have changed. Costs nothing when nobody waits for it."""
        if content_id not in self._waiting:
            return
        if not self._stale:
            asyncio.get_running_loop().call_soon(self._tell)
        self._stale[content_id] = None

    def _tell(self) -> None:
        stale, self._stale = self._stale, {}
        for content_id in stale:
            for waiter in list(self._waiting.get(content_id, ())):
                waiter.offer_changed()

    def _state(self, content_id: ContentId) -> State | None:
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


def _say(state: State, version: int) -> Said:
    plain = wire.offer_of(state.layout, state.have, state.claimed)
    document = wire.format_document(msgspec.structs.replace(plain, wants=state.wants, version=version))
    if len(document) > wire.DOCUMENT_LIMIT:
        return NOTHING_SAID
    response = wire.format_response(200, document, [("Content-Type", "application/json")])
    return Said(version=version, response=response, state=state)
