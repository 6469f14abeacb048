"""Every fault of the test origin at the level of one probe or one fetch: the outcome, and not a byte too many.

The numbers are rows of the reliability notes, section 3.1.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from agent.core.facts import OriginFacts, RangeSupport
from agent.origin import OriginClient, OriginSettings
from peer.core.failure import Failure, FailureKind
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import IMPATIENT, MemorySink, facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from validation.content import MAX_CONTENT_BYTES
from validation.ranges import ByteRange

BIG = random.Random(2).randbytes(3_000_000)
SMALL = BIG[:100_000]
CONTENTS = {"big": BIG, "small": SMALL}
QUERY = "?token=hunter2"


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    settings = OriginSettings(answer_timeout_s=1.0, connect_timeout_s=2.0, limits=IMPATIENT)
    async with origin_client(settings) as running:
        yield running


def is_failure(outcome: object, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome
    assert "hunter2" not in outcome.message
    assert outcome.message
    assert "\n" not in outcome.message
    return outcome


@dataclass(frozen=True)
class Case:
    """A fault, what a fetch of `item` then gives, and how many bytes of it were delivered (None: any prefix)."""

    fault: str
    kind: FailureKind | None
    item: tuple[int, int] | None = None
    delivered: int | None = 0

    def __str__(self) -> str:
        return self.fault if self.item is None else f"{self.fault}-{self.item}"


K = FailureKind
PART = (1000, 50_000)
START = (0, 50_000)
BODY_CASES = [
    Case("cut-half", K.CONNECTION_CLOSED, delivered=-2),  # 1
    Case("reset", K.CONNECTION_CLOSED, delivered=None),  # 2
    Case("silent", K.STALLED, delivered=-2),  # 3
    Case("cut-every:count=40000", K.CONNECTION_CLOSED, delivered=40_000),  # 4
    Case("cut-every:count=1", K.CONNECTION_CLOSED, delivered=1),
    Case("promise-more", K.CHANGED),  # 5, seen from facts that were right
    Case("bad-content-length", K.BAD_RESPONSE),  # 10
    Case("bad-content-length:value=-5", K.BAD_RESPONSE),
    Case("bad-content-length:value=+5", K.BAD_RESPONSE),
    Case("bad-content-length:value=0x10", K.BAD_RESPONSE),
    Case("bad-content-length:value=5;5", K.BAD_RESPONSE),
    Case("bad-content-length:value=99999999999999999999999", K.BAD_RESPONSE),
    Case("two-content-lengths", K.BAD_RESPONSE),
    Case("length-and-chunked", K.BAD_RESPONSE),
    Case("huge-length", K.CHANGED),  # 8
    Case("no-length", None),  # 12
    Case("chunked", None),  # 13
    Case("chunked", None, PART),
    Case("chunked-cut", K.CONNECTION_CLOSED, delivered=-1),
    Case("endless-chunked", K.LENGTH_MISMATCH, delivered=None),  # 9
    Case("no-ranges", None),  # 16
    Case("no-ranges", K.NO_RANGES, PART),
    Case("no-ranges", None, START),
    Case("promise-ranges", None),  # 17
    Case("promise-ranges", K.NO_RANGES, PART),
    Case("promise-ranges", None, START),
    Case("range-416", None),  # 18
    Case("range-416", K.NO_RANGES, PART),
    Case("range-416:value=-", K.NO_RANGES, PART),
    Case("range-416:value=bytes */7", K.NO_RANGES, PART),
    Case("range-416:value=7", K.LENGTH_MISMATCH, PART),
    Case("wrong-range", K.BAD_RESPONSE, PART),  # 19
    Case("wrong-range:count=-1", K.BAD_RESPONSE, PART),
    Case("wrong-range", K.BAD_RESPONSE, START),
    Case("no-content-range", K.BAD_RESPONSE, PART),  # 22
    Case("bad-content-range", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes 1000-49998/100000", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes 1000-50000/100000", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes 1000-49998/100000 & chunked", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes 1000-49999/100001", K.CHANGED, PART),
    Case("bad-content-range:value=bytes 1000-49999/40000", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes 49999-1000/100000", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes \u0661000-49999/100000", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=items 1000-49999/100000", K.BAD_RESPONSE, PART),
    Case("bad-content-range:value=bytes 1000-49999/*", None, PART),
    Case("multipart", K.BAD_RESPONSE, PART),
    Case("unasked-206", K.BAD_RESPONSE),
    Case("header-twice:value=ETag", K.BAD_RESPONSE),
    Case("header-twice:value=Last-Modified", K.BAD_RESPONSE),
    Case("header-twice:value=Content-Range", K.BAD_RESPONSE, PART),
    Case("too-long-chunked", None, PART),  # 24
    Case("too-long-chunked", K.LENGTH_MISMATCH, delivered=-1),
    Case("too-long-declared", K.BAD_RESPONSE, PART),
    Case("gzip", K.UNEXPECTED_ENCODING),  # 31
    Case("gzip:value=br", K.UNEXPECTED_ENCODING),
    Case("gzip:value=identity", None),
    Case("gzip-bomb", K.UNEXPECTED_ENCODING),
    Case("login-page", K.CHANGED),  # 32
    Case("login-page", K.CHANGED, PART),
    Case("status:count=401", K.AUTH_REQUIRED),  # 38
    Case("status:count=407", K.AUTH_REQUIRED),
    Case("status:count=403", K.FORBIDDEN),  # 39
    Case("status:count=404", K.NOT_FOUND),
    Case("status:count=410", K.GONE),
    Case("status:count=408", K.HTTP_TRANSIENT),  # 40
    Case("status:count=425", K.HTTP_TRANSIENT),
    Case("status:count=500", K.HTTP_TRANSIENT),
    Case("status:count=502", K.HTTP_TRANSIENT),
    Case("status:count=429", K.BUSY),
    Case("status:count=503", K.BUSY),
    Case("status:count=204", K.BAD_RESPONSE),
    Case("status:count=300", K.HTTP_FATAL),
    Case("status:count=304", K.HTTP_FATAL),
    Case("status:count=418", K.HTTP_FATAL),
    Case("drip:count=100", K.STALLED, delivered=None),  # 44
    Case("never-answers", K.STALLED),  # 45
    Case("closes", K.CONNECTION_CLOSED),
    Case("not-http", K.BAD_RESPONSE),  # 46
    Case("http09", K.BAD_RESPONSE),
    Case("huge-header", K.BAD_RESPONSE),
    Case("many-headers", K.BAD_RESPONSE),
    Case("wide-headers", K.BAD_RESPONSE),
    Case("nul-header", K.BAD_RESPONSE),
    Case("cr-header", K.BAD_RESPONSE),
    Case("early-hints", None),
    Case("early-hints", None, PART),
    Case("disposition", None),  # 49
    Case("header:value=Set-Cookie: a=b", None),  # 51
    Case("header:value=Content-Type: text/html", None),
    Case("redirect-nowhere", K.HTTP_FATAL),
]


HEAD_ALONE = ("status", "not-http", "http09", "header", "nul", "cr-", "wide", "many", "huge-h", "never", "closes")
EACH_WAY = [
    (case, size)
    for case in BODY_CASES
    for size in CONTENTS
    if size == "small" or not case.fault.startswith(HEAD_ALONE)
]
"""The size decides which way the body comes; where there is no body, one is enough."""


@pytest.mark.parametrize(("case", "size"), EACH_WAY, ids=str)
async def test_one_fetch(origin: Origin, client: OriginClient, case: Case, size: str) -> None:
    """Facts are those of an honest moment before; the fault strikes the GET."""
    content = CONTENTS[size]
    resource_ = origin.add("/x", content)
    url = origin.url("/x" + QUERY)
    facts = await facts_of(client, url)
    text = case.fault.replace("100000", str(len(content))).replace("100001", str(len(content) + 1))
    resource_.faults = [Fault.parse(part) for part in text.split(" & ")]
    item = ByteRange(*(case.item or (0, len(content))))
    outcome, sink = await fetch(client, url, facts, item)
    if case.kind is None:
        assert outcome == Fetched(item=item)
        assert sink.holds(content, item)
        return
    is_failure(outcome, case.kind)
    assert sink.holds_prefix(content, item.start) or case.fault == "endless-chunked"
    if case.delivered is not None:
        expected = {-1: item.length, -2: item.length // 2}.get(case.delivered, case.delivered)
        assert sink.reported.total == expected
    assert sink.written.total <= item.length
    await origin.wait_for(lambda: origin.connections == 0 or case.kind is not K.STALLED, timeout_s=2)


@pytest.mark.parametrize("size", CONTENTS)
@pytest.mark.parametrize("item", [None, PART], ids=["whole", "part"])
@pytest.mark.parametrize("fault", ["shifted", "bad-byte:count=1500"])
async def test_wrong_bytes_under_a_right_head_cannot_be_seen_here(
    origin: Origin, client: OriginClient, fault: str, item: tuple[int, int] | None, size: str
) -> None:
    """20, 30: digests are for that. The length is right all the same."""
    content = CONTENTS[size]
    origin.add("/x", content, faults=[fault])
    facts = await facts_of(client, origin.url("/x"))
    wanted = ByteRange(*(item or (0, len(content))))
    outcome, sink = await fetch(client, origin.url("/x"), facts, wanted)
    assert outcome == Fetched(item=wanted)
    assert sink.reported.total == wanted.length


@pytest.mark.parametrize("size", CONTENTS)
@pytest.mark.parametrize("item", [None, PART], ids=["whole", "part"])
async def test_bytes_after_the_body(
    origin: Origin, client: OriginClient, item: tuple[int, int] | None, size: str
) -> None:
    """24: ignored, or the reply is refused when they come with its head; the connection is not used again."""
    content = CONTENTS[size]
    resource_ = origin.add("/x", content)
    facts = await facts_of(client, origin.url("/x"))
    resource_.faults = [Fault("too-long")]
    wanted = ByteRange(*(item or (0, len(content))))
    outcome, sink = await fetch(client, origin.url("/x"), facts, wanted)
    if isinstance(outcome, Failure):
        is_failure(outcome, FailureKind.BAD_RESPONSE)
        assert sink.written.total == 0
    else:
        assert sink.holds(content, wanted)
    await origin.wait_for(lambda: origin.connections == 0, timeout_s=2)


@pytest.mark.parametrize("size", CONTENTS)
async def test_a_chunk_that_is_none(origin: Origin, client: OriginClient, size: str) -> None:
    """Known at once, not only when the body counts as stalled. A short reply is refused with its head."""
    content = CONTENTS[size]
    origin.add("/x", content, faults=["no-ranges", "chunked-garbage"])
    began = time.monotonic()
    outcome, sink = await fetch(client, origin.url("/x"), OriginFacts(length=None))
    assert isinstance(outcome, Failure)
    assert outcome.kind in (FailureKind.CONNECTION_CLOSED, FailureKind.BAD_RESPONSE)
    assert sink.holds_prefix(content)
    assert time.monotonic() - began < 0.9 * IMPATIENT.stall_time_s


# --- content that changes --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["etag-flip", "etag-flip-206", "size-flip"])
@pytest.mark.parametrize("size", CONTENTS)
async def test_a_change_between_parts_is_seen(origin: Origin, client: OriginClient, fault: str, size: str) -> None:
    """25, 26, 28: the first GET meets the content that was probed, the second another one."""
    content = CONTENTS[size]
    origin.add("/x", content, faults=[fault])
    facts = await facts_of(client, origin.url("/x"))
    first, second = ByteRange(0, 20_000), ByteRange(20_000, 40_000)
    outcome, _ = await fetch(client, origin.url("/x"), facts, first)
    assert outcome == Fetched(item=first)
    outcome, sink = await fetch(client, origin.url("/x"), facts, second)
    is_failure(outcome, FailureKind.CHANGED)
    assert sink.written.total == 0


async def test_a_change_of_the_whole_is_seen(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", SMALL, faults=["etag-flip"])
    facts = await facts_of(client, origin.url("/x"))
    await fetch(client, origin.url("/x"), facts)
    outcome, sink = await fetch(client, origin.url("/x"), facts)
    is_failure(outcome, FailureKind.CHANGED)
    assert sink.written.total == 0


async def test_a_change_of_date_alone_is_seen(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", SMALL, etag=None, faults=["etag-flip-206"])
    facts = await facts_of(client, origin.url("/x"))
    await fetch(client, origin.url("/x"), facts, ByteRange(0, 10))
    outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(10, 20))
    is_failure(outcome, FailureKind.CHANGED)


async def test_a_range_beyond_a_content_that_shrank(origin: Origin, client: OriginClient) -> None:
    """416 with another size: without a strong validator it has changed."""
    for etag in (None, "weak"):
        origin.add("/x", SMALL, etag=etag and 'W/"1"', modified=None)
        facts = await facts_of(client, origin.url("/x"))
        origin.add("/x", SMALL[:50], etag=etag and 'W/"1"', modified=None)
        outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(1000, 2000))
        is_failure(outcome, FailureKind.CHANGED)


async def test_a_weak_etag_is_no_condition(origin: Origin, client: OriginClient) -> None:
    """29: RFC 9110 §13.1.5 forbids it; the date beside it is not used either."""
    origin.add("/x", SMALL, faults=["weak-etag"])
    facts = await facts_of(client, origin.url("/x"))
    assert facts.strong_validator is None
    outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(5, 10))
    assert isinstance(outcome, Fetched)
    assert "if-range" not in origin.log[-1].headers


async def test_nothing_to_compare_by(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", SMALL, faults=["no-validators"])
    facts = await facts_of(client, origin.url("/x"))
    assert (facts.etag, facts.last_modified, facts.strong_validator) == (None, None, None)
    outcome, sink = await fetch(client, origin.url("/x"), facts, ByteRange(5, 10))
    assert isinstance(outcome, Fetched)
    assert sink.holds(SMALL, ByteRange(5, 10))


# --- no length known -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", CONTENTS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("no-length", None),
        ("chunked", None),
        ("chunked-cut", FailureKind.CONNECTION_CLOSED),
        ("no-length reset", FailureKind.CONNECTION_CLOSED),
        ("no-length silent", FailureKind.STALLED),
    ],
)
async def test_length_unknown(
    origin: Origin, client: OriginClient, fault: str, kind: FailureKind | None, size: str
) -> None:
    """12, 13: read to the end; an end that is missing is a failure, not an end."""
    content = CONTENTS[size]
    resource_ = origin.add("/x", content, faults=["no-ranges", "no-length"])
    facts = await facts_of(client, origin.url("/x"))
    assert facts.length is None
    assert facts.ranges is RangeSupport.NONE
    resource_.faults = [Fault.parse(name) for name in ("no-ranges", *fault.split())]
    outcome, sink = await fetch(client, origin.url("/x"), facts)
    if kind is None:
        assert outcome == Fetched(item=ByteRange(0, len(content)))
        assert sink.holds(content, ByteRange(0, len(content)))
    else:
        is_failure(outcome, kind)
        assert sink.holds_prefix(content)


@pytest.mark.parametrize("fault", ["endless-chunked", "no-length"])
async def test_no_more_than_the_limit(origin: Origin, client: OriginClient, fault: str) -> None:
    """9: whoever knows no length names a limit."""
    origin.add("/x", BIG, faults=["no-ranges", fault])
    facts = OriginFacts(length=None)
    limit = ByteRange(0, 2_000_000)
    outcome, sink = await fetch(client, origin.url("/x"), facts, limit)
    is_failure(outcome, FailureKind.TOO_LARGE)
    assert sink.written.stop <= limit.stop


async def test_a_declared_length_above_the_limit_is_refused_unread(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", BIG)
    outcome, sink = await fetch(client, origin.url("/x"), OriginFacts(length=None), ByteRange(0, 1000))
    is_failure(outcome, FailureKind.TOO_LARGE)
    assert sink.written.total == 0


async def test_a_length_that_was_unknown_and_is_declared_now(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", BIG)
    everything = ByteRange(0, MAX_CONTENT_BYTES)
    outcome, sink = await fetch(client, origin.url("/x"), OriginFacts(length=None), everything)
    assert outcome == Fetched(item=ByteRange(0, len(BIG)))
    assert sink.holds(BIG, ByteRange(0, len(BIG)))


async def test_the_rest_of_a_content_of_unknown_length(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", SMALL)
    rest = ByteRange(90_000, MAX_CONTENT_BYTES)
    outcome, sink = await fetch(client, origin.url("/x"), OriginFacts(length=None), rest)
    assert outcome == Fetched(item=ByteRange(90_000, len(SMALL)))
    assert sink.holds(SMALL, ByteRange(90_000, len(SMALL)))
    assert origin.log[-1].headers["range"] == "bytes=90000-"


# --- bounded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["huge-header", "many-headers", "not-http", "gzip-bomb", "endless-chunked"])
async def test_memory_stays_bounded(origin: Origin, client: OriginClient, fault: str) -> None:
    """46, 31, 9: the process's peak hardly grows (the origin itself lives in it: a 4 MiB head costs it some)."""
    resource_ = origin.add("/x", SMALL)
    facts = await facts_of(client, origin.url("/x"))
    resource_.faults = [Fault(fault)]
    await fetch(client, origin.url("/x"), facts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        outcome, _ = await fetch(client, origin.url("/x"), facts)
        assert isinstance(outcome, Failure)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


async def test_sinks_see_nothing_of_other_fetches() -> None:
    sink = MemorySink()
    sink.write(3, memoryview(b"abc"))
    sink.arrived(ByteRange(3, 6))
    assert sink.holds(b"...abc", ByteRange(3, 6))
    assert not sink.holds(b"...abd", ByteRange(3, 6))
    assert not sink.holds_prefix(b"...abc")
