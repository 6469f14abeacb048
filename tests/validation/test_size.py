"""Validator size."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.candidates import verdict_on
from validation.conformance import Examples, check
from validation.errors import ValidatorArgumentError
from validation.plugins.size import size
from validation.validator import Decision


@pytest.mark.parametrize("argument", ["1000", "1kB", "900-1000", "1000-", "1000-1000"])
def test_conformance(argument: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(bytes(1000))
    bad.write_bytes(bytes(899))
    check(Examples(make=lambda: size(argument), good=good, bad=bad))


@pytest.mark.parametrize(
    ("argument", "accepted", "rejected"),
    [
        ("0", [0], [1]),
        ("7", [7], [0, 6, 8]),
        (" 7 b ", [7], [6, 8]),
        ("1KiB", [1024], [1023, 1025]),
        ("1kb", [1000], [1024]),
        ("10-20", [10, 15, 20], [9, 21]),
        ("1KiB - 2KiB", [1024, 2048], [1023, 2049]),
        ("10-", [10, 5000], [9]),
        ("-10", [0, 10], [11]),
        ("0-", [0, 1], []),
    ],
)
def test_what_an_argument_means(argument: str, accepted: list[int], rejected: list[int], tmp_path: Path) -> None:
    for wanted, lengths in ((Decision.ACCEPTED, accepted), (Decision.REJECTED, rejected)):
        for length in lengths:
            verdict = verdict_on(size(argument), tmp_path / "file", bytes(length))
            assert verdict.decision is wanted, (length, verdict)
            assert f"it has {length} bytes" in verdict.reason


@pytest.mark.parametrize(
    ("argument", "length"), [("10MiB", 10 << 20), ("3GB", 3 * 10**9), ("2TiB", 2 << 40), ("1tb", 10**12)]
)
def test_large_units(argument: str, length: int, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        try:
            file.truncate(length)
        except OSError:
            pytest.skip("the file system takes no file of this size")
    assert verdict_on(size(argument), path).decision is Decision.ACCEPTED
    assert verdict_on(size(f"{argument}-"), path).decision is Decision.ACCEPTED
    assert verdict_on(size(str(length + 1)), path).decision is Decision.REJECTED


@pytest.mark.parametrize(
    "argument",
    [None, "", "  ", "-", " - ", "x", "1.5GiB", "1K", "1 M", "-5-", "1-2-3", "2-1", "0x10", "1e3", "１２", "1PiB1",
     "2048TiB", "99999999999999999999"],
)  # fmt: skip
def test_bad_arguments(argument: str | None) -> None:
    with pytest.raises(ValidatorArgumentError):
        size(argument)


@given(st.text("0123456789-kKmMgGtTiIbB. ", max_size=12) | st.text(max_size=12))
def test_any_text_is_a_size_or_an_argument_error(text: str) -> None:
    with suppress(ValidatorArgumentError):
        size(text)
