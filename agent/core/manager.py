"""All jobs of one agent: user's wishes and transfers' outcomes in, commands out. Pure, like everything here.

Moves jobs through the table of `job.py`, hands out slots by `queue.py`, feeds each file's `FileTransfer`, and lets
files of this agent with the same content supply each other. Files of one job go in the order they were added
(BITS 1.3). Never knows: documents, SQLite, HTTP, threads.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import assert_never

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.job import FINAL, RUNNING, JobInput, JobState, next_state
from agent.core.jobs import Intent, Job, JobError, JobFile, JobSettings, NewTransfer
from agent.core.queue import JobId, grant
from agent.core.siblings import Siblings
from agent.core.sources import FileId
from agent.core.transfer import FileTransfer, Phase
from agent.core.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveJob:
    """Record the job's state, durably. The user's request is answered after that."""

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


JobCommand = cmd.Action | SaveJob | PublishFiles | RemoveFiles


class EmptyJobError(Exception):
    """Resume was refused: the job has no file (BITS: BG_E_EMPTY)."""

    def __init__(self) -> None:
        super().__init__("the job has no file yet: add one before you resume it")


class JobManager:
    """The owner of all jobs. One call at a time; `take()` hands out the commands since the last one."""

    def __init__(self, *, background_slots: int, tuning: Tuning, rng: random.Random) -> None:
        self.jobs: dict[JobId, Job] = {}
        self._slots = background_slots
        self._tuning = tuning
        self._rng = rng
        self._out: list[JobCommand] = []
        self._orders = 0
        self._where: dict[FileId, tuple[Job, JobFile]] = {}
        self._siblings = Siblings()

    # --- reading ---------------------------------------------------------------------------------------------

    def take(self) -> list[JobCommand]:
        """The commands that have not been handed out, in order."""
        out, self._out = self._out, []
        return out

    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        times = [file.transfer.deadline() for _, file in self._where.values()]
        times += [job.retry_at for job in self.jobs.values() if job.state is JobState.TRANSIENT_ERROR]
        return min((at for at in times if at is not None), default=None)

    def transfer(self, file: FileId) -> FileTransfer | None:
        """The transfer of a file; None when its job is gone."""
        found = self._where.get(file)
        return None if found is None else found[1].transfer

    def owner(self, file: FileId) -> Job | None:
        """The job of a file; None when it is gone."""
        found = self._where.get(file)
        return None if found is None else found[0]

    # --- what users ask for ----------------------------------------------------------------------------------

    def create(self, job_id: JobId, settings: JobSettings) -> Job:
        """A new job, SUSPENDED and empty."""
        self._orders += 1
        job = Job(job=job_id, settings=settings, order=self._orders)
        self.jobs[job_id] = job
        self._changed(job, save=True)
        return job

    def add(self, job: Job, new: NewTransfer, *, completed: bool = False) -> JobFile:
        """One more file at the end. Raises IllegalTransitionError when the job is final or ending."""
        self._refuse_when_ending(job, JobInput.RESUME)
        transfer = FileTransfer(new.spec, self._tuning, random.Random(self._rng.getrandbits(64)), new.restored)
        file = JobFile(index=len(job.files), transfer=transfer, completed=completed)
        job.files.append(file)
        self._where[new.spec.file] = (job, file)
        self._changed(job, save=True)
        return file

    def restore_state(self, job: Job, state: JobState, error: JobError | None, now: float) -> None:
        """Put a job that was read back from the journal where it belongs: what ran is queued again."""
        runs = state in RUNNING or state in (JobState.QUEUED, JobState.TRANSIENT_ERROR)
        job.state = JobState.QUEUED if runs else state
        job.error = None if runs else error
        job.patience_from = now
        self._step(now)

    def resume(self, job: Job, now: float) -> None:
        """SUSPENDED, TRANSIENT_ERROR and ERROR go to QUEUED; a job that runs is left alone (BITS 1.2)."""
        self._refuse_when_ending(job, JobInput.RESUME)
        if not job.files:
            raise EmptyJobError
        if job.state is JobState.TRANSFERRED and job.all_done:
            return
        self._move(job, JobInput.RESUME)
        if job.state is JobState.SUSPENDED or job.state is JobState.QUEUED:
            job.patience_from = now
        self._step(now)

    def suspend(self, job: Job, now: float) -> None:
        """Stop, keep everything. A suspended job stays as it is."""
        self._refuse_when_ending(job, JobInput.SUSPEND)
        self._move(job, JobInput.SUSPEND)
        self._pause(job, now)
        self._step(now)

    def cancel(self, job: Job, now: float) -> None:
        """Stop and remove the temporary files. Final."""
        self._refuse_when_ending(job, JobInput.CANCEL)
        self._move(job, JobInput.CANCEL)
        job.intent = Intent.CANCELLING
        self._pause(job, now)
        self._out.append(RemoveFiles(job=job.job))
        self._step(now)

    def complete(self, job: Job, now: float) -> None:
        """Bring the accepted files to their destinations; `published` says how that went."""
        self._refuse_when_ending(job, JobInput.COMPLETE)
        next_state(job.state, JobInput.COMPLETE)
        job.intent = Intent.COMPLETING
        self._changed(job, save=True)
        self._out.append(
            PublishFiles(
                job=job.job, files=tuple(file.file for file in job.files if file.done and not file.completed)
            )
        )

    def published(self, job: Job, failures: dict[FileId, JobError], now: float) -> None:
        """What became of `PublishFiles`: with any failure the job stays as it was, with what failed said."""
        for file in job.files:
            if file.done and file.file not in failures:
                file.completed = True
        job.intent = Intent.NONE
        if failures:
            job.error = next(iter(failures.values()))
        else:
            job.error = None
            self._move(job, JobInput.COMPLETE)
            self._out.append(RemoveFiles(job=job.job))
        self._changed(job, save=True)
        self._step(now)

    def decide(self, file: FileId, decision: ev.Decision, now: float) -> None:
        """BITS' SetValidationState: at any time after the file's last byte arrived, until the job ends.

        Raises IllegalTransitionError when the job is final, EndingJobError when it is ending.
        """
        job, _ = self._where[file]
        self._refuse_when_ending(job, JobInput.SUSPEND)
        self.handle(ev.Decided(file=file, decision=decision), now)
        self._changed(job, save=True)

    def network_up(self, now: float) -> None:
        """Every job in TRANSIENT_ERROR is tried again at once (BITS 1.2)."""
        for job in self.jobs.values():
            if job.state is JobState.TRANSIENT_ERROR:
                self._move(job, JobInput.NETWORK_UP)
        self._step(now)

    def end_again(self, job: Job) -> None:
        """A final job that was read back: its end was cut off before its files and rows were gone."""
        assert job.state in FINAL
        self._out.append(RemoveFiles(job=job.job))

    def forget(self, job: Job) -> None:
        """A final job leaves memory."""
        assert job.state in FINAL
        for file in job.files:
            self._where.pop(file.file, None)
        self.jobs.pop(job.job, None)

    # --- what happened ---------------------------------------------------------------------------------------

    def handle(self, event: ev.FileEvent, now: float) -> None:
        """One event for one file; for files that are gone it means nothing."""
        found = self._where.get(event.file)
        if found is None:
            return
        job, file = found
        self._feed(job, file, event, now)
        if not isinstance(event, ev.RangeArrived):  # bytes alone move no job, and there are very many of them
            self._step(now)

    def tick(self, now: float) -> None:
        """The time that `deadline` named has come."""
        for job, file in list(self._where.values()):
            due = file.transfer.deadline()
            if due is not None and due <= now:
                self._feed(job, file, ev.Ticked(file=file.file), now)
        for job in self.jobs.values():
            if job.state is JobState.TRANSIENT_ERROR and job.retry_at is not None and job.retry_at <= now:
                self._retry(job, now)
        self._step(now)

    # --- inside ----------------------------------------------------------------------------------------------

    def _feed(self, job: Job, file: JobFile, event: ev.FileEvent, now: float) -> None:
        """Give a file its event, and act on the outcomes among its commands."""
        pending = [(file, command) for command in file.transfer.handle(event, now)]
        while pending:
            file, command = pending.pop(0)
            match command:
                case cmd.Progressed():
                    job.patience_from = now
                    job.version += 1
                case (
                    cmd.Connected()
                    | cmd.AllThere()
                    | cmd.Undecided()
                    | cmd.Refetching()
                    | cmd.Finished()
                    | cmd.Troubled()
                    | cmd.Failed()
                ):
                    more = self._outcome(job, file, command, now)
                    pending = [(each, action) for each, actions in more for action in actions] + pending
                case _:
                    self._out.append(command)

    def _outcome(
        self, job: Job, file: JobFile, outcome: cmd.Outcome, now: float
    ) -> list[tuple[JobFile, list[cmd.Command]]]:
        """Move the job. Returns what transfers that were begun because of it want done."""
        match outcome:
            case cmd.Connected():
                if job.state is JobState.CONNECTING:
                    self._move(job, JobInput.ORIGIN_ANSWERED)
                    job.error = None
                return []
            case cmd.AllThere():
                if job.state is JobState.TRANSFERRING and all(
                    other is file or other.done or other.transfer.phase is Phase.DECIDING for other in job.files
                ):
                    self._move(job, JobInput.ALL_THERE)
                return []
            case cmd.Undecided():
                self._come_to_rest(job)
                self._changed(job, save=True)
                return self._next_file(job, now)
            case cmd.Finished():
                return self._finished(job, now)
            case cmd.Refetching():
                return self._refetching(job, file, now)
            case cmd.Troubled():
                self._troubled(job, file, outcome, now)
                return []
            case cmd.Failed():
                self._failed(job, file, outcome, now)
                return []
            case cmd.Progressed():
                return []
            case _:
                assert_never(outcome)

    def _finished(self, job: Job, now: float) -> list[tuple[JobFile, list[cmd.Command]]]:
        if job.all_done and job.state in RUNNING:
            if job.state is not JobState.VALIDATING:
                self._move(job, JobInput.ALL_THERE)
            self._move(job, JobInput.ACCEPTED)
            return []
        self._come_to_rest(job)
        self._changed(job, save=True)
        return self._next_file(job, now)

    def _come_to_rest(self, job: Job) -> None:
        """Two files can come to their ends together, so that neither was the last one to have every byte."""
        if job.undecided and job.state is JobState.TRANSFERRING:
            self._move(job, JobInput.ALL_THERE)

    def _refetching(self, job: Job, file: JobFile, now: float) -> list[tuple[JobFile, list[cmd.Command]]]:
        if job.intent is not Intent.NONE:
            return []
        if job.state is JobState.TRANSFERRED:
            self._move(job, JobInput.SET_INVALID_PEER)
            return []
        if job.state is JobState.VALIDATING:
            self._move(job, JobInput.REFETCH)
        if job.state in RUNNING:
            return [(file, file.transfer.handle(ev.Begun(file=file.file), now))]
        return []

    def _troubled(self, job: Job, file: JobFile, outcome: cmd.Troubled, now: float) -> None:
        failure = outcome.failure
        job.error = JobError(
            code=failure.kind.value,
            message=failure.message,
            context="origin",
            file=file.index,
            http_status=failure.http_status,
        )
        job.error_count += 1
        if job.state in RUNNING:
            self._move(job, JobInput.TRANSIENT_FAILURE)
            self._pause(job, now)
        job.retry_at = min(outcome.retry_at, job.patience_from + job.settings.no_progress_timeout_s)

    def _failed(self, job: Job, file: JobFile, outcome: cmd.Failed, now: float) -> None:
        job.error = JobError(
            code=outcome.code,
            message=outcome.message,
            context=outcome.context,
            file=file.index,
            http_status=outcome.http_status,
        )
        job.error_count += 1
        if job.state is JobState.TRANSFERRED:
            self._move(job, JobInput.SET_INVALID_ORIGIN)
        elif job.state is JobState.VALIDATING and outcome.code == "VALIDATION_FAILED":
            self._move(job, JobInput.REJECTED)
        elif job.state in RUNNING or job.state is JobState.TRANSIENT_ERROR:
            self._move(job, JobInput.FATAL_FAILURE)
        self._pause(job, now)

    def _retry(self, job: Job, now: float) -> None:
        job.retry_at = None
        timeout = job.settings.no_progress_timeout_s
        if now >= job.patience_from + timeout and job.error is not None:
            text = f"gave up after {timeout:.0f} s without progress: {job.error.message}"
            job.error = JobError(
                code=job.error.code,
                message=text,
                context=job.error.context,
                file=job.error.file,
                http_status=job.error.http_status,
            )
            self._move(job, JobInput.NO_PROGRESS)
        else:
            self._move(job, JobInput.RETRY_DUE)

    def _next_file(self, job: Job, now: float) -> list[tuple[JobFile, list[cmd.Command]]]:
        busy = any(
            not file.waiting and not file.done and file.transfer.phase is not Phase.DECIDING for file in job.files
        )
        for file in job.files:
            if job.state in RUNNING and not busy and file.waiting:
                return [(file, file.transfer.handle(ev.Begun(file=file.file), now))]
        return []

    def _pause(self, job: Job, now: float) -> None:
        for file in job.files:
            self._feed(job, file, ev.Paused(file=file.file), now)

    def _step(self, now: float) -> None:
        """After anything: slots, and what files of this agent can do for each other, until nothing moves."""
        while self._grant(now) or self._tell_siblings(now):
            pass

    def _grant(self, now: float) -> bool:
        granted = grant((job.waiting for job in self.jobs.values()), self._slots)
        for job_id in granted:
            job = self.jobs[job_id]
            self._move(job, JobInput.SLOT_GRANTED)
            begun = self._next_file(job, now)
            for _, commands in begun:
                self._out += [command for command in commands if not isinstance(command, cmd.Outcome)]
            if not begun:
                self._settle(job)
        return bool(granted)

    def _tell_siblings(self, now: float) -> bool:
        """The files of jobs that end are no source: they are removed, or become the user's."""
        living = (file.transfer for job, file in self._where.values() if not self._ends(job))
        news = self._siblings.news(living)
        for event in news:
            job, file = self._where[event.file]
            self._feed(job, file, event, now)
        return bool(news)

    @staticmethod
    def _ends(job: Job) -> bool:
        return job.state in FINAL or job.intent is not Intent.NONE

    def _settle(self, job: Job) -> None:
        """A job that got its slot and has nothing to fetch goes where its files already are."""
        if job.all_done or job.undecided:
            self._move(job, JobInput.ORIGIN_ANSWERED)
            self._move(job, JobInput.ALL_THERE)
            if job.all_done:
                self._move(job, JobInput.ACCEPTED)

    def _move(self, job: Job, given: JobInput) -> None:
        job.state = next_state(job.state, given)
        if job.state is JobState.QUEUED:
            self._orders += 1
            job.order = self._orders
        self._changed(job, save=True)

    def _changed(self, job: Job, *, save: bool) -> None:
        job.version += 1
        if save and SaveJob(job=job.job) not in self._out[-1:]:
            self._out.append(SaveJob(job=job.job))

    def _refuse_when_ending(self, job: Job, given: JobInput) -> None:
        next_state(job.state, given)
        if job.intent is not Intent.NONE:
            raise EndingJobError(job.intent)


class EndingJobError(Exception):
    """The job is being completed or cancelled; nothing else can be asked of it."""

    def __init__(self, intent: Intent) -> None:
        super().__init__(f"the job is {intent.value}: nothing else can be asked of it")
