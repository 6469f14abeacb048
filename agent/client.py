"""The Python library: speaks with the agent of a home over its unix socket.

    async with AgentClient.connect() as client:
        job = await client.create_job(NewJob(name="images", files=[NewFile(url=url, path="/data/disk.img")]))
        await client.resume(job.id)
        job = await client.wait(job.id)
        if job.state == "TRANSFERRED":
            await client.complete(job.id)

Imports only the documents, the errors, msgspec and the standard library, so that it starts in a few hundredths
of a second: aiohttp alone costs more than everything here, and the control interface carries small JSON only.
Never knows: SQLite, mDNS, TLS, how a job is carried out.

Sources: RFC 9112 (HTTP/1.1; one request a connection), unix(7) for SO_PEERCRED and the length of a socket's name,
unix(4) of macOS for LOCAL_PEERCRED.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from agent.errors import (
    AgentError,
    AgentUnavailableError,
    ConfigError,
    DatabaseNewerError,
    DestinationError,
    HomeInUseError,
    NotFoundError,
    StateError,
    UsageError,
)
from agent.schema import (
    API_VERSION,
    AgentDocument,
    CacheList,
    Cleared,
    FileState,
    JobDocument,
    JobList,
    NewFile,
    NewFiles,
    NewJob,
    PeerList,
    Problem,
    ValidationChange,
)

T = TypeVar("T")

FINAL_STATES = frozenset({"ACKNOWLEDGED", "CANCELLED"})
"""Nothing can happen to a job any more."""

RESTING_STATES = FINAL_STATES | {"TRANSFERRED", "ERROR"}
"""The job does nothing until somebody says what to do. SUSPENDED is not here: a job starts there."""

ANSWER_TIMEOUT_S = 30.0
"""The longest a request may take, long polls excepted."""

POLL_S = 25.0
"""How long one long poll stays open when nothing changes."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A list of ten thousand jobs is about a tenth of it."""

MAX_SOCKET_NAME_BYTES = 100
"""sun_path has 104 bytes on macOS and 108 on Linux, the closing NUL included."""

_HEADER_END = b"\r\n\r\n"


def default_home() -> Path:
    """Where an agent lives when nobody says: `NEARFETCH_HOME`, else the user's state directory."""
    named = os.environ.get("NEARFETCH_HOME")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_state_path  # only needed here

    return user_state_path("nearfetch")


def socket_path(home: str | os.PathLike[str]) -> Path:
    """The socket of the agent that lives in `home`: there, or, when that name is too long for a socket, under
    /tmp in a directory of this user.

    Always /tmp and not $TMPDIR: the agent and its clients may be started with different environments.
    """
    real = os.path.realpath(Path(home).expanduser())
    path = Path(real, "agent.sock")
    if len(os.fsencode(path)) <= MAX_SOCKET_NAME_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:24]
    return Path(f"/tmp/nearfetch-{os.geteuid()}", f"{name}.sock")  # noqa: S108  # owner and mode are checked


