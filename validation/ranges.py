"""Ranges of bytes: half-open `[start, stop)`. Sets of them are in `rangeset.py`.

Never knows: HTTP's inclusive ends (they exist only at the wire), chunks, files.
"""

from __future__ import annotations

import msgspec


class ByteRange(msgspec.Struct, frozen=True, order=True):
    """Consecutive bytes `[start, stop)`; `start == stop` is the empty range at that place.

    Raises ValueError for a negative start or a stop before the start.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.stop < self.start:
            raise ValueError(f"not a range: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        """Bytes in the range."""
        return self.stop - self.start

    def __contains__(self, other: ByteRange) -> bool:
        return self.start <= other.start and other.stop <= self.stop

    def overlaps(self, other: ByteRange) -> bool:
        """True when at least one byte is in both."""
        return max(self.start, other.start) < min(self.stop, other.stop)

    def intersection(self, other: ByteRange) -> ByteRange | None:
        """The bytes in both, or None when there is none."""
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        return ByteRange(start, stop) if start < stop else None
