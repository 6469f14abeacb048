"""Which local byte is which remote one, and which ranges make no file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.facts import RangeSupport
from agent.core.ranges_map import RangeMap, RangesError, check_asked
from agent.core.spec import AskedRange
from peer.core.failure import Failure, FailureKind
from tests.support.playbook import facts
from validation.ranges import ByteRange


def asked(*ranges: tuple[int, int | None]) -> tuple[AskedRange, ...]:
    return tuple(AskedRange(offset=offset, length=length) for offset, length in ranges)


@pytest.mark.parametrize(
    "ranges",
    [
        asked((0, 10)),
        asked((10, 10), (0, 10)),
        asked((0, 10), (10, None)),
        asked((50, None), (0, 50)),
    ],
)
def test_ranges_that_touch_in_any_order_are_fine(ranges: tuple[AskedRange, ...]) -> None:
    check_asked(ranges)


@pytest.mark.parametrize(
    ("ranges", "code"),
    [
        (asked((0, 10), (9, 1)), "OVERLAPPING_RANGES"),
        (asked((5, 5), (5, 5)), "OVERLAPPING_RANGES"),
        (asked((0, None), (100, 1)), "OVERLAPPING_RANGES"),
        (asked((100, 1), (0, None)), "OVERLAPPING_RANGES"),
        (asked((0, None), (5, None)), "OVERLAPPING_RANGES"),
        (asked((7, 0)), "INVALID_RANGE"),
        (asked((7, 0), (7, 5)), "INVALID_RANGE"),
        (asked((-1, 5)), "INVALID_RANGE"),
        (asked((5, -1)), "INVALID_RANGE"),
    ],
)
def test_ranges_that_make_no_file(ranges: tuple[AskedRange, ...], code: str) -> None:
    with pytest.raises(RangesError) as caught:
        check_asked(ranges)
    assert caught.value.code == code


def resolved(asked: tuple[AskedRange, ...], length: int | None = 100, **changes: object) -> RangeMap | Failure:
    return RangeMap.resolve(asked, facts(length=length, **changes))


def made(*ranges: tuple[int, int | None], length: int = 100) -> RangeMap:
    found = resolved(asked(*ranges), length)
    assert isinstance(found, RangeMap)
    return found


@pytest.mark.parametrize("item", [(100, 1), (100, None), (99, 2), (200, None)])
def test_beyond_the_end(item: tuple[int, int | None]) -> None:
    found = resolved(asked((0, 1), item))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.INVALID_RANGE


def test_an_origin_that_cannot_be_asked_so() -> None:
    for found in (resolved(asked((0, 1)), ranges=RangeSupport.NONE), resolved(asked((0, 1)), None)):
        assert isinstance(found, Failure)
        assert found.kind is FailureKind.RANGES_REQUIRED


def test_what_touches_in_the_order_given_is_one() -> None:
    assert made((0, 10), (10, 5), (30, 5)).spans == (ByteRange(0, 15), ByteRange(30, 35))
    assert made((10, 5), (0, 10)).spans == (ByteRange(10, 15), ByteRange(0, 10))
    assert made((0, 10), (10, 5)).name == made((0, 15)).name == "0-15"
    assert made((0, 10), (10, None)).is_whole(100)
    assert not made((50, None), (0, 50)).is_whole(100)


def test_pieces() -> None:
    of = made((90, None), (0, 10), (50, 5))
    assert of.length == 25
    assert of.pieces(ByteRange(0, 25)) == [
        (ByteRange(90, 100), 0),
        (ByteRange(0, 10), 10),
        (ByteRange(50, 55), 20),
    ]
    assert of.pieces(ByteRange(10, 20)) == [(ByteRange(0, 10), 10)]
    assert of.pieces(ByteRange(19, 21)) == [(ByteRange(9, 10), 19), (ByteRange(50, 51), 20)]
    assert of.pieces(ByteRange(5, 5)) == []
    assert of.pieces(ByteRange(24, 99)) == [(ByteRange(54, 55), 24)]
    assert of.pieces(ByteRange(25, 99)) == []


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    """Disjoint ranges in any order, and the remote length."""
    edges = sorted(draw(st.sets(st.integers(0, 60), min_size=2, max_size=10)))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    return draw(st.permutations(spans)), edges[-1] + draw(st.integers(0, 5))


@given(drawn=maps(), data=st.data())
def test_pieces_are_the_bytes_of_the_concatenation(
    drawn: tuple[list[tuple[int, int]], int], data: st.DataObject
) -> None:
    spans, length = drawn
    of = made(*((start, stop - start) for start, stop in spans), length=length)
    local = [at for start, stop in spans for at in range(start, stop)]
    assert of.length == len(local)
    start = data.draw(st.integers(0, len(local)))
    stop = data.draw(st.integers(start, len(local)))
    found = of.pieces(ByteRange(start, stop))
    assert [at for remote, _ in found for at in range(remote.start, remote.stop)] == local[start:stop]
    assert all(local[place] == remote.start for remote, place in found)
