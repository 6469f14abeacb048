"""What answers on an agent's socket, byte for byte as a test says: for tests of the library.

    async with WireAgent(tmp_path) as there:
        there.answers += [reply({"records": 3}), streaming(event(id=1, data=...), then=closing)]
        ...
        assert there.seen[0].target == "/v1/cache"

Each request takes the next answer from the list (the last one stays). Never knows: the library, the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LIMIT_S = 10.0
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed its connection."""

    @property
    def document(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    async def left(self) -> None:
        """Wait for the client to close its connection."""
        async with asyncio.timeout(LIMIT_S):
            await self.gone.wait()


Answer = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]
"""Writes what it likes; the connection is closed when it returns."""


class WireAgent:
    """The server. An async context manager; everything it opens it closes."""

    def __init__(self, home: Path) -> None:
        self.path = home / "agent.sock"
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def requests(self, count: int) -> list[Seen]:
        """All requests, as soon as there are so many."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.seen) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.seen

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Close the socket and every connection, as a killed agent does; `start` may follow."""
        assert self._server is not None
        self._server.close()
        self.path.unlink()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            seen = await _request(reader)
            self.seen.append(seen)
            self._changed.set()
            answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(reader, seen))
                try:
                    await answer(seen, writer)
                except ConnectionError:
                    seen.gone.set()
                watching.cancel()
        except asyncio.CancelledError:
            pass  # `stop`
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError):
                if writer.transport.get_write_buffer_size() and not writer.is_closing():
                    await writer.drain()
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Seen:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1"
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method=method, target=target, headers=headers, body=body)


async def _watch(reader: asyncio.StreamReader, seen: Seen) -> None:
    with contextlib.suppress(ConnectionError):
        assert not await reader.read()
    seen.gone.set()


# --- answers -------------------------------------------------------------------------------------------------


def raw(*pieces: bytes) -> Answer:
    """These bytes, each piece on its way before the next one."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


def reply(document: object, status: int = 200) -> Answer:
    """A document, whole and correct."""
    return raw(whole(document, status))


def problem(code: str, detail: str, status: int, context: str = "agent") -> Answer:
    """A Problem document."""
    title = HTTPStatus(status).phrase
    return reply({"title": title, "status": status, "detail": detail, "code": code, "context": context}, status)


async def silence(seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Nothing, until the client has had enough."""
    await seen.left()


def streaming(*pieces: bytes, then: Answer = silence) -> Answer:
    """A stream of events, chunk by chunk; what then happens to the connection."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for piece in pieces:
            writer.write(chunk(piece))
        await writer.drain()
        await then(seen, writer)

    return answer


async def closing(seen: Seen, writer: asyncio.StreamWriter) -> None:
    """The connection is closed, as a killed agent does."""


def whole(document: object, status: int = 200) -> bytes:
    """A whole answer."""
    content = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def chunk(content: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def event(document: object, *, kind: str = "state", number: int | None = None) -> bytes:
    """One server-sent event."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(document)}\n\n".encode()


def job_document(job_id: str = "j1", **fields: object) -> dict[str, object]:
    """The least that a job has to have."""
    return {
        "id": job_id,
        "name": "n",
        "state": "SUSPENDED",
        "priority": "normal",
        "created_at": 1.0,
        "modified_at": 1.0,
        "completed_at": None,
        "error": None,
        "error_count": 0,
        "retry_in_s": None,
        "bytes_total": None,
        "bytes_transferred": 0,
        "files_total": 0,
        "files_transferred": 0,
        "files": [],
        "log": [],
        "sequence": 1,
    } | fields
