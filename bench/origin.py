"""The origin of demo and bench: a small HTTP/1.1 server for files, in threads of its own, that counts.

GET and HEAD, one range, If-Range, strong ETag and Last-Modified. `sendfile`, so that it is not what is measured.
Never knows: agents.

Sources: RFC 9110 §8.8.3 (ETag), §13.1.5 (If-Range), §14.2 (Range), §15.5.17 (416).
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

PIECE_BYTES = 1024 * 1024
"""Sent between two looks at the counter."""

UNSENT_BYTES = 128 * 1024
"""The system takes no more than this beyond what it has sent: a client that hangs up would be charged for it."""

IDLE_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 2.0
"""Longest wait for answers that nobody reads to their end."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One file that the origin serves."""

    file: Path
    length: int
    etag: str
    last_modified: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What went out so far, over all files: payload bytes handed to the system (headers not counted), and GETs."""

    payload_bytes: int = 0
    gets: int = 0

    def since(self, before: Sent) -> Sent:
        """What went out between two readings."""
        return Sent(payload_bytes=self.payload_bytes - before.payload_bytes, gets=self.gets - before.gets)


class Origin:
    """The server, alive as long as the `with` block. Listens on a free port of one address."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._files: dict[str, Published] = {}
        self._changed = threading.Condition()
        self._sent = Sent()
        self._clients: dict[str, int] = {}
        self._answering = 0
        self._host = host
        self._server = _Server(self, host)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="origin", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()  # threads that still serve end with their connections
        self._thread.join()

    def publish(self, file: Path) -> str:
        """Serve this file; its URL. The file must not change afterwards."""
        status = file.stat()
        mark = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        self._files[f"/{file.name}"] = Published(
            file=file,
            length=status.st_size,
            etag=f'"{hashlib.sha256(mark.encode()).hexdigest()[:16]}"',
            last_modified=email.utils.formatdate(status.st_mtime, usegmt=True),
        )
        return f"http://{self._host}:{self._server.server_address[1]}/{file.name}"

    def sent(self) -> Sent:
        """The counters, once no answer is under way: a client has the last byte a moment before it is counted.

        Blocks, for `SETTLE_TIMEOUT_S` at most.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._answering == 0, SETTLE_TIMEOUT_S)
            return self._sent

    def by_client(self) -> dict[str, int]:
        """Payload bytes handed to the system so far, for each address that asked. Does not wait."""
        with self._changed:
            return dict(self._clients)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """An answer with payload is under way; any thread."""
        with self._changed:
            self._answering += 1
            self._sent = Sent(payload_bytes=self._sent.payload_bytes, gets=self._sent.gets + 1)
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def count(self, payload_bytes: int, client: str) -> None:
        """So many bytes of payload for this address were handed to the system; any thread."""
        with self._changed:
            self._clients[client] = self._clients.get(client, 0) + payload_bytes
            self._sent = Sent(payload_bytes=self._sent.payload_bytes + payload_bytes, gets=self._sent.gets)

    def find(self, path: str) -> Published | None:
        """The file behind a request's target."""
        return self._files.get(path.partition("?")[0])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, origin: Origin, host: str) -> None:
        self.origin = origin
        super().__init__((host, 0), _Handler)

    def server_bind(self) -> None:
        """Without asking what the address is called: a host in a namespace has nobody to ask."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Agents may hang up whenever they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Server

    def do_HEAD(self) -> None:  # the name is http.server's
        self._answer()

    def do_GET(self) -> None:
        with self.server.origin.answering():
            self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Silent."""

    def _answer(self) -> None:
        found = self.server.origin.find(self.path)
        if found is None:
            self.send_response(HTTPStatus.NOT_FOUND)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self._range(found)
        if asked is not None and asked[0] >= asked[1]:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{found.length}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = asked or (0, found.length)
        self.send_response(HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(stop - start))
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{found.length}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", found.etag)
        self.send_header("Last-Modified", found.last_modified)
        self.end_headers()
        if self.command == "GET":
            self._send(found.file, start, stop)

    def _range(self, found: Published) -> tuple[int, int] | None:
        """The half-open range asked for, None for the whole; empty when it cannot be satisfied."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if match is None or match[0] == "bytes=-" or condition not in (None, found.etag, found.last_modified):
            return None
        if not match[1]:
            return max(0, found.length - int(match[2])), found.length
        return int(match[1]), min(int(match[2]) + 1 if match[2] else found.length, found.length)

    def _send(self, file: Path, start: int, stop: int) -> None:
        out, offset = self.connection, start
        self.wfile.flush()
        out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        out.settimeout(None)  # sendfile knows no timeout of Python's; a reader that stalls costs one daemon thread
        with file.open("rb") as source:
            while offset < stop:
                sent = _send_piece(out, source.fileno(), offset, min(PIECE_BYTES, stop - offset))
                self.server.origin.count(sent, self.client_address[0])
                offset += sent
        out.settimeout(IDLE_TIMEOUT_S)


def _send_piece(out: socket.socket, source: int, offset: int, length: int) -> int:
    """Send at most `length` bytes; how many went. Raises OSError when the other side has gone."""
    sent = os.sendfile(out.fileno(), source, offset, length)
    if sent == 0:
        raise ConnectionResetError("the file is shorter than it was")
    return sent