def check_socket_directory(path: Path) -> None:
    """Refuse a socket in a directory that others own or may write to. Raises AgentUnavailableError.

    A missing directory is fine: there is no agent then.
    """
    try:
        found = path.parent.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise AgentUnavailableError(f"{path.parent} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise AgentUnavailableError(f"{path.parent} must be a directory of this user that nobody else can write to")


def peer_uid(connected: socket.socket) -> int:
    """The user at the other end of a unix socket, as the kernel knows it. Raises OSError."""
    if sys.platform == "darwin":
        # struct xucred of sys/ucred.h begins with cr_version and cr_uid.
        raw = connected.getsockopt(0, socket.LOCAL_PEERCRED, 76)
        return int(struct.unpack_from("=II", raw)[1])
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


class AgentClient:
    """A client of one agent. Opens one connection for each call, so it may be shared by any number of tasks and
    every call may be cancelled at any time (the agent may have carried it out all the same).

    Every method raises AgentUnavailableError when no agent answers or it stops meanwhile, and otherwise what the
    agent raised: the same subclass of AgentError, `code` and `context` included.
    """

    def __init__(self, socket: str | os.PathLike[str], *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """`socket`: path of the agent's socket; `timeout_s`: seconds one call may take, long polls excepted."""
        self.socket = Path(socket)
        self.timeout_s = timeout_s

    @classmethod
    def connect(
        cls, home: str | os.PathLike[str] | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> AgentClient:
        """The client of the agent that lives in `home` (None: `default_home()`). Entering it, with
        `async with`, checks that the agent answers."""
        return cls(socket_path(default_home() if home is None else home), timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        await self.about()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def create_job(self, new: NewJob) -> JobDocument:
        """Make a job; it is SUSPENDED until `resume`.

        Raises UsageError (URL, digest, unknown validator) or DestinationError; then no job was made.
        """
        return await self._call("POST", "/jobs", JobDocument, new)

    async def add_files(self, job_id: str, files: Sequence[NewFile]) -> JobDocument:
        """Add files, all or none. Raises as `create_job` does, NotFoundError, StateError."""
        return await self._call("POST", f"{_job(job_id)}/files", JobDocument, NewFiles(files=list(files)))

    async def resume(self, job_id: str) -> JobDocument:
        """Let the job run, also out of ERROR or before its next try is due.

        Raises NotFoundError; StateError when the job has no file or is final.
        """
        return await self._call("POST", f"{_job(job_id)}/resume", JobDocument)

    async def suspend(self, job_id: str) -> JobDocument:
        """Stop the job; what is there stays. Raises NotFoundError; StateError when it is final."""
        return await self._call("POST", f"{_job(job_id)}/suspend", JobDocument)

    async def cancel(self, job_id: str) -> JobDocument:
        """End the job and remove its temporary files. Raises NotFoundError; StateError when it is final."""
        return await self._call("POST", f"{_job(job_id)}/cancel", JobDocument)

    async def complete(self, job_id: str) -> JobDocument:
        """Put the files at their destinations and end the job.

        Raises NotFoundError; StateError when it is neither TRANSFERRED nor ERROR; DestinationError.
        """
        return await self._call("POST", f"{_job(job_id)}/complete", JobDocument)

    async def set_validation(self, job_id: str, index: int, *, valid: bool) -> JobDocument:
        """Say whether the content of file `index` is right (BITS' SetValidationState), before `complete`.

        Invalid with bytes from peers: they are fetched again from the origin. Invalid with bytes from the origin
        alone: the job goes to ERROR. Raises NotFoundError; StateError when the file is not there yet.
        """
        change = ValidationChange(valid=valid)
        return await self._call("PUT", f"{_job(job_id)}/files/{index}/validation", JobDocument, change)

    async def job(self, job_id: str) -> JobDocument:
        """The job now. A final one is remembered for ten minutes. Raises NotFoundError."""
        return await self._call("GET", _job(job_id), JobDocument)

    async def jobs(self) -> list[JobDocument]:
        """All jobs that are not final, oldest first."""
        return (await self._call("GET", "/jobs", JobList)).jobs

    async def wait_change(self, job_id: str, after: int, *, timeout_s: float = POLL_S) -> JobDocument:
        """The job as soon as its `sequence` is above `after`, else as it is after `timeout_s` seconds (the agent
        allows 60 at most). Raises NotFoundError."""
        path = f"{_job(job_id)}?after={after}&timeout_s={timeout_s:.3f}"
        return await self._call("GET", path, JobDocument, timeout_s=timeout_s + self.timeout_s)

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

    async def watch(self, job_id: str) -> AsyncIterator[JobDocument]:
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

    async def peers(self) -> PeerList:
        """The other agents of the group that are known, and who was refused lately."""
        return await self._call("GET", "/peers", PeerList)

    async def cache(self) -> CacheList:
        """What the peer cache holds, in bytes."""
        return await self._call("GET", "/cache", CacheList)

    async def clear_cache(self) -> int:
        """Empty the peer cache; running jobs and finished files are untouched. Returns the records dropped."""
        return (await self._call("DELETE", "/cache", Cleared)).records

    async def about(self) -> AgentDocument:
        """Who answers: version, process id, home, group, and what the agent wants its user to know."""
        return await self._call("GET", "/agent", AgentDocument)

    async def _call(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: msgspec.Struct | None = None,
        *,
        timeout_s: float | None = None,
    ) -> T:
        request = _request(method, f"/{API_VERSION}{path}", body)
        status, content = await _exchange(self.socket, request, self.timeout_s if timeout_s is None else timeout_s)
        try:
            if status < 300:
                return msgspec.json.decode(content, type=answer)
            problem = msgspec.json.decode(content, type=Problem)
        except msgspec.DecodeError as error:
            raise AgentError(f"the agent's answer (status {status}) cannot be understood: {error}") from error
        raise error_of(problem.code, problem.detail, problem.context)


_ERRORS: dict[str, type[AgentError]] = {
    "USAGE": UsageError,
    "UNKNOWN_VALIDATOR": UsageError,
    "UNSUPPORTED_SCHEME": UsageError,
    "CONFIG": ConfigError,
    "JOB_NOT_FOUND": NotFoundError,
    "INVALID_STATE": StateError,
    "DESTINATION_MISSING": DestinationError,
    "DESTINATION_INVALID": DestinationError,
    "DESTINATION_EXISTS": DestinationError,
    "AGENT_UNAVAILABLE": AgentUnavailableError,
    "HOME_IN_USE": HomeInUseError,
    "DATABASE_NEWER": DatabaseNewerError,
}


def error_of(code: str, message: str, context: str) -> AgentError:
    """The exception for an error document."""
    return _ERRORS.get(code, AgentError)(message, code=code, context=context)


def _arrived(job: JobDocument, until: Collection[str] | None) -> bool:
    if until is not None:
        return job.state in until or job.state in FINAL_STATES
    return job.state in RESTING_STATES or any(file.state is FileState.DECIDING for file in job.files)


def _job(job_id: str) -> str:
    if not job_id or not all(
        character.isascii() and (character.isalnum() or character in "-_") for character in job_id
    ):
        raise NotFoundError(f"no job has the id {job_id!r}")
    return f"/jobs/{job_id}"


def _request(method: str, target: str, body: msgspec.Struct | None) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: nearfetch\r\nConnection: close\r\n"
    if body is None:
        return f"{head}\r\n".encode("ascii")
    try:
        content = msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError(f"text that is not UTF-8: {error.object!r}") from error
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode("ascii") + content


async def _exchange(path: Path, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    """Send one request on a connection of its own; the status and the body of the answer."""
    check_socket_directory(path)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                _require_our_user(writer, path)
                writer.write(request)
                raw = await _read_all(reader)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise AgentUnavailableError(f"the agent at {path} did not answer within {timeout_s:g} s") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise AgentUnavailableError(f"no agent runs for {path.parent} (start one with: nearfetch run)") from error
    except OSError as error:
        raise AgentUnavailableError(f"the agent at {path} cannot be reached: {error.strerror or error}") from error
    return _parse(raw, path)


def _require_our_user(writer: asyncio.StreamWriter, path: Path) -> None:
    if peer_uid(writer.get_extra_info("socket")) != os.geteuid():
        raise AgentUnavailableError(f"the agent at {path} belongs to another user")


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while data := await reader.read(256 * 1024):
        parts += data
        if len(parts) > MAX_ANSWER_BYTES:
            raise AgentError(f"the agent's answer is longer than {MAX_ANSWER_BYTES} bytes")
    return bytes(parts)


def _parse(raw: bytes, path: Path) -> tuple[int, bytes]:
    """The agent closes after each answer, and says its length: a shorter one was cut off."""
    if not raw:
        raise AgentUnavailableError(f"the agent at {path} stopped")
    head, end, body = raw.partition(_HEADER_END)
    lines = head.split(b"\r\n")
    status = lines[0].split(b" ")
    if not end or len(status) < 2 or status[0] != b"HTTP/1.1" or not status[1].isdigit():
        raise AgentError(f"what answers at {path} is no nearfetch agent")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip() != str(len(body)).encode("ascii"):
            raise AgentUnavailableError(f"the agent at {path} stopped in the middle of its answer")
    return int(status[1]), body
