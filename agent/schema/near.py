"""The group, the peer cache, and the agent itself, as documents.

Times are seconds since 1970 (wall clock), sizes are bytes, rates bytes per second. Never knows: the core, SQLite.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from agent.schema.base import Document, Request
from agent.schema.requests import Size


class PeerDocument(Document, frozen=True, kw_only=True):
    """One other agent of the group."""

    id: str
    name: str
    address: str
    port: int
    version: str
    authenticated: bool
    """Its certificate is one of the group's (BITS' IsAuthenticated)."""
    standing: str
    reason: str | None
    """Why it is banned or on parole."""
    last_seen_s: float | None
    """Seconds ago; None when only its ban is known."""
    bytes_taken: int
    """Payload received from it, ever."""
    bytes_given: int
    available: bool = False
    """It answers now (BITS' IsAvailable)."""
    banned_until: float | None = None


class PeerList(Document, frozen=True, kw_only=True):
    """What this agent knows about its group."""

    peers: list[PeerDocument]
    refused: list[str]
    """Latest refused contacts, with their reasons."""
    problems: list[str]


class Ban(Request, frozen=True, kw_only=True):
    """Why a peer is to be left out, and for how long."""

    reason: str = "banned by the administrator"
    duration_s: Annotated[float, msgspec.Meta(gt=0, le=3_153_600_000)] = 30 * 86_400.0


class Done(Document, frozen=True, kw_only=True):
    """Whether a request changed anything, and how many things."""

    changed: bool
    count: int = 0


class CacheRecordDocument(Document, frozen=True, kw_only=True):
    """One content in the peer cache."""

    id: str
    length: int
    chunks_held: int
    chunks_total: int
    bytes: int
    created_at: float
    last_access_at: float
    url: str | None = None
    """Where it came from, without query and user information; None when that is not known any more."""
    ranges: list[tuple[int, int]] = []
    """Byte ranges held, half-open."""
    bytes_given: int = 0
    """To peers, since the agent started."""


class CacheList(Document, frozen=True, kw_only=True):
    """The peer cache."""

    records: list[CacheRecordDocument]
    bytes: int
    limit_bytes: int
    problems: list[str]
    limit_share: float | None = None
    """Of the disk; None when the limit is in bytes."""
    max_age_s: float = 7_776_000.0
    peer_fetch: bool = True
    """Peers may be asked (the agent's switch; each job has one too)."""
    peer_serve: bool = True
    """Peers may be served."""


class CacheChange(Request, frozen=True, kw_only=True):
    """New limits and switches; they outlive a restart, and win over the configuration."""

    limit_bytes: Size | UnsetType = UNSET
    limit_share: Annotated[float, msgspec.Meta(gt=0, le=0.8)] | UnsetType = UNSET
    """Of the disk (BITS: at most 80 %). Replaces a limit in bytes."""
    max_age_s: Annotated[float, msgspec.Meta(ge=86_400, le=10_368_000)] | UnsetType = UNSET
    """BITS: one day to 120 days since the last access."""
    peer_fetch: bool | UnsetType = UNSET
    peer_serve: bool | UnsetType = UNSET


class Cleared(Document, frozen=True, kw_only=True):
    """Answer to clearing the cache."""

    records: int


class Statistics(Document, frozen=True, kw_only=True):
    """Payload bytes of this agent for ever."""

    bytes_from_origin: int
    bytes_from_peers: int
    bytes_from_cache: int
    bytes_discarded: int
    bytes_given: int
    by_peer: dict[str, tuple[int, int]]
    """Peer id -> bytes taken from it, bytes given to it."""
    jobs_completed: int
    files_completed: int
    since: float


class AgentDocument(Document, frozen=True, kw_only=True):
    """Who answers here."""

    version: str
    pid: int
    home: str
    peer_id: str | None
    """None when the agent has no group."""
    peer_name: str | None
    peer_port: int | None
    group_tag: str | None
    interfaces: list[str]
    jobs: int
    problems: list[str]
    """Everything the agent wants its user to know, for example a database that was set aside."""
    connected: bool = True
    """The machine has a network."""
    ready: bool = True
    """Every job of the journal is back. Before that, requests about anything else wait."""


class Problem(Document, frozen=True, kw_only=True):
    """An error answer (RFC 9457), media type `application/problem+json`."""

    title: str
    status: int
    detail: str
    code: str
    context: str
    type: str = "about:blank"
