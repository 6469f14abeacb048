"""`sudo python -m bench lab SCENARIO`: real agents on hosts of their own, others beside them, over shaped links.

Hosts are network namespaces (netns.py), made for each run and removed after; scenarios are values (scenarios.py).
In each round the systems follow one another in an order drawn from the seed. Linux and root.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from bench import machine
from bench.agents import BenchError
from bench.baselines.aria2 import Aria2
from bench.baselines.curl import Curl
from bench.baselines.libtorrent import Libtorrent
from bench.baselines.nearfetch import Nearfetch
from bench.baselines.system import System
from bench.bounds import FRAME_BYTES, PAYLOAD_BYTES, bound_of
from bench.content import seeded_file
from bench.lab_picture import picture_of
from bench.lab_results import FIGURES, figures_of, run_document, show, summary_of
from bench.lab_run import Plan, RunResult, play
from bench.netns import CONGESTION_CONTROL, missing_for_namespaces
from bench.reading import rate_of, size_of
from bench.report import WIDTH, complain, count, json_line
from bench.scenarios import MBIT, SCENARIOS, FullDisk, Happening, OriginDies, Scenario, ScenarioError

SYSTEMS: dict[str, type[System]] = {system.name: system for system in (Nearfetch, Libtorrent, Aria2, Curl)}
USAGE = 2
_BREAKS: dict[str, Happening] = {"origin-dies": OriginDies(at=0.3), "full-disk": FullDisk(agent=1)}
"""Faults for the tests of the laboratory itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    scenario: Scenario
    systems: tuple[type[System], ...]
    rounds: int
    seed: int
    directory: Path
    json: bool
    output: Path | None
    picture: Path | None


