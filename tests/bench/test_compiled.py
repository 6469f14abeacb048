"""Machine code for the simulator: what is translated, what is missing, and that it comes to the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bench.sim
from bench import compiled
from bench.compiled import ROOT, CompileError

PLAYED = ["sim", "cold", "--agents", "3", "--size", "2MiB", "--json"]

BUILT = ["validation/ranges.py", "validation/rangeset.py", "bench/sim/clock.py"]


def modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if not name.startswith("tests")}


def test_what_plays_is_translated() -> None:
    assert bench.sim.__doc__ is not None
    sources = compiled.sources_of(modules())
    chosen = compiled.translated(sources)
    assert {"agent/core/scheduler.py", "agent/core/events.py", "bench/sim/clock.py"} <= set(chosen)
    assert not {"bench/sim/__init__.py", "bench/report.py"} & set(chosen)
    assert ROOT / "bench/__main__.py" in sources


def test_where_class_keywords_are_left_nothing_is_translated() -> None:
    assert compiled.translated([ROOT / "validation/manifest.py"]) == []
    assert compiled.translated([ROOT / "validation/ranges.py"]) == ["validation/ranges.py"]


def test_other_sources_have_another_place(tmp_path: Path) -> None:
    mine = modules()
    place = compiled.place_of(mine, tmp_path)
    assert place == compiled.place_of(mine, tmp_path)
    del mine["bench.sim.clock"]
    assert place != compiled.place_of(mine, tmp_path)
    assert not compiled.is_there(place)


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(CompileError, match=r"no C compiler 'no-such-compiler': install one"):
        compiled.build(tmp_path / "place", [], [])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    _needs_tools()
    (tmp_path / "file").touch()
    with pytest.raises(CompileError, match=r"cannot be written: .*file"):
        compiled.build(tmp_path / "file" / "place", [], [])


def test_what_cannot_be_compiled_leaves_nothing(tmp_path: Path) -> None:
    _needs_tools()
    with pytest.raises(CompileError, match="compiling failed: "):
        compiled.build(tmp_path / "place", [], ["agent/core/nowhere.py"])
    assert not list(tmp_path.iterdir())


def test_three_translated_modules_play_the_same(tmp_path: Path) -> None:
    _needs_tools()
    place = tmp_path / "place"
    compiled.build(place, compiled.sources_of(modules()), BUILT)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert all(list(place.glob(name.removesuffix(".py") + ".*.so")) for name in BUILT)
    there = _play(place, "-P")
    assert there == _play(ROOT)
    assert json.loads(there.splitlines()[-1])["finished"] == 3


def _needs_tools() -> None:
    try:
        compiled.check_tools()
    except CompileError as error:
        pytest.skip(str(error))


def _play(place: Path, *how: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(place)}
    command = [sys.executable, *how, "-m", "bench", *PLAYED]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
