"""The routes about the agent itself, its group, and the peer cache.

Never knows: HTTP beyond methods and paths, how a request is carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from agent.api_table import Ask, Gives, Route, Takes
from agent.schema import (
    AgentDocument,
    Ban,
    CacheChange,
    CacheList,
    CacheQuery,
    CacheRecordDocument,
    Cleared,
    Done,
    Nothing,
    PeerList,
    PeerPath,
    RecordPath,
    Statistics,
)

if TYPE_CHECKING:
    from agent.control import Control

PEER = ("PEER_NOT_FOUND", "NO_GROUP")
RECORD = ("RECORD_NOT_FOUND",)


async def _empty(control: Control, ask: Ask[Nothing, CacheQuery, Nothing]) -> Done | Cleared:
    url = ask.query.url
    return await control.clear_cache() if url is UNSET else await control.delete_url(url)


ABOUT = (
    Route(
        "GET",
        "/agent",
        "getAgent",
        "Who answers here",
        Takes(Nothing, Nothing, Nothing),
        Gives(AgentDocument),
        lambda control, ask: control.about(),
        at_once=True,
    ),
    Route(
        "GET",
        "/statistics",
        "getStatistics",
        "Payload bytes of this agent for ever",
        Takes(Nothing, Nothing, Nothing),
        Gives(Statistics),
        lambda control, ask: control.statistics(),
    ),
)

PEERS = (
    Route(
        "GET",
        "/peers",
        "listPeers",
        "What is known of the group",
        Takes(Nothing, Nothing, Nothing),
        Gives(PeerList),
        lambda control, ask: control.peers(),
    ),
    Route(
        "DELETE",
        "/peers",
        "forgetPeers",
        "Forget every peer; they may come back by discovery (ClearPeers)",
        Takes(Nothing, Nothing, Nothing),
        Gives(Done, ("NO_GROUP",)),
        lambda control, ask: control.forget_peers(),
    ),
    Route(
        "POST",
        "/peers/discover",
        "discoverPeers",
        "Look for peers now (DiscoverPeers)",
        Takes(Nothing, Nothing, Nothing),
        Gives(Done, ("NO_GROUP",)),
        lambda control, ask: control.discover_peers(),
    ),
    Route(
        "DELETE",
        "/peers/{peer}",
        "forgetPeer",
        "Forget one peer; it may come back by discovery",
        Takes(PeerPath, Nothing, Nothing),
        Gives(Done, (*PEER, "INVALID_STATE")),
        lambda control, ask: control.forget_peer(ask.path.peer),
    ),
    Route(
        "PUT",
        "/peers/{peer}/ban",
        "banPeer",
        "Leave a peer out, also one that was never met",
        Takes(PeerPath, Nothing, Ban),
        Gives(Done, PEER),
        lambda control, ask: control.ban_peer(ask.path.peer, ask.body),
    ),
    Route(
        "DELETE",
        "/peers/{peer}/ban",
        "unbanPeer",
        "Forgive a peer",
        Takes(PeerPath, Nothing, Nothing),
        Gives(Done, PEER),
        lambda control, ask: control.unban_peer(ask.path.peer),
    ),
)

CACHE = (
    Route(
        "GET",
        "/cache",
        "getCache",
        "The peer cache: records, limits and switches",
        Takes(Nothing, Nothing, Nothing),
        Gives(CacheList),
        lambda control, ask: control.cache_list(),
    ),
    Route(
        "PATCH",
        "/cache",
        "changeCache",
        "Other limits and switches; they hold at once and outlive a restart",
        Takes(Nothing, Nothing, CacheChange),
        Gives(CacheList),
        lambda control, ask: control.change_cache(ask.body),
    ),
    Route(
        "DELETE",
        "/cache",
        "emptyCache",
        "Drop every record, or those that came from one URL",
        Takes(Nothing, CacheQuery, Nothing),
        Gives(Cleared, also=Done),
        _empty,
    ),
    Route(
        "GET",
        "/cache/{record}",
        "getRecord",
        "One record",
        Takes(RecordPath, Nothing, Nothing),
        Gives(CacheRecordDocument, RECORD),
        lambda control, ask: control.cache_record(ask.path.record),
    ),
    Route(
        "DELETE",
        "/cache/{record}",
        "deleteRecord",
        "Drop one record",
        Takes(RecordPath, Nothing, Nothing),
        Gives(Done, (*RECORD, "INVALID_STATE")),
        lambda control, ask: control.delete_record(ask.path.record),
    ),
)
