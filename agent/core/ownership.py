"""Who asks the origin for which chunk, when many want the same content: agreed without a word.

Rendezvous hashing (Thaler and Ravishankar 1998): of those who want the content, the one with the highest hash of
content, chunk and peer owns a chunk, but what this gives some too much of goes to those who come next for it and
have too few: all are to end together. (Of 256 chunks and eight peers, 22 to 42 each by hash alone: in the last
second two of them used the origin. In simulation, cold agents took 1.09 of the bound with 8 and 1.15 with 16; in
equal shares 1.07 and 1.11.) All who know the same peers come to the same answer; when one joins or leaves, its own
chunks change hands, and few others.

In a group of hundreds nobody is told what all the others want, and the best of sixteen neighbours is no owner yet.
But who is there is known, and so is the share of them that wants the content: a chunk is ours when about nobody who
wants it is before us among all of them. Those whose owner does not want it, or is gone, are found after a while,
when one more may be before us each time. And as more agents than chunks would all ask at once and each get next to
nothing, they go through the content in one order, a few chunks at a time.

Never knows: what anybody has, time, requests.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ContentId, bitfield, chunks_in

KNOWN_SCORES = 16384
"""Peers whose scores are remembered, of contents with at most so many chunks"""
SMALL_COUNT = 1024
"""(8 KiB each)."""

SPARSE = 1.25
"""There are so many times more who want it than we know: now all who are there matter."""
OPEN_CHUNKS = 32
"""Chunks that a large group brings from the origin at a time."""
SINGLE_STEPS = 6
"""So often one more may be before us; then twice as many each time, lest the group is not what we believe."""
BEST_KEPT = 64
"""Of a large group's scores for a chunk: who comes later hardly ever matters."""
MANY = 4
"""Newcomers that are counted at once rather than one by one."""
KNOWN_BEST = 4096
"""Chunks for which these are remembered: half a KiB each."""


class Group:
    """All agents that are there, us included, whatever they want. Equal to nothing but itself."""

    def __init__(self, members: Iterable[PeerId]) -> None:
        self.members = tuple(members)


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


