"""What a simulated run comes to: the laboratory's figures where they mean something here, a table, a picture.

Never knows: how anything was simulated, wall-clock time.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.bounds import FRAME_BYTES, PAYLOAD_BYTES, bound_of
from bench.plot import Panel, Picture, Point, Row
from bench.report import Column, Table, count
from bench.scenarios import MBIT, Scenario
from bench.sim.host import Host
from bench.sim.swarm import Swarm, World

FIGURES = {
    "origin_copies": "payload the origin sent / F",
    "makespan_s": "start shot to the end of the last one",
    "makespan_bound": "the same / T_min",
    "mean_bound": "an agent's own start to its end, mean / T_min",
    "worst_bound": "the same, worst / T_min",
    "worst_mean": "worst / mean",
    "discarded": "bytes received and thrown away / bytes needed by all",
    "origin_excess": "what the origin sent beyond one copy / F",
    "origin_again": "chunks that the origin brought whole more than once, each time after the first",
    "upload_skew": "payload sent by the busiest agent / mean",
    "idle_s": "seconds that agents waited with nothing under way, beyond 3 s each time, all together",
}
"""Name -> meaning; those that the laboratory has mean the same."""
MOST_ROWS = 32
"""Of a picture: so many agents, evenly chosen."""
SAMPLES = 120
"""Of a picture, in the time of the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one run, in the order of `FIGURES`."""

    values: dict[str, float]
    finished: int
    awaited: int
    problems: tuple[str, ...]
    """Of agents whose end nobody waited for."""


def figures_of(swarm: Swarm) -> Figures:
    """Of a run that ended well."""
    scenario = swarm.scenario
    awaited = [swarm.hosts[number] for number in scenario.awaited]
    own = [(host.finished_s or 0.0) - host.started_s for host in awaited]
    makespan = max(host.finished_s or 0.0 for host in awaited)
    copies = swarm.origin_sent / scenario.total_bytes
    counted = [swarm.hosts[number] for number in (*range(scenario.seeds), *scenario.awaited)]
    sent = [host.sent for host in counted]
    values = {
        "origin_copies": copies,
        "makespan_s": makespan,
        "makespan_bound": makespan / swarm.t_min_s,
        "mean_bound": statistics.fmean(own) / swarm.t_min_s,
        "worst_bound": max(own) / swarm.t_min_s,
        "worst_mean": max(own) / statistics.fmean(own),
        "discarded": sum(_discarded(host) for host in awaited) / (scenario.total_bytes * len(awaited)),
        "origin_excess": max(0.0, copies - 1),
        "origin_again": sum(max(0, times - 1) for each in swarm.contents for times in each.from_origin),
        "upload_skew": max(sent) / statistics.fmean(sent) if any(sent) else 1.0,
        "idle_s": swarm.idle_s,
    }
    return Figures(
        values={name: values[name] for name in FIGURES},
        finished=sum(host.done for host in awaited),
        awaited=len(awaited),
        problems=tuple(f"{host.name}: {host.trouble}" for host in swarm.hosts if host.trouble is not None),
    )


def _discarded(host: Host) -> int:
    return sum(each.brought.discarded for each in host.transfers)


def run_document(swarm: Swarm, figures: Figures) -> dict[str, object]:
    """One line of the file of results, as the laboratory's."""
    return {
        "run": "nearfetch",
        "scenario": swarm.scenario.name,
        "seed": swarm.seed,
        "figures": {name: round(value, 4) for name, value in figures.values.items()},
        "finished": figures.finished,
        "awaited": figures.awaited,
        "problems": figures.problems,
        "agents": [_agent_document(host) for host in swarm.hosts],
    }


def _agent_document(host: Host) -> dict[str, object]:
    from_origin, from_peers = _brought(host)
    return {
        "agent": host.number,
        "started_s": round(host.started_s, 4),
        "finished_s": None if host.finished_s is None else round(host.finished_s, 4),
        "killed": not host.alive,
        "failed": host.trouble,
        "from_origin": from_origin,
        "from_peers": from_peers,
        "sent": round(host.sent),
    }


