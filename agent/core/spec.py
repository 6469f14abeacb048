"""What a transfer is told at its beginning, and what is kept of it for the next process. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from agent.core.facts import OriginFacts
from agent.core.integrity import Integrity
from agent.core.provenance import NOTHING_NOTED, Provenance
from agent.core.sources import ORIGIN, FileId, SourceId, peer_of
from agent.core.timing import Timing
from peer.core.voucher import PeerId, Voucher
from validation.content import NO_CHUNKS, Bitfield, ContentId
from validation.digest import ChunkDigest, Digest
from validation.ranges import ByteRange


class NearUse(Enum):
    """Whether near sources may supply this file."""

    PREFERRED = "preferred"
    NEVER = "never"
    """The job, the origin's answer, or a rejected copy forbids it."""


class Decision(Enum):
    """What the application decided about a file; None where it has decided nothing."""

    VALID = "valid"
    INVALID = "invalid"


class ServeUse(Enum):
    """Whether this file's chunks may go into the cache and be offered to others."""

    ALLOWED = "allowed"
    NEVER = "never"


class OriginUse(StrEnum):
    """What is to be saved while others have, or want, the same content."""

    LEAST_ORIGIN = "least-origin"
    """The origin brings only what no working near source has. The default."""
    LEAST_TIME = "least-time"
    """… and whatever the near sources cannot deliver in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRange:
    """Consecutive bytes of the remote file, as the job names them (bits-reference 1.7)."""

    offset: int
    length: int | None
    """Bytes; None: to the end of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSpec:
    """One file to fetch."""

    file: FileId
    url: str
    near: NearUse = NearUse.PREFERRED
    serve: ServeUse = ServeUse.ALLOWED
    integrity: Integrity = Integrity.VOUCHED
    digest: Digest | None = None
    """Digest of the whole file, when the job brings one: it makes an id by which mirrors meet."""
    anchors: tuple[ChunkDigest, ...] = ()
    """BLAKE3 of each chunk from a publisher's manifest; empty when there is none."""
    longest_retry_s: float = 600.0
    """The job's minimum retry delay: what the growing delays end in."""
    ranges: tuple[AskedRange, ...] = ()
    """The file is these ranges of the remote one, concatenated in this order; none: the whole."""
    on_demand: bool = False
    """Parts of it are asked for while it lives (bits-reference 1.11)."""
    maximum_bytes: int | None = None
    """More than this is an error; None: no limit."""
    origin_use: OriginUse = OriginUse.LEAST_ORIGIN
    origin_floor: int | None = None
    """Bytes per second from near sources below which the origin tops up; None: it does not."""


@dataclass(slots=True)
class Tally:
    """Payload bytes received, wherever they went afterwards."""

    from_origin: int = 0
    from_cache: int = 0
    """From the own cache or a sibling."""
    by_peer: dict[PeerId, int] = field(default_factory=dict)
    discarded: int = 0
    """Received in vain: corrupt, abandoned, or brought twice."""
    best: int = 0
    """Most bytes that were ever held at once. Only what goes beyond it is progress: bytes that are thrown away
    and fetched again, however often, are none."""
    timing: Timing = field(default_factory=Timing)

    def arrived(self, source: SourceId, count: int, now: float) -> None:
        """So many bytes of it came."""
        self.timing.arrived(count, now)
        peer = peer_of(source)
        if source == ORIGIN:
            self.from_origin += count
        elif peer is not None:
            self.by_peer[peer] = self.by_peer.get(peer, 0) + count
        else:
            self.from_cache += count

    @property
    def from_peers(self) -> int:
        """Sum over all peers."""
        return sum(self.by_peer.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the next process needs to go on. The held ranges are recorded apart, and more often."""

    facts: OriginFacts | None = None
    from_origin: Bitfield = NO_CHUNKS
    near: NearUse = NearUse.PREFERRED
    """NEVER once a copy with bytes of near sources was rejected."""
    rejections: int = 0
    """How often a copy with bytes of near sources was rejected."""
    finished: bool = False
    decision: Decision | None = None
    vouchers: tuple[Voucher, ...] = ()
    """Behind the chunks that came from near sources: needed to name a liar later."""
    from_origin_bytes: int = 0
    from_cache_bytes: int = 0
    by_peer: tuple[tuple[PeerId, int], ...] = ()
    discarded_bytes: int = 0
    final_url: str | None = None
    """Of which URL `facts` tell, when that is not the job's: where redirects led, or the one before a change."""
    response_headers: tuple[tuple[str, str], ...] = ()
    former_ids: tuple[ContentId, ...] = ()
    """Other ids than those of now under which it may have been offered."""
    wanted: tuple[ByteRange, ...] = ()
    """Of an on-demand file: what was asked for and is not all there."""
    position: int | None = None
    """Where sequential reading goes on, when somebody said so."""
    provenance: Provenance = NOTHING_NOTED
    """Of the held chunks, as far as it is known."""
    seconds: float = 0.0
    """From the first request to the last byte, without pauses."""
    fastest: float | None = None
    """Bytes per second over the best second; None: it took less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A snapshot together with the ranges that are in the part file."""

    snapshot: Snapshot
    held: tuple[ByteRange, ...]
