"""What the runs of the laboratory come to: figures, their medians, tables, documents.

Never knows: namespaces, agents' processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.bounds import bound_of
from bench.lab_run import Outcome, RunResult
from bench.report import Column, Spread, Table
from bench.scenarios import Scenario

FIGURES = {
    "origin_copies": "payload the origin sent, by its log / F",
    "origin_copies_interface": "bytes its interface sent, headers included / F",
    "makespan_s": "start shot to the end of the last one",
    "makespan_bound": "the same / T_min",
    "mean_bound": "an agent's own start to its end, mean / T_min",
    "worst_bound": "the same, worst / T_min",
    "worst_mean": "worst / mean",
    "discarded": "bytes received and thrown away / bytes needed by all",
    "origin_excess": "what the origin sent beyond one copy / F",
    "upload_skew": "bytes sent by the busiest agent's interface / mean",
    "cpu_s": "seconds of processor time an agent, mean",
    "peak_memory_mib": "of the biggest agent",
    "busy": "share of the machine's processors in use, mean",
    "busy_peak": "the same, in the busiest half second",
}
"""Name -> meaning. A figure that a system cannot give is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one run, in the order of `FIGURES`."""

    values: dict[str, float | None]
    finished: int
    awaited: int
    wrong: int
    """Agents with files that are not what the origin served."""
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Everybody finished, with the right content."""
        return self.finished == self.awaited and not self.wrong and not self.problems


def figures_of(result: RunResult) -> Figures:
    """Everything that can be said about one run."""
    scenario, outcomes = result.plan.scenario, result.outcomes
    ended = [outcomes[number] for number in scenario.awaited if outcomes[number].finished_s is not None]
    values: dict[str, float | None] = dict.fromkeys(FIGURES)
    copies = result.origin_payload / scenario.total_bytes
    values |= {
        "origin_copies": copies,
        "origin_copies_interface": result.origin_interface / scenario.total_bytes,
        "origin_excess": max(0.0, copies - 1),
        **_times(scenario, ended),
        **_costs(scenario, outcomes),
        "busy": statistics.fmean([sample.busy for sample in result.samples] or [0.0]),
        "busy_peak": max((sample.busy for sample in result.samples), default=0.0),
    }
    return Figures(
        values=values,
        finished=len(ended),
        awaited=len(scenario.awaited),
        wrong=sum(item.right is False for item in outcomes),
        problems=tuple(item.failed for item in outcomes if item.failed is not None),
    )


def _times(scenario: Scenario, ended: Sequence[Outcome]) -> dict[str, float | None]:
    if not ended:
        return {}
    t_min_s = bound_of(scenario).t_min_s
    makespan = max(item.finished_s or 0.0 for item in ended)
    own = [(item.finished_s or 0.0) - item.started_s for item in ended]
    return {
        "makespan_s": makespan,
        "makespan_bound": makespan / t_min_s,
        "mean_bound": statistics.fmean(own) / t_min_s,
        "worst_bound": max(own) / t_min_s,
        "worst_mean": max(own) / statistics.fmean(own),
    }


