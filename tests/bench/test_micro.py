"""`bench micro` runs and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.bench_command import bench


def test_every_part_has_figures(tmp_path: Path) -> None:
    done = bench(tmp_path, "micro", "--json", "--seconds", "0.001")

    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) >= 12
    assert {part["unit"] for part in found} == {"GB/s", "us"}
    for part in found:
        assert 0 < part["min"] <= part["median"] <= part["max"], part
        assert part["best"] == (part["max"] if part["unit"] == "GB/s" else part["min"])
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_said(tmp_path: Path) -> None:
    done = bench(tmp_path, "micro", "--seconds", "0")

    assert done.returncode == 2
    assert "--seconds must be above 0" in done.stderr
