"""When what changed in an offer is said to one who holds a question: at once what others wait for, later the rest.

A chunk that its owner has brought into the group is news for all; that somebody passed it on too is of use to few.
Saying everything at once costs more than it brings: with an answer for each change, offers were half of what eight
cold agents spent (`bench/results/NOTES.md`). So news of both kinds come the less often the longer somebody has
listened: a delay that is a small share of the time that has passed already costs little, whatever the rates are.

Pure. Never knows: sockets, who listens, how an offer is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from validation.content import NO_CHUNKS, Bitfield, ChunkLayout

LEAST_S = 0.05
"""Between any two answers: what happens together goes out together."""

PROMPT_SHARE, PROMPT_LEAST_S, PROMPT_MOST_S = 0.08, 0.1, 1.0
"""Chunks that come into the group: a share of the time since the first question, and its bounds. A claim is
believed for 1.5 s at least (agent/core/tuning.py): news of it must not take longer."""

LATE_SHARE, LATE_LEAST_S, LATE_MOST_S = 0.16, 0.4, 2.0
"""Chunks that are passed on."""

BYTES_PER_S = 16 * 1024
"""… and not more than so much a listener, whatever it is (a content of 16 GiB: offers of 22 KiB), so that offers
stay below 1 % of what a slow link carries."""


class Weight(Enum):
    """How much news matter to others."""

    NONE = "none"
    LATE = "late"
    """It has more of what it did not bring itself."""
    PROMPT = "prompt"
    """What it brings into the group is another: a chunk has come, or the next one is on its way."""
    URGENT = "urgent"
    """Others may have to do something else: it takes part or does not any more, or brings nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is said of one content."""

    layout: ChunkLayout
    have: Bitfield
    claimed: Bitfield
    wants: bool


class Pace:
    """What one listener was told last of one content, and when it may hear more. Times in seconds of one clock."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._told: State | None = None
        self._told_at = float("-inf")
        self._pause_s = 0.0
        self._owed = NO_CHUNKS
        """Chunks that we claimed, and have not said that we have."""

    def told(self, state: State | None, size: int, now: float) -> None:
        """An answer of `size` bytes went out."""
        self._owed = NO_CHUNKS if state is None else Bitfield((self._owed | state.claimed) & ~state.have)
        self._told, self._told_at, self._pause_s = state, now, max(LEAST_S, size / BYTES_PER_S)

    def due(self, state: State | None) -> float | None:
        """When this may be said; None: it is what was said."""
        weight, pause_s, listened_s = self.weigh(state), self._pause_s, self._told_at - self._began
        match weight:
            case Weight.NONE:
                return None
            case Weight.URGENT:
                pass
            case Weight.PROMPT:
                pause_s = max(pause_s, min(max(PROMPT_SHARE * listened_s, PROMPT_LEAST_S), PROMPT_MOST_S))
            case Weight.LATE:
                pause_s = max(pause_s, min(max(LATE_SHARE * listened_s, LATE_LEAST_S), LATE_MOST_S))
            case _:
                assert_never(weight)
        return self._told_at + pause_s

    @property
    def again(self) -> float:
        """When the same may be said once more, to one who asks as if it had not been said."""
        return self._told_at + max(self._pause_s, LATE_LEAST_S)

    def weigh(self, state: State | None) -> Weight:
        """How much it matters that this holds now, and not what was said. None: nothing is offered."""
        told = self._told
        if told == state:
            return Weight.NONE
        if told is None or state is None or told.layout != state.layout or told.wants is not state.wants:
            return Weight.URGENT
        brought = self._owed & state.have
        self._owed = Bitfield(self._owed | state.claimed)
        if told.have & ~state.have or (brought and not self._owed & ~state.have):
            return Weight.URGENT
        return Weight.PROMPT if brought or told.claimed != state.claimed else Weight.LATE