class Out:
    """Text for people or documents for programs; the documents into a file as well when one is named."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def document(self, document: dict[str, object]) -> None:
        """One line of `--json` and of the file."""
        if self._options.json:
            json_line(document)
        if self._options.output is not None:
            with self._options.output.open("a", encoding="utf-8") as file:
                print(json.dumps(document), file=file)

    def say(self, line: str = "") -> None:
        """A line for people, broken where it is too long."""
        if self._options.json:
            return
        for part in _folded(line):
            print(part, flush=True)

    def progress(self, line: str) -> None:
        """For those who wait; not part of the report."""
        print(f"bench: {line}", file=sys.stderr, flush=True)


class Lab:
    """All rounds of all systems."""

    def __init__(self, options: Options, out: Out, place: Path) -> None:
        self._options = options
        self._out = out
        self._place = place
        self._results: dict[str, list[RunResult]] = {}
        self._failures = 0

    async def run(self) -> int:
        """The exit code: 1 when anything failed."""
        options = self._options
        (self._place / "www").mkdir()
        files = [self._place / "www" / f"content-{number}.bin" for number in range(options.scenario.files)]
        digests = [
            await asyncio.to_thread(seeded_file, file, options.scenario.size, f"{options.seed} {file.name}")
            for file in files
        ]
        rng = random.Random(options.seed)
        for number in range(1, options.rounds + 1):
            for system in rng.sample(options.systems, len(options.systems)):
                place = self._place / f"{number}-{system.name}"
                place.mkdir()
                plan = Plan(
                    scenario=options.scenario,
                    system=system,
                    round=number,
                    files=tuple(files),
                    digests=tuple(digests),
                    place=place,
                    guest=system is Nearfetch and number == 1 and options.scenario.agents > 1,
                )
                await self._one(plan)
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        return self._report()

    async def _one(self, plan: Plan) -> None:
        name = f"{plan.system.name}, round {plan.round} of {self._options.rounds}"
        try:
            result = await play(plan)
        except BenchError as error:
            self._failures += 1
            complain(f"{name}: {_one_line(error)}")
            self._out.document({"failed": plan.system.name, "round": plan.round, "why": _one_line(error)})
            return
        figures = figures_of(result)
        self._failures += not figures.good
        self._out.document(run_document(result, figures))
        for problem in figures.problems:
            complain(f"{name}: {_one_line(problem)}")
        if figures.wrong:
            complain(f"{name}: {figures.wrong} agents have wrong files")
        if not figures.finished:
            complain(f"{name}: nobody finished, so it has no times")
            return
        self._results.setdefault(plan.system.name, []).append(result)
        self._out.progress(
            f"{name}: {figures.values['makespan_s']:.1f} s, {figures.values['origin_copies']:.2f} copies"
        )

    def _report(self) -> int:
        order = [system.name for system in self._options.systems if system.name in self._results]
        summaries = [summary_of(self._results[name]) for name in order]
        for summary in summaries:
            self._out.document(summary.document())
        if summaries and not self._options.json:
            print()
            show(summaries)
            for summary in summaries:
                for note, spread in summary.notes.items():
                    self._out.say(
                        f"{summary.system}: {note.removesuffix('_s').replace('_', ' ')} {spread.text()} s"
                    )
        if summaries and self._options.picture is not None:
            picture = picture_of(self._options.scenario, [self._results[name] for name in order])
            self._options.picture.write_text(picture.svg(), encoding="utf-8")
        return 1 if self._failures else 0


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        options = _options(arguments)
    except ScenarioError as error:
        complain(str(error))
        return USAGE
    try:
        if (objection := missing_for_namespaces()) is not None:
            raise BenchError(objection)
        return asyncio.run(_run(options))
    except (BenchError, AgentError, OSError) as error:
        complain(_one_line(error))
        return 1


async def _run(options: Options) -> int:
    out, scenario = Out(options), options.scenario
    systems = tuple(system for system in options.systems if _usable(system, scenario))
    if not systems:
        raise BenchError("no system is left to be measured")
    options = dataclasses.replace(options, systems=systems)
    _check_room(options)
    out.document(_machine(options) | {"scenario": dataclasses.asdict(scenario)})
    _introduce(options, out)
    with tempfile.TemporaryDirectory(
        prefix="nearfetch-lab-", dir=options.directory, ignore_cleanup_errors=True
    ) as name:
        return await Lab(options, out, Path(name)).run()


def _usable(system: type[System], scenario: Scenario) -> bool:
    objection = system.missing() or system.cannot(scenario)
    if objection is not None:
        complain(f"{system.name} is left out: {objection}")
    return objection is None


def _check_room(options: Options) -> None:
    """An agent keeps a file and a copy for others."""
    scenario = options.scenario
    needed = scenario.total_bytes * (1 + 2 * scenario.agents)
    free = shutil.disk_usage(options.directory).free
    if free < needed:
        raise BenchError(f"{options.directory} has {count(free)} bytes free, {count(needed)} are needed")


def _machine(options: Options) -> dict[str, object]:
    facts = machine.facts({})
    facts |= {"congestion_control": f"{CONGESTION_CONTROL} (on the hosts)", "seed": options.seed}
    return {"machine": facts}


def _introduce(options: Options, out: Out) -> None:
    scenario, bound = options.scenario, bound_of(options.scenario)
    facts = _machine(options)["machine"]
    assert isinstance(facts, dict)
    out.say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    out.say()
    out.say(
        f"{scenario.name}: {scenario.title}; {scenario.agents} agents, {scenario.files} x {count(scenario.size)}"
        f" bytes; origin {scenario.origin.up / MBIT:g}, agents {scenario.agent.up / MBIT:g} Mbit/s; rounds:"
        f" {options.rounds}"
    )
    out.say(
        f"T_min {bound.t_min_s:.2f} s = max(source {bound.source_s:.2f}, slowest or latest download"
        f" {bound.download_s:.2f}, all uploads {bound.spread_s:.2f}); a link's goodput is its rate x"
        f" {PAYLOAD_BYTES}/{FRAME_BYTES}"
    )
    for system in options.systems:
        out.say(f"{system.name}: {system.options}")
    out.document({"figures": FIGURES, "t_min_s": round(bound.t_min_s, 4)})
    out.document({"options": {system.name: system.options for system in options.systems}})


def _options(arguments: list[str]) -> Options:
    """Raises ScenarioError."""
    parser = argparse.ArgumentParser(
        prog="python -m bench lab",
        description="Real agents in network namespaces, and others beside them. Needs root.",
        epilog="; ".join(f"{name}: {scenario.title}" for name, scenario in SCENARIOS.items()),
    )
    parser.add_argument("scenario", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--agents", type=int, metavar="N", help="how many (default: the scenario's)")
    parser.add_argument("--size", type=size_of, help="of each file, such as 64MiB (default: the scenario's)")
    parser.add_argument("--origin-rate", type=float, metavar="MBIT", help="Mbit/s each way, instead of its own")
    parser.add_argument("--agent-rate", type=float, metavar="MBIT", help="Mbit/s each way, instead of its own")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seed", type=int, default=1, help="of the content and of the order (default: 1)")
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="this system; may be repeated")
    parser.add_argument("--directory", type=Path, help="where everything lives (default: the temporary directory)")
    parser.add_argument("--json", action="store_true", help="print documents, one a line, instead of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append the documents to this file too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write an SVG of each system's median round")
    parser.add_argument("--break", dest="fault", choices=_BREAKS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    directory = Path(given.directory or tempfile.gettempdir()).absolute()
    if not directory.is_dir():
        parser.error(f"--directory: {directory} is not a directory")
    scenario = SCENARIOS[given.scenario].changed(
        agents=given.agents,
        size=given.size,
        origin_rate=rate_of(given.origin_rate),
        agent_rate=rate_of(given.agent_rate),
    )
    if given.fault is not None:
        scenario = dataclasses.replace(scenario, happenings=(*scenario.happenings, _BREAKS[given.fault]))
    return Options(
        scenario=scenario,
        systems=tuple(SYSTEMS[name] for name in dict.fromkeys(given.only or SYSTEMS)),
        rounds=given.rounds,
        seed=given.seed,
        directory=directory,
        json=given.json,
        output=given.output,
        picture=given.picture,
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _folded(line: str) -> list[str]:
    words, lines = line.split(" "), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 1 > WIDTH:
            lines.append("  " + word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines
