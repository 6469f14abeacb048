"""How many bytes are worth waking up for: more the faster the last body came, and one at every end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peer.wakes import LEAST_BYTES, MOST_BYTES, RECORD_BYTES, WAIT_S, Wakes

MIB = 1024 * 1024


def after_a_body(rate: float, length: int = MIB) -> Wakes:
    """One that came at this rate, in bytes a second."""
    wakes = Wakes()
    wakes.begin(length, 10.0)
    wakes.read(length, 10.0 + length / rate)
    return wakes


def test_nothing_is_known_of_the_first_body() -> None:
    wakes = Wakes()
    wakes.begin(MIB, 0.0)
    assert wakes.level == 1


def test_the_next_one_waits_for_what_came_in_80_ms_within_bounds() -> None:
    for rate, level in ((1e6, int(1e6 * WAIT_S)), (1e9, MOST_BYTES), (1e4, 1)):
        wakes = after_a_body(rate)
        assert wakes.level == 1
        wakes.begin(MIB, 20.0)
        assert abs(wakes.level - level) <= 1, rate


def test_a_small_body_never_waits() -> None:
    wakes = after_a_body(1e9)
    wakes.begin(RECORD_BYTES + LEAST_BYTES - 1, 20.0)
    assert wakes.level == 1


def test_one_that_has_become_slow_is_read_as_it_comes() -> None:
    wakes = after_a_body(1e6)
    wakes.begin(MIB, 20.0)
    wakes.read(100_000, 20.1)
    assert not wakes.quiet()
    assert wakes.level > 1
    assert wakes.quiet()
    assert wakes.level == 1
    wakes.read(MIB - 100_000, 40.0)
    wakes.begin(MIB, 40.0)
    assert wakes.level == 1, "and so is the next one"


@given(st.integers(1, 4 * MIB), st.lists(st.integers(1, 300_000), max_size=60), st.floats(1e3, 1e9))
def test_what_is_still_to_come_is_always_enough_to_wake_us(length: int, reads: list[int], rate: float) -> None:
    wakes = after_a_body(rate)
    wakes.begin(length, 0.0)
    rest, now = length, 0.0
    for wanted in reads:
        assert wakes.level == 1 or wakes.level <= rest - RECORD_BYTES
        assert 1 <= wakes.level <= MOST_BYTES
        count, now = min(wanted, rest), now + 0.01
        wakes.read(count, now)
        rest -= count
        if not rest:
            break
    assert wakes.level == 1 or rest > RECORD_BYTES
