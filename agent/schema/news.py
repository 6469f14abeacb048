"""What listeners get: the ordered feed of events, and deliveries that want an answer.

Never knows: the core, SQLite, peers. Sources: bits-reference 2; HTML Living Standard, "Server-sent events".
"""

from __future__ import annotations

from enum import StrEnum

from agent.schema.base import Document, Request
from agent.schema.jobs import ErrorDocument, JobDocument


class EventKind(StrEnum):
    """What happened to a job. `job-modification` is live only and has no sequence number; it may be left out under
    load. Every other kind is kept, in order, and never lost."""

    CREATED = "created"
    STATE = "state"
    MODIFIED = "modified"
    """A property was changed, or files were added."""
    FILE_TRANSFERRED = "file-transferred"
    FILE_RANGES_TRANSFERRED = "file-ranges-transferred"
    JOB_TRANSFERRED = "job-transferred"
    JOB_ERROR = "job-error"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    JOB_MODIFICATION = "job-modification"
    LOST = "lost"
    """Events that a listener missed are not kept any more: look at the jobs themselves."""


class EventDocument(Document, frozen=True, kw_only=True):
    """One event of the feed."""

    sequence: int | None
    """Hand the last one to `after`, or as `Last-Event-ID`, to miss nothing. None for `job-modification`."""
    at: float
    kind: EventKind
    job: str
    """Id; empty for `lost`."""
    name: str = ""
    """The job's name."""
    state: str | None = None
    """The job's state after the event."""
    file: int | None = None
    ranges: list[tuple[int, int]] = []
    """Half-open, local offsets."""
    error: ErrorDocument | None = None
    bytes_transferred: int | None = None
    bytes_total: int | None = None


class DeliveryDocument(Document, frozen=True, kw_only=True):
    """One call of a callback. It comes again until it is answered with `ok`."""

    delivery: int
    serial: int
    """Grows from notice to notice of a job, and is the same when the same notice comes again."""
    notice: str
    """job-transferred, job-error, job-modification, file-transferred or file-ranges-transferred."""
    file: int | None
    ranges: list[tuple[int, int]]
    job: JobDocument


class DeliveryAnswer(Request, frozen=True, kw_only=True):
    """How the callback ended."""

    ok: bool
