"""`nearfetch doctor`: why is no peer visible? Each check looks at one thing and says what to do about it.

Every check is a function that returns a Check (or several) and changes nothing but a probe file and a probe
datagram of its own. Checks block for a second at most each.
Never knows: how the answers are printed; the core.

Sources: RFC 6762 §3 (the mDNS group), RFC 1112 (multicast on one host), RFC 5280 §4.1.2.5 (validity).
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec

from agent.client import AgentClient, socket_path
from agent.config import GROUP_KEY_FILE, Config
from agent.errors import AgentError, AgentUnavailableError
from agent.installation import check_one_piece, installed_version
from agent.schema import AgentDocument, PeerList
from peer.errors import DiscoveryError, PeerError
from peer.group import AdminGroup, Group, GroupKey, authority_of
from peer.interfaces import MDNS_GROUP, choose_interfaces, with_multicast

EARLIEST_YEAR, LATEST_YEAR = 2025, 2100
"""A clock outside was never set: certificates cannot be judged by it."""

PROBE_TIMEOUT_S = 0.8
PROBES = 3
CONNECT_TIMEOUT_S = 1.0
SHOWN_REFUSALS = 4
STRANGE_SKEW_S = 300.0


class Health(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    """It works, but less than it could."""
    FAIL = "fail"


class Check(msgspec.Struct, kw_only=True, frozen=True):
    """One finding."""

    name: str
    health: Health
    message: str
    """What was found."""
    advice: str | None = None
    """What to do; None when there is nothing to do."""


class Diagnosis(msgspec.Struct, kw_only=True, frozen=True):
    """What `doctor --json` prints."""

    healthy: bool
    """False when a check failed; warnings do not count."""
    checks: list[Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAgent:
    """What the agent of this home says."""

    about: AgentDocument
    peers: PeerList


async def diagnose(config: Config) -> Diagnosis:
    """Run every check, in the order in which causes come before effects."""
    agent, checks = await ask_agent(config.home)
    found = [check_version(agent), check_home(config.home), *checks]
    group = list(check_group(config))
    found += group
    found.append(check_clock(time.time()))
    found += check_certificate(config, time.time())
    wanted = tuple(agent.about.interfaces) if agent is not None else ()
    interfaces, check = check_interfaces(config.interface or wanted)
    found.append(check)
    found += [check_multicast(item) for item in interfaces]
    if interfaces:
        found.append(check_mdns_port(interfaces))
    found += check_port(agent, interfaces)
    found += check_peers(agent)
    return Diagnosis(healthy=all(item.health is not Health.FAIL for item in found), checks=found)


async def ask_agent(home: Path) -> tuple[RunningAgent | None, list[Check]]:
    """The agent of this home, if one answers, and what it wants to be known."""
    client = AgentClient(socket_path(home), timeout_s=5.0)
    try:
        agent = RunningAgent(about=await client.about(), peers=await client.peers())
    except AgentUnavailableError as error:
        if not socket_path(home).exists():
            return None, [_warn("agent", "no agent runs for this home", "start one: nearfetch run")]
        return None, [_warn("agent", str(error), "start one: nearfetch run")]
    except AgentError as error:
        return None, [_fail("agent", str(error), "stop what answers there, and start: nearfetch run")]
    about = agent.about
    checks = [_ok("agent", f"runs with process id {about.pid}, {about.jobs} jobs")]
    checks += [_warn("agent", problem) for problem in [*about.problems, *agent.peers.problems]]
    return agent, checks


def check_version(agent: RunningAgent | None) -> Check:
    """Our version, Python's, the agent's; and that the three packages come from one place."""
    ours, python = installed_version(), ".".join(map(str, sys.version_info[:3]))
    try:
        check_one_piece()
    except AgentError as error:
        return _fail("version", str(error), "see the message")
    if agent is not None and agent.about.version != ours:
        return _warn(
            "version",
            f"this is nearfetch {ours}, the agent that runs is {agent.about.version}",
            "restart the agent",
        )
    return _ok("version", f"nearfetch {ours}, Python {python}")


def check_home(home: Path) -> Check:
    """It exists, belongs to us, is private, and can be written to."""
    try:
        found = home.stat()
    except FileNotFoundError:
        return _warn("home", f"{home} does not exist yet", "it is made by the first agent that runs")
    except OSError as error:
        return _fail("home", f"{home} cannot be looked at: {error.strerror}", "choose another with --home")
    if not stat.S_ISDIR(found.st_mode):
        return _fail("home", f"{home} is not a directory", "choose another with --home")
    if found.st_uid != os.geteuid():
        return _fail("home", f"{home} belongs to another user", "choose another with --home")
    try:
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return _fail("home", f"{home} cannot be written to: {error.strerror}", "make space, or change permissions")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return _warn("home", f"{home} can be read by others", f"chmod 700 {home}")
    return _ok("home", f"{home} is private and can be written to")


def check_group(config: Config) -> Iterator[Check]:
    """There is a group, and its key or authority can be read."""
    group = group_of(config)
    if group is None:
        yield _warn(
            "group",
            "no group: downloads come from their origins only",
            "nearfetch group create, or nearfetch group join KEY",
        )
        return
    if isinstance(group, PeerError):
        yield _fail("group", str(group), "nearfetch group join KEY --force, or correct the configuration")
        return
    try:
        yield _ok("group", f"tag {authority_of(group).tag}: must be the same on every agent of the group")
    except PeerError as error:
        yield _fail("group", str(error), "correct group_ca_file in the configuration")
    file = config.home / GROUP_KEY_FILE
    if isinstance(group, GroupKey) and file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
        yield _warn("group", f"{file} can be read by others", f"chmod 600 {file}")


def group_of(config: Config) -> Group | PeerError | None:
    """The group that is configured: None when there is none, the error when its key is malformed."""
    if config.group_key is not None:
        try:
            return GroupKey.parse(config.group_key)
        except PeerError as error:
            return error
    files = (config.group_ca_file, config.group_certificate_file, config.group_key_file)
    if files[0] is None or files[1] is None or files[2] is None:
        return None
    return AdminGroup(ca_file=files[0], certificate_file=files[1], key_file=files[2])


def check_clock(now: float) -> Check:
    """The year is one in which certificates can be judged. `now`: seconds since 1970."""
    moment = datetime.fromtimestamp(now, UTC)
    text = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        return _fail("clock", f"it says {text}", "set the clock: others refuse certificates by its time")
    return _ok("clock", text)


def check_certificate(config: Config, now: float) -> Iterator[Check]:
    """This agent's own certificate is within its dates. `now`: seconds since 1970."""
    from cryptography import x509

    path = config.group_certificate_file or config.home / "identity" / "certificate.pem"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return
    except OSError as error:
        yield _fail("certificate", f"{path} cannot be read: {error.strerror}", "change its permissions")
        return
    except ValueError:
        yield _fail("certificate", f"{path} holds no certificate", "restart the agent: it makes a new one")
        return
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    dates = f"valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    if now < start.timestamp() - STRANGE_SKEW_S:
        yield _fail("certificate", f"{dates}, which is in the future", "set the clock, then restart the agent")
    elif now > end.timestamp():
        yield _fail("certificate", f"{dates}: expired", "restart the agent: it renews its own certificate")
    else:
        yield _ok("certificate", dates)


