"""The words of notices: what can be told, what a job asks for, what is kept over a restart, what has to be done.

Values only. Never knows: who listens, when, how often. Source: bits-reference 2.1 (flags and their default).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import NewType

from agent.core.queue import JobId

ListenerId = NewType("ListenerId", int)
"""Names one registration of a listener. The caller chooses it and never uses it twice."""
DeliveryId = NewType("DeliveryId", int)
"""Names one call of a callback, or one run of a notify command; never used twice by one `Notices`."""

ACK_TIMEOUT_S = 600.0
"""A callback that has not answered by then has failed."""
COMMAND_TIMEOUT_S = 180.0
"""A command of which nothing was heard by then has failed; whoever runs it ends it well before (bits-reference 2.3
leaves it open, we say 60 s)."""
FORGOTTEN_S = 30.0
"""Nobody waits longer for an answer about a job that is gone: the answer matters to nobody, its slot does."""
MAX_IN_FLIGHT = 4
"""Callbacks and commands together, of one agent (bits-reference 2.2: four for a user)."""
FIRST_RETRY_S = 1.0
"""After the first failure of a callback; doubles with each further one, up to the minimum retry delay."""
NEVER = float("-inf")
"""The time of what has not happened."""


class NoticeKind(StrEnum):
    """What happened."""

    JOB_TRANSFERRED = "job-transferred"
    JOB_ERROR = "job-error"
    JOB_MODIFICATION = "job-modification"
    FILE_TRANSFERRED = "file-transferred"
    FILE_RANGES_TRANSFERRED = "file-ranges-transferred"


class NotifyFlags(IntFlag):
    """What a job wants to be told about. DISABLE overrides the others."""

    JOB_TRANSFERRED = 1
    JOB_ERROR = 2
    DISABLE = 4
    JOB_MODIFICATION = 8
    FILE_TRANSFERRED = 16
    FILE_RANGES_TRANSFERRED = 32


DEFAULT_FLAGS = NotifyFlags.JOB_TRANSFERRED | NotifyFlags.JOB_ERROR
ABOUT_THE_JOB = frozenset({NoticeKind.JOB_TRANSFERRED, NoticeKind.JOB_ERROR})
"""The two that a notify command is run for. A job has at most one of them to tell."""
LOSSY = frozenset({NoticeKind.JOB_MODIFICATION, NoticeKind.FILE_RANGES_TRANSFERRED})
"""Not kept for a listener that comes later."""

_FLAG = {
    NoticeKind.JOB_TRANSFERRED: NotifyFlags.JOB_TRANSFERRED,
    NoticeKind.JOB_ERROR: NotifyFlags.JOB_ERROR,
    NoticeKind.JOB_MODIFICATION: NotifyFlags.JOB_MODIFICATION,
    NoticeKind.FILE_TRANSFERRED: NotifyFlags.FILE_TRANSFERRED,
    NoticeKind.FILE_RANGES_TRANSFERRED: NotifyFlags.FILE_RANGES_TRANSFERRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to tell. Handlers must bear to be told twice, and look at the job themselves."""

    kind: NoticeKind
    job: JobId
    file: int | None = None
    ranges: tuple[tuple[int, int], ...] = ()
    """Half-open, sorted, apart from each other; new since the last notice that was taken well."""
    serial: int
    """The same when the same notice comes again. Counts the kept notices of a job, also over restarts; the lossy
    kinds each have a count of their own, which begins at 1 with each start of the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSettings:
    """What one job asks for. Times in seconds."""

    flags: NotifyFlags
    has_command: bool
    """A notify command line is set, and the administrator allows it."""
    minimum_retry_delay_s: float
    minimum_interval_s: float = 0.5
    """Between two notices of the same lossy kind (bits-reference 1.11, property 9)."""

    def wants(self, kind: NoticeKind) -> bool:
        """Whether the flags ask for this kind."""
        return NotifyFlags.DISABLE not in self.flags and _FLAG[kind] in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingNotice:
    """One notice that nobody has taken well yet. Made of plain data, for the journal."""

    kind: NoticeKind
    file: int | None = None
    serial: int
    tried: bool = False
    """A callback has failed: with a command set, the callback is not called again."""
    command_failed: bool = False
    """The command has failed: it waits for the minimum retry delay, also after a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingNotices:
    """What of one job must survive a restart, in the order of delivery."""

    notices: tuple[PendingNotice, ...] = ()
    last_serial: int = 0
    """The highest serial given so far: recorded too, so that none is given twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Call this listener's callback. Owes one `answered`, or `listener_gone` for its listener; silence counts as a
    failure after ACK_TIMEOUT_S."""

    delivery: DeliveryId
    listener: ListenerId
    notice: Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNotifyCommand:
    """Run the job's notify command. Owes one `command_ended`, also when the job is gone meanwhile; silence counts
    as a failure after COMMAND_TIMEOUT_S."""

    delivery: DeliveryId
    notice: Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveNotices:
    """Record what `pending` says now. Owes nothing."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteFailure:
    """A line for the job's log. Owes nothing."""

    job: JobId
    text: str


NoticeCommand = Deliver | RunNotifyCommand | SaveNotices | NoteFailure
