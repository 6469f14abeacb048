"""The control interface spoken byte by byte, without the library: one request, or a stream of events.

Never knows: anything of the product but HTTP over a unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came back."""

    status: int
    headers: dict[str, str]
    """Lower-case names."""
    content: bytes

    @property
    def document(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.content)


async def ask(
    socket: Path, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
) -> Answered:
    """One request on a connection of its own. `body`: bytes as they are, anything else as JSON."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(request_head(method, target, content, headers) + (content or b""))
        return await answer_from(reader)
    finally:
        writer.transport.abort()


async def answer_from(reader: asyncio.StreamReader) -> Answered:
    """A whole answer, by the length that it names."""
    async with asyncio.timeout(TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        _, headers, _ = split_head(head)
        return answered(head + await reader.readexactly(int(headers["content-length"])))


def request_head(method: str, target: str, content: bytes | None, headers: dict[str, str] | None = None) -> bytes:
    """The head of a request whose body is `content`."""
    given = {"Host": "x", "Connection": "close"}
    if content is not None:
        given |= {"Content-Length": str(len(content)), "Content-Type": JSON}
    given |= headers or {}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answered(raw: bytes) -> Answered:
    """The bytes of a whole answer."""
    status, headers, content = split_head(raw)
    if status >= 400:
        assert headers["content-type"] == "application/problem+json", raw[:300]
        assert json.loads(content)["status"] == status
    else:
        assert headers["content-type"] == JSON, raw[:300]
    return Answered(status=status, headers=headers, content=content)


def split_head(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and what follows them."""
    head, end, content = raw.partition(b"\r\n\r\n")
    assert end, raw
    first, *lines = head.decode("ascii").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, content


class Listening:
    """A stream of server-sent events, read block by block."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        self.headers = headers
        self.writer = writer
        self._reader = reader
        self._text = b""

    async def block(self) -> dict[str, str] | None:
        """The next block: its fields, comments under the empty name; None when the stream ended in good order."""
        async with asyncio.timeout(TIMEOUT_S):
            while b"\n\n" not in self._text:
                size = int(await self._reader.readuntil(b"\r\n"), 16)
                self._text += (await self._reader.readexactly(size + 2))[:-2]
                if size == 0:
                    assert self._text == b""
                    return None
        block, _, self._text = self._text.partition(b"\n\n")
        return dict(
            line.split(": ", 1) if line[0] != ":" else ("", line[2:]) for line in block.decode().split("\n")
        )

    async def event(self) -> tuple[str | None, str, Any]:
        """The next event: its id, kind and document; comments are passed over."""
        while True:
            block = await self.block()
            assert block is not None
            if "data" in block:
                return block.get("id"), block["event"], json.loads(block["data"])


@contextlib.asynccontextmanager
async def listening(socket: Path, target: str, headers: dict[str, str] | None = None) -> AsyncIterator[Listening]:
    """Open a stream; its first block (`retry`) has come. Gone when the block is left."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(request_head("GET", target, None, headers))
        async with asyncio.timeout(TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        status, found, _ = split_head(head)
        assert (status, found["content-type"]) == (200, "text/event-stream; charset=utf-8"), head
        stream = Listening(reader, writer, found)
        assert await stream.block() == {"retry": "1000"}
        yield stream
    finally:
        writer.transport.abort()
