"""What the random world of world.py is made of: peers and their manners, cells, requests. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from agent.core import commands as cmd
from agent.core.facts import RangeSupport
from agent.core.sources import SourceId
from peer.core.voucher import PeerId
from validation.content import MIN_CHUNK_BYTES, Bitfield
from validation.digest import ChunkDigest
from validation.ranges import ByteRange


class Manner(Enum):
    """How a peer behaves."""

    HONEST = "honest"
    CORRUPT = "sends noise under a true voucher"
    FALSE_VOUCHER = "signs its own noise"
    NO_VOUCHER = "sends noise and vouches for nothing"
    CLAIMS = "claims everything and never has it"
    EMPTY = "offers everything and delivers nothing"
    POISON = "sends the truth, with false vouchers for other chunks"

    @property
    def lies(self) -> bool:
        """Whether it may be reported."""
        return self in (Manner.CORRUPT, Manner.FALSE_VOUCHER, Manner.NO_VOUCHER, Manner.POISON)


@dataclass(frozen=True, slots=True)
class Cell:
    """What lies in a cell: which bytes, and who put them there."""

    label: str
    source: SourceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What this world is like."""

    manners: tuple[Manner, ...] = ()
    length: int = 5 * MIN_CHUNK_BYTES
    ranges: RangeSupport = RangeSupport.PROMISED
    etag: bool = True
    says_length: bool = True
    changes: bool = False
    """The origin's content changes once."""
    interferes: bool = False
    """The user, the disk and the process get in the way."""
    fatal: bool = False
    """The origin sometimes answers 404."""
    asks: bool = False
    """The application decides about what the validators accepted."""
    on_demand: bool = False
    """Somebody wants parts of the file, and reads here and there."""
    changes_mind: bool = False
    """The job gets another URL, other uses of peers, another delay."""
    checked: bool = True
    """A digest of the whole is known to the validator; otherwise everything is accepted."""


@dataclass
class Peer:
    """Another agent."""

    peer: PeerId
    manner: Manner
    have: Bitfield
    version: str
    relayed_from: PeerId | None = None
    """An honest peer that got its chunks from a liar who vouched for its own noise: it cannot know."""
    banned: bool = False


@dataclass
class Asked:
    """A request in flight."""

    command: cmd.FetchRange
    version: str
    cursor: int
    aborted: bool = False
    over: bool = False


@dataclass
class PartFile:
    """The file as it lies on disk, and what the journal says of it."""

    cells: dict[int, Cell] = field(default_factory=dict)
    saved: tuple[ByteRange, ...] = ()
    digests: dict[int, ChunkDigest] = field(default_factory=dict)
    """The digest last told for each chunk."""
