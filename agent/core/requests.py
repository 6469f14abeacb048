"""The requests in flight of one file: what each asked of whom, and how far it got.

Never knows: why a request was made, or what its failure means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.core.events import RequestId
from agent.core.sources import ORIGIN, SourceId
from validation.content import NO_CHUNKS, Bitfield
from validation.ranges import ByteRange


@dataclass(slots=True)
class InFlight:
    """One request. `chunks` shrinks as chunks become whole; `cursor` is the next offset expected."""

    request: RequestId
    source: SourceId
    item: ByteRange
    chunks: Bitfield
    cursor: int
    began: float
    mark: float
    """When it began, or its last chunk became whole."""
    aborting: bool = False
    orphan: bool = False
    """What it was for is forgotten: it only has to end, before anything else is written."""

    @property
    def received(self) -> int:
        """Bytes that have arrived."""
        return self.cursor - self.item.start


class Requests:
    """All requests in flight of one file, for its whole life: ids are never used twice, so that a late answer is
    recognised as late."""

    def __init__(self) -> None:
        self.of_origin: InFlight | None = None
        """The origin's request; there is at most one."""
        self._open: dict[RequestId, InFlight] = {}
        self._near: tuple[InFlight, ...] | None = ()
        """None: not looked up since it changed."""
        self._orphans = 0
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(tuple(self._open.values()))

    def number(self) -> int:
        """A number that was never given out for this file."""
        self._last += 1
        return self._last

    def open(self, source: SourceId, item: ByteRange, chunks: Bitfield, now: float) -> InFlight:
        """A new request begins."""
        request = RequestId(self.number())
        entry = InFlight(request, source, item, chunks, item.start, now, now)
        self._open[request] = entry
        if source == ORIGIN:
            self.of_origin = entry
        else:
            self._near = None
        return entry

    def get(self, request: RequestId) -> InFlight | None:
        """The request, or None when it is over."""
        return self._open.get(request)

    def close(self, request: RequestId) -> InFlight | None:
        """The request is over. None when it already was."""
        entry = self._open.pop(request, None)
        if entry is not None:
            self._closed(entry)
        return entry

    def _closed(self, entry: InFlight) -> None:
        self._orphans -= entry.orphan
        if entry is self.of_origin:
            self.of_origin = next((each for each in self._open.values() if each.source == ORIGIN), None)
        else:
            self._near = None

    def disown(self) -> None:
        """Nothing that these requests still bring is wanted."""
        for entry in self._open.values():
            entry.orphan = True
            entry.chunks = NO_CHUNKS
        self._orphans = len(self._open)

    def close_orphan(self, request: RequestId) -> bool:
        """If the request was disowned, it is over now."""
        entry = self._open.get(request)
        if entry is None or not entry.orphan:
            return False
        del self._open[request]
        self._closed(entry)
        return True

    @property
    def orphans(self) -> bool:
        """Some disowned request may still write."""
        return self._orphans > 0

    @property
    def chunks(self) -> Bitfield:
        """Chunks that some request still carries."""
        field = 0
        for entry in self._open.values():
            field |= entry.chunks
        return Bitfield(field)

    @property
    def near(self) -> tuple[InFlight, ...]:
        """Requests to near sources."""
        if self._near is None:
            self._near = tuple([entry for entry in self._open.values() if entry.source != ORIGIN])
        return self._near
