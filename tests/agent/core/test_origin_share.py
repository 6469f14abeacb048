"""The origin's part: how much at once, and what its failures mean."""

from __future__ import annotations

import pytest

from agent.core.facts import OriginFacts, RangeSupport
from agent.core.origin_share import OriginShare
from agent.core.scheduler import OriginReadiness
from agent.core.tuning import MIB, Tuning
from peer.core.failure import Failure, FailureKind
from validation.content import ChunkLayout
from validation.ranges import ByteRange

LAYOUT = ChunkLayout(length=1024 * MIB, chunk_bytes=MIB)
CUT = Failure(kind=FailureKind.CONNECTION_CLOSED, message="cut")


def share(ranges: RangeSupport = RangeSupport.PROMISED, may_join: bool = True) -> OriginShare:
    made = OriginShare(Tuning())
    made.begin(OriginFacts(length=LAYOUT.length, ranges=ranges), may_join)
    return made


@pytest.mark.parametrize(
    ("ranges", "may_join", "whole"),
    [
        (RangeSupport.PROMISED, True, False),
        (RangeSupport.UNKNOWN, True, False),
        (RangeSupport.NONE, True, True),
        (RangeSupport.PROMISED, False, True),
    ],
)
def test_whole_only(ranges: RangeSupport, may_join: bool, whole: bool) -> None:
    wanted = OriginReadiness.WHOLE_ONLY if whole else OriginReadiness.READY
    assert share(ranges, may_join).readiness(in_flight=False) is wanted
    assert share(ranges, may_join).readiness(in_flight=True) is OriginReadiness.ENGAGED


def test_alone_as_long_as_it_goes_with_peers_a_few_seconds() -> None:
    origin = share()
    assert origin.run_length(LAYOUT, shared=False) is None
    assert origin.run_length(LAYOUT, shared=True) == 8
    for second in range(3):
        origin.arrived(ByteRange(second * 20 * MIB, (second + 1) * 20 * MIB), MIB, float(second))
    assert origin.run_length(LAYOUT, shared=True) == 40
    assert origin.last_chunk == 60


def test_without_promised_ranges_as_long_as_it_goes() -> None:
    assert share(RangeSupport.UNKNOWN).run_length(LAYOUT, shared=True) is None


@pytest.mark.parametrize("kind", [FailureKind.ABORTED, FailureKind.NO_RANGES, FailureKind.CHANGED])
def test_no_failures_of_the_origin(kind: FailureKind) -> None:
    origin = share()
    origin.failed(Failure(kind=kind, message=""), 0)
    assert origin.failure is None
    assert origin.whole_only is (kind is FailureKind.NO_RANGES)


def test_fruitful_requests_are_continued_fruitless_ones_are_not() -> None:
    origin = share()
    origin.failed(CUT, 64 * 1024)
    assert origin.failure is None
    origin.failed(CUT, 64 * 1024 - 1)
    assert origin.failure is CUT
    assert origin.readiness(in_flight=False) is OriginReadiness.ENGAGED


def test_a_whole_that_was_cut_is_not_continued_but_begun_again_so_it_waits() -> None:
    origin = share(RangeSupport.NONE)
    origin.arrived(ByteRange(0, 100 * MIB), MIB, 0.0)
    origin.failed(CUT, 100 * MIB)
    assert origin.failure is CUT


def test_a_fatal_failure_is_one_however_much_came() -> None:
    origin = share()
    gone = Failure(kind=FailureKind.NOT_FOUND, message="gone")
    origin.failed(gone, 100 * MIB)
    assert origin.failure is gone
