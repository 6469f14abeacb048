"""All jobs of one agent: what users ask for, and what may be asked when. Pure, like everything here.

What happens by itself is `running.py`. Never knows: documents, SQLite, HTTP, threads.
"""

from __future__ import annotations

import random

from agent.core import events as ev
from agent.core.job import FINAL, RUNNING, JobInput, JobState, next_state
from agent.core.jobs import Intent, Job, JobError, JobFile, JobSettings, Kept, NewsKind, NewTransfer
from agent.core.moves import ACTIVE, JobCommand, PublishFiles, RemoveFiles, SaveJob
from agent.core.notices import Notices
from agent.core.obstacles import Surroundings
from agent.core.patience import Patience
from agent.core.queue import JobId, Queue, QueueLimits
from agent.core.running import Running, valid
from agent.core.sources import FileId
from agent.core.spec import TransferSpec
from agent.core.transfer import FileTransfer, Phase
from agent.core.tuning import Tuning
from peer.core.voucher import PeerId
from validation.ranges import ByteRange

__all__ = [
    "EmptyJobError",
    "EndingJobError",
    "JobCommand",
    "JobManager",
    "PublishFiles",
    "RemoveFiles",
    "SaveJob",
]


class EmptyJobError(Exception):
    """Resume was refused: the job has no file (BITS: BG_E_EMPTY)."""

    def __init__(self) -> None:
        super().__init__("the job has no file yet: add one before you resume it")


class EndingJobError(Exception):
    """The job is being completed or cancelled; nothing else can be asked of it."""

    def __init__(self, intent: Intent) -> None:
        also = " but to suspend or cancel it" if intent is Intent.AWAITING else ""
        super().__init__(f"the job is {intent.value}: nothing else can be asked of it{also}")


