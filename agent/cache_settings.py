"""Limits of the peer cache and switches for peers that a user set at run time. Values only.

Kept in the journal; they win over the configuration.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.config import Config
from agent.journal import Journal
from agent.schema import CacheChange
from peer.cache import CacheLimits

KEY = "cache"


class CacheSettings(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """None: the configuration decides."""

    limit_bytes: int | None = None
    limit_share: float | None = None
    max_age_s: float | None = None
    peer_fetch: bool | None = None
    peer_serve: bool | None = None

    @classmethod
    async def load(cls, journal: Journal) -> CacheSettings:
        """What was set; nothing when it cannot be read."""
        text = await journal.get_meta(KEY)
        try:
            return msgspec.json.decode(text, type=cls) if text else cls()
        except msgspec.DecodeError:
            return cls()

    async def save(self, journal: Journal) -> None:
        """Durably."""
        await journal.set_meta(KEY, msgspec.json.encode(self).decode("utf-8"))

    def changed(self, change: CacheChange) -> CacheSettings:
        """With what a change names in its place. One limit replaces the other."""
        values: dict[str, Any] = {
            name: value
            for name in change.__struct_fields__
            if (value := getattr(change, name)) is not msgspec.UNSET
        }
        if "limit_bytes" in values:
            values["limit_share"] = None
        elif "limit_share" in values:
            values["limit_bytes"] = None
        return msgspec.structs.replace(self, **values)


def limits_of(config: Config, settings: CacheSettings) -> CacheLimits:
    """What holds."""
    by_share = settings.limit_share is not None
    return CacheLimits(
        max_bytes=None if by_share else _or(settings.limit_bytes, config.cache_max_bytes),
        max_share=_or(settings.limit_share, config.cache_max_share),
        max_age_s=_or(settings.max_age_s, config.cache_max_age_s),
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
