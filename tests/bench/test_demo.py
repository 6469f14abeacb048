"""The demo, as `make demo` runs it, with small content; that it fails when it should; that it leaves nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

from bench.demo import Checks
from bench.report import WIDTH
from tests.support.bench_command import ROOT, TIMEOUT_S, bench, command, environment, processes_of
from tests.support.origin import Origin

SIZE = 3_000_001


def test_four_steps_go_as_they_must_and_leave_nothing(tmp_path: Path) -> None:
    done = bench(tmp_path, "demo", "--size", str(SIZE))

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert all(character == "\n" or character.isprintable() for character in done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    table = [line for line in done.stdout.splitlines() if re.match(r"[1-4] \w", line)]
    assert [line[:17].rstrip() for line in table] == ["1 cold: A", "2 warm: B, C", "3 liar: B", "4 wrong origin: C"]
    assert [re.findall(r"\s(\d[\d,]*)(?=\s)", line[17:])[:3] for line in table] == [
        ["3,000,001", "0", "3,000,001"],
        ["0", "6,000,002", "0"],
        ["1,500,000", "1,500,000", "1,500,000"],
        ["1,500,000", "0", "1,500,000"],
    ]
    assert "A: banned" in done.stdout
    assert "exit code 20" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


async def test_a_figure_that_differs_is_a_failure(tmp_path: Path) -> None:
    """An origin that forbids sharing: then B and C take their bytes from it, and the demo must say so."""
    import asyncio

    async with Origin() as origin:
        origin.add("/private.bin", bytes(range(256)) * 4096, headers=(("Cache-Control", "no-store"),))
        done = await asyncio.to_thread(bench, tmp_path, "demo", "--json", "--url", origin.url("/private.bin"))

    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["ok"] is False
    assert [step["name"] for step in document["steps"]] == ["1 cold: A", "2 warm: B, C"]
    assert document["steps"][0]["problems"] == []
    assert "bytes that B took from peers: 0, and must be 1,048,576" in document["steps"][1]["problems"]
    assert document["steps"][1]["origin_sent"] is None
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_it_cleanly(tmp_path: Path) -> None:
    line = command("demo", "--size", str(SIZE))
    with subprocess.Popen(line, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("nearfetch demo:")
        assert len(processes_of(tmp_path)) == 3
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 130
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_makes_no_sense_is_said(tmp_path: Path) -> None:
    done = bench(tmp_path, "demo", "--url", "gopher://example.org/x")

    assert done.returncode == 2
    assert "'gopher://example.org/x' is neither http nor https" in done.stderr


def test_an_unknown_command_names_the_known_ones(tmp_path: Path) -> None:
    done = bench(tmp_path, "dmeo")

    assert done.returncode == 2
    assert "demo, micro, jobs, loopback, sim, lab" in done.stderr


def test_checks_note_what_differs() -> None:
    checks = Checks()
    checks.equal("apples", 1234, 1234)
    checks.equal("pears", 1234, 0)

    assert checks.problems == ["pears: 1,234, and must be 0"]
