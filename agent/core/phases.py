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


BUSY = (Phase.PROBING, Phase.GATHERING, Phase.FETCHING, Phase.VALIDATING)
WHOLE = (Phase.VALIDATING, Phase.DECIDING, Phase.DONE)
"""Every byte is there."""
GETTING = (Phase.GATHERING, Phase.FETCHING)
