"""Sizes as people write them."""

from __future__ import annotations

import pytest

from agent.core.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("10GiB", 10 * 1024**3),
        ("1.5 MB", 1_500_000),
        (" 2 kib ", 2048),
        ("3tb", 3 * 1000**4),
        ("7 B", 7),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1,5MB", "1.MB", "1 EiB", "10 GiB/s", "1e6", "one"])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as 500MB"):
        parse_size(text)
