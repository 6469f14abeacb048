"""Sets of bytes, as ranges.

Never knows: chunks, files.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from validation.ranges import ByteRange


class RangeSet:
    """A set of bytes, kept as sorted, disjoint, non-touching ranges. Mutable.

    `add` and `subtract` cost O(log n + ranges touched). Empty ranges add and remove nothing.
    """

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self, ranges: Iterable[ByteRange] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for item in ranges:
            self.add(item)

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(start, stop) for start, stop in zip(self._starts, self._stops, strict=True))

    def __len__(self) -> int:
        """How many separate ranges (not bytes: see `total`)."""
        return len(self._starts)

    def __bool__(self) -> bool:
        raise TypeError("say what you mean: `len(ranges)` for ranges, `ranges.total` for bytes")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # mutable: hashing one would be a trap

    def __repr__(self) -> str:
        return "RangeSet(" + " ".join(f"[{item.start},{item.stop})" for item in self) + ")"

    def __contains__(self, item: ByteRange) -> bool:
        """True when every byte of `item` is in the set; an empty range is in every set."""
        return item.length == 0 or self.covers(item.start, item.stop)

    def covers(self, start: int, stop: int) -> bool:
        """True when every byte of `[start, stop)`, which is not empty, is in the set."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and stop <= self._stops[index]

    def reaches(self, start: int, stop: int) -> bool:
        """True when at least one byte of `[start, stop)` is in the set."""
        index = bisect_right(self._stops, start)
        return index < len(self._starts) and self._starts[index] < stop

    @property
    def total(self) -> int:
        """Bytes in the set."""
        return self._total

    @property
    def stop(self) -> int:
        """End of the last range; 0 for the empty set."""
        return self._stops[-1] if self._stops else 0

    def copy(self) -> RangeSet:
        """An independent set with the same bytes."""
        twin = RangeSet()
        twin._starts, twin._stops = self._starts.copy(), self._stops.copy()
        twin._total = self._total
        return twin

    def clear(self) -> None:
        """Remove every byte."""
        self._starts.clear()
        self._stops.clear()
        self._total = 0

    def add(self, item: ByteRange) -> None:
        """Add the bytes of `item`, merging with what it overlaps or touches."""
        if item.length == 0:
            return
        starts, stops, start, stop = self._starts, self._stops, item.start, item.stop
        first = bisect_left(stops, start)
        last = bisect_right(starts, stop)
        if first == last:
            starts.insert(first, start)
            stops.insert(first, stop)
            self._total += stop - start
            return
        start, stop = min(start, starts[first]), max(stop, stops[last - 1])
        self._total += stop - start - self._bytes_of(first, last)
        starts[first], stops[first] = start, stop
        del starts[first + 1 : last], stops[first + 1 : last]

    def _bytes_of(self, first: int, last: int) -> int:
        """In these of the ranges."""
        if last == first + 1:
            return self._stops[first] - self._starts[first]
        return sum(self._stops[first:last]) - sum(self._starts[first:last])

    def subtract(self, item: ByteRange) -> None:
        """Remove the bytes of `item`, splitting what it cuts through."""
        if item.length == 0:
            return
        first = bisect_right(self._stops, item.start)
        last = bisect_left(self._starts, item.stop)
        if first >= last:
            return
        kept = [(self._starts[first], item.start), (item.stop, self._stops[last - 1])]
        kept = [(start, stop) for start, stop in kept if start < stop]
        self._total += sum(stop - start for start, stop in kept) - self._bytes_of(first, last)
        self._starts[first:last] = [start for start, _ in kept]
        self._stops[first:last] = [stop for _, stop in kept]

    def gaps(self, within: ByteRange) -> list[ByteRange]:
        """The parts of `within` that are not in the set, in order."""
        missing: list[ByteRange] = []
        cursor = within.start
        for index in range(bisect_right(self._stops, within.start), len(self._starts)):
            if self._starts[index] >= within.stop:
                break
            if cursor < self._starts[index]:
                missing.append(ByteRange(cursor, self._starts[index]))
            cursor = self._stops[index]
        if cursor < within.stop:
            missing.append(ByteRange(cursor, within.stop))
        return missing

    def held(self, within: ByteRange) -> list[ByteRange]:
        """The parts of `within` that are in the set, in order."""
        found: list[ByteRange] = []
        for index in range(bisect_right(self._stops, within.start), len(self._starts)):
            if self._starts[index] >= within.stop:
                break
            start, stop = max(self._starts[index], within.start), min(self._stops[index], within.stop)
            if start < stop:
                found.append(ByteRange(start, stop))
        return found
