"""What a route is: one row of a table, from which both the handlers and the OpenAPI document are made.

Never knows: aiohttp, which routes there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec

from agent.api_stream import Told
from agent.schema import Document

if TYPE_CHECKING:
    from agent.control import Control

P = TypeVar("P", bound=msgspec.Struct)
Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)

MIB = 1024 * 1024
MAX_BODY_BYTES = MIB
MAX_FILES_BODY_BYTES = 16 * MIB
"""For requests that bring files: 100,000 files of a job are about that."""

EVERYWHERE = ("USAGE", "UNEXPECTED")
"""Codes that every route can answer with, beside those of the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A request header that a route reads."""

    name: str
    pattern: str
    """What the whole value must match."""
    meaning: str


@dataclass(frozen=True, slots=True)
class Takes(Generic[P, Q, B]):
    """What a request consists of. `Nothing` where there is none."""

    path: type[P]
    query: type[Q]
    body: type[B]
    headers: tuple[Header, ...] = ()
    most: int = MAX_BODY_BYTES
    """Bytes of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Generic[P, Q, B]):
    """One request, understood."""

    path: P
    query: Q
    body: B
    headers: Mapping[str, str] = field(default_factory=dict)
    """By the names in the route's `Takes`; those that were sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status that is not 200."""

    document: Document
    status: HTTPStatus


Answer: TypeAlias = Document | Reply | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gives:
    """What an answer can be."""

    document: type[Document] | type[dict[str, Any]]
    codes: tuple[str, ...] = ()
    """Of errors, beside those that occur everywhere."""
    statuses: tuple[tuple[HTTPStatus, str], ...] = ((HTTPStatus.OK, "done"),)
    """Of success, each with its meaning."""
    also: type[Document] | None = None
    """Another document, for another query."""


@dataclass(frozen=True, slots=True)
class Route(Generic[P, Q, B]):
    """A request that is answered with one document."""

    method: str
    path: str
    """Below the version, for example `/jobs/{job}`."""
    operation: str
    summary: str
    takes: Takes[P, Q, B]
    gives: Gives
    call: Callable[[Control, Ask[P, Q, B]], Answer | Awaitable[Answer]]
    waits: bool = False
    """It may be answered much later (a long poll)."""
    at_once: bool = False
    """It is answered while the jobs are still being read back."""


@dataclass(frozen=True, slots=True)
class Stream(Generic[P, Q, B]):
    """A request that is answered with server-sent events."""

    path: str
    operation: str
    summary: str
    takes: Takes[P, Q, B]
    gives: Gives
    """`document` is what each event carries."""
    call: Callable[[Control, Ask[P, Q, B]], AsyncIterator[Told]]
    """Refusals are raised by the call itself, not by the iteration."""

    @property
    def method(self) -> str:
        """Always GET: that is all an EventSource can do."""
        return "GET"


AnyRoute: TypeAlias = Route[Any, Any, Any] | Stream[Any, Any, Any]
