"""From the runs of a laboratory to a picture: of each system, the round whose makespan is the median.

Never knows: SVG, namespaces.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.bounds import bound_of
from bench.lab_results import figures_of
from bench.lab_run import RunResult
from bench.plot import Panel, Picture, Point, Row
from bench.scenarios import MBIT, Scenario


def picture_of(scenario: Scenario, results: Sequence[Sequence[RunResult]]) -> Picture:
    """One list of rounds a system, none empty."""
    link = f"origin {scenario.origin.up / MBIT:g}, agents {scenario.agent.up / MBIT:g} Mbit/s"
    return Picture(
        title=f"{scenario.name}: {scenario.agents} agents, {scenario.total_bytes / 2**20:g} MiB, {link}",
        bound_s=bound_of(scenario).t_min_s,
        panels=tuple(_panel(_median(rounds)) for rounds in results),
    )


def _median(rounds: Sequence[RunResult]) -> RunResult:
    ordered = sorted(rounds, key=lambda item: figures_of(item).values["makespan_s"] or 0.0)
    return ordered[(len(ordered) - 1) // 2]


def _panel(result: RunResult) -> Panel:
    values, scenario = figures_of(result).values, result.plan.scenario
    rows = []
    for number in scenario.leechers:
        points = [
            Point(
                at_s=sample.at_s,
                from_origin=sample.progress[number].from_origin / scenario.total_bytes,
                from_peers=sample.progress[number].from_peers / scenario.total_bytes,
            )
            for sample in result.samples
        ]
        outcome = result.outcomes[number]
        rows.append(Row(name=f"a{number}", points=tuple(points), end_s=outcome.finished_s))
    return Panel(
        title=f"{result.plan.system.name}: {values['makespan_s']:.1f} s, {values['origin_copies']:.2f} copies",
        rows=tuple(rows),
    )
