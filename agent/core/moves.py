"""Moving one job through the table of `job.py`, with everything that follows from its new state: its place in the
queue, its clock, its entries in the feed, its notices, and that it is recorded.

Never knows: files' transfers, why a job moves, what users ask for, documents, SQLite.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core import commands as cmd
from agent.core.agenda import Agenda
from agent.core.job import FINAL, JobInput, JobState, next_state
from agent.core.jobs import Intent, Job, JobError, News, NewsKind
from agent.core.notices import NoticeCommand, NoticeKind, Notices
from agent.core.obstacles import EXPLANATIONS, Surroundings
from agent.core.queue import JobId, Queue
from agent.core.sources import FileId
from peer.core.failure import EVENT_DRIVEN, FailureKind

ACTIVE = frozenset({JobState.CONNECTING, JobState.TRANSFERRING})
"""The states that can be interrupted, and whose time counts as download time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveJob:
    """Record the job's state and its news, durably. The user's request is answered after that."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFiles:
    """Bring the accepted files to their destinations. Owes one `published` call."""

    job: JobId
    files: tuple[FileId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFiles:
    """Remove the job's temporary files. Owes nothing."""

    job: JobId


JobCommand = cmd.Action | SaveJob | PublishFiles | RemoveFiles | NoticeCommand


class Moves:
    """The states of all jobs of one agent, and what must agree with them."""

    def __init__(self, queue: Queue, *, first_delivery: int = 1) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.queue = queue
        self.notices = Notices(first_delivery=first_delivery)
        self.surroundings = Surroundings()
        self.out: list[JobCommand] = []
        self.times: Agenda[JobId] = Agenda()
        """When each job's clock is to be looked at."""

    def enter(self, job: Job, now: float) -> None:
        """A new job."""
        self.jobs[job.job] = job
        self.notices.configure(job.job, job.settings.notices)
        self.wait_for(job, now)

    def enter_again(self, job: Job) -> None:
        """A job that is being read back; `wait_for` follows when its files are there."""
        self.jobs[job.job] = job
        self.notices.configure(job.job, job.settings.notices)

    def leave(self, job: Job) -> None:
        """A final job goes out of memory."""
        self.times.set(job.job, None)
        self.queue.leave(job.job)
        self.notices.forget(job.job)
        self.jobs.pop(job.job, None)

    def move(self, job: Job, given: JobInput, now: float) -> None:
        """One step of the table."""
        before, job.state = job.state, next_state(job.state, given)
        job.patience.work(job.state in ACTIVE, now)
        if job.state is JobState.TRANSFERRING:
            job.error = None
        if job.state is not JobState.TRANSIENT_ERROR:
            job.retry_at = None
        if job.state is not before:
            if before in (JobState.TRANSFERRED, JobState.ERROR):
                self.notices.state_left(job.job, now)
            self._announce(job, now)
        self.changed(job)
        self.wait_for(job, now)

    def changed(self, job: Job) -> None:
        """Somebody may want to see it, and it has to be recorded."""
        job.version += 1
        if SaveJob(job=job.job) not in self.out[-1:]:
            self.out.append(SaveJob(job=job.job))

    def modified(self, job: Job, now: float, file: int | None = None) -> None:
        """A property of the job, or of one of its files, is another one."""
        job.patience.touched(now)
        self.tell(job, NewsKind.MODIFIED, file)
        self.note_change(job, now)
        self.changed(job)

    def note_change(self, job: Job, now: float) -> None:
        """A listener may want to look at the job again."""
        if job.settings.tells_progress:
            self.notices.raised(job.job, NoticeKind.JOB_MODIFICATION, now)

    def tell(self, job: Job, kind: NewsKind, file: int | None = None) -> None:
        """An entry in the feed."""
        error = job.error if kind is NewsKind.JOB_ERROR else None
        job.news.append(News(kind=kind, state=job.state, file=file, error=error))

    def wait_for(self, job: Job, now: float) -> None:
        """Bring the queue and the job's clock up to its state."""
        if job.state is JobState.QUEUED:
            self.queue.wait(job.wish)
        elif job.engaged:
            self.queue.engage(job.wish, now, fixed=job.state is JobState.VALIDATING)
        else:
            self.queue.leave(job.job)
        if job.state in FINAL or job.intent is not Intent.NONE:
            self.times.set(job.job, None)
            return
        at = job.patience.deadline(job.settings.patience, now, waiting=lacks_progress(job))
        self.times.set(job.job, at if job.retry_at is None else min(at, job.retry_at))

    def obstacle(self, job: Job) -> FailureKind | None:
        """What around it forbids the job to run."""
        return self.surroundings.obstacle(job.settings.rank, job.next_host)

    def _announce(self, job: Job, now: float) -> None:
        """Tell of the state that the job has just come to. ERROR and TRANSFERRED have news of their own."""
        self.tell(job, NewsKind.STATE)
        match job.state:
            case JobState.TRANSFERRED:
                self.tell(job, NewsKind.JOB_TRANSFERRED)
                self.notices.raised(job.job, NoticeKind.JOB_TRANSFERRED, now)
            case JobState.ERROR:
                self.tell(job, NewsKind.JOB_ERROR)
                self.notices.raised(job.job, NoticeKind.JOB_ERROR, now)
            case JobState.CANCELLED:
                self.tell(job, NewsKind.CANCELLED)
            case JobState.ACKNOWLEDGED:
                self.tell(job, NewsKind.COMPLETED)
            case _:
                self.note_change(job, now)


def obstacle_error(kind: FailureKind) -> JobError:
    """How a job says what it waits for."""
    context, text = EXPLANATIONS[kind]
    return JobError(code=kind.value, message=text, context=context)


def is_blocked(job: Job) -> bool:
    """It waits for the network or a policy, not for a retry."""
    blocked = job.error is not None and job.error.code in EVENT_DRIVEN
    return blocked and job.state is JobState.TRANSIENT_ERROR


def lacks_progress(job: Job) -> bool:
    """It is in trouble of its own: its patience runs."""
    return job.state is JobState.TRANSIENT_ERROR and not is_blocked(job)
