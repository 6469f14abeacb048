"""What a measurement was made on: machine, versions, commit; and what the system counted for a process (Linux).

Sources: proc(5) (stat: fields 14 to 17; status: VmHWM), sysctl net.ipv4.tcp_congestion_control.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, with that of the children it has waited for. Steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def peak_memory(pid: int) -> int:
    """The most memory the process has held at one time, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Of all processors together since the machine started, in ticks."""

    busy: int
    total: int

    def busy_since(self, before: ProcessorTime) -> float:
        """The share that was used between two readings."""
        return (self.busy - before.busy) / max(1, self.total - before.total)


def processor_time() -> ProcessorTime:
    """Now (proc(5), stat: idle and iowait are fields 4 and 5)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return ProcessorTime(busy=sum(ticks) - ticks[3] - ticks[4], total=sum(ticks))


def facts(tools: Mapping[str, str]) -> dict[str, object]:
    """Everything that a reader needs to judge the figures. `tools`: name -> program, asked for their versions."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control") or "unknown",
        "commit": commit(),
        "load": round(os.getloadavg()[0], 2),
        **{name: version_of(program) for name, program in tools.items()},
    }


def commit() -> str:
    """The commit that is checked out, with a `+` when files differ from it."""
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD").strip()
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no").strip()
    return f"{head or 'unknown'}{'+' if changed else ''}"


def version_of(program: str) -> str:
    """What `--version` says, the number only."""
    found = _VERSION.search(_output(program, "-v" if Path(program).name == "nginx" else "--version"))
    return found[0] if found else "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + (done.stderr if "nginx" in command[0] else "")


def _cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    return found[1].strip() if found else platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
