"""The documents of the control interface: what REST, `--json` and the Python library show, spelled once.

Values only, both directions (msgspec converts). Times are seconds since 1970 (wall clock), sizes are bytes,
rates bytes per second. Unknown fields in a request are refused; a reader of answers must ignore fields it does
not know. Never knows: the core, SQLite, peers.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

API_VERSION = "v1"


class PeerUse(StrEnum):
    """Whether peers (and the cache) may supply a file, and whether it may be offered to them."""

    PREFER = "prefer"
    NEVER = "never"


class Overwrite(StrEnum):
    """What `complete` does when the destination exists."""

    REPLACE = "replace"
    KEEP = "keep"
    """Leave it, and report `DESTINATION_EXISTS` for that file."""


class Priority(StrEnum):
    """BITS' four priorities."""

    FOREGROUND = "foreground"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Validation(StrEnum):
    """What has been decided about a file's content. BITS shows two values; there are three."""

    UNDECIDED = "undecided"
    VALID = "valid"
    INVALID = "invalid"


class FileState(StrEnum):
    """What one file of a job is doing."""

    WAITING = "waiting"
    PROBING = "probing"
    """The origin is asked what the content is."""
    GATHERING = "gathering"
    """Peers are asked what they have."""
    FETCHING = "fetching"
    VALIDATING = "validating"
    DECIDING = "deciding"
    """Every byte is there and the application has to set the validation state."""
    TRANSFERRED = "transferred"
    FAILED = "failed"
    COMPLETED = "completed"
    """At its destination."""


class Request(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Base of what clients send."""


class Document(msgspec.Struct, kw_only=True, frozen=True):
    """Base of what the agent answers."""


class NewFile(Request, frozen=True, kw_only=True):
    """One file to fetch."""

    url: str
    path: str
    """Absolute path of the destination."""
    digest: str | None = None
    """`algorithm:hex` of the whole file. It is validated, and mirrors of the same content meet by it."""
    validators: list[str] = []
    """`NAME[:ARG]` each, all must accept. `application` waits for the validation state to be set."""
    peers: PeerUse = PeerUse.PREFER
    overwrite: Overwrite = Overwrite.REPLACE
    headers: dict[str, str] = {}
    """Sent to the origin with each request; a file with any is not shared with peers."""


class NewJob(Request, frozen=True, kw_only=True):
    """A job; it starts SUSPENDED, like in BITS."""

    name: str
    priority: Priority = Priority.NORMAL
    files: list[NewFile] = []
    minimum_retry_delay_s: float | None = None
    """None: the agent's setting (BITS: 600 s, floor 5 s)."""
    no_progress_timeout_s: float | None = None
    """None: the agent's setting (BITS: 14 days)."""


class NewFiles(Request, frozen=True, kw_only=True):
    """Files to add to a job."""

    files: list[NewFile]


class ValidationChange(Request, frozen=True, kw_only=True):
    """BITS' SetValidationState."""

    valid: bool


class ErrorDocument(Document, frozen=True, kw_only=True):
    """Why a job is in ERROR or TRANSIENT_ERROR."""

    code: str
    """One of the codes in the README's table."""
    message: str
    """One sentence for the user, without credentials or query strings."""
    context: str
    """Where it happened: origin, peer, local file, validator, or agent."""
    file: int | None = None
    """Index of the file within the job."""
    http_status: int | None = None


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


class JobDocument(Document, frozen=True, kw_only=True):
    """One job with its files."""

    id: str
    name: str
    state: str
    priority: Priority
    created_at: float
    modified_at: float
    completed_at: float | None
    error: ErrorDocument | None
    error_count: int
    retry_in_s: float | None
    """Seconds to the next try, in TRANSIENT_ERROR."""
    bytes_total: int | None
    bytes_transferred: int
    files_total: int
    files_transferred: int
    files: list[FileDocument]
    log: list[str]
    """The latest notable events, oldest first, at most 50."""
    sequence: int
    """Grows with every change; hand it to `wait` to learn of the next one."""


class JobList(Document, frozen=True, kw_only=True):
    """All jobs of this agent that are not final, oldest first."""

    jobs: list[JobDocument]


class PeerDocument(Document, frozen=True, kw_only=True):
    """One other agent of the group."""

    id: str
    name: str
    address: str
    port: int
    version: str
    authenticated: bool
    standing: str
    reason: str | None
    """Why it is banned or on parole."""
    last_seen_s: float | None
    """Seconds ago; None when only its ban is known."""
    bytes_taken: int
    """Payload received from it, ever."""
    bytes_given: int


class PeerList(Document, frozen=True, kw_only=True):
    """What this agent knows about its group."""

    peers: list[PeerDocument]
    refused: list[str]
    """Latest refused contacts, with their reasons."""
    problems: list[str]


class CacheRecordDocument(Document, frozen=True, kw_only=True):
    """One content in the peer cache."""

    id: str
    length: int
    chunks_held: int
    chunks_total: int
    bytes: int
    created_at: float
    last_access_at: float


class CacheList(Document, frozen=True, kw_only=True):
    """The peer cache."""

    records: list[CacheRecordDocument]
    bytes: int
    limit_bytes: int
    problems: list[str]


class Cleared(Document, frozen=True, kw_only=True):
    """Answer to clearing the cache."""

    records: int


class AgentDocument(Document, frozen=True, kw_only=True):
    """Who answers here."""

    version: str
    pid: int
    home: str
    peer_id: str | None
    """None when the agent has no group."""
    peer_name: str | None
    peer_port: int | None
    group_tag: str | None
    interfaces: list[str]
    jobs: int
    problems: list[str]
    """Everything the agent wants its user to know, for example a database that was set aside."""


class Problem(Document, frozen=True, kw_only=True):
    """An error answer (RFC 9457), media type `application/problem+json`."""

    title: str
    status: int
    detail: str
    code: str
    context: str
