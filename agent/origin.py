"""The origin over HTTP(S): what it has (`probe`), and ranges of it (`fetch`).

One request, one outcome: nothing is tried again here, except that a HEAD which does not tell is followed by a
GET, and that aiohttp repeats a request once when the connection closes before any answer (RFC 9112 §9.3.1).
Failures are values with one sentence each. A job's own method is a request like any other, without HEAD, ranges and
conditions: nobody knows what it means.

Never knows: retries, scheduling, files, peers, digests. Sources: RFC 9110 §13.1.5, §14 and §15; RFC 9112.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.origin_answer import Head, described_headers, judge_body, judge_first_byte, judge_head, judge_plain
from agent.origin_body import Intake, receive
from agent.origin_errors import about
from agent.origin_http import Answer, Messenger, OriginSettings
from agent.origin_options import PLAIN, Headers, OriginOptions, RedirectPolicy
from agent.redirects import Hop, carries_credentials, first_hop
from agent.throttle import Limiter
from peer.core.failure import Failure, FailureKind
from peer.sink import Fetched, Sink
from peer.workers import Workers
from validation.ranges import ByteRange

__all__ = ["Described", "HostCounters", "OriginClient", "OriginRequest", "OriginSettings"]

REMEMBERED = 1024
"""Hosts and URLs that are remembered at most, the latest ones: remote strings must not fill the memory."""

_SILENT_ON_HEAD = frozenset({FailureKind.CONNECTION_CLOSED, FailureKind.BAD_RESPONSE})
"""Some servers close the connection on HEAD, or send a body with it."""


NO_HEAD = "does not answer HEAD: asked with GET"
NO_LENGTH = "does not tell the length"
NO_RANGES = "serves no ranges"
ASKED_ONCE = "is asked once, by the job's own method: length and ranges are not known before"
"""What a job's log says about an origin that makes do with less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a probe found out."""

    facts: OriginFacts
    url: str | None = None
    """Where redirects led; only with RedirectPolicy.REPORT, and only when there was one."""
    headers: Headers = ()
    """Of the answer: names in lower case, 16 KiB together at most, without Set-Cookie."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRequest:
    """A range of a content that was probed before."""

    url: str
    item: ByteRange
    """Where `facts.length` is None, `stop` is the most that may come (MAX_CONTENT_BYTES: all there is)."""
    facts: OriginFacts
    options: OriginOptions = PLAIN
    limiter: Limiter | None = None
    """Holds back reading the body. Waiting for it is no stall."""
    home: str | None = None
    """The URL that the job names, where `url` is where its redirects led: secrets are for the origin of `home`."""


@dataclass(slots=True)
class HostCounters:
    """What passed between us and one host, `host:port` of the URL that answered."""

    requests: int = 0
    """Requests that were answered (the last one of a chain of redirects)."""
    bytes_received: int = 0
    """Bytes of content that reached the sink."""


class _CountingSink:
    """A sink that also counts for its host."""

    def __init__(self, sink: Sink, counters: HostCounters) -> None:
        self._sink = sink
        self._counters = counters
        self.write = sink.write

    def arrived(self, item: ByteRange) -> None:
        self._counters.bytes_received += item.length
        self._sink.arrived(item)


class OriginClient:
    """Asks origins. Make it in a running loop; `close` it. Any number of calls may be under way at once."""

    def __init__(self, workers: Workers, settings: OriginSettings | None = None) -> None:
        """Raises OSError or ssl.SSLError when the settings' `ca_file` cannot be read."""
        self._workers = workers
        self._settings = settings or OriginSettings()
        self._messenger = Messenger(self._settings)
        self._contradicted: OrderedDict[str, None] = OrderedDict()
        self.counters: OrderedDict[str, HostCounters] = OrderedDict()
        """By `host:port`, the host that answered last at the end."""

    async def close(self) -> None:
        """Close every connection; calls that are under way end with a failure. Harmless when repeated."""
        await self._messenger.close()

    async def probe(self, url: str, options: OriginOptions = PLAIN) -> Described | Failure:
        """What the origin says about the content: HEAD, then GET of the first byte, then GET, until one tells.

        No body is read. With another method than GET nothing is asked: its one request may change something there.
        When an answer to `fetch` contradicted what was known, the next probe of that URL begins
        with GET: an origin may lie on HEAD, or promise ranges that it does not serve.
        """
        hop = first_hop(url, options)
        if isinstance(hop, Failure):
            return hop
        sharing = Sharing.CREDENTIALS if carries_credentials(url, options) else Sharing.ALLOWED
        if options.method != "GET":
            unknown = OriginFacts(length=None, ranges=RangeSupport.NONE, sharing=sharing)
            return Described(facts=unknown, notes=(ASKED_ONCE,))
        notes: list[str] = []
        for method, extra, judge in self._steps(url):
            answer = await self._messenger.ask(replace(hop, method=method), extra, options)
            if isinstance(answer, Failure):
                if method == "HEAD" and answer.kind in _SILENT_ON_HEAD:
                    notes.append(NO_HEAD)
                    continue
                return answer
            answer.hang_up()
            self._count(answer)
            facts = judge(answer.head, sharing)
            if facts is not None:
                return facts if isinstance(facts, Failure) else _described(answer, facts, notes, (hop, options))
            if method == "HEAD" and answer.head.status != 200:
                notes.append(NO_HEAD)
        raise AssertionError("the last step always tells")

    def _steps(self, url: str) -> tuple[_Step, ...]:
        doubted = url in self._contradicted
        self._contradicted.pop(url, None)
        return _STEPS[1:] if doubted else _STEPS

    async def fetch(self, request: OriginRequest, sink: Sink) -> Fetched | Failure:
        """Deliver the bytes of `request.item` to the sink, or say why not; what `arrived` named is there either
        way.

        Cancelling it closes the connection; the cancellation leaves when no write is under way any more.
        """
        hop = first_hop(request.url, request.options, request.home)
        if isinstance(hop, Failure):
            return hop
        item, facts = request.item, request.facts
        plain = hop.method == "GET"
        whole = item.start == 0 and (facts.length is None or item.stop >= facts.length)
        if item.length == 0 and not whole:
            return Fetched(item=item)
        if item.start > 0 and not plain:
            message = f"{hop.url.host}: no ranges can be asked for with the method {hop.method}"
            return Failure(kind=FailureKind.NO_RANGES, message=message)
        ranged = plain and not whole and (item.start > 0 or facts.ranges is not RangeSupport.NONE)
        answer = await self._messenger.ask(hop, _conditions(item, facts) if ranged else (), request.options)
        if isinstance(answer, Failure):
            return answer
        try:
            return await self._take(answer, request, sink, ranged=ranged)
        finally:
            answer.hang_up()

    async def _take(self, answer: Answer, request: OriginRequest, sink: Sink, *, ranged: bool) -> Fetched | Failure:
        """Judge the head and receive the body. Must not await before `receive` does."""
        counters = self._count(answer)
        facts = request.facts if request.options.method == "GET" else _without_validators(request.facts)
        plan = judge_body(answer.head, request.item, facts, ranged=ranged)
        if isinstance(plan, Failure):
            if answer.head.status in (200, 206, 416):
                self._doubt(request.url)
            return plan
        if ranged and answer.head.status == 200:
            self._doubt(request.url)
        intake = Intake(
            sink=_CountingSink(sink, counters),
            workers=self._workers,
            limits=self._settings.limits,
            takeover_bytes=self._settings.takeover_bytes,
            limiter=request.limiter,
        )
        outcome = await receive(answer.response, plan, intake)
        if isinstance(outcome, Failure):
            if outcome.kind is FailureKind.LENGTH_MISMATCH:
                self._doubt(request.url)
            return about(answer.head.host, outcome)
        return Fetched(item=ByteRange(plan.start, plan.start + outcome))

    def _doubt(self, url: str) -> None:
        self._contradicted[url] = None
        if len(self._contradicted) > REMEMBERED:
            self._contradicted.popitem(last=False)

    def _count(self, answer: Answer) -> HostCounters:
        key = f"{answer.url.host}:{answer.url.port}"
        counters = self.counters.setdefault(key, HostCounters())
        counters.requests += 1
        self.counters.move_to_end(key)
        if len(self.counters) > REMEMBERED:
            self.counters.popitem(last=False)
        return counters


