"""What one file on its way asks its interpreter to do. Imperative; each says what is owed back.

`Outcome` values are for whoever owns the file (the job, or a simulation); the rest is for the interpreter.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from agent.core.events import RequestId
from agent.core.sources import FileId, SourceId
from peer.core.failure import Failure
from peer.core.standing import Offence
from peer.core.voucher import PeerId, Voucher
from validation.content import Bitfield, ChunkIndex, ChunkLayout, ContentId
from validation.digest import ChunkDigest
from validation.ranges import ByteRange


class Durability(Enum):
    """What saved progress must survive."""

    PROCESS = "kill -9"
    POWER = "power loss"


class _FileCommand(msgspec.Struct, frozen=True, kw_only=True):
    file: FileId


class ProbeOrigin(_FileCommand, frozen=True, kw_only=True):
    """Ask the origin what the content is. Owes one `OriginProbed` or `ProbeFailed` with this number."""

    probe: int = 0
    """Tells the answer from one to an earlier question: the URL may be another one by now."""


class AskNear(_FileCommand, frozen=True, kw_only=True):
    """Ask the own cache and the peers who has this content, and go on asking until `StopAsking`.

    Owes `SourceOffered` for each that has some, again whenever that changes, `SourceLost`, and one `NearAnswered`.
    """

    content_ids: tuple[ContentId, ...]
    layout: ChunkLayout


class StopAsking(_FileCommand, frozen=True, kw_only=True):
    """Nothing more is wanted from near sources. Owes nothing."""


class PublishClaim(_FileCommand, frozen=True, kw_only=True):
    """Tell peers what this transfer is fetching from the origin, and whether it wants the content at all. Owes
    nothing. Replaces what was said of this file before; without content ids, nothing is said any more."""

    content_ids: tuple[ContentId, ...]
    layout: ChunkLayout
    chunks: Bitfield
    wants: bool


class PrepareFile(_FileCommand, frozen=True, kw_only=True):
    """Create (or reopen) the part file and reserve `length` bytes (None: unknown). Before any fetch.

    Owes `StorageFailed` or `PartFileLost` if it cannot; otherwise nothing.
    """

    length: int | None


class FetchRange(_FileCommand, frozen=True, kw_only=True):
    """Get `item` from `source` into the part file. Local offsets: of the origin `FileTransfer.pieces` says where
    they are in the remote file.

    Owes any number of `RangeArrived`, then exactly one of `RangeReceived` / `RangeFailed` with the same request
    id, also after an abort.
    """

    request: RequestId
    source: SourceId
    item: ByteRange


class AbortFetch(_FileCommand, frozen=True, kw_only=True):
    """End a request early. Owes its `RangeFailed` soon; a request that just ended well may say so instead."""

    request: RequestId


class DigestChunk(_FileCommand, frozen=True, kw_only=True):
    """Compute a chunk's BLAKE3 from the part file. Owes one `ChunkDigested` with this token, or `StorageFailed`."""

    chunk: ChunkIndex
    item: ByteRange
    token: int = 0
    """Tells this digest from one of bytes that were thrown away meanwhile."""


class PublishChunk(_FileCommand, frozen=True, kw_only=True):
    """Put a proven chunk into the peer cache and offer it. Owes nothing.

    The interpreter signs a voucher of its own for each id in `sign`, and adds those that came with the chunk.
    """

    content_ids: tuple[ContentId, ...]
    layout: ChunkLayout
    chunk: ChunkIndex
    digest: ChunkDigest
    vouchers: tuple[Voucher, ...]
    sign: tuple[ContentId, ...]


class WithdrawContent(_FileCommand, frozen=True, kw_only=True):
    """Stop offering the content and drop it from the cache: it was rejected. Owes nothing."""

    content_ids: tuple[ContentId, ...]


class WithdrawChunks(_FileCommand, frozen=True, kw_only=True):
    """Drop these chunks from the cache: their bytes or vouchers proved wrong. Owes nothing."""

    content_ids: tuple[ContentId, ...]
    chunks: Bitfield


class ReportPeer(_FileCommand, frozen=True, kw_only=True):
    """Hold an offence against a peer, for all files. Owes nothing; after a ban (peer.core.standing.BANNING) a
    `SourceLost` will follow from the network."""

    peer: PeerId
    offence: Offence
    detail: str


class ValidateContent(_FileCommand, frozen=True, kw_only=True):
    """Run the validators over the part file. Owes exactly one answer with the same attempt."""

    attempt: int


class SaveProgress(_FileCommand, frozen=True, kw_only=True):
    """Record what is held. Owes `StorageFailed` when the disk fails; otherwise nothing.

    What is not in `held` may be overwritten by requests that are made after this: with `POWER` it has to be
    recorded before they write.
    """

    held: tuple[ByteRange, ...]
    durability: Durability


class ForgetProgress(_FileCommand, frozen=True, kw_only=True):
    """Record, durably, that nothing is held any more, *before* anything is written again; then truncate."""


class LogLine(_FileCommand, frozen=True, kw_only=True):
    """Something a user may want to read about this file. Owes nothing."""

    text: str


# --- outcomes: for the owner of the file ---------------------------------------------------------------------


class Connected(_FileCommand, frozen=True, kw_only=True):
    """The origin answered; the transfer is under way."""


class AllThere(_FileCommand, frozen=True, kw_only=True):
    """Every byte is there; validation begins."""


class Undecided(_FileCommand, frozen=True, kw_only=True):
    """The application has to decide."""


class Refetching(_FileCommand, frozen=True, kw_only=True):
    """The content was rejected and part of it came from near sources: those bytes are wanted again, from the
    origin. The transfer waits for `Begun`."""

    reason: str


class Finished(_FileCommand, frozen=True, kw_only=True):
    """The content was accepted."""


class Progressed(_FileCommand, frozen=True, kw_only=True):
    """New bytes count towards the file: patience starts afresh."""


class RangesFilled(_FileCommand, frozen=True, kw_only=True):
    """These bytes of an on-demand file have become readable since the last time (BITS' FILE_RANGES_TRANSFERRED).

    At least a chunk, or what came in half a second; not more often than ten times a second, but for the last.
    """

    items: tuple[ByteRange, ...]


class DemandMet(_FileCommand, frozen=True, kw_only=True):
    """All that was wanted of an on-demand file is there, and the file is not whole. Nothing is wanted any more; the
    transfer waits for `Begun`."""


class Troubled(_FileCommand, frozen=True, kw_only=True):
    """Nothing can be done before `retry_at` (the caller's clock). The transfer waits for `Begun`."""

    failure: Failure
    retry_at: float


class Failed(_FileCommand, frozen=True, kw_only=True):
    """It cannot go on until somebody changes something. `code` is one of the public error codes."""

    code: str
    message: str
    context: str
    http_status: int | None = None


Outcome = (
    Connected
    | AllThere
    | Undecided
    | Refetching
    | Finished
    | Progressed
    | RangesFilled
    | DemandMet
    | Troubled
    | Failed
)
Action = (
    ProbeOrigin
    | AskNear
    | StopAsking
    | PublishClaim
    | PrepareFile
    | FetchRange
    | AbortFetch
    | DigestChunk
    | PublishChunk
    | WithdrawContent
    | WithdrawChunks
    | ReportPeer
    | ValidateContent
    | SaveProgress
    | ForgetProgress
    | LogLine
)
Command = Action | Outcome
