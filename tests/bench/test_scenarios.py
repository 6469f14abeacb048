"""The scenarios: the values that the measurements name, and what is refused."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from bench.reading import rate_of, size_of
from bench.scenarios import (
    MBIT,
    MIB,
    SCENARIOS,
    FullDisk,
    Happening,
    Kill,
    Late,
    Lie,
    Link,
    OriginDies,
    ScenarioError,
    Slow,
)

COLD = SCENARIOS["cold"]


def test_all_of_them_are_there() -> None:
    assert list(SCENARIOS) == [
        "cold",
        "staggered",
        "warm",
        "wan",
        "fast-origin",
        "slow-peer",
        "dead-owner",
        "liar",
        "forger",
        "churn",
        "two-files",
    ]
    assert all(name == scenario.name for name, scenario in SCENARIOS.items())
    assert all(scenario.agents == 8 for scenario in SCENARIOS.values())


def test_the_two_cases_that_have_goals() -> None:
    assert (COLD.origin, COLD.agent, COLD.total_bytes) == (Link.both(80 * MBIT), Link.both(80 * MBIT), 128 * MIB)
    wan = SCENARIOS["wan"]
    assert (wan.origin.up, wan.agent.down, wan.total_bytes) == (20 * MBIT, 200 * MBIT, 64 * MIB)


def test_overrides_leave_the_rest() -> None:
    found = SCENARIOS["warm"].changed(agents=16, size=4 * MIB, origin_rate=5 * MBIT)

    assert (found.agents, found.size, found.seeds) == (16, 4 * MIB, 1)
    assert found.origin == Link.both(5 * MBIT)
    assert found.agent == COLD.agent
    assert COLD.changed() == COLD


def test_who_fetches_and_who_is_waited_for() -> None:
    assert SCENARIOS["warm"].awaited == tuple(range(1, 8))
    assert 1 not in SCENARIOS["dead-owner"].awaited
    assert SCENARIOS["churn"].awaited == (0, 3, 4, 5, 6, 7)
    assert SCENARIOS["liar"].awaited == SCENARIOS["forger"].awaited == tuple(range(8))


def test_when_they_start() -> None:
    assert SCENARIOS["staggered"].starts(10.0) == {number: float(number) for number in range(8)}
    assert SCENARIOS["churn"].starts(10.0) == {0: 0, 1: 0, 2: 0, 3: 2.5, 4: 5.0, 5: 0, 6: 0, 7: 0}


def test_the_slow_one_is_slow_both_ways() -> None:
    scenario = SCENARIOS["slow-peer"]

    assert scenario.link_of(1) == Link(up=800_000, down=800_000)
    assert scenario.link_of(2) == scenario.agent


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"agents": 0}, "agents must be 1 to"),
        ({"agents": 100_001}, "agents must be 1 to"),
        ({"size": 0}, "at least one byte"),
        ({"files": 0}, "at least one file"),
        ({"seeds": 8}, "leave nobody to fetch it"),
        ({"agents": 1, "seeds": 1}, "1 agent with 1 that have it"),
        ({"seeds": -1}, "leave nobody"),
        ({"stagger_s": -1.0}, "seconds between two starts"),
        ({"stagger_s": float("nan")}, "seconds between two starts"),
        ({"origin": Link.both(0)}, "at least 10000 bit/s, not 0"),
        ({"agent": Link(up=80 * MBIT, down=5)}, "not 5"),
    ],
)
def test_values_that_cannot_be(values: dict[str, object], words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as raised:
        dataclasses.replace(COLD, **values)  # type: ignore[arg-type]
    assert str(raised.value).startswith("cold: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("happening", "words"),
    [
        (Kill(agent=8, at=0.5), "needs 9 agents or more, and there are 8"),
        (Kill(agent=-1, at=0.5), "needs 0 agents"),
        (Kill(agent=1, at=0.0), "nothing can happen 0.0 T_min"),
        (Late(agent=1, at=-2.0), "nothing can happen -2.0 T_min"),
        (OriginDies(at=float("nan")), "nothing can happen nan T_min"),
        (Slow(agent=1, share=0.0), "share of agent 1 must be 0 to 1"),
        (Slow(agent=1, share=0.00001), "slow agent's link would be below"),
        (Lie(agent=1, share=1.5), "share of agent 1 must be 0 to 1"),
    ],
)
def test_happenings_that_cannot_be(happening: Happening, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        dataclasses.replace(COLD, happenings=(happening,))


def test_a_seed_is_neither_late_nor_without_room() -> None:
    for happening in (Late(agent=0, at=0.5), FullDisk(agent=0)):
        with pytest.raises(ScenarioError, match="agent 0 fetches nothing"):
            dataclasses.replace(COLD, seeds=1, happenings=(happening,))


def test_somebody_must_be_left() -> None:
    with pytest.raises(ScenarioError, match="nobody is left to finish"):
        dataclasses.replace(COLD, agents=1, happenings=(Kill(agent=0, at=0.5),))


def test_too_few_agents_for_what_happens() -> None:
    with pytest.raises(ScenarioError, match="churn: it needs 5 agents or more, and there are 4"):
        SCENARIOS["churn"].changed(agents=4)


@pytest.mark.parametrize("mbit", [0.0, -1.0, float("inf"), float("nan"), 1e9])
def test_a_rate_that_no_link_can_have_is_refused(mbit: float) -> None:
    with pytest.raises(ScenarioError, match="a rate must be above 0"):
        rate_of(mbit)


def test_sizes_are_read_with_their_units() -> None:
    assert [size_of(text) for text in ("5", "2KiB", "3 mib", "1GiB")] == [5, 2048, 3 << 20, 1 << 30]
    for text in ("", "-1", "1.5MiB", "4MB", "MiB"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
            size_of(text)
