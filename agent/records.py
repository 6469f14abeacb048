"""Between the engine's values and the journal's opaque documents, both directions. Never knows: rules, SQLite."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.core.integrity import Integrity
from agent.core.jobs import JobError
from agent.core.sources import FileId
from agent.core.spec import NearUse, Snapshot, TransferSpec
from agent.errors import UsageError
from agent.schema import NewFile, PeerUse
from peer.core.voucher import PeerId, Voucher
from validation.content import Bitfield, ChunkIndex, ContentId
from validation.digest import Digest
from validation.errors import DigestFormatError


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
        )
    )


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
    )
    return StoredFile(
        new=document.new, snapshot=snapshot, completed=document.completed, validation=document.validation
    )


def encode_error(error: JobError | None) -> bytes | None:
    """The document the journal keeps for an error."""
    return None if error is None else msgspec.json.encode(error)


def decode_error(data: bytes | None) -> JobError | None:
    """Reverse of `encode_error`."""
    return None if data is None else msgspec.json.decode(data, type=JobError)


def spec_of(file: FileId, new: NewFile, integrity: Integrity, longest_retry_s: float) -> TransferSpec:
    """What the core is told about a file. Raises UsageError for a digest that is none.

    A URL with user information, or a request with headers of its own, is not shared (reliability 1.5).
    """
    try:
        digest = Digest.parse(new.digest) if new.digest is not None else None
    except DigestFormatError as error:
        raise UsageError(str(error)) from error
    private = bool(new.headers) or "@" in new.url.partition("://")[2].partition("/")[0]
    near = NearUse.NEVER if new.peers is PeerUse.NEVER or private else NearUse.PREFERRED
    return TransferSpec(
        file=file, url=new.url, near=near, integrity=integrity, digest=digest, longest_retry_s=longest_retry_s
    )


def destination_of(new: NewFile) -> tuple[Path, str]:
    """The destination's directory and name."""
    path = Path(new.path)
    return path.parent, path.name
