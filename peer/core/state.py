"""What an agent says of one content. A value only."""

from __future__ import annotations

import msgspec

from validation.content import Bitfield, ChunkLayout


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one content."""

    layout: ChunkLayout
    have: Bitfield
    claimed: Bitfield
    wants: bool
