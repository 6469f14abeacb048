"""Which bytes of one file are held, which chunks are proven, and which of them the origin itself supplied.

To *hold* a byte means that it is in the part file; to be *proven* that the chunk's digest was computed from the
part file and nothing contradicts it. Never knows: sources beyond "the origin or not", requests, time.
"""

from __future__ import annotations

from collections.abc import Iterable

from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, chunks_in
from validation.ranges import ByteRange
from validation.rangeset import RangeSet


class ChunkBook:
    """The state of every byte of one file. `proven`, `digesting` and `from_origin` are sets of chunks."""

    def __init__(self, layout: ChunkLayout) -> None:
        self.layout = layout
        self._everything = layout.everything
        self.held = RangeSet()
        self.proven = NO_CHUNKS
        self.digesting = NO_CHUNKS
        self.from_origin = NO_CHUNKS
        """Chunks of which every byte came from the origin, in this transfer."""
        self._tainted = NO_CHUNKS
        self.inherited = NO_CHUNKS
        """Chunks with bytes that somebody else left (an earlier process, another URL): good enough to use, not to
        vouch for, since nobody watched them meanwhile."""

    @property
    def complete(self) -> bool:
        """Every chunk is proven."""
        return self.proven == self._everything

    @property
    def missing(self) -> Bitfield:
        """Chunks that are neither proven nor being digested."""
        return Bitfield(self._everything & ~(self.proven | self.digesting))

    @property
    def suspects(self) -> Bitfield:
        """Proven chunks with bytes that did not come from the origin."""
        return Bitfield(self.proven & ~self.from_origin)

    def arrived_from_origin(self, item: ByteRange) -> list[ChunkIndex]:
        """Bytes of the origin are in the file. Returns the chunks that have just become whole."""
        self.held.add(item)
        return self._whole_among(self.layout.touched_by(item))

    def arrived_from_near(self, item: ByteRange) -> None:
        """Bytes of a near source are in the file; they count once their chunk is proven."""
        self.held.add(item)
        for chunk in self.layout.touched_by(item):
            self._tainted = Bitfield(self._tainted | 1 << chunk)

    def begin_digest(self, chunk: ChunkIndex) -> None:
        """The chunk is whole and its digest has been asked for."""
        self.digesting = Bitfield(self.digesting | 1 << chunk)

    def forget_digests(self) -> None:
        """No digest that was asked for is waited for any more."""
        self.digesting = NO_CHUNKS

    def end_digest(self, chunk: ChunkIndex) -> bool:
        """Its digest is known. False when the chunk was discarded meanwhile, so that the answer means nothing."""
        waiting = bool(self.digesting >> chunk & 1)
        self.digesting = Bitfield(self.digesting & ~(1 << chunk))
        return waiting and self._is_held(chunk)

    def _is_held(self, chunk: int) -> bool:
        start = chunk * self.layout.chunk_bytes
        return self.held.covers(start, min(start + self.layout.chunk_bytes, self.layout.length))

    def prove(self, chunk: ChunkIndex) -> None:
        """The chunk's bytes are what they should be."""
        self.proven = Bitfield(self.proven | 1 << chunk)
        if not self._tainted >> chunk & 1:
            self.from_origin = Bitfield(self.from_origin | 1 << chunk)

    def came_from_origin(self, chunk: ChunkIndex) -> bool:
        """No byte of the chunk came from a near source."""
        return not self._tainted >> chunk & 1

    def discard(self, chunks: Iterable[ChunkIndex]) -> int:
        """Forget the bytes of these chunks. Returns how many were held."""
        count = mask = 0
        for chunk in chunks:
            mask |= 1 << chunk
            start = chunk * self.layout.chunk_bytes
            if self.held.reaches(start, start + self.layout.chunk_bytes):
                before = self.held.total
                self.held.subtract(self.layout.range_of(chunk))
                count += before - self.held.total
        if not mask & (self.proven | self.digesting | self.inherited | self._tainted):
            return count
        for name in ("proven", "digesting", "from_origin", "inherited", "_tainted"):
            setattr(self, name, Bitfield(getattr(self, name) & ~mask))
        return count

    def discard_all(self) -> int:
        """Forget everything. Returns how many bytes were held."""
        return self.discard(chunks_in(self.layout.everything))

    def restore(self, held: Iterable[ByteRange], from_origin: Bitfield) -> None:
        """Take over what an earlier process left in the part file; nothing of it is proven yet."""
        for item in held:
            inside = item.intersection(self.layout.whole)
            if inside is not None:
                self.held.add(inside)
        self.inherit()
        for chunk in chunks_in(self._everything):
            if not from_origin >> chunk & 1 and self._is_held(chunk):
                self._tainted = Bitfield(self._tainted | 1 << chunk)

    def inherit(self) -> None:
        """All that is held was left by somebody: an earlier process, or what another URL served."""
        self.inherited = Bitfield(self.inherited | self.touched_by(self.held))

    def touched_by(self, items: Iterable[ByteRange]) -> Bitfield:
        """Chunks with at least one byte in these ranges."""
        field = NO_CHUNKS
        for item in items:
            touched = self.layout.touched_by(item)
            field = Bitfield(field | ((1 << len(touched)) - 1) << touched.start)
        return field

    def whole_unproven(self) -> list[ChunkIndex]:
        """Chunks that are wholly held, not proven, and not being digested."""
        return self._whole_among(chunks_in(self.missing)) if self.held.total else []

    def is_begun(self, chunk: ChunkIndex) -> bool:
        """Some of its bytes are held, and not all."""
        whole = self.layout.range_of(ChunkIndex(chunk))
        return whole.start < self.next_byte(ChunkIndex(chunk)) < whole.stop

    def next_byte(self, chunk: ChunkIndex) -> int:
        """Offset of the first byte of the chunk that is not held (its start, unless it was begun)."""
        gaps = self.held.gaps(self.layout.range_of(chunk))
        return gaps[0].start if gaps else self.layout.range_of(chunk).stop

    def keepable(self, in_flight_near: Iterable[ByteRange]) -> RangeSet:
        """What may be recorded as held: proven chunks, and bytes of the origin; never unproven near bytes."""
        kept = self.held.copy()
        for item in in_flight_near:
            kept.subtract(item)
        for chunk in chunks_in(Bitfield(self._tainted & ~self.proven)):
            kept.subtract(self.layout.range_of(chunk))
        return kept

    def _whole_among(self, chunks: Iterable[int]) -> list[ChunkIndex]:
        settled = self.proven | self.digesting
        return [ChunkIndex(chunk) for chunk in chunks if not settled >> chunk & 1 and self._is_held(chunk)]
