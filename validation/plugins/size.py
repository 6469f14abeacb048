"""Validator `size`: the file has this many bytes. ARG: `1234`, `10MiB`, `1000-2000`, `1MB-`, `-4GiB`.

Both ends of a range belong to it. Units: B; kB MB GB TB (powers of 1000); KiB MiB GiB TiB (powers of 1024), in
either case. Whole numbers only. It must never know: what the origin announced.
"""

from __future__ import annotations

import os
import re

from validation.content import MAX_CONTENT_BYTES
from validation.errors import ValidatorArgumentError
from validation.plugins.reading import opened
from validation.validator import Candidate, Patience, Validator, Verdict

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
# 16 digits are enough for MAX_CONTENT_BYTES; ASCII digits only.
_SIZE = re.compile(r"\s*([0-9]{1,16})\s*([A-Za-z]*)\s*")


class Size:
    """Accepts files of `least` to `most` bytes, both included; None means no bound."""

    def __init__(self, least: int | None, most: int | None) -> None:
        self._least = least
        self._most = most

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        """Look at the file's size, not at its bytes. Raises OSError."""
        with opened(candidate.path) as fd:
            found = os.fstat(fd).st_size
        if self._least is not None and found < self._least:
            return Verdict.rejected(f"it has {found} bytes, fewer than {self._least}")
        if self._most is not None and found > self._most:
            return Verdict.rejected(f"it has {found} bytes, more than {self._most}")
        return Verdict.accepted(f"it has {found} bytes")


def size(argument: str | None) -> Validator:
    """A number of bytes, or a range of numbers. Raises ValidatorArgumentError."""
    if argument is None or not argument.strip():
        raise ValidatorArgumentError("size needs a number of bytes, for example size:10MiB or size:1000-2000")
    first, dash, last = argument.partition("-")
    if not dash:
        exact = _bytes(first)
        return Size(exact, exact)
    least = _bytes(first) if first.strip() else None
    most = _bytes(last) if last.strip() else None
    if least is None and most is None:
        raise ValidatorArgumentError("a range of sizes needs at least one end, for example size:1000-")
    if least is not None and most is not None and least > most:
        raise ValidatorArgumentError(f"no size is at least {least} and at most {most} bytes")
    return Size(least, most)


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    unit = None if match is None else _UNITS.get(match[2].lower())
    if match is None or unit is None:
        raise ValidatorArgumentError(f"not a size: {text.strip()!r} (write 1234, 10MB or 10MiB)")
    value: int = int(match[1]) * unit
    if value > MAX_CONTENT_BYTES:
        raise ValidatorArgumentError(f"{text.strip()} is more than the {MAX_CONTENT_BYTES} bytes a file may have")
    return value
