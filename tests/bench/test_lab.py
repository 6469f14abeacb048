"""`bench lab` in small: real agents in namespaces; what it refuses; that nothing is left, whatever happens."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import lab
from bench.netns import missing_for_namespaces
from tests.support.bench_command import ROOT, bench, command, environment, processes_of

OBJECTION = missing_for_namespaces() or (None if shutil.which("curl") else "curl is not installed")
needs_namespaces = pytest.mark.skipif(OBJECTION is not None, reason=str(OBJECTION))
TIMEOUT_S = 60.0
FAST = ("--origin-rate", "400", "--agent-rate", "400", "--rounds", "1")


def namespaces(pid: int) -> list[str]:
    """Those of one lab: others may run beside this one."""
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True, timeout=10)
    return [line.split()[0] for line in done.stdout.splitlines() if line.startswith(f"nfbench-{pid}-")]


@needs_namespaces
def test_two_agents_beside_curl(tmp_path: Path) -> None:
    output, picture, place = tmp_path / "results.jsonl", tmp_path / "picture.svg", tmp_path / "place"
    place.mkdir()
    only = ("--only", "nearfetch", "--only", "curl")
    files = ("--output", str(output), "--picture", str(picture), "--seed", "7")

    done = bench(place, "lab", "cold", "--agents", "2", "--size", "4MiB", *FAST, *only, *files)

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    facts = lines[0]["machine"]
    assert facts["seed"] == 7
    assert facts["congestion_control"].startswith("cubic")
    assert {"cpu", "cores", "commit", "kernel"} <= set(facts)
    assert lines[0]["scenario"]["size"] == 4 << 20
    runs = {line["run"]: line for line in lines if "run" in line}
    assert set(runs) == {"nearfetch", "curl"}
    for run in runs.values():
        assert (run["finished"], run["awaited"], run["wrong"], run["problems"]) == (2, 2, 0, [])
        assert [agent["right"] for agent in run["agents"]] == [True, True]
        assert run["figures"]["makespan_bound"] > 0.5
        assert run["figures"]["cpu_s"] > 0
    assert runs["curl"]["figures"]["origin_copies"] == 2
    assert runs["curl"]["figures"]["origin_copies_interface"] == pytest.approx(2, rel=0.1)
    assert 1 <= runs["nearfetch"]["figures"]["origin_copies"] < 2.5
    assert {"all_found_s", "newcomer_first_peer_s"} <= set(runs["nearfetch"]["notes"])
    assert [line["summary"] for line in lines if "summary" in line] == ["nearfetch", "curl"]
    assert "ORIGIN COPIES" in done.stdout
    assert "2 of 2" in done.stdout
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert list(place.iterdir()) == []
    assert processes_of(place) == []


@needs_namespaces
@pytest.mark.parametrize(("system", "number"), [("nearfetch", signal.SIGINT), ("curl", signal.SIGTERM)])
def test_an_interrupt_leaves_nothing(tmp_path: Path, system: str, number: signal.Signals) -> None:
    slow = ("--agents", "2", "--size", "64MiB", "--origin-rate", "4", "--rounds", "1")
    line = command("lab", "cold", *slow, "--only", system)
    with subprocess.Popen(line, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + TIMEOUT_S
        while not list(tmp_path.glob("nearfetch-lab-*/*/a1/files/*")):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(namespaces(running.pid)) >= 4
        running.send_signal(number)
        assert running.wait(TIMEOUT_S) == 130
    assert namespaces(running.pid) == []
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
def test_a_full_disk_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    full = ("--agents", "2", "--size", "4MiB", *FAST, "--only", "curl", "--break", "full-disk", "--json")

    done = bench(tmp_path, "lab", "cold", *full)

    assert done.returncode == 1
    complaints = [line for line in done.stderr.splitlines() if "a1:" in line]
    assert len(complaints) == 1
    assert "Failure writing output" in complaints[0]
    (run,) = [item for item in map(json.loads, done.stdout.splitlines()) if "run" in item]
    assert [agent["right"] for agent in run["agents"]] == [True, None]
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
def test_an_origin_that_dies_is_said_and_the_next_system_goes_on(tmp_path: Path) -> None:
    slow = ("--agents", "2", "--size", "4MiB", "--origin-rate", "16", "--rounds", "2")

    done = bench(tmp_path, "lab", "cold", *slow, "--only", "curl", "--break", "origin-dies")

    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"bench: curl, round {number} of 2: the origin ended ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cold", "--agents", "0"), "bench: cold: agents must be 1 to 100000, not 0"),
        (("churn", "--agents", "2"), "bench: churn: it needs"),
        (("warm", "--agents", "1"), "bench: warm: 1 agent with 1 that have it leave nobody to fetch it"),
        (("cold", "--size", "0"), "bench: cold: there must be at least one file of at least one byte"),
        (("cold", "--agent-rate", "0"), "bench: a rate must be above 0"),
    ],
)
def test_an_impossible_scenario_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert lab.main(list(arguments)) == 2

    said = capsys.readouterr().err
    assert said.startswith(words)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("os.geteuid", lambda: 1000, "network namespaces need root: call it with sudo"),
        ("bench.netns.shutil.which", lambda name, path=None: None, "ip and tc and sysctl must be installed"),
    ],
)
def test_what_is_missing_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: object, words: str
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(name, value)

    assert lab.main(["cold"]) == 1

    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_missing_competitor_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "missing_for_namespaces", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")

    assert lab.main(["cold", "--only", "curl", "--only", "aria2"]) == 1

    assert capsys.readouterr().err.splitlines() == [
        "bench: curl is left out: curl is not installed",
        "bench: aria2 is left out: aria2c is not installed",
        "bench: no system is left to be measured",
    ]
