"""Validator command: real executables, well behaved and otherwise."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.candidates import candidate, verdict_on
from validation.conformance import Examples, check
from validation.errors import ValidatorArgumentError
from validation.plugins.command import ExternalCommand, command
from validation.validator import Decision, Patience, judge


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "it.sh"
    path.touch(0o755)
    return path


def says(script: Path, body: str, interpreter: str = "/bin/sh") -> str:
    script.write_text(f"#!{interpreter}\n{body}\n", encoding="utf-8")
    return str(script)


def wait_until_gone(pid: int, limit_s: float = 10.0) -> bool:
    """Kills are asynchronous: True once no live process has this number (a zombie is no longer alive)."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            status = Path(f"/proc/{pid}/stat")
            if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        threading.Event().wait(0.01)
    return False


def test_conformance(script: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"good bytes")
    bad.write_bytes(b"bad bytes")
    says(script, 'cat > /dev/null; [ "$(cat "$2")" = "$1" ] && exit 0 || { echo "not it"; exit 1; }')
    check(Examples(make=lambda: command(f"{script} 'good bytes'"), good=good, bad=bad))


@pytest.mark.parametrize(
    ("body", "decision", "reason"),
    [
        ("exit 0", Decision.ACCEPTED, "it.sh: accepted"),
        ("echo; echo '  fine  '; echo more", Decision.ACCEPTED, "it.sh: fine"),
        ("exit 1", Decision.REJECTED, "it.sh: rejected"),
        ("echo bad >&2; exit 1", Decision.REJECTED, "it.sh: bad"),
        ("exit 2", Decision.FAILED, "it.sh: exit status 2"),
        ("echo oh; exit 127", Decision.FAILED, "it.sh: exit status 127: oh"),
        ("kill -9 $$", Decision.FAILED, "it.sh: killed by SIGKILL"),
        ("echo bye; kill -TERM $$", Decision.FAILED, "it.sh: killed by SIGTERM: bye"),
        ("printf '\\033[31mred\\377\\n'", Decision.ACCEPTED, "it.sh: \ufffd[31mred\ufffd"),
        ("exec <&- >&- 2>&-; exit 1", Decision.REJECTED, "it.sh: rejected"),
        ("exec <&- >&- 2>&-; sleep 0.1; exit 0", Decision.ACCEPTED, "it.sh: accepted"),
    ],
)
def test_exit_status_and_first_line(
    body: str, decision: Decision, reason: str, script: Path, tmp_path: Path
) -> None:
    verdict = verdict_on(command(says(script, body)), tmp_path / "file", b"x")
    assert (verdict.decision, verdict.reason) == (decision, reason)


