"""Requests and answers of the control interface, byte by byte: one request a connection.

HTTP by hand: aiohttp alone costs more time at start than everything a client needs, and only small JSON goes to and
fro. An answer comes whole (`Wire.call`), or piece by piece for as long as the agent lives (`Wire.open`).
Never knows: jobs, what a request means.

Sources: RFC 9112 §2 to §7 (messages, chunked), RFC 9457 (problem documents).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.client_socket import Connection, connect, drop, unreachable
from agent.errors import (
    CODES,
    AgentError,
    AgentUnavailableError,
    ConfigError,
    DatabaseNewerError,
    DestinationError,
    ExitCode,
    HomeInUseError,
    LimitError,
    NotFoundError,
    StateError,
    UsageError,
)
from agent.schema import API_VERSION, Problem

T = TypeVar("T")

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A job of a hundred thousand files is about a third of it."""

SILENCE_S = 45.0
"""A stream carries something every 15 seconds; after three times that nobody is there."""

_HEADER_END = b"\r\n\r\n"
_PIECE_BYTES = 256 * 1024
_MAX_CHUNK_HEAD = 1024
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}")
_HEADER_VALUE = re.compile(r"[!-~]+")
"""What we put into headers: keys and numbers. Nothing in it can end a line."""


class BrokenOffError(AgentUnavailableError):
    """The agent took the request and stopped before it had answered: whether it was carried out is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked: the target is below the version, for example `/jobs`, and quoted."""

    method: str
    target: str
    body: msgspec.Struct | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """The bytes on the wire. Raises UsageError for text that is not Unicode, or no header."""
        lines = [f"{self.method} /{API_VERSION}{self.target} HTTP/1.1", "Host: nearfetch", "Connection: close"]
        for name, value in self.headers:
            if not _HEADER_VALUE.fullmatch(value):
                raise UsageError(f"{name} must be printable ASCII without blanks: {value!r}")
            lines.append(f"{name}: {value}")
        content = b""
        if self.body is not None:
            try:
                content = msgspec.json.encode(self.body)
            except UnicodeEncodeError as error:
                raise UsageError(f"text that is not UTF-8: {error.object!r}") from error
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return "\r\n".join(lines).encode("ascii") + _HEADER_END + content


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How one agent is reached."""

    socket: Path
    timeout_s: float
    """Seconds that a request may take, long polls excepted."""

    async def call(self, request: Request, answer: type[T], *, timeout_s: float | None = None) -> T:
        """The document that the agent answers with. Raises what the agent raised; AgentUnavailableError, and
        BrokenOffError when the request may have been carried out."""
        content = await self.fetch(request, timeout_s=timeout_s)
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise AgentError(f"the agent's answer cannot be understood: {error}") from error

    async def fetch(self, request: Request, *, timeout_s: float | None = None) -> bytes:
        """The same as bytes."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        message = request.encode()
        try:
            async with asyncio.timeout(limit_s):
                reader, writer = await connect(self.socket)
                try:
                    writer.write(message)
                    raw = await self._read_all(reader)
                finally:
                    drop(writer)
        except TimeoutError as error:
            raise self._silent(limit_s) from error
        head, end, body = raw.partition(_HEADER_END)
        status = self._status(head)
        if not end:
            raise self.broken("stopped in the middle of its answer")
        content = self._whole(head, body)
        if status >= 300:
            raise _problem(status, content)
        return content

    async def open(self, request: Request) -> Pieces:
        """An answer that goes on until it is closed. Raises as `call` does."""
        message = request.encode()
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await connect(self.socket)
                try:
                    writer.write(message)
                    head = await self._read_head(reader)
                    status = self._status(head)
                    if status >= 300:
                        raise _problem(status, self._whole(head, await self._read_all(reader)))
                except BaseException:
                    drop(writer)
                    raise
                return Pieces((reader, writer), self, head)
        except TimeoutError as error:
            raise self._silent(self.timeout_s) from error

    async def _read_head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return (await reader.readuntil(_HEADER_END)).removesuffix(_HEADER_END)
        except asyncio.IncompleteReadError as error:
            self._status(error.partial)
            raise self.broken("stopped in the middle of its answer") from error
        except asyncio.LimitOverrunError as error:
            raise self._foreign() from error
        except OSError as error:
            raise self.failed(error) from error

    async def _read_all(self, reader: asyncio.StreamReader) -> bytes:
        parts = bytearray()
        try:
            while data := await reader.read(_PIECE_BYTES):
                parts += data
                if len(parts) > MAX_ANSWER_BYTES:
                    raise AgentError(f"the agent's answer is longer than {MAX_ANSWER_BYTES} bytes")
        except OSError as error:
            raise self.failed(error) from error
        return bytes(parts)

    def _status(self, head: bytes) -> int:
        if not head:
            raise self.broken("stopped")
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) < 2 or words[0] != b"HTTP/1.1" or not re.fullmatch(rb"[0-9]{3}", words[1]):
            raise self._foreign()
        return int(words[1])

    def _whole(self, head: bytes, body: bytes) -> bytes:
        """The agent closes after each answer, and says its length: a shorter one was cut off."""
        complete = True
        length = header(head, b"content-length")
        if _is_chunked(head):
            decoder = Unchunker()
            body = decoder.feed(body)
            complete = decoder.ended
        elif length is not None:
            complete = length == str(len(body)).encode("ascii")
        if not complete:
            raise self.broken("stopped in the middle of its answer")
        return body

    def _silent(self, limit_s: float) -> AgentUnavailableError:
        return AgentUnavailableError(f"the agent at {self.socket} did not answer within {limit_s:g} s")

    def broken(self, what: str) -> BrokenOffError:
        """The agent did this in the middle."""
        return BrokenOffError(f"the agent at {self.socket} {what}")

    def failed(self, error: OSError) -> BrokenOffError:
        """The connection failed in the middle."""
        return BrokenOffError(str(unreachable(self.socket, error)))

    def _foreign(self) -> AgentError:
        return AgentError(f"what answers at {self.socket} is no nearfetch agent")


