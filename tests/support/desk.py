"""A job manager at work in a calm world: it goes as far as a test lets it, and everything it commanded is kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import get_args

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.job import JobState
from agent.core.jobs import Intent, Job, JobError, JobSettings, NewTransfer
from agent.core.manager import JobCommand, JobManager, PublishFiles
from agent.core.notices import (
    DEFAULT_FLAGS,
    Deliver,
    ListenerId,
    NoticeKind,
    NoticeSettings,
    NotifyFlags,
    RunNotifyCommand,
)
from agent.core.obstacles import Surroundings
from agent.core.patience import PatienceSettings
from agent.core.queue import JobId, QueueLimits, Rank
from agent.core.sources import FileId, kind_of
from agent.core.spec import Restored, TransferSpec
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from tests.support.world import World
from tests.support.world_parts import Flags
from validation.content import MIN_CHUNK_BYTES

LENGTH = 4 * MIN_CHUNK_BYTES
SOON_S = 60.0
"""What is farther away is nobody's next step: patience ends, not work."""

BUSY = Failure(kind=FailureKind.BUSY, message="busy")
GONE = Failure(kind=FailureKind.GONE, message="gone", http_status=410)


class Desk:
    """A manager, a calm world, and everything that was commanded."""

    def __init__(self, slots: int = 2, slice_s: float = 300.0, **flags: object) -> None:
        self.world = World(random.Random(3), Flags(length=LENGTH, **flags), self.deliver)  # type: ignore[arg-type]
        self.world.calm = True
        limits = QueueLimits(background_jobs=slots, per_host=slots, slice_s=slice_s)
        self.manager = JobManager(limits=limits, tuning=Tuning(), rng=random.Random(3))
        self.log: list[JobCommand] = []
        self._heard = 0
        self._listeners = 0

    @property
    def now(self) -> float:
        return self.world.now

    # --- jobs ------------------------------------------------------------------------------------------------

    def job(
        self,
        name: str,
        *urls: str,
        rank: Rank = Rank.NORMAL,
        timeout_s: float = 1000.0,
        patience: PatienceSettings | None = None,
        flags: NotifyFlags = DEFAULT_FLAGS,
        has_command: bool = False,
    ) -> Job:
        patience = patience or PatienceSettings(minimum_retry_delay_s=10.0, no_progress_timeout_s=timeout_s)
        notices = NoticeSettings(flags=flags, has_command=has_command, minimum_retry_delay_s=10.0)
        settings = JobSettings(rank=rank, patience=patience, notices=notices)
        job = self.manager.create(JobId(name), settings, self.now)
        for url in urls:
            self.add(job, url)
        return job

    def add(self, job: Job, url: str, restored: Restored | None = None, **spec: object) -> FileId:
        """A file; `url` is a path at the usual origin, or a whole URL."""
        file = FileId(f"{job.job}/{len(job.files)}")
        whole = url if "://" in url else f"http://origin.example/{url}"
        new = NewTransfer(spec=TransferSpec(file=file, url=whole, **spec), restored=restored)  # type: ignore[arg-type]
        self.world.transfers[file] = self.manager.add(job, new, self.now).transfer
        return file

    def running(self, *urls: str, **settings: object) -> Job:
        """A job that was resumed."""
        job = self.job("job", *urls, **settings)  # type: ignore[arg-type]
        self.do(self.manager.resume, job)
        return job

    def reaching(self, state: JobState, *urls: str, **settings: object) -> Job:
        """A job that got there by what happens."""
        job = self.running(*urls, **settings)
        self.run(until=lambda: job.state is state)
        assert job.state is state
        return job

    def transferred(self, *urls: str, **settings: object) -> Job:
        return self.reaching(JobState.TRANSFERRED, *urls, **settings)

    # --- going on --------------------------------------------------------------------------------------------

    def do(self, what: Callable[..., None], *args: object) -> None:
        what(*args, self.now)
        self.drain()

    def deliver(self, event: ev.FileEvent) -> None:
        self.do(self.manager.handle, event)

    def drain(self) -> None:
        for command in self.manager.take():
            self.log.append(command)
            if isinstance(command, get_args(cmd.Action)):
                self.world.perform(command)  # type: ignore[arg-type]

    def run(self, until: Callable[[], bool] = lambda: False, steps: int = 2000) -> None:
        """Answers come until there are none, or until something is so."""
        for _ in range(steps):
            if until() or not (self.world.one_answer() or self.tick()):
                return
        raise AssertionError("no end")

    def tick(self) -> bool:
        """Time passes, if only time is missing; not as far as a retry."""
        due = self.manager.deadline()
        retries = [job.retry_at for job in self.manager.jobs.values() if job.state is JobState.TRANSIENT_ERROR]
        if due is None or due in retries or due > self.now + SOON_S:
            return False
        self.world.now = max(self.world.now, due)
        self.do(self.manager.tick)
        return True

    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.do(self.manager.tick)

    def wait_for_retry(self, job: Job) -> None:
        assert job.retry_at is not None
        self.wait(job.retry_at - self.now)

    def refuse(self, job: Job, failure: Failure, file: int = 0) -> None:
        """The question to the origin about this file is answered so."""
        self.world.todo.clear()
        self.deliver(ev.ProbeFailed(file=job.files[file].file, failure=failure))

    def limit(self, slots: int) -> None:
        """Another number of background jobs from now on."""
        queue = self.manager._running.queue
        queue.limits = QueueLimits(background_jobs=slots, per_host=slots, slice_s=queue.limits.slice_s)
        self.do(self.manager.step)

    def surround(self, *, connected: bool = True, forbidden: frozenset[Rank] = frozenset()) -> None:
        self.manager.surround(Surroundings(connected=connected, forbidden=forbidden), self.now)
        self.drain()

    def complete(self, job: Job, **failures: str) -> tuple[FileId, ...]:
        """Complete it; `f1="DISK_FULL"` says what became of the second file. Returns what was to be published."""
        self.do(self.manager.complete, job)
        self.run(until=lambda: self.publishing(job) is not None, steps=50)
        files = self.publishing(job)
        assert files is not None
        errors = {
            job.files[int(name[1:])].file: JobError(code=code, message="it fails", context="local file")
            for name, code in failures.items()
        }
        self.do(self.manager.published, job, errors)
        return files

    def publishing(self, job: Job) -> tuple[FileId, ...] | None:
        """The files of the last `PublishFiles` of a job that is being completed."""
        asked = [each.files for each in self.log if isinstance(each, PublishFiles) and each.job == job.job]
        return asked[-1] if asked and job.intent is Intent.COMPLETING else None

    # --- what came out ---------------------------------------------------------------------------------------

    def fetched(self, file: FileId, kind: str = "origin") -> int:
        """Bytes asked of a kind of source by this file."""
        asked = [each for each in self.log if isinstance(each, cmd.FetchRange) and each.file == file]
        return sum(each.item.length for each in asked if kind_of(each.source).name.lower() == kind)

    def listen(self, job: Job | None = None) -> ListenerId:
        """Somebody comes to listen."""
        self._listeners += 1
        listener = ListenerId(self._listeners)
        self.do(self.manager.notices.listener_came, listener, None if job is None else job.job)
        return listener

    def calls(self) -> list[Deliver | RunNotifyCommand]:
        """What listeners and commands were given since the last call of this."""
        new, self._heard = self.log[self._heard :], len(self.log)
        return [each for each in new if isinstance(each, Deliver | RunNotifyCommand)]

    def answer(self, call: Deliver | RunNotifyCommand, *, ok: bool = True) -> None:
        """A callback or a command ends."""
        if isinstance(call, Deliver):
            self.manager.notices.answered(call.delivery, ok, self.now)
        else:
            self.manager.notices.command_ended(call.delivery, 0 if ok else 1, self.now)
        self.drain()

    def told(self) -> list[tuple[NoticeKind, int | None]]:
        """Everything is taken well until nothing is left: what it was, in order."""
        found = []
        while calls := self.calls():
            for call in calls:
                found.append((call.notice.kind, call.notice.file))
                self.answer(call)
        return found
