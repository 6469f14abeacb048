"""What everybody who carries out commands shares: the parts of the agent, and how to report an event.

A value, built once by the service. Never decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.claims import ClaimBoard
from agent.config import Config
from agent.core.events import FileEvent
from agent.core.sources import FileId
from agent.core.transfer import FileTransfer
from agent.journal import Journal
from agent.origin import OriginClient
from agent.partfile import PartFile
from agent.throttle import Throttles
from peer.cache import PeerCache
from peer.workers import Workers

if TYPE_CHECKING:
    from peer.network import PeerNetwork


class Work(Protocol):
    """One file's worker, as far as others may look into it."""

    part: PartFile | None
    """The temporary file; None before there is one."""

    @property
    def transfer(self) -> FileTransfer:
        """What decides for the file."""


@dataclass(slots=True, kw_only=True)
class Switches:
    """This agent's own switches for its peers; each job has some too, and both must be on (BITS 3.3)."""

    fetch: bool = True
    serve: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one running agent. Whoever made them closes them."""

    config: Config
    journal: Journal
    workers: Workers
    """Reading, writing, hashing."""
    validators: Workers
    """Validators may take long: they have threads of their own."""
    origin: OriginClient
    cache: PeerCache
    network: PeerNetwork | None
    """None: this agent has no group."""
    claims: ClaimBoard
    """What peers are told of transfers under way."""
    throttles: Throttles
    """How fast origins may be read."""
    switches: Switches
    problems: list[str]
    """What the user should know about how this agent started."""
    socket: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts, and the two ways back into the engine."""

    parts: Parts
    post: Callable[[FileEvent], None]
    """Report one event; on the event loop only."""
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    """Start a task that the engine owns; the name says what it does."""
    log: Callable[[FileId, str], None]
    """A line for the log of a file's job."""
    save_file: Callable[[FileId], Coroutine[Any, Any, None]]
    """Record a file's row in the journal (not its progress)."""
    work_of: Callable[[FileId], Work | None]
    """Who carries out the commands of another file; None when that file is gone."""
