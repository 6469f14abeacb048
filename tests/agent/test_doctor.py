"""Each check alone, on real files, sockets and interfaces."""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec
import pytest

from agent.config import Config
from agent.doctor import (
    Check,
    Health,
    RunningAgent,
    ask_agent,
    check_certificate,
    check_clock,
    check_group,
    check_home,
    check_interfaces,
    check_multicast,
    check_peers,
    check_port,
    check_version,
    diagnose,
)
from agent.installation import check_one_piece, installed_version, package_places
from peer.identity import GroupKey, Identity
from tests.support.memory_engine import MemoryEngine, memory_agent

LOOPBACK = IPv4Interface("127.0.0.1/8")
NOW = 1_800_000_000.0
DAY_S = 86_400.0


@pytest.fixture(name="home")
def make_home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home


@pytest.fixture(name="agent")
def make_agent(home: Path) -> RunningAgent:
    engine = MemoryEngine(home)
    return RunningAgent(
        about=msgspec.structs.replace(engine.about(), version=installed_version()), peers=engine.peers()
    )


def only(checks: object) -> Check:
    (check,) = checks  # type: ignore[misc]
    assert isinstance(check, Check)
    return check


def test_the_version(agent: RunningAgent) -> None:
    assert check_version(None).health is Health.OK
    assert installed_version() in check_version(agent).message
    old = msgspec.structs.replace(agent.about, version="0.0.1")
    check = check_version(RunningAgent(about=old, peers=agent.peers))
    assert (check.health, check.advice) == (Health.WARN, "restart the agent")


def test_our_packages_lie_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(package_places()) == 1
    check_one_piece()
    foreign = tmp_path / "other"
    (foreign / "peer").mkdir(parents=True)
    (foreign / "peer" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(foreign))
    monkeypatch.delitem(__import__("sys").modules, "peer")
    check = check_version(None)
    assert check.health is Health.FAIL
    assert str(foreign) in check.message


def test_the_home(home: Path, tmp_path: Path) -> None:
    assert check_home(home).health is Health.OK
    home.chmod(0o755)
    assert check_home(home).advice == f"chmod 700 {home}"
    assert check_home(tmp_path / "none").health is Health.WARN
    (tmp_path / "file").touch()
    assert check_home(tmp_path / "file").health is Health.FAIL
    assert list(home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_of_somebody_else(home: Path) -> None:
    os.chown(home, 65534, 65534)
    check = check_home(home)
    assert (check.health, "another user" in check.message) == (Health.FAIL, True)


def test_the_group(home: Path) -> None:
    assert only(check_group(Config(home=home))).health is Health.WARN
    key = GroupKey.create()
    check = only(check_group(Config(home=home, group_key=str(key))))
    assert check.health is Health.OK
    assert key.tag in check.message
    malformed = only(check_group(Config(home=home, group_key=str(key)[:-1])))
    assert malformed.health is Health.FAIL
    assert "incomplete" in malformed.message
    (home / "group.key").write_text(str(key))
    (home / "group.key").chmod(0o644)
    checks = list(check_group(Config(home=home, group_key=str(key))))
    assert checks[-1].advice == f"chmod 600 {home / 'group.key'}"


def test_a_group_of_an_administrator(home: Path) -> None:
    files = {f"group_{name}_file": home / name for name in ("ca", "certificate", "key")}
    check = only(check_group(Config(home=home, **files)))  # type: ignore[arg-type]
    assert check.health is Health.FAIL
    assert str(home / "ca") in check.message


def test_the_clock() -> None:
    assert check_clock(NOW).health is Health.OK
    assert check_clock(0.0).health is Health.FAIL
    assert check_clock(5e9).health is Health.FAIL


def test_the_certificate(home: Path) -> None:
    config = Config(home=home)
    assert list(check_certificate(config, NOW)) == []
    Identity.load_or_create(home, GroupKey.create(), NOW, "here")
    assert only(check_certificate(config, NOW)).health is Health.OK
    early = only(check_certificate(config, NOW - 10 * DAY_S))
    assert (early.health, "future" in early.message) == (Health.FAIL, True)
    late = only(check_certificate(config, NOW + 100 * DAY_S))
    assert (late.health, "expired" in late.message) == (Health.FAIL, True)
    (home / "identity" / "certificate.pem").write_text("x")
    assert only(check_certificate(config, NOW)).health is Health.FAIL


def test_the_interfaces() -> None:
    chosen, check = check_interfaces(("127.0.0.1",))
    assert (chosen, check.health) == ((LOOPBACK,), Health.OK)
    chosen, check = check_interfaces(("eth77",))
    assert (chosen, check.health) == ((), Health.FAIL)
    assert "127.0.0.1" in check.message  # says which there are


def test_multicast() -> None:
    assert check_multicast(LOOPBACK).health is Health.OK
    check = check_multicast(IPv4Interface("192.0.2.77/24"))  # nobody's address (RFC 5737)
    assert check.health is Health.FAIL
    assert check.advice is not None


def test_the_port(agent: RunningAgent) -> None:
    assert list(check_port(None, [LOOPBACK])) == []
    assert only(check_port(agent, [LOOPBACK])).health is Health.WARN
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        open_port = RunningAgent(about=msgspec.structs.replace(agent.about, peer_port=port), peers=agent.peers)
        assert only(check_port(open_port, [LOOPBACK])).health is Health.OK
    closed = only(check_port(open_port, [LOOPBACK]))
    assert closed.health is Health.FAIL
    assert str(port) in str(closed.advice)


def test_the_peers(agent: RunningAgent) -> None:
    assert list(check_peers(None)) == []
    said = [check.message for check in check_peers(agent)]
    assert said[0] == "1 of the group: neighbour"
    assert "neighbour runs version 0.0.9" in said[1]
    assert said[2] == "192.0.2.9: another group"
    nobody = RunningAgent(about=agent.about, peers=msgspec.structs.replace(agent.peers, peers=[], refused=[]))
    assert only(check_peers(nobody)).health is Health.WARN
    bad = msgspec.structs.replace(agent.peers.peers[0], standing="banned", reason="corrupt bytes", version="")
    banned = RunningAgent(about=agent.about, peers=msgspec.structs.replace(agent.peers, peers=[bad], refused=[]))
    assert [check.message for check in check_peers(banned)][1] == "neighbour is banned: corrupt bytes"


async def test_everything_with_an_agent(home: Path) -> None:
    async with memory_agent(home):
        agent, checks = await ask_agent(home)
        assert agent is not None
        assert checks[1].message == "a database was set aside"
        diagnosis = await diagnose(Config(home=home, interface=("127.0.0.1",)))
    assert diagnosis.healthy, [check for check in diagnosis.checks if check.health is Health.FAIL]
    names = {check.name for check in diagnosis.checks}
    assert names >= {"version", "home", "agent", "group", "clock", "interface", "multicast 127.0.0.1", "peers"}
    assert all(check.advice for check in diagnosis.checks if check.health is Health.FAIL)


def test_a_failure_makes_the_whole_unhealthy(tmp_path: Path) -> None:
    diagnosis = asyncio.run(diagnose(Config(home=tmp_path, group_key="nf1-nonsense", interface=("127.0.0.1",))))
    assert not diagnosis.healthy
    assert [check.name for check in diagnosis.checks if check.health is Health.FAIL] == ["group"]
