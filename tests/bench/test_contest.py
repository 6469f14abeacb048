"""Turns and ratios of a contest."""

from __future__ import annotations

import pytest

from bench.contest import Case, Sample, Tool, hold, results, show
from bench.report import WIDTH


def tool(name: str, calls: list[str], wall_s: float) -> Tool:
    async def run(number: int) -> Sample:
        calls.append(name)
        return Sample(wall_s=wall_s, cpu_s=wall_s / 2, amount=100)

    return Tool(name=name, run=run)


async def test_tools_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    case = Case(key="k", title="t", tools=[tool("a", calls, 1.0), tool("b", calls, 2.0)])
    said: list[str] = []

    await hold([case], rounds=3, seed=1, say=said.append)

    assert calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(each.samples) for each in case.tools] == [3, 3]
    assert len(said) == 4


async def test_cases_are_shuffled_the_same_way_for_one_seed() -> None:
    orders = []
    for _ in range(2):
        calls: list[str] = []
        cases = [Case(key=name, title=name, tools=[tool(name, calls, 1.0)]) for name in "abcdef"]
        await hold(cases, rounds=2, seed=7, say=lambda line: None)
        orders.append(calls)

    assert orders[0] == orders[1]
    assert len({tuple(orders[0][start : start + 6]) for start in (0, 6, 12)}) > 1


async def test_ratios_are_of_the_same_round(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    case = Case(key="k", title="Title", tools=[tool("ours", calls, 1.0), tool("theirs", calls, 2.0)])
    await hold([case], rounds=2, seed=1, say=lambda line: None)

    ours, theirs = results(case)

    assert (ours.rate_ratio.median, ours.cpu_ratio.median, ours.against) == (2.0, 0.5, "theirs")
    assert (theirs.rate_ratio.median, theirs.per_second.median) == (1.0, 50.0)
    show(case, (1.0, "X/S"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Title; ratios against theirs"
    assert "2.00 [2.00-2.00]" in lines[3]
    assert max(map(len, lines)) <= WIDTH
