"""The library's calls about jobs: one REST request each, and what is made of several.

Never knows: how a request travels, how a job is carried out. Sources: bits-reference 1.6, 1.11, 3.2 (BITS' words).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from urllib.parse import urlencode

from agent.client_http import BrokenOffError, Request, Wire
from agent.errors import NotFoundError, StateError
from agent.schema import (
    ByteSpan,
    CredentialChange,
    CredentialScheme,
    CredentialTarget,
    Explanation,
    FileChange,
    FileState,
    FilledRanges,
    JobChange,
    JobDocument,
    JobList,
    NewFile,
    NewFiles,
    NewJob,
    Position,
    PrefixChange,
    PrefixReplaced,
    RangeRequest,
    RangesWanted,
    ValidationChange,
)

FINAL_STATES = frozenset({"ACKNOWLEDGED", "CANCELLED"})
"""Nothing can happen to a job any more."""

RESTING_STATES = FINAL_STATES | {"TRANSFERRED", "ERROR"}
"""The job does nothing until somebody says what to do. SUSPENDED is not here: a job starts there."""

POLL_S = 25.0
"""How long one long poll stays open when nothing changes."""

PAGE = 1000
"""Jobs of one page."""

LISTINGS = 5
"""How often a list is begun again because the last job of a page ended before the next page was asked for."""

_ID = re.compile(r"[0-9A-Za-z_-]+")


class JobCalls:
    """Everything that can be done with jobs."""

    _wire: Wire

    # --- making and changing ---------------------------------------------------------------------------------

    async def create_job(self, new: NewJob, *, key: str | None = None) -> JobDocument:
        """Make a job; it is SUSPENDED until `resume`.

        `key`: two calls with the same key and job make one job, and the second returns it as it is then; without
        one each call makes a job. Should the connection break before the answer, the request is repeated once, and
        still makes one job.

        Raises UsageError (URL, digest, unknown validator), LimitError or DestinationError; then no job was made.
        """
        header = ("Idempotency-Key", os.urandom(16).hex() if key is None else key)
        request = Request(method="POST", target="/jobs", body=new, headers=(header,))
        try:
            return await self._wire.call(request, JobDocument)
        except BrokenOffError:
            return await self._wire.call(request, JobDocument)

    async def add_files(self, job_id: str, files: Sequence[NewFile]) -> JobDocument:
        """Add files, all or none. Raises as `create_job` does, NotFoundError, StateError."""
        request = Request(method="POST", target=f"{_job(job_id)}/files", body=NewFiles(files=list(files)))
        return await self._wire.call(request, JobDocument)

    async def change_job(self, job_id: str, change: JobChange) -> JobDocument:
        """Give some properties new values, which hold at once; what `change` leaves out stays as it is.

        Raises NotFoundError, UsageError, LimitError, StateError.
        """
        return await self._wire.call(Request(method="PATCH", target=_job(job_id), body=change), JobDocument)

    async def change_file(self, job_id: str, index: int, url: str) -> JobDocument:
        """Fetch file `index` from another URL (BITS' SetRemoteName). What is there goes on when it is the same
        content. Raises NotFoundError, UsageError; StateError for a file that is there already."""
        request = Request(method="PATCH", target=_file(job_id, index), body=FileChange(url=url))
        return await self._wire.call(request, JobDocument)

    async def replace_prefix(self, job_id: str, old: str, new: str) -> PrefixReplaced:
        """Let every URL that begins with `old` begin with `new` (BITS' ReplaceRemotePrefix); upper and lower case
        differ, and files that are there are left alone. Raises NotFoundError, UsageError, StateError."""
        request = Request(method="POST", target=f"{_job(job_id)}/prefix", body=PrefixChange(old=old, new=new))
        return await self._wire.call(request, PrefixReplaced)

    async def set_credentials(self, job_id: str, change: CredentialChange) -> JobDocument:
        """Set or replace the credentials for one target and scheme; nobody can read them again.

        Raises NotFoundError, UsageError, StateError.
        """
        request = Request(method="PUT", target=f"{_job(job_id)}/credentials", body=change)
        return await self._wire.call(request, JobDocument)

    async def remove_credentials(
        self, job_id: str, target: CredentialTarget, scheme: CredentialScheme
    ) -> JobDocument:
        """Forget credentials. Raises NotFoundError, also when there are none; StateError."""
        path = f"{_job(job_id)}/credentials/{CredentialTarget(target)}/{CredentialScheme(scheme)}"
        return await self._wire.call(Request(method="DELETE", target=path), JobDocument)

    # --- life ------------------------------------------------------------------------------------------------

    async def resume(self, job_id: str) -> JobDocument:
        """Let the job run, also out of ERROR or before its next try is due.

        Raises NotFoundError; StateError when the job has no file or is final.
        """
        return await self._act(job_id, "resume")

    async def suspend(self, job_id: str) -> JobDocument:
        """Stop the job; what is there stays. Raises NotFoundError; StateError when it is final."""
        return await self._act(job_id, "suspend")

    async def cancel(self, job_id: str) -> JobDocument:
        """End the job and remove its temporary files; again is fine. Raises NotFoundError; StateError when it was
        completed."""
        return await self._act(job_id, "cancel")

    async def complete(self, job_id: str) -> JobDocument:
        """Put the files at their destinations and end the job; again is fine. From ERROR, the files that are whole
        are kept and the job says so (`partial`).

        Raises NotFoundError; StateError when it is neither TRANSFERRED nor ERROR; DestinationError: mend it, then
        complete again.
        """
        return await self._act(job_id, "complete")

    async def _act(self, job_id: str, verb: str) -> JobDocument:
        return await self._wire.call(Request(method="POST", target=f"{_job(job_id)}/{verb}"), JobDocument)

    async def set_validation(self, job_id: str, index: int, *, valid: bool) -> JobDocument:
        """Say whether the content of file `index` is right (BITS' SetValidationState), before `complete`.

        Invalid with bytes from peers: they are fetched again from the origin. Invalid with bytes from the origin
        alone: the job goes to ERROR. Raises NotFoundError; StateError when the file is not there yet.
        """
        target = f"{_file(job_id, index)}/validation"
        request = Request(method="PUT", target=target, body=ValidationChange(valid=valid))
        return await self._wire.call(request, JobDocument)

    # --- on demand -------------------------------------------------------------------------------------------

    async def want_ranges(self, job_id: str, index: int, ranges: Sequence[RangeRequest]) -> JobDocument:
        """Ask for ranges of a file of an on-demand job (BITS' RequestFileRanges).

        Raises NotFoundError, UsageError, StateError.
        """
        target = f"{_file(job_id, index)}/ranges"
        request = Request(method="POST", target=target, body=RangesWanted(ranges=list(ranges)))
        return await self._wire.call(request, JobDocument)

    async def filled_ranges(self, job_id: str, index: int) -> list[ByteSpan]:
        """What of file `index` may be read from its temporary file now (BITS' GetFilledFileRanges), merged and in
        order. Raises NotFoundError."""
        request = Request(method="GET", target=f"{_file(job_id, index)}/filled")
        return (await self._wire.call(request, FilledRanges)).ranges

    async def set_position(self, job_id: str, index: int, offset: int) -> JobDocument:
        """Let the sequential download go on from `offset` (BITS' UpdateDownloadPosition).

        Raises NotFoundError, UsageError, StateError.
        """
        request = Request(method="PUT", target=f"{_file(job_id, index)}/position", body=Position(offset=offset))
        return await self._wire.call(request, JobDocument)

    # --- reading ---------------------------------------------------------------------------------------------

    async def job(self, job_id: str) -> JobDocument:
        """The job now. A final one is remembered for ten minutes. Raises NotFoundError."""
        return await self._wire.call(Request(method="GET", target=_job(job_id)), JobDocument)

    async def explain(self, job_id: str) -> Explanation:
        """Where the bytes of each file of the job came from, and why not from nearer; also while it runs, and for
        ten minutes after its end. Raises NotFoundError."""
        return await self._wire.call(Request(method="GET", target=f"{_job(job_id)}/explain"), Explanation)

    async def jobs(self, *, brief: bool = False) -> list[JobDocument]:
        """All jobs that are not final, oldest first; `brief`: without their files and logs."""
        for again in reversed(range(LISTINGS)):
            found: list[JobDocument] = []
            after: str | None = None
            try:
                while True:
                    page = await self.job_page(after, brief=brief)
                    found += page.jobs
                    after = page.next
                    if after is None:
                        return found
            except NotFoundError:
                if not again:
                    raise
        raise AssertionError("unreachable")

    async def job_page(self, after: str | None = None, limit: int = PAGE, *, brief: bool = False) -> JobList:
        """A part of that list: at most `limit` jobs, those that follow the job `after` (None: the first ones).

        Raises NotFoundError when that job has ended meanwhile: begin again.
        """
        wishes = {"limit": str(limit)} | ({} if after is None else {"after": after}) | _flag("brief", brief)
        return await self._wire.call(Request(method="GET", target=f"/jobs?{urlencode(wishes)}"), JobList)

    async def wait_change(self, job_id: str, after: int, *, timeout_s: float = POLL_S) -> JobDocument:
        """The job as soon as its `sequence` is above `after`, else as it is after `timeout_s` seconds (the agent
        allows 60 at most). Raises NotFoundError."""
        request = Request(method="GET", target=f"{_job(job_id)}?after={after}&timeout_s={timeout_s:.3f}")
        return await self._wire.call(request, JobDocument, timeout_s=timeout_s + self._wire.timeout_s)

    async def wait(
        self, job_id: str, until: Collection[str] | None = None, timeout_s: float | None = None
    ) -> JobDocument:
        """The job as soon as its state is one of `until`, or it is final.

        `until` None: as soon as it rests, in TRANSFERRED, ERROR or a final state, or with a file that waits for
        `set_validation` (`FileState.DECIDING`). A job that nobody resumes does not rest. `timeout_s`: seconds
        after which TimeoutError is raised, None for no limit. Raises NotFoundError.
        """
        async with asyncio.timeout(timeout_s):
            job = await self.job(job_id)
            while not _arrived(job, until):
                job = await self.wait_change(job_id, job.sequence)
            return job

    async def watch(self, job_id: str) -> AsyncGenerator[JobDocument, None]:
        """The job now and after every change (changes in quick succession may come as one), until it is final.

        Leave the loop when you have seen enough: TRANSFERRED and ERROR do not end it. Raises NotFoundError.
        """
        job = await self.job(job_id)
        yield job
        while job.state not in FINAL_STATES:
            after = job.sequence
            job = await self.wait_change(job_id, after)
            if job.sequence > after:
                yield job

    async def temporary_path(self, job_id: str, index: int) -> Path:
        """Where the bytes of file `index` are until `complete`; to be read only.

        Raises NotFoundError; StateError before the first byte and after the end.
        """
        files = (await self.job(job_id)).files
        if not 0 <= index < len(files):
            raise NotFoundError(f"the job has no file {index}")
        found = files[index].temporary_path
        if found is None:
            raise StateError(f"file {index} has no temporary file in state {files[index].state}")
        return Path(found)


def checked_id(text: str, what: str, code: str) -> str:
    """An id that may stand in a path. Raises NotFoundError for what cannot be one."""
    if not _ID.fullmatch(text):
        raise NotFoundError(f"no {what} has the id {text!r}", code=code)
    return text


def checked_job(job_id: str) -> str:
    """The same for a job."""
    return checked_id(job_id, "job", "JOB_NOT_FOUND")


def _arrived(job: JobDocument, until: Collection[str] | None) -> bool:
    if until is not None:
        return job.state in until or job.state in FINAL_STATES
    return job.state in RESTING_STATES or any(file.state is FileState.DECIDING for file in job.files)


def _job(job_id: str) -> str:
    return f"/jobs/{checked_job(job_id)}"


def _file(job_id: str, index: int) -> str:
    if index < 0:
        raise NotFoundError(f"the job has no file {index}")
    return f"{_job(job_id)}/files/{index}"


def _flag(name: str, on: bool) -> dict[str, str]:
    return {name: "true"} if on else {}
