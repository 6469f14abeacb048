"""When a change of an offer is told: at once what others wait for, the rest in bundles that cost little delay."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.news import (
    BYTES_PER_S,
    LEAST_S,
    PASSED_ON_MOST_S,
    PAUSE_S,
    Pace,
    Weight,
)
from peer.core.state import State
from validation.content import Bitfield, ChunkLayout

LAYOUT = ChunkLayout.for_length(64 * 1024 * 1024)


def state(have: int = 0, claimed: int = 0, *, wants: bool = True) -> State:
    return State(layout=LAYOUT, have=Bitfield(have), claimed=Bitfield(claimed), wants=wants)


def pace_after(told: State | None, at: float = 0.0) -> Pace:
    """Of one who was told this."""
    pace = Pace()
    pace.told(told, 100, at)
    return pace


@pytest.mark.parametrize(
    ("told", "now", "weight"),
    [
        (state(1, 2), state(1, 2), Weight.NONE),
        (None, state(1), Weight.URGENT),
        (state(1), None, Weight.URGENT),
        (state(1), state(1, wants=False), Weight.URGENT),
        (state(0b11), state(0b01), Weight.URGENT),
        (state(1), msgspec.structs.replace(state(1), layout=ChunkLayout.for_length(10)), Weight.URGENT),
        (state(0b001, 0b110), state(0b011, 0b100), Weight.BROUGHT),
        (state(0b001, 0b010), state(0b011, 0b100), Weight.BROUGHT),
        (state(0b001), state(0b001, 0b010), Weight.BROUGHT),
        (state(0b001, 0b010), state(0b011), Weight.URGENT),
        (state(0b001, 0b100), state(0b011, 0b100), Weight.PASSED_ON),
        (state(0b001), state(0b011), Weight.PASSED_ON),
    ],
    ids=[
        "the same",
        "first",
        "nothing any more",
        "takes part no more",
        "has less",
        "another content",
        "brought one of two",
        "brought one, claims another",
        "claims",
        "brought the last",
        "passes on while it brings",
        "passes on",
    ],
)
def test_what_matters_how_much(told: State | None, now: State | None, weight: Weight) -> None:
    assert pace_after(told).weigh(now) is weight


def test_what_was_claimed_is_brought_also_when_the_claim_was_gone_before_it_came() -> None:
    pace = pace_after(state(0, 0b1))
    pace.told(state(), 100, 1.0)
    assert pace.weigh(state(0b1)) is Weight.URGENT


def test_a_claim_that_came_and_went_untold_is_remembered() -> None:
    pace = pace_after(state())
    assert pace.due(state(0, 0b1)) is not None
    assert pace.weigh(state(0b1)) is Weight.URGENT


def test_the_first_answer_is_due_at_once_and_nothing_new_is_never_due() -> None:
    assert Pace().due(state(1)) == float("-inf")
    assert pace_after(state(1)).due(state(1)) is None


def test_what_can_wait_waits_for_more_and_what_is_urgent_only_for_what_comes_with_it() -> None:
    pace = pace_after(state(0, 0b1), 5.0)
    assert pace.due(state(0, 0b10)) == pytest.approx(5.0 + PAUSE_S)
    assert pace.due(None) == pytest.approx(5.0 + LEAST_S)


def test_who_seldom_brings_something_says_less_often_what_it_passes_on() -> None:
    pace = Pace()
    for number, at in enumerate((0.0, 2.4, 4.8)):
        pace.told(state((1 << number) - 1, 1 << number), 100, at)
    passed_on = state(0b10011, 0b100)
    assert pace.due(passed_on) == pytest.approx(4.8 + 1.2)
    assert pace.due(state(0b00111, 0b1000)) == pytest.approx(4.8 + PAUSE_S)
    pace.told(state(0b00111, 0b1000), 100, 100.0)
    assert pace.due(state(0b10111, 0b1000)) == pytest.approx(100.0 + PASSED_ON_MOST_S)


def test_large_offers_come_less_often_whatever_they_say() -> None:
    pace = Pace()
    pace.told(state(1), 10 * BYTES_PER_S, 3.0)
    assert pace.due(None) == 13.0


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15), st.booleans()), max_size=20),
    st.floats(0.0, 100.0),
)
def test_what_is_new_is_due_within_the_longest_pause(states: list[tuple[int, int, bool]], at: float) -> None:
    pace = pace_after(state(), at)
    for have, claimed, wants in states:
        now = state(have, claimed, wants=wants)
        due = pace.due(now)
        assert (due is None) == (now == state())
        assert due is None or at + LEAST_S <= due <= at + PAUSE_S
