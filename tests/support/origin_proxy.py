"""A forward proxy for tests: absolute URLs and CONNECT, every host name leads to 127.0.0.1.

    async with ForwardProxy() as proxy:
        proxy.url           # http://127.0.0.1:PORT
        proxy.log           # what it was asked: method, target, headers

Never knows: the product. RFC 9110 §7.3.2, §9.3.6 and §11.7.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the proxy. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]


class ForwardProxy:
    """An async context manager. With `credentials` ("user:password") others get 407; with `status` everybody gets
    that, and `extra` header lines with it."""

    def __init__(self, *, credentials: str | None = None, status: int | None = None, extra: str = "") -> None:
        self.log: list[Asked] = []
        self._wanted = None if credentials is None else "Basic " + b64encode(credentials.encode()).decode()
        self._status, self._extra = status, extra
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> ForwardProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # somebody left, or the proxy ends
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        pairs = [line.partition(":")[::2] for line in lines]
        headers = {name.lower(): value.strip() for name, value in pairs}
        self.log.append(Asked(method, target, headers))
        refusal = self._refusal(headers)
        if refusal is not None:
            writer.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        out_reader, out_writer = await asyncio.open_connection("127.0.0.1", parts.port)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.partition("://")[2].partition("/")[2]
                kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                head = "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "Connection: close"])
                out_writer.write(head.encode("latin-1") + b"\r\n\r\n")
            async with asyncio.TaskGroup() as group:
                there = group.create_task(_pour(reader, out_writer))
                await _pour(out_reader, writer)
                there.cancel()
        finally:
            out_writer.transport.abort()

    def _refusal(self, headers: dict[str, str]) -> str | None:
        if self._status is not None:
            return f"{self._status} Refused{self._extra and chr(13) + chr(10)}{self._extra}"
        if self._wanted is not None and headers.get("proxy-authorization") != self._wanted:
            return '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="proxy"'
        return None


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
