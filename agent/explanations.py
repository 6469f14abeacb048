"""What the core knows of how files came, as a document for users. Never decides, never changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.core import sources
from agent.core.account import Account
from agent.core.provenance import Reason
from agent.core.sources import SourceId, kind_of, peer_of, sibling_of
from agent.schema import (
    ExplainedRange,
    Explanation,
    FileDocument,
    FileExplanation,
    JobDocument,
    SourceKind,
    SourceShare,
)

_KINDS = {
    sources.SourceKind.CACHE: SourceKind.CACHE,
    sources.SourceKind.SIBLING: SourceKind.JOB,
    sources.SourceKind.PEER: SourceKind.PEER,
    sources.SourceKind.ORIGIN: SourceKind.ORIGIN,
}
_ORDER = list(SourceKind)

Supplier = tuple[SourceKind, str | None]


def explanation(job: JobDocument, accounts: Sequence[Account], names: Mapping[str, str]) -> Explanation:
    """The job, and the account of each of its files in order; `names` of peers by their ids."""
    files = [_file(document, account, names) for document, account in zip(job.files, accounts, strict=True)]
    occurring = {item.reason for file in files for item in file.ranges}
    return Explanation(
        job=job.id,
        name=job.name,
        state=job.state,
        bytes_total=job.bytes_total,
        bytes_from_origin=job.bytes_from_origin,
        bytes_from_peers=job.bytes_from_peers,
        bytes_from_cache=job.bytes_from_cache,
        bytes_discarded=sum(file.bytes_discarded for file in files),
        files=files,
        reasons={reason.value: reason.meaning for reason in Reason if reason.value in occurring},
    )


def _file(file: FileDocument, account: Account, names: Mapping[str, str]) -> FileExplanation:
    ranges = []
    for span in account.spans:
        kind, name = _supplier(span.source)
        item = span.item
        ranges.append(
            ExplainedRange(offset=item.start, length=item.length, source=kind, id=name, reason=span.reason.value)
        )
    total = file.bytes_total
    return FileExplanation(
        index=file.index,
        url=file.url,
        path=file.path,
        state=file.state,
        bytes_total=total,
        bytes_held=account.held.total,
        bytes_from_origin=file.bytes_from_origin,
        bytes_from_peers=file.bytes_from_peers,
        bytes_from_cache=file.bytes_from_cache,
        bytes_discarded=file.bytes_discarded,
        bytes_unrecorded=sum(item.length for item in ranges if item.reason == Reason.UNRECORDED),
        origin_copies=file.bytes_from_origin / total if total else None,
        seconds=account.seconds,
        fastest_rate=account.best_rate,
        least_seconds=account.least_s,
        distance=account.distance,
        sources=_shares(file, ranges, names),
        ranges=ranges,
    )


def _shares(file: FileDocument, ranges: Sequence[ExplainedRange], names: Mapping[str, str]) -> list[SourceShare]:
    held: dict[Supplier, int] = {}
    for item in ranges:
        held[item.source, item.id] = held.get((item.source, item.id), 0) + item.length
    received: dict[Supplier, int] = {(SourceKind.PEER, peer): count for peer, count in file.peers.items()}
    if file.bytes_from_origin:
        received[SourceKind.ORIGIN, None] = file.bytes_from_origin
    shares = [
        SourceShare(
            source=kind,
            id=name,
            name=None if kind is not SourceKind.PEER else names.get(name or ""),
            bytes_held=held.get((kind, name), 0),
            bytes_received=received.get((kind, name), 0 if kind in (SourceKind.PEER, SourceKind.ORIGIN) else None),
        )
        for kind, name in held | received
    ]
    return sorted(shares, key=lambda each: (_ORDER.index(each.source), -each.bytes_held, each.id or ""))


def _supplier(source: SourceId | None) -> Supplier:
    if source is None:
        return SourceKind.NEAR, None
    sibling = sibling_of(source)
    name = peer_of(source) if sibling is None else sibling.partition("/")[0]
    return _KINDS[kind_of(source)], name
