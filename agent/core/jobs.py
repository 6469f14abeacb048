"""A job and its files, as the manager keeps them. Values and bookkeeping; every rule is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agent.core.job import RUNNING, JobState
from agent.core.queue import JobId, Rank, Waiting
from agent.core.sources import FileId
from agent.core.spec import Restored, TransferSpec
from agent.core.transfer import FileTransfer, Phase


class Intent(StrEnum):
    """A decision that is recorded before its first effect, so that a crash in the middle rolls forward."""

    NONE = "none"
    COMPLETING = "completing"
    CANCELLING = "cancelling"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job is in ERROR or TRANSIENT_ERROR. `code` is a public error code, `file` an index or None."""

    code: str
    message: str
    context: str
    file: int | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What may differ from job to job."""

    rank: Rank = Rank.NORMAL
    minimum_retry_delay_s: float = 600.0
    no_progress_timeout_s: float = 14 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTransfer:
    """A file to be added to a job; `restored` when an earlier process began it."""

    spec: TransferSpec
    restored: Restored | None = None


@dataclass(slots=True)
class JobFile:
    """One file of a job."""

    index: int
    transfer: FileTransfer
    completed: bool = False
    """At its destination."""

    @property
    def file(self) -> FileId:
        """Its id."""
        return self.transfer.spec.file

    @property
    def waiting(self) -> bool:
        """It has something to do and is not doing it."""
        return self.transfer.phase in (Phase.IDLE, Phase.FAILED)

    @property
    def done(self) -> bool:
        """Accepted."""
        return self.transfer.phase is Phase.DONE


@dataclass(slots=True)
class Job:
    """One job. Only the manager changes it."""

    job: JobId
    settings: JobSettings
    state: JobState = JobState.SUSPENDED
    files: list[JobFile] = field(default_factory=list)
    intent: Intent = Intent.NONE
    error: JobError | None = None
    error_count: int = 0
    retry_at: float | None = None
    patience_from: float = 0.0
    """Since when no progress was made: the last new byte, or the last resume."""
    order: int = 0
    version: int = 0
    """Grows with every change that somebody may want to see."""

    @property
    def all_done(self) -> bool:
        """Every file was accepted."""
        return all(file.done for file in self.files)

    @property
    def undecided(self) -> bool:
        """Nothing is left but to wait for the application's decision on at least one file."""
        return not self.all_done and all(file.transfer.phase in (Phase.DONE, Phase.DECIDING) for file in self.files)

    @property
    def waiting(self) -> Waiting:
        """What the queue sees."""
        return Waiting(
            job=self.job,
            state=self.state,
            rank=self.settings.rank,
            order=self.order,
            engaged=self.state in RUNNING and not self.undecided,
        )
