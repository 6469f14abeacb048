"""Between the engine's values and the journal's opaque documents, both directions. Never knows: rules, SQLite."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.core.jobs import JobError
from agent.core.notices import PendingNotices
from agent.core.provenance import NOTHING_NOTED, Pair, Provenance, Reason
from agent.core.sources import SourceId
from agent.core.spec import Decision, NearUse, Snapshot
from agent.schema import CredentialChange, NewFile
from peer.core.voucher import PeerId, Voucher
from validation.content import Bitfield, ChunkIndex, ContentId
from validation.ranges import ByteRange


class _Facts(msgspec.Struct, kw_only=True, omit_defaults=True):
    length: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    modified_at: float | None = None
    ranges: RangeSupport = RangeSupport.UNKNOWN
    sharing: Sharing = Sharing.ALLOWED


class _Voucher(msgspec.Struct, array_like=True):
    content_id: str
    chunk: int
    digest: bytes
    signer: str
    signature: bytes


class _Provenance(msgspec.Struct, array_like=True):
    pairs: list[tuple[str, str]]
    """Source and reason."""
    runs: list[int]


class _FileDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    new: NewFile
    facts: _Facts | None = None
    from_origin: str = "0"
    near: NearUse = NearUse.PREFERRED
    finished: bool = False
    completed: bool = False
    validation: str = "undecided"
    vouchers: list[_Voucher] = []
    from_origin_bytes: int = 0
    from_cache_bytes: int = 0
    by_peer: dict[str, int] = {}
    discarded_bytes: int = 0
    final_url: str | None = None
    response_headers: list[tuple[str, str]] = []
    former_ids: list[str] = []
    wanted: list[tuple[int, int]] = []
    """Half-open, local offsets."""
    position: int | None = None
    provenance: _Provenance | None = None
    seconds: float = 0.0
    fastest: float | None = None
    rejections: int = 0


_DECISIONS = {decision.value: decision for decision in Decision}
_REASONS = {reason.value: reason for reason in Reason}


class StoredFile(msgspec.Struct, kw_only=True):
    """A file's document, read back."""

    new: NewFile
    snapshot: Snapshot
    completed: bool
    validation: str


def encode_file(new: NewFile, snapshot: Snapshot, *, completed: bool, validation: str) -> bytes:
    """The document the journal keeps for a file."""
    facts = snapshot.facts
    return msgspec.json.encode(
        _FileDocument(
            new=new,
            facts=None
            if facts is None
            else _Facts(
                length=facts.length,
                etag=facts.etag,
                last_modified=facts.last_modified,
                modified_at=facts.modified_at,
                ranges=facts.ranges,
                sharing=facts.sharing,
            ),
            from_origin=f"{snapshot.from_origin:x}",
            near=snapshot.near,
            finished=snapshot.finished,
            completed=completed,
            validation=validation,
            vouchers=[
                _Voucher(item.content_id, item.chunk, item.digest, item.signer, item.signature)
                for item in snapshot.vouchers
            ],
            from_origin_bytes=snapshot.from_origin_bytes,
            from_cache_bytes=snapshot.from_cache_bytes,
            by_peer={str(peer): count for peer, count in snapshot.by_peer},
            discarded_bytes=snapshot.discarded_bytes,
            final_url=snapshot.final_url,
            response_headers=list(snapshot.response_headers),
            former_ids=list(snapshot.former_ids),
            wanted=[(item.start, item.stop) for item in snapshot.wanted],
            position=snapshot.position,
            provenance=_stored_provenance(snapshot.provenance),
            seconds=snapshot.seconds,
            fastest=snapshot.fastest,
            rejections=snapshot.rejections,
        )
    )


def _stored_provenance(known: Provenance) -> _Provenance | None:
    if not known.runs:
        return None
    pairs = [(str(source), reason.value) for source, reason in known.pairs]
    return _Provenance(pairs, list(known.runs))


def _provenance(stored: _Provenance | None) -> Provenance:
    """A reason that another version gave is none of ours: then nothing is known of those chunks."""
    if stored is None:
        return NOTHING_NOTED
    pairs: list[Pair | None] = [
        (SourceId(source), _REASONS[reason]) if reason in _REASONS else None for source, reason in stored.pairs
    ]
    known = [pair for pair in pairs if pair is not None]
    codes = [0, *(0 if pair is None else known.index(pair) + 1 for pair in pairs)]
    runs = [codes[number] if place % 2 else number for place, number in enumerate(stored.runs)]
    return Provenance(pairs=tuple(known), runs=tuple(runs))


def decode_file(data: bytes) -> StoredFile:
    """Reverse of `encode_file`. Raises msgspec.MsgspecError for what we never wrote."""
    document = msgspec.json.decode(data, type=_FileDocument)
    facts = document.facts
    snapshot = Snapshot(
        facts=None
        if facts is None
        else OriginFacts(
            length=facts.length,
            etag=facts.etag,
            last_modified=facts.last_modified,
            modified_at=facts.modified_at,
            ranges=facts.ranges,
            sharing=facts.sharing,
        ),
        from_origin=Bitfield(int(document.from_origin, 16)),
        near=document.near,
        finished=document.finished,
        decision=_DECISIONS.get(document.validation),
        vouchers=tuple(
            Voucher(
                content_id=ContentId(item.content_id),
                chunk=ChunkIndex(item.chunk),
                digest=item.digest,
                signer=PeerId(item.signer),
                signature=item.signature,
            )
            for item in document.vouchers
        ),
        from_origin_bytes=document.from_origin_bytes,
        from_cache_bytes=document.from_cache_bytes,
        by_peer=tuple((PeerId(peer), count) for peer, count in document.by_peer.items()),
        discarded_bytes=document.discarded_bytes,
        final_url=document.final_url,
        response_headers=tuple(document.response_headers),
        former_ids=tuple(ContentId(each) for each in document.former_ids),
        wanted=tuple(ByteRange(start, stop) for start, stop in document.wanted),
        position=document.position,
        provenance=_provenance(document.provenance),
        seconds=document.seconds,
        fastest=document.fastest,
        rejections=document.rejections,
    )
    return StoredFile(
        new=document.new, snapshot=snapshot, completed=document.completed, validation=document.validation
    )


class StoredJobDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the journal keeps of a job beside its settings and its state."""

    error_count: int = 0
    trouble_s: float | None = None
    active_s: float = 0.0
    idle_s: float = 0.0
    partial: bool = False
    credentials: list[CredentialChange] = []
    """As secret as the home they lie in (0700): a key for them would lie beside them."""
    notices: PendingNotices | None = None


def encode_job(document: StoredJobDocument) -> bytes:
    """The document the journal keeps for a job."""
    return msgspec.json.encode(document)


def decode_job(data: bytes) -> StoredJobDocument:
    """Reverse of `encode_job`; one of an older version has fewer fields. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data or b"{}", type=StoredJobDocument)


def encode_error(error: JobError | None) -> bytes | None:
    """The document the journal keeps for an error."""
    return None if error is None else msgspec.json.encode(error)


def decode_error(data: bytes | None) -> JobError | None:
    """Reverse of `encode_error`."""
    return None if data is None else msgspec.json.decode(data, type=JobError)


def destination_of(new: NewFile) -> tuple[Path, str]:
    """The destination's directory and name."""
    path = Path(new.path)
    return path.parent, path.name
