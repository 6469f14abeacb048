"""Delays."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.core.backoff import Backoff


@given(st.integers(), st.floats(0.01, 10), st.floats(0.01, 1000), st.integers(1, 80))
def test_between_half_and_all_of_a_growing_ceiling(seed: int, first: float, longest: float, tries: int) -> None:
    backoff = Backoff(first_s=first, longest_s=longest, rng=random.Random(seed))
    for number in range(tries):
        ceiling = min(max(first, longest), first * 2.0 ** min(number, 60))
        assert ceiling / 2 <= backoff.next_delay() <= ceiling


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
