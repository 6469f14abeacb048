"""With how many others an agent keeps company."""

from __future__ import annotations

from agent.core.neighbours import ALL, SOME, neighbours_among


def test_a_small_group_knows_each_other_and_a_large_one_stays_bounded() -> None:
    assert [neighbours_among(others) for others in (0, 1, ALL)] == [ALL, ALL, ALL]
    assert {neighbours_among(others) for others in (ALL + 1, 100, 2_000, 10**6)} == {SOME}
