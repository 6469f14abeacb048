"""What happens to jobs: events in, states and slots out. The part of the manager that nobody asks for.

Feeds each file's `FileTransfer` and acts on its outcomes, hands out slots by `queue.py`, keeps the clocks of
`patience.py`, and lets files of this agent with the same content supply each other. Files of one job go in the
order they were added, one at a time (BITS 1.3). Every call costs what it changes, not the number of jobs.
Never knows: what users ask for, documents, SQLite, HTTP, threads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.agenda import Agenda
from agent.core.families import Families
from agent.core.job import FINAL, RUNNING, JobInput, JobState
from agent.core.jobs import Intent, Job, JobError, JobFile, News, NewsKind
from agent.core.moves import (
    ACTIVE,
    Moves,
    PublishFiles,
    RemoveFiles,
    is_blocked,
    lacks_progress,
    obstacle_error,
)
from agent.core.notices import NoticeKind
from agent.core.obstacles import Surroundings
from agent.core.patience import Overdue
from agent.core.queue import Queue
from agent.core.sources import FileId
from agent.core.transfer import Phase
from peer.core.failure import LOCAL, FailureKind

Pending = list[tuple[JobFile, cmd.Command]]
"""What transfers have said and nobody has acted on, in order."""

_FETCHING = (Phase.PROBING, Phase.GATHERING, Phase.FETCHING)
_RESTING = frozenset({JobState.SUSPENDED, JobState.QUEUED, JobState.TRANSFERRED})
"""Only the application's verdict makes an error of these."""


