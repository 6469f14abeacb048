"""ByteRange and RangeSet against the simplest model there is: a plain set of integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from validation.ranges import ByteRange
from validation.rangeset import RangeSet

EDGE = 40
small = st.integers(0, EDGE)
ranges = st.tuples(small, small).map(lambda pair: ByteRange(min(pair), max(pair)))


@dataclass
class Model:
    ours: RangeSet = field(default_factory=RangeSet)
    plain: set[int] = field(default_factory=set)


steps = st.lists(st.tuples(st.sampled_from(["add", "subtract"]), ranges), max_size=20)


def played(script: list[tuple[str, ByteRange]]) -> Model:
    model = Model()
    for name, item in script:
        members = set(range(item.start, item.stop))
        if name == "add":
            model.ours.add(item)
            model.plain |= members
        else:
            model.ours.subtract(item)
            model.plain -= members
    return model


def members(items: list[ByteRange] | RangeSet) -> list[int]:
    return [place for item in items for place in range(item.start, item.stop)]


@given(steps)
def test_same_bytes_as_a_plain_set(script: list[tuple[str, ByteRange]]) -> None:
    model = played(script)
    assert members(model.ours) == sorted(model.plain)
    assert model.ours.total == len(model.plain)
    assert model.ours.stop == max(model.plain, default=-1) + 1


@given(steps)
def test_ranges_are_sorted_and_never_touch_or_vanish(script: list[tuple[str, ByteRange]]) -> None:
    kept = list(played(script).ours)
    assert all(item.length > 0 for item in kept)
    assert all(one.stop < two.start for one, two in pairwise(kept))


@given(steps, ranges)
@example([("add", ByteRange(0, 9))], ByteRange(5, 5))
def test_gaps_and_held_share_the_window_out(script: list[tuple[str, ByteRange]], within: ByteRange) -> None:
    model = played(script)
    window = set(range(within.start, within.stop))
    gaps, held = model.ours.gaps(within), model.ours.held(within)
    assert all(item.length > 0 for item in gaps + held)
    assert members(gaps) == sorted(window - model.plain)
    assert members(held) == sorted(window & model.plain)


@given(steps, ranges)
def test_contains_means_every_byte(script: list[tuple[str, ByteRange]], item: ByteRange) -> None:
    model = played(script)
    assert (item in model.ours) == set(range(item.start, item.stop)).issubset(model.plain)


@given(st.lists(ranges, max_size=12))
def test_order_of_adding_does_not_matter(items: list[ByteRange]) -> None:
    assert RangeSet(items) == RangeSet(reversed(items))


@given(steps, ranges)
def test_a_copy_is_independent(script: list[tuple[str, ByteRange]], item: ByteRange) -> None:
    model = played(script)
    twin = model.ours.copy()
    twin.add(item)
    twin.subtract(ByteRange(0, EDGE))
    assert members(model.ours) == sorted(model.plain)


@given(ranges, ranges)
def test_intersection_and_overlap_as_sets(one: ByteRange, two: ByteRange) -> None:
    common = set(range(one.start, one.stop)) & set(range(two.start, two.stop))
    found = one.intersection(two)
    assert one.overlaps(two) == bool(common)
    assert (set(range(found.start, found.stop)) if found else set()) == common


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (-2, -1)])
def test_impossible_ranges_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        ByteRange(start, stop)


def test_truth_of_a_set_is_refused() -> None:
    with pytest.raises(TypeError, match="total"):
        bool(RangeSet())


def test_clear_and_repr() -> None:
    ours = RangeSet([ByteRange(1, 3), ByteRange(5, 8)])
    assert repr(ours) == "RangeSet([1,3) [5,8))"
    assert len(ours) == 2
    ours.clear()
    assert (len(ours), ours.total, ours.stop) == (0, 0, 0)
    assert ours != "RangeSet()"
