"""The origin's part in one transfer: how much to ask of it at once, and what its failures mean.

Never knows: near sources, chunks' digests, HTTP.
"""

from __future__ import annotations

from agent.core.facts import OriginFacts, RangeSupport
from agent.core.tuning import Tuning
from agent.core.view import OriginReadiness
from peer.core.failure import Failure, FailureKind, Persistence
from validation.content import ChunkIndex, ChunkLayout
from validation.ranges import ByteRange

_NO_FAULT = frozenset({FailureKind.ABORTED, FailureKind.NO_RANGES, FailureKind.CHANGED})


class OriginShare:
    """Rate, last position and last failure of the origin."""

    def __init__(self, tuning: Tuning) -> None:
        self.failure: Failure | None = None
        """Why nothing may be asked of the origin before the transfer begins again."""
        self.whole_only = False
        self._promised = False
        self.last_chunk: ChunkIndex | None = None
        """The chunk in which the origin's last bytes lie: finished first."""
        self._tuning = tuning
        self.rate: float | None = None
        self._since: tuple[float, int] | None = None
        self._total = 0

    def begin(self, facts: OriginFacts, may_join: bool) -> None:
        """The origin has just answered a probe."""
        self.failure = None
        self._since = None
        self.whole_only = facts.ranges is RangeSupport.NONE or not may_join or facts.length is None
        self._promised = facts.ranges is RangeSupport.PROMISED

    def readiness(self, in_flight: bool) -> OriginReadiness:
        """What may be asked of the origin now."""
        if in_flight or self.failure is not None:
            return OriginReadiness.ENGAGED
        return OriginReadiness.WHOLE_ONLY if self.whole_only else OriginReadiness.READY

    def run_length(self, layout: ChunkLayout, shared: bool) -> int | None:
        """Longest run of chunks for one request: a few seconds' worth while peers are about, else all.

        All as well while nobody knows whether the origin serves ranges: if it does not, its answer to a request
        that begins at the first byte is still of use.
        """
        if not shared or not self._promised:
            return None
        aimed = max(float(self._tuning.origin_share_bytes), (self.rate or 0.0) * self._tuning.origin_share_s)
        return max(1, int(aimed) // layout.chunk_bytes)

    def arrived(self, item: ByteRange, chunk_bytes: int, now: float) -> None:
        """Bytes of the origin arrived; the rate is taken over half a second or more."""
        self._total += item.length
        if chunk_bytes:
            self.last_chunk = ChunkIndex(item.stop // chunk_bytes)
        if self._since is None:
            self._since = (now, self._total)
        elif now - self._since[0] >= 0.5:
            self.rate = (self._total - self._since[1]) / (now - self._since[0])
            self._since = (now, self._total)

    def succeeded(self) -> None:
        """A request ended well."""
        self.failure = None

    def failed(self, failure: Failure, received: int) -> None:
        """A request ended badly. One that brought enough is simply continued, if it can be."""
        if failure.kind is FailureKind.NO_RANGES:
            self.whole_only = True
        if failure.kind in _NO_FAULT:
            return
        fruitful = received >= self._tuning.fruitful_bytes and not self.whole_only
        if failure.persistence is Persistence.TRANSIENT and fruitful:
            return
        self.failure = failure
