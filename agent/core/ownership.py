"""Who asks the origin for which chunk, when many want the same content: agreed without a word.

Rendezvous hashing (Thaler and Ravishankar 1998): of those who want the content, the one with the highest hash of
content, chunk and peer owns a chunk. All who know the same peers come to the same answer; when one joins or leaves,
only its own chunks change hands.

In a group of hundreds nobody knows all the others, and the best of thirty neighbours is no owner yet. Then the
hash itself must be among the highest that so many peers would draw: on average one of them all passes. Chunks that
nobody passed for are found after a while, when the bar is lowered for one more each time. And as more agents than
chunks would all ask at once and each get next to nothing, they go through the content in one order, a few chunks at
a time.

Never knows: what anybody has, time, requests.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ContentId

KNOWN_SCORES = 16384
"""Peers whose scores are remembered, of contents with at most so many chunks"""
SMALL_COUNT = 1024
"""(8 KiB each)."""

SPARSE = 1.25
"""There are so many times more who want it than we know: now the bar matters."""
OPEN_CHUNKS = 32
"""Chunks that a large group brings from the origin at a time."""
SINGLE_STEPS = 6
"""So often the bar is lowered for one more peer; then each time for twice as many, lest the group is smaller than
believed."""

_SCORES = 1 << 64


def scores(content: ContentId, count: int, peer: PeerId) -> array[int]:
    """One number for each chunk; the highest of all peers' owns it."""
    return _known_scores(content, count, peer) if count <= SMALL_COUNT else _scores(content, count, peer)


def _scores(content: ContentId, count: int, peer: PeerId) -> array[int]:
    state = blake2b(f"nearfetch owner v1 {content} {peer} ".encode("ascii"), digest_size=8)
    found = array("Q")
    for chunk in range(count):
        each = state.copy()
        each.update(chunk.to_bytes(4, "big"))
        found.append(int.from_bytes(each.digest(), "big"))
    return found


_known_scores = lru_cache(maxsize=KNOWN_SCORES)(_scores)


class Ownership:
    """The owner of every chunk of one content, among those who want it. We are always one of them."""

    def __init__(self, content: ContentId, count: int, own: PeerId) -> None:
        self._content = content
        self._count = count
        self._own = own
        self._members = {own: scores(content, count, own)}
        self._owner = [own] * count
        self._owned: dict[PeerId, Bitfield] = {own: Bitfield((1 << count) - 1)}
        self._others: tuple[PeerId, ...] | None = ()
        self._seconds: Bitfield | None = None
        self._size = 1
        self._reach: dict[int, Bitfield] = {}
        self._order: list[int] | None = None
        self._opened, self._open = 0, NO_CHUNKS

    @property
    def others(self) -> tuple[PeerId, ...]:
        """Those we know who want it beside us, in the order of their ids."""
        if self._others is None:
            self._others = tuple(sorted(peer for peer in self._members if peer != self._own))
        return self._others

    @property
    def near(self) -> Bitfield:
        """The chunks that are ours among those we know."""
        return self._owned[self._own]

    @property
    def ours(self) -> Bitfield:
        """The chunks that we are to ask the origin for."""
        return Bitfield(self.near & self.taken_over(0)) if self.sparse else self.near

    # --- a large group ---------------------------------------------------------------------------------------

    def expect(self, size: int) -> None:
        """So many are believed to want it, us included."""
        if size != self._size:
            self._size = size
            self._reach.clear()

    @property
    def sparse(self) -> bool:
        """Most of those who want it are not known to us."""
        return self._size > SPARSE * len(self._members)

    @property
    def most_hunger(self) -> int:
        """After having waited so often, we may ask for anything."""
        return SINGLE_STEPS + max(1, self._size.bit_length()) if self.sparse else 2

    def taken_over(self, hunger: int) -> Bitfield:
        """The chunks that may be ours as well when we have waited `hunger` times, and nobody brought them.

        In a small group first those for which we are next in line, then all.
        """
        if self.sparse:
            return self._within_reach(hunger)
        if hunger == 1:
            return self.seconds
        return Bitfield((1 << self._count) - 1) if hunger else NO_CHUNKS

    def _within_reach(self, hunger: int) -> Bitfield:
        found = self._reach.get(hunger)
        if found is None:
            single, double = min(hunger, SINGLE_STEPS), max(0, hunger - SINGLE_STEPS)
            expected = (1 + len(self._members) / self._size + single) * 2**double
            bar = max(0, int(_SCORES * (1 - expected / self._size)))
            mine = self._members[self._own]
            found = Bitfield(sum(1 << chunk for chunk, score in enumerate(mine) if score >= bar))
            self._reach[hunger] = found
        return found

    def opened(self, there: int) -> Bitfield:
        """The chunks that a large group goes for while `there` of them are there or on their way."""
        wanted = min(self._count, there + OPEN_CHUNKS)
        if self._order is None:
            drawn = scores(self._content, self._count, PeerId("order"))
            self._order = sorted(range(self._count), key=drawn.__getitem__)
        if wanted < self._opened:
            self._opened, self._open = 0, NO_CHUNKS
        for chunk in self._order[self._opened : wanted]:
            self._open = Bitfield(self._open | 1 << chunk)
        self._opened = wanted
        return self._open

    # --- a small group ---------------------------------------------------------------------------------------

    @property
    def seconds(self) -> Bitfield:
        """The chunks of others that would be ours without their owners."""
        if self._seconds is None:
            mine, won = self._members[self._own], 0
            rivals = [(peer, line) for peer, line in self._members.items() if peer != self._own]
            for chunk, owner in enumerate(self._owner):
                best = (mine[chunk], self._own)
                beaten = owner == self._own or any(
                    (line[chunk], peer) > best for peer, line in rivals if peer != owner
                )
                won |= 0 if beaten else 1 << chunk
            self._seconds = Bitfield(won)
        return self._seconds

    # --- who is there ----------------------------------------------------------------------------------------

    def become(self, others: Iterable[PeerId]) -> None:
        """Exactly these want it beside us."""
        wanted = set(others)
        for peer in self.others:
            if peer not in wanted:
                self.leave(peer)
        for peer in sorted(wanted):
            self.join(peer)

    def owned_by(self, peer: PeerId) -> Bitfield:
        """The chunks of another one; none when it does not want the content."""
        return self._owned.get(peer, NO_CHUNKS)

    def join(self, peer: PeerId) -> None:
        """It wants the content too."""
        if peer in self._members:
            return
        self._changed()
        mine = self._members[peer] = scores(self._content, self._count, peer)
        won = 0
        for chunk, owner in enumerate(self._owner):
            if (mine[chunk], peer) > (self._members[owner][chunk], owner):
                self._owner[chunk] = peer
                self._owned[owner] = Bitfield(self._owned[owner] & ~(1 << chunk))
                won |= 1 << chunk
        self._owned[peer] = Bitfield(won)

    def leave(self, peer: PeerId) -> None:
        """It does not want the content any more, or is gone: the next in line own its chunks."""
        if peer == self._own or peer not in self._members:
            return
        self._changed()
        del self._members[peer]
        left = self._owned.pop(peer)
        while left:
            chunk = (left & -left).bit_length() - 1
            left = Bitfield(left & (left - 1))
            owner = max(self._members, key=lambda each: (self._members[each][chunk], each))
            self._owner[chunk] = owner
            self._owned[owner] = Bitfield(self._owned[owner] | 1 << chunk)

    def _changed(self) -> None:
        self._seconds = self._others = None
        self._reach.clear()
