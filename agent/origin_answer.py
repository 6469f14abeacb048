"""What the head of an origin's answer means: facts about the content, a plan for the body, or a failure.

Decides only, and refuses what is ambiguous: two lengths, a length beside chunks, a range other than the one asked
for.

Never knows: sockets, retries, files. Sources: RFC 9110 §8.8 (validators), §10.2.3 (Retry-After), §13.1.5
(If-Range), §14.4 (Content-Range), §15.3.7 (206), §15.5.17 (416); RFC 9112 §6.3 (length of a body); RFC 9111
§5.2.2.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum

from multidict import CIMultiDictProxy

from agent.core.facts import OriginFacts, RangeSupport, Sharing
from peer.core.failure import Failure, FailureKind, failure_of_status
from validation.content import MAX_CONTENT_BYTES
from validation.ranges import ByteRange

MAX_HEADER_BYTES = 64 * 1024
"""All headers of one answer together; curl allows 300 KiB, nginx sends 8 KiB at most."""

MAX_SHOWN_BYTES = 16 * 1024
"""Names and values of an answer that are kept for the user."""

MAX_RETRY_AFTER_S = 24 * 3600.0
"""A source cannot send us away for longer than a day."""

_SINGLE = (
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Transfer-Encoding",
)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,20})-(\d{1,20})|\*)/(\d{1,20}|\*)", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,20}", re.ASCII)
_ETAG = re.compile(r'(?:[Ww]/)?"[\x21\x23-\x7e\x80-\uffff]+"|[\x21\x23-\x7e]+')

_WORDS = {
    401: "asks for credentials",
    403: "forbids it",
    404: "has no such file",
    407: "the proxy asks for credentials",
    410: "has it no longer",
    412: "the content is not the one it was at the beginning",
    429: "asks us to come back later",
    503: "is busy",
}

HEAD_SAYS_NOTHING = frozenset({400, 403, 404, 405, 406, 416, 500, 501})
"""Refusals of HEAD that say nothing about GET: signed URLs (403), frameworks without HEAD, plain bugs."""


class Framing(Enum):
    """How the end of a body is told (RFC 9112 §6.3)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of one answer, with the host for messages."""

    host: str
    status: int
    headers: CIMultiDictProxy[str]

    @property
    def framing(self) -> Framing:
        """How the body ends."""
        if "Transfer-Encoding" in self.headers:
            return Framing.CHUNKED
        return Framing.LENGTH if "Content-Length" in self.headers else Framing.UNTIL_CLOSE

    @property
    def content_length(self) -> int | None:
        """The announced length; None when there is none (or chunks)."""
        return int(self.headers["Content-Length"]) if self.framing is Framing.LENGTH else None

    def failure(self, kind: FailureKind, what: str) -> Failure:
        """A failure that names the host and this status."""
        return Failure(kind=kind, message=f"{self.host}: {what}", http_status=self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPlan:
    """What to take from a body."""

    start: int
    """Offset in the content of the body's first byte."""
    length: int | None
    """Bytes wanted; None: all up to the end."""
    limit: int
    """Bytes that may come at most when `length` is None."""
    framing: Framing
    body_length: int | None
    """Bytes the body has by its Content-Length; None when it does not say."""
    must_end: bool
    """True when the body has to end with the last byte wanted: it is the whole content."""


def check(head: Head, raw: Sequence[tuple[bytes, bytes]]) -> Failure | None:
    """Why this answer is refused whatever its status is, or None."""
    size = sum(len(name) + len(value) for name, value in raw)
    if size > MAX_HEADER_BYTES:
        return head.failure(FailureKind.BAD_RESPONSE, f"the headers are larger than {MAX_HEADER_BYTES} bytes")
    if any(byte in value for _, value in raw for byte in (b"\0", b"\r", b"\n")):
        return head.failure(FailureKind.BAD_RESPONSE, "a header holds control characters")
    for name in _SINGLE:
        if len(head.headers.getall(name, ())) > 1:
            return head.failure(FailureKind.BAD_RESPONSE, f"{name} is there more than once")
    if "Transfer-Encoding" in head.headers and "Content-Length" in head.headers:
        return head.failure(FailureKind.BAD_RESPONSE, "both Content-Length and Transfer-Encoding are there")
    if head.framing is Framing.LENGTH and not _NUMBER.fullmatch(head.headers["Content-Length"]):
        return head.failure(FailureKind.BAD_RESPONSE, "Content-Length is not a number")
    if head.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        return head.failure(FailureKind.UNEXPECTED_ENCODING, "the body is encoded though we asked for it as it is")
    return None


