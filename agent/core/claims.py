"""What peers are about to bring from the origin, and how long they are believed.

A peer that claims chunks owes them. It is believed as long as chunks it owed keep coming, each within a time that
comes from how long claims took so far; once it is late, only a chunk that it owed makes it believed again. Outlives
the peer's offers, so that coming back renews nothing. Never knows: who fetches what, requests, digests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.core.sources import SourceId
from agent.core.tuning import Tuning
from validation.content import NO_CHUNKS, Bitfield

_WEIGHT = 0.3
"""Of the newest measurement in the mean: the last three make two thirds of it."""

_SLOW = 4.0
"""Who takes so many times as long as the others is not waited for: its link is slow, not its luck. Nor are others
believed longer for it."""


@dataclass(slots=True)
class Promise:
    """Of one peer."""

    owing: Bitfield
    """Chunks it ever claimed and does not have yet."""
    mark: float
    """When it last had none, or got one of them."""
    pace_s: float | None = None
    """What a chunk that it owed took, in the mean."""
    own_patience_s: float = 0.0
    """How long its next one may take, going by that alone."""


class Claims:
    """The promises of the peers of one transfer."""

    def __init__(self, tuning: Tuning, chunk_bytes: int) -> None:
        self._tuning = tuning
        self._longest_s = tuning.claim_patience_s + chunk_bytes / tuning.claim_rate_bytes_per_s
        self._promises: dict[SourceId, Promise] = {}
        self.pace_s: float | None = None
        """What a chunk of the origin takes, ours or another's, in the mean."""
        self.patience_s = self._longest_s
        """How long the next chunk of a claim may take, of a peer of which nothing else is known."""

    @property
    def hunger_s(self) -> float:
        """How long chunks that nobody claims are left to whom they belong, when nothing else is to be asked."""
        return min(self.patience_s, self._tuning.hunger_s) if self.pace_s is None else self.patience_s

    def took(self, seconds: float) -> None:
        """A chunk of the origin, ours or another's, took so long."""
        self.pace_s = _mean(self.pace_s, seconds)
        self.patience_s = self._patience(self.pace_s)

    def until(self, promise: Promise) -> float:
        """When the next chunk that it owes should have come. One connection of many may get a third of what the
        others get, for minutes: it is judged by its own pace, when that is the slower one."""
        return promise.mark + max(self.patience_s, promise.own_patience_s)

    def _patience(self, pace_s: float) -> float:
        tuning = self._tuning
        wanted = max(tuning.least_claim_s, tuning.claim_paces * pace_s + tuning.claim_grace_s)
        return min(self._longest_s, wanted)

    def offered(self, source: SourceId, have: Bitfield, claimed: Bitfield, now: float) -> Promise:
        """What a peer has and claims now. Its promise, which stays the same object."""
        promise = self._promises.get(source)
        if promise is None:
            promise = self._promises[source] = Promise(NO_CHUNKS, now)
        self.renew(promise, have, claimed, now)
        return promise

    def renew(self, promise: Promise, have: Bitfield, claimed: Bitfield, now: float) -> None:
        """The same, of one that has offered before."""
        if not (promise.owing or claimed):
            promise.mark = now
            return
        kept = (promise.owing & have).bit_count()
        if kept:
            each_s, most_s = (now - promise.mark) / kept, _SLOW * (self.pace_s or math.inf)
            promise.pace_s = _mean(promise.pace_s, each_s)
            promise.own_patience_s = self._patience(promise.pace_s) if promise.pace_s <= most_s else 0.0
            self.took(min(each_s, most_s))
        if kept or not promise.owing:
            promise.mark = now
        promise.owing = Bitfield((promise.owing | claimed) & ~have)

    def find(self, source: SourceId) -> Promise | None:
        """The promise of a peer; None: it never offered anything."""
        return self._promises.get(source)

    def late(self, promise: Promise | None, now: float) -> bool:
        """It owes chunks that should have come."""
        return promise is not None and promise.owing != NO_CHUNKS and now >= self.until(promise)


def _mean(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + _WEIGHT * (seconds - before)
