"""When progress is due to be recorded, and how durably. Decides only; never knows where it is recorded."""

from __future__ import annotations

from agent.core.commands import Durability
from agent.core.tuning import Tuning


class SaveClock:
    """Counts new bytes against the limits of `Tuning`."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._new_bytes = 0
        self._noted_at: float | None = None
        self._checkpoint_at: float | None = None
        self._unsafe = False

    def arrived(self, count: int, now: float) -> None:
        """New bytes are in the part file."""
        self._new_bytes += count
        self._unsafe = True
        if self._noted_at is None:
            self._noted_at = now
        if self._checkpoint_at is None:
            self._checkpoint_at = now

    def due(self, now: float) -> Durability | None:
        """What is due now; the caller then saves and says `saved`."""
        checkpoint = self._checkpoint_at
        if self._unsafe and checkpoint is not None and now >= checkpoint + self._tuning.checkpoint_s:
            return Durability.POWER
        if self._new_bytes >= self._tuning.note_bytes:
            return Durability.PROCESS
        if self._new_bytes and self._noted_at is not None and now >= self._noted_at + self._tuning.note_s:
            return Durability.PROCESS
        return None

    def saved(self, durability: Durability, now: float) -> None:
        """Progress was recorded."""
        self._new_bytes = 0
        self._noted_at = now
        if durability is Durability.POWER:
            self._checkpoint_at = now
            self._unsafe = False

    def deadline(self) -> float | None:
        """When `due` will next have something to say, if no byte arrives."""
        first = None
        if self._new_bytes and self._noted_at is not None:
            first = self._noted_at + self._tuning.note_s
        if self._unsafe and self._checkpoint_at is not None:
            at = self._checkpoint_at + self._tuning.checkpoint_s
            first = at if first is None or at < first else first
        return first
