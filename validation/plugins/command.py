"""Validator `command`: an executable of the user decides.

ARG: its absolute path, then arguments, quoted as in a shell (but there is no shell).

The contract with the executable:

* the temporary file's path is its last argument; its working directory is `/`
* standard input is one JSON object: `format` ("nearfetch candidate"), `version` (1), `path`, `url`, `length`,
  `name`, `bytes_from` ("origin", "peers", "mixed"); bytes of a path that are not UTF-8 come as lone surrogates
* environment: NEARFETCH_PATH, NEARFETCH_URL, NEARFETCH_LENGTH, NEARFETCH_NAME, NEARFETCH_BYTES_FROM; of ours only
  HOME, LANG, LC_ALL, LC_CTYPE, LOGNAME, PATH, SHELL, TMPDIR, TZ, USER, so that nothing secret is handed down
* exit status 0: accepted; 1: rejected; anything else, a signal, or 60 s without an end: the validator failed
* the first line it prints (64 KiB are read) is shown to the user

It must never know: jobs, peers, what becomes of the file.
"""

from __future__ import annotations

import json
import os
import shlex
import signal

from validation.errors import ValidationStopped, ValidatorArgumentError
from validation.plugins.process import Command, Ended, run
from validation.plugins.reading import opened
from validation.validator import Candidate, Patience, Validator, Verdict, one_line

TIMEOUT_S = 60.0
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
_SHOWN_CHARACTERS = 200


class ExternalCommand:
    """Asks an executable. Starts one process for each candidate, in a session of its own."""

    def __init__(self, arguments: tuple[str, ...], timeout_s: float = TIMEOUT_S) -> None:
        self._arguments = arguments
        self._timeout_s = timeout_s

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        """Run it to its end. Raises ValidationStopped when the caller no longer waits; a timeout is a verdict."""
        with opened(candidate.path):
            pass  # a file that cannot be read is our failure; the executable might take it for a wrong file
        command = Command(
            arguments=(*self._arguments, os.fspath(candidate.path)),
            stdin=_document(candidate),
            environment=_environment(candidate),
            timeout_s=self._timeout_s,
        )
        name = os.path.basename(self._arguments[0])
        try:
            ended = run(command, patience)
        except OSError as error:
            return Verdict.failed(f"{name} could not be started: {error.strerror}")
        except ValidationStopped as stopped:
            patience.check()
            return Verdict.failed(f"{name}: {stopped}")
        return _verdict(name, ended)


def command(argument: str | None) -> Validator:
    """An executable and its arguments. Raises ValidatorArgumentError when it is not there or may not be run."""
    if argument is None or not argument.strip():
        raise ValidatorArgumentError("command needs the path of an executable: command:/path/to/it [ARGUMENT]...")
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise ValidatorArgumentError(f"cannot be split into words ({error}): {argument!r}") from error
    path = os.path.expanduser(words[0])
    if not os.path.isabs(path):
        raise ValidatorArgumentError(f"the executable must be named by an absolute path, not {words[0]!r}")
    if not os.path.isfile(path):
        raise ValidatorArgumentError(f"there is no executable {path!r}")
    if not os.access(path, os.X_OK):
        raise ValidatorArgumentError(f"{path!r} may not be executed")
    return ExternalCommand((path, *words[1:]))


def _document(candidate: Candidate) -> bytes:
    fields = {
        "format": "nearfetch candidate",
        "version": 1,
        "path": os.fspath(candidate.path),
        "url": candidate.url,
        "length": candidate.length,
        "name": candidate.name,
        "bytes_from": candidate.bytes_from.value,
    }
    return json.dumps(fields).encode() + b"\n"


def _environment(candidate: Candidate) -> dict[str, str]:
    ours = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return ours | {
        "NEARFETCH_PATH": os.fspath(candidate.path),
        "NEARFETCH_URL": candidate.url,
        "NEARFETCH_LENGTH": str(candidate.length),
        "NEARFETCH_NAME": candidate.name,
        "NEARFETCH_BYTES_FROM": candidate.bytes_from.value,
    }


def _verdict(name: str, ended: Ended) -> Verdict:
    lines = (one_line(line, _SHOWN_CHARACTERS) for line in ended.output.decode("utf-8", "replace").splitlines())
    said = next((line for line in lines if line), "")
    if ended.code == 0:
        return Verdict.accepted(f"{name}: {said or 'accepted'}")
    if ended.code == 1:
        return Verdict.rejected(f"{name}: {said or 'rejected'}")
    how = f"exit status {ended.code}" if ended.code > 0 else f"killed by {_signal_name(-ended.code)}"
    return Verdict.failed(f"{name}: {how}{': ' if said else ''}{said}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
