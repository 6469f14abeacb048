"""Which chunks of a rejected copy are fetched again, and when enough is known. What follows is in
test_rejected_copies.py."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from agent.core.comparing import AT_A_TIME, NEAR_AT_A_TIME, PASSED_ON_AT_A_TIME, Comparing, Offer, Sight
from peer.core.voucher import PeerId
from tests.support.playbook import PEER_A, PEER_B, PEER_C, digest_of
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, bitfield, chunks_in

COUNT = 60
EVERYTHING = bitfield(range(COUNT))
PARTS = {PEER_A: range(20), PEER_B: range(20, 50), PEER_C: range(50, 60)}


class Table:
    """What is held of a copy of sixty chunks that three vouched for."""

    def __init__(self, seed: int = 1) -> None:
        rejected = {ChunkIndex(chunk): digest_of(chunk) for chunk in range(COUNT)}
        self.comparing = Comparing(rejected, random.Random(seed))
        self.words = {ChunkIndex(chunk): (peer,) for peer, part in PARTS.items() for chunk in part}
        self.of_origin = self.missing = NO_CHUNKS

    def choose(self, *offers: Offer) -> Bitfield:
        """What is chosen is thrown away."""
        sight = Sight(
            suspects=Bitfield(EVERYTHING & ~self.of_origin & ~self.missing),
            missing=self.missing,
            awaited=Bitfield(self.missing & self.comparing.origin_only),
            offers=offers,
        )
        chosen = self.comparing.choose(sight, lambda chunk: self.words[chunk])
        assert not chosen & self.missing
        self.missing = Bitfield(self.missing | chosen)
        return chosen

    def far(self, *offers: Offer) -> Bitfield:
        """Those of them that the origin has to supply."""
        return Bitfield(self.choose(*offers) & self.comparing.origin_only)

    def comes(self, *chunks: int, flavour: str = "true") -> None:
        """They are there again."""
        for chunk in chunks:
            self.comparing.proven(ChunkIndex(chunk), digest_of(chunk, flavour))
            bit = 1 << chunk
            self.missing = Bitfield(self.missing & ~bit)
            self.of_origin = Bitfield(self.of_origin | bit & self.comparing.origin_only)


def wanting(peer: PeerId, *chunks: int) -> Offer:
    return peer, bitfield(chunks), True


def passing_on(peer: PeerId, *chunks: int) -> Offer:
    return peer, bitfield(chunks), False


def test_everybody_is_looked_at_in_turn_however_much_each_vouched_for() -> None:
    at, seen = Table(), Counter[PeerId]()
    for _ in range(6):
        chosen = list(chunks_in(at.far()))
        assert len(chosen) == AT_A_TIME
        seen.update(at.words[chunk][0] for chunk in chosen)
        at.comes(*chosen)
    assert seen == {PEER_A: 4, PEER_B: 4, PEER_C: 4}


def test_nothing_more_is_chosen_while_the_origin_has_not_delivered() -> None:
    at = Table()
    first, second = chunks_in(at.far())
    assert at.choose() == NO_CHUNKS
    at.comes(first)
    assert at.choose() == NO_CHUNKS
    at.comes(second)
    assert at.choose() != NO_CHUNKS


def test_when_nothing_differs_all_comes_from_the_origin_once_in_ever_larger_steps() -> None:
    at, steps = Table(), []
    while chosen := at.far():
        steps.append(chosen.bit_count())
        at.comes(*chunks_in(chosen))
    assert at.of_origin == EVERYTHING
    assert sum(steps) == COUNT
    assert steps[0] == AT_A_TIME < steps[-2] < steps[-1]
    assert steps[-1] > COUNT // 3, "who is right for so long is right"


def test_once_something_differs_nothing_is_chosen() -> None:
    at = Table()
    first, second = chunks_in(at.far())
    at.comes(first)
    assert not at.comparing.different
    at.comes(second, flavour="noise")
    assert at.comparing.different
    assert at.choose(passing_on(PEER_A, *range(COUNT))) == NO_CHUNKS


def test_what_was_not_rejected_cannot_differ() -> None:
    assert not Comparing({}, random.Random(1)).proven(ChunkIndex(0), digest_of(0))


def test_what_nobody_knew_the_digest_of_is_taken_for_another() -> None:
    comparing = Comparing({ChunkIndex(0): None}, random.Random(1))
    assert comparing.proven(ChunkIndex(0), digest_of(0))


def test_a_peers_own_word_is_no_news_and_anothers_is() -> None:
    at = Table()
    assert at.choose(wanting(PEER_A, *PARTS[PEER_A])) == at.comparing.origin_only, "only what it said before"
    at = Table()
    near = at.choose(wanting(PEER_A, 55))
    assert near == 1 << 55
    assert at.comparing.origin_only == NO_CHUNKS, "the origin is asked when it is known what came of that"
    at.comes(55)
    at.words[ChunkIndex(55)] = (PEER_C, PEER_A)
    assert at.far().bit_count() == AT_A_TIME


def test_who_fetches_it_too_is_asked_first_and_most() -> None:
    at = Table()
    chosen = at.choose(wanting(PEER_A, *range(20, 40)), passing_on(PEER_B, *range(60)))
    assert chosen.bit_count() == NEAR_AT_A_TIME
    assert not chosen & ~bitfield(range(20, 40))
    at = Table()
    chosen = at.choose(passing_on(PEER_B, *range(60)))
    assert at.comparing.origin_only.bit_count() == AT_A_TIME, "what is passed on is not waited for"
    assert (chosen & ~at.comparing.origin_only).bit_count() == PASSED_ON_AT_A_TIME


def test_nothing_is_compared_with_a_peers_twice() -> None:
    at, seen = Table(), NO_CHUNKS
    for _ in range(40):
        chosen = at.choose(wanting(PEER_A, *range(20, 30)))
        near = Bitfield(chosen & ~at.comparing.origin_only)
        assert not near & seen
        seen = Bitfield(seen | near)
        at.comes(*chunks_in(chosen))
    assert seen == bitfield(range(20, 30))


def test_what_several_vouch_for_comes_last() -> None:
    at = Table()
    for chunk in range(20, 60):
        at.words[ChunkIndex(chunk)] = (PEER_B, PEER_C)
    for _ in range(6):
        chosen = at.far()
        assert not chosen & ~bitfield(PARTS[PEER_A])
        at.comes(*chunks_in(chosen))


@pytest.mark.parametrize("still", [True, False])
def test_what_was_to_be_compared_may_come_from_its_signer_when_nobody_else_has_it(still: bool) -> None:
    at = Table()
    assert at.choose(wanting(PEER_A, 55)) == 1 << 55
    offers = (wanting(PEER_A, 55),) if still else ()
    sight = Sight(suspects=NO_CHUNKS, missing=at.missing, awaited=NO_CHUNKS, offers=offers)
    assert at.comparing.given_up(sight) == (NO_CHUNKS if still else 1 << 55)
    assert at.comparing.given_up(sight) == NO_CHUNKS, "it is said once"


def test_what_one_vouches_for_is_not_passed_on_before_it_is_known_to_be_right() -> None:
    at = Table()
    at.choose(wanting(PEER_A, 55))
    assert at.comparing.is_doubtful(ChunkIndex(55), 1)
    assert not at.comparing.is_doubtful(ChunkIndex(55), 2)
    assert not at.comparing.is_doubtful(ChunkIndex(1), 1)
    at.comparing.different = True
    assert not at.comparing.is_doubtful(ChunkIndex(55), 1)
