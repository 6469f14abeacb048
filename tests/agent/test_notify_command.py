"""Notify commands with real programs: what they are given, how they end, that nothing of them stays (row 92)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent import notify_command
from agent.errors import UsageError
from agent.notify_command import (
    MAX_COMMAND_CHARACTERS,
    MAX_OUTPUT_BYTES,
    MAX_PROGRAM_CHARACTERS,
    CommandResult,
    check_command,
    run_notify_command,
)

SOON_S = 5.0
"""Far below the 60 s that a command may take."""


@pytest.fixture(autouse=True)
async def no_failing_callbacks() -> AsyncIterator[None]:
    """Nothing that the loop calls may raise: it would be called again and again."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    yield
    assert failures == []


def script(directory: Path, text: str, name: str = "command") -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


async def run(
    *argv: str, document: bytes = b"{}", environment: dict[str, str] | None = None, timeout_s: float = SOON_S
) -> CommandResult:
    async with asyncio.timeout(20):
        return await run_notify_command(argv, environment or {}, document, timeout_s=timeout_s)


def is_alive(pid: int) -> bool:
    """A zombie that nobody reaps is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(SOON_S):
        while is_alive(pid):
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_S


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


# --- what it is given ------------------------------------------------------------------------------------------


async def test_the_document_on_standard_input_and_the_words_in_the_environment(tmp_path: Path) -> None:
    program = script(tmp_path, 'cat; echo " $NEARFETCH_JOB $NEARFETCH_EVENT"')
    result = await run(program, document=b'{"a":1}', environment={"NEARFETCH_JOB": "j", "NEARFETCH_EVENT": "e"})
    assert result == CommandResult(exit_code=0, output='{"a":1} j e\n', problem=None)


async def test_arguments_are_literal(tmp_path: Path) -> None:
    """Row 108: there is no shell between."""
    words = [
        "$(touch " + str(tmp_path / "x") + ")",
        "; rm -rf /",
        "a  b",
        "*",
        "'\"",
        "",
        "-n",
        "%s",
        "\udcff",
        "\n",
    ]
    result = await run(script(tmp_path, 'for word; do printf "<%s>" "$word"; done'), *words)
    assert result.output == "".join(f"<{word}>" for word in words).replace("\udcff", "\ufffd")
    assert not (tmp_path / "x").exists()


async def test_nothing_of_our_environment_but_the_place_and_the_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARFETCH_GROUP_KEY", "canary")
    monkeypatch.setenv("HTTPS_PROXY", "canary")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("HOME", "/home/somebody")
    result = await run(script(tmp_path, "env"), environment={"NEARFETCH_JOB": "1"})
    names = {line.partition("=")[0] for line in result.output.splitlines()}
    assert {"PATH", "HOME", "LC_TIME", "NEARFETCH_JOB"} <= names
    assert "canary" not in result.output
    assert names <= {
        *notify_command._PASSED_ON,
        "LC_TIME",
        "LC_ALL",
        "LC_CTYPE",
        "NEARFETCH_JOB",
        "PWD",
        "SHLVL",
        "_",
    }


@needs_proc
async def test_a_session_of_its_own_the_root_directory_and_no_open_files(tmp_path: Path) -> None:
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)
    program = script(tmp_path, 'cut -d" " -f1,5,6 /proc/$$/stat; pwd; ls /proc/$$/fd')
    try:
        result = await run(program)
    finally:
        os.close(secret)
    numbers, place, *descriptors = result.output.splitlines()
    pid, group, session = numbers.split()
    assert pid == group == session
    assert place == "/"
    assert str(secret) not in {"10", "255"}  # where shells keep their script
    assert set(descriptors) <= {"0", "1", "2", "10", "255"}


async def test_the_document_need_not_be_read(tmp_path: Path) -> None:
    large = bytes(4 * 1024 * 1024)
    with quick():
        assert (await run(script(tmp_path, "exit 0"), document=large)).exit_code == 0
        assert (await run(script(tmp_path, "exec <&-; sleep 0.1; echo on"), document=large)).output == "on\n"
        assert (await run(script(tmp_path, "head -c 3; exit 4"), document=b"abcdef")).exit_code == 4


async def test_a_large_document_and_an_empty_one_arrive_whole(tmp_path: Path) -> None:
    program = script(tmp_path, "wc -c")
    assert (await run(program, document=bytes(3_000_000))).output.split() == ["3000000"]
    assert (await run(program, document=b"")).output.split() == ["0"]


# --- how it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 77, 255])
async def test_exit_codes(tmp_path: Path, code: int) -> None:
    result = await run(script(tmp_path, f"echo said; exit {code}"))
    assert result == CommandResult(exit_code=code, output="said\n", problem=None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_signals_are_negative(tmp_path: Path, number: signal.Signals) -> None:
    assert (await run(script(tmp_path, f"kill -{int(number)} $$"))).exit_code == -number


async def test_both_outputs_are_kept_as_they_came(tmp_path: Path) -> None:
    result = await run(script(tmp_path, "echo one; echo two >&2; printf '\\377'"))
    assert result.output == "one\ntwo\n\ufffd"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no program"),
        ("", "Exec format error"),
        ("#!/no/such/interpreter\n", "No such file or directory"),
    ],
)
async def test_what_cannot_be_started_is_said(tmp_path: Path, text: str | None, said: str) -> None:
    program = tmp_path / "program"
    if text is not None:
        program.write_bytes(text.encode() or b"\x7fELF rubbish")
        program.chmod(0o755)
    result = await run(str(program))
    assert result.exit_code is None
    assert result.output == ""
    assert result.problem is not None
    assert said in result.problem
    assert "\n" not in result.problem


async def test_an_environment_that_no_program_can_have_is_said(tmp_path: Path) -> None:
    result = await run(script(tmp_path, "exit 0"), environment={"A": "\0"})
    assert result.exit_code is None
    assert "could not be started" in (result.problem or "")


# --- hangs, floods, forks -----------------------------------------------------------------------------------------


@needs_proc
async def test_who_hangs_is_ended_with_all_his_children(tmp_path: Path) -> None:
    program = script(tmp_path, "sleep 1000 & echo $!; echo $$; wait")
    with quick():
        result = await run(program, timeout_s=0.3)
    assert result.exit_code is None
    assert result.problem == "it did not end within 0.3 s and was ended"
    for pid in result.output.split():
        await gone(int(pid))


@needs_proc
async def test_who_does_not_listen_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_command, "_GRACE_S", 0.3)
    program = script(tmp_path, "trap '' TERM; echo $$; while :; do sleep 0.05; done")
    with quick():
        result = await run(program, timeout_s=0.3)
    assert result.problem is not None
    await gone(int(result.output))


async def test_who_listens_to_sigterm_may_say_a_last_word(tmp_path: Path) -> None:
    program = script(tmp_path, "trap 'echo farewell; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    result = await run(program, timeout_s=0.5)
    assert result.output.startswith("ready\n")
    assert result.output.endswith("farewell\n")
    assert result.exit_code is None
    assert result.problem is not None


async def test_a_flood_is_read_to_its_end_and_cut(tmp_path: Path) -> None:
    with quick():
        result = await run(script(tmp_path, "head -c 100000000 /dev/zero; exit 3"))
    assert (result.exit_code, result.problem) == (3, None)
    assert result.output == "\0" * MAX_OUTPUT_BYTES


async def test_a_flood_without_end_ends_with_the_time_and_the_loop_goes_on(tmp_path: Path) -> None:
    turns = 0
    with quick():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(script(tmp_path, "yes"), timeout_s=0.5))
            while not task.done():
                turns += 1
                await asyncio.sleep(0.01)
    assert turns > 10
    assert len(task.result().output) == MAX_OUTPUT_BYTES
    assert task.result().problem is not None


@needs_proc
async def test_children_that_are_left_behind_go_with_the_program(tmp_path: Path) -> None:
    with quick():
        result = await run(script(tmp_path, "sleep 1000 & echo $!; exit 0"))
    assert (result.exit_code, result.problem) == (0, None)
    await gone(int(result.output))


@needs_proc
async def test_who_leaves_the_group_lives_on_and_holds_nobody_up(tmp_path: Path) -> None:
    program = script(tmp_path, "setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.3; exit 0")
    with quick():
        result = await run(program)
    daemon = int(result.output)
    try:
        assert result.exit_code == 0
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


@needs_proc
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_ends_the_whole_group(tmp_path: Path, times: int) -> None:
    mark = tmp_path / "pids"
    program = script(
        tmp_path, f"trap '' TERM; sleep 1000 & echo $! $$ > {mark}.new; mv {mark}.new {mark}; wait; wait"
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(program, timeout_s=60))
        async with asyncio.timeout(SOON_S):
            while not mark.exists():
                await asyncio.sleep(0.01)
        began = time.monotonic()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.05)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    assert task.cancelled()
    assert time.monotonic() - began < (1.0 if times == 2 else 4.0)
    for pid in mark.read_text().split():
        await gone(int(pid))


@needs_proc
async def test_nothing_stays_open_and_nobody_stays_unreaped(tmp_path: Path) -> None:
    program = script(tmp_path, "echo $$; exit 0")
    await run(program)
    before = len(os.listdir("/proc/self/fd"))
    pids = [int((await run(program)).output) for _ in range(5)]
    await run(script(tmp_path, "sleep 1000"), timeout_s=0.1)
    await run(str(tmp_path / "absent"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("lacking", [("pidfd_open",), ("pidfd_open", "waitid")])
async def test_a_system_that_does_not_announce_the_end_of_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]
) -> None:
    for name in lacking:
        monkeypatch.delattr(os, name, raising=False)
    assert (await run(script(tmp_path, "sleep 0.1; cat; exit 3"), document=b"x")).exit_code == 3
    with quick():
        result = await run(script(tmp_path, "sleep 1000"), timeout_s=0.2)
    assert result.problem is not None


async def test_four_at_once(tmp_path: Path) -> None:
    programs = [script(tmp_path, f"sleep 0.2; cat; exit {number}", f"p{number}") for number in range(4)]
    began = time.monotonic()
    results = await asyncio.gather(*(run(program, document=b"x") for program in programs))
    assert [result.exit_code for result in results] == [0, 1, 2, 3]
    assert time.monotonic() - began < 0.7


# --- what is refused beforehand (bits-reference 1.4, 2.3) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], "USAGE", "needs the path of a program"),
        ([""], "USAGE", "needs the path of a program"),
        (["true"], "USAGE", "named by its absolute path, not 'true'"),
        (["./true"], "USAGE", "named by its absolute path"),
        (["~/x"], "USAGE", "named by its absolute path"),
        (["/no/such/program"], "USAGE", "there is no program '/no/such/program'"),
        (["/"], "USAGE", "there is no program '/'"),
        (["/" + "x" * MAX_PROGRAM_CHARACTERS], "STRING_TOO_LONG", "at most 260 characters, not 261"),
        ([sys.executable, "x" * MAX_COMMAND_CHARACTERS], "STRING_TOO_LONG", "at most 4000 characters, not"),
        ([sys.executable, "a\0b"], "USAGE", "NUL"),
        ([sys.executable, "\ud800"], "USAGE", "cannot hand to a program"),
    ],
)
async def test_commands_that_cannot_be_meant(argv: list[str], code: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check_command(argv)
    assert caught.value.code == code
    result = await run_notify_command(argv, {}, b"")
    assert result == CommandResult(exit_code=None, output="", problem=str(caught.value))


def test_a_program_must_be_executable(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match="may not be executed"):
        check_command([str(program)])
    program.chmod(0o755)
    check_command([str(program)])


def test_the_limits_are_those_of_bits() -> None:
    longest = [sys.executable, "x" * (MAX_COMMAND_CHARACTERS - len(sys.executable) - 1)]
    check_command(longest)
    with pytest.raises(UsageError, match="4000"):
        check_command([*longest, ""])
