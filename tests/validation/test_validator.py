"""The contract itself: verdicts, patience, and `judge`, which lets nothing of a plug-in through."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.candidates import candidate
from validation.errors import ValidationStopped
from validation.validator import (
    MAX_REASON_CHARACTERS,
    ApplicationDecides,
    Candidate,
    Decision,
    Patience,
    Validator,
    Verdict,
    judge,
    one_line,
)

NOWHERE = candidate(Path("/nonexistent/candidate.part"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Answers:
    def __init__(self, answer: object) -> None:
        self._answer = answer

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return cast(Verdict, self._answer)


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def asked(answer: object) -> Verdict:
    return judge(Answers(answer), NOWHERE, Patience.endless())


def test_verdicts_come_through_unchanged() -> None:
    for verdict in (
        Verdict.accepted("yes"),
        Verdict.rejected("no"),
        Verdict.pending("later"),
        Verdict.failed("out of order"),
    ):
        assert asked(verdict) is verdict


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "No such file or directory"),
        (OSError(), "could not be validated: OSError"),
        (ValidationStopped("enough"), "enough"),
        (ValidationStopped(), "was stopped"),
        (ZeroDivisionError("division by zero"), "crashed: ZeroDivisionError: division by zero"),
        (SystemExit(0), "crashed: SystemExit: 0"),
        (MemoryError(), "crashed: MemoryError"),
        (Speechless(), "crashed: Speechless"),
        (ValueError("two\nlines\x1b[31m"), "two lines\ufffd[31m"),
    ],
)
def test_whatever_a_plug_in_raises_is_a_failure(raised: BaseException, words: str) -> None:
    verdict = asked(raised)
    assert verdict.decision is Decision.FAILED
    assert words in verdict.reason


@pytest.mark.parametrize("answer", [None, True, "accepted", Decision.ACCEPTED])
def test_only_a_verdict_is_a_verdict(answer: object) -> None:
    verdict = asked(answer)
    assert verdict.decision is Decision.FAILED
    assert "in place of a Verdict" in verdict.reason


def test_keyboard_interrupt_leaves() -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(KeyboardInterrupt())


def test_nobody_is_asked_when_nobody_waits() -> None:
    patience = Patience.endless()
    patience.withdraw()
    verdict = judge(Answers(Verdict.accepted("yes")), NOWHERE, patience)
    assert verdict == Verdict.failed("the validation was stopped")


def test_patience_ends_by_the_clock() -> None:
    clock = Clock()
    patience = Patience(clock, 2.5)
    patience.check()
    assert patience.remaining_s() == 2.5
    clock.now += 2.0
    patience.check()
    assert patience.remaining_s() == 0.5
    clock.now += 0.5
    assert patience.remaining_s() == 0.0
    with pytest.raises(ValidationStopped, match=r"no verdict within 2\.5 s"):
        patience.check()
    clock.now += 1000
    assert patience.remaining_s() == 0.0


def test_endless_patience_ends_when_withdrawn() -> None:
    patience = Patience.endless()
    patience.check()
    assert patience.remaining_s() is None
    patience.withdraw()
    patience.withdraw()
    assert patience.remaining_s() == 0.0
    with pytest.raises(ValidationStopped, match="stopped"):
        patience.check()


@given(st.text(max_size=2000))
def test_reasons_are_one_printable_line(text: str) -> None:
    line = one_line(text, MAX_REASON_CHARACTERS)
    assert line.isprintable()
    assert len(line) <= MAX_REASON_CHARACTERS
    assert one_line(line, MAX_REASON_CHARACTERS) == line
    line.encode()
    if line:
        assert Verdict.rejected(text).reason == line
    else:
        with pytest.raises(ValueError, match="needs a reason"):
            Verdict.rejected(text)


def test_long_reasons_are_cut_visibly() -> None:
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line("x" * 11, 10) == "x" * 9 + "…"
    assert one_line("a\u202eb", 10) == "a\ufffdb"
    assert len(Verdict.failed("y" * 100_000).reason) == MAX_REASON_CHARACTERS


def test_the_application_decides(tmp_path: Path) -> None:
    validator: Validator = ApplicationDecides()
    verdict = judge(validator, candidate(tmp_path / "file.part", b"anything"), Patience.endless())
    assert verdict.decision is Decision.PENDING
    assert "application decides" in verdict.reason
