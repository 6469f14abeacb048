"""Recent refusals, for `doctor` and for people who wonder why two agents do not meet.

Never knows: how a refusal came about, TLS, mDNS.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum

REFUSALS_KEPT = 64


class Refused(Enum):
    """Who was refused, at which step."""

    ANNOUNCEMENT = "announcement"
    """Its announcement was not one of ours; nobody connected."""
    ANSWER = "answer"
    """We called; it, or we, refused."""
    CALL = "call"
    """It called us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason at one address; `count` and `last_at` (seconds since 1970) grow when it happens again."""

    what: Refused
    host: str
    port: int | None
    """None for a caller, whose port says nothing."""
    reason: str
    last_at: float
    count: int = 1


class Refusals:
    """The last 64 different refusals."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Refused, str, int | None, str], Refusal] = OrderedDict()

    def add(self, refusal: Refusal) -> None:
        """Note a refusal; one of the same kind counts as the same."""
        key = (refusal.what, refusal.host, refusal.port, refusal.reason)
        before = self._kept.pop(key, None)
        self._kept[key] = replace(refusal, count=before.count + refusal.count) if before else refusal
        if len(self._kept) > REFUSALS_KEPT:
            self._kept.popitem(last=False)

    def newest_first(self) -> list[Refusal]:
        """All that are kept."""
        return sorted(self._kept.values(), key=lambda item: item.last_at, reverse=True)
