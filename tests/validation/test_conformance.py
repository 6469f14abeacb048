"""The suite for plug-in authors: good validators pass, and each test of it catches the fault it is for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from validation.conformance import CHECKS, ConformanceError, Examples, check, check_one
from validation.validator import Candidate, Decision, Patience, Verdict

GOOD, BAD = b"good bytes", b"bad bytes"
Rule = Callable[[Candidate, Patience], Verdict]


def honest(candidate: Candidate, patience: Patience) -> Verdict:
    if candidate.path.read_bytes() == GOOD:
        return Verdict.accepted("these are the good bytes")
    return Verdict.rejected("these are not the good bytes")


class ByRule:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        return self._rule(candidate, patience)


def examples(tmp_path: Path, rule: Rule) -> Examples:
    good, bad = tmp_path / "good.bin", tmp_path / "bad.bin"
    good.write_bytes(GOOD)
    bad.write_bytes(BAD)
    return Examples(make=lambda: ByRule(rule), good=good, bad=bad)


def always(verdict: Verdict) -> Rule:
    return lambda candidate, patience: verdict


def after(deed: Callable[[Path], object]) -> Rule:
    def rule(candidate: Candidate, patience: Patience) -> Verdict:
        verdict = honest(candidate, patience)
        deed(candidate.path)
        return verdict

    return rule


def moody() -> Rule:
    answers = iter([Verdict.accepted("yes"), Verdict.rejected("no")] * 20)
    return lambda candidate, patience: next(answers)


def ascii_only(candidate: Candidate, patience: Patience) -> Verdict:
    return honest(candidate, patience) if str(candidate.path).isascii() else Verdict.rejected("odd name")


def hates_empty(candidate: Candidate, patience: Patience) -> Verdict:
    assert candidate.length > 0
    return honest(candidate, patience)


def takes_missing(candidate: Candidate, patience: Patience) -> Verdict:
    return honest(candidate, patience) if candidate.path.exists() else Verdict.accepted("nothing is fine")


def rejects_missing(candidate: Candidate, patience: Patience) -> Verdict:
    return honest(candidate, patience) if candidate.path.exists() else Verdict.rejected("nothing there")


def takes_directories(candidate: Candidate, patience: Patience) -> Verdict:
    return Verdict.rejected("a directory") if candidate.path.is_dir() else honest(candidate, patience)


def accepts_in_haste(candidate: Candidate, patience: Patience) -> Verdict:
    return Verdict.accepted("no time to look") if patience.remaining_s() == 0.0 else honest(candidate, patience)


def rejects_in_haste(candidate: Candidate, patience: Patience) -> Verdict:
    return Verdict.rejected("no time to look") if patience.remaining_s() == 0.0 else honest(candidate, patience)


def open_forever(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


class Shared:
    """Cannot work when two threads are inside it at once; waits for that to happen."""

    def __init__(self) -> None:
        self._two = threading.Barrier(2)

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        self._two.wait(timeout=10)
        return Verdict.failed("somebody else is here")


def test_an_honest_validator_passes(tmp_path: Path) -> None:
    check(examples(tmp_path, honest))


@pytest.mark.parametrize("name", CHECKS)
def test_tests_can_run_one_by_one(name: str, tmp_path: Path) -> None:
    check_one(name, examples(tmp_path, honest))


@pytest.mark.parametrize(
    ("caught_by", "rule"),
    [
        ("accepts_good", always(Verdict.rejected("never"))),
        ("accepts_good", always(Verdict.pending("perhaps"))),
        ("rejects_bad", always(Verdict.accepted("always"))),
        ("rejects_bad", always(Verdict.failed("out of order"))),
        ("leaves_the_file_alone", after(lambda path: path.unlink())),
        ("leaves_the_file_alone", after(lambda path: path.rename(path.with_suffix(".moved")))),
        ("leaves_the_file_alone", after(lambda path: path.write_bytes(b"x" * len(path.read_bytes())))),
        ("leaves_the_file_alone", after(lambda path: path.chmod(0o777))),
        ("leaves_the_file_alone", after(lambda path: os.utime(path, (1, 1)))),
        ("leaves_the_file_alone", after(lambda path: path.with_name("report.txt").touch())),
        ("answers_the_same_twice", moody()),
        ("judges_an_empty_file", hates_empty),
        ("fails_on_a_missing_file", takes_missing),
        ("fails_on_a_missing_file", rejects_missing),
        ("fails_on_a_directory", takes_directories),
        ("takes_any_path", ascii_only),
        ("stops_when_told", accepts_in_haste),
        ("stops_when_told", rejects_in_haste),
        ("closes_the_file", after(open_forever)),
    ],
)
def test_every_fault_is_caught(caught_by: str, rule: Rule, tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match=f"^{caught_by}: "):
        check_one(caught_by, examples(tmp_path, rule))


def test_sharing_between_threads_is_caught(tmp_path: Path) -> None:
    given = examples(tmp_path, honest)
    shared = Examples(make=Shared, good=given.good, bad=given.bad)
    with pytest.raises(ConformanceError, match="works_in_threads: asked from four threads"):
        check_one("works_in_threads", shared)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConformanceError) as caught:
        check(examples(tmp_path, always(Verdict(Decision.FAILED, "out of order"))))
    message = str(caught.value)
    assert isinstance(caught.value, AssertionError)
    assert "accepts_good: expected accepted, got failed (out of order)" in message
    assert "rejects_bad: expected rejected, got failed (out of order)" in message
    assert "leaves_the_file_alone" not in message


def test_importing_it_needs_no_pytest() -> None:
    program = "import sys, validation.conformance; sys.exit('pytest' in sys.modules or 'hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