class Running(Moves):
    """All jobs of one agent, and what they wait for."""

    def __init__(self, queue: Queue, *, first_delivery: int = 1) -> None:
        super().__init__(queue, first_delivery=first_delivery)
        self._where: dict[FileId, tuple[Job, JobFile]] = {}
        self._families = Families()
        self._file_times: Agenda[FileId] = Agenda()

    # --- reading ---------------------------------------------------------------------------------------------

    def find(self, file: FileId) -> tuple[Job, JobFile] | None:
        """The job and the file of an id; None when they are gone."""
        return self._where.get(file)

    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        times = (self._file_times.next(), self.times.next(), self.queue.deadline(), self.notices.deadline())
        return min((at for at in times if at is not None), default=None)

    # --- files come and go -----------------------------------------------------------------------------------

    def adopt(self, job: Job, file: JobFile) -> None:
        """A new file of a job."""
        job.files.append(file)
        self._where[file.file] = (job, file)
        self._look(job, file)

    def leave(self, job: Job) -> None:
        """A final job goes out of memory."""
        for file in job.files:
            self._where.pop(file.file, None)
            self._families.leave(file.file)
            self._file_times.set(file.file, None)
        super().leave(job)

    # --- what happened ---------------------------------------------------------------------------------------

    def feed(self, job: Job, file: JobFile, event: ev.FileEvent, now: float) -> None:
        """Give a file its event, and act on the outcomes among its commands."""
        self.carry(job, [(file, command) for command in file.transfer.handle(event, now)], now)
        if isinstance(event, ev.RangeArrived):  # there are very many of these, and they prove nothing
            self._file_times.set(file.file, file.transfer.deadline())
            return
        if job.state is JobState.VALIDATING and file.transfer.phase in _FETCHING:  # its part file was lost
            self._await_no_more(job)
            self.more_to_fetch(job, now)
        self._look(job, file)

    def carry(self, job: Job, pending: Pending, now: float) -> None:
        """Act on outcomes in order, and hand on the rest."""
        while pending:
            file, command = pending.pop(0)
            match command:
                case cmd.Progressed():
                    job.patience.progressed(now)
                    job.version += 1
                    self.note_change(job, now)
                case cmd.RangesFilled(items=items):
                    self._filled(job, file, tuple((item.start, item.stop) for item in items), now)
                case (
                    cmd.Connected()
                    | cmd.AllThere()
                    | cmd.Undecided()
                    | cmd.Refetching()
                    | cmd.Finished()
                    | cmd.Troubled()
                    | cmd.Failed()
                    | cmd.DemandMet()
                ):
                    pending = self._outcome(job, file, command, now) + pending
                case _:
                    self.out.append(command)

    def tick(self, now: float) -> None:
        """The time that `deadline` named has come: first for who may run, then for what those do."""
        for job_id in self.times.due(now):
            job = self.jobs[job_id]
            self._job_is_due(job, now)
            self.wait_for(job, now)
        self.notices.tick(now)
        self.step(now)
        for file_id in self._file_times.due(now):
            job, file = self._where[file_id]
            self.feed(job, file, ev.Ticked(file=file_id), now)
        self.step(now)

    def step(self, now: float) -> None:
        """After anything: slots, and what files of this agent can do for each other, until nothing moves."""
        while self._slots(now) or self._tell_families(now):
            pass
        self.out += self.notices.take()

    def surround(self, surroundings: Surroundings, now: float) -> None:
        """The network came or went, or other bandwidth limits hold: all jobs that this concerns move at once."""
        if surroundings == self.surroundings:
            return
        before = self.surroundings
        returned = surroundings.connected and (not before.connected or surroundings.arrivals > before.arrivals)
        self.surroundings = surroundings
        for job in list(self.jobs.values()):
            if returned and job.state is JobState.TRANSIENT_ERROR and self.obstacle(job) is None:
                self.move(job, JobInput.NETWORK_UP, now)
            else:
                self.recheck(job, now)
        self.step(now)

    def recheck(self, job: Job, now: float) -> None:
        """What is around it, its priority, or where it goes, is another one now."""
        self._stop_if_blocked(job, now)
        if is_blocked(job):
            obstacle = self.obstacle(job)
            if obstacle is None:
                self.move(job, JobInput.UNBLOCKED, now)
            elif job.error != obstacle_error(obstacle):
                job.error = obstacle_error(obstacle)
                self.changed(job)

    # --- moving one job --------------------------------------------------------------------------------------

    def move(self, job: Job, given: JobInput, now: float) -> None:
        """One step of the table, unless network or policy stop the job there."""
        super().move(job, given, now)
        self._stop_if_blocked(job, now)

    def pause(self, job: Job, now: float) -> None:
        """Every file asks for nothing more."""
        for file in job.files:
            if not file.waiting and not file.publishable:
                self.feed(job, file, ev.Paused(file=file.file), now)

    def fail(self, job: Job, error: JobError, now: float) -> None:
        """The job cannot go on until somebody changes something."""
        job.error = error
        job.error_count += self.queue.holds(job.job)  # a try that failed, not a verdict afterwards (BITS 1.5)
        if job.state in _RESTING:
            self.move(job, JobInput.SET_INVALID_ORIGIN, now)
        elif job.state is JobState.VALIDATING and error.code == "VALIDATION_FAILED":
            self.move(job, JobInput.REJECTED, now)
        elif job.state in RUNNING or job.state is JobState.TRANSIENT_ERROR:
            self.move(job, JobInput.FATAL_FAILURE, now)
        self.pause(job, now)

    def publish(self, job: Job, now: float) -> None:
        """Bring the files that are there to their destinations, and give up the others (BITS 1.8)."""
        if job.state not in (JobState.SUSPENDED, JobState.TRANSFERRED, JobState.ERROR):
            self.move(job, JobInput.SUSPEND, now)
            self.pause(job, now)
        job.intent = Intent.COMPLETING
        self.changed(job)
        self.settle_ending(job, now)
        wanted = tuple(file.file for file in job.files if file.publishable and not file.completed)
        self.out.append(PublishFiles(job=job.job, files=wanted))

    def settle_ending(self, job: Job, now: float) -> None:
        """The job is ending, or is not any more: no clock runs for one that is, and its files are no source."""
        self.wait_for(job, now)
        for file in job.files:
            self._look(job, file)

    def remove(self, job: Job, given: JobInput, now: float) -> None:
        """Stop the job for ever, and remove its temporary files."""
        job.intent = Intent.CANCELLING
        self.move(job, given, now)
        self.pause(job, now)
        self.settle_ending(job, now)
        self.out.append(RemoveFiles(job=job.job))

    # --- outcomes --------------------------------------------------------------------------------------------

    def _outcome(self, job: Job, file: JobFile, outcome: cmd.Outcome, now: float) -> Pending:
        """Move the job. Returns what transfers that were begun because of it want done."""
        match outcome:
            case cmd.Connected():
                if job.state is JobState.CONNECTING:
                    self.move(job, JobInput.ORIGIN_ANSWERED, now)
                return []
            case cmd.AllThere():
                file.announced = False
                others = all(other is file or other.publishable for other in job.files)
                if job.state is JobState.TRANSFERRING and others:
                    self.move(job, JobInput.ALL_THERE, now)
                return []
            case cmd.Undecided():
                return self._there(job, file, now)
            case cmd.Finished():
                return self._there(job, file, now)
            case cmd.Refetching():
                return self._refetching(job, file, now)
            case cmd.Troubled():
                self._troubled(job, file, outcome, now)
                return []
            case cmd.Failed():
                self._await_no_more(job)
                self.fail(job, _error_of(file, outcome), now)
                return []
            case cmd.DemandMet():
                return self._demand_met(job, now)
            case cmd.Progressed() | cmd.RangesFilled():
                return []
            case _:
                assert_never(outcome)

    def _there(self, job: Job, file: JobFile, now: float) -> Pending:
        """The validators accepted the file; the application may still have to decide."""
        self._file_transferred(job, file, now)
        self.changed(job)
        if job.intent is Intent.AWAITING and file.transfer.phase is Phase.DECIDING:
            return [(file, each) for each in file.transfer.handle(valid(file), now)]
        if job.state in RUNNING and all(each.publishable for each in job.files):
            if job.state is not JobState.VALIDATING:  # two files can come to their ends together
                self.move(job, JobInput.ALL_THERE, now)
            if job.all_done:
                self.move(job, JobInput.ACCEPTED, now)
        self.wait_for(job, now)
        if job.intent is Intent.AWAITING:
            self.publish(job, now)
        return self.next_file(job, now)

    def _file_transferred(self, job: Job, file: JobFile, now: float) -> None:
        """Once for each time that every byte was there: also after an invalid copy was replaced (BITS 2.2)."""
        if not file.announced:
            file.announced = True
            self.tell(job, NewsKind.FILE_TRANSFERRED, file.index)
            self.notices.raised(job.job, NoticeKind.FILE_TRANSFERRED, now, file.index)

    def _filled(self, job: Job, file: JobFile, ranges: tuple[tuple[int, int], ...], now: float) -> None:
        job.news.append(
            News(kind=NewsKind.FILE_RANGES_TRANSFERRED, state=job.state, file=file.index, ranges=ranges)
        )
        self.notices.raised(job.job, NoticeKind.FILE_RANGES_TRANSFERRED, now, file.index, ranges)
        self.changed(job)

    def _demand_met(self, job: Job, now: float) -> Pending:
        """BITS 1.11: the job rests when all that was asked for is there. Parts of other files may be missing."""
        if job.state is not JobState.TRANSFERRING:
            return []
        if any(file.waiting and file.wanted for file in job.files):
            return self.next_file(job, now)
        self.move(job, JobInput.DEMAND_MET, now)
        self.pause(job, now)
        return []

    def _refetching(self, job: Job, file: JobFile, now: float) -> Pending:
        """An invalid copy with bytes of peers, or a part file that is gone: no error (BITS 3.2)."""
        self._await_no_more(job)
        self.changed(job)
        if job.intent is not Intent.NONE:
            return []
        if job.state is JobState.TRANSFERRED:
            self.move(job, JobInput.SET_INVALID_PEER, now)
        else:
            self.more_to_fetch(job, now)
        return self.next_file(job, now)

    def more_to_fetch(self, job: Job, now: float) -> None:
        """A job that was being validated goes on; it needs another slot when it had given its own away."""
        if job.state is JobState.VALIDATING:
            self.move(job, JobInput.REFETCH if self.queue.holds(job.job) else JobInput.SLOT_LOST, now)

    def _troubled(self, job: Job, file: JobFile, outcome: cmd.Troubled, now: float) -> None:
        """The transfer stands still; the job with it."""
        if job.state not in RUNNING:
            return
        self._await_no_more(job)
        failure = outcome.failure
        if self.surroundings.explains(failure.kind, file.host):
            self._block(job, FailureKind.NETWORK_DISCONNECTED, JobInput.TRANSIENT_FAILURE, now)
            return
        job.error = JobError(
            code=failure.kind.value,
            message=failure.message,
            context="local file" if failure.kind in LOCAL else "origin",
            file=file.index,
            http_status=failure.http_status,
        )
        job.error_count += 1
        job.patience.troubled(now)
        if job.settings.patience.retries:
            self.move(job, JobInput.TRANSIENT_FAILURE, now)
            job.retry_at = outcome.retry_at
            self.wait_for(job, now)
            wait_s = max(0.0, outcome.retry_at - now)
            self.out.append(cmd.LogLine(file=file.file, text=f"{failure.message}; tried again in {wait_s:.1f} s"))
        else:
            why = "no retry: the minimum retry delay is longer than the no-progress timeout"
            job.error = replace(job.error, message=f"{failure.message} ({why})")
            self.move(job, JobInput.FATAL_FAILURE, now)
        self.pause(job, now)

    def _await_no_more(self, job: Job) -> None:
        """The verdict that `complete` waited for is not that the file is right: the job lives on."""
        if job.intent is Intent.AWAITING:
            job.intent = Intent.NONE

    # --- time ------------------------------------------------------------------------------------------------

    def _job_is_due(self, job: Job, now: float) -> None:
        overdue = job.patience.overdue(job.settings.patience, now, waiting=lacks_progress(job))
        match overdue:
            case Overdue.INACTIVE:
                self.remove(job, JobInput.INACTIVE, now)
            case Overdue.DOWNLOAD_TIME:
                limit = job.settings.patience.maximum_download_time_s
                text = f"it transferred for {limit:.0f} s, as long as this job may; resume gives it as long again"
                self.fail(job, JobError(code="MAX_DOWNLOAD_TIME", message=text, context="policy"), now)
            case Overdue.NO_PROGRESS:
                timeout = job.settings.patience.no_progress_timeout_s
                assert job.error is not None
                text = f"gave up after {timeout:.0f} s without progress: {job.error.message}"
                job.error = replace(job.error, message=text)
                self.move(job, JobInput.NO_PROGRESS, now)
            case None:
                if job.retry_at is not None and job.retry_at <= now:
                    self.move(job, JobInput.RETRY_DUE, now)
                else:
                    self.changed(job)  # a day without anything: that is recorded
            case _:
                assert_never(overdue)

    # --- slots and files -------------------------------------------------------------------------------------

    def next_file(self, job: Job, now: float) -> Pending:
        """Begin the next file of a job that runs, when none is under way: one of which parts are wanted first."""
        if job.state not in RUNNING or job.intent is not Intent.NONE:
            return []
        if any(not file.waiting and not file.publishable for file in job.files):
            return []
        waiting = [file for file in job.files if file.waiting]
        file = next((each for each in waiting if each.wanted), next(iter(waiting), None))
        if file is None:
            return []
        commands = file.transfer.handle(ev.Begun(file=file.file), now)
        self._look(job, file)
        return [(file, command) for command in commands]

    def prefer(self, job: Job, file: JobFile, now: float) -> None:
        """Parts of this file are wanted: another one of which nobody wants parts makes room."""
        if job.state not in ACTIVE or not (file.waiting and file.wanted):
            return
        for other in job.files:
            if not other.waiting and not other.publishable and not other.wanted:
                self.feed(job, other, ev.Paused(file=other.file), now)
        self.carry(job, self.next_file(job, now), now)

    def _slots(self, now: float) -> bool:
        changes = self.queue.decide(now)
        for job_id in changes.revoked:
            job = self.jobs[job_id]
            self.move(job, JobInput.SLOT_LOST, now)
            self.pause(job, now)
        for job_id in changes.granted:
            job = self.jobs[job_id]
            if job.state is JobState.QUEUED:
                self.move(job, JobInput.SLOT_GRANTED, now)
                begun = self.next_file(job, now)
                self.carry(job, begun, now)
                if not begun:
                    self._settle(job, now)
        return bool(changes.revoked or changes.granted)

    def _settle(self, job: Job, now: float) -> None:
        """A job that got its slot and has nothing to fetch goes where its files already are."""
        if all(file.publishable for file in job.files):
            self.move(job, JobInput.ORIGIN_ANSWERED, now)
            self.move(job, JobInput.ALL_THERE, now)
            if job.all_done:
                self.move(job, JobInput.ACCEPTED, now)

    # --- inside ----------------------------------------------------------------------------------------------

    def _look(self, job: Job, file: JobFile) -> None:
        """Note when the file wants to be called, and whose content it has. The files of jobs that end are no
        source: they are removed, or become the user's."""
        transfer = file.transfer
        self._file_times.set(file.file, transfer.deadline())
        ends = job.state in FINAL or job.intent in (Intent.COMPLETING, Intent.CANCELLING) or file.completed
        self._families.look(transfer, living=not ends)

    def _tell_families(self, now: float) -> bool:
        news = self._families.news()
        for event in news:
            job, file = self._where[event.file]
            self.feed(job, file, event, now)
        return bool(news)

    def _stop_if_blocked(self, job: Job, now: float) -> None:
        if job.state is JobState.QUEUED or job.state in ACTIVE:
            obstacle = self.obstacle(job)
            if obstacle is not None:
                self._block(job, obstacle, JobInput.BLOCKED, now)

    def _block(self, job: Job, obstacle: FailureKind, given: JobInput, now: float) -> None:
        """Network and policy are conditions, not errors: they count for nothing and set no timer (BITS 1.5)."""
        job.error = obstacle_error(obstacle)
        job.patience.held(now)
        self.move(job, given, now)
        self.pause(job, now)


def valid(file: JobFile) -> ev.Decided:
    """BITS 3.2: complete without a verdict counts as valid."""
    return ev.Decided(file=file.file, decision=ev.Decision.VALID)


def _error_of(file: JobFile, outcome: cmd.Failed) -> JobError:
    return JobError(
        code=outcome.code,
        message=outcome.message,
        context=outcome.context,
        file=file.index,
        http_status=outcome.http_status,
    )
