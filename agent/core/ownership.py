"""Who asks the origin for which chunk, when many want the same content: agreed without a word.

Rendezvous hashing (Thaler and Ravishankar 1998): of those who want the content, the one with the highest hash of
content, chunk and peer owns a chunk. All who know the same peers come to the same answer; when one joins or leaves,
only its own chunks change hands. Never knows: what anybody has, time, requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ContentId

KNOWN_SCORES = 4096
"""Peers whose scores are remembered: 8 bytes a chunk each."""


@lru_cache(maxsize=KNOWN_SCORES)
def scores(content: ContentId, count: int, peer: PeerId) -> tuple[int, ...]:
    """One number for each chunk; the highest of all peers' owns it."""
    state = blake2b(f"nearfetch owner v1 {content} {peer} ".encode("ascii"), digest_size=8)
    found = []
    for chunk in range(count):
        each = state.copy()
        each.update(chunk.to_bytes(4, "big"))
        found.append(int.from_bytes(each.digest(), "big"))
    return tuple(found)


class Ownership:
    """The owner of every chunk of one content, among those who want it. We are always one of them."""

    def __init__(self, content: ContentId, count: int, own: PeerId) -> None:
        self._content = content
        self._count = count
        self._own = own
        self._members = {own: scores(content, count, own)}
        self._owner = [own] * count
        self._owned: dict[PeerId, Bitfield] = {own: Bitfield((1 << count) - 1)}
        self._seconds: Bitfield | None = None

    @property
    def others(self) -> tuple[PeerId, ...]:
        """Who wants it beside us, in the order of their ids."""
        return tuple(sorted(peer for peer in self._members if peer != self._own))

    @property
    def ours(self) -> Bitfield:
        """The chunks that we are to ask the origin for."""
        return self._owned[self._own]

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
        self._seconds = None
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
        self._seconds = None
        del self._members[peer]
        left = self._owned.pop(peer)
        while left:
            chunk = (left & -left).bit_length() - 1
            left = Bitfield(left & (left - 1))
            owner = max(self._members, key=lambda each: (self._members[each][chunk], each))
            self._owner[chunk] = owner
            self._owned[owner] = Bitfield(self._owned[owner] | 1 << chunk)
