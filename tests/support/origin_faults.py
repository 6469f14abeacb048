"""The catalogue of faults of the test origin: what each name does to a reply.

A reply is planned honestly first (`tests/support/origin.py`), then the faults of the resource bend the plan, in the
order in which they were given. Whatever cannot be planned (garbage, silence) is an `ending` or `raw` bytes.

Never knows: sockets.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum

HEADERS = list[tuple[str, str]]


class Framing(Enum):
    """How the end of a body is told."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class Ending(Enum):
    """What happens after the last byte that is sent."""

    NORMAL = "normal"
    CLOSE = "close"
    RESET = "reset"
    SILENT = "silent"
    """Nothing more comes, the connection stays open."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `name` is from `FAULTS`; the rest is its measure, where it has one.

    `times` limits it to the first n requests that it would have bent, `skip` leaves out the first n.
    """

    name: str
    times: int | None = None
    skip: int = 0
    value: str = ""
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """`name[:key=value,...]`, as the command line gives it. Raises ValueError for an unknown name."""
        name, _, rest = text.partition(":")
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}")
        given = dict(item.split("=", 1) for item in rest.split(",") if item)
        return cls(
            name,
            times=int(given["times"]) if "times" in given else None,
            skip=int(given.get("skip", 0)),
            value=given.get("value", ""),
            count=int(given.get("count", 0)),
        )


