"""Validators sha256, sha512, blake2b."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.candidates import candidate, verdict_on
from validation.conformance import Examples, check
from validation.errors import ValidatorArgumentError
from validation.plugins.checksum import blake2b, sha256, sha512
from validation.plugins.reading import BLOCK_BYTES
from validation.validator import Decision, Patience, Validator, judge

Factory = Callable[[str | None], Validator]
ALL: list[tuple[Factory, str]] = [(sha256, "sha256"), (sha512, "sha512"), (blake2b, "blake2b")]
each = pytest.mark.parametrize(("factory", "name"), ALL, ids=[name for _, name in ALL])


@each
def test_conformance(factory: Factory, name: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"g" * 3_000_000)
    bad.write_bytes(b"g" * 2_999_999 + b"b")
    argument = hashlib.new(name, good.read_bytes()).hexdigest()
    check(Examples(make=lambda: factory(argument), good=good, bad=bad))


@each
@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_edges_of_blocks(factory: Factory, name: str, length: int, tmp_path: Path) -> None:
    content = bytes(length)
    validator = factory(hashlib.new(name, content).hexdigest().upper())
    verdict = verdict_on(validator, tmp_path / "file", content)
    assert verdict.decision is Decision.ACCEPTED
    assert verdict.reason.startswith(f"its digest is {name}:")


def test_a_rejection_names_both_digests(tmp_path: Path) -> None:
    verdict = verdict_on(sha256("ab" * 32), tmp_path / "file", b"abc")
    assert verdict.decision is Decision.REJECTED
    assert verdict.reason == f"its sha256 is {hashlib.sha256(b'abc').hexdigest()}, not {'ab' * 32}"


@each
@pytest.mark.parametrize("argument", [None, "", " ", "abc", "zz" * 32, "zz" * 64, "ab" * 31, "sha256:" + "ab" * 32])
def test_bad_arguments(factory: Factory, name: str, argument: str | None) -> None:
    with pytest.raises(ValidatorArgumentError, match=r"digest|hexadecimal"):
        factory(argument)


def test_symbolic_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"abc")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    validator = sha256(hashlib.sha256(b"abc").hexdigest())
    assert verdict_on(validator, target).decision is Decision.ACCEPTED
    for path in (link, pipe):
        assert verdict_on(validator, path).decision is Decision.FAILED


def test_patience_is_asked_between_blocks(tmp_path: Path) -> None:
    """Time runs out while the file is read: each look at the clock takes a second."""
    ticks = iter(range(1000))
    patience = Patience(lambda: float(next(ticks)), 5.0)
    given = candidate(tmp_path / "file", bytes(20 * BLOCK_BYTES))
    verdict = judge(sha256("ab" * 32), given, patience)
    assert verdict.decision is Decision.FAILED
    assert "no verdict within 5 s" in verdict.reason
    assert next(ticks) < 15, "it should have stopped long before the end of the file"
