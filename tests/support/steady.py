"""An origin for large files: a steady rate, every payload byte counted, in threads of its own (`sendfile`).

    with SteadyOrigin(file, rate=150e6) as origin:
        origin.wait_for(200_000_000)        # returns as soon as so many bytes of payload went out
        origin.payload, origin.gets

`origin.hold(n)` stops sending once `n` bytes went out, until `go_on`. What went out may still be in the system's
buffers, so these are kept small. Never knows: the product.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

PIECE = 128 * 1024
BUFFER = 128 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class SteadyOrigin:
    """Serves one file at every path. `rate`: bytes a second, all connections together."""

    def __init__(self, file: Path, rate: float) -> None:
        self.file, self.rate = file, rate
        self.length = file.stat().st_size
        self.etag = f'"{file.stat().st_ino:x}-{file.stat().st_mtime_ns:x}"'
        self.payload = 0
        self.gets = 0
        self._hold_at: int | None = None
        self._changed = threading.Condition()
        self._free_at = 0.0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.origin = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, name: str = "large.bin") -> str:
        """Any name will do."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def wait_for(self, payload: int, timeout_s: float = 20.0) -> None:
        """Until so many bytes of payload went out in all."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: self.payload >= payload, timeout_s)
        assert arrived, f"only {self.payload} bytes went out within {timeout_s:g} s"

    def sent(self, count: int) -> None:
        """Count, and wait as the rate demands."""
        with self._changed:
            self.payload += count
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.02) + count / self.rate
            delay = self._free_at - now
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._hold_at is None or self.payload < self._hold_at)
        if delay > 0.001:
            time.sleep(delay)  # the rate; nobody waits for this to have happened

    def hold(self, at: int | None) -> None:
        """Send nothing more once `at` bytes of payload went out; None: hold no more."""
        with self._changed:
            self._hold_at = at
            self._changed.notify_all()

    def go_on(self) -> None:
        """Hold no more."""
        self.hold(None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    origin: SteadyOrigin

    def handle_error(self, request: object, client_address: object) -> None:
        """Agents are killed in the middle of everything."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0
    server: _Server

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        super().setup()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Silent."""

    def do_HEAD(self) -> None:  # as above
        self._head(200, 0, self.server.origin.length)

    def do_GET(self) -> None:
        origin = self.server.origin
        origin.gets += 1
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or self.headers.get("If-Range", origin.etag) != origin.etag:
            self._head(200, 0, origin.length)
            return self._send(0, origin.length)
        start, stop = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else origin.length, origin.length)
        self._head(206, start, stop)
        return self._send(start, stop)

    def _head(self, status: int, start: int, stop: int) -> None:
        origin = self.server.origin
        self.send_response(status)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", origin.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{origin.length}")
        self.end_headers()

    def _send(self, start: int, stop: int) -> None:
        self.wfile.flush()
        self.connection.settimeout(None)  # sendfile(2) knows no timeout of Python's
        with self.server.origin.file.open("rb") as file:
            while start < stop:
                count = os.sendfile(self.connection.fileno(), file.fileno(), start, min(PIECE, stop - start))
                self.server.origin.sent(count)
                start += count
        self.connection.settimeout(self.timeout)


def large_file(path: Path, size: int) -> Path:
    """Bytes that repeat nowhere (a number at the head of each MiB, noise behind it)."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for index in range(-(-size // len(block))):
            piece = index.to_bytes(8, "big") + block[8:]
            file.write(piece[: size - index * len(block)])
    return path
