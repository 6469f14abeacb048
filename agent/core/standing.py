"""Our place among all agents of a group too large to know: for which chunks hardly anybody comes before us.

Never knows: what anybody has or wants, time, requests.
"""

from __future__ import annotations

from agent.core.rendezvous import Group, foremost, order, scores
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ContentId, chunks_in

OPEN_CHUNKS = 32
"""Chunks that a large group brings from the origin at a time."""
SINGLE_STEPS = 6
"""So often one more may be before us; then twice as many each time, lest the group is not what we believe."""


class Standing:
    """Of one agent, for one content. Chunks are placed when somebody asks for them: 1 µs a member, once a group."""

    def __init__(self, content: ContentId, count: int, own: PeerId, size: int, group: Group) -> None:
        self.size = size
        """So many are believed to want it, us included."""
        self._content = content
        self._count = count
        self._mine = scores(content, count, own)
        self._group = group
        self._placed = NO_CHUNKS
        self._before: dict[int, int] = {}
        """How many of all come before us, of the placed chunks for which that is a small number."""
        self._reach: dict[int, Bitfield] = {}
        """By hunger, the placed chunks that are within reach."""
        self._opened, self._open = 0, NO_CHUNKS

    def expect(self, size: int, group: Group) -> None:
        """So many are believed to want it now, us included, of all that are there."""
        if group is not self._group:
            self._group, self._placed = group, NO_CHUNKS
            self._before.clear()
        self.size = size
        self._reach.clear()

    @property
    def most_hunger(self) -> int:
        """After having waited so often, everything is within reach."""
        return SINGLE_STEPS + max(1, self.size.bit_length())

    def within(self, chunks: Bitfield, hunger: int) -> Bitfield:
        """Those of `chunks` for which about nobody who wants them comes before us, or not more than so many after
        having waited `hunger` times."""
        if hunger >= self.most_hunger:
            return chunks
        if chunks & ~self._placed:
            self._place(Bitfield(chunks & ~self._placed))
        reach = self._reach.get(hunger)
        if reach is None:
            reach = self._reach[hunger] = self._reached(hunger)
        return Bitfield(chunks & reach)

    def _reached(self, hunger: int) -> Bitfield:
        members = len(self._group.members)
        share = min(1.0, self.size / max(1, members))
        most = (1 + min(hunger, SINGLE_STEPS)) * 2 ** max(0, hunger - SINGLE_STEPS)
        if members * share < most:
            return self._placed
        found = 0
        for chunk, before in self._before.items():
            if before * share < most:
                found |= 1 << chunk
        return Bitfield(found)

    def _place(self, fresh: Bitfield) -> None:
        for chunk in chunks_in(fresh):
            before = foremost(self._content, chunk, self._group).get(self._mine[chunk])
            if before is not None:
                self._before[chunk] = before
        self._placed = Bitfield(self._placed | fresh)
        self._reach.clear()

    def opened(self, there: int) -> Bitfield:
        """The chunks that a large group goes for while `there` of them are there or on their way."""
        wanted = min(self._count, there + OPEN_CHUNKS)
        if wanted != self._opened:
            low, high = sorted((wanted, self._opened))
            for chunk in order(self._content, self._count)[low:high]:
                self._open = Bitfield(self._open ^ 1 << chunk)
            self._opened = wanted
        return self._open
