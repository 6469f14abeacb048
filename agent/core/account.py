"""How one file came, as far as it is known: all that an explanation is made of. Small, and outlives the transfer.

Made of what the next process would be told as well, so that a restart changes nothing but what was not recorded.
Never knows: documents, names, how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.provenance import Provenance, Span, spans
from agent.core.transfer import FileTransfer
from validation.content import Bitfield, ChunkLayout
from validation.rangeset import RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Of one file."""

    length: int | None
    """Bytes of the file; None while unknown."""
    held: RangeSet
    """What can be read; never changed."""
    provenance: Provenance
    from_origin: Bitfield
    """Chunks that the origin supplied, also where nothing else is known."""
    received: int
    """Payload bytes from all sources."""
    discarded: int
    """… of which so many were thrown away."""
    seconds: float
    """From the first request to the last byte, without pauses."""
    fastest: float | None
    """Bytes per second over the best second; None: it took less."""

    @property
    def spans(self) -> list[Span]:
        """All bytes that are there, in order, with their sources."""
        length = self.held.stop if self.length is None else self.length
        return spans(self.provenance, ChunkLayout.for_length(length), self.held, self.from_origin)

    @property
    def useful(self) -> int:
        """Bytes that came and were kept."""
        return max(0, self.received - self.discarded)

    @property
    def best_rate(self) -> float | None:
        """Bytes per second that this agent is known to be able to receive this file at."""
        if self.fastest is None or self.seconds <= 0:
            return None
        return max(self.fastest, self.useful / self.seconds)

    @property
    def least_s(self) -> float | None:
        """What the useful bytes would have taken at the best rate: no longer than they took."""
        return None if self.best_rate is None else min(self.seconds, self.useful / self.best_rate)

    @property
    def distance(self) -> float | None:
        """How many times longer than that it took: 1.0 is never slower than at its best."""
        return None if not self.least_s else self.seconds / self.least_s


def account_of(transfer: FileTransfer) -> Account:
    """As it is now."""
    known, tally = transfer.snapshot(), transfer.tally
    return Account(
        length=transfer.length,
        held=RangeSet(transfer.filled),
        provenance=known.provenance,
        from_origin=known.from_origin,
        received=tally.from_origin + tally.from_cache + tally.from_peers,
        discarded=tally.discarded,
        seconds=known.seconds,
        fastest=known.fastest,
    )
