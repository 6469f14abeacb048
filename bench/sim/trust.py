"""Whom one agent of the simulation believes: bans, and what others say of liars, as agents have it.

A ban for a lie does not end service: who lied is still given what it asks for (peer/exclusion.py). Never knows:
chunks, links, time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.core.hearsay import WITNESSES

if TYPE_CHECKING:
    from bench.sim.host import Host


ASK_ANEW_S = 0.3
"""From a ban until others are asked in other words (peer/questions.py)."""


class Trust:
    """Of one host."""

    __slots__ = ("_said", "banned", "calm")

    def __init__(self) -> None:
        self.calm = True
        """It has heard of no liar yet."""
        self.banned: set[Host] = set()
        """Found lying by itself: their word counts no more."""
        self._said: dict[Host, set[Host]] = {}
        """Of whom others say that it lies, and who."""

    def avoids(self, other: Host) -> bool:
        """It is not asked for anything."""
        return other in self.banned or len(self._said.get(other, ())) >= WITNESSES

    def ban(self, liar: Host) -> None:
        """It was found lying."""
        self.calm = False
        self.banned.add(liar)

    def hears(self, witness: Host, liar: Host) -> bool:
        """A witness says that it was lied to. True: from now on the liar is left alone."""
        if witness in self.banned:
            return False
        self.calm = False
        before = self.avoids(liar)
        self._said.setdefault(liar, set()).add(witness)
        return self.avoids(liar) and not before
