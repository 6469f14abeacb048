"""Which cache records to drop to make room: expired ones first, then the least recently used.

Pure: times and sizes come in, ids go out. Never knows: files, databases, why room is wanted.

Sources: bits-reference 4.2 (BITS drops by last access when the cap is exceeded, expires by age since the last
access, and does not cache a file larger than the whole cache).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from validation.content import ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one cache record occupies, and since when nobody asked for it. Times: seconds of one clock."""

    content_id: ContentId
    bytes_held: int
    last_access_at: float
    busy: bool = False
    """Somebody reads it, serves it, or adds to it right now: it counts, and it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionLimits:
    """The cap in bytes and the age in seconds since the last access."""

    max_bytes: int
    max_age_s: float


def choose(records: Sequence[Usage], need: int, now: float, limits: EvictionLimits) -> tuple[ContentId, ...] | None:
    """Records to drop so that `need` more bytes fit, in the order of dropping; None when they cannot fit.

    Expired records are always among them. A last access in the future (the clock was set back) counts as now, so
    that no jump of the clock backwards expires anything. Ties are broken by id: same input, same answer.
    """
    dropped, held = _least_used(records, limits.max_bytes - need, now, limits)
    return dropped if held + need <= limits.max_bytes else None


def shrink(records: Sequence[Usage], now: float, limits: EvictionLimits) -> tuple[ContentId, ...]:
    """Records to drop because of new limits: as `choose`, but what can go goes, even if that is not enough."""
    return _least_used(records, limits.max_bytes, now, limits)[0]


def _least_used(
    records: Sequence[Usage], room: int, now: float, limits: EvictionLimits
) -> tuple[tuple[ContentId, ...], int]:
    """Expired records, and others until the rest fits into `room`; and how many bytes that rest has."""
    idle = sorted(
        (item for item in records if not item.busy), key=lambda item: (item.last_access_at, item.content_id)
    )
    held = sum(item.bytes_held for item in records)
    dropped: list[ContentId] = []
    for item in idle:
        if now - item.last_access_at <= limits.max_age_s and held <= room:
            break
        dropped.append(item.content_id)
        held -= item.bytes_held
    return tuple(dropped), held
