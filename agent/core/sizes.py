"""Sizes as people write them: `10GiB`, `1.5 MB`, `1048576`.

Never knows: what is that large.
Sources: IEC 80000-13 (KiB, MiB: powers of 1024), SI (kB, MB: powers of 1000).
"""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}


def parse_size(text: str) -> int:
    """Bytes of `1048576`, `10GiB`, `1.5 MB`. Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"must be a size such as 500MB or 10GiB, not {text!r}")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
