"""When what changed in an offer is said to one who listens: at once what changes what others have to do,
together with what else happens meanwhile the rest.

Saying everything at once costs more than it brings: with an answer for each change, offers were half of what eight
cold agents spent (`bench/results/NOTES.md`); a longer pause at the end of a transfer is time lost by all.

Pure. Never knows: sockets, who listens, how an offer is written.
"""

from __future__ import annotations

from enum import Enum
from typing import assert_never

from peer.core.state import State
from validation.content import NO_CHUNKS, Bitfield

LEAST_S = 0.05
"""Between any two answers: what happens together goes out together."""

PAUSE_S = 0.2
"""Before news that can wait. In simulation, eight and sixteen cold agents took 1.10 and 1.14 of the bound with
0.1 s, 1.12 and 1.14 with 0.4 s and two thirds of the answers, 1.13 and 1.15 with 0.6 s; with pauses that grow with
time up to 1 s they took claims for broken and asked the origin for more."""

PASSED_ON_SHARE, PASSED_ON_MOST_S = 0.5, 2.0
"""Before news of chunks that are only passed on: this share of the time in which we bring one into the group
ourselves, and at most so long. On slow links nearly all changes are such."""

BYTES_PER_S = 16 * 1024
"""… and not more than so much a listener, whatever it is (a content of 16 GiB: offers of 22 KiB), so that offers
stay below 1 % of what a slow link carries."""


class Weight(Enum):
    """How much news matter to others."""

    NONE = "none"
    PASSED_ON = "passed on"
    """It has more of what others have brought."""
    BROUGHT = "brought"
    """It brings something else into the group than before: a chunk has come, or is on its way."""
    URGENT = "urgent"
    """Others may have to do something else: it takes part or does not any more, has less, or has brought all that
    it had claimed."""


class Pace:
    """What one listener was told last of one content, and when it may hear more. Times in seconds of one clock."""

    def __init__(self) -> None:
        self._told: State | None = None
        self._told_at = float("-inf")
        self._pause_s = 0.0
        self._owed = NO_CHUNKS
        """Chunks that we claimed, and have not said that we have."""
        self._brought_at: float | None = None
        self._passed_on_s = PAUSE_S

    def told(self, state: State | None, size: int, now: float) -> None:
        """An answer of `size` bytes went out."""
        brought = 0 if state is None else (self._owed & state.have).bit_count()
        if brought:
            if self._brought_at is not None:
                each_s = (now - self._brought_at) / brought
                self._passed_on_s = min(max(PAUSE_S, PASSED_ON_SHARE * each_s), PASSED_ON_MOST_S)
            self._brought_at = now
        self._owed = NO_CHUNKS if state is None else Bitfield((self._owed | state.claimed) & ~state.have)
        self._told, self._told_at, self._pause_s = state, now, max(LEAST_S, size / BYTES_PER_S)

    def due(self, state: State | None) -> float | None:
        """When this may be said; None: it is what was said."""
        match self.weigh(state):
            case Weight.NONE:
                return None
            case Weight.PASSED_ON:
                pause_s = self._passed_on_s
            case Weight.BROUGHT:
                pause_s = PAUSE_S
            case Weight.URGENT:
                pause_s = LEAST_S
            case unknown:
                assert_never(unknown)
        return self._told_at + max(self._pause_s, pause_s)

    def weigh(self, state: State | None) -> Weight:
        """How much it matters that this holds now, and not what was said. None: nothing is offered."""
        told = self._told
        if told is None or state is None:
            return Weight.NONE if told is state else Weight.URGENT
        if told.wants is not state.wants or (told.layout is not state.layout and told.layout != state.layout):
            return Weight.URGENT
        if told.have == state.have and told.claimed == state.claimed:
            return Weight.NONE
        brought = self._owed & state.have
        self._owed = Bitfield(self._owed | state.claimed)
        if told.have & ~state.have or (brought and not self._owed & ~state.have):
            return Weight.URGENT
        return Weight.BROUGHT if brought or told.claimed != state.claimed else Weight.PASSED_ON
