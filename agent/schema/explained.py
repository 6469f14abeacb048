"""Where the bytes of a job came from, and why not from nearer.

Sizes are bytes, rates bytes per second. Never knows: the core, SQLite, peers.
"""

from __future__ import annotations

from enum import StrEnum

from agent.schema.base import Document, FileState


class SourceKind(StrEnum):
    """What supplied bytes, nearest first."""

    CACHE = "cache"
    """This agent's own peer cache."""
    JOB = "job"
    """Another job of this agent with the same content."""
    PEER = "peer"
    NEAR = "near"
    """One of the three above; which one was not recorded before the agent was started again."""
    ORIGIN = "origin"


class ExplainedRange(Document, frozen=True, kw_only=True):
    """Bytes `offset` to `offset + length` of the local file: there, and from one source for one reason."""

    offset: int
    length: int
    source: SourceKind
    id: str | None
    """Of the peer, or of the job."""
    reason: str
    """Why not from nearer; `reasons` of the job says it in words."""


class SourceShare(Document, frozen=True, kw_only=True):
    """What one source had to do with a file."""

    source: SourceKind
    id: str | None
    """Of the peer, or of the job."""
    name: str | None
    """Of the peer, while it is known."""
    bytes_held: int
    """In the file now."""
    bytes_received: int | None
    """Payload received, discarded bytes included. None for the cache and other jobs: `bytes_from_cache` is their
    sum."""


class FileExplanation(Document, frozen=True, kw_only=True):
    """How one file came."""

    index: int
    url: str
    """Query and user information replaced by `…` where there were any."""
    path: str
    state: FileState
    bytes_total: int | None
    """None while unknown."""
    bytes_held: int
    """What can be read now: bytes of the origin, and proven ones of others."""
    bytes_from_origin: int
    """Payload received from the origin, discarded bytes included."""
    bytes_from_peers: int
    bytes_from_cache: int
    """From this agent's own peer cache, or from another job of this agent."""
    bytes_discarded: int
    """Received in vain: twice, corrupt, abandoned, or rejected."""
    bytes_unrecorded: int
    """Of those held: came before the agent was started again, and why is not known any more."""
    origin_copies: float | None
    """`bytes_from_origin` by `bytes_total`, of this agent alone. A group that starts cold needs 1.0 in all, and one
    in which somebody has the file 0."""
    seconds: float
    """From the first request to the last byte, without pauses; waiting for others counts."""
    fastest_rate: float | None
    """The best that this agent received, all sources together, over one second or more. None: it took less."""
    least_seconds: float | None
    """What the bytes that were kept would have taken at that rate."""
    distance: float | None
    """`seconds` by `least_seconds`: 1.0 is never slower than at its best. It compares this download with itself;
    what links could carry that were never full is not known to one agent."""
    sources: list[SourceShare]
    """Nearest first, then by bytes."""
    ranges: list[ExplainedRange]
    """Everything that is held, in order."""


class Explanation(Document, frozen=True, kw_only=True):
    """Where the bytes of a job came from, and why not from nearer."""

    job: str
    """Its id."""
    name: str
    state: str
    bytes_total: int | None
    """None while the size of any file is unknown."""
    bytes_from_origin: int
    bytes_from_peers: int
    bytes_from_cache: int
    bytes_discarded: int
    files: list[FileExplanation]
    reasons: dict[str, str]
    """The reasons that occur, in words."""
