"""What users ask about jobs: documents in, documents out, the core and its interpreter in between.

Every request is checked before it has an effect, and answered once its effect is durable. Never knows: REST,
sockets, SQLite, which chunk comes from where. Sources: bits-reference 1.4, 1.6 to 1.11, 3.2.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from agent.announcer import Mark
from agent.control_near import NearControl
from agent.core import events as ev
from agent.core.account import account_of
from agent.core.events import Decision
from agent.core.job import FINAL, IllegalTransitionError, JobState
from agent.core.jobs import Intent, Job, JobFile
from agent.core.manager import EmptyJobError, EndingJobError
from agent.core.notices import DeliveryId
from agent.core.queue import JobId
from agent.core.sources import FileId
from agent.destination import check_destination
from agent.engine import Engine
from agent.errors import DestinationError, LimitError, NotFoundError, StateError, UsageError
from agent.explanations import explanation
from agent.journal import RequestKey
from agent.schema import (
    ByteSpan,
    CredentialChange,
    CredentialScheme,
    CredentialTarget,
    DeliveryDocument,
    Done,
    EventDocument,
    Explanation,
    FileChange,
    FilledRanges,
    JobChange,
    JobDocument,
    JobList,
    JobQuery,
    NewFile,
    NewJob,
    Position,
    PrefixChange,
    PrefixReplaced,
    RangesWanted,
)
from agent.totals import Totals
from agent.verdicts import check_validators
from agent.views import JobFrame
from agent.wishes import changed, check_counts, check_job, check_url, options_of, settings_of, spec_of
from validation.ranges import ByteRange

CALM_S = 0.15
"""Progress alone ends a long poll at most this often."""
ALL_JOBS = JobQuery()
LOOK_AGAIN_S = 60.0
"""Who waits for a verdict looks again at least so often."""


class Control(NearControl):
    """The requests of users. On the engine's loop."""

    def __init__(self, engine: Engine, totals: Totals) -> None:
        super().__init__(engine, totals)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One for each key of a request that is being carried out."""

    # --- new jobs and files ----------------------------------------------------------------------------------

    async def create_job(self, new: NewJob, key: str | None = None) -> tuple[JobDocument, bool]:
        """A new job, SUSPENDED, with its files; False with the job that this key made before.

        Raises UsageError, LimitError, DestinationError; then nothing is created.
        """
        if key is None:
            return await self._create(new, None), True
        async with self._turns.setdefault(key, asyncio.Lock()):
            request = self._request(key, new)
            known = await self._known(request)
            if known is not None:
                return known, False
            return await self._create(new, request), True

    async def _create(self, new: NewJob, request: RequestKey | None) -> JobDocument:
        config = self._parts.config
        check_job(new, config)
        await self._check_files(new.files, 0, new)
        self._check_room()
        job_id = JobId(secrets.token_hex(16)) if request is None else JobId(request.job_id)
        now = time.time()
        bare = msgspec.structs.replace(new, files=[])
        self._keeper.frames[job_id] = JobFrame(new=bare, created_at=now, modified_at=now)
        job = self._manager.create(job_id, settings_of(new, config), self._loop.time())
        for file in new.files:
            self._keeper.add_file(job, file, self._loop.time())
        await self._engine.answered(job, request)
        return self.job(job.job)

    async def add_files(self, job_id: str, files: list[NewFile]) -> JobDocument:
        """More files at the end of a job, all or none. Raises NotFoundError, UsageError, LimitError,
        DestinationError, StateError."""
        job = self._job(job_id)
        await self._check_files(files, len(job.files), self._keeper.frames[job.job].new)
        check_counts(files, len(job.files), self._parts.config)  # others may have added some meanwhile
        with _refusals():
            for file in files:
                self._keeper.add_file(job, file, self._loop.time())
        return await self._answer(job)

    # --- changes ---------------------------------------------------------------------------------------------

    async def change_job(self, job_id: str, change: JobChange) -> JobDocument:
        """Other properties. They hold at once. Raises NotFoundError, UsageError, LimitError, StateError."""
        job = self._job(job_id)
        frame = self._keeper.frames[job.job]
        new = changed(frame.new, change)
        check_job(new, self._parts.config, frame.new)
        begun = any(file.transfer.facts is not None for file in job.files)
        if new.http.method != frame.new.http.method and (begun or job.state is not JobState.SUSPENDED):
            raise StateError("the method of a job can only be changed before the job is resumed for the first time")
        with _refusals():
            self._manager.change(job, settings_of(new, self._parts.config), self._loop.time())
            frame.new = new
            self._keeper.respec(job, self._loop.time())
        return await self._answer(job)

    async def change_file(self, job_id: str, index: int, change: FileChange) -> JobDocument:
        """BITS' SetRemoteName. A file that is done stays as it is. Raises NotFoundError, UsageError, StateError."""
        job, file = self._file(job_id, index)
        check_url(change.url)
        if file.publishable or file.completed:
            raise StateError(f"file {index} is there already: its URL means nothing any more")
        self._rename(job, {file: change.url})
        return await self._answer(job)

    async def replace_prefix(self, job_id: str, change: PrefixChange) -> PrefixReplaced:
        """BITS' ReplaceRemotePrefix: files that are done are left alone. Raises NotFoundError, UsageError,
        StateError; then nothing is changed."""
        job = self._job(job_id)
        if not change.old:
            raise UsageError("the prefix to be replaced is empty")
        urls = {}
        for file in job.files:
            url = self._keeper.works[file.file].new.url
            if url.startswith(change.old) and not file.publishable:
                urls[file] = change.new + url[len(change.old) :]
        for url in urls.values():
            check_url(url)
        if urls:
            self._rename(job, urls)
        return PrefixReplaced(files_changed=len(urls), job=await self._answer(job))

    def _rename(self, job: Job, urls: dict[JobFile, str]) -> None:
        with _refusals():
            before = {file: self._keeper.works[file.file].new for file in urls}
            for file, url in urls.items():
                self._keeper.works[file.file].new = msgspec.structs.replace(before[file], url=url)
            try:
                self._keeper.respec(job, self._loop.time())
            except (IllegalTransitionError, EndingJobError):
                for file, new in before.items():
                    self._keeper.works[file.file].new = new
                raise

    async def set_credentials(self, job_id: str, change: CredentialChange) -> JobDocument:
        """Credentials for one target and scheme. Raises NotFoundError, UsageError, StateError."""
        job = self._job(job_id)
        frame = self._keeper.frames[job.job]
        kept = [item for item in frame.credentials if (item.target, item.scheme) != (change.target, change.scheme)]
        options_of(frame.new.http, _SOME_FILE, [change])
        return await self._credentials(job, [*kept, change])

    async def remove_credentials(
        self, job_id: str, target: CredentialTarget, scheme: CredentialScheme
    ) -> JobDocument:
        """Forget credentials. Raises NotFoundError (also when there are none), StateError."""
        job = self._job(job_id)
        frame = self._keeper.frames[job.job]
        kept = [item for item in frame.credentials if (item.target, item.scheme) != (target, scheme)]
        if len(kept) == len(frame.credentials):
            raise NotFoundError(f"job {job_id} has no {scheme} credentials for the {target}")
        return await self._credentials(job, kept)

    async def _credentials(self, job: Job, credentials: list[CredentialChange]) -> JobDocument:
        with _refusals():
            self._manager.change(job, job.settings, self._loop.time())
        self._keeper.frames[job.job].credentials = credentials
        self._keeper.respec(job, self._loop.time())
        return await self._answer(job)

    # --- life ------------------------------------------------------------------------------------------------

    async def resume(self, job_id: str) -> JobDocument:
        """Queue the job. Raises NotFoundError, StateError."""
        job = self._job(job_id)
        with _refusals():
            self._manager.resume(job, self._loop.time())
        return await self._answer(job)

    async def suspend(self, job_id: str) -> JobDocument:
        """Stop the job and keep everything. Raises NotFoundError, StateError."""
        job = self._job(job_id)
        with _refusals():
            self._manager.suspend(job, self._loop.time())
        return await self._answer(job)

    async def cancel(self, job_id: str) -> JobDocument:
        """Stop the job and remove its temporary files. Repeating it is safe. Raises NotFoundError, StateError."""
        if self._ended(job_id, JobState.CANCELLED):
            return self.job(job_id)
        job = self._job(job_id)
        if job.state is not JobState.CANCELLED:
            with _refusals():
                self._manager.cancel(job, self._loop.time())
        return await self._answer(job)

    async def complete(self, job_id: str) -> JobDocument:
        """Bring the files that are there to their destinations; the others are given up (`partial`).

        Repeating it is safe, also while it is being done (reliability 2.1, D2).

        Raises NotFoundError, StateError, DestinationError (the job then stays as it was, with a result for each
        file; mend it, then complete again).
        """
        if self._ended(job_id, JobState.ACKNOWLEDGED):
            return self.job(job_id)
        job = self._job(job_id)
        if job.state is not JobState.ACKNOWLEDGED and job.intent not in (Intent.AWAITING, Intent.COMPLETING):
            with _refusals():
                self._manager.complete(job, self._loop.time())
        document = await self._answer(job)
        while job.intent is Intent.AWAITING:  # validators are at work, each with a limit of its own
            await self._engine.next_change(self._loop.time() + LOOK_AGAIN_S)
            document = await self._answer(job)
        if job.state not in FINAL and job.error is not None:
            raise DestinationError(job.error.message, code=job.error.code, context=job.error.context)
        if job.state not in FINAL:
            raise StateError(f"the job was not completed: it is {job.state}, and not all of it was accepted")
        return document

    async def set_validation(self, job_id: str, index: int, valid: bool) -> JobDocument:
        """BITS' SetValidationState. Raises NotFoundError, StateError (a byte is still missing: BITS' E_PENDING)."""
        job, file = self._file(job_id, index)
        if file.completed or not file.publishable:
            state = self._keeper.file_document(file).state
            raise StateError(f"file {index} is {state}: its validation state can be set once all of it is there")
        decision = Decision.VALID if valid else Decision.INVALID
        with _refusals():
            self._manager.decide(file.file, decision, self._loop.time())
        return await self._answer(job)

    # --- on demand -------------------------------------------------------------------------------------------

    async def want_ranges(self, job_id: str, index: int, wanted: RangesWanted) -> JobDocument:
        """BITS' RequestFileRanges, for on-demand jobs.

        Raises NotFoundError, UsageError (INVALID_RANGE), StateError.
        """
        job, file = self._file(job_id, index)
        if not self._keeper.frames[job.job].new.on_demand:
            raise StateError("only an on-demand job takes ranges while it lives (create it with on_demand)")
        if not wanted.ranges:
            raise UsageError("no range is named", code="INVALID_RANGE")
        items = tuple(_span(item.offset, item.length, file.transfer.length) for item in wanted.ranges)
        with _refusals():
            self._manager.want(file.file, items, self._loop.time())
        return await self._answer(job)

    def filled_ranges(self, job_id: str, index: int) -> FilledRanges:
        """BITS' GetFilledFileRanges. Raises NotFoundError."""
        _, file = self._file(job_id, index)
        spans = [ByteSpan(offset=item.start, length=item.length) for item in file.transfer.filled]
        return FilledRanges(ranges=spans)

    async def set_position(self, job_id: str, index: int, position: Position) -> JobDocument:
        """BITS' UpdateDownloadPosition. Raises NotFoundError, UsageError (INVALID_RANGE), StateError."""
        job, file = self._file(job_id, index)
        length = file.transfer.length
        if length is not None and position.offset >= max(1, length):
            raise UsageError(f"offset {position.offset} is beyond the end ({length} bytes)", code="INVALID_RANGE")
        with _refusals():
            self._manager.change(job, job.settings, self._loop.time())
            self._manager.handle(ev.PositionMoved(file=file.file, offset=position.offset), self._loop.time())
        return await self._answer(job)

    # --- reading ---------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> JobDocument:
        """One job. Raises NotFoundError."""
        ended = self._engine.ended.get(job_id)
        return self._keeper.document(self._job(job_id), self._loop.time()) if ended is None else ended.document

    def explain(self, job_id: str) -> Explanation:
        """Where its bytes came from, and why not from nearer. Raises NotFoundError."""
        document, network, ended = self.job(job_id), self._parts.network, self._engine.ended.get(job_id)
        names = {} if network is None else {str(status.peer_id): status.name for status in network.peers()}
        if ended is not None:
            return explanation(document, ended.accounts, names)
        return explanation(document, [account_of(file.transfer) for file in self._job(job_id).files], names)

    def jobs(self, query: JobQuery = ALL_JOBS) -> JobList:
        """Jobs that have not ended, oldest first. Raises NotFoundError when `after` names no job."""
        living = [job for job in self._manager.jobs.values() if job.job not in self._engine.ended]
        start = 0
        if query.after is not None:
            places = {job.job: place for place, job in enumerate(living)}
            if JobId(query.after) not in places:
                raise NotFoundError(f"no job {query.after}: begin with the first page again")
            start = places[JobId(query.after)] + 1
        page = list(islice(living, start, start + query.limit))
        now = self._loop.time()
        return JobList(
            jobs=[self._keeper.document(job, now, brief=query.brief) for job in page],
            total=len(living),
            next=page[-1].job if page and start + len(page) < len(living) else None,
        )

    async def wait_change(self, job_id: str, after: int, timeout_s: float) -> JobDocument:
        """The job once its sequence is beyond `after`, or as it is when the time is over. Raises NotFoundError."""
        deadline = self._loop.time() + timeout_s
        state = self.job(job_id).state
        while self.job(job_id).sequence <= after and await self._engine.next_change(deadline):
            pass
        calm = min(deadline, self._loop.time() + CALM_S)
        while self.job(job_id).state == state and await self._engine.next_change(calm):
            pass
        return self.job(job_id)

    # --- listening -------------------------------------------------------------------------------------------

    def events(self, after: int | None, job_id: str | None) -> AsyncIterator[EventDocument | Mark]:
        """Every event with a number above `after` (None: from now on), and then each as it happens."""
        return self._engine.announcer.events(after, job_id)

    def deliveries(self, job_id: str | None) -> AsyncIterator[DeliveryDocument]:
        """Be the callback of a job, or of every job, until the iteration is left. Raises NotFoundError."""
        return self._engine.deliveries(None if job_id is None else self._job(job_id).job)

    async def answer_delivery(self, delivery: int, ok: bool) -> Done:
        """A callback ended. Raises NotFoundError for a delivery that is over."""
        if not self._engine.answer(DeliveryId(delivery), ok):
            raise NotFoundError(f"no delivery {delivery} is open", code="DELIVERY_NOT_FOUND")
        return Done(changed=True, count=1)

    # --- inside ----------------------------------------------------------------------------------------------

    async def _answer(self, job: Job) -> JobDocument:
        await self._engine.answered(job)
        return self.job(job.job)

    def _ended(self, job_id: str, state: JobState) -> bool:
        """The job is gone, and ended so."""
        ended = self._engine.ended.get(job_id)
        return ended is not None and ended.document.state == state.value

    def _job(self, job_id: str) -> Job:
        job = self._manager.jobs.get(JobId(job_id))
        if job is None or job_id in self._engine.ended:
            raise NotFoundError(f"no job {job_id}")
        return job

    def _file(self, job_id: str, index: int) -> tuple[Job, JobFile]:
        job = self._job(job_id)
        if not 0 <= index < len(job.files):
            raise NotFoundError(f"job {job_id} has no file {index}")
        return job, job.files[index]

    @staticmethod
    def _request(key: str, new: NewJob) -> RequestKey:
        digest = hashlib.sha256(msgspec.json.encode(new, order="deterministic")).digest()
        return RequestKey(key=key, digest=digest, job_id=secrets.token_hex(16), at=time.time())

    async def _known(self, request: RequestKey) -> JobDocument | None:
        """The job that this key made before. Raises LimitError when it made another one, NotFoundError when that
        one is gone."""
        found = await self._parts.journal.find_request(request.key)
        if found is None:
            return None
        if found.digest != request.digest:
            raise LimitError(
                "this idempotency key was used for another request: take a new one", code="IDEMPOTENCY_CONFLICT"
            )
        return self.job(found.job_id)

    def _check_room(self) -> None:
        config, count = self._parts.config, len(self._manager.jobs)
        for name, code in (
            ("max_jobs_per_user", "TOO_MANY_JOBS_PER_USER"),
            ("max_jobs_per_machine", "TOO_MANY_JOBS"),
        ):
            limit: int | None = getattr(config, name)
            if limit is not None and count >= limit:
                raise LimitError(
                    f"there are {count} jobs, at most {limit} are allowed ({name}): complete or cancel some, "
                    "or change that setting",
                    code=code,
                )

    async def _check_files(self, files: Iterable[NewFile], already: int, job: NewJob) -> None:
        files = list(files)
        check_counts(files, already, self._parts.config)
        for new in files:
            check_url(new.url)
            spec_of(FileId("check"), (new, job), self._parts.config, self._parts.switches)
            options_of(job.http, new, ())
            check_validators(new)
            if new.ranges and job.on_demand:
                raise UsageError("an on-demand job takes no ranges when a file is added: ask for them later")
        await self._parts.workers.run(_check_destinations, [Path(new.path) for new in files])


_SOME_FILE = NewFile(url="http://check.example/", path="/")


def _check_destinations(paths: list[Path]) -> None:
    for path in paths:
        check_destination(path)


def _span(offset: int, length: int | None, total: int | None) -> ByteRange:
    """A range of the file. `length` None needs to know where it ends. Raises UsageError."""
    if length is None:
        length = (total if total is not None else 1 << 62) - offset
    if length <= 0 or (total is not None and offset + length > total):
        end = "unknown" if total is None else total
        raise UsageError(f"range {offset}:{length} is not inside the file (length {end})", code="INVALID_RANGE")
    return ByteRange(offset, offset + length)


class _refusals:  # noqa: N801 - reads as a phrase
    """The core's refusals as errors for users."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IllegalTransitionError | EmptyJobError | EndingJobError):
            raise StateError(str(error)) from error