@dataclass(slots=True)
class Reply:
    """A plan of one answer. `start`/`stop` are the bytes of the content that go out."""

    status: int
    total: int
    start: int = 0
    stop: int = 0
    headers: HEADERS = field(default_factory=list)
    framing: Framing = Framing.LENGTH
    content_length: str | None = None
    """Says this in place of the true number."""
    body: bytes | None = None
    """Goes out in place of the content."""
    shift: int = 0
    """Bytes are taken from so much further on."""
    bad_byte: int | None = None
    """Offset of one byte that goes out inverted."""
    surplus: bytes = b""
    """Follows the announced bytes."""
    cut: int | None = None
    """At most so many bytes of payload."""
    ending: Ending = Ending.NORMAL
    pace: float | None = None
    """Bytes a second for this reply alone."""
    endless: bool = False
    bad_chunk: bool = False
    """After the payload, a chunk header that is none."""
    raw: bytes | None = None
    """Goes out in place of the whole answer, head included."""
    informational: int = 0
    """So many `103` replies come first."""
    close: bool = False

    @property
    def length(self) -> int:
        """Bytes of payload that the plan holds."""
        return len(self.body) if self.body is not None else self.stop - self.start

    def set(self, name: str, value: str | None) -> None:
        """Replace a header; None removes it."""
        self.headers = [item for item in self.headers if item[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a fault may look at."""

    method: str
    path: str
    url: str
    headers: dict[str, str]
    hop: int
    """From `?hop=n` in the URL, for redirect chains; -1 when there is none."""
    busy: int
    """Requests for this path that are being answered, this one included."""

    @property
    def ranged(self) -> bool:
        return "range" in self.headers


Bend = Callable[[Reply, Fault, Asked], None]
FAULTS: dict[str, tuple[frozenset[str], Bend]] = {}
"""Name -> the methods it concerns, and what it does."""

_GET = frozenset({"GET"})
_HEAD = frozenset({"HEAD"})
_BOTH = frozenset({"GET", "HEAD"})


def _fault(name: str, methods: frozenset[str] = _GET) -> Callable[[Bend], Bend]:
    def keep(bend: Bend) -> Bend:
        FAULTS[name] = (methods, bend)
        return bend

    return keep


def bend(reply: Reply, faults: Iterator[Fault], asked: Asked) -> None:
    """Apply the faults that concern this method (whether it is their turn is the caller's business)."""
    for fault in faults:
        FAULTS[fault.name][1](reply, fault, asked)


def _answer(reply: Reply, status: int, text: bytes = b"") -> None:
    reply.status, reply.body, reply.framing, reply.content_length = status, text, Framing.LENGTH, None
    for name in ("Content-Range", "ETag", "Last-Modified"):
        reply.set(name, None)


# --- the body ends badly ---------------------------------------------------------------------------------------


@_fault("cut-half")
def _cut_half(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.cut, reply.ending = reply.length // 2, Ending.CLOSE


@_fault("cut-every")
def _cut_every(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Every reply ends after `count` bytes (default 64 KiB)."""
    limit = fault.count or 64 * 1024
    if reply.length > limit:
        reply.cut, reply.ending = limit, Ending.CLOSE


@_fault("reset")
def _reset(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.cut, reply.ending = reply.length // 2, Ending.RESET


@_fault("silent")
def _silent(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.cut, reply.ending = reply.length // 2, Ending.SILENT


@_fault("drip")
def _drip(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`count` bytes a second (default 10)."""
    reply.pace = fault.count or 10


# --- lengths ---------------------------------------------------------------------------------------------------


@_fault("promise-more", _BOTH)
def _promise_more(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Claims `count` bytes more (default 1000) than there are, then closes."""
    more = fault.count or 1000
    if reply.status == 206:
        reply.set("Content-Range", f"bytes {reply.start}-{reply.stop - 1}/{reply.total + more}")
        _, _, last = asked.headers["range"].partition("-")
        if last and int(last) < reply.stop:
            return
        reply.set("Content-Range", f"bytes {reply.start}-{reply.total + more - 1}/{reply.total + more}")
    reply.content_length, reply.ending = str(reply.length + more), Ending.CLOSE


@_fault("head-lies", _HEAD)
def _head_lies(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.content_length = fault.value or str(reply.total * 2 + 1)


@_fault("head-no-length", _HEAD)
def _head_no_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing, reply.close = Framing.CLOSE, True


@_fault("head-missing", _HEAD)
def _head_missing(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The connection closes without an answer."""
    reply.raw, reply.ending = b"", Ending.CLOSE


@_fault("head-status", _HEAD)
def _head_status(reply: Reply, fault: Fault, asked: Asked) -> None:
    """HEAD alone is refused with `count` (default 405)."""
    _answer(reply, fault.count or 405)


@_fault("huge-length", _BOTH)
def _huge_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.content_length, reply.ending = fault.value or str(10**18), Ending.CLOSE
    if reply.status == 206:
        reply.set("Content-Range", f"bytes {reply.start}-{reply.stop - 1}/{reply.content_length}")
        reply.content_length, reply.ending = None, Ending.NORMAL


@_fault("bad-content-length", _BOTH)
def _bad_content_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`value` (default "many") stands where the number should."""
    reply.content_length = fault.value or "many"


@_fault("two-content-lengths", _BOTH)
def _two_content_lengths(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.headers.append(("Content-Length", str(reply.length + 1)))


@_fault("length-and-chunked")
def _length_and_chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing = Framing.CHUNKED
    reply.headers.append(("Content-Length", str(reply.length)))


@_fault("no-length", _BOTH)
def _no_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing, reply.close = Framing.CLOSE, True


@_fault("chunked", _BOTH)
def _chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing = Framing.CHUNKED


@_fault("chunked-cut")
def _chunked_cut(reply: Reply, fault: Fault, asked: Asked) -> None:
    """All the payload comes, the last chunk (the end) does not."""
    reply.framing, reply.cut, reply.ending = Framing.CHUNKED, reply.length, Ending.CLOSE


@_fault("chunked-garbage")
def _chunked_garbage(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Half the payload, then something that is no chunk; the connection stays open."""
    reply.framing, reply.cut, reply.bad_chunk = Framing.CHUNKED, reply.length // 2, True
    reply.ending = Ending.SILENT


@_fault("endless-chunked", _BOTH)
def _endless_chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 200, b"")
    reply.framing, reply.endless = Framing.CHUNKED, True


# --- ranges ----------------------------------------------------------------------------------------------------


@_fault("no-ranges", _BOTH)
def _no_ranges(reply: Reply, fault: Fault, asked: Asked) -> None:
    _whole(reply)
    reply.set("Accept-Ranges", "none")


@_fault("promise-ranges", _BOTH)
def _promise_ranges(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Says `Accept-Ranges: bytes` and answers 200 all the same."""
    _whole(reply)


def _whole(reply: Reply) -> None:
    if reply.status in (206, 416):
        reply.status, reply.start, reply.stop = 200, 0, reply.total
        reply.set("Content-Range", None)


@_fault("range-416")
def _range_416(reply: Reply, fault: Fault, asked: Asked) -> None:
    """416 for every range; `value` stands in Content-Range (default the true size; "-" for no header)."""
    if asked.ranged:
        total = reply.total
        _answer(reply, 416)
        if fault.value != "-":
            reply.set("Content-Range", f"bytes */{fault.value or total}")


@_fault("wrong-range")
def _wrong_range(reply: Reply, fault: Fault, asked: Asked) -> None:
    """206 for a range that begins `count` bytes (default 1) further on; header and bytes agree."""
    if reply.status == 206:
        reply.start = min(reply.start + (fault.count or 1), reply.total - 1)
        reply.stop = max(reply.stop, reply.start + 1)
        reply.set("Content-Range", f"bytes {reply.start}-{reply.stop - 1}/{reply.total}")


@_fault("shifted")
def _shifted(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The right header, bytes from `count` (default 1) further on."""
    reply.shift = fault.count or 1


@_fault("no-content-range")
def _no_content_range(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("Content-Range", None)


@_fault("bad-content-range")
def _bad_content_range(reply: Reply, fault: Fault, asked: Asked) -> None:
    if reply.status == 206:
        reply.set("Content-Range", fault.value or "bytes all")


@_fault("too-long")
def _too_long(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Right headers, then `count` bytes (default 1000) more than they say."""
    reply.surplus = b"\xee" * (fault.count or 1000)


@_fault("too-long-chunked")
def _too_long_chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    """As too-long, but chunked: nothing in the head contradicts it."""
    reply.framing, reply.surplus = Framing.CHUNKED, b"\xee" * (fault.count or 1000)


@_fault("too-long-declared")
def _too_long_declared(reply: Reply, fault: Fault, asked: Asked) -> None:
    """206 with the right Content-Range and a Content-Length that is larger, and so is the body."""
    if reply.status == 206:
        reply.surplus = b"\xee" * (fault.count or 1000)
        reply.content_length = str(reply.length + len(reply.surplus))


@_fault("multipart")
def _multipart(reply: Reply, fault: Fault, asked: Asked) -> None:
    if reply.status == 206:
        reply.set("Content-Range", None)
        reply.set("Content-Type", "multipart/byteranges; boundary=x")


# --- validators (the versions themselves are the origin's business) -------------------------------------------


@_fault("weak-etag", _BOTH)
def _weak_etag(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.headers = [(n, "W/" + v if n == "ETag" and not v.startswith("W/") else v) for n, v in reply.headers]


@_fault("no-validators", _BOTH)
def _no_validators(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("ETag", None)
    reply.set("Last-Modified", None)


@_fault("bad-byte")
def _bad_byte(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The byte at offset `count` is always wrong."""
    reply.bad_byte = fault.count


def _nothing(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The origin itself acts on these: see `Resource.version_for`."""


for _name in ("etag-flip", "etag-flip-206", "size-flip", "silent-flip", "changes-once"):
    FAULTS[_name] = (_GET, _nothing)


# --- encodings and what is said about the content -------------------------------------------------------------


@_fault("gzip", _BOTH)
def _gzip(reply: Reply, fault: Fault, asked: Asked) -> None:
    _whole(reply)
    reply.set("Content-Encoding", fault.value or "gzip")


@_fault("gzip-bomb", _BOTH)
def _gzip_bomb(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 200, gzip.compress(b"\0" * (64 << 20), 1))
    reply.set("Content-Encoding", "gzip")


@_fault("disposition", _BOTH)
def _disposition(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("Content-Disposition", fault.value or 'attachment; filename="../../../../tmp/owned"')


@_fault("header", _BOTH)
def _header(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Sets any header: `value` is `Name: text`."""
    name, _, text = fault.value.partition(":")
    reply.set(name, text.strip())


@_fault("login-page", _GET)
def _login_page(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 200, b"<html><form>Please log in</form></html>")
    reply.set("Content-Type", "text/html")


# --- statuses --------------------------------------------------------------------------------------------------


@_fault("status", _BOTH)
def _status(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Answers `count`; `value` becomes Retry-After ("date+N" for the HTTP date in N seconds)."""
    _answer(reply, fault.count, b"sorry\n")
    _retry_after(reply, fault.value)


@_fault("busy-above", _GET)
def _busy_above(reply: Reply, fault: Fault, asked: Asked) -> None:
    """503 while more than `count` requests for the path are under way."""
    if asked.busy > fault.count:
        _answer(reply, 503, b"busy\n")
        _retry_after(reply, fault.value)


def _retry_after(reply: Reply, value: str) -> None:
    if value.startswith("date+"):
        import time

        value = formatdate(time.time() + float(value[5:]), usegmt=True)
    if value:
        reply.set("Retry-After", value)


@_fault("auth", _BOTH)
def _auth(reply: Reply, fault: Fault, asked: Asked) -> None:
    """401 unless `Authorization` is exactly `value`."""
    if asked.headers.get("authorization") != fault.value:
        _answer(reply, 401)
        reply.set("WWW-Authenticate", 'Basic realm="test"')


# --- redirects -------------------------------------------------------------------------------------------------


@_fault("redirect", _BOTH)
def _redirect(reply: Reply, fault: Fault, asked: Asked) -> None:
    """To `value`, with status `count` (default 302)."""
    _answer(reply, fault.count or 302)
    reply.set("Location", fault.value)


@_fault("redirect-loop", _BOTH)
def _redirect_loop(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 302)
    reply.set("Location", asked.path)


@_fault("redirect-chain", _BOTH)
def _redirect_chain(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`count` redirects (default 5), then the content."""
    left = asked.hop if asked.hop >= 0 else (fault.count or 5)
    if left > 0:
        _answer(reply, 302)
        reply.set("Location", f"{asked.path}?hop={left - 1}")


@_fault("redirect-nowhere", _BOTH)
def _redirect_nowhere(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 302)


# --- no HTTP at all --------------------------------------------------------------------------------------------


@_fault("never-answers", _BOTH)
def _never_answers(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"", Ending.SILENT


@_fault("closes", _BOTH)
def _closes(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"", Ending.CLOSE


@_fault("not-http", _BOTH)
def _not_http(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"220 mail.example ESMTP <script>alert(1)</script>\r\n" * 50, Ending.CLOSE


@_fault("http09", _BOTH)
def _http09(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"just the bytes, no head at all\n" * 100, Ending.CLOSE


@_fault("huge-header", _BOTH)
def _huge_header(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("X-Long", "a" * (4 << 20))


@_fault("many-headers", _BOTH)
def _many_headers(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.headers += [(f"X-{index}", "x") for index in range(20_000)]


@_fault("wide-headers", _BOTH)
def _wide_headers(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Few enough and each short enough, but more than 64 KiB together."""
    reply.headers += [(f"X-{index}", "x" * 4000) for index in range(20)]


@_fault("nul-header", _BOTH)
def _nul_header(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("X-Odd", "a\0b")


@_fault("cr-header", _BOTH)
def _cr_header(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("X-Odd", "a\rSet-Cookie: b=c")


@_fault("early-hints", _BOTH)
def _early_hints(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`count` replies of status 103 (default 3) before the real one."""
    reply.informational = fault.count or 3
