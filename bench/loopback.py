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
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from bench import machine
from bench.agents import BenchError, required_tools
from bench.cases import CASES, Lab, Setting
from bench.contest import Result, hold, results, show
from bench.nginx import CIPHER
from bench.report import WIDTH, complain, count, json_line

MIN_BYTES = 1024 * 1024
ROOM = 7
"""The origin's file, one download, and what the caches and temporary files of the agents hold at most."""

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


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


class Out:
    """Tables for people or documents for programs, and the documents into a file when one is named."""

    def __init__(self, options: Options) -> None:
        self._json = options.json
        self._output = options.output

    def document(self, document: dict[str, object]) -> None:
        """One line of `--json` and of the file."""
        if self._json:
            json_line(document)
        if self._output is not None:
            with self._output.open("a", encoding="utf-8") as file:
                print(json.dumps(document), file=file)

    def say(self, line: str = "") -> None:
        """A line for people."""
        if not self._json:
            print(line, flush=True)

    def facts(self, facts: dict[str, object]) -> None:
        """What it was measured on."""
        self.document({"machine": facts})
        line = ""
        for item in [f"{name.replace('_', ' ')} {value}" for name, value in facts.items()]:
            if line and len(line) + len(item) + 2 > WIDTH:
                self.say(line + ",")
                line = ""
            line = f"{line}, {item}" if line else item
        self.say(line)
        self.say()

    def progress(self, line: str) -> None:
        """For those who wait; not part of the report."""
        print(f"bench: {line}", file=sys.stderr, flush=True)

    def requests(self, found: list[Result]) -> None:
        """What the ranges come to for each second of the server's CPU."""
        each = [sum(one.amount for one in item.samples) / sum(one.cpu_s for one in item.samples) for item in found]
        self.say(f"requests per CPU-second: agent {each[0]:,.0f}, nginx {each[1]:,.0f}: {each[0] / each[1]:.2f}")
        self.say()
        self.document({"case": "ranges", "requests_per_cpu_s": dict(zip(("agent", "nginx"), each, strict=True))})

    def memory(self, peaks: dict[str, int]) -> None:
        """Of every agent."""
        self.document({"peak_memory_bytes": peaks})
        for name, peak in peaks.items():
            self.say(f"peak memory, {name}: {peak / 2**20:.0f} MiB")


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
    out, filesystem = Out(options), _filesystem(options.directory)
    free = shutil.disk_usage(options.directory).free
    if free < ROOM * options.size:
        raise BenchError(
            f"{options.directory} has {count(free)} bytes free, {count(ROOM * options.size)} are needed"
        )
    facts = machine.facts(tools) | {"cipher": CIPHER, "size": options.size, "rounds": options.rounds}
    out.facts(facts | {"file_system": filesystem, "seed": options.seed})
    async with contextlib.AsyncExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="nearfetch-loopback-", dir=options.directory)
        setting = Setting(
            place=Path(stack.enter_context(temporary)),
            size=options.size,
            tools=tools,
            load_s=options.load_s,
            on_disk=filesystem not in ("tmpfs", "ramfs"),
        )
        lab = await stack.enter_async_context(Lab(setting))
        cases = [await CASES[key](lab) for key in options.only]
        await hold(cases, options.rounds, options.seed, out.progress)
        for case in cases:
            unit = (1000.0, "kREQ/S") if case.key == "ranges" else (1e9, "GB/S")
            found = results(case) if options.json else show(case, unit)
            for item in found:
                out.document(item.document())
            if case.key == "ranges":
                out.requests(found)
        out.memory(lab.memory())
        load = round(os.getloadavg()[0], 2)
        out.document({"load_at_end": load})
        out.say(f"load at the end: {load}")
    return 0


def _options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench loopback", description="nearfetch beside curl against one nginx on loopback."
    )
    parser.add_argument("--size", type=_size, default="1GiB", help="of the file, such as 256MiB (default: 1GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="counted ones; one more warms up (default: 5)")
    parser.add_argument("--directory", type=Path, help="where everything lives (default: the temporary directory)")
    parser.add_argument("--only", action="append", choices=sorted(CASES), help="this case; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="of the order of cases (default: 1)")
    parser.add_argument("--load-seconds", type=float, default=3.0, help="of one run of ranges (default: 3)")
    parser.add_argument("--json", action="store_true", help="print documents, one a line, instead of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append the documents to this file too")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    directory = Path(given.directory or tempfile.gettempdir()).absolute()
    if not directory.is_dir():
        parser.error(f"--directory: {directory} is not a directory")
    return Options(
        size=given.size,
        rounds=given.rounds,
        directory=directory,
        only=tuple(dict.fromkeys(given.only or CASES)),
        seed=given.seed,
        load_s=given.load_seconds,
        json=given.json,
        output=given.output,
    )


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text)
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None or int(match[1]) * factor < MIN_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of 1MiB or more, such as 256MiB")
    return int(match[1]) * factor


def _filesystem(directory: Path) -> str:
    """The type of the file system, such as ext4."""
    best, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, found, *_ = line.split()
            if directory.is_relative_to(point) and len(point) >= len(best):
                best, kind = point, found
    return kind
