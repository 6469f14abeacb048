"""Sources: the origin, this agent's own cache, another job of this agent, and peers. One kind of thing.

Names, and what the scheduler sees of a source; `source_book.py` keeps how each behaves. Never knows: how bytes
travel, addresses, files.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import NewType

import msgspec

from peer.core.voucher import PeerId
from validation.content import Bitfield

FileId = NewType("FileId", str)
"""One file of one job: `<job id>/<index>`."""

SourceId = NewType("SourceId", str)
"""`origin`, `cache`, `sibling:<file id>` or `peer:<peer id>`."""

ORIGIN = SourceId("origin")
CACHE = SourceId("cache")


KNOWN_SOURCES = 1 << 16
"""Ids whose meaning is remembered: asked for several times with each event."""


class SourceKind(Enum):
    """What stands behind a source id. The order is the order of nearness."""

    CACHE = 0
    SIBLING = 1
    PEER = 2
    ORIGIN = 3


def sibling_source(file: FileId) -> SourceId:
    """The source that is another file of this agent with the same content."""
    return SourceId(f"sibling:{file}")


def peer_source(peer: PeerId) -> SourceId:
    """The source that is another agent."""
    return SourceId(f"peer:{peer}")


@lru_cache(maxsize=KNOWN_SOURCES)
def kind_of(source: SourceId) -> SourceKind:
    """Kind of a source, from its id alone."""
    return SourceKind[source.partition(":")[0].upper()]


@lru_cache(maxsize=KNOWN_SOURCES)
def nearness(source: SourceId) -> int:
    """The less, the nearer."""
    return kind_of(source).value


@lru_cache(maxsize=KNOWN_SOURCES)
def peer_of(source: SourceId) -> PeerId | None:
    """The agent behind a source; None for everything that is not a peer."""
    return PeerId(source.partition(":")[2]) if kind_of(source) is SourceKind.PEER else None


def sibling_of(source: SourceId) -> FileId | None:
    """The file behind a sibling source; None for everything else."""
    return FileId(source.partition(":")[2]) if kind_of(source) is SourceKind.SIBLING else None


class NearSource(msgspec.Struct, frozen=True):
    """What the scheduler sees of one near source."""

    source: SourceId
    have: Bitfield
    """Chunks it can supply now."""
    claimed: Bitfield
    """Chunks it is fetching from the origin itself; waiting for them saves origin bytes."""
    free_slots: int
    """How many more requests it may be given now; 0 while it cools off."""
    cooling: bool = False
    """It failed a moment ago, sent nothing when it was asked last, or was busy for long: nothing is expected of it,
    so nobody waits for it. With `free_slots` it may be tried."""
    wants: bool = False
    """It is fetching this content itself, and keeps what it promised so far."""
    in_flight: int = 0
    """Requests of ours that it carries."""
    on_trial: bool = False
    """It has not delivered anything yet: one chunk at a time."""
