"""The engine's values as documents for users. Never decides, never changes anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from agent.core.events import Decision
from agent.core.job import JobState
from agent.core.jobs import Job, JobError, JobFile
from agent.core.spec import NearUse
from agent.core.transfer import Phase
from agent.schema import (
    ErrorDocument,
    FileDocument,
    FileState,
    JobDocument,
    NewFile,
    NewJob,
    PeerDocument,
    Validation,
)

if TYPE_CHECKING:
    from peer.refusals import Refusal
    from peer.settings import PeerStatus

LOG_LINES = 50

_STATES = {
    Phase.IDLE: FileState.WAITING,
    Phase.PROBING: FileState.PROBING,
    Phase.GATHERING: FileState.GATHERING,
    Phase.FETCHING: FileState.FETCHING,
    Phase.VALIDATING: FileState.VALIDATING,
    Phase.DECIDING: FileState.DECIDING,
    Phase.DONE: FileState.TRANSFERRED,
    Phase.FAILED: FileState.FAILED,
}


@dataclass(slots=True)
class JobFrame:
    """What belongs to a job and means nothing to the core."""

    new: NewJob
    created_at: float
    modified_at: float
    completed_at: float | None = None
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))


def redacted(url: str) -> str:
    """The URL for people: user information and query replaced, fragment dropped."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"…@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, netloc, parts.path, "…" if parts.query else "", ""))


def validation_of(decision: Decision | None) -> Validation:
    """The three values of a file's validation state."""
    if decision is None:
        return Validation.UNDECIDED
    return Validation.VALID if decision is Decision.VALID else Validation.INVALID


def error_document(error: JobError | None) -> ErrorDocument | None:
    """The same error for users."""
    if error is None:
        return None
    return ErrorDocument(
        code=error.code,
        message=error.message,
        context=error.context,
        file=error.file,
        http_status=error.http_status,
    )


def file_document(file: JobFile, new: NewFile, temporary: Path | None) -> FileDocument:
    """One file as it is now."""
    transfer = file.transfer
    tally = transfer.tally
    return FileDocument(
        index=file.index,
        url=redacted(new.url),
        path=new.path,
        temporary_path=None if temporary is None or file.completed else str(temporary),
        state=FileState.COMPLETED if file.completed else _STATES[transfer.phase],
        validation=validation_of(transfer.decision),
        bytes_total=transfer.length,
        bytes_transferred=transfer.held_bytes,
        bytes_from_origin=tally.from_origin,
        bytes_from_peers=tally.from_peers,
        bytes_from_cache=tally.from_cache,
        bytes_discarded=tally.discarded,
        peers={str(peer): count for peer, count in tally.by_peer.items()},
        integrity="none" if transfer.spec.near is NearUse.NEVER else transfer.spec.integrity.value,
    )


def job_document(
    job: Job, frame: JobFrame, document_of: Callable[[JobFile], FileDocument], now: float
) -> JobDocument:
    """One job as it is now; `now` is the engine's clock."""
    files = [document_of(file) for file in job.files]
    totals = [file.bytes_total for file in files]
    waits = job.state is JobState.TRANSIENT_ERROR and job.retry_at is not None
    return JobDocument(
        id=job.job,
        name=frame.new.name,
        state=job.state.value,
        priority=frame.new.priority,
        created_at=frame.created_at,
        modified_at=frame.modified_at,
        completed_at=frame.completed_at,
        error=error_document(job.error),
        error_count=job.error_count,
        retry_in_s=max(0.0, (job.retry_at or now) - now) if waits else None,
        bytes_total=None if None in totals else sum(total or 0 for total in totals),
        bytes_transferred=sum(file.bytes_transferred for file in files),
        files_total=len(files),
        files_transferred=sum(file.done for file in job.files),
        files=files,
        log=list(frame.log),
        sequence=job.version,
    )


def peer_document(status: PeerStatus, now: float) -> PeerDocument:
    """One member as it is known now; `now` in seconds since 1970."""
    host, _, port = (status.address or "").rpartition(":")
    return PeerDocument(
        id=status.peer_id,
        name=status.name,
        address=host,
        port=int(port or 0),
        version=status.version,
        authenticated=status.live,
        standing=status.standing.value,
        reason=status.reason or None,
        last_seen_s=max(0.0, now - status.last_seen) if status.last_seen is not None else None,
        bytes_taken=status.taken,
        bytes_given=status.given,
    )


def refusal_line(refusal: Refusal) -> str:
    """A refused contact as one line."""
    port = "" if refusal.port is None else f":{refusal.port}"
    times = f" ({refusal.count} times)" if refusal.count > 1 else ""
    return f"{refusal.what.value} {refusal.host}{port}: {refusal.reason}{times}"
