"""The kinds of values that settings have: what stands in the file, the environment or a flag -> the field's value.

Every parser takes the value and the directory that relative paths start from, and raises ValueError: a sentence
that goes on after the setting's name ("must be ..."). Never knows: which setting it reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from agent.core.pacing import NEVER, OFF, Allowance, Windows, parse_allowance, parse_windows
from agent.core.sizes import parse_size

Parser = Callable[[object, Path], object]
"""Value and the directory that relative paths start from -> the field's value. Raises ValueError."""

_SWITCH = {"true": True, "on": True, "yes": True, "false": False, OFF: False, "no": False}


# --- words ---------------------------------------------------------------------------------------------------


def text(value: object, base: Path) -> str:
    """One line."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"must be a line of text, not {value!r}")
    return value.strip()


def secret(value: object, base: Path) -> str:
    """As `text`, without repeating the value in the message; keys are pasted with line breaks."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value.strip()


def path(value: object, base: Path) -> Path:
    """A path; `~` is the user's home."""
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"must be a path, not {value!r}")
    return base / Path(value).expanduser()


def texts(value: object, base: Path) -> tuple[str, ...]:
    """A list; in the environment, separated by commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list of texts, not {value!r}")
    return tuple(text(item, base) for item in items)


def peers(value: object, base: Path) -> tuple[str, ...]:
    """A list of HOST:PORT."""
    found = texts(value, base)
    for item in found:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/\s]+):([0-9]{1,5})", item)
        if match is None or not 0 < int(match[2]) < 65_536:
            raise ValueError(f"must be HOST:PORT, not {item!r}")
    return found


def choice(kind: type[StrEnum]) -> Parser:
    """One of the values of an enum, in any case of letters."""

    def parse(value: object, base: Path) -> StrEnum:
        if isinstance(value, str) and value.lower() in tuple(kind):
            return kind(value.lower())
        raise ValueError(f"must be one of {', '.join(kind)}, not {value!r}")

    return parse


def switch(value: object, base: Path) -> bool:
    """true, on or yes; false, off or no."""
    found = value if isinstance(value, bool) else _SWITCH.get(_word(value))
    if found is None:
        raise ValueError(f"must be true or false (or on, off, yes, no), not {value!r}")
    return found


# --- numbers -------------------------------------------------------------------------------------------------


def whole(low: int, high: int) -> Parser:
    """A whole number within bounds."""

    def parse(value: object, base: Path) -> int:
        number = _number(value)
        if number != int(number) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {value}")
        return int(number)

    return parse


def limit(high: int) -> Parser:
    """A whole number from 1, or `off`, which is None."""
    count = whole(1, high)

    def parse(value: object, base: Path) -> object:
        if _word(value) == OFF:
            return None
        try:
            return count(value, base)
        except ValueError as error:
            raise ValueError(f"{error} (off: no limit)") from error

    return parse


def above_zero(high: float) -> Parser:
    """A number above 0."""

    def parse(value: object, base: Path) -> float:
        number = _number(value)
        if not 0 < number <= high:
            raise ValueError(f"must be above 0 and at most {high:g}, not {value}")
        return number

    return parse


def from_zero(high: float, *, floor: float = 0.0) -> Parser:
    """A number from 0; one below `floor` is raised to it silently."""

    def parse(value: object, base: Path) -> float:
        number = _number(value)
        if not 0 <= number <= high:
            raise ValueError(f"must be from 0 to {high:g}, not {value}")
        return max(floor, number)

    return parse


def size(value: object, base: Path) -> int | None:
    """Bytes above 0, or `off`, which is None."""
    if _word(value) == OFF:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be a size such as 500MB or 10GiB, not {value!r}")
    found = parse_size(value) if isinstance(value, str) else value
    if found <= 0:
        raise ValueError("must be above 0 bytes (or off)")
    return found


# --- bandwidth -----------------------------------------------------------------------------------------------


def allowance(value: object, base: Path) -> Allowance:
    """As `parse_allowance`; a bare number is one rate for all three priorities."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be bytes per second such as 2MB, or high=off,normal=1MB,low=0, not {value!r}")
    return parse_allowance(str(value))


def windows(value: object, base: Path) -> Windows:
    """As `parse_windows`; in the file also a list."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"must be hours such as mon-fri 08:00-17:00, not {value!r}")
    return parse_windows(",".join(entries)) if entries else NEVER


# --- inside --------------------------------------------------------------------------------------------------


def _word(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number, not {value!r}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"must be a number, not {value!r}")
    return number
