"""The origin over HTTP(S): what it has (`probe`), and ranges of it (`fetch`).

One request, one outcome: nothing is tried again here, except that a HEAD which does not tell is followed by a
GET, and that aiohttp repeats a request once when the connection closes before any answer (RFC 9112 §9.3.1).
Failures are values with one sentence each.

Never knows: retries, scheduling, files, peers, digests. Sources: RFC 9110 §13.1.5, §14 and §15; RFC 9112.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.origin_answer import Head, judge_body, judge_first_byte, judge_head, judge_plain
from agent.origin_body import Intake, receive
from agent.origin_errors import about
from agent.origin_http import Answer, Messenger, OriginSettings
from agent.redirects import carries_credentials, first_hop
from peer.core.failure import Failure, FailureKind
from peer.sink import Fetched, Sink
from peer.workers import Workers
from validation.ranges import ByteRange

__all__ = ["HostCounters", "OriginClient", "OriginRequest", "OriginSettings"]

Headers = tuple[tuple[str, str], ...]

REMEMBERED = 1024
"""Hosts and URLs that are remembered at most, the latest ones: remote strings must not fill the memory."""

_SILENT_ON_HEAD = frozenset({FailureKind.CONNECTION_CLOSED, FailureKind.BAD_RESPONSE})
"""Some servers close the connection on HEAD, or send a body with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRequest:
    """A range of a content that was probed before."""

    url: str
    item: ByteRange
    """Where `facts.length` is None, `stop` is the most that may come (MAX_CONTENT_BYTES: all there is)."""
    facts: OriginFacts
    headers: Headers = ()


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

    async def probe(self, url: str, headers: Headers = ()) -> OriginFacts | Failure:
        """What the origin says about the content: HEAD, then GET of the first byte, then GET, until one tells.

        No body is read. When an answer to `fetch` contradicted what was known, the next probe of that URL begins
        with GET: an origin may lie on HEAD, or promise ranges that it does not serve.
        """
        hop = first_hop(url, headers)
        if isinstance(hop, Failure):
            return hop
        sharing = Sharing.CREDENTIALS if carries_credentials(url, headers) else Sharing.ALLOWED
        doubted = url in self._contradicted
        self._contradicted.pop(url, None)
        for method, extra, judge in _STEPS[1:] if doubted else _STEPS:
            answer = await self._messenger.ask(method, hop, extra)
            if isinstance(answer, Failure):
                if method == "HEAD" and answer.kind in _SILENT_ON_HEAD:
                    continue
                return answer
            answer.hang_up()
            self._count(answer)
            facts = judge(answer.head, sharing)
            if facts is not None:
                return facts
        raise AssertionError("the last step always tells")

    async def fetch(self, request: OriginRequest, sink: Sink) -> Fetched | Failure:
        """Deliver the bytes of `request.item` to the sink, or say why not; what `arrived` named is there either
        way.

        Cancelling it closes the connection; the cancellation leaves when no write is under way any more.
        """
        hop = first_hop(request.url, request.headers)
        if isinstance(hop, Failure):
            return hop
        item, facts = request.item, request.facts
        whole = item.start == 0 and (facts.length is None or item.stop >= facts.length)
        if item.length == 0 and not whole:
            return Fetched(item=item)
        ranged = not whole and (item.start > 0 or facts.ranges is not RangeSupport.NONE)
        answer = await self._messenger.ask("GET", hop, _conditions(item, facts) if ranged else ())
        if isinstance(answer, Failure):
            return answer
        try:
            return await self._take(answer, request, sink, ranged=ranged)
        finally:
            answer.hang_up()

    async def _take(self, answer: Answer, request: OriginRequest, sink: Sink, *, ranged: bool) -> Fetched | Failure:
        """Judge the head and receive the body. Must not await before `receive` does."""
        counters = self._count(answer)
        plan = judge_body(answer.head, request.item, request.facts, ranged=ranged)
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
_STEPS: tuple[tuple[str, Headers, _Judge], ...] = (
    ("HEAD", (), judge_head),
    ("GET", _FIRST_BYTE, judge_first_byte),
    ("GET", (), judge_plain),
)


def _conditions(item: ByteRange, facts: OriginFacts) -> Headers:
    """Range, and If-Range when there is a strong validator: a weak one must not be used (RFC 9110 §13.1.5)."""
    last = "" if facts.length is None else str(item.stop - 1)
    wanted = (("Range", f"bytes={item.start}-{last}"),)
    validator = facts.strong_validator
    return wanted if validator is None else (*wanted, ("If-Range", validator))
