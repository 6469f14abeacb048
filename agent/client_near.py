"""The library's calls about other agents, the peer cache, and the agent itself: one REST request each.

Never knows: how a request travels. Source: bits-reference 4.1 (the administration of BITS' peer cache).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from agent.client_http import Request, Wire
from agent.client_jobs import checked_id
from agent.errors import UsageError
from agent.schema import (
    AgentDocument,
    Ban,
    CacheChange,
    CacheList,
    CacheRecordDocument,
    Cleared,
    Done,
    PeerList,
    Statistics,
)


class NearCalls:
    """Everything that concerns no job."""

    _wire: Wire

    # --- peers -----------------------------------------------------------------------------------------------

    async def peers(self) -> PeerList:
        """The other agents of the group that are known, and who was refused lately."""
        return await self._wire.call(Request(method="GET", target="/peers"), PeerList)

    async def ban_peer(self, peer_id: str, *, reason: str | None = None, duration_s: float | None = None) -> Done:
        """Leave a peer out, also one that was never met; without a duration for 30 days.

        Raises NotFoundError for what is no peer id, UsageError; StateError without a group.
        """
        given = {"reason": reason, "duration_s": duration_s}
        ban = msgspec.structs.replace(Ban(), **{name: value for name, value in given.items() if value is not None})
        return await self._wire.call(Request(method="PUT", target=f"{_peer(peer_id)}/ban", body=ban), Done)

    async def unban_peer(self, peer_id: str) -> Done:
        """Forgive a peer; `changed` False: it was not banned. Raises NotFoundError; StateError without a group."""
        return await self._wire.call(Request(method="DELETE", target=f"{_peer(peer_id)}/ban"), Done)

    async def forget_peer(self, peer_id: str) -> Done:
        """Drop a peer from the list; it may come back by discovery. Raises NotFoundError; StateError without a
        group."""
        return await self._wire.call(Request(method="DELETE", target=_peer(peer_id)), Done)

    async def forget_peers(self) -> Done:
        """Drop all of them (BITS' ClearPeers). Raises StateError without a group."""
        return await self._wire.call(Request(method="DELETE", target="/peers"), Done)

    async def discover_peers(self) -> Done:
        """Look for peers now (BITS' DiscoverPeers); `changed` False: a search is under way already.

        Raises StateError without a group.
        """
        return await self._wire.call(Request(method="POST", target="/peers/discover"), Done)

    # --- the cache -------------------------------------------------------------------------------------------

    async def cache(self) -> CacheList:
        """The peer cache: records, limits and switches."""
        return await self._wire.call(Request(method="GET", target="/cache"), CacheList)

    async def change_cache(self, change: CacheChange) -> CacheList:
        """Give limits and switches new values, which hold at once and outlive a restart. Raises UsageError."""
        return await self._wire.call(Request(method="PATCH", target="/cache", body=change), CacheList)

    async def cache_record(self, record_id: str) -> CacheRecordDocument:
        """One record. Raises NotFoundError."""
        return await self._wire.call(Request(method="GET", target=_record(record_id)), CacheRecordDocument)

    async def delete_record(self, record_id: str) -> Done:
        """Drop one record. Raises NotFoundError; StateError while it is in use."""
        return await self._wire.call(Request(method="DELETE", target=_record(record_id)), Done)

    async def delete_url(self, url: str) -> Done:
        """Drop every record that came from a URL; `changed` False: there is none. Raises UsageError."""
        if not url:
            raise UsageError("no URL is named (`clear_cache` drops everything)")
        try:
            query = urlencode({"url": url})
        except UnicodeEncodeError as error:
            raise UsageError(f"text that is not UTF-8: {url!r}") from error
        return await self._wire.call(Request(method="DELETE", target=f"/cache?{query}"), Done)

    async def clear_cache(self) -> int:
        """Empty the peer cache; running jobs and finished files are untouched. Returns the records dropped."""
        return (await self._wire.call(Request(method="DELETE", target="/cache"), Cleared)).records

    # --- the agent -------------------------------------------------------------------------------------------

    async def statistics(self) -> Statistics:
        """Payload bytes from the origin, each peer and the cache, for ever."""
        return await self._wire.call(Request(method="GET", target="/statistics"), Statistics)

    async def about(self) -> AgentDocument:
        """Who answers: version, process id, home, group, and what the agent wants its user to know."""
        return await self._wire.call(Request(method="GET", target="/agent"), AgentDocument)

    async def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the agent's REST interface."""
        return await self._wire.call(Request(method="GET", target="/openapi.json"), dict[str, Any])


def _peer(peer_id: str) -> str:
    return f"/peers/{checked_id(peer_id, 'peer', 'PEER_NOT_FOUND')}"


def _record(record_id: str) -> str:
    return f"/cache/{checked_id(record_id, 'record', 'RECORD_NOT_FOUND')}"
