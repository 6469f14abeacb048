"""The command line of the simulator, as values.

Never knows: how anything is simulated.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from agent.core.neighbours import ALL, SOME
from bench.reading import rate_of, size_of
from bench.scenarios import SCENARIOS, FullDisk, Happening, OriginDies, Scenario, ScenarioError
from bench.sim.swarm import World
from validation.content import ChunkLayout

_BREAKS: dict[str, Happening] = {"origin-dies": OriginDies(at=0.3), "full-disk": FullDisk(agent=1)}
"""Faults that no scenario has."""
LONGEST_LATENCY_MS = 1000.0
MOST_NEIGHBOURS = 256
LONG = 400_000
"""Deliveries of a chunk: about two minutes on two cores as Python, one as machine code; compiling takes 80 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to play, and where results go."""

    scenario: Scenario
    world: World
    json: bool
    output: Path | None
    picture: Path | None
    compiled: bool | None
    """As machine code (`bench/compiled.py`); None: when that pays."""

    @property
    def is_long(self) -> bool:
        """It takes longer than to compile what plays it."""
        scenario = self.scenario
        return scenario.agents * scenario.files * ChunkLayout.for_length(scenario.size).count > LONG

    def document(self) -> dict[str, object]:
        """What was asked for."""
        return {"scenario": dataclasses.asdict(self.scenario), "world": dataclasses.asdict(self.world)}


def options_of(arguments: list[str]) -> Options:
    """Raises ScenarioError for what cannot be; ends the process with 2 for what cannot be read."""
    given = _parser().parse_args(arguments)
    scenario = SCENARIOS[given.scenario].changed(
        agents=given.agents,
        size=given.size,
        origin_rate=rate_of(given.origin_rate),
        agent_rate=rate_of(given.agent_rate),
    )
    if given.fault is not None:
        fault = _BREAKS[given.fault]
        scenario = dataclasses.replace(scenario, happenings=(*scenario.happenings, fault))
    if not 0 <= given.latency_ms <= LONGEST_LATENCY_MS:
        raise ScenarioError(f"--latency-ms must be 0 to {LONGEST_LATENCY_MS:g}, not {given.latency_ms:g}")
    if not 1 <= given.sites <= scenario.agents:
        raise ScenarioError(f"--sites must be 1 to {scenario.agents}, the number of agents, not {given.sites}")
    site_rate = rate_of(given.site_rate) or scenario.agent.up
    if site_rate < 1:
        raise ScenarioError(f"--site-rate must be above 0, not {given.site_rate:g}")
    few = given.neighbours
    if few is not None and (not 2 <= few <= MOST_NEIGHBOURS or few % 2):
        raise ScenarioError(f"--neighbours must be even, 2 to {MOST_NEIGHBOURS}, not {few}")
    world = World(
        seed=given.seed,
        latency_s=given.latency_ms / 1000,
        sites=given.sites,
        site_rate=site_rate,
        neighbours=few,
    )
    return Options(
        scenario=scenario,
        world=world,
        json=given.json,
        output=given.output,
        picture=given.picture,
        compiled=given.compiled,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench sim",
        description="The agents' own core under a virtual clock. The same seed gives the same output.",
        epilog="; ".join(f"{name}: {scenario.title}" for name, scenario in SCENARIOS.items()),
    )
    parser.add_argument("scenario", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--agents", type=int, metavar="N", help="how many (default: the scenario's)")
    parser.add_argument("--size", type=size_of, help="of each file, such as 64MiB (default: the scenario's)")
    parser.add_argument("--origin-rate", type=float, metavar="MBIT", help="Mbit/s each way, instead of its own")
    parser.add_argument("--agent-rate", type=float, metavar="MBIT", help="Mbit/s each way, instead of its own")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (default: 1)")
    parser.add_argument("--latency-ms", type=float, default=1.0, metavar="MS", help="one way (default: 1)")
    parser.add_argument("--sites", type=int, default=1, metavar="N", help="spread the agents over so many sites")
    parser.add_argument(
        "--site-rate", type=float, metavar="MBIT", help="of a site's way out, Mbit/s (default: an agent's)"
    )
    parser.add_argument(
        "--neighbours",
        type=int,
        metavar="N",
        help=f"peers that one agent listens to, at most (default: as the agents, {ALL}, of more than these {SOME})",
    )
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        help="play it as machine code, made once with mypyc and a C compiler: the same output in half of the time "
        "(default: when it takes long)",
    )
    parser.add_argument("--json", action="store_true", help="print documents, one a line, instead of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append the documents to this file too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write an SVG of the agents' progress")
    parser.add_argument("--break", dest="fault", choices=_BREAKS, help=argparse.SUPPRESS)
    return parser
