"""`nearfetch job ...` with a real agent and a real origin: one agent for all tests, each with jobs of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ExitCode
from tests.support.agents import Agent, Fleet, command_line, environment
from tests.support.console import Console, origin_beside
from tests.support.origin import Origin
from tests.support.origin_faults import Fault

CONTENT = bytes(range(256)) * 1024
WAIT = ("--timeout", "20")


@pytest.fixture(scope="module", name="agent")
def run_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet.start("a", group=False)


@pytest.fixture(scope="module", name="origin")
def run_origin() -> Iterator[Origin]:
    with origin_beside() as origin:
        for name in ("/a", "/b", "/c/a", "/c/b"):
            origin.add(name, CONTENT)
        origin.add("/large", CONTENT * 64, faults=[Fault("drip", count=1_000_000)])
        origin.add("/slow", CONTENT, faults=[Fault("drip", count=4000)])
        origin.add("/headless", CONTENT, faults=["head-missing"])
        yield origin


@pytest.fixture(name="console")
def make_console(agent: Agent, capsys: pytest.CaptureFixture[str]) -> Iterator[Console]:
    """Every job is gone after the test."""
    console = Console(agent.home, capsys)
    yield console
    console.run("job", "reset", "--yes")


def states(console: Console) -> dict[str, str]:
    return {job["name"]: job["state"] for job in console.json("job", "list")["jobs"]}


# From making to the end


def test_a_job_from_its_making_to_its_end(console: Console, origin: Origin, tmp_path: Path) -> None:
    job = console.ok("job", "create", "images", "--priority", "low", "--description", "a test")
    target = tmp_path / "a"
    assert console.ok("job", "add", "images", origin.url("/a"), target) == f"{job} SUSPENDED"
    console.ok("job", "resume", job[:8])
    assert console.ok("job", "wait", "images", *WAIT) == f"{job} TRANSFERRED"
    shown = console.ok("job", "show", "images")
    assert f"{target}: transferred" in shown
    assert "a test" in shown
    assert "priority low" in shown
    files = console.ok("job", "show", "images", "--files").splitlines()
    assert files[1].split()[:2] == ["0", "transferred"]
    assert not target.exists()
    assert console.ok("job", "complete", "images") == f"{job} ACKNOWLEDGED"
    assert target.read_bytes() == CONTENT
    assert console.json("job", "show", job)["state"] == "ACKNOWLEDGED"
    assert "(JOB_NOT_FOUND)" in console.refused("job", "show", "images")


def test_the_same_key_means_the_same_job(console: Console) -> None:
    first = console.ok("job", "create", "keyed", "--key", "k-1")
    assert console.ok("job", "create", "keyed", "--key", "k-1") == first
    assert "(IDEMPOTENCY_CONFLICT)" in console.refused("job", "create", "other", "--key", "k-1")
    assert console.code == ExitCode.STATE


def test_uploads_are_refused(console: Console) -> None:
    assert "(UPLOAD_UNSUPPORTED)" in console.refused("job", "create", "up", "--type", "upload")
    assert console.code == ExitCode.USAGE


def test_ranges_of_a_file(console: Console, origin: Origin, tmp_path: Path) -> None:
    job = console.ok("job", "create", "parts")
    console.ok(
        "job", "add", job, origin.url("/a"), tmp_path / "p", "--range", "1000:24,0:10", "--range", "262140:eof"
    )
    assert console.ok("job", "get", job, "ranges", "0").split() == ["1000:24", "0:10", "262140:eof"]
    console.ok("job", "resume", job)
    console.ok("job", "wait", job, *WAIT)
    console.ok("job", "complete", job)
    assert (tmp_path / "p").read_bytes() == CONTENT[1000:1024] + CONTENT[:10] + CONTENT[262140:]
    other = console.ok("job", "create", "overlap")
    line = console.refused(
        "job", "add", other, origin.url("/a"), tmp_path / "o", "--range", "0:10", "--range", "5:10"
    )
    assert "(OVERLAPPING_RANGES)" in line


def test_a_list_of_files_is_added_whole_or_not_at_all(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.ok("job", "create", "set")
    good = f"# two\n{origin.url('/a')} {tmp_path}/a\n{origin.url('/b')} {tmp_path}/b c\n"
    bad = f"{origin.url('/a')} {tmp_path}/a\n{origin.url('/b')} {tmp_path}/nowhere/b\n"
    assert "(DESTINATION_MISSING)" in console.refused("job", "add-set", "set", "-", stdin=bad)
    assert console.ok("job", "get", "set", "files-total") == "0"
    console.ok("job", "add-set", "set", "-", stdin=good)
    assert console.ok("job", "get", "set", "path", "1") == f"{tmp_path}/b c"
    assert "line 1" in console.refused("job", "add-set", "set", "-", stdin="nonsense\n")


# Several at once


def test_several_jobs_at_once(console: Console, origin: Origin, tmp_path: Path) -> None:
    for name in ("one", "two"):
        console.ok("job", "create", name)
        console.ok("job", "add", name, origin.url("/a"), tmp_path / name)
    console.ok("job", "create", "empty")
    assert console.run("job", "resume", "one", "empty", "two") == ExitCode.STATE
    assert console.err.count("(INVALID_STATE)") == 1
    assert len(console.out.splitlines()) == 2
    for name in ("one", "two"):
        console.ok("job", "wait", name, *WAIT)
    assert len(console.ok("job", "complete", "--all").splitlines()) == 2
    assert states(console) == {"empty": "SUSPENDED"}
    assert console.ok("job", "resume", "--all") == ""  # nothing that could run
    assert "say --all" in console.refused("job", "suspend")
    assert "cannot both" in console.refused("job", "suspend", "empty", "--all")


def test_several_jobs_in_json_are_a_document_each(console: Console) -> None:
    one, two = console.ok("job", "create", "one"), console.ok("job", "create", "two")
    assert console.run("job", "cancel", one, two, "--json") == 0
    assert [json.loads(line)["state"] for line in console.out.splitlines()] == ["CANCELLED", "CANCELLED"]
    three, four = console.ok("job", "create", "three"), console.ok("job", "create", "four")
    assert console.run("job", "resume", three, four, "--json") == ExitCode.STATE
    assert [json.loads(line)["error"]["code"] for line in console.out.splitlines()] == ["INVALID_STATE"] * 2


def test_reset_asks(console: Console) -> None:
    console.ok("job", "create", "one")
    assert "say --yes" in console.refused("job", "reset")
    assert states(console) == {"one": "SUSPENDED"}
    console.ok("job", "reset", "--yes")
    assert states(console) == {}


def test_a_name_of_two_jobs(console: Console) -> None:
    jobs = [console.ok("job", "create", "twin") for _ in range(2)]
    line = console.refused("job", "show", "twin")
    assert console.code == ExitCode.USAGE
    assert all(job[:12] in line for job in jobs)
    console.ok("job", "show", jobs[0][:10])


# Changes


def test_properties_are_set_and_read(console: Console) -> None:
    console.ok("job", "create", "props")
    console.ok("job", "set", "props", "--priority", "high", "--rate-limit", "2MB", "--maximum-bytes", "1GiB",
               "--minimum-retry-delay", "10m", "--notify-flags", "job-error", "--notify-command", "/bin/echo",
               "--notify-arg", "a b", "--no-peer-serve", "--header", "X-A: b", "--header", "X-C: d: e",
               "--redirects", "report", "--https-to-http", "--security", "ignore-date", "--proxy", "none",
               "--description", "many")  # fmt: skip
    wanted = {
        "priority": "high",
        "rate-limit": "2000000",
        "maximum-bytes": str(2**30),
        "minimum-retry-delay": "600",
        "notify-flags": "2",
        "notify-command": "/bin/echo\na b",
        "peer-fetch": "true",
        "peer-serve": "false",
        "headers": "X-A: b\nX-C: d: e",
        "redirects": "report",
        "https-to-http": "true",
        "security": "ignore-date",
        "proxy": "none",
        "description": "many",
        "error": "",
        "state": "SUSPENDED",
    }
    assert {name: console.ok("job", "get", "props", name) for name in wanted} == wanted
    console.ok("job", "set", "props", "--no-headers", "--rate-limit", "off", "--name", "named anew")
    assert console.ok("job", "get", "named anew", "headers") == ""
    assert console.json("job", "get", "named anew", "rate-limit") is None
    assert "/bin/echo" in console.ok("audit")
    assert [job["name"] for job in console.json("audit")["jobs"]] == ["named anew"]
    console.ok("job", "set", "named anew", "--notify-command", "off")
    assert console.json("audit")["jobs"] == []


def test_write_only_headers_are_never_shown_again(console: Console) -> None:
    console.ok("job", "create", "secret", "--header", "X-Key: hidden", "--headers-write-only")
    assert console.ok("job", "get", "secret", "headers") == ""
    assert "hidden" not in console.ok("job", "show", "secret")
    assert console.ok("job", "get", "secret", "headers-write-only") == "true"


def test_properties_that_do_not_exist(console: Console) -> None:
    console.ok("job", "create", "props")
    assert "did you mean priority?" in console.refused("job", "get", "props", "prioritie")
    assert "name its INDEX" in console.refused("job", "get", "props", "temporary-path")
    assert "leave the INDEX out" in console.refused("job", "get", "props", "priority", "0")
    assert "no file 3" in console.refused("job", "get", "props", "url", "3")
    assert console.code == ExitCode.NOT_FOUND


def test_urls_are_changed(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.ok("job", "create", "urls")
    for name in ("a", "b"):
        console.ok("job", "add", "urls", origin.url(f"/{name}"), tmp_path / name)
    old, new = origin.url("/"), origin.url("/c/")
    assert console.ok("job", "replace-prefix", "urls", old, new) == "2 files changed"
    assert console.json("job", "replace-prefix", "urls", "http://nowhere/", new)["files_changed"] == 0
    assert console.ok("job", "get", "urls", "url", "1") == origin.url("/c/b")
    console.ok("job", "set-url", "urls", "1", origin.url("/b"))
    assert console.ok("job", "get", "urls", "url", "1") == origin.url("/b")
    assert "is not a URL" in console.refused("job", "set-url", "urls", "1", "nothing")


def test_a_password_comes_from_a_file_or_a_pipe(console: Console, tmp_path: Path) -> None:
    console.ok("job", "create", "login")
    secret = tmp_path / "secret"
    secret.write_text("hush hush\n")
    console.ok(
        "job", "credentials", "set", "login", "--scheme", "basic", "--user", "anna", "--password-file", secret
    )
    console.ok("job", "credentials", "set", "login", "--scheme", "bearer", stdin="abc.def\n")
    assert console.ok("job", "get", "login", "credentials").splitlines() == ["basic server", "bearer server"]
    shown = console.ok("job", "show", "login", "--json")
    assert "hush" not in shown
    assert "abc.def" not in shown
    console.ok("job", "credentials", "remove", "login", "--scheme", "basic")
    assert console.run("job", "credentials", "remove", "login", "--scheme", "basic") == ExitCode.NOT_FOUND
    assert "is empty" in console.refused("job", "credentials", "set", "login", "--scheme", "basic", "--user", "x")
    assert "user name" in console.refused("job", "credentials", "set", "login", "--scheme", "basic", stdin="x")
    missing = ("--scheme", "bearer", "--password-file", str(tmp_path / "none"))
    assert "cannot be read" in console.refused("job", "credentials", "set", "login", *missing)


# Random access, validation


def test_random_access(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.ok("job", "create", "random", "--on-demand")
    console.ok("job", "add", "random", origin.url("/large"), tmp_path / "r")
    console.ok("job", "resume", "random")
    assert "(INVALID_RANGE)" in console.refused("job", "ranges", "random", "0", "--want", "0:-1")
    console.ok("job", "ranges", "random", "0", "--want", "15MiB:1000")
    place = 15 * 2**20
    deadline = time.monotonic() + 10
    while not any(start <= place and stop >= place + 1000 for start, stop in filled(console, "random")):
        assert time.monotonic() < deadline, filled(console, "random")
    console.ok("job", "position", "random", "0", "1KiB")
    assert console.json("job", "filled", "random", "0")["ranges"][-1]["offset"] > 0
    assert "(INVALID_STATE)" in _plain_ranges(console, origin, tmp_path)


def filled(console: Console, job: str) -> list[tuple[int, int]]:
    """Half-open ranges of its file 0."""
    lines = console.ok("job", "filled", job, "0").splitlines()
    pairs = [tuple(map(int, line.split(":"))) for line in lines]
    return [(start, start + length) for start, length in pairs]


def _plain_ranges(console: Console, origin: Origin, tmp_path: Path) -> str:
    console.ok("job", "create", "plain")
    console.ok("job", "add", "plain", origin.url("/a"), tmp_path / "plain")
    return console.refused("job", "ranges", "plain", "0", "--want", "0:10")


def test_the_application_decides(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.ok("job", "create", "decided")
    console.ok("job", "add", "decided", origin.url("/a"), tmp_path / "d", "--validator", "application")
    console.ok("job", "resume", "decided")
    console.ok("job", "wait", "decided", *WAIT)
    assert Path(console.ok("job", "get", "decided", "temporary-path", "0")).read_bytes() == CONTENT
    assert console.ok("job", "get", "decided", "validation", "0") == "undecided"
    console.ok("job", "validate", "decided", "0", "invalid")
    assert "(VALIDATION_FAILED)" in console.refused("job", "wait", "decided", *WAIT)
    assert console.code == ExitCode.VALIDATION
    console.ok("job", "resume", "decided")
    console.ok("job", "wait", "decided", *WAIT)
    console.ok("job", "validate", "decided", "0", "valid")
    assert console.ok("job", "wait", "decided", "--until", "transferred", *WAIT).endswith(" TRANSFERRED")


# Lists


def test_lists(console: Console, origin: Origin, tmp_path: Path) -> None:
    for name in ("get one", "get two", "other"):
        console.ok("job", "create", name)
    console.ok("job", "add", "other", origin.url("/none"), tmp_path / "n")
    console.ok("job", "resume", "other")
    console.run("job", "wait", "other", *WAIT)
    head, *rows = console.ok("job", "list").splitlines()
    assert head.split() == ["ID", "STATE", "FILES", "BYTES", "NAME"]
    assert [row.rpartition("  ")[2] for row in rows] == ["get one", "get two", "other"]
    assert len(console.ok("job", "list", "--name", "get *").splitlines()) == 3
    assert [job["name"] for job in console.json("job", "list", "--state", "error")["jobs"]] == ["other"]
    assert console.ok("job", "list", "--state", "error", "--state", "queued").count("\n") == 1
    assert console.ok("job", "list", "--state", "QUEUED") == ""
    long = console.ok("job", "list", "--long")
    assert long.count("\npriority") == 0
    assert "(NOT_FOUND, origin, file 0)" in long
    assert "there is no state GONE" in console.refused("job", "list", "--state", "gone")
    assert console.ok("job", "list", "--json").count('"files":[]') == 2  # with files, as in REST


def test_the_log(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.ok("job", "create", "headless")
    console.ok("job", "add", "headless", origin.url("/headless"), tmp_path / "h")
    console.ok("job", "resume", "headless")
    console.ok("job", "wait", "headless", *WAIT)
    lines = console.ok("job", "log", "headless").splitlines()
    assert lines == console.json("job", "log", "headless")
    assert any("HEAD" in line for line in lines), lines


# transfer


def test_a_transfer(console: Console, origin: Origin, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    line = ("job", "transfer", "both", origin.url("/a"), one, origin.url("/b"), two, "--priority", "foreground")
    document = console.json(*line)
    assert (document["state"], document["priority"]) == ("ACKNOWLEDGED", "foreground")
    assert one.read_bytes() == two.read_bytes() == CONTENT
    assert console.run(*line) == 0
    assert console.out == ""
    assert f"{two}: 256.0 KiB" in console.err
    assert states(console) == {}


def test_a_transfer_that_fails_is_cancelled(console: Console, origin: Origin, tmp_path: Path) -> None:
    console.run("job", "transfer", "bad", origin.url("/a"), tmp_path / "a", origin.url("/none"), tmp_path / "n")
    assert console.code == ExitCode.HTTP
    assert console.err.endswith("(NOT_FOUND)\n")
    assert states(console) == {}
    assert list(tmp_path.iterdir()) == []
    document = console.json("job", "transfer", "bad", origin.url("/none"), tmp_path / "n")
    assert document["error"]["code"] == "NOT_FOUND"
    assert "no PATH" in console.refused("job", "transfer", "odd", origin.url("/a"))
    assert states(console) == {}


def test_a_transient_error_is_waited_for(console: Console, origin: Origin, tmp_path: Path) -> None:
    origin.add("/once", CONTENT, faults=[Fault("status", count=503, times=1)])
    done = console.json("job", "transfer", "once", origin.url("/once"), tmp_path / "once")
    assert done["state"] == "ACKNOWLEDGED"
    assert done["error_count"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_transfer_is_suspended(
    console: Console, origin: Origin, tmp_path: Path, number: signal.Signals
) -> None:
    words = [*command_line(), "--home", str(console.home), "job", "transfer", "slow"]
    with subprocess.Popen(
        [*words, origin.url("/slow"), str(tmp_path / "slow")],
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if " of 256.0 KiB" in line:
                break
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    (job,) = console.json("job", "list")["jobs"]
    assert job["state"] == "SUSPENDED"
    assert f"job {job['id']} is SUSPENDED" in err
    assert err.endswith("`nearfetch job resume` goes on (INTERRUPTED)\n")


# What is not there


def test_waiting_ends(console: Console) -> None:
    console.ok("job", "create", "still")
    assert "the job is still SUSPENDED after 0.2 s" in console.refused("job", "wait", "still", "--timeout", "0.2")
    assert console.code == ExitCode.STATE
    assert console.ok("job", "wait", "still", "--until", "suspended").endswith(" SUSPENDED")
    assert "no state SLEEPING" in console.refused("job", "wait", "still", "--until", "sleeping")


def test_the_shell_completes_jobs(agent: Agent, console: Console) -> None:
    job = console.ok("job", "create", "completed")
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli"],
        env=environment(
            {
                "_NEARFETCH_COMPLETE": "complete_bash",
                "COMP_WORDS": "nearfetch job show comp",
                "COMP_CWORD": "3",
                "NEARFETCH_HOME": os.fspath(agent.home),
            }
        ),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["completed"], "")
    assert job
