"""One file from the first question to the last verdict. What concerns sources is in test_fetching.py."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import Decision
from agent.core.facts import Sharing
from agent.core.integrity import Integrity
from agent.core.sources import ORIGIN
from agent.core.spec import NearUse, Restored, ServeUse, Snapshot
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from peer.core.standing import Offence
from tests.support.drawing import draw
from tests.support.playbook import (
    ALL_THERE,
    ASK,
    CHUNK,
    CONNECTED,
    FINISHED,
    FORGET,
    PEER_A,
    PEER_B,
    PREPARE,
    PROBE,
    REFETCHING,
    STOP,
    UNDECIDED,
    VALIDATE,
    WITHDRAW,
    Playbook,
    Stage,
    abort,
    accepted,
    anything,
    arrived,
    begun,
    decided,
    digest,
    digest_of,
    digested,
    facts,
    failed,
    fails,
    fetch,
    fetch_bytes,
    lost,
    near_answered,
    offered,
    paused,
    probed,
    publish,
    received,
    rejected,
    report,
    sends,
    spec,
    ticked,
    troubled,
    undecided,
    validator_failed,
)
from validation.ranges import ByteRange


def whole(stage: Stage) -> Playbook:
    """Everything is proven; the validators are asked."""
    assert stage.transfer.phase is Phase.VALIDATING
    return Playbook(stage)


# --- from nothing to the end ---------------------------------------------------------------------------------


def test_cold_from_the_origin_alone() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> probed(facts(2)) << CONNECTED << sends(cmd.PrepareFile, length=2 * CHUNK) << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 1))
    play >> received(ORIGIN) << digest(0) << digest(1)
    play >> digested(1) << publish(1, signers=())
    play >> digested(0) << publish(0, signers=()) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()
    assert play.transfer.phase is Phase.DONE
    assert play.transfer.tally.from_origin == 2 * CHUNK


def test_warm_from_one_peer_alone() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> probed(facts(2)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, [0, 1]) << anything  # everything is in sight: nobody waits for the others
    play >> received(PEER_A, chunk=0) << digest(0)
    play >> received(PEER_A, chunk=1) << digest(1)
    play >> digested(0) << publish(0, signers=(PEER_A,))
    play >> digested(1) << publish(1, signers=(PEER_A,)) << STOP << ALL_THERE << VALIDATE
    play.check()
    assert (play.transfer.tally.from_origin, play.transfer.tally.by_peer) == (0, {PEER_A: 2 * CHUNK})


def test_mixed() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> probed(facts(3)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, [1])
    play >> near_answered() << fetch(PEER_A, chunk=1) << fetch(ORIGIN)
    play >> received(PEER_A) << digest(1)
    play.check()
    assert not any(each.item.overlaps(ByteRange(CHUNK, 2 * CHUNK)) for each in play.stage.open.values())


def test_gathering_ends_by_itself() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE >> probed(facts(1)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A)
    play >> ticked() << fetch(ORIGIN, chunk=0)
    play.check()


def test_an_empty_file_is_complete_at_once() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> probed(facts(0)) << CONNECTED << PREPARE << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()


def test_unknown_length_is_one_request_and_is_not_shared() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> probed(facts(length=None)) << CONNECTED << sends(cmd.PrepareFile, length=None) << fetch(ORIGIN)
    play >> arrived(ORIGIN, 700_000)
    play.check()
    asked = play.stage.request(ORIGIN)
    play = Playbook(play.stage)
    end = ev.RangeReceived(file=asked.file, request=asked.request, item=ByteRange(0, 700_000))
    play >> (lambda stage: [end]) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()
    assert play.transfer.length == play.transfer.held_bytes == 700_000


def test_unknown_length_begins_again_after_a_cut() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE >> probed(facts(length=None)) << CONNECTED << PREPARE << fetch(ORIGIN)
    play >> arrived(ORIGIN, 700_000)
    play >> failed(ORIGIN, FailureKind.CONNECTION_CLOSED) << anything
    play.check()
    assert play.transfer.phase is Phase.FETCHING or play.transfer.phase is Phase.IDLE


# --- going on ------------------------------------------------------------------------------------------------


def restored(stop: int, length: int = 3 * CHUNK, **changes: object) -> Restored:
    return Restored(snapshot=Snapshot(facts=facts(length=length)), held=(ByteRange(0, stop),))


def test_an_earlier_process_left_one_chunk_and_a_half() -> None:
    play = Playbook(Stage.new(restored=restored(CHUNK + 1000)))
    play >> begun() << PROBE
    play >> probed(facts(3)) << CONNECTED << PREPARE << digest(0) << ASK
    play >> near_answered() << fetch_bytes(ORIGIN, CHUNK + 1000, 3 * CHUNK)
    play.check()


def test_what_was_left_of_other_content_is_thrown_away() -> None:
    play = Playbook(Stage.new(restored=restored(CHUNK)))
    play >> begun() << PROBE
    play >> probed(facts(3, etag='"v2"')) << STOP << FORGET << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 2))
    play.check()


def test_what_was_left_of_a_file_whose_length_is_told_no_more_is_thrown_away() -> None:
    """Nobody can say which of its bytes are still missing."""
    play = Playbook(Stage.new(restored=restored(CHUNK)))
    play >> begun() << PROBE
    play >> probed(facts(length=None)) << STOP << FORGET << CONNECTED << PREPARE << fetch(ORIGIN)
    play.check()


def test_parts_without_a_strong_validator_are_not_joined() -> None:
    weak = facts(3, etag='W/"v1"')
    left = Restored(snapshot=Snapshot(facts=weak), held=(ByteRange(0, CHUNK),))
    play = Playbook(Stage.new(restored=left))
    play >> begun() << PROBE
    play >> probed(weak) << STOP << FORGET << CONNECTED << PREPARE << fetch(ORIGIN, chunks=(0, 2))
    play.check()


def test_a_finished_file_of_an_earlier_process_stays_finished() -> None:
    left = Restored(snapshot=Snapshot(facts=facts(2), finished=True), held=(ByteRange(0, 2 * CHUNK),))
    play = Playbook(Stage.new(restored=left))
    play >> begun() >> paused() >> ticked(1.0)
    play.check()
    assert play.transfer.phase is Phase.DONE
    assert play.transfer.held_bytes == 2 * CHUNK


def test_a_finished_file_of_peers_found_invalid_after_a_restart_is_fetched_again() -> None:
    before = draw(ours="AB")
    before.feed(ev.ContentAccepted(file=before.transfer.spec.file, attempt=before.attempt))
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, 2 * CHUNK),))
    play = Playbook(Stage.new(restored=left))
    play >> decided(Decision.INVALID) << WITHDRAW << REFETCHING
    play >> begun() << PROBE
    play >> probed(facts(2)) << CONNECTED << PREPARE << fetch(ORIGIN, chunks=(0, 1))
    play >> received(ORIGIN) << digest(0) << digest(1)
    play >> digested(0, flavour="other") << report(PEER_A, Offence.FALSE_VOUCHER) << publish(0, (), "other")
    play.check()


# --- pause and resume ----------------------------------------------------------------------------------------


def test_paused_while_probing() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> paused()
    play >> probed()
    play >> begun() << PROBE
    play.check()


def test_paused_while_gathering() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE >> probed() << CONNECTED << PREPARE << ASK
    play >> paused() << STOP
    play >> offered(PEER_A, [0]) >> near_answered()
    play >> begun() << PROBE >> probed() << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 2))  # what A offered before is no offer now
    play.check()


def test_paused_while_fetching_and_late_bytes_count() -> None:
    play = Playbook(draw(ours="--"))
    play >> paused() << abort(ORIGIN) << STOP
    play >> arrived(ORIGIN, 5000)
    play >> failed(ORIGIN, FailureKind.ABORTED)
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch_bytes(ORIGIN, 5000, 2 * CHUNK)
    play.check()


def test_resumed_before_the_abort_is_answered_asks_nothing_twice() -> None:
    play = Playbook(draw(ours="--"))
    play >> paused() << abort(ORIGIN) << STOP
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << ASK
    play >> near_answered()
    play >> failed(ORIGIN, FailureKind.ABORTED) << fetch(ORIGIN, chunks=(0, 1))
    play.check()


def test_a_request_that_ended_well_after_its_abort_is_welcome() -> None:
    play = Playbook(draw(ours="-"))
    play >> paused() << abort(ORIGIN) << STOP
    play >> received(ORIGIN) << digest(0)
    play >> digested(0) << publish(0)
    play >> begun() << PROBE >> probed(facts(1)) << CONNECTED << PREPARE << STOP << ALL_THERE << VALIDATE
    play.check()


def test_paused_while_validating_the_late_verdict_means_nothing() -> None:
    play = whole(draw(ours="**"))
    play >> paused() << STOP
    play >> accepted()
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()


@pytest.mark.parametrize("verdict", [accepted, undecided])
def test_pause_changes_nothing_once_it_is_accepted(verdict: object) -> None:
    play = whole(draw(ours="**"))
    assert callable(verdict)
    play >> verdict() << anything
    play >> paused()
    play >> begun()
    play.check()
    assert play.transfer.phase in (Phase.DONE, Phase.DECIDING)


# --- verdicts ------------------------------------------------------------------------------------------------


def test_rejected_bytes_of_the_origin_are_an_error_and_progress_is_0() -> None:
    play = whole(draw(ours="**"))
    play >> rejected("digest differs") << WITHDRAW << STOP << FORGET
    play << fails("VALIDATION_FAILED", message="digest differs", context="origin")
    play.check()
    assert play.transfer.held_bytes == 0
    play = Playbook(play.stage)
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << fetch(ORIGIN, chunks=(0, 1))
    play.check()


def test_a_false_voucher_found_out_by_the_validator_costs_only_the_near_bytes() -> None:
    play = whole(draw(ours="*A*B"))
    play >> rejected() << WITHDRAW << REFETCHING
    play >> begun() << PROBE
    play >> probed(facts(4)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=1)
    play >> received(ORIGIN) << digest(1) << fetch(ORIGIN, chunk=3)
    play >> digested(1, flavour="real") << report(PEER_A, Offence.FALSE_VOUCHER) << publish(1, (), "real")
    play >> received(ORIGIN) << digest(3)
    play >> digested(3) << publish(3, signers=()) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()
    assert play.transfer.near is NearUse.NEVER


def test_rejected_again_after_the_origin_supplied_it_all_is_the_origins_fault() -> None:
    play = whole(draw(ours="A"))
    play >> rejected() << WITHDRAW << REFETCHING
    play >> begun() << PROBE >> probed(facts(1)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=0)
    play >> received(ORIGIN) << digest(0) >> digested(0) << publish(0) << STOP << ALL_THERE << VALIDATE
    play >> rejected() << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED")
    play.check()


def test_a_validator_that_crashed_is_no_verdict_and_costs_no_byte() -> None:
    play = whole(draw(ours="*A"))
    play >> validator_failed() << fails("VALIDATOR_FAILED", context="validator")
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()


@pytest.mark.parametrize("ours", ["**", "*A"])
def test_the_application_accepts(ours: str) -> None:
    play = whole(draw(ours=ours))
    play >> undecided() << UNDECIDED
    play >> decided(Decision.VALID) << FINISHED
    play.check()
    assert play.transfer.decision is Decision.VALID


def test_the_application_rejects_bytes_of_the_origin() -> None:
    play = whole(draw(ours="**"))
    play >> undecided() << UNDECIDED
    play >> decided(Decision.INVALID) << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED")
    play.check()


def test_the_application_rejects_bytes_of_a_peer() -> None:
    play = whole(draw(ours="*A"))
    play >> undecided() << UNDECIDED
    play >> decided(Decision.INVALID) << WITHDRAW << REFETCHING
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=1)
    play >> received(ORIGIN) << digest(1) >> digested(1) << publish(1) << STOP << ALL_THERE << VALIDATE
    play.check()
    assert play.transfer.decision is None, "the validity of the new copy is not decided"


def test_the_application_changes_its_mind_about_a_finished_file() -> None:
    play = whole(draw(ours="A*"))
    play >> accepted() << FINISHED
    play >> decided(Decision.VALID)
    play >> decided(Decision.INVALID) << WITHDRAW << REFETCHING
    play.check()


def test_a_decision_before_the_last_byte_means_nothing() -> None:
    play = Playbook(draw(ours="*-"))
    play >> decided(Decision.INVALID) >> decided(Decision.VALID)
    play.check()
    assert play.transfer.decision is None


# --- what may be shared --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        (spec(near=NearUse.NEVER, serve=ServeUse.NEVER), facts(1)),
        (spec(), facts(1, sharing=Sharing.PRIVATE)),
        (spec(), facts(1, sharing=Sharing.CREDENTIALS)),
        (spec(), facts(1, etag='W/"v1"')),
        (spec(), facts(1, etag='W/"v1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")),
    ],
)
def test_what_must_not_be_shared_is_neither_asked_for_nor_published(given: object, origin: object) -> None:
    play = Playbook(Stage.new(given))  # type: ignore[arg-type]
    play >> begun() << PROBE
    play >> probed(origin) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=0)  # type: ignore[arg-type]
    play >> received(ORIGIN) << digest(0)
    play >> digested(0) << STOP << ALL_THERE << VALIDATE
    play.check()


def test_whole_publishes_after_the_verdict() -> None:
    play = Playbook(draw(ours="a", spec=spec(integrity=Integrity.WHOLE), peer_a="*"))
    play >> digested(0) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << publish(0, signers=(PEER_A,)) << FINISHED
    play.check()


def test_anchored_without_anchors_asks_nobody_near() -> None:
    play = Playbook(Stage.new(spec(integrity=Integrity.ANCHORED)))
    play >> begun() << PROBE
    play >> probed(facts(1)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=0)
    play.check()


ANCHORS = (digest_of(0), digest_of(1))


def test_anchored_needs_no_voucher() -> None:
    play = Playbook(draw(ours="*-", spec=spec(integrity=Integrity.ANCHORED, anchors=ANCHORS), peer_a="-*"))
    play >> received(PEER_A, vouchers=()) << digest(1)
    play >> digested(1) << publish(1) << STOP << ALL_THERE << VALIDATE
    play.check()


def test_the_manifest_is_above_every_voucher() -> None:
    play = Playbook(draw(ours="*-", spec=spec(anchors=ANCHORS), peer_a="-*"))
    play >> received(PEER_A, flavour="noise") << digest(1)
    play >> digested(1, flavour="noise") << report(PEER_A, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=1)
    play.check()


def test_an_origin_that_contradicts_the_manifest_is_a_trouble() -> None:
    play = Playbook(draw(ours="*-", spec=spec(anchors=ANCHORS)))
    play >> received(ORIGIN) << digest(1)
    play >> digested(1, flavour="noise") << STOP << troubled(FailureKind.CORRUPT)
    play.check()


def test_lost_peers_leave_the_origin() -> None:
    play = Playbook(draw(ours="---", peer_a="**-", peer_b="--*"))
    assert all(each.source != ORIGIN for each in play.stage.open.values())
    play >> lost(PEER_A) >> lost(PEER_B)
    play >> failed(PEER_B, FailureKind.CONNECTION_CLOSED) << fetch(ORIGIN, chunk=2)
    play.check()
