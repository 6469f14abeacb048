"""A job and its files, as the manager keeps them. Values and bookkeeping; every rule is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from agent.core.job import RUNNING, JobState
from agent.core.notices import DEFAULT_FLAGS, NoticeSettings, NotifyFlags
from agent.core.patience import Elapsed, Patience, PatienceSettings
from agent.core.queue import JobId, Rank, Wish
from agent.core.sources import FileId
from agent.core.spec import Restored, TransferSpec
from agent.core.transfer import FileTransfer, Phase


class Intent(StrEnum):
    """A decision that is recorded before its first effect, so that a crash in the middle rolls forward."""

    NONE = "none"
    AWAITING = "awaiting a verdict"
    """It is completed as soon as the validators that are at work have answered. A crash means nobody asked."""
    COMPLETING = "completing"
    CANCELLING = "cancelling"


class NewsKind(StrEnum):
    """What listeners learn, in order. The values are those of the feed."""

    CREATED = "created"
    STATE = "state"
    MODIFIED = "modified"
    FILE_TRANSFERRED = "file-transferred"
    FILE_RANGES_TRANSFERRED = "file-ranges-transferred"
    JOB_TRANSFERRED = "job-transferred"
    JOB_ERROR = "job-error"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job is in ERROR or TRANSIENT_ERROR. `code` is a public error code, `file` an index or None."""

    code: str
    message: str
    context: str
    file: int | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something to be told, with the state as it was then."""

    kind: NewsKind
    state: JobState
    file: int | None = None
    ranges: tuple[tuple[int, int], ...] = ()
    """Half-open, local offsets."""
    error: JobError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What may differ from job to job, as far as the core is concerned."""

    rank: Rank = Rank.NORMAL
    patience: PatienceSettings = field(default_factory=PatienceSettings)
    notices: NoticeSettings = field(
        default_factory=lambda: NoticeSettings(flags=DEFAULT_FLAGS, has_command=False, minimum_retry_delay_s=600.0)
    )

    @property
    def tells_progress(self) -> bool:
        """Somebody may listen to every change."""
        flags = self.notices.flags
        return NotifyFlags.JOB_MODIFICATION in flags and NotifyFlags.DISABLE not in flags


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTransfer:
    """A file to be added to a job; `restored` when an earlier process began it."""

    spec: TransferSpec
    restored: Restored | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What an earlier process left of a job beside its files."""

    state: JobState
    error: JobError | None = None
    error_count: int = 0
    elapsed: Elapsed = field(default_factory=Elapsed)
    partial: bool = False


@dataclass(slots=True, eq=False)
class JobFile:
    """One file of a job."""

    index: int
    transfer: FileTransfer
    completed: bool = False
    """At its destination."""
    error: JobError | None = None
    """Why the last `complete` could not bring it there."""
    announced: bool = True
    """Listeners know that every byte is there."""

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

    @property
    def publishable(self) -> bool:
        """Every byte is there, and nobody has said no: `complete` counts as a verdict (BITS 3.2)."""
        return self.transfer.phase in (Phase.DONE, Phase.DECIDING)

    @property
    def wanted(self) -> bool:
        """Parts of it were asked for (on demand) and are not all there."""
        return self.transfer.demanded

    @property
    def host(self) -> str:
        """Host and port of the URL, in lower case."""
        return urlsplit(self.transfer.spec.url).netloc.rpartition("@")[2].lower()


@dataclass(slots=True)
class Job:
    """One job. Only the manager changes it."""

    job: JobId
    settings: JobSettings
    patience: Patience
    state: JobState = JobState.SUSPENDED
    files: list[JobFile] = field(default_factory=list)
    intent: Intent = Intent.NONE
    error: JobError | None = None
    error_count: int = 0
    retry_at: float | None = None
    partial: bool = False
    """It was completed with only a part of its files."""
    news: list[News] = field(default_factory=list)
    """What has happened and is not recorded yet."""
    version: int = 0
    """Grows with every change that somebody may want to see."""

    def take_news(self) -> list[News]:
        """What has happened since the last call; whoever takes it records it."""
        news, self.news = self.news, []
        return news

    @property
    def all_done(self) -> bool:
        """Every file was accepted."""
        return all(file.done for file in self.files)

    @property
    def undecided(self) -> bool:
        """Nothing is left but to wait for the application's decision on at least one file."""
        return all(file.publishable for file in self.files) and not self.all_done

    @property
    def engaged(self) -> bool:
        """It holds a slot. A job that waits for its application's verdict does not."""
        return self.state in RUNNING and not self.undecided

    @property
    def next_host(self) -> str:
        """The host of the file that is fetched now or next; empty when there is none."""
        missing = [file for file in self.files if not file.publishable]
        first = next((file for file in missing if not file.waiting), next(iter(missing), None))
        return "" if first is None else first.host

    @property
    def wish(self) -> Wish:
        """What the queue must know."""
        return Wish(job=self.job, rank=self.settings.rank, host=self.next_host)
