"""Tables and figures for people and files: aligned columns, no control characters, at most `WIDTH` wide.

Never knows: what is measured.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its title, its width in characters, and the side its text leans to (`<` or `>`)."""

    title: str
    width: int
    lean: str = ">"


class Table:
    """A table that is printed row by row, as the rows come to be known."""

    def __init__(self, columns: Sequence[Column], stream: TextIO | None = None) -> None:
        self._columns = columns
        self._stream = stream

    def head(self) -> None:
        """Titles and a rule."""
        self.row([column.title for column in self._columns])
        self.row(["-" * column.width for column in self._columns])

    def row(self, cells: Sequence[str]) -> None:
        """One row; a text that is too long moves the rest instead of being cut."""
        parts = [f"{cell:{column.lean}{column.width}}" for cell, column in zip(cells, self._columns, strict=True)]
        print("  ".join(parts).rstrip(), file=self._stream or sys.stdout, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, least and greatest of some measurements."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        found = sorted(values)
        return cls(median=statistics.median(found), least=found[0], greatest=found[-1])

    def text(self, digits: int = 2) -> str:
        """`median [least-greatest]`."""
        return f"{self.median:.{digits}f} [{self.least:.{digits}f}-{self.greatest:.{digits}f}]"

    def document(self) -> dict[str, float]:
        """For `--json`."""
        return {"median": self.median, "min": self.least, "max": self.greatest}


def count(value: int | None) -> str:
    """Bytes, exactly: `41,943,040`; `-` when nobody counted."""
    return "-" if value is None else f"{value:,}"


def rate(bytes_per_s: float) -> str:
    """`812 MB/s` (decimal)."""
    return f"{bytes_per_s / 1e6:,.0f} MB/s" if bytes_per_s >= 1e7 else f"{bytes_per_s / 1e6:.1f} MB/s"


def json_line(document: object) -> None:
    """One document on one line of standard output."""
    print(json.dumps(document, sort_keys=False, separators=(",", ":")), flush=True)


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"bench: {message}", file=sys.stderr, flush=True)
