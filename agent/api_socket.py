"""The unix socket that the control interface is served on: private, bounded, replaced when it was left over.

Never knows: routes, documents, what is asked for.

Sources: unix(7); aiohttp's `RequestHandler`, whose keep-alive time also bounds how long a request's head may take.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import msgspec
from aiohttp import web

from agent.api_http import PROBLEM_JSON, RefusedRequest, problem_of, refusal
from agent.api_stream import Limits
from agent.errors import AgentUnavailableError, ConfigError
from peer import durable

log = logging.getLogger(__name__)

LIMITS = web.AppKey("limits", Limits)

SHUTDOWN_TIMEOUT_S = 5.0
"""For requests that are being carried out; long polls and streams end at once."""
BACKLOG = 128
"""More than a flood needs to be turned away; the kernel's usual maximum is 4096."""


@contextlib.asynccontextmanager
async def serving(app: web.Application, path: Path) -> AsyncIterator[None]:
    """Serve `app` on the unix socket `path` until left. The caller holds the home's lock: a socket that is there
    is left over from an agent that died, and is replaced. Raises ConfigError when the socket cannot be made."""
    limits = app[LIMITS]
    listener = await asyncio.to_thread(_listen, path)
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    accepting: asyncio.Server | None = None
    try:
        await runner.setup()
        server = runner.server
        assert server is not None

        def accept() -> asyncio.Protocol:
            if len(server.connections) >= limits.connections:
                return _Full(limits.connections)
            return _Connection(server, limits)

        accepting = await asyncio.get_running_loop().create_unix_server(accept, sock=listener, backlog=BACKLOG)
        yield
    finally:
        if accepting is not None:
            accepting.close()
        await runner.cleanup()
        listener.close()
        await asyncio.to_thread(_remove, path)


class _Connection(web.RequestHandler):
    """One connection, whose requests are HTTP, or refused with a Problem as everything else is."""

    def __init__(self, server: web.Server, limits: Limits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # documented: None switches it off
            keepalive_timeout=limits.idle_s,
            lingering_time=limits.linger_s,
            tcp_keepalive=False,
            auto_decompress=False,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What never got to a route; aiohttp would answer with text, and log a traceback for each."""
        log.warning("a request that is not HTTP was refused: %r", exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = refusal(RefusedRequest("the request is not HTTP/1.1, or too long", HTTPStatus(status)))
        response.force_close()
        return response


class _Full(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def __init__(self, most: int) -> None:
        problem = problem_of(AgentUnavailableError(f"{most} connections are open already: close some"))
        content = msgspec.json.encode(problem)
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\nContent-Type: {PROBLEM_JSON}\r\n"
            f"Content-Length: {len(content)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        self._answer = head.encode("ascii") + content

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is read, so that nothing has to be waited for."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._answer)
        transport.close()


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
        listener.listen(BACKLOG)
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
