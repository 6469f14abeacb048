"""`bench loopback` in small; and what it says where nginx or curl are missing."""

from __future__ import annotations

import json
from pathlib import Path

from bench.agents import BenchError, required_tools
from tests.support.bench_command import bench, processes_of

SMALL = ("--size", "2MiB", "--rounds", "1", "--load-seconds", "0.2")


def installed() -> bool:
    try:
        required_tools("nginx", "curl")
    except BenchError:
        return False
    return True


def test_each_case_has_figures_or_the_missing_tool_is_named(tmp_path: Path) -> None:
    output, place = tmp_path / "results.jsonl", tmp_path / "place"
    place.mkdir()
    cases = ("--only", "plain", "--only", "peer", "--only", "ranges")

    done = bench(place, "loopback", *SMALL, *cases, "--output", str(output))

    if not installed():
        assert done.returncode == 1
        assert "must be installed" in done.stderr
        assert done.stderr.count("\n") == 1
        return
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert {"cpu", "commit", "congestion_control", "nginx", "curl", "cipher"} <= set(lines[0]["machine"])
    measured = [(line["case"], line["tool"]) for line in lines if "tool" in line]
    assert {case for case, _ in measured} == {"plain", "peer", "ranges"}
    assert ("plain", "get, own agent") in measured
    assert all(line["wall_s"]["median"] > 0 for line in lines if "tool" in line)
    assert all(peak > 1 << 20 for line in lines for peak in line.get("peak_memory_bytes", {}).values())
    assert all(title in done.stdout for title in ("plain HTTP", "one warm peer", "requests per CPU-second"))
    assert list(place.iterdir()) == []
    assert processes_of(place) == []


def test_a_missing_tool_is_one_line(tmp_path: Path) -> None:
    done = bench(tmp_path, "loopback", *SMALL, extra={"PATH": str(tmp_path)})

    assert done.returncode == 1
    assert "curl must be installed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_size_that_makes_no_sense_is_said(tmp_path: Path) -> None:
    done = bench(tmp_path, "loopback", "--size", "little")

    assert done.returncode == 2
    assert "'little' is not a size" in done.stderr
