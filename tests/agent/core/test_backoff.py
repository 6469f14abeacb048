"""Delays."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import SPREAD, Backoff


@given(st.integers(), st.floats(0.01, 10), st.floats(0.01, 1000), st.integers(1, 80))
def test_they_grow_from_half_the_first_to_the_longest(seed: int, first: float, longest: float, tries: int) -> None:
    backoff = Backoff(first_s=first, longest_s=longest, rng=random.Random(seed))
    for number in range(tries):
        delay = backoff.next_delay()
        ceiling = first * 2.0**number
        if ceiling < longest:
            assert first / 2 <= delay <= ceiling
        else:
            assert max(first, longest) <= delay <= max(first, longest) * (1 + SPREAD)


def test_at_the_minimum_retry_delay_nobody_comes_back_before_it() -> None:
    """BITS 1.5: after a transient error wait the minimum retry delay; ours are shorter only at first."""
    backoff = Backoff(first_s=1.0, longest_s=600.0, rng=random.Random(1))
    delays = [backoff.next_delay() for _ in range(20)]
    assert all(delay < 600.0 for delay in delays[:10])
    assert all(600.0 <= delay <= 660.0 for delay in delays[10:])


def test_a_new_longest_delay_holds_at_once() -> None:
    backoff = Backoff(first_s=1.0, longest_s=600.0, rng=random.Random(1))
    for _ in range(12):
        backoff.next_delay()
    backoff.longest_s = 5.0
    assert 5.0 <= backoff.next_delay() <= 5.5


def test_progress_makes_it_small_again() -> None:
    backoff = Backoff(first_s=1.0, longest_s=600.0, rng=random.Random(1))
    for _ in range(10):
        backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() <= 1.0


def test_never_before_the_source_allows() -> None:
    backoff = Backoff(first_s=1.0, longest_s=600.0, rng=random.Random(1))
    assert backoff.next_delay(120.0) == 120.0


def test_two_agents_do_not_come_back_together() -> None:
    delays = {Backoff(first_s=1.0, longest_s=9.0, rng=random.Random(seed)).next_delay() for seed in range(50)}
    assert len(delays) == 50
