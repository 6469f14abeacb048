"""Two or more tools do the same work by turns, so that a machine whose speed drifts treats them alike.

Rounds go over all cases in a shuffled order; within a case the tools follow one another, the other way round in
every second round. A first round warms everything up and is not counted. Never knows: what the work is.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.report import Column, Spread, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement: seconds on the clock, CPU seconds, and how much was done (bytes or requests)."""

    wall_s: float
    cpu_s: float
    amount: float

    @property
    def per_second(self) -> float:
        """Amount per second on the clock."""
        return self.amount / self.wall_s

    @property
    def cost(self) -> float:
        """CPU seconds per unit of amount."""
        return self.cpu_s / self.amount


@dataclass(slots=True, kw_only=True)
class Tool:
    """One contestant. `run(n)` does the work once; `n` is different in every call."""

    name: str
    run: Callable[[int], Awaitable[Sample]]
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison; the last of the tools is what the others are compared with."""

    key: str
    title: str
    tools: Sequence[Tool]

    @property
    def reference(self) -> Tool:
        """What the others are compared with."""
        return self.tools[-1]


async def hold(cases: Sequence[Case], rounds: int, seed: int, say: Callable[[str], None]) -> None:
    """All rounds of all cases. `say` hears of progress, a line a round."""
    rng, number = random.Random(seed), 0
    for turn in range(rounds + 1):
        for case in rng.sample(list(cases), len(cases)):
            for tool in case.tools if turn % 2 == 0 else reversed(case.tools):
                number += 1
                sample = await tool.run(number)
                if turn > 0:
                    tool.samples.append(sample)
        say("warmed up" if turn == 0 else f"round {turn} of {rounds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one tool in one case. The ratios are medians over the rounds, each against the same round's
    reference: rate (above 1 is faster) and CPU per unit (below 1 is cheaper)."""

    case: str
    tool: str
    against: str
    wall_s: Spread
    cpu_s: Spread
    per_second: Spread
    rate_ratio: Spread
    cpu_ratio: Spread
    samples: list[Sample]

    def document(self) -> dict[str, object]:
        """For `--json`."""
        spreads = {
            name: getattr(self, name).document()
            for name in ("wall_s", "cpu_s", "per_second", "rate_ratio", "cpu_ratio")
        }
        walls = [[round(item.wall_s, 4), round(item.cpu_s, 4), item.amount] for item in self.samples]
        return {"case": self.case, "tool": self.tool, "against": self.against, **spreads, "samples": walls}


def results(case: Case) -> list[Result]:
    """One for each tool."""
    reference = case.reference
    found = []
    for tool in case.tools:
        pairs = list(zip(tool.samples, reference.samples, strict=True))
        found.append(
            Result(
                case=case.key,
                tool=tool.name,
                against=reference.name,
                wall_s=Spread.of(one.wall_s for one in tool.samples),
                cpu_s=Spread.of(one.cpu_s for one in tool.samples),
                per_second=Spread.of(one.per_second for one in tool.samples),
                rate_ratio=Spread.of(one.per_second / other.per_second for one, other in pairs),
                cpu_ratio=Spread.of(_ratio(one.cost, other.cost) for one, other in pairs),
                samples=tool.samples,
            )
        )
    return found


def _ratio(one: float, other: float) -> float:
    return one / other if other > 0 else float("nan")


COLUMNS = (
    Column(title="TOOL", width=14, lean="<"),
    Column(title="SECONDS", width=19),
    Column(title="CPU S", width=17),
    Column(title="RATE", width=8),
    Column(title="RATE RATIO", width=16),
    Column(title="CPU RATIO", width=16),
)


def show(case: Case, unit: tuple[float, str]) -> list[Result]:
    """Print one case; `unit` is what amounts per second are divided by, and its name."""
    factor, name = unit
    print(f"{case.title}; ratios against {case.reference.name}")
    table = Table((*COLUMNS[:3], Column(title=name, width=8), *COLUMNS[4:]))
    table.head()
    found = results(case)
    for item in found:
        mine = item.tool == item.against
        table.row(
            [
                item.tool,
                item.wall_s.text(),
                item.cpu_s.text(),
                f"{statistics.median(one.per_second for one in item.samples) / factor:.2f}",
                "" if mine else item.rate_ratio.text(),
                "" if mine else item.cpu_ratio.text(),
            ]
        )
    print(flush=True)
    return found
