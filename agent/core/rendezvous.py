"""Rendezvous hashing (Thaler and Ravishankar 1998): a score for each peer and chunk that everybody finds alike.

Never knows: who wants the content, who has it, which score counts for what.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from peer.core.voucher import PeerId
from validation.content import ContentId

KNOWN_SCORES = 16384
"""Peers whose scores are remembered, of contents with at most so many chunks"""
SMALL_COUNT = 1024
"""(8 KiB each)."""
BEST_KEPT = 64
"""Of a large group's scores for a chunk: who comes later hardly ever matters."""
KNOWN_BEST = 4096
"""Chunks for which these are remembered: 5 KiB each."""
KNOWN_ORDERS = 16
"""Contents whose order is remembered."""


class Group:
    """All agents that are there, us included, whatever they want. Equal to nothing but itself."""

    def __init__(self, members: Iterable[PeerId]) -> None:
        self.members = tuple(members)


def scores(content: ContentId, count: int, peer: PeerId) -> array[int]:
    """One number for each chunk; the highest of all peers' owns it."""
    return _known_scores(content, count, peer) if count <= SMALL_COUNT else _scores(content, count, peer)


def _scores(content: ContentId, count: int, peer: PeerId) -> array[int]:
    state = blake2b(f"nearfetch owner v1 {content} {peer} ".encode("ascii"), digest_size=8)
    found = array("Q")
    for chunk in range(count):
        each = state.copy()
        each.update(chunk.to_bytes(4, "big"))
        found.append(int.from_bytes(each.digest(), "big"))
    return found


_known_scores = lru_cache(maxsize=KNOWN_SCORES)(_scores)


@lru_cache(maxsize=KNOWN_BEST)
def foremost(content: ContentId, chunk: int, group: Group) -> dict[int, int]:
    """The highest scores of a group for one chunk, each with how many are higher. 1 µs a member."""
    end = chunk.to_bytes(4, "big")
    found = []
    for peer in group.members:
        state = blake2b(f"nearfetch owner v1 {content} {peer} ".encode("ascii"), digest_size=8)
        state.update(end)
        found.append(int.from_bytes(state.digest(), "big"))
    found.sort(reverse=True)
    return {score: before for before, score in enumerate(found[:BEST_KEPT])}


@lru_cache(maxsize=KNOWN_ORDERS)
def order(content: ContentId, count: int) -> tuple[int, ...]:
    """All chunks, as they come for everybody in a large group."""
    return tuple(sorted(range(count), key=scores(content, count, PeerId("order")).__getitem__))