@lru_cache(maxsize=KNOWN_BEST)
def _best(content: ContentId, chunk: int, group: Group) -> array[int]:
    """The highest scores of a group for one chunk, rising. 1 µs a member."""
    end = chunk.to_bytes(4, "big")
    found = []
    for peer in group.members:
        state = blake2b(f"nearfetch owner v1 {content} {peer} ".encode("ascii"), digest_size=8)
        state.update(end)
        found.append(int.from_bytes(state.digest(), "big"))
    return array("Q", sorted(found)[-BEST_KEPT:])


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
        self._even: dict[PeerId, Bitfield] | None = None
        self._seconds: Bitfield | None = None
        self._unelected = False
        """Members came or went in a large group, where nobody needs to know who owns what among the few we know."""
        self._size = 1
        self._group: Group | None = None
        self._ranks: dict[int, int] = {}
        self._order: list[int] | None = None
        self._opened, self._open = 0, NO_CHUNKS

    @property
    def others(self) -> tuple[PeerId, ...]:
        """Those we know who want it beside us, in the order of their ids."""
        if self._others is None:
            self._others = tuple(sorted(peer for peer in self._members if peer != self._own))
        return self._others

    @property
    def ours(self) -> Bitfield:
        """The chunks that are ours among those we know."""
        if self.sparse:
            return bitfield(chunk for chunk in range(self._count) if self._leads(chunk))
        return self.owned_by(self._own)

    def allowed(self, chunks: Bitfield, hunger: int) -> Bitfield:
        """Those of `chunks` that we may ask the origin for when we have waited `hunger` times, and nobody brings
        them: what is ours; then what we are next in line for; then anything."""
        if self.sparse:
            return self._allowed_of_many(chunks, hunger)
        if hunger > 1:
            return chunks
        return Bitfield(chunks & (self.ours | self.seconds if hunger else self.ours))

    # --- a large group ---------------------------------------------------------------------------------------

    def expect(self, size: int, group: Group) -> None:
        """So many are believed to want it, us included, of all that are there."""
        if group is not self._group:
            self._ranks.clear()
        self._size, self._group = size, group

    @property
    def sparse(self) -> bool:
        """Most of those who want it are not known to us."""
        return self._group is not None and self._size > SPARSE * len(self._members)

    @property
    def most_hunger(self) -> int:
        """After having waited so often, we may ask for anything."""
        return SINGLE_STEPS + max(1, self._size.bit_length()) if self.sparse else 2

    def _allowed_of_many(self, chunks: Bitfield, hunger: int) -> Bitfield:
        assert self._group is not None
        if hunger >= self.most_hunger:
            return chunks
        share = min(1.0, self._size / max(1, len(self._group.members)))
        before = (1 + min(hunger, SINGLE_STEPS)) * 2 ** max(0, hunger - SINGLE_STEPS)
        near = [chunk for chunk in chunks_in(chunks) if self._rank(chunk) * share < before]
        return bitfield(near if hunger else [chunk for chunk in near if self._leads(chunk)])

    def _leads(self, chunk: int) -> bool:
        """Nobody we know comes before us."""
        mine, own = self._members[self._own][chunk], self._own
        for peer, line in self._members.items():
            if line[chunk] > mine or (line[chunk] == mine and peer > own):
                return False
        return True

    def _rank(self, chunk: int) -> int:
        """How many of all come before us."""
        rank = self._ranks.get(chunk)
        if rank is None:
            assert self._group is not None
            best = _best(self._content, chunk, self._group)
            rank = self._ranks[chunk] = len(best) - bisect_right(best, self._members[self._own][chunk])
            if rank == len(best):  # one of the many behind them
                rank = self._ranks[chunk] = len(self._group.members)
        return rank

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
        """The chunks of others for which we come next."""
        if self._seconds is None:
            self._settle()
            mine, won = self._members[self._own], 0
            rivals = [(peer, line) for peer, line in self._members.items() if peer != self._own]
            for chunk, owner in enumerate(self._owners()):
                best = (mine[chunk], self._own)
                beaten = owner == self._own or any(
                    (line[chunk], peer) > best for peer, line in rivals if peer != owner
                )
                won |= 0 if beaten else 1 << chunk
            self._seconds = Bitfield(won)
        return self._seconds

    def owned_by(self, peer: PeerId) -> Bitfield:
        """The chunks of one of those we know; none when it does not want the content."""
        if self._even is None:
            self._settle()
            self._even = self._shared_out()
        return self._even.get(peer, NO_CHUNKS)

    def _shared_out(self) -> dict[PeerId, Bitfield]:
        """The same number for each, or one more for those who have most by hash. The last ones move: they are asked
        for last."""
        even, (share, more) = dict(self._owned), divmod(self._count, len(self._owned))
        richest = sorted(even, key=lambda peer: (-even[peer].bit_count(), peer))
        room = {peer: share + (place < more) - even[peer].bit_count() for place, peer in enumerate(richest)}
        for giver in richest:
            for _ in range(-room[giver]):
                chunk = even[giver].bit_length() - 1
                taker = max(
                    (peer for peer in richest if room[peer] > 0),
                    key=lambda peer: (self._members[peer][chunk], peer),
                )
                even[giver] = Bitfield(even[giver] ^ 1 << chunk)
                even[taker] = Bitfield(even[taker] | 1 << chunk)
                room[taker] -= 1
        return even

    def _owners(self) -> list[PeerId]:
        """Of each chunk."""
        found = list(self._owner)
        for peer, by_hash in self._owned.items():
            for chunk in chunks_in(Bitfield(self.owned_by(peer) & ~by_hash)):
                found[chunk] = peer
        return found

    # --- who is there ----------------------------------------------------------------------------------------

    def become(self, others: Iterable[PeerId]) -> None:
        """Exactly these want it beside us."""
        wanted = set(others)
        gone = [peer for peer in self.others if peer not in wanted]
        fresh = sorted(peer for peer in wanted if peer not in self._members)
        if self.sparse or self._unelected:
            self._admit(gone, fresh)
            return
        for peer in gone:
            self.leave(peer)
        if len(fresh) >= MANY:
            self._admit([], fresh)
            self._settle()
        else:
            for peer in fresh:
                self.join(peer)

    def _admit(self, gone: list[PeerId], fresh: list[PeerId]) -> None:
        """They want it no more, or now. Who owns what is found out when somebody asks."""
        if gone or fresh:
            self._changed()
            self._unelected = True
        for peer in gone:
            del self._members[peer]
        for peer in fresh:
            self._members[peer] = scores(self._content, self._count, peer)

    def _settle(self) -> None:
        """Find the owners anew, if they are not known: a tenth of the work of `join` for each."""
        if not self._unelected:
            return
        self._unelected = False
        peers = sorted(self._members, reverse=True)  # of equal scores the higher id wins, as in `join`
        owned = dict.fromkeys(peers, 0)
        for chunk, column in enumerate(zip(*[self._members[peer] for peer in peers], strict=True)):
            owner = self._owner[chunk] = peers[column.index(max(column))]
            owned[owner] |= 1 << chunk
        self._owned = {peer: Bitfield(owned[peer]) for peer in self._members}

    def join(self, peer: PeerId) -> None:
        """It wants the content too."""
        if peer in self._members:
            return
        self._settle()
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
        self._settle()
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
        self._seconds = self._others = self._even = None
