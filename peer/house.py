"""What the connections of one server share: the store they serve from, the slots, the counters, the answers.

Never knows: sockets, TLS, the bytes of the protocol.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol

from peer.core.admission import Admission
from peer.core.voucher import PeerId, Voucher
from peer.offers import Offers
from peer.workers import Workers
from validation.content import Bitfield, ChunkIndex, ChunkLayout, ContentId
from validation.ranges import ByteRange

REFUSALS_KEPT = 64
CONTENTS_COUNTED = 65536


class Entry(Protocol):
    """What a cache says it has of one content."""

    @property
    def layout(self) -> ChunkLayout: ...

    @property
    def have(self) -> Bitfield: ...


class Store(Protocol):
    """What the server needs of the cache (`peer.cache.PeerCache`)."""

    def find(self, content_id: ContentId) -> Entry | None: ...

    def vouchers(self, content_id: ContentId, chunk: ChunkIndex) -> tuple[Voucher, ...]: ...

    def resting_on(self, content_id: ContentId, signers: frozenset[PeerId]) -> Bitfield:
        """Chunks for which these vouch under this id, and nobody else."""

    def hold(self, content_id: ContentId) -> Callable[[], bool]:
        """It is being served until what is returned is called, once; that says True when `sweep` is due."""

    async def sweep(self) -> int: ...

    async def ensure_checked(self, content_id: ContentId, first: ChunkIndex, last: ChunkIndex) -> Bitfield: ...

    def read(self, content_id: ContentId, item: ByteRange) -> bytes:
        """Raises LookupError unless all of it is here and was checked in this process; OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A group member that spoke to us; `port` is where it listens itself, None when it did not say."""

    peer_id: PeerId
    address: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A content that this agent is busy with, for offers: it is offered even while nothing of it is held."""

    layout: ChunkLayout
    chunks: Bitfield
    """What we are fetching from the origin right now."""
    wants: bool = True
    """We are fetching this content ourselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A connection that we did not talk to, and why; `at` in seconds of the loop's clock."""

    address: str
    reason: str
    at: float


@dataclass(slots=True, kw_only=True)
class ServerCounters:
    """Since the start. Mutable: the server counts, others read."""

    bytes_by_peer: Counter[PeerId] = field(default_factory=Counter)
    bytes_by_content: Counter[ContentId] = field(default_factory=Counter)
    """By the id that was asked for; of the contents that were first asked for last."""
    requests: int = 0
    busy: int = 0
    """Range requests answered by 503."""
    malformed: int = 0
    slow_readers: int = 0
    refused: int = 0
    """Connections that ended before or at the handshake's end."""
    refusals: deque[Refused] = field(default_factory=lambda: deque(maxlen=REFUSALS_KEPT))

    def gave(self, peer_id: PeerId, content_id: ContentId, count: int) -> None:
        """Payload went out."""
        self.bytes_by_peer[peer_id] += count
        self.bytes_by_content[content_id] += count
        if len(self.bytes_by_content) > CONTENTS_COUNTED:
            del self.bytes_by_content[next(iter(self.bytes_by_content))]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAMember:
    """Why a certificate is refused, for people."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all connections of one server share."""

    store: Store
    admission: Admission
    counters: ServerCounters
    hello: bytes
    certificate_of: Callable[[PeerId], bytes | None]
    offers: Offers
    entry_of: Callable[[ContentId], Entry | None]
    """What may be served of a content now."""
    vouchers_of: Callable[[ContentId, range], str]
    member_of: Callable[[bytes], PeerId | NotAMember]
    """Whose certificate (DER) this is."""
    is_banned: Callable[[PeerId], bool]
    """Nothing is given to it."""
    is_avoided: Callable[[PeerId], bool]
    """We ask it for nothing."""
    on_caller: Callable[[Caller], None]
    on_asked: Callable[[PeerId, ContentId], None]
    """A member asks what we have of a content."""
    on_denounced: Callable[[PeerId, tuple[PeerId, ...]], None]
    """A member says that it found these lying."""
    workers: Workers
    spawn: Callable[[Coroutine[None, None, None]], None]
    now: Callable[[], float]
