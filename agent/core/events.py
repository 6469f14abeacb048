"""What happened to one file on its way. Past tense; each says when it occurs.

Interpreters (the engine, the simulator) make these; `FileTransfer.handle` takes them. Values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from agent.core.facts import OriginFacts
from agent.core.ownership import Group
from agent.core.sources import FileId, SourceId
from agent.core.spec import Decision as Decision
from agent.core.spec import TransferSpec
from peer.core.failure import Failure
from peer.core.voucher import Voucher
from validation.content import Bitfield, ChunkIndex
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

RequestId = NewType("RequestId", int)
"""Names one `FetchRange`; never used twice within a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileEvent:
    file: FileId


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun(_FileEvent):
    """The job got a slot: go on from whatever is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(_FileEvent):
    """The job lost its slot, was suspended, or is being cancelled: ask for nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginProbed(_FileEvent):
    """The origin described the content. Answers `ProbeOrigin`."""

    facts: OriginFacts
    notes: tuple[str, ...] = ()
    """What a user may want to read about how it was asked (no HEAD, no length, no ranges)."""
    final_url: str | None = None
    """Where redirects led, when the job wants that reported; others find the content under this URL then (BITS:
    redirect policy "report", bits-reference 1.10)."""
    headers: tuple[tuple[str, str], ...] = ()
    """Of the answer."""
    probe: int | None = None
    """That of the `ProbeOrigin`; None is taken for an answer to the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(_FileEvent):
    """The origin did not. Answers `ProbeOrigin`."""

    failure: Failure
    probe: int | None = None
    """As in `OriginProbed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOffered(_FileEvent):
    """A near source said what it has; replaces what it said before. At any time after `AskNear`."""

    source: SourceId
    have: Bitfield
    claimed: Bitfield
    wants: bool = False
    """It is fetching this content itself now: it takes part in bringing what nobody near has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLost(_FileEvent):
    """A near source went away or holds nothing of this content any more."""

    source: SourceId


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdSized(_FileEvent):
    """About so many agents of the group want this content, this one included. Said when there are more than can be
    asked, and when the number changes by a quarter."""

    size: int
    group: Group
    """All that are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearAnswered(_FileEvent):
    """Everybody known when `AskNear` was carried out has answered or failed. Once for each `AskNear`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeArrived(_FileEvent):
    """These bytes of a request in flight are in the part file. In order, any number of times."""

    request: RequestId
    item: ByteRange


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReceived(_FileEvent):
    """A request ended well: every byte arrived, also those of which no `RangeArrived` told. `item.stop` tells the
    length when that was unknown."""

    request: RequestId
    item: ByteRange
    vouchers: tuple[Voucher, ...] = ()
    """Whose signatures the interpreter has verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFailed(_FileEvent):
    """A request ended badly, also after `AbortFetch` (then with `ABORTED`). What had arrived stays reported."""

    request: RequestId
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkDigested(_FileEvent):
    """The digest of a chunk, as it lies in the part file. Answers `DigestChunk`."""

    chunk: ChunkIndex
    digest: ChunkDigest
    token: int | None = None
    """That of the `DigestChunk`; None is taken for an answer to the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFailed(_FileEvent):
    """The part file could not be created, read, or made durable."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFileLost(_FileEvent):
    """The part file is not the one we wrote (missing, shorter, another inode): nothing is held any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentAccepted(_FileEvent):
    """All validators accepted. Answers `ValidateContent` of the same attempt."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRejected(_FileEvent):
    """A validator rejected the content. Answers `ValidateContent` of the same attempt."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentUndecided(_FileEvent):
    """The validators accepted and the application has to decide. Answers `ValidateContent`."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorFailed(_FileEvent):
    """A validator crashed or could not be run: that is no verdict. Answers `ValidateContent`."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(_FileEvent):
    """The application set the validation state, at any time after every byte was there."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesWanted(_FileEvent):
    """Somebody wants these bytes of an on-demand file now (BITS' RequestFileRanges). They may overlap.

    Local offsets. A stop beyond `MAX_CONTENT_BYTES` means the end of the file, while its length is not known.
    """

    items: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionMoved(_FileEvent):
    """Sequential reading goes on here (BITS' UpdateDownloadPosition). A local offset; beyond the end: the start."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Respecified(_FileEvent):
    """The job changed the URL, near or serve use, the size limit or the retry delay. Other fields of the spec stay
    what they were."""

    spec: TransferSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked(_FileEvent):
    """The time that `deadline()` named has come."""


FileEvent = (
    Begun
    | Paused
    | OriginProbed
    | ProbeFailed
    | SourceOffered
    | SourceLost
    | CrowdSized
    | NearAnswered
    | RangeArrived
    | RangeReceived
    | RangeFailed
    | ChunkDigested
    | StorageFailed
    | PartFileLost
    | ContentAccepted
    | ContentRejected
    | ContentUndecided
    | ValidatorFailed
    | Decided
    | RangesWanted
    | PositionMoved
    | Respecified
    | Ticked
)

FetchEvent = SourceOffered | SourceLost | CrowdSized | RangeArrived | RangeReceived | RangeFailed | ChunkDigested
"""Those that concern getting bytes."""