def _costs(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    counted = [outcomes[number] for number in (*range(scenario.seeds), *scenario.awaited)]
    usages = [item.usage for item in counted if item.usage is not None]
    discarded = [outcomes[number].usage for number in scenario.awaited]
    bytes_discarded = [item.discarded for item in discarded if item is not None and item.discarded is not None]
    needed = scenario.total_bytes * len(bytes_discarded)
    sent = [item.sent for item in counted]
    return {
        "discarded": sum(bytes_discarded) / needed if needed else None,
        "upload_skew": max(sent) / statistics.fmean(sent) if any(sent) else None,
        "cpu_s": statistics.fmean([item.cpu_s for item in usages]) if usages else None,
        "peak_memory_mib": max(item.peak_memory for item in usages) / 2**20 if usages else None,
    }


# --- documents -----------------------------------------------------------------------------------------------


def run_document(result: RunResult, figures: Figures) -> dict[str, object]:
    """One line of the file of results."""
    plan = result.plan
    return {
        "run": plan.system.name,
        "scenario": plan.scenario.name,
        "round": plan.round,
        "figures": {name: _short(value) for name, value in figures.values.items()},
        "finished": figures.finished,
        "awaited": figures.awaited,
        "wrong": figures.wrong,
        "problems": figures.problems,
        "notes": {name: _short(value) for name, value in result.notes.items()},
        "agents": [_agent_document(number, item) for number, item in enumerate(result.outcomes)],
    }


def _agent_document(number: int, item: Outcome) -> dict[str, object]:
    return {
        "agent": number,
        "started_s": _short(item.started_s),
        "finished_s": _short(item.finished_s),
        "killed": item.killed,
        "failed": item.failed,
        "right": item.right,
        "from_origin": item.progress.from_origin,
        "from_peers": item.progress.from_peers,
        "sent": item.sent,
        "received": item.received,
        "usage": None if item.usage is None else asdict(item.usage),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Medians over the rounds of one system."""

    system: str
    rounds: int
    spreads: dict[str, Spread]
    """Without what the system does not say."""
    notes: dict[str, Spread]
    finished: int
    awaited: int
    wrong: int

    def document(self) -> dict[str, object]:
        """One line of the file of results."""
        return {
            "summary": self.system,
            "rounds": self.rounds,
            "figures": {name: spread.document() for name, spread in self.spreads.items()},
            "notes": {name: spread.document() for name, spread in self.notes.items()},
            "finished": self.finished,
            "awaited": self.awaited,
            "wrong": self.wrong,
        }


def summary_of(results: Sequence[RunResult]) -> Summary:
    """Of one system, at least one round."""
    figures = [figures_of(result) for result in results]
    columns = {name: [value for item in figures if (value := item.values[name]) is not None] for name in FIGURES}
    names = dict.fromkeys(name for result in results for name in result.notes)
    return Summary(
        system=results[0].plan.system.name,
        rounds=len(results),
        spreads={name: Spread.of(values) for name, values in columns.items() if values},
        notes={name: Spread.of(item.notes[name] for item in results if name in item.notes) for name in names},
        finished=sum(item.finished for item in figures),
        awaited=sum(item.awaited for item in figures),
        wrong=sum(item.wrong for item in figures),
    )


# --- tables --------------------------------------------------------------------------------------------------

_TIMES = {
    "origin_copies": Column(title="ORIGIN COPIES", width=16),
    "origin_copies_interface": Column(title="INTERFACE", width=9),
    "makespan_s": Column(title="MAKESPAN S", width=16),
    "makespan_bound": Column(title="/ T_MIN", width=16),
    "mean_bound": Column(title="MEAN", width=5),
    "worst_bound": Column(title="WORST", width=5),
}
_COSTS = {
    "worst_mean": Column(title="WORST/MEAN", width=10),
    "discarded": Column(title="DUPLICATE %", width=11),
    "upload_skew": Column(title="UPLOAD SKEW", width=11),
    "cpu_s": Column(title="CPU S/AGENT", width=11),
    "peak_memory_mib": Column(title="PEAK MIB", width=8),
    "busy": Column(title="BUSY %", width=6),
}
_WIDE = 16
"""Columns of this width have room for least and greatest."""


def show(summaries: Sequence[Summary]) -> None:
    """Two tables: times and copies; costs."""
    system = Column(title="SYSTEM", width=10, lean="<")
    table = Table((system, *_TIMES.values()))
    table.head()
    for item in summaries:
        table.row([item.system, *(_cell(item, name, column) for name, column in _TIMES.items())])
    print()
    right = Column(title="RIGHT FILES", width=11)
    table = Table((system, *_COSTS.values(), right))
    table.head()
    for item in summaries:
        cells = [_cell(item, name, column) for name, column in _COSTS.items()]
        table.row([item.system, *cells, f"{item.finished - item.wrong} of {item.awaited}"])
    print(flush=True)


def _cell(item: Summary, name: str, column: Column) -> str:
    spread = item.spreads.get(name)
    if spread is None:
        return "-"
    if column.width >= _WIDE:
        return spread.text(1 if name == "makespan_s" else 2)
    factor = 100 if column.title.endswith("%") else 1
    return f"{spread.median * factor:.{0 if name in ('peak_memory_mib', 'busy') else 2}f}"