_Judge = Callable[[Head, Sharing], OriginFacts | Failure | None]
_FIRST_BYTE: Headers = (("Range", "bytes=0-0"),)
_Step = tuple[str, Headers, _Judge]
_STEPS: tuple[_Step, ...] = (
    ("HEAD", (), judge_head),
    ("GET", _FIRST_BYTE, judge_first_byte),
    ("GET", (), judge_plain),
)


def _described(
    answer: Answer, facts: OriginFacts, notes: Sequence[str], asked: tuple[Hop, OriginOptions]
) -> Described:
    hop, options = asked
    no_length = (NO_LENGTH,) if facts.length is None else ()
    no_ranges = (NO_RANGES,) if facts.ranges is RangeSupport.NONE else ()
    led = options.redirects is RedirectPolicy.REPORT and answer.url != hop.url
    return Described(
        facts=facts,
        url=str(answer.url) if led else None,
        headers=described_headers(answer.head),
        notes=(*notes, *no_length, *no_ranges),
    )


def _without_validators(facts: OriginFacts) -> OriginFacts:
    """For other methods than GET: each answer is made anew, and what it is called then compares with nothing."""
    return replace(facts, etag=None, last_modified=None)


def _conditions(item: ByteRange, facts: OriginFacts) -> Headers:
    """Range, and If-Range when there is a strong validator: a weak one must not be used (RFC 9110 §13.1.5)."""
    last = "" if facts.length is None else str(item.stop - 1)
    wanted = (("Range", f"bytes={item.start}-{last}"),)
    validator = facts.strong_validator
    return wanted if validator is None else (*wanted, ("If-Range", validator))
