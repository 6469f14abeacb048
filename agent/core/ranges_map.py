"""A file that is some ranges of a remote one, concatenated in the order given: which local byte is which remote.

Everything else in the core counts in local offsets; this is the only place that knows both. Never knows: chunks,
sources, HTTP's inclusive ends. Sources: bits-reference 1.7 and trap 13.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise

from agent.core.facts import OriginFacts, RangeSupport
from agent.core.spec import AskedRange
from peer.core.failure import Failure, FailureKind
from validation.ranges import ByteRange


class RangesError(ValueError):
    """Ranges that no file can satisfy. `code`: INVALID_RANGE or OVERLAPPING_RANGES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_asked(ranges: tuple[AskedRange, ...]) -> None:
    """Refuse what is wrong whatever the length of the remote file is. Raises RangesError.

    BITS takes or refuses a zero-length range depending on the order (bits-reference 1.7); we always refuse it.
    """
    for item in ranges:
        if item.offset < 0 or (item.length is not None and item.length <= 0):
            raise RangesError("INVALID_RANGE", f"the range {_show(item)} names no byte")
    ordered = sorted(ranges, key=lambda item: item.offset)
    for before, after in pairwise(ordered):
        if before.length is None or before.offset + before.length > after.offset:
            text = f"the ranges {_show(before)} and {_show(after)} overlap: each byte can be asked for once"
            raise RangesError("OVERLAPPING_RANGES", text)


class RangeMap:
    """The ranges of one file, with the ends of the remote file known. Two that touch in this order are one."""

    def __init__(self, spans: tuple[ByteRange, ...]) -> None:
        """`spans`: remote ranges, not empty, in local order."""
        joined: list[ByteRange] = []
        for span in spans:
            if joined and joined[-1].stop == span.start:
                joined[-1] = ByteRange(joined[-1].start, span.stop)
            else:
                joined.append(span)
        self.spans = tuple(joined)
        """Remote ranges in local order."""
        self._starts = tuple(accumulate((span.length for span in joined), initial=0))

    @classmethod
    def resolve(cls, asked: tuple[AskedRange, ...], facts: OriginFacts) -> RangeMap | Failure:
        """The map for a remote file that the origin describes so, or why there is none.

        INVALID_RANGE: one begins at or after the end, or reaches beyond it. RANGES_REQUIRED: the origin serves no
        ranges, or tells no length.
        """
        length = facts.length
        if facts.ranges is RangeSupport.NONE:
            return Failure(
                kind=FailureKind.RANGES_REQUIRED, message="the job asks for ranges, the origin serves none"
            )
        if length is None:
            text = "the job asks for ranges, the origin does not tell how long the file is"
            return Failure(kind=FailureKind.RANGES_REQUIRED, message=text)
        spans = []
        for item in asked:
            stop = length if item.length is None else item.offset + item.length
            if item.offset >= length or stop > length:
                text = f"the range {_show(item)} is not inside the file ({length} bytes)"
                return Failure(kind=FailureKind.INVALID_RANGE, message=text)
            spans.append(ByteRange(item.offset, stop))
        return cls(tuple(spans))

    @property
    def length(self) -> int:
        """Bytes of the local file."""
        return self._starts[-1]

    def is_whole(self, remote_length: int) -> bool:
        """The local file is the remote one."""
        return self.spans == (ByteRange(0, remote_length),)

    @property
    def name(self) -> str:
        """The same for equal maps, and for no others: `0-99,500-599`, half-open."""
        return ",".join(f"{span.start}-{span.stop}" for span in self.spans)

    def pieces(self, local: ByteRange) -> list[tuple[ByteRange, int]]:
        """Remote ranges that make up `local`, in order, each with the local offset of its first byte.

        What lies beyond the end has no piece.
        """
        found = []
        at, stop = local.start, min(local.stop, self.length)
        while at < stop:
            index = bisect_right(self._starts, at) - 1
            span, start = self.spans[index], self._starts[index]
            count = min(stop - at, start + span.length - at)
            remote = span.start + at - start
            found.append((ByteRange(remote, remote + count), at))
            at += count
        return found


def _show(item: AskedRange) -> str:
    return f"{item.offset}:{'eof' if item.length is None else item.length}"
