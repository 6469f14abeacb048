"""What is wanted of a file right now, where somebody reads in it, and what listeners have been told of.

An on-demand file is fetched where it is wanted, or as a whole from the place where it is read; any other file is
always wanted as a whole. Local offsets. Never knows: sources, requests, HTTP. Sources: bits-reference 1.11, 2.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from validation.content import MAX_CONTENT_BYTES, NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout
from validation.ranges import ByteRange
from validation.rangeset import RangeSet


class Demand:
    """What is wanted of one file. `position` None: nobody said where it is read."""

    def __init__(self, *, on_demand: bool, wanted: Iterable[ByteRange] = (), position: int | None = None) -> None:
        self.wanted = RangeSet(wanted)
        """Merged; what is there already stays in here until all of it is."""
        self.position = position
        self._on_demand = on_demand

    @property
    def active(self) -> bool:
        """Something is wanted before everything else, and nothing else for now."""
        return len(self.wanted) > 0

    def want(self, items: Iterable[ByteRange]) -> None:
        """These bytes too. Nothing but the whole can be wanted of a file that is not on demand."""
        if self._on_demand:
            for item in items:
                self.wanted.add(item)

    def forget(self) -> None:
        """Nothing is wanted before anything else any more: it is there, or cannot be had."""
        self.wanted.clear()

    def misfit(self, length: int) -> Failure | None:
        """Why these bytes cannot be had of a file of this length; None when they can."""
        for item in self.wanted:
            to_the_end = item.stop > MAX_CONTENT_BYTES
            if item.start >= length or (item.stop > length and not to_the_end):
                end = "the end" if to_the_end else str(item.stop)
                text = f"the bytes from {item.start} to {end} are wanted, the file has {length}"
                return Failure(kind=FailureKind.INVALID_RANGE, message=text)
        return None

    def goal(self, layout: ChunkLayout) -> Bitfield:
        """The chunks to be fetched."""
        if not self.active:
            return layout.everything
        goal = NO_CHUNKS
        for item in self.wanted:
            touched = layout.touched_by(item)
            goal = Bitfield(goal | ((1 << len(touched)) - 1) << touched.start)
        return goal

    def cursor(self, layout: ChunkLayout) -> ChunkIndex | None:
        """The chunk from which everything goes in order; None: the order means nothing to anybody."""
        if self.position is None:
            return ChunkIndex(0) if self._on_demand else None
        return ChunkIndex(self.position // layout.chunk_bytes if self.position < layout.length else 0)


class Filling:
    """When listeners are to be told which bytes have become readable."""

    def __init__(self, tuning: Tuning, chunk_bytes: int) -> None:
        self._tuning = tuning
        self._chunk_bytes = chunk_bytes
        self._told = RangeSet()
        self._new_bytes = 0
        self._since = 0.0
        self._again_at = float("-inf")

    def begin(self, filled: RangeSet) -> None:
        """These bytes are no news."""
        self._told = filled.copy()

    def grew(self, item: ByteRange, now: float) -> None:
        """These bytes have become readable. If they were told of before, they have been thrown away since."""
        if item.length and not self._new_bytes:
            self._since = now
        self._new_bytes += item.length
        self._told.subtract(item)

    def deadline(self) -> float | None:
        """When there will be something to tell, if nothing more comes."""
        if not self._new_bytes:
            return None
        at_last = self._since + self._tuning.filled_s
        return min(at_last, self._again_at) if self._new_bytes >= self._chunk_bytes else at_last

    def due(self, now: float) -> bool:
        """There is something to tell now."""
        at = self.deadline()
        return at is not None and now >= at

    def news(self, filled: RangeSet, now: float) -> tuple[ByteRange, ...]:
        """What is readable now and was not the last time; it counts as told."""
        fresh = tuple(gap for item in filled for gap in self._told.gaps(item))
        self._told = filled.copy()
        self._new_bytes = 0
        self._again_at = now + self._tuning.filled_again_s
        return fresh
