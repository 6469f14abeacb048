"""What peers are about to bring from the origin, and how long they are believed.

A peer that claims chunks owes them. It is believed as long as chunks it owed keep coming, each within a time that
comes from how long claims took so far; once it is late, only a chunk that it owed makes it believed again. Outlives
the peer's offers, so that coming back renews nothing. Never knows: who fetches what, requests, digests.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.sources import SourceId
from agent.core.tuning import Tuning
from validation.content import NO_CHUNKS, Bitfield

_WEIGHT = 0.3
"""Of the newest measurement in the mean: the last three make two thirds of it."""


@dataclass(slots=True)
class _Promise:
    owing: Bitfield
    """Chunks it ever claimed and does not have yet."""
    mark: float
    """When it last had none, or got one of them."""


class Claims:
    """The promises of the peers of one transfer."""

    def __init__(self, tuning: Tuning, chunk_bytes: int) -> None:
        self._tuning = tuning
        self._longest_s = tuning.claim_patience_s + chunk_bytes / tuning.claim_rate_bytes_per_s
        self._promises: dict[SourceId, _Promise] = {}
        self.pace_s: float | None = None
        """What a chunk of the origin takes, ours or another's, in the mean."""

    @property
    def patience_s(self) -> float:
        """How long the next chunk of a claim may take."""
        if self.pace_s is None:
            return self._longest_s
        tuning = self._tuning
        wanted = max(tuning.least_claim_s, tuning.claim_paces * self.pace_s + tuning.claim_grace_s)
        return min(self._longest_s, wanted)

    @property
    def hunger_s(self) -> float:
        """How long chunks that nobody claims are left to whom they belong, when nothing else is to be asked."""
        return min(self.patience_s, self._tuning.hunger_s) if self.pace_s is None else self.patience_s

    def took(self, seconds: float) -> None:
        """A chunk of the origin, ours or another's, took so long."""
        before = seconds if self.pace_s is None else self.pace_s
        self.pace_s = before + _WEIGHT * (seconds - before)

    def offered(self, source: SourceId, have: Bitfield, claimed: Bitfield, now: float) -> None:
        """What a peer has and claims now."""
        promise = self._promises.get(source)
        if promise is None:
            promise = self._promises[source] = _Promise(NO_CHUNKS, now)
        kept = (promise.owing & have).bit_count()
        if kept:
            self.took((now - promise.mark) / kept)
        if kept or not promise.owing:
            promise.mark = now
        promise.owing = Bitfield((promise.owing | claimed) & ~have)

    def until(self, source: SourceId) -> float | None:
        """When it is late with what it owes; None: it owes nothing."""
        promise = self._promises.get(source)
        return promise.mark + self.patience_s if promise is not None and promise.owing else None

    def late(self, source: SourceId, now: float) -> bool:
        """It owes chunks that should have come."""
        until = self.until(source)
        return until is not None and now >= until
