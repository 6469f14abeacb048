"""Sources in one transfer: who is asked for what, who is believed, who is blamed, and what if they fail."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core.sources import CACHE, ORIGIN, SourceId, sibling_source
from agent.core.spec import Restored
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from peer.core.standing import Offence
from tests.support.drawing import draw
from tests.support.playbook import (
    ALL_THERE,
    ASK,
    CHUNK,
    CONNECTED,
    FORGET,
    OWN,
    PEER_A,
    PEER_B,
    PEER_C,
    PREPARE,
    PROBE,
    STOP,
    VALIDATE,
    FileId,
    Playbook,
    Stage,
    abort,
    anything,
    arrived,
    begun,
    corrupt,
    digest,
    digested,
    facts,
    failed,
    fetch,
    fetch_bytes,
    lost,
    near_answered,
    offered,
    probed,
    publish,
    received,
    report,
    sends,
    ticked,
    troubled,
    vouch,
    withdraws,
)
from validation.ranges import ByteRange

SIBLING = sibling_source(FileId("other/0"))


def asked_of(stage: Stage) -> list[SourceId]:
    return [each.source for each in stage.open.values()]


# --- the drawing itself --------------------------------------------------------------------------------------


def test_the_drawing_is_what_it_shows() -> None:
    stage = draw(ours="*Ab-", peer_a="***-", peer_b="-*-*")
    book = stage.transfer.chunks
    assert book is not None
    assert stage.transfer.phase is Phase.FETCHING
    assert (book.proven, book.from_origin, book.suspects, book.digesting) == (0b0011, 0b0001, 0b0010, 0b0100)
    assert asked_of(stage) == [f"peer:{PEER_B}"]


def test_bytes_that_came_with_the_end_of_a_request_count_once() -> None:
    play = Playbook(draw(ours="---", peer_a="*--", peer_b="-*-"))
    play >> arrived(PEER_A, count=CHUNK // 2) >> received(PEER_A) << digest(0)
    play >> received(PEER_B) << digest(1)
    play.check()
    assert play.transfer.tally.by_peer == {PEER_A: CHUNK, PEER_B: CHUNK}


# --- lies ----------------------------------------------------------------------------------------------------


def test_a_corrupt_chunk_bans_its_bearer_and_comes_from_the_origin() -> None:
    play = Playbook(draw(ours="a**", peer_a="***", peer_b="*--"))
    play >> corrupt(chunk=0)
    play << report(PEER_A, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=0)
    play.check()


def test_two_vouchers_that_differ_are_decided_by_the_origin() -> None:
    play = Playbook(draw(ours="A-*", peer_b="-*-"))
    said = [vouch(cid, 1, PEER_A, "noise") for cid in play.transfer.content_ids]
    said += [vouch(cid, 1, PEER_B) for cid in play.transfer.content_ids]
    play >> received(PEER_B, vouchers=said) << fetch(ORIGIN, chunk=1)
    play >> received(ORIGIN) << digest(1)
    play >> digested(1) << report(PEER_A, Offence.FALSE_VOUCHER) << publish(1, signers=())
    play << fetch(ORIGIN, chunk=0)  # it rested on the liar's word alone
    play.check()
    assert [each.peer for each in play.stage.log if isinstance(each, cmd.ReportPeer)] == [PEER_A]


def test_a_chunk_that_two_vouch_for_survives_one_liar() -> None:
    play = Playbook(draw(ours="--", peer_a="**"))
    ids = play.transfer.content_ids
    both = [vouch(cid, chunk, who) for cid in ids for chunk in (0, 1) for who in (PEER_A, PEER_B)]
    first = 0 if play.stage.request(PEER_A).item.start == 0 else 1
    play >> received(PEER_A, vouchers=both, chunk=first) << digest(first)
    play >> digested(first) << publish(first, signers=(PEER_A, PEER_B))
    play >> received(PEER_A, vouchers=both, chunk=1 - first) << digest(1 - first)
    play >> corrupt(1 - first) << report(PEER_A, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=1 - first)
    play.check()


def test_what_is_being_digested_when_its_only_signer_is_banned_does_not_count() -> None:
    play = Playbook(draw(ours="--", peer_a="*-", peer_b="-*"))
    play >> received(PEER_B, signer=PEER_A) << digest(1)
    play >> received(PEER_A) << digest(0)
    play >> corrupt(0) << report(PEER_A, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=0)
    play >> digested(1) << fetch(PEER_B, chunk=1)
    play >> received(PEER_B, signer=PEER_A)  # a liar's word is not heard again
    play >> received(ORIGIN) << digest(0) << fetch(ORIGIN, chunk=1)
    play.check()


def test_an_honest_peer_is_not_measured_by_what_others_vouched() -> None:
    play = Playbook(draw(ours="--", peer_a="*-", peer_b="-*"))
    lies = [vouch(cid, chunk, PEER_A, "noise") for cid in play.transfer.content_ids for chunk in (0, 1)]
    play >> received(PEER_A, vouchers=lies) << digest(0)
    play >> received(PEER_B, vouchers=())  # its signer's certificate was not to be had
    play << fetch(ORIGIN, chunk=1)
    play.check()


def test_bytes_without_a_voucher_do_not_count_and_cost_one_strike() -> None:
    play = Playbook(draw(ours="---", peer_a="***"))
    for strike in range(3):
        for each in list(play.stage.open.values()):
            if each.source != ORIGIN:
                play >> received(PEER_A, vouchers=()) << anything
        if strike < 2:
            play >> ticked(3.0) << anything
    play.check()
    assert asked_of(play.stage) == [ORIGIN]
    assert not any(isinstance(each, cmd.ReportPeer) for each in play.stage.log)


def test_a_banned_peer_that_goes_on_offering_is_not_heard() -> None:
    play = Playbook(draw(ours="a---", peer_a="****"))
    play >> corrupt(0) << report(PEER_A, Offence.CORRUPT_BYTES) << anything
    for each in list(play.stage.open.values()):
        if each.source != ORIGIN:
            play >> failed(PEER_A, FailureKind.NOT_TRUSTED) << anything
    play >> received(ORIGIN) << digest(0) << fetch(ORIGIN, chunks=(1, 3))
    play >> offered(PEER_A, [1, 2, 3]) >> offered(PEER_A, [1, 2, 3])
    play.check()
    assert asked_of(play.stage) == [ORIGIN]


def test_a_false_signer_is_asked_no_more_even_before_it_is_gone() -> None:
    play = Playbook(draw(ours="--", peer_a="*-"))
    ids = play.transfer.content_ids
    said = [vouch(cid, 0, PEER_A) for cid in ids] + [vouch(cid, 1, PEER_A, "noise") for cid in ids]
    play >> received(PEER_A, vouchers=said) << digest(0)
    play >> digested(0) << publish(0)
    play >> received(ORIGIN) << digest(1)
    play >> digested(1) << report(PEER_A, Offence.FALSE_VOUCHER) << publish(1, signers=())
    play << fetch(ORIGIN, chunk=0)
    play.check()


def test_a_rotten_cache_is_emptied_and_not_used_again() -> None:
    play = Playbook(draw(ours="--", cache="**"))
    said = [vouch(cid, chunk, PEER_C) for cid in play.transfer.content_ids for chunk in (0, 1)]
    play >> received(CACHE, vouchers=said) << digest(0) << digest(1)
    play >> corrupt(0) << withdraws(0) << fetch(ORIGIN, chunk=0)
    play >> digested(1)
    play.check()
    assert not any(isinstance(each, cmd.ReportPeer) for each in play.stage.log)


def test_a_restored_chunk_that_was_damaged_is_fetched_again_and_nobody_is_blamed() -> None:
    before = draw(ours="A*")
    item = before.layout.whole
    left = Restored(snapshot=before.transfer.snapshot(), held=(item,))
    play = Playbook(Stage.new(restored=left))
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << digest(0) << digest(1) << ASK
    play >> near_answered()
    play >> corrupt(0) << fetch(ORIGIN, chunk=0)
    play.check()


# --- failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FailureKind.STALLED, FailureKind.CONNECTION_CLOSED])
def test_a_peer_that_fails_cools_off_while_the_origin_goes_on(kind: FailureKind) -> None:
    play = Playbook(draw(ours="-", peer_a="*"))
    play >> failed(PEER_A, kind) << fetch(ORIGIN, chunk=0)
    play.check()


def test_a_busy_peer_is_waited_for_a_moment() -> None:
    play = Playbook(draw(ours="-", peer_a="*"))
    play >> failed(PEER_A, FailureKind.BUSY)
    play >> ticked() << fetch(PEER_A, chunk=0)
    play >> failed(PEER_A, FailureKind.BUSY)
    play >> ticked() << fetch(ORIGIN, chunk=0)
    play.check()


def test_a_peer_that_fails_is_replaced_by_another() -> None:
    play = Playbook(draw(ours="-", peer_a="*"))
    play >> offered(PEER_B, [0])
    play >> failed(PEER_A, FailureKind.CONNECTION_CLOSED) << fetch(PEER_B, chunk=0)
    play.check()


def test_a_peer_comes_back_after_it_cooled_off() -> None:
    play = Playbook(draw(ours="-", peer_a="*", origin=facts(1)))
    play >> failed(PEER_A, FailureKind.STALLED) << fetch(ORIGIN, chunk=0)
    play >> failed(ORIGIN, FailureKind.BUSY) << STOP << anything
    play >> begun() << PROBE >> probed(facts(1)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, [0]) << fetch(PEER_A, chunk=0)
    play.check()


def test_three_failures_in_a_row_and_it_is_left_alone() -> None:
    play = Playbook(draw(ours="--", peer_a="*-"))
    for _ in range(2):
        play >> failed(PEER_A, FailureKind.STALLED)
        play >> ticked(5.0) << fetch(PEER_A, chunk=0)
    play >> failed(PEER_A, FailureKind.STALLED)
    play >> ticked(60.0) >> offered(PEER_A, [0])
    play >> received(ORIGIN) << digest(1) << fetch(ORIGIN, chunk=0)
    play.check()


def test_busy_is_no_strike() -> None:
    play = Playbook(draw(ours="--", peer_a="*-"))
    for _ in range(6):
        play >> failed(PEER_A, FailureKind.BUSY, retry_after_s=2.0)
        play >> ticked(2.0) << fetch(PEER_A, chunk=0)
    play.check()


def test_a_lost_peer_leaves_its_chunks_to_others() -> None:
    play = Playbook(draw(ours="-", peer_a="*"))
    play >> lost(PEER_A)
    play >> failed(PEER_A, FailureKind.CONNECTION_CLOSED) << fetch(ORIGIN, chunk=0)
    play.check()


def test_bytes_of_a_peer_that_broke_off_are_thrown_away() -> None:
    play = Playbook(draw(ours="-", peer_a="*"))
    play >> arrived(PEER_A, CHUNK // 2)
    play >> failed(PEER_A, FailureKind.CONNECTION_CLOSED) << fetch(ORIGIN, chunk=0)
    play.check()
    assert play.transfer.tally.discarded == CHUNK // 2


def test_an_abort_that_nobody_asked_for_is_a_failure() -> None:
    play = Playbook(draw(ours="--", peer_a="*-"))
    play >> failed(PEER_A, FailureKind.ABORTED)  # no new request at once, for ever
    play >> failed(ORIGIN, FailureKind.ABORTED) << STOP << troubled(FailureKind.CONNECTION_CLOSED)
    play.check()
    assert play.transfer.phase is Phase.IDLE


def test_bytes_that_are_recorded_are_taken_back_before_a_peer_writes_over_them() -> None:
    """Else a crash in between would leave unproven bytes of a peer where the record says there are the origin's."""
    play = Playbook(draw(ours="--"), watch=(cmd.SaveProgress,))
    play >> arrived(ORIGIN, 1000)
    play >> ticked() << sends(cmd.SaveProgress, held=(ByteRange(0, 1000),))
    play >> failed(ORIGIN, FailureKind.BUSY) << anything
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, [0, 1])
    play << sends(cmd.SaveProgress, held=(), durability=cmd.Durability.POWER) << fetch(PEER_A, chunks=(0, 1))
    play.check()