def test_what_the_executable_is_told(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    report = tmp_path / "report.json"
    body = (
        "import json, os, sys\n"
        "told = {'argv': sys.argv[2:], 'stdin': sys.stdin.read(), 'env': dict(os.environ), 'cwd': os.getcwd(),\n"
        "        'leads': os.getsid(0) == os.getpid(), 'fds': sorted(os.listdir('/dev/fd'))}\n"
        "json.dump(told, open(sys.argv[1], 'w'))"
    )
    says(script, body, sys.executable)
    path = tmp_path / "fïle $(x) 'q' .part"
    verdict = verdict_on(command(f"'{script}' {report} 'two words' \"\" ;"), path, b"12345")
    assert verdict.decision is Decision.ACCEPTED, verdict
    told = json.loads(report.read_text())
    assert told["argv"] == ["two words", "", ";", str(path)]
    assert json.loads(told["stdin"]) == {
        "format": "nearfetch candidate",
        "version": 1,
        "path": str(path),
        "url": "https://origin.example/data.bin",
        "length": 5,
        "name": "data.bin",
        "bytes_from": "mixed",
    }
    ours = {name: value for name, value in told["env"].items() if name.startswith("NEARFETCH_")}
    assert ours == {
        "NEARFETCH_PATH": str(path),
        "NEARFETCH_URL": "https://origin.example/data.bin",
        "NEARFETCH_LENGTH": "5",
        "NEARFETCH_NAME": "data.bin",
        "NEARFETCH_BYTES_FROM": "mixed",
    }
    assert told["env"]["PATH"] == os.environ["PATH"]
    assert "SOME_TOKEN" not in told["env"]
    assert (told["cwd"], told["leads"]) == ("/", True)
    assert told["fds"][:3] == ["0", "1", "2"]
    assert len(told["fds"]) <= 4, "only the listing's own descriptor besides"


def test_a_path_that_is_no_text(script: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/no-text-\xff"))
    says(script, 'grep -q "no-text-.udcff" && [ -f "$1" ] && [ "$NEARFETCH_PATH" = "$1" ]')
    try:
        path.touch()
    except OSError:
        pytest.skip("the file system takes only text")
    assert verdict_on(command(str(script)), path).decision is Decision.ACCEPTED


def test_output_without_end_is_cut(script: Path, tmp_path: Path) -> None:
    """Far more than is kept, and than a pipe holds: it is read to the end, and the first line is shown."""
    says(script, "echo first; head -c 20000000 /dev/zero | tr '\\0' x; exit 1")
    verdict = verdict_on(command(str(script)), tmp_path / "file", b"x")
    assert (verdict.decision, verdict.reason) == (Decision.REJECTED, "it.sh: first")
    says(script, "head -c 20000000 /dev/zero | tr '\\0' x")
    verdict = verdict_on(command(str(script)), tmp_path / "file", b"x")
    assert verdict.decision is Decision.ACCEPTED
    assert len(verdict.reason) < 250


def test_the_document_may_exceed_a_pipe(script: Path, tmp_path: Path) -> None:
    """Read late or not at all, a document of 100 kB neither blocks nor breaks anything."""
    given = candidate(tmp_path / "file", b"x")
    long = type(given)(
        path=given.path, url="http://h/" + "u" * 100_000, length=1, name="n", bytes_from=given.bytes_from
    )
    says(script, "sleep 0.1; [ $(wc -c) -gt 100000 ]")
    assert judge(command(str(script)), long, Patience.endless()).decision is Decision.ACCEPTED
    says(script, "exit 1")
    assert judge(command(str(script)), long, Patience.endless()).decision is Decision.REJECTED


def test_time_is_limited_and_the_whole_group_killed(script: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    says(script, f"trap '' TERM HUP\nsleep 300 & echo $! > {pids}; echo $$ >> {pids}\necho thinking; wait")
    verdict = verdict_on(ExternalCommand((str(script),), timeout_s=1.0), tmp_path / "file", b"x")
    assert verdict.decision is Decision.FAILED
    assert verdict.reason == "it.sh: it did not end within 1 s and was killed"
    assert all(wait_until_gone(int(pid)) for pid in pids.read_text().split())


def test_it_ends_when_nobody_waits_any_more(script: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    says(script, f"echo $$ > {started}.new; mv {started}.new {started}; sleep 300")
    patience = Patience.endless()

    def withdraw_once_started() -> None:
        until = time.monotonic() + 20
        while not started.exists() and time.monotonic() < until:
            threading.Event().wait(0.01)
        patience.withdraw()

    watcher = threading.Thread(target=withdraw_once_started)
    watcher.start()
    verdict = judge(command(str(script)), candidate(tmp_path / "file", b"x"), patience)
    watcher.join()
    assert verdict == type(verdict).failed("the validation was stopped")
    assert wait_until_gone(int(started.read_text()))


def test_what_is_left_behind_is_killed(script: Path, tmp_path: Path) -> None:
    """A background child that holds the output open neither delays the verdict nor survives it."""
    pids = tmp_path / "pids"
    says(script, f"sleep 300 & echo $! > {pids}; echo done; exit 1")
    began = time.monotonic()
    verdict = verdict_on(command(str(script)), tmp_path / "file", b"x")
    assert (verdict.decision, verdict.reason) == (Decision.REJECTED, "it.sh: done")
    assert time.monotonic() - began < 30
    assert wait_until_gone(int(pids.read_text()))


def test_a_daemon_that_writes_without_end_does_not_hold_us(script: Path, tmp_path: Path) -> None:
    """In a session of its own it escapes the kill; the limit on the output ends the reading."""
    pids = tmp_path / "pids"
    body = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    open({str(pids)!r} + '.new', 'w').write(str(os.getpid()))\n"
        f"    os.rename({str(pids)!r} + '.new', {str(pids)!r})\n"
        "    while True: os.write(1, b'y' * 65536)\n"
        f"while not os.path.exists({str(pids)!r}): time.sleep(0.01)\n"
    )
    verdict = verdict_on(command(says(script, body, sys.executable)), tmp_path / "file", b"x")
    assert verdict.decision is Decision.ACCEPTED
    assert wait_until_gone(int(pids.read_text())), "nobody reads any more: it gets SIGPIPE or EPIPE"


def test_an_executable_that_vanished_or_cannot_start_is_a_failure(script: Path, tmp_path: Path) -> None:
    validator = command(says(script, "exit 0", "/nonexistent/interpreter"))
    verdict = verdict_on(validator, tmp_path / "file", b"x")
    assert (verdict.decision, verdict.reason) == (
        Decision.FAILED,
        "it.sh could not be started: No such file or directory",
    )
    script.unlink()
    assert verdict_on(validator, tmp_path / "file", b"x").decision is Decision.FAILED


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (None, "needs the path of an executable"),
        ("  ", "needs the path of an executable"),
        ("'/bin/sh", "cannot be split into words"),
        ("sh", "absolute path, not 'sh'"),
        ("./it.sh", "absolute path, not './it.sh'"),
        ("/nonexistent/it.sh", "there is no executable '/nonexistent/it.sh'"),
        ("/tmp", "there is no executable '/tmp'"),
        ("''", "absolute path, not ''"),
        ("/etc/passwd", "'/etc/passwd' may not be executed"),
    ],
)
def test_bad_arguments(argument: str | None, words: str) -> None:
    with pytest.raises(ValidatorArgumentError, match=re.escape(words)):
        command(argument)


def test_many_at_once_leave_neither_descriptors_nor_zombies(script: Path, tmp_path: Path) -> None:
    says(script, "cat > /dev/null; exit 0")
    given, validator = candidate(tmp_path / "file", b"x"), command(str(script))
    judge(validator, given, Patience.endless())
    before = len(os.listdir("/dev/fd"))
    answers: list[Decision] = []
    threads = [
        threading.Thread(target=lambda: answers.append(judge(validator, given, Patience.endless()).decision))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [Decision.ACCEPTED] * 12
    assert len(os.listdir("/dev/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_signal_numbers_without_a_name(script: Path, tmp_path: Path) -> None:
    number = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR1
    says(script, f"kill -{int(number)} $$")
    verdict = verdict_on(command(str(script)), tmp_path / "file", b"x")
    assert verdict.decision is Decision.FAILED
    assert verdict.reason.startswith("it.sh: killed by")
