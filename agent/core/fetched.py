"""What there is of one content while it is fetched, to be read: `fetching.py` is what changes it.

Of content of unknown length all that is known is how many bytes have come. Never knows: time, what is asked next.
"""

from __future__ import annotations

from agent.core.chunks import ChunkBook
from agent.core.crowd import Crowd
from agent.core.evidence import Concerned, Evidence
from agent.core.explaining import Explaining
from agent.core.means import Means
from agent.core.origin_share import OriginShare
from agent.core.provenance import Provenance, of_stream
from agent.core.source_book import SourceBook
from agent.core.spec import TransferSpec
from peer.core.voucher import Voucher
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout
from validation.ranges import ByteRange
from validation.rangeset import RangeSet


class Fetched:
    """The bytes of one content that are there, and those who may bring the rest."""

    def __init__(self, spec: TransferSpec, means: Means, length: int | None) -> None:
        self.chunks: ChunkBook | None = ChunkBook(ChunkLayout.for_length(length)) if length is not None else None
        self._spec = spec
        self._tuning = means.tuning
        self._rng = means.rng
        self._tally = means.tally
        self._requests = means.requests
        self._demand = means.demand
        self._publishing = means.publishing
        self._chunk_bytes = self.chunks.layout.chunk_bytes if self.chunks is not None else 0
        self._sources = SourceBook(self._tuning, self._chunk_bytes, cautious=means.own is not None)
        self._crowd = Crowd(self._tuning, self._sources, self._requests, means.own)
        self._share = OriginShare(self._tuning)
        self._why = Explaining(spec, means.publishing, alone=means.own is None)
        self._evidence: Evidence | None = None
        if self.chunks is not None:
            self._evidence = Evidence(spec, Concerned.of(means, self.chunks, self._sources, self._share))
        self._stream_bytes = 0
        self._stream_ended = False

    @property
    def complete(self) -> bool:
        """Every byte is there and proven."""
        return self._stream_ended if self.chunks is None else self.chunks.complete

    @property
    def demand_met(self) -> bool:
        """Something was wanted before everything else, and all of that is there and proven."""
        chunks, demand = self.chunks, self._demand
        return chunks is not None and demand.active and not demand.goal(chunks.layout) & ~chunks.proven

    @property
    def whole_only(self) -> bool:
        """The origin gives nothing but the whole."""
        return self._share.whole_only

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    @property
    def held_bytes(self) -> int:
        """Bytes in the part file."""
        return self._stream_bytes if self.chunks is None else self.chunks.held.total

    @property
    def filled(self) -> RangeSet:
        """What can be read in the part file: bytes of the origin, and proven ones of others."""
        if self.chunks is None:
            return RangeSet((ByteRange(0, self._stream_bytes),))
        return self.chunks.keepable(entry.item for entry in self._requests.near)

    @property
    def from_origin(self) -> Bitfield:
        """Chunks the origin supplied."""
        if self.chunks is not None:
            return self.chunks.from_origin
        return ChunkLayout.for_length(self._stream_bytes).everything if self._stream_ended else NO_CHUNKS

    @property
    def provenance(self) -> Provenance:
        """Where the bytes came from that can be read, and why not from nearer."""
        if self.chunks is None:
            return of_stream(self._stream_bytes)
        return self._why.kept(self.chunks.touched_by(self.filled))

    def vouchers_in_use(self) -> tuple[Voucher, ...]:
        """The vouchers behind the chunks that came from near sources."""
        return () if self._evidence is None else self._evidence.in_use()

    @property
    def comparing(self) -> bool:
        """What was held was rejected, and it is being found out what of it is wrong."""
        return self._evidence is not None and self._evidence.comparing is not None
