"""Jobs on the disk: rows in the journal, and all of it again after a restart. Carries out `SaveJob`; the files
themselves are `finishing.py`. Never decides what a job becomes.

A job's row, the rows of its files, what has happened to it, and what its listeners are still owed are one
transaction: nothing is announced that a crash could undo, and nothing that happened is lost.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence

import msgspec

from agent.context import Context
from agent.core.job import FINAL, JobState
from agent.core.jobs import Intent, Job, JobFile, Kept, News, NewTransfer
from agent.core.manager import JobManager
from agent.core.notices import PendingNotices
from agent.core.patience import Elapsed
from agent.core.queue import JobId
from agent.core.sources import FileId
from agent.core.spec import Restored, TransferSpec
from agent.fetches import OriginWishes
from agent.filework import FileWork
from agent.journal import (
    Content,
    FeedItem,
    FileKey,
    FileRecord,
    JobRecord,
    NewsItem,
    RequestKey,
    StoredJob,
    decode_ranges,
)
from agent.origin_options import OriginOptions
from agent.records import (
    StoredJobDocument,
    decode_error,
    decode_file,
    decode_job,
    destination_of,
    encode_error,
    encode_file,
    encode_job,
)
from agent.schema import FileDocument, HttpSettings, JobDocument, NewFile, NewJob
from agent.survey import Seen
from agent.views import JobFrame, event_document, file_document, job_document, validation_of
from agent.wishes import options_of, settings_of, spec_of

LOG_LINES = 50
_NOTHING_TO_TELL = PendingNotices()
_USUAL_HTTP, _USUAL = HttpSettings(), OriginOptions()


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
        self._urls: dict[str, str] = {}
        """Content ids whose URL is recorded."""

    # --- into memory -----------------------------------------------------------------------------------------

    def add_file(self, job: Job, new: NewFile, now: float) -> JobFile:
        """Put a new file into the job and give it a worker. Raises UsageError for a bad digest."""
        file = self._manager.add(job, self._transfer(job, new, None), now)
        self._give_work(job, file, new)
        return file

    def _transfer(self, job: Job, new: NewFile, restored: Restored | None) -> NewTransfer:
        file_id = FileId(f"{job.job}/{len(job.files)}")
        return NewTransfer(spec=self._spec(job, file_id, new), restored=restored)

    def _spec(self, job: Job, file_id: FileId, new: NewFile) -> TransferSpec:
        parts = self._context.parts
        return spec_of(file_id, (new, self.frames[job.job].new), parts.config, parts.switches)

    def _give_work(self, job: Job, file: JobFile, new: NewFile) -> FileWork:
        key = FileKey(job_id=job.job, index=file.index)
        work = self.works[file.file] = FileWork(self._context, file.transfer, new, key)
        self.equip(job, work)
        return work

    def equip(self, job: Job, work: FileWork) -> None:
        """Tell a worker how its origin is to be asked, and how fast."""
        frame = self.frames[job.job]
        rank, rate = job.settings.rank, frame.new.rate_limit
        work.equip(
            OriginWishes(
                options=self._options(frame, work.new),
                limiter=self._context.parts.throttles.for_job(rank, rate),
                basis=(rank, rate),
            )
        )

    @staticmethod
    def _options(frame: JobFrame, new: NewFile) -> OriginOptions:
        """The usual ones are one value, for ten thousand files too."""
        usual = not new.headers and not frame.credentials and frame.new.http == _USUAL_HTTP
        return _USUAL if usual else options_of(frame.new.http, new, frame.credentials)

    def respec(self, job: Job, now: float) -> None:
        """Tell the core what the job's properties now mean for each of its files, where that is something new."""
        specs = {}
        for file in job.files:
            work = self.works[file.file]
            self.equip(job, work)
            spec = self._spec(job, file.file, work.new)
            if spec != file.transfer.spec:
                specs[file.file] = spec
        if specs:
            self._manager.respecify(job, specs, now)

    def restore(self, stored: StoredJob, seen: Mapping[FileKey, Seen], log: Sequence[str], now: float) -> None:
        """Put a job that an earlier process left back in its place, and finish what it was about to finish.

        `seen`: what `survey` found of its files. Raises msgspec.MsgspecError, ValueError, KeyError or AgentError
        for rows that we never wrote.
        """
        record = stored.job
        new = msgspec.json.decode(record.settings, type=NewJob)
        document = decode_job(record.document)
        kept = Kept(
            state=JobState(record.state),
            error_count=document.error_count,
            elapsed=Elapsed(trouble_s=document.trouble_s, active_s=document.active_s, idle_s=document.idle_s),
            partial=document.partial,
        )
        settings = settings_of(new, self._context.parts.config)
        job = self._manager.restore(JobId(record.id), settings, kept, now)
        frame = self.frames[job.job] = JobFrame(
            new=new,
            created_at=record.created_at,
            modified_at=record.modified_at,
            completed_at=record.completed_at,
            credentials=document.credentials,
            recorded=JobState(record.state),
        )
        frame.log.extend(log)
        for row in stored.files:
            self._restore_file(job, row, seen[FileKey(job_id=row.job_id, index=row.index)])
        if document.notices is not None and document.notices != _NOTHING_TO_TELL:
            self._manager.notices.restore(job.job, document.notices, now)
        self._manager.restored(job, _state_of(record, job), decode_error(record.error), now)
        if job.state in FINAL:
            self._manager.end_again(job)
        elif record.intent == Intent.CANCELLING:
            self._manager.cancel(job, now)
        elif record.intent == Intent.COMPLETING:
            self._manager.complete(job, now)

    def _restore_file(self, job: Job, row: FileRecord, seen: Seen) -> None:
        stored = decode_file(row.document)
        completed = stored.completed or (seen.published and stored.snapshot.finished)
        restored = None
        if completed or seen.part is not None:
            restored = Restored(snapshot=stored.snapshot, held=tuple(decode_ranges(row.held)))
        file = self._manager.put_back(job, self._transfer(job, stored.new, restored), completed=completed)
        work = self._give_work(job, file, stored.new)
        if seen.part is not None:
            work.adopt(seen.part)
            self._recorded[file.file] = row.inode
        if seen.lost is not None and not completed:
            self.log(file.file, f"the temporary file is lost, starting again: {seen.lost}")

    # --- onto the disk ---------------------------------------------------------------------------------------

    async def save(self, job: Job, now: float, request: RequestKey | None = None) -> list[FeedItem]:
        """Record the job, those of its files that have changed, and its news, which are returned with their
        numbers. `now` is the engine's clock. Raises DatabaseError; the news are then kept for the next time."""
        frame = self.frames.get(job.job)
        if frame is None or self._manager.jobs.get(job.job) is not job:
            return []
        frame.modified_at = time.time()
        state = job.state
        if state is JobState.TRANSFERRED and frame.completed_at is None:
            frame.completed_at = frame.modified_at
        records: list[JobRecord | FileRecord] = [self._job_record(job, frame, now)]
        changed: dict[FileId, bytes] = {}
        for file in job.files:
            record = self._file_record(job, file)
            if self._saved.get(file.file) != record.document:
                changed[file.file] = record.document
                records.append(record)
        news = job.take_news()
        try:
            items = await self._context.parts.journal.save(
                *records, news=self._news_items(job, news, frame), request=request
            )
        except BaseException:
            job.news[:0] = news
            raise
        self._saved.update(changed)
        if state is JobState.TRANSFERRED and frame.recorded is not state:
            job.version += 1  # shown from now on (`shown_state`): whoever waits for a change has to learn of it
        frame.recorded = state
        await self._name_contents(job)
        return items

    def _news_items(self, job: Job, news: Sequence[News], frame: JobFrame) -> list[NewsItem]:
        at = frame.modified_at
        return [
            NewsItem(
                job_id=job.job,
                kind=item.kind.value,
                at=at,
                data=msgspec.json.encode(event_document(job, frame.new.name, item, at)),
            )
            for item in news
        ]

    async def _name_contents(self, job: Job) -> None:
        """Keep which URL a content has, for whoever looks into the peer cache later."""
        found = []
        for file in job.files:
            transfer = file.transfer
            for content_id in transfer.content_ids if transfer.chunks is not None else ():
                if content_id not in self._urls:
                    self._urls[content_id] = bare_url(self.works[file.file].new.url)
                    found.append(
                        Content(
                            content_id=content_id,
                            url=self._urls[content_id],
                            length=transfer.length or 0,
                            at=time.time(),
                        )
                    )
        if found:
            await self._context.parts.journal.note_contents(found)

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

    def _job_record(self, job: Job, frame: JobFrame, now: float) -> JobRecord:
        elapsed = job.patience.elapsed(now)
        document = StoredJobDocument(
            error_count=job.error_count,
            trouble_s=elapsed.trouble_s,
            active_s=elapsed.active_s,
            idle_s=elapsed.idle_s,
            partial=job.partial,
            credentials=frame.credentials,
            notices=self._manager.notices.pending(job.job),
        )
        return JobRecord(
            id=job.job,
            name=frame.new.name,
            state=job.state.value,
            priority=frame.new.priority.value,
            created_at=frame.created_at,
            modified_at=frame.modified_at,
            completed_at=frame.completed_at,
            settings=msgspec.json.encode(frame.new),
            document=encode_job(document),
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

    def url_of(self, *content_ids: str) -> str | None:
        """Where a content came from; None when that is not known."""
        return next((self._urls[each] for each in content_ids if each in self._urls), None)

    async def load_urls(self) -> None:
        """Which URL each content had, as the journal knows it."""
        self._urls = {item.content_id: item.url for item in (await self._context.parts.journal.contents()).values()}

    async def forget_urls(self, kept: Container[str]) -> None:
        """Contents that are neither in the peer cache (`kept`) nor in any job are not remembered any more."""
        wanted = {
            name for job in self._manager.jobs.values() for file in job.files for name in file.transfer.content_ids
        }
        gone = [name for name in self._urls if name not in kept and name not in wanted]
        for name in gone:
            del self._urls[name]
        if gone:
            await self._context.parts.journal.forget_contents(gone)

    def drop(self, job: Job) -> list[tuple[JobFile, FileWork]]:
        """The job has ended: out of memory. Returns the workers of its files."""
        found = []
        for file in job.files:
            work = self.works.pop(file.file, None)
            if work is not None:
                found.append((file, work))
            self._saved.pop(file.file, None)
            self._recorded.pop(file.file, None)
        return found

    # --- for users -------------------------------------------------------------------------------------------

    def document(self, job: Job, now: float, *, brief: bool = False) -> JobDocument:
        """The job as it is; `now` is the engine's clock. `brief`: without its files and its log."""
        frame = self.frames[job.job]
        files = [] if brief else [self.file_document(file) for file in job.files]
        return job_document(job, frame, (files, [] if brief else list(frame.log)), now)

    def file_document(self, file: JobFile) -> FileDocument:
        """One file as it is."""
        work = self.works[file.file]
        return file_document(file, work.new, None if work.part is None else work.part.path)

    # --- the log ---------------------------------------------------------------------------------------------

    def log(self, file: FileId, text: str) -> None:
        """A line for the job of a file."""
        self.log_job(JobId(file.partition("/")[0]), text)

    def log_job(self, job_id: JobId, text: str) -> None:
        """A line for a job."""
        frame = self.frames.get(job_id)
        if frame is not None:
            frame.log.append(text)
            self._context.spawn(self._context.parts.journal.append_event(job_id, time.time(), text), "log")


def bare_url(url: str) -> str:
    """The URL without user information and fragment: what a content is named by."""
    scheme, separator, rest = url.partition("#")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme.lower()}{separator}{authority.rpartition('@')[2].lower()}{slash}{path}"


def _state_of(record: JobRecord, job: Job) -> JobState:
    """Where a stored job goes on: what was done but is not there any more has to run again."""
    state = JobState(record.state)
    if state is JobState.TRANSFERRED and not job.all_done:
        return JobState.QUEUED
    return state
