"""Hosts in namespaces: they reach each other, at the rate that was asked for, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.agents import BenchError
from bench.netns import HostSpec, Network, missing_for_namespaces, remove_leftovers

OBJECTION = missing_for_namespaces()
needs_namespaces = pytest.mark.skipif(OBJECTION is not None, reason=str(OBJECTION))

SEND = """
import socket, sys
with socket.create_server((sys.argv[1], 9000)) as server:
    print("ready", flush=True)
    with server.accept()[0] as out:
        out.sendall(bytes(1 << 21))
"""
RECEIVE = """
import socket, sys, time
began, count = time.monotonic(), 0
with socket.create_connection((sys.argv[1], 9000), timeout=10) as source:
    while data := source.recv(1 << 16):
        count += len(data)
print(count, time.monotonic() - began)
"""


def namespaces(pid: int) -> list[str]:
    """Those of one lab: others may run beside this one."""
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True, timeout=10)
    return [line.split()[0] for line in done.stdout.splitlines() if line.startswith(f"nfbench-{pid}-")]


@needs_namespaces
def test_two_hosts_speak_at_the_rate_of_the_slower_link() -> None:
    rate = 20_000_000
    with Network([HostSpec(name="a", up=rate), HostSpec(name="b")]) as network:
        a, b = network.hosts["a"], network.hosts["b"]
        python = sys.executable
        with subprocess.Popen(a.command(python, "-c", SEND, a.address), stdout=subprocess.PIPE) as sender:
            assert sender.stdout is not None
            sender.stdout.readline()
            done = subprocess.run(
                b.command(python, "-c", RECEIVE, a.address), capture_output=True, text=True, check=True, timeout=30
            )
        count, seconds = done.stdout.split()
        sent = a.counters().sent_bytes

    assert int(count) == 1 << 21
    assert 0.6 * rate < int(count) * 8 / float(seconds) < 1.15 * rate  # the bucket's 128 KiB go at once
    assert 1 << 21 <= sent < 1.2 * (1 << 21)
    assert namespaces(os.getpid()) == []


@needs_namespaces
def test_processes_in_it_end_with_it() -> None:
    with Network([HostSpec(name="a")]) as network:
        sleeper = subprocess.Popen(network.hosts["a"].command("sleep", "1000"))
    assert sleeper.wait(timeout=10) != 0


@needs_namespaces
def test_what_a_killed_lab_left_is_removed() -> None:
    script = "import bench.netns as n, os; n.Network([n.HostSpec(name='a')]).__enter__(); os._exit(0)"
    with subprocess.Popen([sys.executable, "-c", script]) as lab:
        pass
    assert len(namespaces(lab.pid)) == 2

    remove_leftovers()

    assert namespaces(lab.pid) == []


@needs_namespaces
def test_a_failure_in_the_middle_leaves_nothing() -> None:
    with pytest.raises(BenchError, match="failed"):
        Network([HostSpec(name="a"), HostSpec(name="a")]).__enter__()
    assert namespaces(os.getpid()) == []


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.platform", "linux")
    assert missing_for_namespaces() == "network namespaces need root: call it with sudo"
    began = time.monotonic()
    with pytest.raises(BenchError, match="need root"):
        Network([HostSpec(name="a")]).__enter__()
    assert time.monotonic() - began < 1
