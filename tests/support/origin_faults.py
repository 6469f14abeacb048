"""The catalogue of faults of the test origin: what each name does to a reply.

A reply is planned honestly first (`origin_plan`), then the faults of the resource bend the plan, in the order in
which they were given. Whatever cannot be planned (garbage, silence) is an `ending` or `raw` bytes.

Never knows: sockets.
"""

from __future__ import annotations

import functools
import gzip
import time
from email.utils import formatdate

from tests.support.origin_reply import (
    BOTH,
    FAULTS,
    GET,
    HEAD,
    Asked,
    Ending,
    Fault,
    Framing,
    Reply,
    bend,
    fault_named,
)

__all__ = ["FAULTS", "Asked", "Ending", "Fault", "Framing", "Reply", "bend"]


def _answer(reply: Reply, status: int, text: bytes = b"") -> None:
    reply.status, reply.body, reply.framing, reply.content_length = status, text, Framing.LENGTH, None
    for name in ("Content-Range", "ETag", "Last-Modified"):
        reply.set(name, None)


# --- the body ends badly ---------------------------------------------------------------------------------------


@fault_named("cut-half")
def _cut_half(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.cut, reply.ending = reply.length // 2, Ending.CLOSE


@fault_named("cut-every")
def _cut_every(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Every reply ends after `count` bytes (default 64 KiB)."""
    limit = fault.count or 64 * 1024
    if reply.length > limit:
        reply.cut, reply.ending = limit, Ending.CLOSE


@fault_named("reset")
def _reset(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.cut, reply.ending = reply.length // 2, Ending.RESET


@fault_named("silent")
def _silent(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.cut, reply.ending = reply.length // 2, Ending.SILENT


@fault_named("drip")
def _drip(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`count` bytes a second (default 10)."""
    reply.pace = fault.count or 10


# --- lengths ---------------------------------------------------------------------------------------------------


@fault_named("promise-more", BOTH)
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


@fault_named("head-lies", HEAD)
def _head_lies(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.content_length = fault.value or str(reply.total * 2 + 1)


@fault_named("head-no-length", HEAD)
def _head_no_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing, reply.close = Framing.CLOSE, True


@fault_named("head-missing", HEAD)
def _head_missing(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The connection closes without an answer."""
    reply.raw, reply.ending = b"", Ending.CLOSE


@fault_named("head-status", HEAD)
def _head_status(reply: Reply, fault: Fault, asked: Asked) -> None:
    """HEAD alone is refused with `count` (default 405)."""
    _answer(reply, fault.count or 405)


@fault_named("huge-length", BOTH)
def _huge_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.content_length, reply.ending = fault.value or str(10**18), Ending.CLOSE
    if reply.status == 206:
        reply.set("Content-Range", f"bytes {reply.start}-{reply.stop - 1}/{reply.content_length}")
        reply.content_length, reply.ending = None, Ending.NORMAL


@fault_named("bad-content-length", BOTH)
def _bad_content_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`value` (default "many") stands where the number should."""
    reply.content_length = fault.value or "many"


@fault_named("two-content-lengths", BOTH)
def _two_content_lengths(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.headers.append(("Content-Length", str(reply.length + 1)))


@fault_named("header-twice", BOTH)
def _header_twice(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The header that `value` names comes a second time, with another text."""
    reply.headers += [(name, text + "x") for name, text in reply.headers if name == fault.value]


@fault_named("length-and-chunked")
def _length_and_chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing = Framing.CHUNKED
    reply.headers.append(("Content-Length", str(reply.length)))


@fault_named("no-length", BOTH)
def _no_length(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing, reply.close = Framing.CLOSE, True


@fault_named("chunked", BOTH)
def _chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.framing = Framing.CHUNKED


@fault_named("chunked-cut")
def _chunked_cut(reply: Reply, fault: Fault, asked: Asked) -> None:
    """All the payload comes, the last chunk (the end) does not."""
    reply.framing, reply.cut, reply.ending = Framing.CHUNKED, reply.length, Ending.CLOSE


@fault_named("chunked-garbage")
def _chunked_garbage(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Half the payload, then something that is no chunk; the connection stays open."""
    reply.framing, reply.cut, reply.bad_chunk = Framing.CHUNKED, reply.length // 2, True
    reply.ending = Ending.SILENT


@fault_named("endless-chunked", BOTH)
def _endless_chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 200, b"")
    reply.framing, reply.endless = Framing.CHUNKED, True


# --- ranges ----------------------------------------------------------------------------------------------------


@fault_named("no-ranges", BOTH)
def _no_ranges(reply: Reply, fault: Fault, asked: Asked) -> None:
    _whole(reply)
    reply.set("Accept-Ranges", "none")


@fault_named("promise-ranges", BOTH)
def _promise_ranges(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Says `Accept-Ranges: bytes` and answers 200 all the same."""
    _whole(reply)


def _whole(reply: Reply) -> None:
    if reply.status in (206, 416):
        reply.status, reply.start, reply.stop = 200, 0, reply.total
        reply.set("Content-Range", None)


@fault_named("range-416")
def _range_416(reply: Reply, fault: Fault, asked: Asked) -> None:
    """416 for every range; `value` stands in Content-Range (default the true size; "-" for no header)."""
    if asked.ranged:
        total = reply.total
        _answer(reply, 416)
        if fault.value != "-":
            reply.set("Content-Range", f"bytes */{fault.value or total}")


@fault_named("wrong-range")
def _wrong_range(reply: Reply, fault: Fault, asked: Asked) -> None:
    """206 for a range that begins `count` bytes (default 1) further on; header and bytes agree."""
    if reply.status == 206:
        reply.start = min(reply.start + (fault.count or 1), reply.total - 1)
        reply.stop = max(reply.stop, reply.start + 1)
        reply.set("Content-Range", f"bytes {reply.start}-{reply.stop - 1}/{reply.total}")


@fault_named("unasked-206")
def _unasked_206(reply: Reply, fault: Fault, asked: Asked) -> None:
    """206 with a Content-Range of everything, though no range was asked for."""
    if not asked.ranged:
        reply.status = 206
        reply.set("Content-Range", f"bytes 0-{reply.total - 1}/{reply.total}")


@fault_named("shifted")
def _shifted(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The right header, bytes from `count` (default 1) further on."""
    reply.shift = fault.count or 1


@fault_named("no-content-range")
def _no_content_range(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("Content-Range", None)


@fault_named("bad-content-range")
def _bad_content_range(reply: Reply, fault: Fault, asked: Asked) -> None:
    if reply.status == 206:
        reply.set("Content-Range", fault.value or "bytes all")


@fault_named("too-long")
def _too_long(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Right headers, then `count` bytes (default 1000) more than they say."""
    reply.surplus = b"\xee" * (fault.count or 1000)


@fault_named("too-long-chunked")
def _too_long_chunked(reply: Reply, fault: Fault, asked: Asked) -> None:
    """As too-long, but chunked: nothing in the head contradicts it."""
    reply.framing, reply.surplus = Framing.CHUNKED, b"\xee" * (fault.count or 1000)


@fault_named("too-long-declared")
def _too_long_declared(reply: Reply, fault: Fault, asked: Asked) -> None:
    """206 with the right Content-Range and a Content-Length that is larger, and so is the body."""
    if reply.status == 206:
        reply.surplus = b"\xee" * (fault.count or 1000)
        reply.content_length = str(reply.length + len(reply.surplus))


@fault_named("multipart")
def _multipart(reply: Reply, fault: Fault, asked: Asked) -> None:
    if reply.status == 206:
        reply.set("Content-Range", None)
        reply.set("Content-Type", "multipart/byteranges; boundary=x")


# --- validators (the versions themselves are the origin's business) -------------------------------------------


@fault_named("weak-etag", BOTH)
def _weak_etag(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.headers = [(n, "W/" + v if n == "ETag" and not v.startswith("W/") else v) for n, v in reply.headers]


@fault_named("no-validators", BOTH)
def _no_validators(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("ETag", None)
    reply.set("Last-Modified", None)


@fault_named("bad-byte")
def _bad_byte(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The byte at offset `count` is always wrong."""
    reply.bad_byte = fault.count


def _nothing(reply: Reply, fault: Fault, asked: Asked) -> None:
    """The origin itself acts on these: see `Resource.version_for`."""


for _name in ("etag-flip", "etag-flip-206", "size-flip", "silent-flip", "changes-once"):
    FAULTS[_name] = (GET, _nothing)


# --- encodings and what is said about the content -------------------------------------------------------------


@fault_named("gzip", BOTH)
def _gzip(reply: Reply, fault: Fault, asked: Asked) -> None:
    _whole(reply)
    reply.set("Content-Encoding", fault.value or "gzip")


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b"\0" * (64 << 20), 1)


@fault_named("gzip-bomb", BOTH)
def _gzip_bomb(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 200, _bomb())
    reply.set("Content-Encoding", "gzip")


@fault_named("disposition", BOTH)
def _disposition(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("Content-Disposition", fault.value or 'attachment; filename="../../../../tmp/owned"')


@fault_named("header", BOTH)
def _header(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Sets any header: `value` is `Name: text`."""
    name, _, text = fault.value.partition(":")
    reply.set(name, text.strip())


@fault_named("login-page", GET)
def _login_page(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 200, b"<html><form>Please log in</form></html>")
    reply.set("Content-Type", "text/html")


# --- statuses --------------------------------------------------------------------------------------------------


@fault_named("status", BOTH)
def _status(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Answers `count`; `value` becomes Retry-After ("date+N" for the HTTP date in N seconds)."""
    _answer(reply, fault.count, b"sorry\n")
    _retry_after(reply, fault.value)


@fault_named("busy-above", GET)
def _busy_above(reply: Reply, fault: Fault, asked: Asked) -> None:
    """503 while more than `count` requests for the path are under way."""
    if asked.busy > fault.count:
        _answer(reply, 503, b"busy\n")
        _retry_after(reply, fault.value)


def _retry_after(reply: Reply, value: str) -> None:
    if value.startswith("date+"):
        value = formatdate(time.time() + float(value[5:]), usegmt=True)
    if value:
        reply.set("Retry-After", value)


@fault_named("auth", BOTH)
def _auth(reply: Reply, fault: Fault, asked: Asked) -> None:
    """401 unless `Authorization` is exactly `value`."""
    if asked.headers.get("authorization") != fault.value:
        _answer(reply, 401)
        reply.set("WWW-Authenticate", 'Basic realm="test"')


# --- redirects -------------------------------------------------------------------------------------------------


@fault_named("redirect", BOTH)
def _redirect(reply: Reply, fault: Fault, asked: Asked) -> None:
    """To `value`, with status `count` (default 302)."""
    _answer(reply, fault.count or 302)
    reply.set("Location", fault.value)


@fault_named("redirect-loop", BOTH)
def _redirect_loop(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 302)
    reply.set("Location", asked.path)


@fault_named("redirect-chain", BOTH)
def _redirect_chain(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`count` redirects (default 5), then the content."""
    left = asked.hop if asked.hop >= 0 else (fault.count or 5)
    if left > 0:
        _answer(reply, 302)
        reply.set("Location", f"{asked.path}?hop={left - 1}")


@fault_named("redirect-nowhere", BOTH)
def _redirect_nowhere(reply: Reply, fault: Fault, asked: Asked) -> None:
    _answer(reply, 302)


# --- no HTTP at all --------------------------------------------------------------------------------------------


@fault_named("never-answers", BOTH)
def _never_answers(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"", Ending.SILENT


@fault_named("closes", BOTH)
def _closes(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"", Ending.CLOSE


@fault_named("not-http", BOTH)
def _not_http(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"220 mail.example ESMTP <script>alert(1)</script>\r\n" * 50, Ending.CLOSE


@fault_named("http09", BOTH)
def _http09(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.raw, reply.ending = b"just the bytes, no head at all\n" * 100, Ending.CLOSE


@fault_named("huge-header", BOTH)
def _huge_header(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("X-Long", "a" * (4 << 20))


@fault_named("many-headers", BOTH)
def _many_headers(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.headers += [(f"X-{index}", "x") for index in range(20_000)]


@fault_named("wide-headers", BOTH)
def _wide_headers(reply: Reply, fault: Fault, asked: Asked) -> None:
    """Few enough and each short enough, but more than 64 KiB together."""
    reply.headers += [(f"X-{index}", "x" * 4000) for index in range(20)]


@fault_named("nul-header", BOTH)
def _nul_header(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("X-Odd", "a\0b")


@fault_named("cr-header", BOTH)
def _cr_header(reply: Reply, fault: Fault, asked: Asked) -> None:
    reply.set("X-Odd", "a\rSet-Cookie: b=c")


@fault_named("early-hints", BOTH)
def _early_hints(reply: Reply, fault: Fault, asked: Asked) -> None:
    """`count` replies of status 103 (default 3) before the real one."""
    reply.informational = fault.count or 3
