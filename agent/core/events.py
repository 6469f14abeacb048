"""What happened to one file on its way. Past tense; each says when it occurs.

Interpreters (the engine, the simulator) make these; `FileTransfer.handle` takes them. Values only.
"""

from __future__ import annotations

from typing import NewType

import msgspec

from agent.core.facts import OriginFacts
from agent.core.rendezvous import Group
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


class _FileEvent(msgspec.Struct, frozen=True, kw_only=True):
    file: FileId


class Begun(_FileEvent, frozen=True, kw_only=True):
    """The job got a slot: go on from whatever is held."""


class Paused(_FileEvent, frozen=True, kw_only=True):
    """The job lost its slot, was suspended, or is being cancelled: ask for nothing more."""


class OriginProbed(_FileEvent, frozen=True, kw_only=True):
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


class ProbeFailed(_FileEvent, frozen=True, kw_only=True):
    """The origin did not. Answers `ProbeOrigin`."""

    failure: Failure
    probe: int | None = None
    """As in `OriginProbed`."""


class SourceOffered(_FileEvent, frozen=True, kw_only=True):
    """A near source said what it has; replaces what it said before. At any time after `AskNear`."""

    source: SourceId
    have: Bitfield
    claimed: Bitfield
    wants: bool = False
    """It is fetching this content itself now: it takes part in bringing what nobody near has."""


class SourceLost(_FileEvent, frozen=True, kw_only=True):
    """A near source went away or holds nothing of this content any more."""

    source: SourceId


class CrowdSized(_FileEvent, frozen=True, kw_only=True):
    """About so many agents of the group want this content, this one included. Said when there are more than can be
    asked, and when the number changes by a quarter."""

    size: int
    group: Group
    """All that are there."""


class NearAnswered(_FileEvent, frozen=True, kw_only=True):
    """Everybody known when `AskNear` was carried out has answered or failed. Once for each `AskNear`."""


class RangeArrived(_FileEvent, frozen=True, kw_only=True):
    """These bytes of a request in flight are in the part file. In order, any number of times."""

    request: RequestId
    item: ByteRange


class RangeReceived(_FileEvent, frozen=True, kw_only=True):
    """A request ended well: every byte arrived, also those of which no `RangeArrived` told. `item.stop` tells the
    length when that was unknown."""

    request: RequestId
    item: ByteRange
    vouchers: tuple[Voucher, ...] = ()
    """Whose signatures the interpreter has verified."""


class RangeFailed(_FileEvent, frozen=True, kw_only=True):
    """A request ended badly, also after `AbortFetch` (then with `ABORTED`). What had arrived stays reported."""

    request: RequestId
    failure: Failure


class ChunkDigested(_FileEvent, frozen=True, kw_only=True):
    """The digest of a chunk, as it lies in the part file. Answers `DigestChunk`."""

    chunk: ChunkIndex
    digest: ChunkDigest
    token: int | None = None
    """That of the `DigestChunk`; None is taken for an answer to the last one."""


class StorageFailed(_FileEvent, frozen=True, kw_only=True):
    """The part file could not be created, read, or made durable."""

    failure: Failure


class PartFileLost(_FileEvent, frozen=True, kw_only=True):
    """The part file is not the one we wrote (missing, shorter, another inode): nothing is held any more."""


class ContentAccepted(_FileEvent, frozen=True, kw_only=True):
    """All validators accepted. Answers `ValidateContent` of the same attempt."""

    attempt: int


class ContentRejected(_FileEvent, frozen=True, kw_only=True):
    """A validator rejected the content. Answers `ValidateContent` of the same attempt."""

    attempt: int
    reason: str


class ContentUndecided(_FileEvent, frozen=True, kw_only=True):
    """The validators accepted and the application has to decide. Answers `ValidateContent`."""

    attempt: int


class ValidatorFailed(_FileEvent, frozen=True, kw_only=True):
    """A validator crashed or could not be run: that is no verdict. Answers `ValidateContent`."""

    attempt: int
    reason: str


class Decided(_FileEvent, frozen=True, kw_only=True):
    """The application set the validation state, at any time after every byte was there."""

    decision: Decision


class RangesWanted(_FileEvent, frozen=True, kw_only=True):
    """Somebody wants these bytes of an on-demand file now (BITS' RequestFileRanges). They may overlap.

    Local offsets. A stop beyond `MAX_CONTENT_BYTES` means the end of the file, while its length is not known.
    """

    items: tuple[ByteRange, ...]


class PositionMoved(_FileEvent, frozen=True, kw_only=True):
    """Sequential reading goes on here (BITS' UpdateDownloadPosition). A local offset; beyond the end: the start."""

    offset: int


class Respecified(_FileEvent, frozen=True, kw_only=True):
    """The job changed the URL, near or serve use, the size limit or the retry delay. Other fields of the spec stay
    what they were."""

    spec: TransferSpec


class Ticked(_FileEvent, frozen=True, kw_only=True):
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
