"""Jobs as the agent shows them.

Times are seconds since 1970 (wall clock), sizes are bytes. A reader must ignore fields it does not know.
Never knows: the core, SQLite, peers.
"""

from __future__ import annotations

from agent.origin_options import CredentialScheme, CredentialTarget
from agent.schema.base import Document, FileState, JobType, OriginUse, Priority, Validation
from agent.schema.requests import HttpSettings, RangeRequest


class ErrorDocument(Document, frozen=True, kw_only=True):
    """Why a job is in ERROR or TRANSIENT_ERROR, or why a file could not be completed."""

    code: str
    """One of the codes in the README's table."""
    message: str
    """One sentence for the user, without credentials or query strings."""
    context: str
    """Where it happened: origin, peer, local file, validator, policy, or agent."""
    file: int | None = None
    """Index of the file within the job."""
    http_status: int | None = None
    protocol: str | None = None
    """`http` or `https`, when the origin was to blame."""


class FileDocument(Document, frozen=True, kw_only=True):
    """One file of a job."""

    index: int
    url: str
    """Query and user information replaced by `…` where there were any."""
    path: str
    temporary_path: str | None
    """Where the bytes are until `complete`; None before the first one and after the end."""
    state: FileState
    validation: Validation
    bytes_total: int | None
    """None while unknown."""
    bytes_transferred: int
    bytes_from_origin: int
    """Payload received from the origin for this file, discarded bytes included."""
    bytes_from_peers: int
    bytes_from_cache: int
    """From this agent's own peer cache, or from another job of this agent."""
    bytes_discarded: int
    """Received and thrown away: corrupt, rejected by a validator, or outdated."""
    peers: dict[str, int]
    """Peer id -> payload bytes received from it."""
    integrity: str
    """anchored, vouched, whole, or none: what the chunks' digests rest on."""
    ranges: list[RangeRequest] = []
    """Empty: the whole file."""
    error: ErrorDocument | None = None
    """Why `complete` could not bring it to its destination."""
    response_headers: dict[str, str] = {}
    """Of the origin's last description of the content."""

    @property
    def from_peer(self) -> bool:
        """BITS' IsDownloadedFromPeer: any part came from a peer."""
        return self.bytes_from_peers > 0


class CredentialDocument(Document, frozen=True, kw_only=True):
    """That there are credentials; never which."""

    target: CredentialTarget
    scheme: CredentialScheme


class JobDocument(Document, frozen=True, kw_only=True):
    """One job with its files."""

    id: str
    name: str
    state: str
    priority: Priority
    created_at: float
    modified_at: float
    completed_at: float | None
    """When every file had been transferred (BITS' transfer completion time); None before."""
    error: ErrorDocument | None
    error_count: int
    retry_in_s: float | None
    """Seconds to the next try, in TRANSIENT_ERROR; None when it waits for something else than time."""
    bytes_total: int | None
    """None while the size of any file is unknown."""
    bytes_transferred: int
    files_total: int
    files_transferred: int
    files: list[FileDocument]
    log: list[str]
    """The latest notable events, oldest first, at most 50."""
    sequence: int
    """Grows with every change; hand it to `wait` to learn of the next one."""
    type: JobType = JobType.DOWNLOAD
    description: str = ""
    owner: str = ""
    """Name of the user whose agent this is."""
    minimum_retry_delay_s: float = 600.0
    no_progress_timeout_s: float = 1_209_600.0
    maximum_download_time_s: float = 7_776_000.0
    maximum_bytes: int | None = None
    rate_limit: int | None = None
    origin_use: OriginUse = OriginUse.LEAST_ORIGIN
    origin_floor: int | None = None
    notify_flags: int = 3
    notify_command: list[str] | None = None
    on_demand: bool = False
    peer_fetch: bool = True
    peer_serve: bool = True
    http: HttpSettings = HttpSettings()
    """Headers are left out when they are write-only."""
    credentials: list[CredentialDocument] = []
    bytes_from_origin: int = 0
    bytes_from_peers: int = 0
    bytes_from_cache: int = 0
    partial: bool = False
    """It was completed with only a part of its files (BITS' PARTIAL_COMPLETE)."""


class JobList(Document, frozen=True, kw_only=True):
    """Jobs of this agent that are not final, oldest first."""

    jobs: list[JobDocument]
    total: int = 0
    next: str | None = None
    """Hand it to `after` for the next page; None: this was the last one."""


class PrefixReplaced(Document, frozen=True, kw_only=True):
    """What ReplaceRemotePrefix did."""

    files_changed: int
    """0: no file's URL begins so (BITS' S_FALSE)."""
    job: JobDocument


class ByteSpan(Document, frozen=True, kw_only=True):
    """Bytes `offset` to `offset + length` of the local file."""

    offset: int
    length: int


class FilledRanges(Document, frozen=True, kw_only=True):
    """BITS' GetFilledFileRanges: what may be read from the temporary file now, merged and in order."""

    ranges: list[ByteSpan]
