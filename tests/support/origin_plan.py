"""What the test origin knows about its contents, and the answer it would give before any fault.

RFC 9110 §13.1.5 (If-Range) and §14 (ranges, one a request). Never knows: sockets.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

from tests.support.origin_faults import FAULTS, Asked, Fault, Framing, Reply, bend

Content = bytes | Path

BODILESS = (204, 304)
"""Statuses whose answers have neither body nor length."""


@dataclass(slots=True)
class Request:
    """One line of the log. `status` is 0 until the head of the answer is out; `sent` counts payload bytes."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case."""
    at: float
    """Seconds (monotonic) since the origin was made."""
    target: str = ""
    """As it was spelled in the request."""
    early: bool = False
    """It came before the time that an answer with Retry-After had named, of whatever path."""
    status: int = 0
    sent: int = 0
    finished: bool = False
    """The answer went out as it was planned and the connection was not lost meanwhile."""


@dataclass(slots=True)
class Version:
    """One state of a content: bytes and validators."""

    content: Content
    etag: str | None
    modified: int | None

    @property
    def length(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self, start: int, stop: int) -> bytes | memoryview:
        if isinstance(self.content, bytes):
            return memoryview(self.content)[start:stop]
        with self.content.open("rb") as file:
            return os.pread(file.fileno(), stop - start, start)


@dataclass(slots=True)
class Resource:
    """What is served at one path."""

    version: Version
    other: Version
    """What the flipping faults flip to."""
    faults: list[Fault]
    seen: dict[str, int] = field(default_factory=dict)
    """Fault name -> requests it would have concerned so far."""
    headers: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ("GET", "HEAD")
    """Others of them are answered as GET is, without ranges."""
    guard: Callable[[Request], Reply | None] | None = None
    """Asked first; what it returns is the answer."""
    gets: int = 0
    busy: int = 0
    sent: int = 0

    def turn(self, method: str) -> list[Fault]:
        """The faults whose turn it is for a request of this method; counts it."""
        method = method if method == "HEAD" else "GET"
        mine = []
        for fault in self.faults:
            if method in FAULTS[fault.name][0]:
                number = self.seen.get(fault.name, 0)
                self.seen[fault.name] = number + 1
                if number >= fault.skip and (fault.times is None or number < fault.skip + fault.times):
                    mine.append(fault)
        return mine

    def version_for(self, method: str, names: set[str]) -> Version:
        """The version that this request meets, when a fault makes it change under the client."""
        number, self.gets = self.gets, self.gets + (method == "GET")
        flipped = number % 2 == 1
        if "changes-once" in names:
            return self.other if method == "GET" and number >= 1 else self.version
        if names & {"etag-flip", "etag-flip-206"}:
            return self.other if flipped else self.version
        if "silent-flip" in names and flipped:
            return Version(self.other.content, self.version.etag, self.version.modified)
        if "size-flip" in names and flipped:
            half = self.version.read(0, self.version.length // 2)
            return Version(bytes(half), self.version.etag, self.version.modified)
        return self.version


def etag_of(content: Content) -> str:
    if isinstance(content, Path):
        facts = content.stat()
        return f'"{facts.st_size:x}-{facts.st_mtime_ns:x}"'
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def plan(resource: Resource, request: Request) -> tuple[Version, Reply]:
    """The honest answer, then bent by the faults whose turn it is."""
    refused = resource.guard(request) if resource.guard is not None else None
    if refused is not None:
        return resource.version, refused
    faults = resource.turn(request.method)
    names = {fault.name for fault in faults}
    version = resource.version_for(request.method, names)
    if request.method not in resource.methods:
        return version, plain(405, f"{' and '.join(resource.methods)} only\n".encode())
    reply = _honest(version, request, ignore_if_range=bool(names & {"etag-flip-206"}))
    for name, value in resource.headers:
        reply.set(name, value)
    hop = parse_qs(request.query).get("hop", ["-1"])[0]
    asked = Asked(request.method, request.path, "", request.headers, int(hop), resource.busy)
    bend(reply, iter(faults), asked)
    return version, reply


def _honest(version: Version, request: Request, ignore_if_range: bool) -> Reply:
    total = version.length
    reply = Reply(status=200, total=total, start=0, stop=total)
    reply.headers = [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes")]
    if version.etag is not None:
        reply.set("ETag", version.etag)
    if version.modified is not None:
        reply.set("Last-Modified", formatdate(version.modified, usegmt=True))
    condition = request.headers.get("if-range")
    current = (version.etag, dict(reply.headers).get("Last-Modified"))
    matches = condition is None or ignore_if_range or condition in current
    if request.method == "GET" and "range" in request.headers and matches:
        wanted = _parse_range(request.headers["range"], total)
        if wanted is None:
            reply.status, reply.body = 416, b""
            reply.set("Content-Range", f"bytes */{total}")
        else:
            reply.status, (reply.start, reply.stop) = 206, wanted
            reply.set("Content-Range", f"bytes {reply.start}-{reply.stop - 1}/{total}")
    return reply


def _parse_range(text: str, total: int) -> tuple[int, int] | None:
    """One range as half-open bytes, or None when it cannot be satisfied."""
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not first:
        start, stop = max(0, total - int(last)), total
    else:
        start, stop = int(first), min(int(last) + 1, total) if last else total
    return (start, stop) if start < stop else None


def plain(status: int, body: bytes) -> Reply:
    return Reply(status=status, total=len(body), body=body, headers=[("Content-Type", "text/plain")])


def away_s(reply: Reply) -> float:
    """Seconds for which this answer sends the client away."""
    for name, value in reply.headers:
        if name == "Retry-After" and reply.status in (429, 503):
            with contextlib.suppress(ValueError):
                return float(value)
            with contextlib.suppress(ValueError, TypeError):
                return parsedate_to_datetime(value).timestamp() - time.time()
    return 0.0


def head_of(reply: Reply) -> bytes:
    try:
        reason = HTTPStatus(reply.status).phrase
    except ValueError:
        reason = "Odd"
    headers = list(reply.headers)
    if reply.framing is Framing.CHUNKED:
        headers.append(("Transfer-Encoding", "chunked"))
    elif reply.framing is Framing.LENGTH and reply.status not in BODILESS:
        headers.append(("Content-Length", reply.content_length or str(reply.length)))
    if reply.close:
        headers.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {reply.status} {reason}"] + [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def payload(reply: Reply, version: Version | None, sent: int, count: int) -> bytes | memoryview:
    if reply.endless:
        return b"\0" * count
    if reply.body is not None:
        return reply.body[sent : sent + count]
    assert version is not None
    start = reply.start + sent
    if reply.shift:
        data = bytes(version.read(start + reply.shift, start + reply.shift + count))
        return data.ljust(count, b"\xdd")
    if reply.bad_byte is not None and start <= reply.bad_byte < start + count:
        spoiled = bytearray(version.read(start, start + count))
        spoiled[reply.bad_byte - start] ^= 0xFF
        return bytes(spoiled)
    return version.read(start, start + count)