class JobManager:
    """The owner of all jobs. One call at a time; `take()` hands out the commands since the last one."""

    def __init__(
        self, *, limits: QueueLimits, tuning: Tuning, rng: random.Random, own: PeerId | None = None
    ) -> None:
        """`own`: this agent, as its group knows it; None without a group."""
        self._own = own
        self._running = Running(Queue(limits), first_delivery=1 + rng.getrandbits(40))
        self._tuning = tuning
        self._rng = rng

    # --- reading ---------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> dict[JobId, Job]:
        """Every job by id, oldest first."""
        return self._running.jobs

    @property
    def notices(self) -> Notices:
        """Who is told what; its answers are followed by `step`."""
        return self._running.notices

    def take(self) -> list[JobCommand]:
        """The commands that have not been handed out, in order."""
        running = self._running
        running.out += running.notices.take()
        out, running.out = running.out, []
        return out

    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        return self._running.deadline()

    def transfer(self, file: FileId) -> FileTransfer | None:
        """The transfer of a file; None when its job is gone."""
        found = self._running.find(file)
        return None if found is None else found[1].transfer

    def owner(self, file: FileId) -> Job | None:
        """The job of a file; None when it is gone."""
        found = self._running.find(file)
        return None if found is None else found[0]

    # --- jobs and their files --------------------------------------------------------------------------------

    def create(self, job_id: JobId, settings: JobSettings, now: float) -> Job:
        """A new job, SUSPENDED and empty."""
        job = Job(job=job_id, settings=settings, patience=Patience(now))
        self._running.enter(job, now)
        self._running.tell(job, NewsKind.CREATED)
        self._running.changed(job)
        return job

    def add(self, job: Job, new: NewTransfer, now: float) -> JobFile:
        """One more file at the end. Raises IllegalTransitionError when the job is final, EndingJobError."""
        self._refuse_when_ending(job, JobInput.RESUME)
        file = self._append(job, new)
        self._running.modified(job, now, file.index)
        self._running.more_to_fetch(job, now)
        self._running.carry(job, self._running.next_file(job, now), now)
        self._running.wait_for(job, now)
        self._running.step(now)
        return file

    def restore(self, job_id: JobId, settings: JobSettings, kept: Kept, now: float) -> Job:
        """A job that was read back from the journal, without its files; `put_back` and `restored` follow."""
        job = Job(
            job=job_id,
            settings=settings,
            patience=Patience.restored(kept.elapsed, now),
            error_count=kept.error_count,
            partial=kept.partial,
        )
        self._running.enter_again(job)
        return job

    def put_back(self, job: Job, new: NewTransfer, *, completed: bool) -> JobFile:
        """A file of a job that is being read back."""
        file = self._append(job, new)
        file.completed = completed
        return file

    def restored(self, job: Job, state: JobState, error: JobError | None, now: float) -> None:
        """Put a job that was read back where it belongs: what ran is queued again. `step` follows, once for all."""
        runs = state in RUNNING or state in (JobState.QUEUED, JobState.TRANSIENT_ERROR)
        job.state = JobState.QUEUED if runs else state
        job.error = None if runs else error
        self._running.wait_for(job, now)
        if runs:
            self._running.recheck(job, now)
            self._running.changed(job)

    def change(self, job: Job, settings: JobSettings, now: float) -> None:
        """Other properties. What they mean for slots, clocks and notices holds at once."""
        self._refuse_when_ending(job, JobInput.SUSPEND)
        job.settings = settings
        self._running.notices.configure(job.job, settings.notices)
        self._running.notices.tick(now)
        self._running.modified(job, now)
        self._running.wait_for(job, now)
        self._running.recheck(job, now)
        self._running.step(now)

    def respecify(self, job: Job, specs: dict[FileId, TransferSpec], now: float) -> None:
        """Other URLs, or other use of peers, for some files. A job that runs is stopped and queued again, and goes
        on where it was (bits-reference 1.6, 3.3). Raises IllegalTransitionError, EndingJobError."""
        self._refuse_when_ending(job, JobInput.SUSPEND)
        if job.state in ACTIVE:
            self._running.move(job, JobInput.SLOT_LOST, now)
            self._running.pause(job, now)
        for file in job.files:
            if file.file in specs:
                self._running.feed(job, file, ev.Respecified(file=file.file, spec=specs[file.file]), now)
        self._running.modified(job, now)
        self._running.wait_for(job, now)
        self._running.recheck(job, now)
        self._running.step(now)

    # --- life ------------------------------------------------------------------------------------------------

    def resume(self, job: Job, now: float) -> None:
        """SUSPENDED, TRANSIENT_ERROR and ERROR go to QUEUED; a job that runs, or has nothing more to do, is left
        alone (BITS 1.2). Raises EmptyJobError, IllegalTransitionError, EndingJobError."""
        self._refuse_when_ending(job, JobInput.RESUME)
        if not job.files:
            raise EmptyJobError
        if job.state is JobState.TRANSFERRED and job.all_done:
            return
        job.patience.resumed(now)
        self._running.move(job, JobInput.RESUME, now)
        self._running.step(now)

    def suspend(self, job: Job, now: float) -> None:
        """Stop, keep everything. A suspended job stays as it is. Raises IllegalTransitionError, EndingJobError."""
        self._refuse_when_ending(job, JobInput.SUSPEND, even_awaiting=False)
        job.patience.touched(now)
        self._running.move(job, JobInput.SUSPEND, now)
        self._running.pause(job, now)
        self._running.step(now)

    def cancel(self, job: Job, now: float) -> None:
        """Stop and remove the temporary files. Final. Raises IllegalTransitionError, EndingJobError."""
        self._refuse_when_ending(job, JobInput.CANCEL, even_awaiting=False)
        self._running.remove(job, JobInput.CANCEL, now)
        self._running.step(now)

    def complete(self, job: Job, now: float) -> None:
        """Bring the files that are there to their destinations; `published` says how that went. In any live state:
        what is not there is given up (BITS 1.8, partial completion). A file that validators are looking at is
        waited for: it is neither there nor missing. If they do not accept it, the job lives on as if nobody had
        asked. Raises IllegalTransitionError, EndingJobError."""
        self._refuse_when_ending(job, JobInput.COMPLETE)
        job.patience.touched(now)
        for file in job.files:
            if file.transfer.phase is Phase.DECIDING:
                self._running.feed(job, file, valid(file), now)
        if any(file.transfer.phase is Phase.VALIDATING for file in job.files):
            job.intent = Intent.AWAITING
            if job.state is JobState.TRANSFERRING:  # nothing else will be fetched
                self._running.move(job, JobInput.ALL_THERE, now)
            self._running.changed(job)
            self._running.wait_for(job, now)
        else:
            self._running.publish(job, now)
        self._running.step(now)

    def published(self, job: Job, failures: dict[FileId, JobError], now: float) -> None:
        """What became of `PublishFiles`: with any failure the job stays as it was, with a result for each file."""
        for file in job.files:
            file.error = failures.get(file.file)
            if file.publishable and file.error is None:
                file.completed = True
        job.intent = Intent.NONE
        if failures:
            job.error = next(iter(failures.values()))
            self._running.changed(job)
            self._running.settle_ending(job, now)
        else:
            job.error = None
            job.partial = not all(file.completed for file in job.files)
            self._running.move(job, JobInput.COMPLETE, now)
            self._running.out.append(RemoveFiles(job=job.job))
        self._running.step(now)

    def decide(self, file: FileId, decision: ev.Decision, now: float) -> None:
        """BITS' SetValidationState: at any time after the file's last byte arrived, until the job ends.

        Raises IllegalTransitionError when the job is final, EndingJobError when it is ending.
        """
        found = self._running.find(file)
        assert found is not None
        job, its = found
        self._refuse_when_ending(job, JobInput.SUSPEND)
        self._running.feed(job, its, ev.Decided(file=file, decision=decision), now)
        self._running.modified(job, now, its.index)
        self._running.step(now)

    def want(self, file: FileId, items: tuple[ByteRange, ...], now: float) -> None:
        """BITS' RequestFileRanges: a job that rests begins to run, with this file.

        Raises IllegalTransitionError, EndingJobError.
        """
        found = self._running.find(file)
        assert found is not None
        job, its = found
        self._refuse_when_ending(job, JobInput.RESUME)
        self._running.feed(job, its, ev.RangesWanted(file=file, items=items), now)
        self._running.modified(job, now, its.index)
        if job.state is JobState.SUSPENDED:
            self.resume(job, now)
        else:
            self._running.prefer(job, its, now)
            self._running.step(now)

    # --- what happened ---------------------------------------------------------------------------------------

    def surround(self, surroundings: Surroundings, now: float) -> None:
        """The network came or went, or other bandwidth limits hold now."""
        self._running.surround(surroundings, now)

    def handle(self, event: ev.FileEvent, now: float) -> None:
        """One event for one file; for files that are gone, or at their destination, it means nothing."""
        found = self._running.find(event.file)
        if found is None or found[1].completed:
            return
        job, file = found
        self._running.feed(job, file, event, now)
        if not isinstance(event, ev.RangeArrived):  # bytes alone move no job, and there are very many of them
            self._running.step(now)

    def tick(self, now: float) -> None:
        """The time that `deadline` named has come."""
        self._running.tick(now)

    def step(self, now: float) -> None:
        """After something was told to `notices`."""
        self._running.step(now)

    def end_again(self, job: Job) -> None:
        """A final job that was read back: its end was cut off before its files and rows were gone."""
        assert job.state in FINAL
        self._running.out.append(RemoveFiles(job=job.job))

    def forget(self, job: Job) -> None:
        """A final job leaves memory."""
        assert job.state in FINAL
        self._running.leave(job)

    # --- inside ----------------------------------------------------------------------------------------------

    def _append(self, job: Job, new: NewTransfer) -> JobFile:
        transfer = FileTransfer(new.spec, self._tuning, self._rng, new.restored, self._own)
        file = JobFile(index=len(job.files), transfer=transfer)
        self._running.adopt(job, file)
        return file

    @staticmethod
    def _refuse_when_ending(job: Job, given: JobInput, *, even_awaiting: bool = True) -> None:
        next_state(job.state, given)
        if job.intent is Intent.AWAITING and not even_awaiting:
            job.intent = Intent.NONE
        if job.intent is not Intent.NONE:
            raise EndingJobError(job.intent)
