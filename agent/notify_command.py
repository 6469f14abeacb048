"""Runs a job's notify command: bounded in time, in output, and gone afterwards.

The program leads a session of its own. Its process group is ended when time is up, when the caller is cancelled,
and when the program has ended but left others behind: what shall live longer has to leave the group (setsid). There
is no shell, no search along PATH, no replacing of anything in the arguments. It gets a document on standard input,
which it need not read, and nothing of the agent's environment but where things are, whose session this is (so that
it can show a message on a desktop), and which language is spoken.
Never knows: jobs, notices, retries. Sources: bits-reference 1.4, 2.3 (limits, no search, no placeholders), trap 8.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import UsageError

MAX_PROGRAM_CHARACTERS = 260
MAX_COMMAND_CHARACTERS = 4000
"""Of all words, with one blank between each two."""
TIMEOUT_S = 60.0
MAX_OUTPUT_BYTES = 64 * 1024
"""What is kept of standard output and standard error together; the rest is read and dropped."""

_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
_DEATH_S = 1.0
"""How long we wait to see the end of what SIGKILL has hit; it may hang in the kernel (a dead network disk)."""
_LOOK_S = 0.05
"""How often the program's end is looked for where the system cannot announce it."""
_PIECE_BYTES = 64 * 1024
_PASSED_ON = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a notify command ended."""

    exit_code: int | None
    """The exit status; negative: minus the number of the signal that ended it. None: see `problem`."""
    output: str
    """What it wrote to standard output and standard error, as it came, at most 64 KiB."""
    problem: str | None
    """One sentence when it could not be started or did not end in time."""


def check_command(argv: Sequence[str]) -> None:
    """Whether this can be run now. Raises UsageError with one sentence (code STRING_TOO_LONG for the limits)."""
    if not argv or not argv[0]:
        raise UsageError("a notify command needs the path of a program")
    program = argv[0]
    if len(program) > MAX_PROGRAM_CHARACTERS:
        raise UsageError(
            f"the program of a notify command has at most {MAX_PROGRAM_CHARACTERS} characters, not {len(program)}",
            code="STRING_TOO_LONG",
        )
    characters = sum(len(word) + 1 for word in argv) - 1
    if characters > MAX_COMMAND_CHARACTERS:
        raise UsageError(
            f"a notify command has at most {MAX_COMMAND_CHARACTERS} characters, not {characters}",
            code="STRING_TOO_LONG",
        )
    if any("\0" in word for word in argv):
        raise UsageError("a notify command cannot contain a NUL character")
    if not _encodable(argv):
        raise UsageError("a notify command has a character that this system cannot hand to a program")
    if not os.path.isabs(program):
        raise UsageError(f"the program of a notify command is named by its absolute path, not {program!r}")
    if not os.path.isfile(program):
        raise UsageError(f"there is no program {program!r}")
    if not os.access(program, os.X_OK):
        raise UsageError(f"{program!r} may not be executed")


async def run_notify_command(
    argv: Sequence[str], environment: Mapping[str, str], document: bytes, *, timeout_s: float = TIMEOUT_S
) -> CommandResult:
    """Run it to its end, for at most `timeout_s` seconds and two more. Failures are in the result, never raised.

    `environment` is added to what is passed on of ours. Cancelling ends the whole group as a timeout does.
    """
    try:
        check_command(argv)
        process = _start(argv, environment)
    except UsageError as error:
        return CommandResult(exit_code=None, output="", problem=str(error))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return CommandResult(exit_code=None, output="", problem=f"{argv[0]!r} could not be started: {reason}")
    problem = None
    with _Talk(process, document) as talk, _Ending(process) as ending:
        try:
            async with asyncio.timeout(timeout_s):
                await ending.wait()
        except TimeoutError:
            problem = f"it did not end within {timeout_s:g} s and was ended"
        finally:
            await _end(process, ending, talk)
        output = talk.rest().decode("utf-8", "replace")
    exit_code = process.returncode if problem is None else None
    return CommandResult(exit_code=exit_code, output=output, problem=problem)


def _encodable(argv: Sequence[str]) -> bool:
    try:
        for word in argv:
            os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True


def _start(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    ours = {name: text for name, text in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    return subprocess.Popen(  # noqa: S603  no shell; the owner of the job named the program
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=ours | dict(environment),
        cwd="/",
        start_new_session=True,
        close_fds=True,
        bufsize=0,
    )


async def _end(process: subprocess.Popen[bytes], ending: _Ending, talk: _Talk) -> None:
    """Leave nobody of the group behind, and reap the program. A second cancellation only makes it quicker."""
    try:
        if not _has_ended(process):
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await ending.wait()
                    await talk.silent.wait()  # as long as somebody of the group has the output, it is still ending
    finally:
        _signal_group(process, signal.SIGKILL)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DEATH_S):
                    await ending.wait()
        finally:
            if process.poll() is None:
                threading.Thread(target=process.wait, name="notify-command-reaper", daemon=True).start()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it where the system can do that: then its group's number is still ours to signal."""
    if process.returncode is None and hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return process.poll() is not None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.returncode is not None:
        return  # reaped: the number may belong to somebody else by now
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(process.pid, number)


class _Ending:
    """The end of a program, without reaping it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._seen = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an old kernel, or a sandbox that does not know the call
                self._descriptor = os.pidfd_open(process.pid)
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._saw)

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    async def wait(self) -> None:
        """Until it has ended. The caller sets the limit."""
        if self._descriptor is not None or self._seen.is_set():
            await self._seen.wait()
            return
        while not _has_ended(self._process):  # noqa: ASYNC110  no event tells it here
            await asyncio.sleep(_LOOK_S)

    def _saw(self) -> None:
        self._seen.set()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


class _Talk:
    """Feeds standard input and takes the output, on the loop, until closed."""

    def __init__(self, process: subprocess.Popen[bytes], document: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.silent = asyncio.Event()
        """Nobody can write to the output any more."""
        self._loop = asyncio.get_running_loop()
        self._stdin, self._stdout = process.stdin, process.stdout
        self._unsent = memoryview(document)
        self._output = bytearray()

    def __enter__(self) -> _Talk:
        for stream in (self._stdin, self._stdout):
            os.set_blocking(stream.fileno(), False)
        self._loop.add_writer(self._stdin.fileno(), self._give)
        self._loop.add_reader(self._stdout.fileno(), self._take)
        return self

    def __exit__(self, *_: object) -> None:
        self._close_stdin()
        if not self._stdout.closed:
            self._loop.remove_reader(self._stdout.fileno())
            self._stdout.close()

    def rest(self) -> bytes:
        """All that was said, cut at the limit, with what is still in the pipe.

        Whoever is left (a daemon with a session of its own) may go on writing: the limit ends this.
        """
        while len(self._output) < MAX_OUTPUT_BYTES and self._take():
            pass
        return bytes(self._output)

    def _give(self) -> None:
        """Write what fits."""
        try:
            sent = os.write(self._stdin.fileno(), self._unsent[:_PIECE_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close_stdin()  # it does not want to know
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if not self._stdin.closed:
            self._loop.remove_writer(self._stdin.fileno())
            self._stdin.close()

    def _take(self) -> bool:
        """Read what is there. False at the end, or when nothing is there now."""
        if self.silent.is_set():
            return False
        try:
            piece = os.read(self._stdout.fileno(), _PIECE_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self.silent.set()
            self._loop.remove_reader(self._stdout.fileno())
            return False
        self._output += piece[: MAX_OUTPUT_BYTES - len(self._output)]
        return True
