"""REST over the unix socket: document in, engine call, document out.

The routes are under `/v1`. Whoever connects must be the same user as we are (root is nobody special); bodies are
JSON of at most 1 MiB and may hold known fields only; every refusal is a Problem document (RFC 9457).
Never knows: the core, SQLite, peers, what the engine does.

Sources: RFC 9110 §15 (statuses), RFC 9457 (problem documents), unix(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from aiohttp import web

from agent.client import peer_uid
from agent.errors import AgentError, AgentUnavailableError, ConfigError, UsageError
from agent.schema import (
    API_VERSION,
    AgentDocument,
    CacheList,
    Cleared,
    Document,
    JobDocument,
    JobList,
    NewFile,
    NewFiles,
    NewJob,
    PeerList,
    Problem,
    ValidationChange,
)
from peer import durable

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BODY_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 30.0
"""A client that sends slower than this is not ours."""

MAX_POLL_S = 60.0
SHUTDOWN_TIMEOUT_S = 5.0
"""For requests that are being carried out; long polls end at once."""

_LONG_NUMBER = re.compile(r"[0-9]{1,15}")


class EngineLike(Protocol):
    """What the routes need. All on the event loop; everything raises AgentError subclasses."""

    async def create_job(self, new: NewJob) -> JobDocument: ...

    async def add_files(self, job_id: str, files: list[NewFile]) -> JobDocument: ...

    async def resume(self, job_id: str) -> JobDocument: ...

    async def suspend(self, job_id: str) -> JobDocument: ...

    async def cancel(self, job_id: str) -> JobDocument: ...

    async def complete(self, job_id: str) -> JobDocument: ...

    async def set_validation(self, job_id: str, index: int, valid: bool) -> JobDocument: ...

    async def wait_change(self, job_id: str, after: int, timeout_s: float) -> JobDocument: ...

    async def clear_cache(self) -> Cleared: ...

    def job(self, job_id: str) -> JobDocument: ...

    def jobs(self) -> list[JobDocument]: ...

    def peers(self) -> PeerList: ...

    def cache_list(self) -> CacheList: ...

    def about(self) -> AgentDocument: ...


class RefusedRequest(UsageError):
    """A request that HTTP has a status of its own for."""

    def __init__(self, message: str, status: HTTPStatus) -> None:
        super().__init__(message)
        self._status = status

    @property
    def status(self) -> int:
        """The status given."""
        return self._status


class _Routes:
    """The handlers. `polls` are the long polls that are open, each with the scope that can end it."""

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine
        self._polls: set[asyncio.Timeout] = set()

    def table(self) -> list[web.RouteDef]:
        job = "/jobs/{job}"
        routes: list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]] = [
            ("GET", "/agent", self.about),
            ("GET", "/jobs", self.jobs),
            ("POST", "/jobs", self.create),
            ("GET", job, self.job),
            ("POST", f"{job}/files", self.add_files),
            ("POST", f"{job}/{{action:resume|suspend|cancel|complete}}", self.act),
            ("PUT", f"{job}/files/{{index:[0-9]+}}/validation", self.set_validation),
            ("GET", "/peers", self.peers),
            ("GET", "/cache", self.cache),
            ("DELETE", "/cache", self.clear_cache),
        ]
        return [web.route(method, f"/{API_VERSION}{path}", handler) for method, path, handler in routes]

    async def about(self, request: web.Request) -> web.Response:
        return _answer(self._engine.about())

    async def jobs(self, request: web.Request) -> web.Response:
        return _answer(JobList(jobs=self._engine.jobs()))

    async def create(self, request: web.Request) -> web.Response:
        new = await _read(request, NewJob)
        return _answer(await self._engine.create_job(new), HTTPStatus.CREATED)

    async def job(self, request: web.Request) -> web.Response:
        job_id = request.match_info["job"]
        unknown = set(request.query) - {"after", "timeout_s"}
        if unknown:
            raise UsageError(f"unknown query parameter {min(unknown)!r}: there are after and timeout_s")
        if "after" not in request.query:
            return _answer(self._engine.job(job_id))
        after, timeout_s = _poll_of(request)
        scope = asyncio.timeout(None)
        self._polls.add(scope)
        try:
            async with scope:
                return _answer(await self._engine.wait_change(job_id, after, timeout_s))
        except TimeoutError:
            raise AgentUnavailableError("the agent is stopping") from None
        finally:
            self._polls.discard(scope)

    async def add_files(self, request: web.Request) -> web.Response:
        new = await _read(request, NewFiles)
        return _answer(await self._engine.add_files(request.match_info["job"], new.files))

    async def act(self, request: web.Request) -> web.Response:
        actions = {
            "resume": self._engine.resume,
            "suspend": self._engine.suspend,
            "cancel": self._engine.cancel,
            "complete": self._engine.complete,
        }
        return _answer(await actions[request.match_info["action"]](request.match_info["job"]))

    async def set_validation(self, request: web.Request) -> web.Response:
        change = await _read(request, ValidationChange)
        index = request.match_info["index"]
        if not _LONG_NUMBER.fullmatch(index):
            raise UsageError("the index of a file is a small number")
        return _answer(await self._engine.set_validation(request.match_info["job"], int(index), change.valid))

    async def peers(self, request: web.Request) -> web.Response:
        return _answer(self._engine.peers())

    async def cache(self, request: web.Request) -> web.Response:
        return _answer(self._engine.cache_list())

    async def clear_cache(self, request: web.Request) -> web.Response:
        return _answer(await self._engine.clear_cache())

    async def end_polls(self, app: web.Application) -> None:
        """At shutdown: nobody has to wait for a poll that nothing will answer."""
        for scope in self._polls:
            scope.reschedule(asyncio.get_running_loop().time())


def make_app(engine: EngineLike) -> web.Application:
    """The control interface as an aiohttp application; to be served on a unix socket only (`serving`)."""
    routes = _Routes(engine)
    app = web.Application(middlewares=[_problems, _our_user_only], client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes.table())
    app.on_shutdown.append(routes.end_polls)
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, path: Path) -> AsyncIterator[None]:
    """Serve `app` on the unix socket `path` until left. The caller holds the home's lock: a socket that is there
    is left over from an agent that died, and is replaced. Raises ConfigError when the socket cannot be made."""
    listener = await asyncio.to_thread(_listen, path)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
        listener.close()
        await asyncio.to_thread(_remove, path)


def _listen(path: Path) -> socket.socket:
    """A listening socket, 0600 in a 0700 directory. Nobody can connect between bind and listen."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _private_directory(path.parent)
        if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is in the way: it is not a socket")
        _remove(path)
        listener.bind(os.fspath(path))
        os.chmod(path, 0o600)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise ConfigError(f"the control socket {path} cannot be made: {error.strerror or error}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _private_directory(path: Path) -> None:
    """0700 and ours. In /tmp somebody else could have made it first: that is refused, also for root, and a symbolic
    link is never followed."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(f"{path} must be a directory of this user")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(path, 0o700)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        directory = durable.open_directory(path.parent)
        try:
            durable.remove(directory, path.name)
        finally:
            os.close(directory)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a Problem document."""
    try:
        return await handler(request)
    except AgentError as error:
        return _problem(error)
    except web.HTTPException as error:
        return _problem(_of_http(request, error))
    except Exception:  # the top of the request's task: whatever it is, the client gets a sentence
        log.exception("%s %s failed", request.method, request.path)
        return _problem(AgentError("the agent met an error of its own: see its log"))


@web.middleware
async def _our_user_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    connected = None if request.transport is None else request.transport.get_extra_info("socket")
    if connected is None or connected.family != socket.AF_UNIX or peer_uid(connected) != os.geteuid():
        log.warning("a request of another user was refused")
        raise RefusedRequest("this agent belongs to another user", HTTPStatus.FORBIDDEN)
    return await handler(request)


def _of_http(request: web.Request, error: web.HTTPException) -> AgentError:
    """What aiohttp itself refuses: unknown paths and methods, and bodies above the limit."""
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return RefusedRequest(f"the request is longer than {MAX_BODY_BYTES} bytes", HTTPStatus(413))
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return RefusedRequest(f"{request.path} has no method {request.method}", HTTPStatus(405))
    if error.status == HTTPStatus.NOT_FOUND:
        return RefusedRequest(f"there is no {request.path}", HTTPStatus(404))
    return RefusedRequest(error.reason, HTTPStatus(error.status))


def _answer(document: Document, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/json")


def _problem(error: AgentError) -> web.Response:
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=str(error),
        code=error.code,
        context=error.context,
    )
    return web.Response(
        status=problem.status, body=msgspec.json.encode(problem), content_type="application/problem+json"
    )


async def _read(request: web.Request, kind: type[T]) -> T:
    """The request's document. Raises UsageError with the field named."""
    if request.content_type != "application/json":
        raise RefusedRequest("the body must be application/json", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if "Content-Encoding" in request.headers:
        raise RefusedRequest("the body must not be compressed", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise RefusedRequest("the body came too slowly", HTTPStatus.REQUEST_TIMEOUT) from None
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"the request cannot be understood: {error}") from error


def _poll_of(request: web.Request) -> tuple[int, float]:
    after, timeout = request.query["after"], request.query.get("timeout_s", str(MAX_POLL_S))
    if not _LONG_NUMBER.fullmatch(after):
        raise UsageError("after must be a sequence number")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", timeout):
        raise UsageError("timeout_s must be a number of seconds, such as 10 or 0.5")
    return int(after), min(float(timeout), MAX_POLL_S)
