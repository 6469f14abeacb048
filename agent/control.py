"""What users ask of an agent: documents in, documents out, the core and its interpreter in between.

Every request is checked before it has an effect, and answered once its effect is durable. Never knows: REST,
sockets, SQLite, which chunk comes from where.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

from agent.core.events import Decision
from agent.core.job import FINAL, IllegalTransitionError, JobState
from agent.core.jobs import Intent, Job
from agent.core.manager import EmptyJobError, EndingJobError
from agent.core.queue import JobId
from agent.core.sources import FileId
from agent.destination import check_destination
from agent.engine import Engine
from agent.errors import DestinationError, NotFoundError, StateError, UsageError
from agent.origin_http import version
from agent.records import spec_of
from agent.schema import (
    AgentDocument,
    CacheList,
    CacheRecordDocument,
    Cleared,
    JobDocument,
    NewFile,
    NewJob,
    PeerList,
)
from agent.verdicts import check_validators
from agent.views import JobFrame, peer_document, refusal_line
from validation.content import ChunkLayout

CALM_S = 0.15
"""Progress alone ends a long poll at most this often."""


class Control:
    """The requests of users. On the engine's loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._manager = engine.manager
        self._keeper = engine.keeper
        self._parts = engine.parts
        self._loop = asyncio.get_running_loop()

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
        """Stop the job and remove its temporary files. Repeating it is safe. Raises NotFoundError, StateError."""
        if self._ended(job_id, JobState.CANCELLED):
            return self.job(job_id)
        job = self._job(job_id)
        if job.state is not JobState.CANCELLED:
            with _refusals():
                self._manager.cancel(job, self._loop.time())
        return await self._answer(job)

    async def complete(self, job_id: str) -> JobDocument:
        """Bring the accepted files to their destinations. Repeating it is safe, also while it is being done
        (reliability 2.1, D2).

        Raises NotFoundError, StateError, DestinationError (the job then stays TRANSFERRED; mend it, then complete
        again).
        """
        if self._ended(job_id, JobState.ACKNOWLEDGED):
            return self.job(job_id)
        job = self._job(job_id)
        if job.state is not JobState.ACKNOWLEDGED and job.intent is not Intent.COMPLETING:
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
        document = self._keeper.file_document(file)
        if file.completed or document.state.value not in ("deciding", "transferred"):
            raise StateError(
                f"file {index} is {document.state}: its validation state can be set once all of it is there"
            )
        decision = Decision.VALID if valid else Decision.INVALID
        self._manager.decide(file.file, decision, self._loop.time())
        return await self._answer(job)

    def job(self, job_id: str) -> JobDocument:
        """One job. Raises NotFoundError."""
        return self._engine.ended.get(job_id) or self._keeper.document(self._job(job_id), self._loop.time())

    def jobs(self) -> list[JobDocument]:
        """Every job that has not ended, oldest first."""
        now, ended = self._loop.time(), self._engine.ended
        return [self._keeper.document(job, now) for job in self._manager.jobs.values() if job.job not in ended]

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

    async def _answer(self, job: Job) -> JobDocument:
        await self._engine.answered(job)
        return self.job(job.job)

    def _ended(self, job_id: str, state: JobState) -> bool:
        """The job is gone, and ended so."""
        ended = self._engine.ended.get(job_id)
        return ended is not None and ended.state == state.value

    def _job(self, job_id: str) -> Job:
        job = self._manager.jobs.get(JobId(job_id))
        if job is None or job_id in self._engine.ended:
            raise NotFoundError(f"no job {job_id}")
        return job

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