def _brought(host: Host) -> tuple[int, int]:
    """Bytes that are there, by the origin and by peers."""
    origin = peers = 0
    for transfer in host.transfers:
        held = transfer.brought.held
        near = min(held, transfer.brought.from_peers)
        origin, peers = origin + held - near, peers + near
    return origin, peers


# --- for people ----------------------------------------------------------------------------------------------

_COLUMNS = {
    "origin_copies": Column(title="ORIGIN COPIES", width=13),
    "makespan_s": Column(title="MAKESPAN S", width=10),
    "makespan_bound": Column(title="/ T_MIN", width=7),
    "mean_bound": Column(title="MEAN", width=5),
    "worst_bound": Column(title="WORST", width=5),
    "worst_mean": Column(title="WORST/MEAN", width=10),
    "discarded": Column(title="DUPLICATE %", width=11),
    "upload_skew": Column(title="UPLOAD SKEW", width=11),
    "idle_s": Column(title="IDLE S", width=6),
}


def introduce(scenario: Scenario, world: World) -> None:
    """What is about to be played."""
    bound = bound_of(scenario)
    what = f"{scenario.agents} agents, {scenario.files} x {count(scenario.size)} bytes"
    print(f"{scenario.name}: {scenario.title}; {what}")
    print(
        f"origin {scenario.origin.up / MBIT:g}, agents {scenario.agent.up / MBIT:g} Mbit/s, a link's goodput is its"
        f" rate x {PAYLOAD_BYTES}/{FRAME_BYTES}; latency {world.latency_s * 1000:g} ms, seed {world.seed}"
    )
    if world.sites > 1:
        print(f"{world.sites} sites, each with {world.site_rate / MBIT:g} Mbit/s to the others")
    print(
        f"T_min {bound.t_min_s:.2f} s = max(source {bound.source_s:.2f}, download {bound.download_s:.2f},"
        f" all uploads {bound.spread_s:.2f})"
    )
    print(flush=True)


def show(swarm: Swarm, figures: Figures) -> None:
    """One row."""
    table = Table(tuple(_COLUMNS.values()))
    table.head()
    table.row([_cell(name, figures.values[name]) for name in _COLUMNS])
    print()
    print(f"{figures.finished} of {figures.awaited} finished, all that anybody has is right")
    for problem in figures.problems:
        print(problem)
    print(flush=True)


def _cell(name: str, value: float) -> str:
    if name in ("makespan_s", "idle_s"):
        return f"{value:.1f}"
    return f"{value * (100 if name == 'discarded' else 1):.2f}"


class Samples:
    """What some agents have, from time to time."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        fetching = swarm.scenario.leechers
        step = max(1, -(-len(fetching) // MOST_ROWS))
        self.numbers = tuple(fetching)[::step]
        self.points: dict[int, list[Point]] = {number: [] for number in self.numbers}
        self._every_s = swarm.t_min_s / SAMPLES
        self._next_s = 0.0

    def take_when_due(self) -> None:
        """Now, if it is time."""
        now = self.swarm.clock.now
        if now < self._next_s:
            return
        self._next_s = now + self._every_s
        total = self.swarm.scenario.total_bytes
        for number in self.numbers:
            origin, peers = _brought(self.swarm.hosts[number])
            self.points[number].append(Point(at_s=now, from_origin=origin / total, from_peers=peers / total))


def picture_of(samples: Samples, figures: Figures) -> Picture:
    """Each agent's progress over time."""
    swarm = samples.swarm
    scenario, values = swarm.scenario, figures.values
    link = f"origin {scenario.origin.up / MBIT:g}, agents {scenario.agent.up / MBIT:g} Mbit/s"
    rows = tuple(
        Row(name=f"a{number}", points=tuple(points), end_s=swarm.hosts[number].finished_s)
        for number, points in samples.points.items()
    )
    title = f"simulated: {values['makespan_s']:.1f} s, {values['origin_copies']:.2f} copies"
    return Picture(
        title=f"{scenario.name}: {scenario.agents} agents, {scenario.total_bytes / 2**20:g} MiB, {link}",
        bound_s=swarm.t_min_s,
        panels=(Panel(title=title, rows=rows),),
    )