class Pieces:
    """The body of an answer that goes on, until `close`."""

    def __init__(self, connection: Connection, wire: Wire, head: bytes) -> None:
        self.content_type = (header(head, b"content-type") or b"").partition(b";")[0].strip().lower()
        self._reader, self._writer = connection
        self._wire = wire
        self._decoder = Unchunker() if _is_chunked(head) else None

    def close(self) -> None:
        """Leave it. Repeating it is safe."""
        drop(self._writer)

    async def read(self) -> bytes:
        """What came, as soon as something comes; b"" now and then. Raises BrokenOffError when it ends, or after
        SILENCE_S seconds of nothing."""
        if self._decoder is not None and self._decoder.ended:
            raise self._wire.broken("ended its answer")
        try:
            async with asyncio.timeout(SILENCE_S):
                data = await self._reader.read(_PIECE_BYTES)
        except TimeoutError as error:
            raise self._wire.broken("fell silent") from error
        except OSError as error:
            raise self._wire.failed(error) from error
        if not data:
            raise self._wire.broken("stopped")
        return data if self._decoder is None else self._decoder.feed(data)


class Unchunker:
    """Takes HTTP's chunked coding off, however the bytes are cut (RFC 9112 §7.1). Trailers are not looked at."""

    def __init__(self) -> None:
        self.ended = False
        self._head = bytearray()
        """Of the chunk's first line, or of the line break behind its content."""
        self._left: int | None = None
        """Bytes of content that are still to come; None: a first line is."""

    def feed(self, data: bytes) -> bytes:
        """The content in these bytes. Raises AgentError for what is no chunked coding."""
        content, position = bytearray(), 0
        while position < len(data) and not self.ended:
            if self._left:
                piece = data[position : position + self._left]
                content += piece
                position, self._left = position + len(piece), self._left - len(piece)
            else:
                self._head.append(data[position])
                position += 1
                self._look()
        return bytes(content)

    def _look(self) -> None:
        """At the framing so far."""
        if self._left == 0:
            if not b"\r\n".startswith(self._head):
                raise _not_chunked()
            if len(self._head) == 2:
                self._left = None
                self._head.clear()
        elif self._head.endswith(b"\r\n"):
            size = self._head[:-2].partition(b";")[0].strip()
            if not _CHUNK_SIZE.fullmatch(size):
                raise _not_chunked()
            self._left = int(size, 16)
            self.ended = self._left == 0
            self._head.clear()
        elif len(self._head) > _MAX_CHUNK_HEAD:
            raise _not_chunked()


def _not_chunked() -> AgentError:
    return AgentError("the agent's answer is not coded in chunks, though it says so")


_BY_CODE: dict[str, type[AgentError]] = {
    "CONFIG": ConfigError,
    "DATABASE_NEWER": DatabaseNewerError,
    "AGENT_UNAVAILABLE": AgentUnavailableError,
    "HOME_IN_USE": HomeInUseError,
    "TOO_MANY_JOBS": LimitError,
    "TOO_MANY_JOBS_PER_USER": LimitError,
    "TOO_MANY_FILES": LimitError,
    "TOO_MANY_RANGES": LimitError,
    "IDEMPOTENCY_CONFLICT": LimitError,
    "NOTIFY_COMMANDS_OFF": LimitError,
}
_BY_EXIT_CODE: dict[ExitCode, type[AgentError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.NOT_FOUND: NotFoundError,
    ExitCode.STATE: StateError,
    ExitCode.LOCAL_FILE: DestinationError,
    ExitCode.DISK_FULL: DestinationError,
}


def error_of(code: str, message: str, context: str) -> AgentError:
    """The exception for an error document."""
    kind = _BY_CODE.get(code)
    if kind is None:
        kind = _BY_EXIT_CODE.get(CODES[code].exit_code, AgentError) if code in CODES else AgentError
    return kind(message, code=code, context=context)


def _problem(status: int, content: bytes) -> AgentError:
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except msgspec.DecodeError as error:
        return AgentError(f"the agent's answer (status {status}) cannot be understood: {error}")
    return error_of(problem.code, problem.detail, problem.context)


def header(head: bytes, wanted: bytes) -> bytes | None:
    """The value of the first header of that name (lower case)."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip()
    return None


def _is_chunked(head: bytes) -> bool:
    coding = header(head, b"transfer-encoding")
    return coding is not None and coding.lower() == b"chunked"
