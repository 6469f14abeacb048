"""What stands in the path and in the query of a request.

Everything arrives as text; msgspec turns it into these (`strict=False`). Never knows: HTTP, what is asked for.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from agent.origin_options import CredentialScheme, CredentialTarget
from agent.schema.base import Request
from agent.schema.requests import Index

PAGE = 1000
"""Jobs on one page, at most."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A sequence number, or the number of a delivery."""
PageSize = Annotated[int, msgspec.Meta(ge=1, le=PAGE)]
Timeout = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Nothing(Request, frozen=True, kw_only=True):
    """Neither a part of the path nor a query parameter nor a body."""


class JobPath(Request, frozen=True, kw_only=True):
    """One job."""

    job: str
    """Id of the job."""


class FilePath(Request, frozen=True, kw_only=True):
    """One file of a job."""

    job: str
    """Id of the job."""
    index: Index
    """Which of its files, from 0."""


class CredentialPath(Request, frozen=True, kw_only=True):
    """Credentials of a job."""

    job: str
    """Id of the job."""
    target: CredentialTarget
    """Whom they are for."""
    scheme: CredentialScheme
    """How they are used."""


class PeerPath(Request, frozen=True, kw_only=True):
    """One peer."""

    peer: str
    """Id of the peer."""


class RecordPath(Request, frozen=True, kw_only=True):
    """One record of the peer cache."""

    record: str
    """Its content id."""


class DeliveryPath(Request, frozen=True, kw_only=True):
    """One delivery."""

    delivery: Number
    """Its number."""


class JobQuery(Request, frozen=True, kw_only=True):
    """Which jobs of a long list are wanted."""

    after: str | None = None
    """Id of the last job of the page before."""
    limit: PageSize = PAGE
    """How many at most."""
    brief: bool = False
    """Without files and logs."""


class PollQuery(Request, frozen=True, kw_only=True):
    """When to answer."""

    after: Number | UnsetType = UNSET
    """Answer as soon as the job's `sequence` is above this. Left out: at once."""
    timeout_s: Timeout = 60.0
    """Answer after so many seconds in any case; the agent waits for 60 at most."""


class EventQuery(Request, frozen=True, kw_only=True):
    """Which events are wanted."""

    after: Number | UnsetType = UNSET
    """Every event with a sequence number above this. Left out: from now on."""
    job: str | UnsetType = UNSET
    """Of this job only."""


class DeliveryQuery(Request, frozen=True, kw_only=True):
    """Whose callback the listener is."""

    job: str | UnsetType = UNSET
    """Id of the job. Left out: every job's."""


class CacheQuery(Request, frozen=True, kw_only=True):
    """Which records are meant."""

    url: str | UnsetType = UNSET
    """Those that came from this URL. Left out: all."""