# --- near before far -----------------------------------------------------------------------------------------


def test_a_peer_that_gets_what_the_origin_is_sending_takes_it_over() -> None:
    play = Playbook(draw(ours="----"))
    play >> arrived(ORIGIN, 1000)
    play >> offered(PEER_A, [0, 1, 2, 3]) << abort(ORIGIN)
    play >> failed(ORIGIN, FailureKind.ABORTED) << anything
    play.check()
    assert set(asked_of(play.stage)) == {f"peer:{PEER_A}"}


def test_what_it_is_not_asked_for_is_no_reason_to_hand_over() -> None:
    """It sent that without a voucher. Ending the origin's request for it again and again would bring nothing."""
    play = Playbook(draw(ours="*-", own=OWN, peer_a="**"))
    while any(each.source != ORIGIN for each in play.stage.open.values()):
        play >> received(PEER_A, vouchers=()) << anything
    play >> arrived(ORIGIN, 1000)
    play >> ticked(1.0) << anything
    play >> offered(PEER_A, [0, 1])
    play.check()
    asked = [each for each in play.stage.log if isinstance(each, cmd.FetchRange)]
    assert 0 < len([each for each in asked if each.source != ORIGIN]) < 3, (
        "dropped, or never asked: this proves nothing"
    )


def test_only_the_chunk_on_its_way_is_no_reason_to_hand_over() -> None:
    play = Playbook(draw(ours="--*"))
    play >> arrived(ORIGIN, CHUNK + 1000) << digest(0)
    play >> offered(PEER_A, [0, 1])
    play.check()