def judge_head(head: Head, sharing: Sharing) -> OriginFacts | Failure | None:
    """The facts from an answer to HEAD; None when it does not tell and GET has to be asked."""
    if head.status in HEAD_SAYS_NOTHING or (200 <= head.status < 300 and head.status != 200):
        return None
    if head.status != 200:
        return failure_of_answer(head)
    if head.content_length is None:
        return None
    return _facts(head, head.content_length, _promised(head), sharing)


def judge_first_byte(head: Head, sharing: Sharing) -> OriginFacts | Failure | None:
    """The facts from an answer to GET with `Range: bytes=0-0`; None when only a plain GET can tell."""
    if head.status == 206:
        got, total = _content_range(head)
        return _facts(head, total, RangeSupport.PROMISED, sharing) if got == ByteRange(0, 1) else None
    if head.status == 416:
        _, total = _content_range(head)
        return _facts(head, 0, RangeSupport.PROMISED, sharing) if total == 0 else None
    return judge_plain(head, sharing)


def judge_plain(head: Head, sharing: Sharing) -> OriginFacts | Failure:
    """The facts from an answer to GET whose body is the whole content."""
    if head.status != 200:
        return failure_of_answer(head)
    return _facts(head, head.content_length, RangeSupport.NONE, sharing)


def judge_body(head: Head, item: ByteRange, facts: OriginFacts, *, ranged: bool) -> BodyPlan | Failure:
    """What to take from the answer to a GET for `item`; `ranged` when a Range header was sent."""
    if head.status == 416 and ranged:
        return _judge_refused_range(head, facts)
    if head.status not in (200, 206):
        return failure_of_answer(head)
    encoded = _encoding_failure(head)
    if encoded is not None:
        return encoded
    if head.status == 206:
        return _judge_partial(head, item, facts, ranged=ranged)
    return _judge_whole(head, item, facts)


def failure_of_answer(head: Head) -> Failure:
    """The failure that a status other than the expected one stands for, with Retry-After."""
    if head.status < 300:
        return head.failure(FailureKind.BAD_RESPONSE, f"answered with status {head.status}")
    what = _WORDS.get(head.status, "refused")
    message = f"{head.host}: {what} (HTTP status {head.status})"
    return failure_of_status(head.status, message, retry_after(head.headers))


def described_headers(head: Head) -> tuple[tuple[str, str], ...]:
    """The headers as a user may see them: names in lower case, text that can be stored, Set-Cookie left out. What
    does not fit into MAX_SHOWN_BYTES any more is left out too."""
    kept, size = [], 0
    for name, value in head.headers.items():
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        more = len(name) + len(text.encode())
        if name.lower() != "set-cookie" and size + more <= MAX_SHOWN_BYTES:
            size += more
            kept.append((name.lower(), text))
    return tuple(kept)


def retry_after(headers: CIMultiDictProxy[str]) -> float | None:
    """Seconds to stay away, at most a day; None when it does not say or says nonsense.

    A number, or an HTTP date less the answer's own Date (its clock may be wrong, but it is the same clock).
    """
    text = headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER_S)
    wanted = _date(text)
    if wanted is None:
        return None
    now = _date(headers.get("Date", ""))
    return min(max(0.0, wanted - (time.time() if now is None else now)), MAX_RETRY_AFTER_S)


def _judge_partial(head: Head, item: ByteRange, facts: OriginFacts, *, ranged: bool) -> BodyPlan | Failure:
    got, total = _content_range(head)
    if not ranged or got is None:
        return head.failure(FailureKind.BAD_RESPONSE, "status 206 without a usable Content-Range")
    if not facts.same_content(_described(head, total)):
        return head.failure(FailureKind.CHANGED, "the content is not the one it was at the beginning")
    stop = item.stop if facts.length is not None else total
    if stop is None or (got.start, got.stop) != (item.start, stop):
        return head.failure(FailureKind.BAD_RESPONSE, "sent another range than the one asked for")
    if head.content_length not in (None, got.length):
        return head.failure(FailureKind.BAD_RESPONSE, "Content-Length and Content-Range contradict each other")
    return BodyPlan(
        start=item.start,
        length=got.length,
        limit=got.length,
        framing=head.framing,
        body_length=head.content_length,
        must_end=False,
    )


