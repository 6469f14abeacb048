"""Runs `python -m bench ...` as a user does, and looks for processes it may have left behind.

Never knows: what the commands do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 100.0


def command(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "bench", *arguments]


def environment(place: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Everything temporary goes below `place`."""
    return {**os.environ, "TMPDIR": str(place), **(extra or {})}


def bench(place: Path, *arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(place, extra),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def processes_of(place: Path) -> list[str]:
    """Command lines of running processes that name anything below `place` (Linux)."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(place) in line and int(directory.name) != os.getpid():
            found.append(line)
    return found
