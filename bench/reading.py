"""What people write on a bench's command line -> values.

Never knows: which command reads it.
"""

from __future__ import annotations

import argparse
import re

from bench.scenarios import MBIT, ScenarioError

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
HIGHEST_MBIT = 1e9


def rate_of(mbit: float | None) -> int | None:
    """Bit/s; None as it is. Raises ScenarioError for what no link can do."""
    if mbit is None:
        return None
    if not 0 < mbit < HIGHEST_MBIT:
        raise ScenarioError(f"a rate must be above 0 and below {HIGHEST_MBIT:.0e} Mbit/s, not {mbit:g}")
    return round(mbit * MBIT)


def size_of(text: str) -> int:
    """Bytes. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text)
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 64MiB")
    return int(match[1]) * factor
