"""The engine's values as documents for users. Never decides, never changes anything."""

from __future__ import annotations

import os
import pwd
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import msgspec

from agent.core.events import Decision
from agent.core.job import JobState
from agent.core.jobs import Job, JobError, JobFile, News
from agent.core.spec import NearUse
from agent.core.transfer import Phase
from agent.schema import (
    CredentialChange,
    CredentialDocument,
    ErrorDocument,
    EventDocument,
    EventKind,
    FileDocument,
    FileState,
    HttpSettings,
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

try:
    OWNER = pwd.getpwuid(os.geteuid()).pw_name
except KeyError:
    OWNER = str(os.geteuid())
"""Every job belongs to the user whose agent this is."""

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
    """Its properties as they are now, without its files."""
    created_at: float
    modified_at: float
    completed_at: float | None = None
    credentials: list[CredentialChange] = field(default_factory=list)
    recorded: JobState | None = None
    """The state that is in the journal."""
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


def error_document(error: JobError | None, url: str | None = None) -> ErrorDocument | None:
    """The same error for users; `url` is that of the file it happened to."""
    if error is None:
        return None
    return ErrorDocument(
        code=error.code,
        message=error.message,
        context=error.context,
        file=error.file,
        http_status=error.http_status,
        protocol=url.partition(":")[0].lower() if url is not None and error.context == "origin" else None,
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
        validation=Validation.VALID if file.completed else validation_of(transfer.decision),
        bytes_total=transfer.length,
        bytes_transferred=transfer.held_bytes,
        bytes_from_origin=tally.from_origin,
        bytes_from_peers=tally.from_peers,
        bytes_from_cache=tally.from_cache,
        bytes_discarded=tally.discarded,
        peers={str(peer): count for peer, count in tally.by_peer.items()},
        integrity="none" if transfer.spec.near is NearUse.NEVER else transfer.spec.integrity.value,
        ranges=new.ranges,
        error=error_document(file.error, new.url),
        response_headers=dict(transfer.response_headers),
    )


def shown_state(job: Job, frame: JobFrame) -> JobState:
    """TRANSFERRED is a promise: it is only shown once it is in the journal."""
    if job.state is JobState.TRANSFERRED and frame.recorded is not JobState.TRANSFERRED:
        return JobState.VALIDATING
    return job.state


def shown_http(http: HttpSettings) -> HttpSettings:
    """Without what was made write-only, and without secrets in the proxy's URL."""
    headers = {} if http.headers_write_only else http.headers
    proxy = http.proxy
    if proxy.url is not None:
        proxy = msgspec.structs.replace(proxy, url=redacted(proxy.url))
    return msgspec.structs.replace(http, headers=headers, proxy=proxy)


def job_document(job: Job, frame: JobFrame, parts: tuple[list[FileDocument], list[str]], now: float) -> JobDocument:
    """One job as it is now, with its files and its log (both may be left out); `now` is the engine's clock."""
    transfers = [file.transfer for file in job.files]
    totals = [transfer.length for transfer in transfers]
    waits = job.state is JobState.TRANSIENT_ERROR and job.retry_at is not None
    failed = job.error.file if job.error is not None else None
    patience = job.settings.patience
    new = frame.new
    return JobDocument(
        id=job.job,
        name=new.name,
        state=shown_state(job, frame).value,
        priority=new.priority,
        created_at=frame.created_at,
        modified_at=frame.modified_at,
        completed_at=frame.completed_at,
        error=error_document(job.error, transfers[failed].spec.url if failed is not None else None),
        error_count=job.error_count,
        retry_in_s=max(0.0, (job.retry_at or now) - now) if waits else None,
        bytes_total=None if None in totals else sum(total or 0 for total in totals),
        bytes_transferred=sum(transfer.held_bytes for transfer in transfers),
        files_total=len(transfers),
        files_transferred=sum(file.done for file in job.files),
        files=parts[0],
        log=parts[1],
        sequence=job.version,
        description=new.description,
        owner=OWNER,
        minimum_retry_delay_s=patience.minimum_retry_delay_s,
        no_progress_timeout_s=patience.no_progress_timeout_s,
        maximum_download_time_s=patience.maximum_download_time_s,
        maximum_bytes=new.maximum_bytes,
        rate_limit=new.rate_limit,
        origin_use=new.origin_use,
        origin_floor=new.origin_floor,
        notify_flags=new.notify_flags,
        notify_command=new.notify_command,
        on_demand=new.on_demand,
        peer_fetch=new.peer_fetch,
        peer_serve=new.peer_serve,
        http=shown_http(new.http),
        credentials=[CredentialDocument(target=item.target, scheme=item.scheme) for item in frame.credentials],
        bytes_from_origin=sum(transfer.tally.from_origin for transfer in transfers),
        bytes_from_peers=sum(transfer.tally.from_peers for transfer in transfers),
        bytes_from_cache=sum(transfer.tally.from_cache for transfer in transfers),
        partial=job.partial,
    )


def event_document(job: Job, name: str, news: News, at: float) -> EventDocument:
    """An entry of the feed, before it has its number."""
    transfers = [file.transfer for file in job.files]
    totals = [transfer.length for transfer in transfers]
    url = transfers[news.error.file].spec.url if news.error is not None and news.error.file is not None else None
    return EventDocument(
        sequence=None,
        at=at,
        kind=EventKind(news.kind.value),
        job=job.job,
        name=name,
        state=news.state.value,
        file=news.file,
        ranges=list(news.ranges),
        error=error_document(news.error, url),
        bytes_transferred=sum(transfer.held_bytes for transfer in transfers),
        bytes_total=None if None in totals else sum(total or 0 for total in totals),
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
        authenticated=status.authenticated,
        available=status.available,
        banned_until=status.banned_until,
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
