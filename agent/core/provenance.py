"""Where each chunk of one file came from, and why not from nearer. Two bytes a chunk, and none before the first.

Records what it is told; why, is `explaining.py`. Never knows: requests, time, what a source is beyond its id.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from agent.core.sources import ORIGIN, SourceId
from validation.content import Bitfield, ChunkLayout, runs_in
from validation.ranges import ByteRange
from validation.rangeset import RangeSet

_MOST_CODES = 65_535
"""What two bytes can tell apart; 0 is "nothing was noted"."""


class Reason(StrEnum):
    """Why a chunk came from where it came from, and not from nearer. The values are those of the documents."""

    NEAREST = "nearest"
    NEARER_BUSY = "nearer-busy"
    PEERS_OFF = "peers-off"
    COPY_REJECTED = "copy-rejected"
    NO_MANIFEST = "no-manifest"
    NOT_SHAREABLE = "not-shareable"
    LENGTH_UNKNOWN = "length-unknown"
    NO_GROUP = "no-group"
    NOBODY_NEAR = "nobody-near"
    OURS = "ours"
    HELPED = "helped"
    NOT_CLAIMED = "not-claimed"
    LATE_CLAIM = "late-claim"
    OWNER_LEFT = "owner-left"
    BEGUN = "begun"
    IN_ORDER = "in-order"
    WHOLE_ONLY = "whole-only"
    BELOW_FLOOR = "below-floor"
    LEAST_TIME = "least-time"
    BAD_COPY = "bad-copy"
    UNPROVEN = "unproven"
    NEAR_BUSY = "near-busy"
    NEAR_SILENT = "near-silent"
    NEAR_SLOW = "near-slow"
    NEAR_FAILED = "near-failed"
    UNRECORDED = "unrecorded"

    __hash__ = str.__hash__  # the one of Enum is written in Python: it would be half of what a note costs

    @property
    def meaning(self) -> str:
        """The same as words for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.NEAREST: "nothing nearer had it",
    Reason.NEARER_BUSY: "what is nearer had it and could take no more requests",
    Reason.PEERS_OFF: "the job or this agent's settings forbid near sources",
    Reason.COPY_REJECTED: "a copy with bytes of near sources was rejected",
    Reason.NO_MANIFEST: "the job takes near chunks only by a publisher's manifest, and there is none",
    Reason.NOT_SHAREABLE: "the origin's answer forbids sharing, or nothing says that two copies are the same",
    Reason.LENGTH_UNKNOWN: "the origin did not tell the length",
    Reason.NO_GROUP: "this agent has no group, and its own cache and jobs did not have it",
    Reason.NOBODY_NEAR: "nobody near had it, and nobody else wanted it",
    Reason.OURS: "nobody near had it, and it was ours to fetch for the group",
    Reason.HELPED: "nobody near had it; it was another's to fetch, who had more left than we",
    Reason.NOT_CLAIMED: "nobody near had it, and whose it was to fetch did not begin in time",
    Reason.LATE_CLAIM: "another had promised to fetch it and did not in time",
    Reason.OWNER_LEFT: "another had promised to fetch it and left",
    Reason.BEGUN: "the origin had sent a part of it already",
    Reason.IN_ORDER: "nobody near had it when it was wanted, in order, by who reads the file",
    Reason.WHOLE_ONLY: "the origin serves no ranges, so that all of the file had to be fetched from it",
    Reason.BELOW_FLOOR: "near sources had it and were slower than the job's floor",
    Reason.LEAST_TIME: "near sources had it and could not deliver in time (least-time)",
    Reason.BAD_COPY: "a near copy was wrong, or vouchers contradicted each other",
    Reason.UNPROVEN: "a near source sent it without a voucher",
    Reason.NEAR_BUSY: "who had it near was busy",
    Reason.NEAR_SILENT: "who had it near sent nothing",
    Reason.NEAR_SLOW: "who had it near took too long and was cut off",
    Reason.NEAR_FAILED: "who had it near failed",
    Reason.UNRECORDED: "it came before the agent was started again, and was not recorded",
}

