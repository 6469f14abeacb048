"""Rendezvous hashing (Thaler and Ravishankar 1998): a score for each peer and chunk that everybody finds alike.

Never knows: who wants the content, who has it, which score counts for what.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from struct import Struct

from peer.core.voucher import PeerId
from validation.content import ContentId

KNOWN_SCORES = 16384
"""Peers whose scores are remembered, of contents with at most so many chunks"""
SMALL_COUNT = 1024
"""(8 KiB each)."""
FOREMOST = 64
"""Of a large group's scores for a chunk: who comes later hardly ever matters."""
KNOWN_FOREMOST = 512
"""Blocks for which these are remembered: 40 KiB each."""
KNOWN_ORDERS = 16
"""Contents whose order is remembered."""

_EIGHT = Struct(">8Q")
BLOCK = 8
"""Chunks whose scores come from one hash: all that 64 bytes give."""


class Group:
    """All agents that are there, us included, whatever they want. Equal to nothing but itself."""

    def __init__(self, members: Iterable[PeerId]) -> None:
        self.members = tuple(members)


def scores(content: ContentId, count: int, peer: PeerId) -> array[int]:
    """One number for each chunk; the highest of all peers' owns it. A hash gives those of eight chunks."""
    return _known_scores(content, count, peer) if count <= SMALL_COUNT else _scores(content, count, peer)


def _scores(content: ContentId, count: int, peer: PeerId) -> array[int]:
    state = _begun(content, peer)
    found = array("Q")
    for block in range(-(-count // BLOCK)):
        found.extend(_block(state, block))
    return found[:count]


_known_scores = lru_cache(maxsize=KNOWN_SCORES)(_scores)


def foremost(content: ContentId, chunk: int, group: Group) -> dict[int, int]:
    """The highest scores of a group for one chunk, each with how many are higher. 2 µs a member for eight."""
    block, place = divmod(chunk, BLOCK)
    return _foremost(content, block, group)[place]


@lru_cache(maxsize=KNOWN_FOREMOST)
def _foremost(content: ContentId, block: int, group: Group) -> tuple[dict[int, int], ...]:
    rows = [_block(_begun(content, peer), block) for peer in group.members]
    best = (sorted(column, reverse=True)[:FOREMOST] for column in zip(*rows, strict=True))
    return tuple({score: before for before, score in enumerate(column)} for column in best)


def _begun(content: ContentId, peer: PeerId) -> blake2b:
    return blake2b(f"nearfetch owner v2 {content} {peer} ".encode("ascii"), digest_size=_EIGHT.size)


def _block(begun: blake2b, block: int) -> tuple[int, ...]:
    state = begun.copy()
    state.update(block.to_bytes(4, "big"))
    return _EIGHT.unpack(state.digest())


@lru_cache(maxsize=KNOWN_ORDERS)
def order(content: ContentId, count: int) -> tuple[int, ...]:
    """All chunks, as they come for everybody in a large group."""
    return tuple(sorted(range(count), key=scores(content, count, PeerId("order")).__getitem__))
