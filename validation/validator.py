"""What every validator must obey: it is given a Candidate and answers with a Verdict.

A validator looks at one finished temporary file and says whether it is right. It must never know: jobs, peers,
retries, what happens after its answer. It never changes, renames or removes the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from validation.errors import ValidationStopped

APPLICATION = "application"
"""The name of the validator that leaves the decision to the application (BITS: SetValidationState)."""

MAX_REASON_CHARACTERS = 400


class BytesFrom(StrEnum):
    """Where the bytes of a file came from."""

    ORIGIN = "origin"
    """Every byte came from the server of the URL."""
    PEERS = "peers"
    """Every byte came from other agents, or from this agent's own peer cache."""
    MIXED = "mixed"
    """Some bytes came from each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A downloaded file that is not visible yet and waits for a verdict."""

    path: Path
    """The temporary file, absolute. Any bytes but NUL may occur in it, also a leading dot or a line break."""
    url: str
    """Where the file was asked for, as the job names it, without user information and fragment."""
    length: int
    """Size of the content in bytes."""
    name: str
    """The last component of the destination: what the file will be called once it is accepted."""
    bytes_from: BytesFrom


class Decision(StrEnum):
    """What a validator says about a file."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """The file is wrong. This is about its bytes, never about the validator."""
    PENDING = "pending"
    """The application decides, later."""
    FAILED = "failed"
    """The validator could not do its work: it says nothing about the file."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and one sentence that says why, meant for the user.

    The reason is made one line of at most 400 printable characters. Raises ValueError when nothing is left.
    """

    decision: Decision
    reason: str

    def __post_init__(self) -> None:
        line = one_line(self.reason, MAX_REASON_CHARACTERS)
        if not line:
            raise ValueError("a verdict needs a reason")
        object.__setattr__(self, "reason", line)

    @classmethod
    def accepted(cls, reason: str) -> Verdict:
        """The file is right."""
        return cls(Decision.ACCEPTED, reason)

    @classmethod
    def rejected(cls, reason: str) -> Verdict:
        """The file is wrong."""
        return cls(Decision.REJECTED, reason)

    @classmethod
    def pending(cls, reason: str) -> Verdict:
        """The application decides."""
        return cls(Decision.PENDING, reason)

    @classmethod
    def failed(cls, reason: str) -> Verdict:
        """The validator could not do its work."""
        return cls(Decision.FAILED, reason)


class Patience:
    """How long the caller waits for a verdict, and whether it still does.

    A validator calls `check()` between two pieces of work (a block, a fraction of a second of waiting); that is
    all it has to do. The caller may call `withdraw()` at any time from any thread. `clock` gives seconds that
    never run backwards; `limit_s` None means as long as it takes.
    """

    __slots__ = ("_clock", "_deadline", "_limit_s", "_withdrawn")

    def __init__(self, clock: Callable[[], float], limit_s: float | None = None) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._deadline = None if limit_s is None else clock() + limit_s
        self._withdrawn = False

    @classmethod
    def endless(cls) -> Patience:
        """Waits until somebody withdraws it."""
        return cls(lambda: 0.0)

    def withdraw(self) -> None:
        """Stop waiting: the next `check` raises. Calling it again changes nothing."""
        self._withdrawn = True

    def remaining_s(self) -> float | None:
        """Seconds left: 0 when it is over, None when there is no limit."""
        if self._withdrawn:
            return 0.0
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def check(self) -> None:
        """Raises ValidationStopped when the caller no longer waits."""
        if self._withdrawn:
            raise ValidationStopped("the validation was stopped")
        if self.remaining_s() == 0.0:
            raise ValidationStopped(f"the validator gave no verdict within {self._limit_s:g} s")


class Validator(Protocol):
    """The contract of a plug-in. `validation.conformance` checks it."""

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        """Look at the file and answer. May block: it is called in a worker thread, perhaps in several at once,
        once for each time the file is complete.

        Anything raised (OSError, ValidationStopped, a bug) counts as FAILED: `judge` turns it into a verdict.
        """


class ApplicationDecides:
    """Answers PENDING to everything: the application looks at the temporary file and sets the state itself."""

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        """Always PENDING; does not touch the file."""
        return Verdict.pending(f"the application decides whether {candidate.name!r} is valid")


def judge(validator: Validator, candidate: Candidate, patience: Patience) -> Verdict:
    """The verdict of `validator`, whatever it does: a plug-in is code of others, so nothing it raises or returns
    may come through. Blocks as long as the validator does; raises nothing but KeyboardInterrupt.
    """
    try:
        patience.check()
        answer: object = validator.validate(candidate, patience)
    except ValidationStopped as stopped:
        return Verdict.failed(str(stopped) or "the validation was stopped")
    except OSError as error:
        return Verdict.failed(f"the file could not be validated: {error.strerror or type(error).__name__}")
    except (Exception, SystemExit) as error:  # noqa: BLE001  the border to foreign code; see the docstring
        return Verdict.failed(f"the validator crashed: {_spoken(error)}")
    if not isinstance(answer, Verdict):
        return Verdict.failed(f"the validator answered with {type(answer).__name__} in place of a Verdict")
    return answer


def one_line(text: str, limit: int) -> str:
    """`text` as one line of at most `limit` printable characters: safe for terminals, logs and JSON.

    White space becomes single spaces, anything unprintable (controls, bidirectional marks, lone surrogates) U+FFFD.
    """
    # Twice the limit is enough to see that something has to be cut, and bounds the work on hostile text.
    words = " ".join(text[: limit * 2].split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _spoken(error: BaseException) -> str:
    try:
        detail = str(error)
    except Exception:  # noqa: BLE001  an exception of foreign code may fail to describe itself
        detail = ""
    return f"{type(error).__name__}: {detail}" if detail else type(error).__name__
