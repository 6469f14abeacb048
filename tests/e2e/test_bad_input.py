"""Whatever is wrong ends in one clear line, the same in `--json`, with its exit code, and nothing is left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import CODES, ExitCode
from tests.support.agents import ROOT, Agent, Ended, Fleet, leftovers, nearfetch
from tests.support.origin import Fault, Origin
from tests.support.origin_tls import Authority
from tests.support.places import read_only, small_disk

BOUND_S = 30.0
DATA = b"some content " * 10_000
WRONG = "0" * 64

PLUGIN = """
class Crashing:
    def validate(self, candidate, patience):
        raise RuntimeError("it fell over")

def make(argument):
    return Crashing()
"""


@dataclass
class Setting:
    """What the cases need: one agent that runs, a home without one, and origins."""

    running: Agent
    idle: Agent
    authority: Authority
    origin: Origin = field(default_factory=Origin)
    expired: Origin = field(default_factory=Origin)


@pytest.fixture(scope="module", name="agents")
def run_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    directory = tmp_path_factory.mktemp("agents")
    authority = Authority(directory / "authority")
    plugins = install_plugin(directory / "plugins")
    with Fleet(directory / "fleet") as fleet:
        running, idle = fleet.agent("running", group=False), fleet.agent("idle", group=False)
        for agent in (running, idle):
            agent.extra = {"PYTHONPATH": f"{ROOT}:{plugins}", "NEARFETCH_CA_FILE": str(authority.ca_file)}
        running.start()
        yield Setting(running, idle, authority)


def install_plugin(directory: Path) -> Path:
    """A validator that crashes, installed as any other package would be."""
    facts = directory / "crashing-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[nearfetch.validators]\ncrashing = crashing:make\n")
    (directory / "crashing.py").write_text(PLUGIN)
    return directory


@pytest.fixture(name="setting")
async def serve(agents: Setting) -> AsyncIterator[Setting]:
    async with Origin() as origin, Origin(tls=agents.authority.expired()) as expired:
        origin.add("/good.bin", DATA)
        origin.add("/forbidden.bin", DATA, faults=[Fault("status", count=403)])
        expired.add("/good.bin", DATA)
        agents.origin, agents.expired = origin, expired
        yield agents


async def both_ways(setting: Setting, url: str, path: Path | str, *options: str) -> tuple[Ended, Ended]:
    """The same `get` in JSON by the running agent, and for a person by an agent of its own."""
    words = ("get", url, "-o", path, "--timeout", "3", *options)
    return await asyncio.gather(
        setting.running.call(*words, "--json"), setting.idle.call(*words, "--interface", "lo")
    )


def check(ended: tuple[Ended, Ended], code: str, *said: str) -> None:
    """Exit code, code and message of both; the message holds all of `said`."""
    as_json, plain = ended
    wanted = CODES[code].exit_code
    assert as_json.error_code == code, as_json
    assert (as_json.exit_code, plain.exit_code) == (wanted, wanted), ended
    message = as_json.document["error"]["message"]
    assert "\n" not in message
    lines = plain.err.splitlines()
    assert lines[-1] == f"nearfetch: {message} ({code})", (lines, message)
    assert [line for line in lines[:-1] if line.startswith(("nearfetch:", "Traceback"))] == []
    assert (as_json.err, plain.out) == ("", "")
    assert [part for part in said if part not in message] == [], message
    assert max(as_json.seconds, plain.seconds) < BOUND_S


async def check_nothing_left(setting: Setting, place: Path) -> None:
    assert leftovers(place) == []
    assert await setting.running.client.jobs() == []


# --- the origin --------------------------------------------------------------------------------------------------


async def test_unknown_scheme(setting: Setting, place: Path) -> None:
    check(await both_ways(setting, "ftp://127.0.0.1/x", place / "f"), "UNSUPPORTED_SCHEME", "ftp", "http")
    await check_nothing_left(setting, place)


async def test_no_url_at_all(setting: Setting, place: Path) -> None:
    check(await both_ways(setting, "example.org/x", place / "f"), "USAGE", "http://")


async def test_unresolvable_host(setting: Setting, place: Path) -> None:
    ended = await both_ways(setting, "http://no-such-host.invalid/x?secret=canary", place / "f")
    check(ended, "NAME_NOT_RESOLVED", "no-such-host.invalid")
    assert "canary" not in ended[1].err
    await check_nothing_left(setting, place)


async def test_refused_connection(setting: Setting, place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can get this port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        check(await both_ways(setting, url, place / "f"), "CONNECT_FAILED", "127.0.0.1")
    await check_nothing_left(setting, place)


@pytest.mark.parametrize(
    ("path", "code", "status"), [("/missing.bin", "NOT_FOUND", 404), ("/forbidden.bin", "FORBIDDEN", 403)]
)
async def test_refusing_status(setting: Setting, place: Path, path: str, code: str, status: int) -> None:
    ended = await both_ways(setting, setting.origin.url(path), place / "f")
    check(ended, code, str(status))
    assert ended[0].document["error"]["http_status"] == status
    assert len(setting.origin.requests(path)) <= 4, "asked again and again"
    await check_nothing_left(setting, place)


async def test_expired_certificate(setting: Setting, place: Path) -> None:
    check(await both_ways(setting, setting.expired.url("/good.bin"), place / "f"), "TLS_CERTIFICATE", "expired")
    assert setting.expired.log == [], "something was sent all the same"
    await check_nothing_left(setting, place)


# --- the destination ---------------------------------------------------------------------------------------------


async def test_missing_directory(setting: Setting, place: Path) -> None:
    path = place / "missing" / "f"
    check(await both_ways(setting, setting.origin.url("/good.bin"), path), "DESTINATION_MISSING", str(path.parent))
    await check_nothing_left(setting, place)
    assert setting.origin.log == []


async def test_directory_that_cannot_be_written(setting: Setting, place: Path) -> None:
    with read_only(place):
        ended = await both_ways(setting, setting.origin.url("/good.bin"), place / "f")
    check(ended, "PERMISSION_DENIED", str(place))
    await check_nothing_left(setting, place)


@pytest.mark.parametrize("length", ["known", "unknown"])
async def test_full_disk(setting: Setting, place: Path, length: str) -> None:
    faults = [] if length == "known" else [Fault("chunked")]
    setting.origin.add("/large.bin", bytes(3_000_000), faults=faults)
    with small_disk(place, 1_000_000):
        (place / "mine").write_bytes(b"kept")
        ended = await both_ways(setting, setting.origin.url("/large.bin"), place / "f")
        check(ended, "DISK_FULL")
        assert leftovers(place) == ["mine"]
        assert (place / "mine").read_bytes() == b"kept"
    await check_nothing_left(setting, place)


async def test_destination_is_a_directory(setting: Setting, place: Path) -> None:
    path = place / "directory"
    path.mkdir()
    check(await both_ways(setting, setting.origin.url("/good.bin"), path), "DESTINATION_INVALID", str(path))
    check(await both_ways(setting, setting.origin.url("/good.bin"), f"{place}/f/"), "DESTINATION_INVALID")
    assert leftovers(place) == ["directory"]
    assert leftovers(path) == []


# --- validation --------------------------------------------------------------------------------------------------


async def test_wrong_digest(setting: Setting, place: Path) -> None:
    (place / "f").write_bytes(b"what was there before")
    ended = await both_ways(setting, setting.origin.url("/good.bin"), place / "f", "--sha256", WRONG)
    check(ended, "VALIDATION_FAILED", WRONG)
    assert (place / "f").read_bytes() == b"what was there before"
    (place / "f").unlink()
    await check_nothing_left(setting, place)


async def test_malformed_digest(setting: Setting, place: Path) -> None:
    ended = await both_ways(setting, setting.origin.url("/good.bin"), place / "f", "--sha256", "12ab")
    check(ended, "USAGE", "sha256")
    assert setting.origin.log == []


async def test_unknown_validator(setting: Setting, place: Path) -> None:
    ended = await both_ways(setting, setting.origin.url("/good.bin"), place / "f", "--validator", "sha265:00")
    check(ended, "UNKNOWN_VALIDATOR", "sha265", "sha256")
    ended = await both_ways(
        setting, setting.origin.url("/good.bin"), place / "f", "--validator", "command:/no/such/program"
    )
    check(ended, "UNKNOWN_VALIDATOR", "/no/such/program")
    assert setting.origin.log == []
    await check_nothing_left(setting, place)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("crashing", "it fell over"),
        ("command:/bin/sh -c 'kill -SEGV $$'", "sh"),
        ("command:/bin/sh -c 'exit 7'", "7"),
    ],
)
async def test_validator_that_crashes(setting: Setting, place: Path, spec: str, said: str) -> None:
    ended = await both_ways(setting, setting.origin.url("/good.bin"), place / "f", "--validator", spec)
    check(ended, "VALIDATOR_FAILED", said)
    await check_nothing_left(setting, place)


# --- the configuration -------------------------------------------------------------------------------------------


def refused(home: Path, code: str, *said: str, extra: dict[str, str] | None = None) -> None:
    """`run` and `get` refuse to start for this home, in both ways, and touch nothing."""
    before = sorted(home.rglob("*"))
    place = home.parent / "f"
    for words in (["run", "--interface", "lo"], ["get", "http://127.0.0.1:9/x", "-o", place, "--timeout", "3"]):
        as_json = nearfetch(*words, "--json", home=home, extra=extra)
        assert (as_json.exit_code, as_json.error_code) == (CODES[code].exit_code, code), as_json
        message = as_json.document["error"]["message"]
        assert [part for part in said if part not in message] == [], message
        plain = nearfetch(*words, home=home, extra=extra)
        assert (plain.exit_code, plain.out) == (CODES[code].exit_code, "")
        assert plain.line == f"nearfetch: {message} ({code})"
        assert as_json.seconds < BOUND_S
    assert not place.exists()
    assert [path for path in sorted(home.rglob("*")) if path.suffix == ".key"] == [
        path for path in before if path.suffix == ".key"
    ]


def test_malformed_group_key(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    key = str(nearfetch("group", "create", "--json", home=tmp_path / "other").document["key"])
    mistyped = key[:-1] + ("A" if key[-1] != "A" else "B")
    refused(home, "CONFIG", extra={"NEARFETCH_GROUP_KEY": mistyped})
    for text in (mistyped, "nf1-", "hello"):
        joined = nearfetch("group", "join", text, "--json", home=home)
        assert (joined.exit_code, joined.error_code) == (ExitCode.CONFIG, "CONFIG")
        assert mistyped not in joined.out + joined.err, "a key is a secret, also a mistyped one"
    assert not (home / "group.key").exists()


def test_unknown_key_in_the_configuration(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('cache_max_byte = "1GiB"\n')
    refused(home, "CONFIG", "cache_max_byte", "cache_max_bytes", str(home / "config.toml"))
    (home / "config.toml").unlink()
    named = nearfetch("run", "--json", home=home, extra={"NEARFETCH_INTERFACES": "lo"})
    assert (named.exit_code, named.error_code) == (ExitCode.CONFIG, "CONFIG")
    assert "NEARFETCH_INTERFACE" in named.document["error"]["message"]


def test_configuration_that_is_no_toml(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text("interface = [lo\n")
    got = nearfetch("run", "--json", home=home)
    assert (got.exit_code, got.error_code) == (ExitCode.CONFIG, "CONFIG")


async def test_second_agent_on_the_same_home(setting: Setting) -> None:
    words = ("run", "--interface", "lo")
    as_json, plain = await asyncio.gather(setting.running.call(*words, "--json"), setting.running.call(*words))
    assert (as_json.exit_code, plain.exit_code) == (ExitCode.HOME_IN_USE, ExitCode.HOME_IN_USE)
    assert plain.line == f"nearfetch: {as_json.document['error']['message']} (HOME_IN_USE)"
    assert (await setting.running.client.about()).pid == setting.running.ready["pid"]


async def test_no_agent_for_a_job_command(setting: Setting, tmp_path: Path) -> None:
    got = await asyncio.to_thread(nearfetch, "job", "list", "--json", home=tmp_path / "nobody")
    assert (got.exit_code, got.error_code) == (ExitCode.UNAVAILABLE, "AGENT_UNAVAILABLE")
    assert not (tmp_path / "nobody").exists()
