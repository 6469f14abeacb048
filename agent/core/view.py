"""What choosing needs to know, and what is chosen. Values only; the rules are in `scheduler.py`."""

from __future__ import annotations

from enum import Enum

import msgspec

from agent.core.ownership import Ownership
from agent.core.sources import NearSource, SourceId
from validation.content import Bitfield, ChunkIndex, ChunkLayout


class OriginReadiness(Enum):
    """What may be asked of the origin now."""

    READY = "ready"
    WHOLE_ONLY = "whole only"
    """It serves no ranges, or parts of it could not be joined safely."""
    ENGAGED = "engaged"
    """A request is in flight, or it cools off."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that choosing needs to know."""

    layout: ChunkLayout
    missing: Bitfield
    """Chunks to be had that are neither held nor in flight."""
    origin_only: Bitfield
    """Chunks that must not come from near sources (a conflict of vouchers, corrupt bytes)."""
    begun: Bitfield
    """Chunks of which the origin has already sent a part: finished first."""
    near: tuple[NearSource, ...]
    near_slots: int
    """How many more requests may go to near sources together."""
    origin: OriginReadiness
    origin_chunks: int | None
    """Longest run for one origin request; None: as long as it goes."""
    cursor: ChunkIndex | None = None
    """Everything goes in order from here, around the end. None: rarest first, or what suits the group."""
    owners: Ownership | None = None
    """Who asks the origin for which chunk, when others want the content too. None: nobody else does."""
    hunger: int = 0
    """How many times longer than it should take we have waited for chunks that nobody claims."""
    top_up: bool = False
    """Near sources are too slow for this job: the origin may bring what they have, too."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """These chunks, `first` to `last` (both included), from this source."""

    source: SourceId
    first: ChunkIndex
    last: ChunkIndex

    @property
    def chunks(self) -> Bitfield:
        """The same as a set."""
        return Bitfield(((1 << (self.last - self.first + 1)) - 1) << self.first)