Pair = tuple[SourceId, Reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What was noted, as a value. `runs`: how many chunks, then which of `pairs`, from 1 (0: none), and so on."""

    pairs: tuple[Pair, ...]
    runs: tuple[int, ...]

    def spread(self, count: int) -> Iterator[tuple[int, int, Pair | None]]:
        """Runs of the first `count` chunks as (first, after the last, pair), in order and without gaps."""
        place = 0
        for length, code in zip(self.runs[::2], self.runs[1::2], strict=False):
            after = min(count, place + length)
            if place < after:
                yield place, after, self.pairs[code - 1] if 0 < code <= len(self.pairs) else None
            place = max(place, after)
        if place < count:
            yield place, count, None


NOTHING_NOTED = Provenance(pairs=(), runs=())


def of_stream(length: int) -> Provenance:
    """Of content whose length nobody knew before it ended: one answer of the origin, so many bytes long."""
    count = ChunkLayout.for_length(length).count
    return Provenance(pairs=((ORIGIN, Reason.LENGTH_UNKNOWN),), runs=(count, 1))


class Notes:
    """The last thing noted of each chunk."""

    __slots__ = ("_codes", "_known")

    def __init__(self) -> None:
        self._codes = array("H")
        self._known: dict[Pair, int] = {}

    def note(self, first: int, last: int, source: SourceId, reason: Reason) -> None:
        """Chunks `first` to `last` (both included) come from there."""
        codes, pair = self._codes, (source, reason)
        code = self._known.get(pair)
        if code is None:
            code = len(self._known) + 1
            if code > _MOST_CODES:
                code = 0
            else:
                self._known[pair] = code
        if last >= len(codes):
            codes.frombytes(bytes(codes.itemsize * (last + 1 - len(codes))))
        if first == last:
            codes[first] = code
        else:
            codes[first : last + 1] = array("H", (code,)) * (last + 1 - first)

    def restore(self, kept: Provenance) -> None:
        """What an earlier process had noted."""
        for first, after, pair in kept.spread(sum(kept.runs[::2])):
            if pair is not None:
                self.note(first, after - 1, *pair)

    def kept(self, chunks: Bitfield) -> Provenance:
        """What was noted of these chunks."""
        known = array("H", bytes(2 * len(self._codes)))
        for first, last in runs_in(Bitfield(chunks & ((1 << len(known)) - 1))):
            known[first : last + 1] = self._codes[first : last + 1]
        runs: list[int] = []
        for code, same in groupby(known):
            runs += (sum(1 for _ in same), code)
        return Provenance(pairs=tuple(self._known), runs=tuple(runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes that are there, whence, and why not from nearer. `source` None: from somebody near, it is not known
    from whom."""

    item: ByteRange
    source: SourceId | None
    reason: Reason


def spans(known: Provenance, layout: ChunkLayout, held: RangeSet, from_origin: Bitfield) -> list[Span]:
    """All held bytes in order, as long runs as possible. Of what was not noted, `from_origin` says the source."""
    found: list[tuple[int, int, SourceId | None, Reason]] = []
    for first, after, pair in known.spread(layout.count):
        for begin, end, source, reason in _told(first, after, pair, from_origin):
            within = ByteRange(begin * layout.chunk_bytes, min(end * layout.chunk_bytes, layout.length))
            for item in held.held(within):
                start = item.start
                if found and found[-1][1:] == (start, source, reason):
                    start = found.pop()[0]
                found.append((start, item.stop, source, reason))
    return [
        Span(item=ByteRange(start, stop), source=source, reason=reason) for start, stop, source, reason in found
    ]


def _told(
    first: int, after: int, pair: Pair | None, from_origin: Bitfield
) -> Iterator[tuple[int, int, SourceId | None, Reason]]:
    if pair is not None:
        yield first, after, *pair
        return
    for of_origin, same in groupby(range(first, after), lambda chunk: bool(from_origin >> chunk & 1)):
        chunks = list(same)
        yield chunks[0], chunks[-1] + 1, ORIGIN if of_origin else None, Reason.UNRECORDED
