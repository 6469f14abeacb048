"""Where one file is on its way. Never knows: what leads from one phase to another (`transfer.py`)."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a file is. Exactly one at a time; the only state that decides what an event means."""

    IDLE = "idle"
    """Waits for `Begun`."""
    PROBING = "probing"
    GATHERING = "gathering"
    FETCHING = "fetching"
    VALIDATING = "validating"
    DECIDING = "deciding"
    DONE = "done"
    FAILED = "failed"
