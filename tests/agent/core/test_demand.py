"""What is wanted first, and when listeners are told."""

from __future__ import annotations

import pytest

from agent.core.demand import Demand, Filling
from agent.core.tuning import Tuning
from peer.core.failure import FailureKind
from validation.content import Bitfield, ChunkLayout
from validation.ranges import ByteRange
from validation.rangeset import RangeSet

C = 1024
LAYOUT = ChunkLayout(length=9 * C + 1, chunk_bytes=C)
TO_THE_END = 1 << 60


def wanting(*spans: tuple[int, int]) -> Demand:
    demand = Demand(on_demand=True)
    demand.want(ByteRange(start, stop) for start, stop in spans)
    return demand


def test_nothing_wanted_is_everything() -> None:
    demand = Demand(on_demand=True)
    assert not demand.active
    assert demand.goal(LAYOUT) == LAYOUT.everything
    assert demand.misfit(5) is None


def test_every_chunk_that_is_touched() -> None:
    assert wanting((C - 1, C + 1)).goal(LAYOUT) == 0b11
    assert wanting((0, 1), (5 * C, 6 * C)).goal(LAYOUT) == 0b100001
    assert wanting((8 * C, TO_THE_END)).goal(LAYOUT) == Bitfield(0b11 << 8)


def test_overlaps_are_merged() -> None:
    demand = wanting((0, 10), (5, 20))
    demand.want([ByteRange(20, 30)])
    assert list(demand.wanted) == [ByteRange(0, 30)]
    demand.forget()
    assert not demand.active


def test_of_another_file_nothing_is_wanted() -> None:
    demand = Demand(on_demand=False)
    demand.want([ByteRange(0, 1)])
    assert not demand.active


@pytest.mark.parametrize(
    ("span", "fits"),
    [
        ((0, 100), True),
        ((99, 100), True),
        ((99, TO_THE_END), True),
        ((0, 101), False),
        ((100, TO_THE_END), False),
        ((100, 101), False),
    ],
)
def test_what_fits(span: tuple[int, int], fits: bool) -> None:
    failure = wanting(span).misfit(100)
    assert (failure is None) is fits
    assert fits or (failure is not None and failure.kind is FailureKind.INVALID_RANGE)


def test_the_order() -> None:
    assert Demand(on_demand=False).cursor(LAYOUT) is None
    assert Demand(on_demand=True).cursor(LAYOUT) == 0
    demand = Demand(on_demand=True, position=5 * C + 3)
    assert demand.cursor(LAYOUT) == 5
    demand.position = 9 * C
    assert demand.cursor(LAYOUT) == 9
    demand.position = 9 * C + 1
    assert demand.cursor(LAYOUT) == 0


# --- telling ---------------------------------------------------------------------------------------------------


class Told:
    """A file that fills, and what is told of it."""

    def __init__(self) -> None:
        self.filling = Filling(Tuning(filled_s=0.5, filled_again_s=0.1), C)
        self.filled = RangeSet()

    def grow(self, start: int, stop: int, now: float) -> None:
        self.filled.add(ByteRange(start, stop))
        self.filling.grew(ByteRange(start, stop), now)

    def news(self, now: float) -> list[tuple[int, int]]:
        return [(item.start, item.stop) for item in self.filling.news(self.filled, now)]


def test_nothing_is_due_before_something_came() -> None:
    told = Told()
    assert (told.filling.deadline(), told.filling.due(1e9)) == (None, False)


def test_few_bytes_wait_for_half_a_second_from_the_first_on() -> None:
    told = Told()
    told.grow(0, 10, 1.0)
    told.grow(10, 20, 1.4)
    assert told.filling.deadline() == 1.5
    assert not told.filling.due(1.49)
    assert told.filling.due(1.5)
    assert told.news(1.5) == [(0, 20)]
    assert told.filling.deadline() is None


def test_a_chunk_waits_a_tenth_after_the_last_time() -> None:
    told = Told()
    told.grow(0, C, 1.0)
    assert told.filling.due(1.0)
    assert told.news(1.0) == [(0, C)]
    told.grow(C, 2 * C, 1.01)
    assert told.filling.deadline() == pytest.approx(1.1)
    assert told.news(1.1) == [(C, 2 * C)]


def test_what_was_there_is_no_news_and_what_comes_again_is() -> None:
    told = Told()
    told.filled.add(ByteRange(0, 100))
    told.filling.begin(told.filled)
    told.grow(200, 300, 1.0)
    assert told.news(1.5) == [(200, 300)]
    told.filled.subtract(ByteRange(0, 300))
    told.grow(50, 250, 2.0)
    assert told.news(2.5) == [(50, 250)]