def _judge_whole(head: Head, item: ByteRange, facts: OriginFacts) -> BodyPlan | Failure:
    declared = head.content_length
    if not facts.same_content(_described(head, declared)):
        return head.failure(FailureKind.CHANGED, "the content is not the one it was at the beginning")
    if item.start > 0:
        return head.failure(FailureKind.NO_RANGES, "does not serve ranges")
    total = declared if declared is not None else facts.length
    if facts.length is None and declared is not None and declared > item.stop:
        return head.failure(FailureKind.TOO_LARGE, f"the content has {declared} bytes, more than allowed")
    return BodyPlan(
        start=0,
        length=None if total is None else min(total, item.stop),
        limit=item.length,
        framing=head.framing,
        body_length=declared,
        must_end=total is not None and total <= item.stop,
    )


def _judge_refused_range(head: Head, facts: OriginFacts) -> Failure:
    """416. With a strong validator the range was only looked at because the content is still the same one."""
    _, total = _content_range(head)
    described = _described(head, None)
    if not facts.same_content(described):
        return head.failure(FailureKind.CHANGED, "the content is not the one it was at the beginning")
    if total is None or total == facts.length:
        return head.failure(FailureKind.NO_RANGES, "refuses a range that lies inside the content")
    if facts.strong_validator is not None:
        return head.failure(FailureKind.LENGTH_MISMATCH, f"has {total} bytes, not {facts.length} as announced")
    return head.failure(FailureKind.CHANGED, f"the content has {total} bytes now")


def _facts(head: Head, length: int | None, ranges: RangeSupport, sharing: Sharing) -> OriginFacts | Failure:
    encoded = _encoding_failure(head)
    if encoded is not None:
        return encoded
    if length is not None and length > MAX_CONTENT_BYTES:
        return head.failure(FailureKind.TOO_LARGE, f"announces {length} bytes, more than any content may have")
    return _described(head, length, ranges, sharing)


def _described(
    head: Head,
    length: int | None,
    ranges: RangeSupport = RangeSupport.UNKNOWN,
    sharing: Sharing = Sharing.ALLOWED,
) -> OriginFacts:
    """What the headers say; `sharing` is what the request alone decides, the headers can only narrow it."""
    modified = head.headers.get("Last-Modified")
    modified_at = _date(modified or "")
    return OriginFacts(
        length=length,
        etag=_etag(head.headers.get("ETag", "")),
        last_modified=modified if modified_at is not None else None,
        modified_at=modified_at,
        ranges=ranges,
        sharing=sharing if sharing is not Sharing.ALLOWED else _sharing(head.headers),
    )


def _sharing(headers: CIMultiDictProxy[str]) -> Sharing:
    """Whether the answer may go to other agents, by its own headers (default deny: reliability 1.5)."""
    directives = {item.partition("=")[0].strip().lower() for item in _listed(headers, "Cache-Control")}
    if "no-store" in directives:
        return Sharing.NO_STORE
    if "private" in directives:
        return Sharing.PRIVATE
    if any(item.strip().lower() not in ("accept-encoding", "") for item in _listed(headers, "Vary")):
        return Sharing.VARIES
    return Sharing.ALLOWED


def _listed(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    return ",".join(headers.getall(name, ())).split(",")


def _encoding_failure(head: Head) -> Failure | None:
    if head.headers.get("Content-Encoding", "").strip().lower() in ("", "identity"):
        return None
    return head.failure(
        FailureKind.UNEXPECTED_ENCODING, "the content is compressed though we asked for it as it is"
    )


def _promised(head: Head) -> RangeSupport:
    units = {item.strip().lower() for item in _listed(head.headers, "Accept-Ranges")}
    if "bytes" in units:
        return RangeSupport.PROMISED
    return RangeSupport.NONE if "none" in units else RangeSupport.UNKNOWN


def _content_range(head: Head) -> tuple[ByteRange | None, int | None]:
    """Range (half-open) and total of a Content-Range; None for what it does not say or says impossibly."""
    match = _CONTENT_RANGE.fullmatch(head.headers.get("Content-Range", "").strip())
    if match is None:
        return None, None
    first, last, size = match.groups()
    total = None if size == "*" else int(size)
    if first is None:
        return None, total
    start, stop = int(first), int(last) + 1
    if stop <= start or (total is not None and stop > total):
        return None, None
    return ByteRange(start, stop), total


def _etag(text: str) -> str | None:
    """The ETag as sent; None when it is empty or none at all. Some origins leave out the quotes: kept as it is."""
    text = text.strip()
    if not _ETAG.fullmatch(text):
        return None
    return "W/" + text[2:] if text.startswith("w/") else text


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
