"""`python -m bench sim SCENARIO`: the same core as the agents', under a virtual clock, with fair-shared links.

Plays the scenarios of the laboratory (scenarios.py) with as many agents as one likes, without root; on one core,
on two when they are huge.
The same seed gives the same bytes of output; what it took goes to standard error. Long runs are played by machine
code (`compiled.py`). Never knows: sockets, files but those it is told to write.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import compiled
from bench.report import complain, json_line
from bench.scenarios import ScenarioError
from bench.sim.options import Options, options_of
from bench.sim.results import FIGURES, Samples, figures_of, introduce, picture_of, run_document, show
from bench.sim.swarm import SimError, Swarm

USAGE = 2
SAY_S = 2.0
"""How often those who wait hear how far it is, in real seconds."""


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        options = options_of(arguments)
        _check_files(options)
    except ScenarioError as error:
        complain(str(error))
        return USAGE
    except OSError as error:
        complain(str(error))
        return 1
    if not compiled.is_running() and (options.is_long if options.compiled is None else options.compiled):
        try:
            compiled.run(_place(), ["sim", *arguments])
        except compiled.CompileError as error:
            if options.compiled:
                complain(str(error))
                return 1
            complain(f"it takes more than twice as long as it could: {error}")
    try:
        return _run(options)
    except (SimError, OSError) as error:
        complain(str(error))
        return 1


def _place() -> Path:
    """Where what plays it is as machine code. Raises CompileError."""
    place = compiled.place_of(sys.modules)
    if not compiled.is_there(place):
        complain("compiling the simulator: done once, in about a minute (--no-compiled does without)")
        sources = compiled.sources_of(sys.modules)
        compiled.build(place, sources, compiled.translated(sources))
    return place


def _run(options: Options) -> int:
    swarm = Swarm(options.scenario, options.world)
    out = _Out(options)
    if not options.json:
        introduce(options.scenario, options.world)
    for document in (options.document(), {"figures": FIGURES, "t_min_s": round(swarm.t_min_s, 4)}):
        out.document(document)
    samples = Samples(swarm) if options.picture is not None else None
    began = time.process_time()
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing that a run makes in passing goes in circles; looking for it takes a third of the time
    try:
        swarm.run(_Turns(swarm, samples))
    except SimError as error:
        out.document({"failed": "nearfetch", "why": str(error)})
        raise
    finally:
        gc.enable()
        _say_costs(swarm, time.process_time() - began)
    figures = figures_of(swarm)
    out.document(run_document(swarm, figures))
    if not options.json:
        show(swarm, figures)
    if samples is not None and options.picture is not None:
        options.picture.write_text(picture_of(samples, figures).svg(), encoding="utf-8")
    return 0


def _check_files(options: Options) -> None:
    """What cannot be written is said before anybody waits. Raises OSError."""
    for path in (options.output, options.picture):
        if path is not None:
            path.open("a", encoding="utf-8").close()


def _say_costs(swarm: Swarm, cpu_s: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if swarm.helper is not None:
        cpu_s, peak = cpu_s + swarm.helper.cpu_s, peak + swarm.helper.peak_mib
    complain(f"{swarm.clock.now:.1f} s of virtual time took {cpu_s:.1f} s of processor time and {peak:.0f} MiB")


class _Out:
    """Documents for programs, into a file as well when one is named."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def document(self, document: dict[str, object]) -> None:
        if self._options.json:
            json_line(document)
        if self._options.output is not None:
            with self._options.output.open("a", encoding="utf-8") as file:
                print(json.dumps(document), file=file)


class _Turns:
    """What is to be done after each turn of the clock: samples, and a word for those who wait."""

    def __init__(self, swarm: Swarm, samples: Samples | None) -> None:
        self._swarm = swarm
        self._sample: Callable[[], None] | None = None if samples is None else samples.take_when_due
        self._said_at = time.monotonic()
        self._turns = 0

    def __call__(self) -> None:
        if self._sample is not None:
            self._sample()
        self._turns += 1
        if self._turns % 16 == 0 and time.monotonic() >= self._said_at + SAY_S:
            self._said_at = time.monotonic()
            swarm = self._swarm
            so_far = f"{swarm.clock.now:.1f} s of at least {swarm.t_min_s:.1f} s"
            complain(f"{so_far}, {swarm.left} agents are not done")
