"""A real HTTP(S) origin for tests: serves contents with validators and ranges, and misbehaves on demand.

    async with Origin() as origin:
        origin.add("/big.iso", data, faults=["cut-half", Fault("status", count=503, value="2", times=1)])
        origin.url("/big.iso")      # http://127.0.0.1:43210/big.iso
        origin.sent("/big.iso")     # bytes of payload that went out for this path
        origin.log                  # every request, in order of arrival: method, path, headers, status, sent

TLS: `Origin(tls=authority.good())` with `tests.support.origin_tls.Authority`; clients trust `authority.ca_file`.
A process of its own: `python -m tests.support.origin --directory D --port 0 --fault /x=cut-half:times=1`; it prints
`ready URL` and appends one JSON line a request to `--log FILE`. The faults are listed in `origin_faults.FAULTS`.

Every fault concerns the methods named there; `times` and `skip` count the requests of those methods for the path.
Without faults the origin is correct: If-Range and one range a request as in RFC 9110 §13.1.5 and §14, keep-alive.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.origin_faults import Ending, Fault, Framing, Reply
from tests.support.origin_plan import (
    BODILESS,
    Content,
    Request,
    Resource,
    Version,
    away_s,
    etag_of,
    head_of,
    payload,
    plain,
    plan,
)
from tests.support.origin_tls import ServerCertificate

_PIECE = 256 * 1024
_MODIFIED = 1_700_000_000


class Origin:
    """The server. An async context manager; everything it opens it closes.

    `rate` limits all payload together, in bytes a second. `host` is the address to listen on. With `client_ca`, a
    PEM file, clients must show a certificate of that authority.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerCertificate | None = None,
        client_ca: Path | None = None,
        rate: float | None = None,
    ) -> None:
        self.log: list[Request] = []
        self.rate = rate
        self.connections = 0
        """Connections that are open now."""
        self.accepted = 0
        """Connections accepted so far."""
        self._host, self._port, self._tls = host, port, tls
        self._client_ca = client_ca
        self._away_until = 0.0
        self._resources: dict[str, Resource] = {}
        self._directory: Path | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._began = time.monotonic()
        self._free_at = 0.0
        self.on_request: Callable[[Request], None] | None = None
        """Called with every request when its answer is over."""

    # --- what tests use ------------------------------------------------------------------------------------

    def add(
        self,
        path: str,
        content: Content,
        *,
        faults: Iterable[str | Fault] = (),
        other: bytes | None = None,
        etag: str | None = "auto",
        modified: int | None = _MODIFIED,
        headers: tuple[tuple[str, str], ...] = (),
        methods: tuple[str, ...] = ("GET", "HEAD"),
        guard: Callable[[Request], Reply | None] | None = None,
    ) -> Resource:
        """Serve `content` (bytes or a file) at `path`. `other` is the content that flipping faults change to
        (default: every byte inverted). `etag` "auto" makes one from the bytes, None sends none. `methods` are
        answered, and `guard` may answer in the content's place."""
        if other is None:
            other = bytes(255 - byte for byte in content[:65536]) if isinstance(content, bytes) else b"other"
            if isinstance(content, bytes):
                other += content[65536:]
        resource = Resource(
            version=Version(content, etag_of(content) if etag == "auto" else etag, modified),
            other=Version(other, etag_of(other) if etag == "auto" else etag, modified and modified + 60),
            faults=[item if isinstance(item, Fault) else Fault.parse(item) for item in faults],
            headers=headers,
            methods=methods,
            guard=guard,
        )
        self._resources[path] = resource
        return resource

    def serve_directory(self, directory: Path) -> None:
        """Serve the files below `directory` too, looked up at each request."""
        self._directory = directory

    def url(self, path: str, *, host: str | None = None) -> str:
        """The URL of a path; `host` stands in for the address (for names that resolve to it)."""
        shown = host or (f"[{self._host}]" if ":" in self._host else self._host)
        return f"{'https' if self._tls else 'http'}://{shown}:{self.port}{path}"

    @property
    def port(self) -> int:
        assert self._server is not None, "the origin is not running"
        return int(self._server.sockets[0].getsockname()[1])

    def sent(self, path: str) -> int:
        """Bytes of payload sent for `path` so far."""
        return self._resources[path].sent

    def requests(self, path: str | None = None, method: str | None = None) -> list[Request]:
        """The log, filtered."""
        return [r for r in self.log if path in (None, r.path) and method in (None, r.method)]

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until `condition()` holds; it is asked after everything that happens here."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    # --- running -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Origin:
        context = self._tls.context(self._client_ca) if self._tls else None
        self._server = await asyncio.start_server(
            self._connected, self._host, self._port, ssl=context, limit=1 << 17, backlog=512
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # transports tell that they are closed in the loop's next round

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.accepted += 1
        if self.rate is not None:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            writer.transport.set_write_buffer_limits(high=32 * 1024)
        try:
            while await self._exchange(reader, writer):
                pass
            await _close(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client left, or never meant to speak HTTP
        except asyncio.CancelledError:
            pass  # the origin ends; nobody waits for this task
        finally:
            self._tasks.discard(task)
            self.connections -= 1
            writer.transport.abort()
            self._changed.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; True when the connection may carry another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        parts = urlsplit(target)
        request = Request(method, unquote(parts.path), parts.query, headers, time.monotonic() - self._began)
        request.target = target
        request.early = time.monotonic() < self._away_until
        self.log.append(request)
        self._changed.set()
        resource = self._find(request.path)
        if resource is None:
            await self._send(writer, request, plain(404, b"no such file\n"), None, None)
            return True
        resource.busy += 1
        try:
            version, reply = plan(resource, request)
            await self._send(writer, request, reply, version, resource)
            if reply.ending is Ending.SILENT:
                await reader.read()  # until the client has had enough
        finally:
            resource.busy -= 1
            if self.on_request is not None:
                self.on_request(request)
            self._changed.set()
        if reply.ending is Ending.RESET:
            _reset(writer)
        return reply.ending is Ending.NORMAL and not reply.close and headers.get("connection") != "close"

    def _find(self, path: str) -> Resource | None:
        if path not in self._resources and self._directory is not None:
            file = (self._directory / path.lstrip("/")).resolve()
            if file.is_file() and file.is_relative_to(self._directory.resolve()):
                self.add(path, file)
        return self._resources.get(path)

    # --- sending -------------------------------------------------------------------------------------------

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        request: Request,
        reply: Reply,
        version: Version | None,
        resource: Resource | None,
    ) -> None:
        if reply.raw is not None:
            writer.write(reply.raw)
            await writer.drain()
            request.finished = True
            return
        for _ in range(reply.informational):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
        self._away_until = max(self._away_until, time.monotonic() + away_s(reply))
        writer.write(head_of(reply))
        request.status = reply.status
        self._changed.set()
        if request.method != "HEAD" and reply.status not in BODILESS:
            await self._send_body(writer, request, reply, version, resource)
        await writer.drain()
        request.finished = True

    async def _send_body(
        self,
        writer: asyncio.StreamWriter,
        request: Request,
        reply: Reply,
        version: Version | None,
        resource: Resource | None,
    ) -> None:
        limit = reply.length if reply.cut is None else min(reply.cut, reply.length)
        sent = 0
        while sent < limit or reply.endless:
            count = min(self._piece(reply), limit - sent) if not reply.endless else _PIECE
            data = payload(reply, version, sent, count)
            await self._pace(len(data), reply)
            _write(writer, reply, data)
            await writer.drain()
            sent += len(data)
            request.sent += len(data)
            if resource is not None:
                resource.sent += len(data)
            self._changed.set()
        if reply.surplus:
            _write(writer, reply, reply.surplus)
        if reply.bad_chunk:
            writer.write(b"zz\r\nthis is no chunk\r\n")
        elif reply.framing is Framing.CHUNKED and reply.ending is Ending.NORMAL:
            writer.write(b"0\r\n\r\n")

    def _piece(self, reply: Reply) -> int:
        pace = reply.pace or self.rate
        return _PIECE if pace is None else max(1, min(16 * 1024, int(pace / 20)))

    async def _pace(self, count: int, reply: Reply) -> None:
        """Keep to the reply's own pace, or to the rate that all replies share."""
        if reply.pace is not None:
            await asyncio.sleep(count / reply.pace)
        elif self.rate is not None:
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now - 0.02) + count / self.rate
            if self._free_at > now:
                await asyncio.sleep(self._free_at - now)


def _write(writer: asyncio.StreamWriter, reply: Reply, data: bytes | memoryview) -> None:
    if reply.framing is Framing.CHUNKED:
        writer.write(b"%x\r\n" % len(data))
        writer.write(data)
        writer.write(b"\r\n")
    else:
        writer.write(data)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Send what is buffered, then close; five seconds at most (TLS waits for the other side)."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST in place of FIN: linger 0 (`SO_LINGER`, socket(7))."""
    with contextlib.suppress(OSError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _serve(options: argparse.Namespace) -> None:
    tls = None
    if options.certificate:
        tls = ServerCertificate(Path(options.certificate), Path(options.key))
    async with Origin(host=options.host, port=options.port, tls=tls, rate=options.rate) as origin:
        if options.directory:
            origin.serve_directory(Path(options.directory))
        faults: dict[str, list[str]] = {}
        for text in options.fault:
            path, _, fault = text.partition("=")
            faults.setdefault(path, []).append(fault)
        for path, names in faults.items():
            origin.add(path, Path(options.directory) / path.lstrip("/"), faults=names)
        with contextlib.ExitStack() as stack:
            if options.log:
                file = stack.enter_context(open(options.log, "a", encoding="utf-8", buffering=1))
                origin.on_request = lambda request: print(json.dumps(_as_json(request)), file=file)
            print(f"ready {origin.url('')}", flush=True)
            await asyncio.Event().wait()


def _as_json(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__slots__}


def main(arguments: list[str] | None = None) -> int:
    """Run an origin until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.origin", description="An origin that can misbehave."
    )
    parser.add_argument("--directory", help="serve the files below it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, help="bytes a second, all replies together")
    parser.add_argument("--certificate", help="PEM file; with --key: HTTPS")
    parser.add_argument("--key")
    parser.add_argument("--log", help="append one JSON line a request")
    parser.add_argument("--fault", action="append", default=[], metavar="PATH=NAME[:key=value,...]")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
