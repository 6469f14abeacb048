"""What users ask about the group, the peer cache, and the agent itself: documents in, documents out.

Never knows: REST, sockets, which chunk comes from where. Sources: bits-reference 4.1.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from msgspec import UNSET

from agent.cache_settings import CacheSettings, limits_of
from agent.engine import Engine
from agent.errors import NotFoundError, StateError, UsageError
from agent.keeper import bare_url
from agent.origin_http import version
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
from agent.totals import Totals
from agent.views import peer_document, redacted, refusal_line
from peer.cache import CacheRecord, Deletion
from peer.core.voucher import PeerId
from validation.content import ChunkLayout, ContentId

if TYPE_CHECKING:
    from peer.network import PeerNetwork

NO_GROUP = "this agent has no group: `nearfetch group create`, or `group join KEY`"
_HEX = frozenset("0123456789abcdef")


class NearControl:
    """The requests of users that concern no job. On the engine's loop."""

    def __init__(self, engine: Engine, totals: Totals) -> None:
        self._engine = engine
        self._manager = engine.manager
        self._keeper = engine.keeper
        self._parts = engine.parts
        self._totals = totals
        self._loop = asyncio.get_running_loop()

    async def ready(self) -> None:
        """Returns once every job of the journal is back: at once, but for a second or two after a start."""
        await self._engine.ready.wait()

    # --- peers -----------------------------------------------------------------------------------------------

    def peers(self) -> PeerList:
        """What is known of the group."""
        network = self._parts.network
        if network is None:
            return PeerList(peers=[], refused=[], problems=[NO_GROUP])
        return PeerList(
            peers=[peer_document(status, time.time()) for status in network.peers()],
            refused=[refusal_line(refusal) for refusal in network.refusals()],
            problems=list(network.problems),
        )

    async def ban_peer(self, peer_id: str, ban: Ban) -> Done:
        """Leave a peer out, also one that was never met. Raises NotFoundError (no peer id), StateError."""
        if not self._network().ban(_peer(peer_id), ban.reason, ban.duration_s):
            raise NotFoundError(f"not a peer id: {peer_id}", code="PEER_NOT_FOUND")
        return Done(changed=True, count=1)

    async def unban_peer(self, peer_id: str) -> Done:
        """Forgive a peer. Raises StateError."""
        changed = self._network().unban(_peer(peer_id))
        return Done(changed=changed, count=int(changed))

    async def forget_peer(self, peer_id: str) -> Done:
        """Drop a peer from the list; it may come back by discovery. Raises NotFoundError, StateError."""
        network, peer = self._network(), _peer(peer_id)
        if not network.forget(peer):
            if any(status.peer_id == peer and status.banned_until is not None for status in network.peers()):
                raise StateError(f"the peer {peer_id} is banned and stays in the list: unban it first")
            raise NotFoundError(f"no such peer: {peer_id}", code="PEER_NOT_FOUND")
        return Done(changed=True, count=1)

    async def forget_peers(self) -> Done:
        """BITS' ClearPeers. Raises StateError."""
        count = self._network().forget_all()
        return Done(changed=count > 0, count=count)

    async def discover_peers(self) -> Done:
        """Look for peers now. `changed` False: a search is under way already. Raises StateError."""
        return Done(changed=self._network().discover())

    # --- the cache -------------------------------------------------------------------------------------------

    def cache_list(self) -> CacheList:
        """The peer cache."""
        cache, limits = self._parts.cache, self._parts.cache.limits
        records = [self._record(record) for record in cache.records()]
        return CacheList(
            records=records,
            bytes=sum(record.bytes for record in records),
            limit_bytes=cache.limit_bytes,
            problems=list(cache.problems),
            limit_share=limits.max_share if limits.max_bytes is None else None,
            max_age_s=limits.max_age_s,
            peer_fetch=self._parts.switches.fetch,
            peer_serve=self._parts.switches.serve,
        )

    def cache_record(self, content_id: str) -> CacheRecordDocument:
        """One record. Raises NotFoundError."""
        record = self._parts.cache.record(ContentId(content_id))
        if record is None:
            raise NotFoundError(f"no record {content_id}", code="RECORD_NOT_FOUND")
        return self._record(record)

    async def delete_record(self, content_id: str) -> Done:
        """Drop one record. Raises NotFoundError; StateError while it is in use (BITS' BUSYCACHERECORD)."""
        match await self._parts.cache.delete(ContentId(content_id)):
            case Deletion.DELETED:
                return Done(changed=True, count=1)
            case Deletion.BUSY:
                raise StateError(f"the record {content_id} is in use just now: try again")
            case _:
                raise NotFoundError(f"no record {content_id}", code="RECORD_NOT_FOUND")

    async def delete_url(self, url: str) -> Done:
        """Drop every record that came from a URL. `changed` False: there is none."""
        count = 0
        for content_id in await self._parts.journal.content_ids_of(bare_url(url)):
            if await self._parts.cache.delete(ContentId(content_id)) is Deletion.DELETED:
                count += 1
        return Done(changed=count > 0, count=count)

    async def clear_cache(self) -> Cleared:
        """Drop every record."""
        return Cleared(records=await self._parts.cache.clear())

    async def change_cache(self, change: CacheChange) -> CacheList:
        """New limits and switches; they hold at once and outlive a restart. Raises UsageError."""
        if change.limit_bytes is not UNSET and change.limit_share is not UNSET:
            raise UsageError("limit_bytes and limit_share are both given: a cache has one limit")
        settings = (await CacheSettings.load(self._parts.journal)).changed(change)
        await settings.save(self._parts.journal)
        await self._parts.cache.set_limits(limits_of(self._parts.config, settings))
        await self._switch(change)
        return self.cache_list()

    async def _switch(self, change: CacheChange) -> None:
        switches, network = self._parts.switches, self._parts.network
        if change.peer_fetch is not UNSET:
            switches.fetch = change.peer_fetch
        if change.peer_serve is not UNSET:
            switches.serve = change.peer_serve
        if network is not None:
            network.set_fetching(switches.fetch)
            network.set_serving(switches.serve)
        for job in list(self._manager.jobs.values()):
            if job.job in self._keeper.frames:
                self._keeper.respec(job, self._loop.time())
        self._engine.settle()

    def _record(self, record: CacheRecord) -> CacheRecordDocument:
        network = self._parts.network
        url = self._keeper.url_of(record.content_id, *record.aliases)
        return CacheRecordDocument(
            id=record.content_id,
            length=record.length,
            chunks_held=record.chunks_held,
            chunks_total=ChunkLayout.for_length(record.length).count,
            bytes=record.bytes_held,
            created_at=record.created_at,
            last_access_at=record.last_access_at,
            url=None if url is None else redacted(url),
            ranges=list(record.ranges_held),
            bytes_given=0 if network is None else network.given_of(record.content_id),
        )

    # --- the agent -------------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Bytes for ever."""
        network = self._parts.network
        living = [job for job in self._manager.jobs.values() if job.job not in self._engine.ended]
        totals = self._totals.with_living(living)
        peers = {} if network is None else {str(item.peer_id): (item.taken, item.given) for item in network.peers()}
        return Statistics(
            bytes_from_origin=totals.from_origin,
            bytes_from_peers=totals.from_peers,
            bytes_from_cache=totals.from_cache,
            bytes_discarded=totals.discarded,
            bytes_given=0 if network is None else network.traffic.given,
            by_peer=peers,
            jobs_completed=totals.jobs,
            files_completed=totals.files,
            since=totals.since,
        )

    def about(self) -> AgentDocument:
        """Who answers here."""
        parts, network = self._parts, self._parts.network
        return AgentDocument(
            version=version(),
            pid=os.getpid(),
            home=str(parts.config.home),
            peer_id=None if network is None else network.identity.peer_id,
            peer_name=None if network is None else network.identity.name,
            peer_port=None if network is None else network.port,
            group_tag=None if network is None else network.identity.group_tag,
            interfaces=list(parts.config.interface),
            jobs=len(self._manager.jobs),
            problems=[*parts.problems, *parts.journal.problems, *parts.cache.problems],
            connected=self._engine.connected,
            ready=self._engine.ready.is_set(),
        )

    def _network(self) -> PeerNetwork:
        network = self._parts.network
        if network is None:
            raise StateError(NO_GROUP, code="NO_GROUP")
        return network


def _peer(text: str) -> PeerId:
    """A peer id as it was given. Raises NotFoundError for what cannot be one."""
    if not text or not set(text) <= _HEX:
        raise NotFoundError(f"not a peer id: {text}", code="PEER_NOT_FOUND")
    return PeerId(text)
