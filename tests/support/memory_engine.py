"""An engine that keeps jobs in memory and fetches nothing: what a URL's last segment says is what happens.

An independent reading of the contract of the engine, for tests of the control interface, the library and the
command line. Words in the last segment: `missing` (404, ERROR), `wrong` (VALIDATION_FAILED), `down` (transient, no
byte), `half-down` (transient, half the bytes), `hang` (half the bytes, nothing more), `decide` (waits for the
application); anything else is there at once. Contents are `CONTENT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.api import make_app, serving
from agent.client import socket_path
from agent.errors import DestinationError, NotFoundError, StateError, UsageError
from agent.schema import (
    AgentDocument,
    CacheList,
    CacheRecordDocument,
    Cleared,
    ErrorDocument,
    FileDocument,
    FileState,
    JobDocument,
    JobList,
    JobQuery,
    NewFile,
    NewJob,
    PeerDocument,
    PeerList,
    Validation,
)

CONTENT = b"near before far\n" * 64
HALF = len(CONTENT) // 2
PEER_ID = "ab" * 32
T = TypeVar("T", bound=msgspec.Struct)
FINAL = ("ACKNOWLEDGED", "CANCELLED")
ALL_JOBS = JobQuery()


class MemoryEngine:
    """See the module."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.known: dict[str, JobDocument] = {}
        self.keys: dict[str, str] = {}
        """Idempotency key -> job."""
        self.changed = asyncio.Event()
        self.records = 3
        self.broken = False
        self.refuse_completion = False
        self.waiting = 0
        """Long polls that are open."""

    async def create_job(self, new: NewJob, key: str | None = None) -> tuple[JobDocument, bool]:
        if key is not None and key in self.keys:
            return self.job(self.keys[key]), False
        job = JobDocument(
            id=secrets.token_hex(16),
            name=new.name,
            state="SUSPENDED",
            priority=new.priority,
            created_at=time.time(),
            modified_at=time.time(),
            completed_at=None,
            error=None,
            error_count=0,
            retry_in_s=None,
            bytes_total=None,
            bytes_transferred=0,
            files_total=0,
            files_transferred=0,
            files=[],
            log=[],
            sequence=1,
        )
        files = [self._file(index, item) for index, item in enumerate(new.files)]
        if key is not None:
            self.keys[key] = job.id
        return self._store(job, files=files), True

    async def add_files(self, job_id: str, files: list[NewFile]) -> JobDocument:
        job = self._live(job_id)
        more = [self._file(len(job.files) + index, item) for index, item in enumerate(files)]
        return self._store(job, files=[*job.files, *more])

    async def resume(self, job_id: str) -> JobDocument:
        job = self._live(job_id)
        if not job.files:
            raise StateError("the job has no file")
        for file in job.files:
            job = self._perform(job, file)
        return job

    async def suspend(self, job_id: str) -> JobDocument:
        return self._store(self._live(job_id), state="SUSPENDED")

    async def cancel(self, job_id: str) -> JobDocument:
        return self._store(self._live(job_id), state="CANCELLED")

    async def complete(self, job_id: str) -> JobDocument:
        job = self._live(job_id)
        if job.state != "TRANSFERRED":
            raise StateError(f"a job in state {job.state} cannot be completed")
        if self.refuse_completion:
            raise DestinationError("no permission", code="PERMISSION_DENIED")
        for file in job.files:
            try:
                Path(file.path).write_bytes(CONTENT)
            except OSError as error:
                raise DestinationError(f"{file.path}: {error.strerror}", code="DESTINATION_MISSING") from error
        files = [_with(file, state=FileState.COMPLETED, temporary_path=None) for file in job.files]
        return self._store(job, state="ACKNOWLEDGED", files=files, completed_at=time.time())

    async def set_validation(self, job_id: str, index: int, valid: bool) -> JobDocument:
        job = self._live(job_id)
        if index >= len(job.files):
            raise NotFoundError(f"the job has no file {index}")
        if job.files[index].state is not FileState.DECIDING:
            raise StateError("nothing is to be decided")
        verdict = Validation.VALID if valid else Validation.INVALID
        files = list(job.files)
        files[index] = _with(files[index], validation=verdict, state=FileState.TRANSFERRED)
        return self._store(job, files=files, state="TRANSFERRED" if valid else "ERROR")

    def job(self, job_id: str) -> JobDocument:
        if self.broken:
            raise RuntimeError("secret detail")
        if job_id not in self.known:
            raise NotFoundError(f"no job has the id {job_id}")
        return self.known[job_id]

    def jobs(self, query: JobQuery = ALL_JOBS) -> JobList:
        living = [job for job in self.known.values() if job.state not in FINAL]
        start = 0 if query.after is None else [job.id for job in living].index(query.after) + 1
        page = living[start : start + query.limit]
        return JobList(
            jobs=[_with(job, files=[], log=[]) for job in page] if query.brief else page,
            total=len(living),
            next=page[-1].id if start + len(page) < len(living) else None,
        )

    async def wait_change(self, job_id: str, after: int, timeout_s: float) -> JobDocument:
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                while self.job(job_id).sequence <= after:
                    await self.changed.wait()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        return self.job(job_id)

    def peers(self) -> PeerList:
        peer = PeerDocument(
            id=PEER_ID,
            name="neighbour",
            address="127.0.0.1",
            port=4711,
            version="0.0.9",
            authenticated=True,
            available=True,
            standing="good",
            reason=None,
            last_seen_s=1.5,
            bytes_taken=5,
            bytes_given=6,
        )
        return PeerList(peers=[peer], refused=["192.0.2.9: another group"], problems=[])

    def cache_list(self) -> CacheList:
        record = CacheRecordDocument(
            id="cd" * 32, length=9, chunks_held=1, chunks_total=1, bytes=9, created_at=1.0, last_access_at=2.0
        )
        return CacheList(records=[record], bytes=9, limit_bytes=1000, problems=[])

    async def clear_cache(self) -> Cleared:
        dropped, self.records = self.records, 0
        return Cleared(records=dropped)

    async def ready(self) -> None:
        """Nothing has to be read back."""

    def about(self) -> AgentDocument:
        return AgentDocument(
            version="0.1.0",
            pid=os.getpid(),
            home=os.fspath(self.home),
            peer_id=PEER_ID,
            peer_name="memory",
            peer_port=None,
            group_tag="0011223344556677",
            interfaces=["127.0.0.1"],
            jobs=self.jobs().total,
            problems=["a database was set aside"],
        )

    def change(self, job_id: str, **fields: object) -> JobDocument:
        """What the world does to a job."""
        return self._store(self.job(job_id), **fields)

    def _live(self, job_id: str) -> JobDocument:
        job = self.job(job_id)
        if job.state in FINAL:
            raise StateError(f"the job is {job.state}")
        return job

    def _file(self, index: int, new: NewFile) -> FileDocument:
        if any(name.startswith("shasum") for name in new.validators):
            raise UsageError("unknown validator 'shasum'; did you mean sha256?", code="UNKNOWN_VALIDATOR")
        return FileDocument(
            index=index,
            url=new.url,
            path=new.path,
            temporary_path=None,
            state=FileState.WAITING,
            validation=Validation.UNDECIDED,
            bytes_total=None,
            bytes_transferred=0,
            bytes_from_origin=0,
            bytes_from_peers=0,
            bytes_from_cache=0,
            bytes_discarded=0,
            peers={},
            integrity="none",
        )

    def _perform(self, job: JobDocument, file: FileDocument) -> JobDocument:
        word = file.url.rpartition("/")[2]
        if word == "missing":
            return self._fail(job, "NOT_FOUND", "the origin answered 404", 0)
        if word == "wrong":
            return self._fail(job, "VALIDATION_FAILED", "sha256 rejected the file", len(CONTENT))
        if word == "down":
            return self._retry(job, 0)
        if word == "half-down":
            return self._retry(job, HALF)
        if word == "hang":
            return self._store(job, state="TRANSFERRING", files=[_bytes(file, HALF, FileState.FETCHING)])
        if word == "decide":
            return self._store(job, state="VALIDATING", files=[_bytes(file, len(CONTENT), FileState.DECIDING)])
        done = _bytes(file, len(CONTENT), FileState.TRANSFERRED)
        files = [done if item.index == file.index else item for item in job.files]
        return self._store(job, state="TRANSFERRED", files=files)

    def _retry(self, job: JobDocument, done: int) -> JobDocument:
        error = ErrorDocument(code="CONNECT_FAILED", message="refused", context="origin", file=0)
        files = [_bytes(job.files[0], done, FileState.WAITING)]
        return self._store(job, state="TRANSIENT_ERROR", error=error, retry_in_s=5.0, files=files)

    def _fail(self, job: JobDocument, code: str, message: str, done: int) -> JobDocument:
        error = ErrorDocument(code=code, message=message, context="origin", file=0, http_status=404)
        return self._store(job, state="ERROR", error=error, files=[_bytes(job.files[0], done, FileState.FAILED)])

    def _store(self, job: JobDocument, **fields: object) -> JobDocument:
        files = fields.get("files", job.files)
        assert isinstance(files, list)
        fields["files_total"] = len(files)
        fields["bytes_transferred"] = sum(file.bytes_transferred for file in files)
        fields["bytes_total"] = len(CONTENT) * len(files)
        new = _with(job, sequence=job.sequence + 1, modified_at=time.time(), **fields)
        self.known[job.id] = new
        self.changed.set()
        self.changed = asyncio.Event()
        return new


def _with(document: T, **fields: object) -> T:
    return msgspec.structs.replace(document, **fields)


def _bytes(file: FileDocument, done: int, state: FileState) -> FileDocument:
    """Half from the origin, half from a peer."""
    return _with(
        file,
        state=state,
        bytes_total=len(CONTENT),
        bytes_transferred=done,
        bytes_from_origin=done // 2,
        bytes_from_peers=done - done // 2,
        peers={PEER_ID: done - done // 2} if done else {},
        temporary_path=f"{file.path}.tmp",
    )


@contextlib.asynccontextmanager
async def memory_agent(home: Path) -> AsyncIterator[MemoryEngine]:
    """An agent of this kind that answers on the socket of `home`."""
    home.mkdir(mode=0o700, exist_ok=True)
    engine = MemoryEngine(home)
    async with serving(make_app(engine), socket_path(home)):
        yield engine