def check_interfaces(wanted: tuple[str, ...]) -> tuple[tuple[IPv4Interface, ...], Check]:
    """Which addresses are used to find peers."""
    try:
        chosen = choose_interfaces(wanted)
    except DiscoveryError as error:
        return (), _fail("interface", str(error), "name one of them with --interface")
    listed = ", ".join(str(item.ip) for item in chosen)
    if not chosen:
        return (), _fail("interface", "this machine has no IPv4 address", "connect it to a network")
    if not wanted and all(item.is_loopback for item in chosen):
        message = f"only loopback ({listed}): agents on this machine alone can be found"
        return chosen, _warn("interface", message, "connect the machine to a network")
    return chosen, _ok("interface", f"uses {listed}")


def check_multicast(interface: IPv4Interface) -> Check:
    """A datagram sent to the mDNS group on this interface comes back to us. Another port than mDNS' own is used,
    so that nobody is disturbed."""
    name = f"multicast {interface.ip}"
    advice = "allow multicast (UDP 224.0.0.251, port 5353) in the firewall, or name peers with --peer HOST:PORT"
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            took_s = _probe(receiver, sender, interface)
    except OSError as error:
        return _fail(name, f"cannot be used: {error.strerror or error}", advice)
    if took_s is None:
        return _fail(name, f"a probe did not come back within {PROBE_TIMEOUT_S:g} s", advice)
    return _ok(name, f"a probe came back after {took_s * 1000:.1f} ms")


