"""Jobs on the disk: rows in the journal, temporary files, finished files at their destinations, and all of it
again after a restart. Carries out `SaveJob`, `PublishFiles` and `RemoveFiles`; never decides what a job becomes.

Order (reliability 2.3): the intent is recorded before the first rename or unlink, the rename before the job's end.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from agent.context import Context
from agent.core.job import FINAL, JobState
from agent.core.jobs import Intent, Job, JobError, JobFile, JobSettings, NewTransfer
from agent.core.manager import JobManager
from agent.core.queue import JobId, Rank
from agent.core.sources import FileId
from agent.core.spec import Restored
from agent.errors import DestinationError
from agent.filework import FileWork
from agent.journal import FileKey, FileRecord, JobRecord, StoredJob, decode_ranges
from agent.partfile import Overwrite, PartFileLost, Publication, is_published, mode_by_umask, remove_orphans
from agent.records import StoredFile, decode_error, decode_file, destination_of, encode_error, encode_file, spec_of
from agent.schema import FileDocument, JobDocument, NewFile, NewJob, Priority
from agent.views import JobFrame, file_document, job_document, validation_of

RANKS = {
    Priority.FOREGROUND: Rank.FOREGROUND,
    Priority.HIGH: Rank.HIGH,
    Priority.NORMAL: Rank.NORMAL,
    Priority.LOW: Rank.LOW,
}


class Keeper:
    """What the engine knows of each job beyond the core, and how it is kept."""

    def __init__(self, context: Context, manager: JobManager) -> None:
        self.frames: dict[JobId, JobFrame] = {}
        self.works: dict[FileId, FileWork] = {}
        self._context = context
        self._manager = manager
        self._saved: dict[FileId, bytes] = {}
        self._recorded: dict[FileId, int | None] = {}
        """The inode of the temporary file that a row's progress is about."""

    # --- into memory -----------------------------------------------------------------------------------------

    def settings_of(self, new: NewJob) -> JobSettings:
        """A job's settings, with the agent's where the job has none."""
        config = self._context.parts.config
        return JobSettings(
            rank=RANKS[new.priority],
            minimum_retry_delay_s=_or(new.minimum_retry_delay_s, config.minimum_retry_delay_s),
            no_progress_timeout_s=_or(new.no_progress_timeout_s, config.no_progress_timeout_s),
        )

    def add_file(self, job: Job, new: NewFile, stored: StoredFile | None, restored: Restored | None) -> JobFile:
        """Put a file into the job and give it a worker. Raises UsageError for a bad digest."""
        index = len(job.files)
        file_id = FileId(f"{job.job}/{index}")
        integrity = self._context.parts.config.integrity
        spec = spec_of(file_id, new, integrity, job.settings.minimum_retry_delay_s)
        completed = stored is not None and stored.completed
        file = self._manager.add(job, NewTransfer(spec=spec, restored=restored), completed=completed)
        key = FileKey(job_id=job.job, index=index)
        self.works[file_id] = FileWork(self._context, file.transfer, new, key)
        return file

    async def restore(self, stored: StoredJob, now: float) -> None:
        """Put a job that an earlier process left back in its place, and finish what it was about to finish."""
        record = stored.job
        new = msgspec.json.decode(record.settings, type=NewJob)
        job = self._manager.create(JobId(record.id), self.settings_of(new))
        self.frames[job.job] = JobFrame(
            new=new,
            created_at=record.created_at,
            modified_at=record.modified_at,
            completed_at=record.completed_at,
        )
        self.frames[job.job].log.extend(
            line.text for line in (await self._context.parts.journal.events(record.id))[-50:]
        )
        for row in stored.files:
            await self._restore_file(job, row)
        self._manager.restore_state(job, _state_of(record, job), decode_error(record.error), now)
        if job.state in FINAL:
            self._manager.end_again(job)
        elif record.intent == Intent.CANCELLING:
            self._manager.cancel(job, now)
        elif record.intent == Intent.COMPLETING and job.state in (JobState.TRANSFERRED, JobState.ERROR):
            self._manager.complete(job, now)

    async def _restore_file(self, job: Job, row: FileRecord) -> None:
        stored = decode_file(row.document)
        held = tuple(decode_ranges(row.held))
        work_name, lost = row.temp_name, None
        restored: Restored | None = Restored(snapshot=stored.snapshot, held=held)
        published = row.inode is not None and is_published(Path(row.directory), row.base, row.inode)
        if published and stored.snapshot.finished:
            stored.completed = True
        file = None
        if work_name is not None and row.inode is not None and not stored.completed:
            lost = await self._probe_part(row)
            if lost is not None:
                restored = None
        elif not stored.completed:
            restored = None
            run = self._context.parts.workers.run
            await run(remove_orphans, Path(row.directory), row.base, row.job_id)
        file = self.add_file(job, stored.new, stored, restored)
        work = self.works[file.file]
        if restored is not None and not stored.completed and work_name is not None:
            await work.adopt(work_name, row.device or 0, row.inode or 0)
            self._recorded[file.file] = row.inode
        if lost is not None:
            self.log(file.file, f"the temporary file is lost, starting again: {lost}")

    async def _probe_part(self, row: FileRecord) -> str | None:
        """Why the temporary file cannot be used; None when it can."""
        probe = FileWork.probe_part
        return await self._context.parts.workers.run(
            probe, Path(row.directory), row.temp_name or "", row.device or 0, row.inode or 0
        )

    # --- onto the disk ---------------------------------------------------------------------------------------

    async def save(self, job: Job) -> None:
        """Record the job and those of its files that have changed."""
        frame = self.frames.get(job.job)
        if frame is None or self._manager.jobs.get(job.job) is not job:
            return
        frame.modified_at = time.time()
        if job.state is JobState.TRANSFERRED and frame.completed_at is None:
            frame.completed_at = frame.modified_at
        records: list[JobRecord | FileRecord] = [self._job_record(job, frame)]
        for file in job.files:
            record = self._file_record(job, file)
            if self._saved.get(file.file) != record.document:
                self._saved[file.file] = record.document
                records.append(record)
        await self._context.parts.journal.save(*records)

    async def save_file(self, file_id: FileId) -> None:
        """Record one file's row. With a temporary file that the journal does not know, what it had recorded of
        another one is forgotten in the same step."""
        job = self._manager.owner(file_id)
        if job is None or job.state in FINAL:
            return
        for file in job.files:
            if file.file == file_id:
                record = self._file_record(job, file)
                self._saved[file_id] = record.document
                if self._recorded.get(file_id) == record.inode:
                    await self._context.parts.journal.save(record)
                else:
                    await self._context.parts.journal.restart_file(record)
                    self._recorded[file_id] = record.inode

    def _job_record(self, job: Job, frame: JobFrame) -> JobRecord:
        return JobRecord(
            id=job.job,
            name=frame.new.name,
            state=job.state.value,
            priority=frame.new.priority.value,
            created_at=frame.created_at,
            modified_at=frame.modified_at,
            completed_at=frame.completed_at,
            settings=msgspec.json.encode(msgspec.structs.replace(frame.new, files=[])),
            error=encode_error(job.error),
            intent=job.intent.value,
        )

    def _file_record(self, job: Job, file: JobFile) -> FileRecord:
        work = self.works[file.file]
        directory, base = destination_of(work.new)
        part = work.part
        validation = validation_of(file.transfer.decision).value
        return FileRecord(
            job_id=job.job,
            index=file.index,
            url=work.new.url,
            directory=str(directory),
            base=base,
            state=file.transfer.phase.value,
            temp_name=None if part is None else part.name,
            device=None if part is None else part.device,
            inode=None if part is None else part.inode,
            length=file.transfer.length,
            document=encode_file(
                work.new, file.transfer.snapshot(), completed=file.completed, validation=validation
            ),
        )

    async def publish(self, job: Job, files: tuple[FileId, ...]) -> dict[FileId, JobError]:
        """Bring accepted files to their destinations. Returns what could not be done, by file."""
        failures: dict[FileId, JobError] = {}
        for file_id in files:
            work = self.works[file_id]
            error = await self._publish_one(work)
            if error is not None:
                failures[file_id] = JobError(
                    code=error.code, message=str(error), context="local file", file=work.key.index
                )
        return failures

    async def _publish_one(self, work: FileWork) -> DestinationError | None:
        """The cache must have its copies before the user may touch the file."""
        await work.settled()
        if work.part is None:
            return DestinationError(
                f"the temporary file of {work.new.path} is lost: resume the job", code="IO_ERROR"
            )
        _, base = destination_of(work.new)
        publication = Publication(
            base=base,
            mode=mode_by_umask(),
            modified_at=work.facts.modified_at,
            overwrite=Overwrite(work.new.overwrite.value),
        )
        try:
            await self._context.parts.workers.run(work.part.publish, publication)
        except DestinationError as error:
            return error
        except (PartFileLost, OSError) as error:
            return DestinationError(str(error), code="IO_ERROR")
        return None

    async def remove(self, job: Job) -> None:
        """The job has ended: temporary files that were not published go, and so do its rows."""
        for file in job.files:
            work = self.works.pop(file.file, None)
            if work is not None:
                if not file.completed:
                    await work.discard()
                await work.close()
            self._saved.pop(file.file, None)
            self._recorded.pop(file.file, None)
        await self._context.parts.journal.delete_job(job.job)
        self.frames.pop(job.job, None)

    # --- for users -------------------------------------------------------------------------------------------

    def document(self, job: Job, now: float) -> JobDocument:
        """The job as it is; `now` is the engine's clock."""
        return job_document(job, self.frames[job.job], self.file_document, now)

    def file_document(self, file: JobFile) -> FileDocument:
        """One file as it is."""
        work = self.works[file.file]
        return file_document(file, work.new, None if work.part is None else work.part.path)

    # --- the log ---------------------------------------------------------------------------------------------

    def log(self, file: FileId, text: str) -> None:
        """A line for the job of a file."""
        job_id = JobId(file.partition("/")[0])
        frame = self.frames.get(job_id)
        if frame is not None:
            frame.log.append(text)
            self._context.spawn(self._context.parts.journal.append_event(job_id, time.time(), text), "log")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _state_of(record: JobRecord, job: Job) -> JobState:
    """Where a stored job goes on: what was done but is not there any more has to run again."""
    state = JobState(record.state)
    if state is JobState.TRANSFERRED and not job.all_done:
        return JobState.QUEUED
    if record.intent == "completing" and state not in (JobState.TRANSFERRED, JobState.ERROR):
        return JobState.TRANSFERRED
    return state
