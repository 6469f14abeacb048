"""The command line: what is understood, what is printed where, and the exit codes. A real agent's interface over a
real socket, with an engine that keeps jobs in memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from agent import cli_fast
from agent.cli import invoke
from agent.cli_app import app
from agent.errors import CODES, ExitCode
from agent.getting import Target, look_again_s
from agent.schema import NewFile, Priority
from tests.support.console import Console
from tests.support.memory_engine import CONTENT, HALF, PEER_ID, MemoryEngine, memory_agent

URL = "http://origin.example/"


@pytest.fixture(name="console")
def make_console(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Console:
    for name in [name for name in os.environ if name.startswith("NEARFETCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Console(tmp_path / "home", capsys)


@pytest.fixture(name="engine")
def run_agent(tmp_path: Path) -> Iterator[MemoryEngine]:
    """An agent in a thread of its own, with its own event loop."""
    ready, found = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with memory_agent(tmp_path / "home") as engine:
            found.append(engine)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


# What cannot be understood


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gett"], "Did you mean 'get'"),
        (["get"], "Missing argument"),
        (["get", "http://x/y", "--sha265", "ab"], "--sha265"),
        (["get", "http://x/y", "--peers", "maybe"], "maybe"),
        (["get", "http://x/y", "--timeout", "0"], "--timeout"),
        (["job"], "Missing command"),
        (["job", "validate", "4f2a", "0", "perhaps"], "perhaps"),
        (["--homes", "x", "run"], "--homes"),
        (["get", "no-url"], "is not a URL"),
        (["get", "http://"], "names no host"),
        (["get", "http://[::1"], "is not a URL"),
        (["get", "http://x/"], "say where the file goes with -o"),
        (["get", "http://x/a%2Fb"], "say where the file goes with -o"),
        (["get", "http://x/%ff"], "say where the file goes with -o"),
        (["get", "http://x/.."], "say where the file goes with -o"),
        (["get", "http://x/y", "--sha256", "abc"], "64 hexadecimal digits"),
    ],
)
def test_mistakes_end_in_one_line(console: Console, arguments: list[str], said: str) -> None:
    assert console.run(*arguments) == ExitCode.USAGE
    assert said in console.err
    assert console.err.startswith("nearfetch: ")
    assert console.err.endswith("(USAGE)\n")
    assert console.err.count("\n") == 1
    assert console.out == ""
    assert not console.home.exists()


def test_an_unknown_scheme(console: Console) -> None:
    document = console.json("get", "ftp://x/y")
    assert console.code == ExitCode.USAGE
    assert document["error"]["code"] == "UNSUPPORTED_SCHEME"
    assert document["url"] == "ftp://x/y"


def test_mistakes_in_json(console: Console) -> None:
    document = console.json("get")
    assert document["error"]["code"] == "USAGE"
    assert document["state"] is None
    assert console.json("job", "shwo")["error"]["code"] == "USAGE"


@pytest.mark.parametrize(("name", "content"), [("config.toml", "cache_max_byte = 1"), ("config.toml", "name = [")])
def test_a_configuration_that_cannot_be_used(console: Console, name: str, content: str) -> None:
    console.home.mkdir()
    (console.home / name).write_text(content)
    document = console.json("get", URL + "file")
    assert console.code == ExitCode.CONFIG
    assert document["error"]["code"] == "CONFIG"
    assert document["path"].endswith("/file")
    assert console.run("get", URL + "file") == ExitCode.CONFIG
    assert console.err.count("\n") == 1
    assert console.run("run") == ExitCode.CONFIG


def test_destinations_that_cannot_be_used(console: Console, tmp_path: Path) -> None:
    (tmp_path / "is-a-directory").mkdir()
    for output in ("is-a-directory", "is-a-directory/", "not-there/"):
        document = console.json("get", URL + "file", "-o", output)
        assert (console.code, document["error"]["code"]) == (ExitCode.LOCAL_FILE, "DESTINATION_INVALID")
    document = console.json("get", URL + "file", "-o", "nowhere/file")
    assert (console.code, document["error"]["code"]) == (ExitCode.LOCAL_FILE, "DESTINATION_MISSING")
    assert console.json("get", URL + "is-a-directory")["error"]["code"] == "DESTINATION_INVALID"
    assert console.json("get", URL + "f", "-o", "n" * 256)["error"]["code"] == "DESTINATION_INVALID"
    assert console.json("get", URL + "f", "-o", "\udcff")["error"]["code"] == "DESTINATION_INVALID"


# Help and version


def test_the_version_and_help(console: Console) -> None:
    assert console.run("--version") == 0
    assert console.out.startswith("nearfetch ")
    assert console.run() == ExitCode.USAGE  # --home alone
    assert invoke([]) == 0


@pytest.mark.parametrize("table", [cli_fast.GET, cli_fast.LIST], ids=["get", "list"])
def test_the_short_cut_knows_the_same_options(table: cli_fast.Table) -> None:
    command: Any = typer.main.get_command(app)
    for word in table.command:
        command = command.commands[word]
    declared = {
        option: (parameter.name, parameter.multiple, parameter.is_flag)
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("-")
    }
    known = {option: (name, False, False) for option, name in table.one.items()}
    known |= {option: (name, True, False) for option, name in table.many.items()}
    known |= {option: (name, False, True) for option, name in table.flags.items()}
    assert known == declared


def test_the_short_cut_has_the_same_defaults() -> None:
    get: Any = typer.main.get_command(app).commands["get"]  # type: ignore[attr-defined]
    defaults = {parameter.name: parameter.default for parameter in get.params}
    plain = cli_fast.plain_get(["get", "u"])
    assert plain is not None
    assert plain.options.patience_s == defaults["timeout"]
    assert plain.options.peers == defaults["peers"]
    assert plain.options.priority == defaults["priority"]


def test_the_short_cut_reads_what_it_says() -> None:
    line = "--home /h get u -o p --sha256 a --validator v:1 --validator w --interface lo --timeout 3 --json"
    plain = cli_fast.plain_get(line.split())
    assert plain is not None
    assert (plain.home, plain.interfaces) == (Path("/h"), ("lo",))
    assert (plain.options.url, plain.options.output, plain.options.sha256) == ("u", "p", "a")
    assert plain.options.validators == ("v:1", "w")
    assert (plain.options.patience_s, plain.options.json) == (3.0, True)


@pytest.mark.parametrize(
    "line",
    ["", "get", "get a b", "get a -h", "get a --peers x", "get a --timeout nan", "get a --timeout", "get a -op",
     "get a --sha256=x", "get -- a", "--home", "--version get a", "job list"],
)  # fmt: skip
def test_the_short_cut_leaves_the_rest_to_typer(line: str) -> None:
    assert cli_fast.plain_get(line.split()) is None


def test_the_short_cut_lists() -> None:
    line = "--home /h job list --state A --state b --name x* -l --json"
    plain = cli_fast.plain_list(line.split())
    assert plain is not None
    assert plain.home == Path("/h")
    options = plain.options
    assert (options.states, options.name, options.long, options.json) == (("A", "b"), "x*", True, True)
    for line in (
        "job list x",
        "job",
        "job show",
        "job list --help",
        "job list --state",
        "job list --name=x",
        "list",
    ):
        assert cli_fast.plain_list(line.split()) is None


def test_the_short_cut_runs_with_every_setting_that_is_a_text() -> None:
    command: Any = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    others = {"--listen-port", "--help"}
    texts = {item.opts[0] for item in command.params if not item.is_flag} - others
    assert set(cli_fast.RUN.one) | set(cli_fast.RUN.many) == texts
    line = "--home /h run --interface lo --interface eth0 --work-limit 0 --json"
    plain = cli_fast.plain_run(line.split())
    assert plain is not None
    assert (plain.home, plain.json) == (Path("/h"), True)
    assert plain.flags == {"interface": ["lo", "eth0"], "work_limit": "0"}
    for line in ("run x", "run --listen-port 0", "run -h", "run --name", "run --no-notify-commands", "running"):
        assert cli_fast.plain_run(line.split()) is None


def test_both_ways_read_the_same(console: Console, engine: MemoryEngine) -> None:
    for extra in ([], ["--"]):  # the two dashes go the long way
        assert console.run("get", "-o", "same", "--json", *extra, URL + "file") == 0
        assert json.loads(console.out)["state"] == "ACKNOWLEDGED"


# Groups


def test_group_create_join_and_show(console: Console, tmp_path: Path) -> None:
    assert console.run("group", "create") == 0
    key = console.out.strip()
    assert key.startswith("nf1-")
    stored = console.home / "group.key"
    assert stored.read_text() == f"{key}\n"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert console.run("group", "create") == ExitCode.CONFIG
    assert "--force" in console.err
    assert console.json("group", "show")["key"] == key
    other = Console(tmp_path / "other", console._capture)
    assert other.run("group", "join", key.lower().replace("-", " ")) == 0
    assert (other.home / "group.key").read_text() == f"{key}\n"
    assert other.run("group", "join", key) == 0  # the same again
    assert console.json("group", "create", "--force")["key"] != key


@pytest.mark.parametrize("key", ["nf1-", "hello", "nf1-AAAAA-AAAAA", "nf2-AAAAA", "nf1-" + "A" * 40, "\n"])
def test_a_malformed_group_key(console: Console, key: str) -> None:
    assert console.run("group", "join", key) == ExitCode.CONFIG
    assert console.err.count("\n") == 1
    assert console.err.endswith("(CONFIG)\n")
    assert not (console.home / "group.key").exists()
    assert console.json("group", "join", key)["error"]["code"] == "CONFIG"


def test_no_group(console: Console) -> None:
    assert console.run("group", "show") == ExitCode.CONFIG
    assert "nearfetch group create" in console.err


# With an agent that runs


def test_no_agent(console: Console) -> None:
    for line in ("job list", "job show abcd", "peer list", "cache clear"):
        assert console.run(*line.split()) == ExitCode.UNAVAILABLE
        assert "nearfetch run" in console.err
    assert console.json("job", "list")["error"]["code"] == "AGENT_UNAVAILABLE"


def test_jobs(console: Console, engine: MemoryEngine, tmp_path: Path) -> None:
    assert console.run("job", "create", "images", "--priority", "low") == 0
    job = console.out.strip()
    assert console.run("job", "resume", job) == ExitCode.STATE
    target = tmp_path / "out"
    assert console.run("job", "add", job[:6], URL + "file", "out", "--header", "X-A: b:c") == 0
    assert engine.job(job).files[0].path == str(target)
    assert console.run("job", "resume", job) == 0
    assert "TRANSFERRED" in console.out
    assert console.run("job", "list") == 0
    assert job in console.out
    assert console.json("job", "list")["jobs"][0]["name"] == "images"
    assert console.run("job", "show", job) == 0
    assert f"{target}: transferred" in console.out
    assert console.json("job", "watch", job)["state"] == "TRANSFERRED"
    assert console.json("job", "complete", job)["state"] == "ACKNOWLEDGED"
    assert target.read_bytes() == CONTENT
    assert console.run("job", "cancel", job) == ExitCode.STATE
    assert console.run("job", "show", "ffff") == ExitCode.NOT_FOUND
    assert console.json("job", "show", "ffff")["error"]["code"] == "JOB_NOT_FOUND"


def test_the_application_validates(console: Console, engine: MemoryEngine) -> None:
    job = console.json("job", "create", "j")["id"]
    console.run("job", "add", job, URL + "decide", "out", "--validator", "application")
    assert console.run("job", "resume", job) == 0
    assert console.run("job", "watch", job) == 0
    assert "application" in console.out
    assert console.json("job", "validate", job, "0", "valid")["files"][0]["validation"] == "valid"
    assert console.run("job", "validate", job, "9", "valid") == ExitCode.NOT_FOUND
    assert console.run("job", "suspend", job) == 0
    assert console.run("job", "cancel", job) == 0


def test_peers_and_cache(console: Console, engine: MemoryEngine) -> None:
    assert console.run("peer", "list") == 0
    assert "neighbour" in console.out
    assert console.json("peer", "list")["peers"][0]["id"] == PEER_ID
    assert console.run("cache", "list") == 0
    assert console.json("cache", "list")["limit_bytes"] == 1000
    assert console.json("cache", "clear") == {"records": 3}


# get


def test_get(console: Console, engine: MemoryEngine, tmp_path: Path) -> None:
    document = console.json("get", URL + "some%20file?token=1#part")
    target = tmp_path / "some file"
    assert console.code == 0
    assert target.read_bytes() == CONTENT
    assert document.pop("seconds") >= 0
    assert document.pop("job") in engine.known
    assert document == {
        "state": "ACKNOWLEDGED",
        "url": URL + "some%20file?token=1#part",
        "path": str(target),
        "bytes_total": len(CONTENT),
        "bytes_from_origin": HALF,
        "bytes_from_peers": HALF,
        "bytes_from_cache": 0,
        "bytes_discarded": 0,
        "peers": {PEER_ID: HALF},
        "error": None,
    }
    (job,) = engine.known.values()
    assert job.priority is Priority.FOREGROUND


def test_get_for_people(console: Console, engine: MemoryEngine) -> None:
    assert console.run("get", URL + "file") == 0
    assert console.out == ""
    assert "peers (1) 50 %, origin 50 %" in console.err.splitlines()[-1]


def test_get_passes_on_what_is_asked_for(console: Console, engine: MemoryEngine) -> None:
    line = f"get {URL}file --sha256 {'A' * 64} --sha512 {'b' * 128} --validator size:1024"
    assert console.run(*line.split()) == 0
    assert console.run("get", URL + "file", "--validator", "shasum:5") == ExitCode.USAGE
    assert "did you mean sha256" in console.err
    assert console.json("get", URL + "file", "--validator", "shasum:5")["error"]["code"] == "UNKNOWN_VALIDATOR"


def test_a_job_in_error_leaves_nothing(console: Console, engine: MemoryEngine, tmp_path: Path) -> None:
    document = console.json("get", URL + "missing")
    assert console.code == ExitCode.HTTP
    assert document["error"]["code"] == "NOT_FOUND"
    assert document["error"]["http_status"] == 404
    assert document["state"] == "ERROR"
    assert engine.jobs().jobs == []
    assert not (tmp_path / "missing").exists()
    assert console.run("get", URL + "wrong") == ExitCode.VALIDATION
    assert console.err.endswith("nearfetch: sha256 rejected the file (VALIDATION_FAILED)\n")
    assert engine.jobs().jobs == []


def test_transient_without_bytes_is_given_up(console: Console, engine: MemoryEngine) -> None:
    document = console.json("get", URL + "down", "--timeout", "1")
    assert console.code == ExitCode.NETWORK
    assert document["error"]["code"] == "CONNECT_FAILED"
    assert 0.9 < document["seconds"] < 5
    assert engine.jobs().jobs == []


def test_transient_with_bytes_is_kept_and_adopted(console: Console, engine: MemoryEngine) -> None:
    document = console.json("get", URL + "half-down", "--timeout", "1")
    assert console.code == ExitCode.NETWORK
    assert document["state"] == "SUSPENDED"
    assert "512 B kept: the same command goes on from there" in document["error"]["message"]
    (job,) = engine.jobs().jobs
    again = console.json("get", URL + "half-down", "--timeout", "1")
    assert again["job"] == job.id
    assert len(engine.known) == 1
    other = console.json("get", URL + "half-down", "--timeout", "1", "--sha256", "0" * 64)
    assert other["job"] != job.id  # asked for in another way: the old one makes room
    assert [item.id for item in engine.jobs().jobs] == [other["job"]]


def test_silence_is_given_up(console: Console, engine: MemoryEngine) -> None:
    assert console.run("get", URL + "hang", "--timeout", "1") == ExitCode.NETWORK
    assert "no progress for 1 s" in console.err
    assert "goes on from there" in console.err
    assert engine.jobs().jobs[0].state == "SUSPENDED"


def test_a_failure_at_the_end_keeps_the_file(console: Console, engine: MemoryEngine, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    engine.refuse_completion = True
    assert console.run("get", URL + "file", "-o", "below/file") == ExitCode.LOCAL_FILE
    assert "complete and kept" in console.err
    engine.refuse_completion = False
    assert console.run("get", URL + "file", "-o", "below/file") == 0
    assert len(engine.known) == 1


def get_process(home: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agent.cli", "--home", str(home), "get", *arguments]
    return subprocess.Popen(command, cwd=home.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_suspends_the_job(engine: MemoryEngine, number: int) -> None:
    with get_process(engine.home, URL + "hang", "--timeout", "60") as process:
        assert process.stderr is not None
        assert "50 % of 1.0 KiB" in process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "512 B kept: the same command goes on from there (INTERRUPTED)" in err
    assert engine.jobs().jobs[0].state == "SUSPENDED"


def test_nobody_reads_what_we_print(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "agent.cli", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, timeout=20, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == b""


# What `get` decides by itself


def test_a_job_is_known_again_by_its_name() -> None:
    file = NewFile(url="u", path="/p")
    target = Target(file=file, label="a b-c", place="0" * 16, wishes="1" * 8, priority=Priority.NORMAL)
    assert target.job_name == "get a b-c 0000000000000000-11111111"


def test_every_code_has_an_exit_code_that_help_explains() -> None:
    from agent.cli_options import ending

    text = ending("x", ExitCode)
    for code in CODES.values():
        assert f"{int(code.exit_code):3}  " in text


def test_looking_again_costs_little_and_misses_nothing() -> None:
    from tests.support.memory_engine import MemoryEngine as Engine

    job, _ = asyncio.run(Engine(Path("/")).create_job(_new("hang")))
    assert look_again_s(job, 0, 1.0) == 0.0
    running = _running(job, 1_000)
    assert look_again_s(running, 1_000, 1.0) == 0.25  # seconds to go: rarely
    assert look_again_s(_running(job, 999_990), 999_990, 1.0) == 0.005
    assert look_again_s(_running(job, 900_000), 900_000, 0.9) == pytest.approx(0.05)


def _new(word: str) -> Any:
    from agent.schema import NewJob

    return NewJob(name="j", files=[NewFile(url=URL + word, path="/x")])


def _running(job: Any, done: int) -> Any:
    import msgspec

    return msgspec.structs.replace(job, state="TRANSFERRING", bytes_total=1_000_000, bytes_transferred=done)
