"""The asyncio interpreter: feeds events to the core and carries out what it commands.

Only `_settle` touches the manager's output, and everything runs on one event loop, so there is no lock around the
core. Tasks do one piece of I/O and report one event. Never knows: which chunk is best, what a state may become,
JSON.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.context import Context, Parts
from agent.core import events as ev
from agent.core.job import FINAL, IllegalTransitionError
from agent.core.jobs import Intent, Job, JobFile
from agent.core.manager import (
    EmptyJobError,
    EndingJobError,
    JobManager,
    PublishFiles,
    RemoveFiles,
    SaveJob,
)
from agent.core.queue import JobId
from agent.core.sources import FileId, peer_source
from agent.core.tuning import Tuning
from agent.destination import check_destination
from agent.errors import DestinationError, NotFoundError, StateError, UsageError
from agent.filework import FileWork
from agent.keeper import Keeper
from agent.origin_http import version
from agent.records import spec_of
from agent.schema import (
    AgentDocument,
    CacheList,
    CacheRecordDocument,
    Cleared,
    FileDocument,
    JobDocument,
    NewFile,
    NewJob,
    PeerList,
)
from agent.verdicts import check_validators
from agent.views import JobFrame, file_document, job_document, peer_document, refusal_line
from peer.core.voucher import PeerId
from validation.content import ChunkLayout

log = logging.getLogger(__name__)

FINAL_KEPT_S = 600.0
"""How long a job's document can still be read after its end."""
CALM_S = 0.15
"""Progress alone wakes a long poll at most this often."""
STOP_S = 5.0
"""Longest wait at the end for saves that are under way."""


