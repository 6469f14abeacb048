"""Hosts in network namespaces, made and removed here: a bridge, a cable for each host, rates by tc.

Needs Linux, root, `ip` and `tc` (iproute2). A host is a namespace with one interface `eth0`; its sending is shaped
on that side, its receiving on the bridge's. Whatever happens, nothing is left behind: leaving the block ends every
process in a namespace and removes it, and the next lab removes what a killed one left.
Never knows: agents, what is measured.

Sources: ip-netns(8), ip-link(8), tc-tbf(8). A bucket below 64 KiB splits the packets that the card would have split
(measured: data path §6); the kernel's default congestion control is set to cubic, so that bbr's pacing is not what
is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.agents import BenchError

PREFIX = "nfbench"
BURST_BYTES = 128 * 1024
QUEUE_MS = 40
"""What a link holds before it drops."""
CONGESTION_CONTROL = "cubic"
"""Of every host."""
COMMAND_TIMEOUT_S = 20.0
END_TIMEOUT_S = 5.0
_NAMESPACE = re.compile(rf"{PREFIX}-([0-9]+)-[a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """A host to be made. Rates in bit/s of Ethernet frames; None: as fast as the machine can."""

    name: str
    """Letters and digits, at most 8."""
    up: int | None = None
    down: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What passed a host's interface."""

    sent_bytes: int
    received_bytes: int


class Host:
    """One namespace."""

    def __init__(self, namespace: str, spec: HostSpec, address: str) -> None:
        """Made by `Network`."""
        self.namespace = namespace
        self.name = spec.name
        self.address = address

    def command(self, *argv: str) -> list[str]:
        """The same command, carried out on this host. The process that is started is the command itself."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def counters(self) -> Counters:
        """Of `eth0`, so far."""
        found = json.loads(_run("ip", "-n", self.namespace, "-s", "-j", "link", "show", "dev", "eth0"))
        stats = found[0]["stats64"]
        return Counters(sent_bytes=int(stats["tx"]["bytes"]), received_bytes=int(stats["rx"]["bytes"]))

    def set_rates(self, up: int | None, down: int | None, switch: str, port: str) -> None:
        """Shape both directions anew."""
        _shape(self.namespace, "eth0", up)
        _shape(switch, port, down)

    def kill_all(self) -> None:
        """SIGKILL for every process on it."""
        for pid in _processes([self.namespace]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        """Take the cable out."""
        _run("ip", "-n", self.namespace, "link", "set", "eth0", "down")


class Network:
    """The hosts and their switch, alive as long as the block. Raises BenchError."""

    def __init__(self, specs: Sequence[HostSpec]) -> None:
        """Nothing is made yet."""
        self._specs = tuple(specs)
        self._base = f"{PREFIX}-{os.getpid()}"
        self._made: list[str] = []
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        objection = missing_for_namespaces()
        if objection is not None:
            raise BenchError(objection)
        remove_leftovers()
        _allow_cubic()
        try:
            self._make_switch()
            for number, spec in enumerate(self._specs, 1):
                self._make_host(number, spec)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def reshape(self, name: str, up: int | None, down: int | None) -> None:
        """Give a host other rates."""
        number = [spec.name for spec in self._specs].index(name) + 1
        self.hosts[name].set_rates(up, down, f"{self._base}-switch", f"port{number}")

    def _make_switch(self) -> None:
        switch = self._add(f"{self._base}-switch")
        _batch(switch, ["link add br0 type bridge mcast_snooping 0", "link set br0 up"])

    def _make_host(self, number: int, spec: HostSpec) -> None:
        switch, namespace = f"{self._base}-switch", self._add(f"{self._base}-{spec.name}")
        address, port = f"10.77.{number // 250}.{number % 250 + 1}", f"port{number}"
        _batch(
            namespace,
            [
                f"link add eth0 type veth peer name {port} netns {switch}",
                f"addr add {address}/16 dev eth0",
                "link set lo up",
                "link set eth0 up",
                "route add default dev eth0",
            ],
        )
        _batch(switch, [f"link set {port} master br0", f"link set {port} up"])
        _run(
            "ip",
            "netns",
            "exec",
            namespace,
            "sysctl",
            "-qw",
            f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}",
        )
        host = self.hosts[spec.name] = Host(namespace, spec, address)
        host.set_rates(spec.up, spec.down, switch, port)

    def _add(self, namespace: str) -> str:
        _run("ip", "netns", "add", namespace)
        self._made.append(namespace)
        return namespace

    def _remove(self) -> None:
        made, self._made = self._made, []
        remove_namespaces(made)
        self.hosts.clear()


def missing_for_namespaces() -> str | None:
    """Why there can be no such hosts here, in one sentence; None when there can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root: call it with sudo"
    missing = [name for name in ("ip", "tc", "sysctl") if shutil.which(name, path=_path()) is None]
    if missing:
        return f"{' and '.join(missing)} must be installed (iproute2, procps), and cannot be found"
    return None


def remove_leftovers() -> None:
    """Remove the namespaces of labs whose process is gone."""
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line.strip()]
    stale = []
    for name in names:
        match = _NAMESPACE.fullmatch(name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            stale.append(name)
    remove_namespaces(stale)


def remove_namespaces(names: Sequence[str]) -> None:
    """End every process in them by its id, then remove them. Goes on whatever one of them says."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_TIMEOUT_S
        while (pids := _processes(names)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)
    for name in names:
        with contextlib.suppress(BenchError):
            _run("ip", "netns", "del", name)


def _processes(names: Sequence[str]) -> list[int]:
    found: list[int] = []
    for name in names:
        with contextlib.suppress(BenchError):
            found += [int(word) for word in _run("ip", "netns", "pids", name).split()]
    return found


def _allow_cubic() -> None:
    known = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    allowed = known.read_text(encoding="ascii").split()
    if CONGESTION_CONTROL not in allowed:
        known.write_text(" ".join([*allowed, CONGESTION_CONTROL]), encoding="ascii")


def _shape(namespace: str, interface: str, rate: int | None) -> None:
    with contextlib.suppress(BenchError):
        _run("tc", "-n", namespace, "qdisc", "del", "dev", interface, "root")
    if rate is not None:
        limits = ["rate", f"{rate}bit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"]
        _run("tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", "tbf", *limits)


def _batch(namespace: str, lines: Sequence[str]) -> None:
    _run("ip", "-n", namespace, "-batch", "-", given="\n".join(lines))


def _run(*command: str, given: str | None = None) -> str:
    """What it prints. Raises BenchError with what it complained about."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env={**os.environ, "PATH": _path()},
            start_new_session=True,  # Ctrl-C is for the bench, which then tidies up with more of these
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{' '.join(command)} failed: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
