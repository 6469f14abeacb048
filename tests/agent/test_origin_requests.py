"""What else a job says about its requests: the method, redirects; and what is told about the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agent.core.facts import OriginFacts, RangeSupport
from agent.origin import ASKED_ONCE, NO_HEAD, NO_LENGTH, NO_RANGES, OriginClient
from agent.origin_options import PLAIN, OriginOptions, RedirectPolicy
from peer.core.failure import Failure, FailureKind, Persistence
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import described, facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from validation.ranges import ByteRange

SMALL = bytes(range(256)) * 400
POST = OriginOptions(method="POST")
REPORT = OriginOptions(redirects=RedirectPolicy.REPORT)
DISALLOW = OriginOptions(redirects=RedirectPolicy.DISALLOW)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/x", SMALL)
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    async with origin_client() as running:
        yield running


def is_failure(outcome: object, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome
    assert "canary" not in outcome.message
    return outcome


# --- the method -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PROPFIND", "PUT", "DELETE", "REPORT"])
async def test_another_method(origin: Origin, client: OriginClient, method: str) -> None:
    """Sent once, for the whole, without conditions and without a body: it may change something over there."""
    origin.add("/x", SMALL, methods=(method,))
    options = OriginOptions(method=method)
    found = await described(client, origin.url("/x"), options)
    facts = found.facts
    assert (facts.length, facts.ranges, facts.strong_validator) == (None, RangeSupport.NONE, None)
    assert found.notes == (ASKED_ONCE,)
    outcome, sink = await fetch(client, origin.url("/x"), facts, options=options)
    assert outcome == Fetched(item=ByteRange(0, len(SMALL)))
    assert sink.holds(SMALL, ByteRange(0, len(SMALL)))
    assert [entry.method for entry in origin.log] == [method]
    for entry in origin.log:
        assert not {"range", "if-range", "if-match", "content-type"} & entry.headers.keys()
        assert entry.headers.get("content-length", "0") == "0"


async def test_another_method_serves_no_ranges(origin: Origin, client: OriginClient) -> None:
    """Not even asked; the beginning of the whole will do, though."""
    origin.add("/x", SMALL, methods=("POST",))
    facts = OriginFacts(length=len(SMALL), ranges=RangeSupport.PROMISED)
    outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(10, 20), options=POST)
    is_failure(outcome, FailureKind.NO_RANGES)
    assert origin.log == []
    outcome, sink = await fetch(client, origin.url("/x"), facts, ByteRange(0, 20), options=POST)
    assert isinstance(outcome, Fetched)
    assert sink.holds(SMALL, ByteRange(0, 20))
    assert "range" not in origin.log[-1].headers


async def test_another_method_makes_its_answer_anew(origin: Origin, client: OriginClient) -> None:
    """Validators of two answers need not agree; lengths do."""
    origin.add("/x", SMALL, etag='"1"', methods=("POST",))
    facts = OriginFacts(length=len(SMALL), etag='"1"', ranges=RangeSupport.NONE)
    origin.add("/x", SMALL, etag='"2"', modified=1_800_000_000, methods=("POST",))
    for known in (facts, replace(facts, etag='"0"', last_modified="Tue, 14 Nov 2023 22:13:20 GMT")):
        outcome, _ = await fetch(client, origin.url("/x"), known, options=POST)
        assert isinstance(outcome, Fetched)
    origin.add("/x", SMALL[:-1], methods=("POST",))
    outcome, _ = await fetch(client, origin.url("/x"), facts, options=POST)
    is_failure(outcome, FailureKind.CHANGED)


async def test_a_method_that_is_refused(origin: Origin, client: OriginClient) -> None:
    outcome, _ = await fetch(client, origin.url("/x"), OriginFacts(length=None), options=POST)
    failure = is_failure(outcome, FailureKind.HTTP_FATAL)
    assert failure.http_status == 405
    assert [entry.method for entry in origin.log] == ["POST"]


@pytest.mark.parametrize(
    ("status", "method", "follows"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (302, "PUT", "PUT"),
        (303, "PUT", "GET"),
    ],
)
async def test_the_method_after_a_redirect(
    origin: Origin, client: OriginClient, status: int, method: str, follows: str
) -> None:
    origin.add("/from", b"", methods=(method,), faults=[Fault("redirect", value="/x", count=status)])
    origin.add("/x", SMALL, methods=(follows,))
    options = OriginOptions(method=method)
    facts = await facts_of(client, origin.url("/from"), options)
    outcome, _ = await fetch(client, origin.url("/from"), facts, options=options)
    assert isinstance(outcome, Fetched)
    assert [entry.method for entry in origin.log] == [method, follows]


# --- redirects ------------------------------------------------------------------------------------------------


async def test_a_redirect_is_reported_when_the_job_wants_it(origin: Origin, client: OriginClient) -> None:
    origin.add("/from", b"", faults=[Fault("redirect", value="/on")])
    origin.add("/on", b"", faults=[Fault("redirect", value="/x?sig=a%2Fb#part")])
    assert (await described(client, origin.url("/from"), REPORT)).url == origin.url("/x?sig=a%2Fb")
    assert (await described(client, origin.url("/x"), REPORT)).url is None
    assert (await described(client, origin.url("/from"), PLAIN)).url is None


@pytest.mark.parametrize("to", ["/x?token=canary", "http://user:canary@h.test/x", "ftp://h.test/canary?canary"])
async def test_a_redirect_is_refused_when_the_job_wants_it(origin: Origin, client: OriginClient, to: str) -> None:
    origin.add("/from", b"", faults=[Fault("redirect", value=to)])
    outcome = await client.probe(origin.url("/from?key=canary"), DISALLOW)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.http_status) == (FailureKind.REDIRECT_REFUSED, 302)
    assert outcome.persistence is Persistence.FATAL
    shown = to.partition("?")[0].replace("user:canary@", "")
    assert (shown if "://" in shown else origin.url(shown)) in outcome.message
    assert "=canary" not in outcome.message
    assert ":canary" not in outcome.message
    assert len(origin.log) == 1
    assert (await described(client, origin.url("/x"), DISALLOW)).facts.length == len(SMALL)


# --- what is told about the answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "notes"),
    [
        ("", ()),
        ("head-status", (NO_HEAD,)),
        ("head-status:count=403", (NO_HEAD,)),
        ("head-missing", (NO_HEAD,)),
        ("head-no-length", ()),
        ("no-ranges", (NO_RANGES,)),
        ("head-status no-ranges", (NO_HEAD, NO_RANGES)),
        ("no-length no-ranges", (NO_LENGTH, NO_RANGES)),
        ("head-missing chunked promise-ranges", (NO_HEAD, NO_LENGTH, NO_RANGES)),
    ],
)
async def test_notes_about_servers_that_can_less(
    origin: Origin, client: OriginClient, faults: str, notes: tuple[str, ...]
) -> None:
    """And all of them serve the content all the same."""
    origin.add("/x", SMALL, faults=faults.split())
    found = await described(client, origin.url("/x"))
    assert found.notes == notes
    outcome, sink = await fetch(client, origin.url("/x"), found.facts)
    assert outcome == Fetched(item=ByteRange(0, len(SMALL)))
    assert sink.holds(SMALL, ByteRange(0, len(SMALL)))


async def test_the_headers_of_the_answer(origin: Origin, client: OriginClient) -> None:
    origin.add(
        "/x",
        SMALL,
        etag='"e"',
        headers=(("X-Two", "a"), ("Set-Cookie", "canary"), ("X-Odd", "h\udcff\u00e4")),
        faults=[Fault("header", value="X-Last: z")],
    )
    headers = (await described(client, origin.url("/x"))).headers
    assert dict(headers) == {
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        "etag": '"e"',
        "last-modified": "Tue, 14 Nov 2023 22:13:20 GMT",
        "x-two": "a",
        "x-odd": "h\ufffd\u00e4",
        "x-last": "z",
        "content-length": str(len(SMALL)),
    }


async def test_the_headers_of_the_answer_are_bounded(origin: Origin, client: OriginClient) -> None:
    many = tuple((f"X-{number}", "\u00e4" * 2000) for number in range(6))
    origin.add("/x", SMALL, headers=(*many, ("X-Small", "there")))
    headers = dict((await described(client, origin.url("/x"))).headers)
    assert sum(len(name) + len(value.encode()) for name, value in headers.items()) <= 16 * 1024
    assert {"x-0", "x-2", "x-small"} <= headers.keys()
    assert "x-5" not in headers
