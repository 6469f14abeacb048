"""Whether what the origin serves is what the job asks for, and what its failures mean then."""

from __future__ import annotations

import pytest

from agent.core.demand import Demand
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.fitness import fit, joinable, may_join, meaning, same_elsewhere
from agent.core.ranges_map import RangeMap
from agent.core.spec import AskedRange, TransferSpec
from peer.core.failure import Failure, FailureKind, Persistence
from tests.support.playbook import CHUNK, facts, failure, spec
from validation.digest import Algorithm, Digest
from validation.ranges import ByteRange

DIGEST = Digest(Algorithm.SHA256, bytes(32))
DATE = "Mon, 01 Jan 2024 00:00:00 GMT"
NOTHING = Demand(on_demand=True)
SOMETHING = Demand(on_demand=True, wanted=(ByteRange(0, 10),))
ONE_RANGE = spec(ranges=(AskedRange(offset=10, length=20),))


@pytest.mark.parametrize(
    ("given", "origin", "expected"),
    [
        (spec(), facts(), True),
        (spec(), facts(etag=None, last_modified=DATE), True),
        (spec(), facts(etag=None), False),
        (spec(), facts(etag='W/"v1"', last_modified=DATE), False),
        (spec(digest=DIGEST), facts(etag=None), True),
        (spec(anchors=(bytes(32),)), facts(etag=None), True),
    ],
)
def test_parts_can_be_joined(given: TransferSpec, origin: OriginFacts, expected: bool) -> None:
    assert joinable(given, origin) is expected
    assert may_join(given, origin) is expected


def test_parts_that_cannot_be_fetched_cannot_be_joined() -> None:
    assert not may_join(spec(), facts(ranges=RangeSupport.NONE))
    assert may_join(spec(), facts(ranges=RangeSupport.UNKNOWN))


@pytest.mark.parametrize(
    ("given", "after", "expected"),
    [
        (spec(), facts(), True),
        (spec(), facts(ranges=RangeSupport.UNKNOWN), True),
        (spec(), facts(ranges=RangeSupport.NONE), False),
        (spec(), facts(4), False),
        (spec(), facts(length=None), False),
        (spec(), facts(etag='"v2"'), False),
        (spec(), facts(etag=None, last_modified=DATE), False),
        (spec(digest=DIGEST), facts(etag='"v2"'), True),
        (spec(digest=DIGEST), facts(4), False),
    ],
)
def test_elsewhere_it_is_the_same(given: TransferSpec, after: OriginFacts, expected: bool) -> None:
    assert same_elsewhere(given, facts(), after) is expected


def test_elsewhere_without_any_validator_it_is_not() -> None:
    assert not same_elsewhere(spec(), facts(etag=None), facts(etag=None))
    assert not same_elsewhere(spec(), facts(length=None), facts(length=None))


# --- the fit ---------------------------------------------------------------------------------------------------


def kind_of(found: RangeMap | Failure | None) -> FailureKind | None:
    return found.kind if isinstance(found, Failure) else None


def test_the_whole_needs_no_map() -> None:
    assert fit(spec(), facts(), NOTHING) is None
    assert fit(spec(), facts(length=None), NOTHING) is None


def test_ranges_have_one() -> None:
    found = fit(ONE_RANGE, facts(), NOTHING)
    assert isinstance(found, RangeMap)
    assert found.length == 20


@pytest.mark.parametrize(
    ("given", "origin", "kind"),
    [
        (spec(maximum_bytes=3 * CHUNK), facts(3), None),
        (spec(maximum_bytes=3 * CHUNK - 1), facts(3), FailureKind.MAX_SIZE_REACHED),
        (spec(maximum_bytes=1), facts(length=None), None),
        (spec(ranges=ONE_RANGE.ranges, maximum_bytes=20), facts(3), None),
        (spec(ranges=ONE_RANGE.ranges, maximum_bytes=19), facts(3), FailureKind.MAX_SIZE_REACHED),
        (ONE_RANGE, facts(length=5), FailureKind.INVALID_RANGE),
    ],
)
def test_sizes(given: TransferSpec, origin: OriginFacts, kind: FailureKind | None) -> None:
    assert kind_of(fit(given, origin, NOTHING)) is kind


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        (facts(), None),
        (facts(length=10), None),
        (facts(length=9), FailureKind.INVALID_RANGE),
        (facts(length=None), FailureKind.RANDOM_ACCESS_UNSUPPORTED),
        (facts(ranges=RangeSupport.NONE), FailureKind.RANDOM_ACCESS_UNSUPPORTED),
        (facts(etag=None), FailureKind.RANDOM_ACCESS_UNSUPPORTED),
    ],
)
def test_random_access(origin: OriginFacts, kind: FailureKind | None) -> None:
    assert kind_of(fit(spec(on_demand=True), origin, SOMETHING)) is kind


# --- what failures mean ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "demand", "means"),
    [
        (FailureKind.TOO_LARGE, spec(maximum_bytes=5), NOTHING, FailureKind.MAX_SIZE_REACHED),
        (FailureKind.TOO_LARGE, spec(), NOTHING, FailureKind.TOO_LARGE),
        (FailureKind.BAD_RESPONSE, ONE_RANGE, NOTHING, FailureKind.INVALID_SERVER_RESPONSE),
        (FailureKind.BAD_RESPONSE, spec(), NOTHING, FailureKind.BAD_RESPONSE),
        (FailureKind.NO_RANGES, ONE_RANGE, NOTHING, FailureKind.RANGES_REQUIRED),
        (FailureKind.NO_RANGES, spec(), NOTHING, FailureKind.NO_RANGES),
        (FailureKind.NO_RANGES, spec(), SOMETHING, FailureKind.RANDOM_ACCESS_UNSUPPORTED),
        (FailureKind.STALLED, ONE_RANGE, SOMETHING, FailureKind.STALLED),
    ],
)
def test_meaning(kind: FailureKind, given: TransferSpec, demand: Demand, means: FailureKind) -> None:
    found = meaning(failure(kind, http_status=200), given, demand)
    assert found.kind is means
    if means in (FailureKind.INVALID_SERVER_RESPONSE, FailureKind.RANGES_REQUIRED):
        assert (found.persistence, found.http_status) == (Persistence.FATAL, 200)