def test_a_claimed_chunk_is_waited_for_and_comes_from_the_claimant() -> None:
    play = Playbook(draw(ours="-*", peer_a="c-"))
    assert asked_of(play.stage) == []
    play >> offered(PEER_A, [0]) << fetch(PEER_A, chunk=0)
    play.check()


def test_a_claim_that_leads_to_nothing_is_not_waited_for_for_ever() -> None:
    play = Playbook(draw(ours="--", peer_a="cc"))
    play >> ticked(10.0)
    play >> offered(PEER_A, claimed=[0, 1])
    play >> lost(PEER_A) << fetch(ORIGIN)
    play.check()
    play = Playbook(draw(ours="--", peer_a="cc"))
    play >> ticked() << fetch(ORIGIN)
    play >> offered(PEER_A, claimed=[0, 1])
    play.check()


def test_a_claimant_that_delivers_is_waited_for_longer() -> None:
    play = Playbook(draw(ours="--", peer_a="cc"))
    play >> ticked(14.0)
    play >> offered(PEER_A, [0], claimed=[1]) << fetch(PEER_A, chunk=0)
    play >> received(PEER_A) << digest(0)
    play >> digested(0) << publish(0)
    play >> ticked(14.0)
    play.check()


def test_the_word_of_a_sibling_does_not_run_out() -> None:
    play = Playbook(draw(ours="--"))
    play >> failed(ORIGIN, FailureKind.CHANGED) << STOP << FORGET << PROBE
    play >> probed(facts(2, etag='"v2"')) << CONNECTED << PREPARE << ASK
    play >> offered(SIBLING, claimed=[0, 1])
    play >> near_answered()
    play >> ticked(3600.0)
    play >> offered(SIBLING, [0], [1]) << fetch(SIBLING, chunk=0)
    play >> received(SIBLING) << digest(0)
    play >> digested(0)  # what is not published here was published there
    play >> lost(SIBLING) << fetch(ORIGIN, chunk=1)
    play.check()


def test_the_chunk_that_the_origin_had_begun_is_finished_first() -> None:
    play = Playbook(draw(ours="------", peer_a="-----c"))
    asked = play.stage.request(ORIGIN)
    play >> arrived(ORIGIN, 1000 + CHUNK) << anything
    play >> failed(ORIGIN, FailureKind.CONNECTION_CLOSED)
    play << fetch_bytes(ORIGIN, asked.item.start + CHUNK + 1000, asked.item.stop)
    play.check()


def test_late_answers_of_requests_that_are_over_mean_nothing() -> None:
    play = Playbook(draw(ours="-", peer_a="*"))
    asked = play.stage.request(PEER_A)
    play >> failed(PEER_A, FailureKind.STALLED) << fetch(ORIGIN, chunk=0)
    play.stage.open[asked.request] = asked
    play >> received(PEER_A)
    play >> received(ORIGIN) << digest(0) >> digested(0) << publish(0, ()) << STOP << ALL_THERE << VALIDATE
    play.check()
    assert play.transfer.tally.by_peer == {}
