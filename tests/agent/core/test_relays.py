"""A chunk poisoned two hops away: who vouched for it is blamed, who handed it on is not.

A forges: it vouches with its own key for bytes that it altered. B took them from A, found that they are what A
says, and hands them on with A's voucher. We get them from B. What a single judgement means is in test_evidence.py.
"""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core.integrity import Integrity
from agent.core.sources import ORIGIN
from peer.core.failure import FailureKind
from peer.core.standing import Offence
from tests.support.drawing import draw
from tests.support.playbook import (
    ALL_THERE,
    CHUNK,
    CONNECTED,
    OWN,
    PEER_A,
    PEER_B,
    PEER_C,
    PREPARE,
    PROBE,
    REFETCHING,
    STOP,
    VALIDATE,
    WITHDRAW,
    Playbook,
    Stage,
    accepted,
    anything,
    begun,
    digest,
    digest_of,
    digested,
    facts,
    failed,
    fetch,
    probed,
    publish,
    received,
    rejected,
    report,
    source_of,
    spec,
    vouch,
)
from validation.digest import Algorithm, Digest


def blamed(stage: Stage) -> list[str]:
    return [each.peer for each in stage.log if isinstance(each, cmd.ReportPeer)]


def test_the_relay_hands_on_what_it_was_given_and_signs_nothing() -> None:
    """How B itself sees it."""
    play = Playbook(draw(ours="*-", own=OWN, peer_a="-*"))
    play >> received(PEER_A, flavour="noise") << digest(1)
    play >> digested(1, flavour="noise") << publish(1, signers=(PEER_A,), flavour="noise") << anything
    play.check()
    (told,) = [each for each in play.stage.log if isinstance(each, cmd.PublishChunk) and each.chunk == 1]
    assert told.sign == ()


@pytest.mark.parametrize("known", [None, Digest(Algorithm.SHA256, bytes(32))])
def test_a_validator_finds_it_and_the_signer_is_named_two_hops_away(known: Digest | None) -> None:
    play = Playbook(draw(ours="*-", spec=spec(digest=known), peer_b="-*"))
    play >> received(PEER_B, signer=PEER_A, flavour="noise") << digest(1)
    play >> digested(1, flavour="noise") << publish(1, signers=(PEER_A,), flavour="noise")
    play << STOP << ALL_THERE << VALIDATE
    play >> rejected() << WITHDRAW << REFETCHING
    play >> begun() << PROBE
    play >> probed(facts(2)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=1)
    play >> received(ORIGIN) << digest(1)
    play >> digested(1) << report(PEER_A, Offence.FALSE_VOUCHER) << publish(1, signers=())
    play << STOP << ALL_THERE << VALIDATE
    play >> accepted() << anything
    play.check()
    assert blamed(play.stage) == [PEER_A]
    assert any(isinstance(each, cmd.Finished) for each in play.stage.log)


def test_another_who_fetched_it_itself_contradicts_and_the_origin_decides() -> None:
    play = Playbook(draw(ours="--", peer_b="*-", peer_c="**"))
    ids = play.transfer.content_ids
    both = [vouch(each, 0, PEER_A, "noise") for each in ids] + [vouch(each, 0, PEER_C) for each in ids]
    play >> received(PEER_B, vouchers=both, chunk=0) << fetch(ORIGIN, chunk=0)
    play >> received(ORIGIN) << digest(0)
    play >> digested(0) << report(PEER_A, Offence.FALSE_VOUCHER) << publish(0, signers=())
    play.check()
    assert blamed(play.stage) == [PEER_A]


@pytest.mark.parametrize("integrity", [Integrity.VOUCHED, Integrity.ANCHORED])
def test_a_manifest_finds_it_and_the_relay_goes_on_giving(integrity: Integrity) -> None:
    anchors = tuple(digest_of(chunk) for chunk in range(3))
    play = Playbook(draw(ours="*--", spec=spec(integrity=integrity, anchors=anchors), own=OWN, peer_b="-*-"))
    play >> received(PEER_B, signer=PEER_A, flavour="noise", chunk=1) << anything
    play >> digested(1, flavour="noise") << anything
    play.check()
    assert blamed(play.stage) == [], "the origin has not said yet who lied"
    while any(each.source == ORIGIN for each in play.stage.open.values()):
        chunks = play.stage.layout.touched_by(play.stage.request(ORIGIN).item)
        play >> received(ORIGIN) << anything
        play >> digested(*chunks) << anything
    play.check()
    assert blamed(play.stage) == [PEER_A]
    play >> accepted() << anything
    play.check()
    assert any(isinstance(each, cmd.Finished) for each in play.stage.log)


def test_who_vouches_itself_for_what_a_manifest_contradicts_is_caught_in_the_act() -> None:
    play = Playbook(draw(ours="*-", spec=spec(anchors=(digest_of(0), digest_of(1))), peer_b="-*"))
    play >> received(PEER_B, flavour="noise") << digest(1)
    play >> digested(1, flavour="noise") << report(PEER_B, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=1)
    play.check()


def test_a_relay_that_alters_what_it_hands_on_is_blamed_itself() -> None:
    play = Playbook(draw(ours="*-", peer_b="-*"))
    play >> received(PEER_B, signer=PEER_A) << digest(1)
    play >> digested(1, flavour="noise") << report(PEER_B, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=1)
    play.check()


def test_a_relay_that_does_not_know_yet_who_lied_gets_no_strike_for_it() -> None:
    """A strike would make it cool off, three of them would cost us an honest source."""
    play = Playbook(draw(ours="-*" * 7, peer_b="*-" * 7))
    first = play.stage.request(PEER_B).item.start // CHUNK
    ids = play.transfer.content_ids
    both = [vouch(each, first, PEER_A, "noise") for each in ids] + [vouch(each, first, PEER_C) for each in ids]
    play >> received(PEER_B, vouchers=both, chunk=first) << anything
    play >> received(ORIGIN) << anything
    play >> digested(first) << report(PEER_A, Offence.FALSE_VOUCHER) << anything
    while any(each.source == source_of(PEER_B) for each in play.stage.open.values()):
        play >> received(PEER_B, signer=PEER_A) << anything
    play.check()
    asked = [each for each in play.stage.log if isinstance(each, cmd.FetchRange)]
    assert len([each for each in asked if each.source == source_of(PEER_B)]) == 7
    assert blamed(play.stage) == [PEER_A]


def test_the_origin_that_is_cut_off_leaves_a_damaged_chunk_to_those_who_were_not_caught() -> None:
    """What was vouched for still holds; only who brought the damage is out."""
    play = Playbook(draw(ours="a-", own=OWN, peer_a="*-", peer_b="*-"))
    play >> digested(0, flavour="noise") << anything
    assert blamed(play.stage) == [PEER_A]
    play >> failed(ORIGIN, FailureKind.STALLED) << anything
    play.check()
    assert play.stage.request(PEER_B).item.start == 0