class Engine:
    """All jobs of one agent, alive. `start` once, `stop` once, in the task that owns `group`."""

    def __init__(self, parts: Parts, group: asyncio.TaskGroup, tuning: Tuning | None = None) -> None:
        self._parts = parts
        self._group = group
        self._loop = asyncio.get_running_loop()
        seed = random.Random(secrets.randbits(64))
        self._manager = JobManager(
            background_slots=parts.config.background_jobs, tuning=tuning or Tuning(), rng=seed
        )
        self._context = Context(
            parts=parts,
            post=self.post,
            spawn=self._spawn,
            log=self._log,
            save_file=self._save_file,
            work_of=self._work_of,
        )
        self._keeper = Keeper(self._context, self._manager)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes: dict[JobId, asyncio.Lock] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ended: dict[str, JobDocument] = {}
        self._stopping = False

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the journal and go on with everything that was not finished."""
        for stored in await self._parts.journal.load_all():
            await self._keeper.restore(stored, self._loop.time())
            self._settle()

    async def stop(self) -> None:
        """Stop every transfer, make safe what is held, end all tasks."""
        now = self._loop.time()
        for job in self._manager.jobs.values():
            for file in job.files:
                self._manager.handle(ev.Paused(file=file.file), now)
        self._settle()
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        saving = {task for task in self._tasks if task.get_name().startswith(("save", "job", "publish"))}
        if saving:
            await asyncio.wait(saving, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        for work in self._keeper.works.values():
            await work.close()

    def post(self, event: ev.FileEvent) -> None:
        """One event for the core. On the event loop only."""
        if not self._stopping:
            self._manager.handle(event, self._loop.time())
            self._settle()

    def peer_up(self) -> None:
        """Somebody new is there: everything that looks for sources may ask."""
        for work in self._keeper.works.values():
            if work.watch is not None:
                work.watch.peer_up()

    def peer_down(self, peer: PeerId) -> None:
        """A peer left, or was banned."""
        for work in list(self._keeper.works.values()):
            if work.watch is not None:
                work.watch.peer_down(peer)
            self.post(ev.SourceLost(file=work.file, source=peer_source(peer)))

    # --- what users ask for ----------------------------------------------------------------------------------

    async def create_job(self, new: NewJob) -> JobDocument:
        """A new job, SUSPENDED, with its files. Raises UsageError, DestinationError; then nothing is created."""
        for file in new.files:
            await self._check_file(file)
        job_id = JobId(secrets.token_hex(16))
        job = self._manager.create(job_id, self._keeper.settings_of(new))
        now = time.time()
        self._keeper.frames[job_id] = JobFrame(new=new, created_at=now, modified_at=now)
        for file in new.files:
            self._keeper.add_file(job, file, None, None)
        return await self._answer(job)

    async def add_files(self, job_id: str, files: list[NewFile]) -> JobDocument:
        """More files at the end of a job. Raises NotFoundError, UsageError, DestinationError, StateError."""
        job = self._job(job_id)
        for file in files:
            await self._check_file(file)
        with _refusals():
            for file in files:
                self._keeper.add_file(job, file, None, None)
        return await self._answer(job)

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
        """Stop the job and remove its temporary files. Raises NotFoundError, StateError."""
        job = self._job(job_id)
        with _refusals():
            self._manager.cancel(job, self._loop.time())
        return await self._answer(job)

    async def complete(self, job_id: str) -> JobDocument:
        """Bring the accepted files to their destinations.

        Raises NotFoundError, StateError, DestinationError (the job then stays TRANSFERRED; mend it, then complete
        again).
        """
        job = self._job(job_id)
        with _refusals():
            self._manager.complete(job, self._loop.time())
        document = await self._answer(job)
        if job.state not in FINAL and job.error is not None:
            raise DestinationError(job.error.message, code=job.error.code, context=job.error.context)
        return document

    async def set_validation(self, job_id: str, index: int, valid: bool) -> JobDocument:
        """BITS' SetValidationState. Raises NotFoundError, StateError (a byte is still missing: BITS' E_PENDING)."""
        job = self._job(job_id)
        if not 0 <= index < len(job.files):
            raise NotFoundError(f"job {job_id} has no file {index}")
        file = job.files[index]
        document = self._file_document(file)
        if file.completed or document.state.value not in ("deciding", "transferred"):
            raise StateError(
                f"file {index} is {document.state}: its validation state can be set once all of it is there"
            )
        decision = ev.Decision.VALID if valid else ev.Decision.INVALID
        self._manager.decide(file.file, decision, self._loop.time())
        return await self._answer(job)

    def job(self, job_id: str) -> JobDocument:
        """One job. Raises NotFoundError."""
        if job_id in self._ended:
            return self._ended[job_id]
        return self._document(self._job(job_id))

    def jobs(self) -> list[JobDocument]:
        """Every job that has not ended, oldest first."""
        return [self._document(job) for job in self._manager.jobs.values() if job.job in self._keeper.frames]

    async def wait_change(self, job_id: str, after: int, timeout_s: float) -> JobDocument:
        """The job once its sequence is beyond `after`, or as it is when the time is over. Raises NotFoundError."""
        deadline = self._loop.time() + timeout_s
        state = self.job(job_id).state
        while self.job(job_id).sequence <= after and await self._next_change(deadline):
            pass
        calm = min(deadline, self._loop.time() + CALM_S)
        while self.job(job_id).state == state and await self._next_change(calm):
            pass
        return self.job(job_id)

    async def _next_change(self, deadline: float) -> bool:
        """Wait for any change of any job; False when the time is over."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    # --- the rest of the agent -------------------------------------------------------------------------------

    def peers(self) -> PeerList:
        """What is known of the group."""
        network = self._parts.network
        if network is None:
            problem = "this agent has no group: `nearfetch group create`, or `group join KEY`"
            return PeerList(peers=[], refused=[], problems=[problem])
        return PeerList(
            peers=[peer_document(status, time.time()) for status in network.peers()],
            refused=[refusal_line(refusal) for refusal in network.refusals()],
            problems=list(network.problems),
        )

    def cache_list(self) -> CacheList:
        """The peer cache."""
        records = [
            CacheRecordDocument(
                id=record.content_id,
                length=record.length,
                chunks_held=record.chunks_held,
                chunks_total=ChunkLayout.for_length(record.length).count,
                bytes=record.bytes_held,
                created_at=record.created_at,
                last_access_at=record.last_access_at,
            )
            for record in self._parts.cache.records()
        ]
        return CacheList(
            records=records,
            bytes=sum(record.bytes for record in records),
            limit_bytes=self._parts.cache.limit_bytes,
            problems=list(self._parts.cache.problems),
        )

    async def clear_cache(self) -> Cleared:
        """Drop every record."""
        return Cleared(records=await self._parts.cache.clear())

    def about(self) -> AgentDocument:
        """Who answers here."""
        parts, network = self._parts, self._parts.network
        return AgentDocument(
            version=version(),
            pid=os.getpid(),
            home=str(parts.config.home),
            peer_id=None if network is None else network.identity.peer_id,
            peer_name=None if network is None else network.identity.name,
            peer_port=None if network is None else network.port,
            group_tag=None if network is None else network.identity.group_tag,
            interfaces=list(parts.config.interface),
            jobs=len(self._manager.jobs),
            problems=[*parts.problems, *parts.journal.problems, *parts.cache.problems],
        )

    # --- inside ----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Carry out what the core has commanded, arm the timer, wake who waits."""
        for command in self._manager.take():
            match command:
                case SaveJob(job=job_id):
                    self._in_lane(job_id, self._save_job(job_id))
                case PublishFiles(job=job_id, files=files):
                    self._in_lane(job_id, self._publish(job_id, files))
                case RemoveFiles(job=job_id):
                    self._in_lane(job_id, self._remove(job_id))
                case _:
                    work = self._keeper.works.get(command.file)
                    if work is not None:
                        work.perform(command)
        self._arm()
        self._wake()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._manager.deadline()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        if not self._stopping:
            self._manager.tick(self._loop.time())
            self._settle()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = self._group.create_task(self._guarded(work, what), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """A task's top: a bug in one piece of work must not take the agent down."""
        try:
            await work
        except Exception:
            log.exception("%s failed unexpectedly", what)

    def _in_lane(self, job_id: JobId, work: Coroutine[Any, Any, None]) -> None:
        """One job's records and files: one after another, in the order the core asked for."""
        lane = self._lanes.setdefault(job_id, asyncio.Lock())

        async def in_turn() -> None:
            async with lane:
                await work

        self._spawn(in_turn(), f"job {job_id}")

    async def _drained(self, job: Job) -> None:
        """Everything the core asked for this job is on the disk."""
        lane = self._lanes.get(job.job)
        while lane is not None and (lane.locked() or job.intent is Intent.COMPLETING):
            async with lane:
                pass
            await asyncio.sleep(0)

    async def _answer(self, job: Job) -> JobDocument:
        """The user's request is answered once its effect is durable (reliability D2)."""
        self._settle()
        await asyncio.sleep(0)
        await self._drained(job)
        return self.job(job.job)

    async def _save_job(self, job_id: JobId) -> None:
        job = self._manager.jobs.get(job_id)
        if job is not None:
            await self._keeper.save(job)

    async def _publish(self, job_id: JobId, files: tuple[FileId, ...]) -> None:
        job = self._manager.jobs[job_id]
        failures = await self._keeper.publish(job, files)
        self._manager.published(job, failures, self._loop.time())
        self._settle()

    async def _remove(self, job_id: JobId) -> None:
        job = self._manager.jobs[job_id]
        document = self._document(job)
        await self._keeper.remove(job)
        self._manager.forget(job)
        self._ended[job_id] = document
        self._loop.call_later(FINAL_KEPT_S, self._ended.pop, job_id, None)
        self._lanes.pop(job_id, None)
        self._wake()

    async def _save_file(self, file: FileId) -> None:
        await self._keeper.save_file(file)

    def _log(self, file: FileId, text: str) -> None:
        self._keeper.log(file, text)

    def _work_of(self, file: FileId) -> FileWork | None:
        return self._keeper.works.get(file)

    def _job(self, job_id: str) -> Job:
        job = self._manager.jobs.get(JobId(job_id))
        if job is None or job.job not in self._keeper.frames:
            raise NotFoundError(f"no job {job_id}")
        return job

    def _document(self, job: Job) -> JobDocument:
        return job_document(job, self._keeper.frames[job.job], self._file_document, self._loop.time())

    def _file_document(self, file: JobFile) -> FileDocument:
        work = self._keeper.works[file.file]
        return file_document(file, work.new, None if work.part is None else work.part.path)

    async def _check_file(self, new: NewFile) -> None:
        parts = urlsplit(new.url)
        if parts.scheme.lower() not in ("http", "https"):
            raise UsageError(
                f"cannot fetch {parts.scheme or 'a URL without scheme'}: give a URL that begins with http:// or https://",
                code="UNSUPPORTED_SCHEME",
            )
        if not parts.hostname:
            raise UsageError(f"the URL names no host: {new.url}")
        spec_of(FileId("check"), new, self._parts.config.integrity, 1.0)
        check_validators(new)
        await self._parts.workers.run(check_destination, Path(new.path))


class _refusals:  # noqa: N801 - reads as a phrase
    """The core's refusals as errors for users."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IllegalTransitionError | EmptyJobError | EndingJobError):
            raise StateError(str(error)) from error
