"""Runs one child process for a validator: bounded in time, in output, and gone afterwards.

The child leads a session of its own; the whole process group is killed when time is up, when the caller loses
patience, and when the child has ended but left others behind. Never knows: what the child is for.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from validation.errors import ValidationStopped
from validation.validator import Patience

MAX_OUTPUT_BYTES = 64 * 1024
"""What is kept of standard output and standard error together; the rest is read and dropped."""

_LOOK_S = 0.02
"""How often the child's end and the caller's patience are looked at."""
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. No shell is involved."""

    arguments: tuple[str, ...]
    """The executable's absolute path and its arguments."""
    stdin: bytes
    environment: Mapping[str, str]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it ended. `code` is the exit status; negative: minus the number of the signal that killed it."""

    code: int
    output: bytes
    """Standard output and standard error as they came, at most 64 KiB."""


def run(command: Command, patience: Patience) -> Ended:
    """Run the command to its end. Blocks for at most `timeout_s` or as long as `patience` lasts.

    Raises OSError when it cannot be started, ValidationStopped when time is up or the caller no longer waits.
    """
    process = subprocess.Popen(  # noqa: S603  no shell; the user who made the job names the executable
        command.arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=command.environment,
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    with process:
        try:
            output = _Conversation(process, command.stdin).hold(patience, command.timeout_s)
        finally:
            _kill_group(process)
        return Ended(code=process.wait(), output=output)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it where the system can do that: then its group's number is still ours to kill."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return process.poll() is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:
        return  # reaped: the number may belong to somebody else by now
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(process.pid, signal.SIGKILL)


class _Conversation:
    """Feeds standard input and takes the output until the child has ended."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._unsent = memoryview(stdin)
        self._output = bytearray()

    def hold(self, patience: Patience, timeout_s: float) -> bytes:
        """All that was said, cut at the limit."""
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for stream, event in ((self._stdin, selectors.EVENT_WRITE), (self._stdout, selectors.EVENT_READ)):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event)
            while not _has_ended(self._process):
                patience.check()
                if time.monotonic() >= until:
                    raise ValidationStopped(f"it did not end within {timeout_s:g} s and was killed")
                self._serve(selector)
        _kill_group(self._process)
        # Whoever is left (a daemon with a session of its own) may go on writing: the limit ends this.
        while len(self._output) < MAX_OUTPUT_BYTES and self._take():
            pass
        return bytes(self._output)

    def _serve(self, selector: selectors.BaseSelector) -> None:
        if not selector.get_map():
            time.sleep(_LOOK_S)  # it closed both streams and still runs
            return
        for key, _ in selector.select(_LOOK_S):
            if key.fileobj is self._stdin:
                if not self._give():
                    selector.unregister(self._stdin)
                    self._stdin.close()
            elif not self._take():
                selector.unregister(self._stdout)

    def _give(self) -> bool:
        """Write what fits. False when there is nothing more to write, or nobody to read it."""
        try:
            sent = os.write(self._stdin.fileno(), self._unsent[:_PIECE_BYTES])
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        self._unsent = self._unsent[sent:]
        return len(self._unsent) > 0

    def _take(self) -> bool:
        """Read what is there. False at the end, or when nothing is there now."""
        try:
            piece = os.read(self._stdout.fileno(), _PIECE_BYTES)
        except BlockingIOError:
            return False
        room = MAX_OUTPUT_BYTES - len(self._output)
        self._output += piece[:room]
        return len(piece) > 0