def check_mdns_port(interfaces: Iterable[IPv4Interface]) -> Check:
    """The port of mDNS can be shared with who uses it already."""
    try:
        usable = with_multicast(interfaces)
    except DiscoveryError as error:
        return _fail("mdns", str(error), "stop the program that keeps the port to itself")
    return _ok("mdns", f"port 5353 can be shared on {', '.join(str(item.ip) for item in usable)}")


def check_port(agent: RunningAgent | None, interfaces: Iterable[IPv4Interface]) -> Iterator[Check]:
    """The running agent's port for peers answers on each address."""
    if agent is None:
        return
    port = agent.about.peer_port
    if port is None:
        yield _warn("port", "the agent that runs listens for no peers", "join a group, then restart the agent")
        return
    for interface in interfaces:
        try:
            with socket.create_connection((str(interface.ip), port), timeout=CONNECT_TIMEOUT_S):
                yield _ok("port", f"{interface.ip}:{port} answers (from this machine)")
        except OSError as error:
            reason = error.strerror or "no answer"
            yield _fail("port", f"{interface.ip}:{port}: {reason}", f"allow TCP port {port} in the firewall")


def check_peers(agent: RunningAgent | None) -> Iterator[Check]:
    """Who was seen, who was refused and why, and who speaks another version."""
    if agent is None:
        return
    known = agent.peers.peers
    good = [item for item in known if item.available]
    if good:
        yield _ok("peers", f"{len(good)} of the group: {', '.join(item.name or item.id[:16] for item in good[:8])}")
    elif agent.about.group_tag is not None:
        yield _warn(
            "peers",
            "none of the group was met",
            "compare group tag, clock and interface with those of the other agents (nearfetch doctor there)",
        )
    for item in known:
        if item.authenticated and item.version and item.version != agent.about.version:
            yield _warn("peers", f"{item.name} runs version {item.version}, this is {agent.about.version}")
        if item.reason is not None:
            yield _warn("peers", f"{item.name or item.id[:16]} is {item.standing}: {item.reason}")
    for line in agent.peers.refused[:SHOWN_REFUSALS]:
        yield _warn("refused", line, "same group key, and a clock that is right, on both machines?")
    if (more := len(agent.peers.refused) - SHOWN_REFUSALS) > 0:
        yield _warn("refused", f"{more} more, see: nearfetch peer list")


def _probe(receiver: socket.socket, sender: socket.socket, interface: IPv4Interface) -> float | None:
    """Seconds until one of a few probes was heard, None when none was. Raises OSError."""
    address = interface.ip.packed
    receiver.bind(("", 0))
    receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(MDNS_GROUP) + address)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    token = secrets.token_bytes(16)
    started = time.monotonic()
    receiver.settimeout(PROBE_TIMEOUT_S / PROBES)
    for _ in range(PROBES):
        sender.sendto(token, (MDNS_GROUP, receiver.getsockname()[1]))
        try:
            while receiver.recv(64) != token:
                pass
        except TimeoutError:
            continue
        return time.monotonic() - started
    return None


def _ok(name: str, message: str) -> Check:
    return Check(name=name, health=Health.OK, message=message)


def _warn(name: str, message: str, advice: str | None = None) -> Check:
    return Check(name=name, health=Health.WARN, message=message, advice=advice)


def _fail(name: str, message: str, advice: str) -> Check:
    return Check(name=name, health=Health.FAIL, message=message, advice=advice)
