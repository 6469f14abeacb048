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

from collections.abc import Iterable

from agent.core.rendezvous import Group, scores
from agent.core.standing import Standing
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ContentId, bitfield, chunks_in

SPARSE = 1.25
"""There are so many times more who want it than we know: now all who are there matter."""
MANY = 4
"""Newcomers that are counted at once rather than one by one."""


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
        self._standing: Standing | None = None
        """In a large group."""
        self._compared = self._leading = NO_CHUNKS
        """The chunks for which it is known whether we come before all we know, and those for which we do."""

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
            return self._led(Bitfield((1 << self._count) - 1))
        return self.owned_by(self._own)

    def allowed(self, chunks: Bitfield, hunger: int) -> Bitfield:
        """Those of `chunks` that we may ask the origin for when we have waited `hunger` times, and nobody brings
        them: what is ours; then what we are next in line for; then anything."""
        if self._standing is not None and self.sparse:
            near = self._standing.within(chunks, hunger)
            return near if hunger else self._led(near)
        if hunger > 1:
            return chunks
        return Bitfield(chunks & (self.ours | self.seconds if hunger else self.ours))

    # --- a large group ---------------------------------------------------------------------------------------

    def expect(self, size: int, group: Group) -> None:
        """So many are believed to want it, us included, of all that are there."""
        if self._standing is None:
            self._standing = Standing(self._content, self._count, self._own, size, group)
        else:
            self._standing.expect(size, group)

    @property
    def sparse(self) -> bool:
        """Most of those who want it are not known to us."""
        return self._standing is not None and self._standing.size > SPARSE * len(self._members)

    @property
    def most_hunger(self) -> int:
        """After having waited so often, we may ask for anything."""
        return self._standing.most_hunger if self._standing is not None and self.sparse else 2

    def opened(self, there: int) -> Bitfield:
        """The chunks that all go for while `there` of them are there or on their way."""
        return Bitfield((1 << self._count) - 1) if self._standing is None else self._standing.opened(there)

    def _led(self, chunks: Bitfield) -> Bitfield:
        """Those for which nobody we know comes before us."""
        fresh = Bitfield(chunks & ~self._compared)
        if fresh:
            self._compared = Bitfield(self._compared | fresh)
            self._leading = Bitfield(
                self._leading | bitfield(each for each in chunks_in(fresh) if self._leads(each))
            )
        return Bitfield(chunks & self._leading)

    def _leads(self, chunk: int) -> bool:
        mine, own = self._members[self._own][chunk], self._own
        for peer, line in self._members.items():
            if line[chunk] > mine or (line[chunk] == mine and peer > own):
                return False
        return True

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
        self._compared = self._leading = NO_CHUNKS
