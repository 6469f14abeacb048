"""`python -m bench loopback`: nearfetch beside curl (and aria2c, where installed) against one nginx on loopback.

Everything that a real download does is in the time: start of the command, probe, part file, chunk digests,
journal, sync, rename, the copy for the peer cache where the case says so. The origin's file is in the page cache.
CPU is that of the command and of the agent that works for it, as the system counts it; nginx's own is left out.
Tools take turns (contest.py). Linux only: the counters come from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from bench import machine
from bench.agents import BenchError, required_tools
from bench.cases import CASES, Lab, Setting
from bench.contest import hold, show
from bench.nginx import CIPHER
from bench.report import Column, Table, complain, count, json_line

MIN_BYTES, MAX_BYTES = 1024 * 1024, 1 << 40
_UNITS = {"": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    size: int
    rounds: int
    directory: Path
    only: tuple[str, ...]
    seed: int
    load_s: float
    json: bool
    output: Path | None


def main(arguments: list[str]) -> int:
    """The exit code."""
    options = _options(arguments)
    try:
        if sys.platform != "linux":
            raise BenchError("loopback needs Linux: it reads what /proc counts")
        tools = required_tools("nginx", "curl")
        if (aria2c := shutil.which("aria2c")) is not None:
            tools["aria2c"] = aria2c
        return asyncio.run(_run(options, tools))
    except (BenchError, AgentError, OSError) as error:
        complain(str(error))
        return 1


async def _run(options: Options, tools: dict[str, str]) -> int:
    out = _Out(options)
    facts = machine.facts(tools) | {"cipher": CIPHER, "size": options.size, "rounds": options.rounds}
    facts |= {"directory": _filesystem(options.directory), "seed": options.seed}
    out.facts(facts)
    async with contextlib.AsyncExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="nearfetch-loopback-", dir=options.directory))
        setting = Setting(place=Path(place), size=options.size, tools=tools, load_s=options.load_s)
        lab = await stack.enter_async_context(Lab(setting))
        cases = [case for key in options.only for case in [await CASES[key](lab)]]
        await hold(cases, options.rounds, options.seed, out.progress)
        for case in cases:
            unit = (1000.0, "kREQ/S") if case.key == "ranges" else (1e9, "GB/S")
            out.results([item.document() for item in show(case, unit)] if not options.json else case_documents(case))
        out.memory(lab.memory())
        out.end({"load_at_end": round(os.getloadavg()[0], 2), "swapped": resource.getrusage(0).ru_nswap})
    return 0


def case_documents(case: object) -> list[dict[str, object]]:
    """For `--json`."""
    from bench.contest import Case, results

    assert isinstance(case, Case)
    return [item.document() for item in results(case)]
