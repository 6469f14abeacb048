"""`peer`, `cache`, `stats`, `agent`: two real agents of one group, one of which has fetched a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ExitCode
from tests.support.agents import Agent, Fleet
from tests.support.console import Console, origin_beside

CONTENT = bytes(range(256)) * 2048
STRANGER = "ab" * 32


@pytest.fixture(scope="module", name="pair")
def run_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Agent]]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        one, two = asyncio.run(fleet.start_together("one", "two"))
        yield one, two


@pytest.fixture(scope="module", name="url")
def fetched(pair: tuple[Agent, Agent], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The first agent has it."""
    with origin_beside() as origin:
        origin.add("/a", CONTENT)
        url = origin.url("/a")
        done = pair[0].run("job", "transfer", "fetched", url, tmp_path_factory.mktemp("files") / "a")
        assert done.exit_code == 0, done.err
        yield url


@pytest.fixture(name="console")
def make_console(pair: tuple[Agent, Agent], capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(pair[0].home, capsys)


# Peers


def test_peers_are_listed_and_shown(console: Console, pair: tuple[Agent, Agent]) -> None:
    other = pair[1]
    head, row = console.ok("peer", "list").splitlines()
    assert head.split()[:5] == ["ID", "NAME", "ADDRESS", "STANDING", "AVAILABLE"]
    assert row.split()[:2] == [other.peer_id[:16], "two"]
    assert console.json("peer", "list")["peers"][0]["id"] == other.peer_id
    shown = console.ok("peer", "show", "two")
    assert shown.startswith(f"{other.peer_id}  two\n")
    assert console.json("peer", "show", other.peer_id[:6])["name"] == "two"
    assert "(PEER_NOT_FOUND)" in console.refused("peer", "show", "three")
    assert console.run("peer", "show", STRANGER) == ExitCode.NOT_FOUND


def test_peers_are_banned_and_forgiven(console: Console, pair: tuple[Agent, Agent]) -> None:
    console.ok("peer", "ban", "two", "--reason", "its disk is broken", "--for", "7d")
    found = console.json("peer", "show", pair[1].peer_id)
    assert (found["standing"], found["reason"]) == ("banned", "its disk is broken")
    assert "its disk is broken" in console.ok("peer", "list")
    assert console.json("peer", "unban", pair[1].peer_id) == {"changed": True, "count": 1}
    assert console.json("peer", "unban", pair[1].peer_id)["changed"] is False
    assert "is no time" in console.refused("peer", "ban", "two", "--for", "ever")
    assert console.json("peer", "ban", STRANGER)["changed"] is True
    assert console.json("peer", "unban", STRANGER)["changed"] is True


def discover(console: Console) -> None:
    """Begin a new search, after the one that is under way."""
    deadline = time.monotonic() + 10
    while not console.json("peer", "discover")["changed"]:
        assert time.monotonic() < deadline


def test_peers_are_forgotten_and_found_again(console: Console, pair: tuple[Agent, Agent]) -> None:
    assert console.run("peer", "forget", "three") == ExitCode.NOT_FOUND
    assert console.ok("peer", "forget", "two").endswith(" forgotten")
    discover(console)
    asyncio.run(pair[0].met(pair[1]))
    assert console.ok("peer", "clear") == "1 peers forgotten"
    discover(console)
    asyncio.run(pair[0].met(pair[1]))


# The cache


def test_records_are_listed_shown_and_deleted(console: Console, url: str, pair: tuple[Agent, Agent]) -> None:
    (record,) = console.json("cache", "list")["records"]
    assert record["bytes"] == len(CONTENT)
    listed = console.ok("cache", "list")
    assert record["id"][:16] in listed
    assert url in listed
    assert url in console.ok("cache", "list", "--long")
    assert console.json("cache", "show", record["id"][:8]) == record
    assert f"length    {len(CONTENT) // 1024}.0 KiB" in console.ok("cache", "show", record["id"])
    assert console.json("cache", "delete-url", url + "x") == {"changed": False, "count": 0}
    assert console.json("cache", "delete-url", url) == {"changed": True, "count": 1}
    assert console.json("cache", "list")["records"] == []
    assert "(RECORD_NOT_FOUND)" in console.refused("cache", "delete", record["id"])
    assert console.code == ExitCode.NOT_FOUND
    assert console.ok("cache", "clear") == "0 records dropped"


def test_a_record_is_deleted_by_its_id(console: Console, url: str, tmp_path: Path) -> None:
    console.ok("job", "transfer", "again", url, tmp_path / "again")
    (record,) = console.json("cache", "list")["records"]
    assert console.ok("cache", "delete", record["id"][:10]) == "1 records dropped"
    assert console.json("cache", "list")["records"] == []


def test_limits_and_switches(console: Console) -> None:
    assert console.json("cache", "limit", "--bytes", "5MiB")["limit_bytes"] == 5 * 2**20
    assert console.json("cache", "limit", "--share", "20%")["limit_share"] == 0.2
    assert "(20% of the disk)" in console.ok("cache", "limit")
    assert console.json("cache", "age", "30d")["max_age_s"] == 30 * 86_400
    assert "age     30d" in console.ok("cache", "age")
    found = console.json("cache", "switch", "--fetch", "off", "--serve", "on")
    assert (found["peer_fetch"], found["peer_serve"]) == (False, True)
    assert "fetch off, serve on" in console.ok("cache", "switch")
    assert console.json("cache", "switch", "--fetch", "on")["peer_fetch"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("limit --bytes 1 --share 1%", "contradict"),
        ("limit --share 90%", "at most 80%"),
        ("limit --bytes x", "is no size"),
        ("age 1h", "from 1d to 120d"),
        ("age 121d", "from 1d to 120d"),
        ("switch --fetch maybe", "maybe"),
        ("delete-url nothing", "is not a URL"),
    ],
)
def test_what_cannot_be_set(console: Console, words: str, said: str) -> None:
    assert said in console.refused("cache", *words.split())
    assert console.code == ExitCode.USAGE


# As a whole


def test_statistics(console: Console, url: str) -> None:
    found = console.json("stats")
    assert found["bytes_from_origin"] >= len(CONTENT)
    assert found["jobs_completed"] >= 1
    text = console.ok("stats")
    assert "from origin" in text
    assert "completed" in text


def test_the_agent_says_who_it_is(console: Console, pair: tuple[Agent, Agent]) -> None:
    text = console.ok("agent", "show")
    assert f"({pair[0].peer_id})" in text
    assert str(pair[0].home) in text
    assert console.json("agent", "show")["pid"] == pair[0].ready["pid"]


def test_notify_commands_can_be_forbidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Fleet(tmp_path) as fleet:
        strict = fleet.start("strict", "--no-notify-commands", "--max-jobs-per-user", "1", group=False)
        console = Console(strict.home, capsys)
        line = console.refused("job", "create", "x", "--notify-command", "/bin/true")
        assert "(NOTIFY_COMMANDS_OFF)" in line
        assert console.code == ExitCode.STATE
        console.ok("job", "create", "one")
        assert "(TOO_MANY_JOBS_PER_USER)" in console.refused("job", "create", "two")
        assert "(NO_GROUP)" in console.refused("peer", "discover")
