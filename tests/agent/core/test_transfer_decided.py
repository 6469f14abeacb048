"""BITS' SetValidationState: what the application says of a file, whenever it does, and what follows (3.2, 3.3)."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import Decision
from agent.core.integrity import Integrity
from agent.core.sources import ORIGIN
from agent.core.spec import NearUse, Restored, ServeUse
from agent.core.transfer import Phase
from tests.support.drawing import draw
from tests.support.playbook import (
    ALL_THERE,
    CHUNK,
    CONNECTED,
    FINISHED,
    FORGET,
    PEER_A,
    PREPARE,
    PROBE,
    REFETCHING,
    STOP,
    UNDECIDED,
    VALIDATE,
    WITHDRAW,
    Input,
    Playbook,
    Stage,
    accepted,
    anything,
    begun,
    decided,
    digest,
    digested,
    facts,
    fails,
    fetch,
    part_file_lost,
    probed,
    publish,
    received,
    rejected,
    respecified,
    spec,
    undecided,
)
from validation.ranges import ByteRange

VALID, INVALID = Decision.VALID, Decision.INVALID


def whole(ours: str, **drawn: object) -> Playbook:
    """Everything is proven; the validators are asked."""
    stage = draw(ours=ours, **drawn)  # type: ignore[arg-type]
    assert stage.transfer.phase is Phase.VALIDATING
    return Playbook(stage)


def fetched_again(play: Playbook, chunks: int, chunk: int) -> None:
    """The one chunk of a peer comes again, from the origin; then the file is there a second time."""
    play >> begun() << PROBE >> probed(facts(chunks)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=chunk)
    play >> received(ORIGIN) << digest(chunk) >> digested(chunk) << publish(chunk) << STOP << ALL_THERE << VALIDATE


# --- the traps of bits-reference 10 ----------------------------------------------------------------------------


def test_trap_01_false_on_peer_content_is_no_error() -> None:
    play = whole("A")
    play >> undecided() << UNDECIDED
    play >> decided(INVALID) << WITHDRAW << REFETCHING
    assert play.transfer.held_bytes == 0
    fetched_again(play, 1, 0)  # ... and ALL_THERE is told again: that is FileTransferred
    play >> undecided() << UNDECIDED >> decided(VALID) << FINISHED
    play.check()
    assert play.transfer.near is NearUse.NEVER


def test_trap_02_false_on_origin_content_is_an_error_and_progress_is_0() -> None:
    play = whole("**")
    play >> undecided() << UNDECIDED
    play >> decided(INVALID) << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED", context="origin")
    assert (play.transfer.held_bytes, play.transfer.filled) == (0, ())
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << fetch(ORIGIN, chunks=(0, 1))
    play.check()


def test_trap_03_one_chunk_of_a_peer_makes_it_a_peer_file_and_only_that_comes_again() -> None:
    play = whole("*A*")
    play >> undecided() << UNDECIDED
    play >> decided(INVALID) << WITHDRAW << REFETCHING
    assert play.transfer.held_bytes == 2 * CHUNK
    fetched_again(play, 3, 1)
    play >> undecided() << UNDECIDED
    play >> decided(INVALID) << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED")  # now all is the origin's
    play.check()


def test_trap_04_undecided_is_not_false_and_a_verdict_makes_it_servable() -> None:
    play = whole("A*", spec=spec(integrity=Integrity.WHOLE))
    play >> undecided() << UNDECIDED
    assert play.transfer.decision is None
    play >> decided(VALID) << publish(0, signers=(PEER_A,)) << FINISHED
    play.check()
    assert play.transfer.decision is VALID
    assert play.transfer.snapshot().decision is VALID


@pytest.mark.parametrize("ours", ["A-", "--"])
def test_trap_05_serving_forbidden_before_the_verdict_withdraws(ours: str) -> None:
    stage = draw(ours=ours)
    while (chunk := next(iter(stage.open.values()), None)) is not None:
        play = Playbook(stage)
        play >> received(ORIGIN) << anything
        first = chunk.item.start // CHUNK
        play >> digested(*range(first, 2)) << anything
        play.check()
    play = Playbook(stage)
    play >> undecided() << UNDECIDED
    play >> respecified(serve=ServeUse.NEVER) << WITHDRAW
    play >> decided(VALID) << FINISHED
    play.check()


@pytest.mark.parametrize("verdict", [accepted(), undecided()])
def test_trap_05_serving_forbidden_after_the_verdict_leaves_the_record(verdict: Input) -> None:
    play = whole("A")
    play >> verdict << anything >> decided(VALID) << anything
    play >> respecified(serve=ServeUse.NEVER)
    play.check()
    assert play.transfer.phase is Phase.DONE


def test_trap_05_what_may_not_be_served_is_not_published_until_it_may() -> None:
    play = Playbook(draw(ours="-", spec=spec(serve=ServeUse.NEVER)))
    play >> received(ORIGIN) << digest(0) >> digested(0) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play >> respecified(serve=ServeUse.ALLOWED) << publish(0, signers=())
    play >> respecified(serve=ServeUse.NEVER) >> respecified(serve=ServeUse.ALLOWED)  # it is there already
    play.check()


def test_trap_05_allowed_again_before_the_verdict_waits_for_it() -> None:
    play = Playbook(draw(ours="--"))
    play >> received(ORIGIN) << digest(0) << digest(1) >> digested(0) << publish(0)
    play >> respecified(serve=ServeUse.NEVER) << WITHDRAW
    play >> respecified(serve=ServeUse.ALLOWED)
    play >> digested(1) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << publish(0) << publish(1) << FINISHED
    play.check()


# --- in every state --------------------------------------------------------------------------------------------


def test_invalid_after_acceptance_withdraws_the_record() -> None:
    play = whole("*A")
    ids = play.transfer.content_ids
    play >> accepted() << FINISHED
    play >> decided(INVALID) << WITHDRAW << REFETCHING
    play.check()
    gone = next(each for each in play.stage.log if isinstance(each, cmd.WithdrawContent))
    assert gone.content_ids == ids
    assert ids


def test_invalid_after_acceptance_with_bytes_of_the_origin_is_an_error() -> None:
    play = whole("**")
    play >> accepted() << FINISHED
    play >> decided(INVALID) << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED")
    play.check()
    assert (play.transfer.phase, play.transfer.decision) == (Phase.FAILED, INVALID)


def test_valid_again_and_again_says_nothing_new() -> None:
    play = whole("*")
    play >> accepted() << FINISHED
    play >> decided(VALID) >> decided(VALID)
    play.check()
    assert play.transfer.decision is VALID


def test_valid_after_invalid_counts_once_the_new_copy_is_there() -> None:
    play = whole("A")
    play >> undecided() << UNDECIDED >> decided(INVALID) << WITHDRAW << REFETCHING
    play >> decided(VALID)  # nothing is there that could be valid
    assert play.transfer.decision is INVALID
    fetched_again(play, 1, 0)
    assert play.transfer.decision is None
    play >> undecided() << UNDECIDED >> decided(VALID) << FINISHED
    play.check()


def test_decided_while_the_validators_run() -> None:
    play = whole("*")
    play >> decided(VALID)
    play >> undecided() << FINISHED
    play.check()
    play = whole("A")
    play >> decided(INVALID) << WITHDRAW << REFETCHING
    play >> accepted()  # of the copy that is no more
    play.check()
    assert play.transfer.phase is Phase.IDLE


def test_a_validator_is_heard_although_the_application_found_it_valid() -> None:
    play = whole("*")
    play >> decided(VALID)
    play >> rejected() << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED")
    play.check()


def test_a_decision_outlives_the_process() -> None:
    before = whole("A*")
    before >> undecided() << UNDECIDED >> decided(VALID) << FINISHED
    before.check()
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, 2 * CHUNK),))
    play = Playbook(Stage.new(restored=left))
    assert (play.transfer.phase, play.transfer.decision) == (Phase.DONE, VALID)
    play >> decided(INVALID) << WITHDRAW << REFETCHING
    play.check()
    assert play.transfer.held_bytes == CHUNK, "what the origin sent stays"


def test_bytes_of_the_origin_are_known_as_such_in_the_next_process() -> None:
    before = whole("**")
    before >> accepted() << FINISHED
    before.check()
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, 2 * CHUNK),))
    play = Playbook(Stage.new(restored=left))
    play >> decided(INVALID) << WITHDRAW << STOP << FORGET << fails("VALIDATION_FAILED")
    play.check()


def test_a_file_of_unknown_length_is_the_origins_in_the_next_process_too() -> None:
    play = Playbook(Stage.new(), watch=(cmd.SaveProgress,))
    play >> begun() << PROBE >> probed(facts(length=None)) << anything
    play.check()
    asked = play.stage.request(ORIGIN)
    play = Playbook(play.stage, watch=(cmd.SaveProgress,))
    play >> received_up_to(asked.request, 700_000) << anything >> accepted() << FINISHED
    play.check()
    (saved,) = [each.held for each in play.stage.log if isinstance(each, cmd.SaveProgress)]
    assert saved == (ByteRange(0, 700_000),)
    play = Playbook(Stage.new(restored=Restored(snapshot=play.transfer.snapshot(), held=saved)))
    assert (play.transfer.filled, play.transfer.length) == (saved, 700_000)
    play >> decided(INVALID) << anything
    play.check()
    assert play.transfer.phase is Phase.FAILED


def received_up_to(request: ev.RequestId, stop: int) -> Input:
    return lambda stage: [ev.RangeReceived(file=stage.transfer.spec.file, request=request, item=ByteRange(0, stop))]


@pytest.mark.parametrize("verdict", [accepted(), undecided()])
def test_what_is_lost_cannot_be_decided(verdict: Input) -> None:
    play = whole("*")
    play >> verdict << anything >> part_file_lost() << STOP << FORGET << REFETCHING
    play >> decided(INVALID) >> decided(VALID)
    play.check()
    assert play.transfer.decision is None
