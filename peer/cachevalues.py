"""What goes into the peer cache, what comes out of it, and what people see of it: values only.

Never knows: how anything is stored. Sources of the limits: bits-reference 4.1, 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peer.core.voucher import Voucher
from validation.content import Bitfield, ChunkIndex, ChunkLayout, ContentId
from validation.digest import ChunkDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """How much and how long. BITS: 1 % of the volume and 90 days since the last access (bits-reference 4.2)."""

    max_bytes: int | None = None
    max_share: float = 0.1
    """Of the disk's size; used when `max_bytes` is None."""
    max_age_s: float = 90 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """What the cache offers of one content, at the time of asking."""

    layout: ChunkLayout
    have: Bitfield
    """Chunks held, also those that are still to be checked before their first use."""
    content_ids: tuple[ContentId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A verified chunk to be copied in. `source_fd` holds its bytes at the same offset as in the content."""

    content_ids: tuple[ContentId, ...]
    """The content's ids (by URL, by digest): at least one; the first names it."""
    layout: ChunkLayout
    chunk: ChunkIndex
    digest: ChunkDigest
    vouchers: tuple[Voucher, ...]
    """Verified ones; those that name another chunk, digest or content are left out."""
    source_fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """One record as people see it. Times: seconds since 1970."""

    content_id: ContentId
    aliases: tuple[ContentId, ...]
    length: int
    chunks_held: int
    bytes_held: int
    ranges_held: tuple[tuple[int, int], ...]
    """Half-open byte ranges, in order, as long as they can be."""
    last_access_at: float
    created_at: float


class Deletion(Enum):
    """What became of the wish to delete one record."""

    DELETED = "deleted"
    BUSY = "busy"
    """It is being read, served or added to just now (BITS: BUSYCACHERECORD)."""
    UNKNOWN = "unknown"
