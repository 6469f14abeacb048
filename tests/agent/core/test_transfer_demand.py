"""On-demand files: what is wanted now, where somebody reads, who is told what came (bits-reference 1.11)."""

from __future__ import annotations

import pytest

from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import ORIGIN
from agent.core.spec import Restored
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from tests.support.drawing import draw
from tests.support.playbook import (
    ALL_THERE,
    ASK,
    CHUNK,
    CONNECTED,
    DEMAND_MET,
    FINISHED,
    PEER_A,
    PREPARE,
    PROBE,
    STOP,
    VALIDATE,
    Playbook,
    Stage,
    abort,
    accepted,
    anything,
    arrived,
    begun,
    digest,
    digested,
    facts,
    failed,
    fails,
    fetch,
    fetch_bytes,
    fills,
    lost,
    near_answered,
    offered,
    paused,
    position,
    probed,
    publish,
    received,
    rejected,
    spec,
    ticked,
    troubled,
    wanted,
)
from validation.ranges import ByteRange

ON_DEMAND = spec(on_demand=True)
TO_THE_END = 1 << 60


def on_demand(ours: str, **drawn: object) -> Playbook:
    return Playbook(draw(ours=ours, spec=ON_DEMAND, **drawn))  # type: ignore[arg-type]


def asked(chunks: int = 6, *inputs: object, given: OriginFacts | None = None) -> Playbook:
    """Nothing is there, something was wanted before it began, and nobody is near."""
    play = Playbook(Stage.new(ON_DEMAND))
    for each in inputs:
        play >> each  # type: ignore[operator]
    play >> begun() << PROBE >> probed(given or facts(chunks)) << CONNECTED << PREPARE << ASK >> near_answered()
    return play


def span(first: int, last: int) -> tuple[int, int]:
    return first * CHUNK, (last + 1) * CHUNK


# --- what is wanted --------------------------------------------------------------------------------------------


def test_only_what_is_wanted_is_fetched_and_then_it_rests() -> None:
    play = asked(6, wanted((2 * CHUNK + 10, 3 * CHUNK + 10))) << fetch(ORIGIN, chunks=(2, 3))
    assert play.transfer.demanded
    play >> received(ORIGIN) << digest(2) << digest(3) << fills(span(2, 3))
    play >> digested(2) << publish(2)
    play >> digested(3) << publish(3) << STOP << DEMAND_MET
    play.check()
    assert (play.transfer.phase, play.transfer.demanded) == (Phase.IDLE, False)
    play = Playbook(play.stage)
    play >> begun() << PROBE >> probed(facts(6)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 1))  # resumed: now the whole
    play.check()


def test_ranges_that_overlap_are_one_and_those_apart_come_in_order() -> None:
    play = asked(6, wanted(span(4, 4), span(0, 0)), wanted((CHUNK // 2, CHUNK + 1)))
    play << fetch(ORIGIN, chunks=(0, 1))
    play >> received(ORIGIN) << digest(0) << digest(1) << fills(span(0, 1)) << fetch(ORIGIN, chunk=4)
    play.check()


def test_the_origins_request_ends_when_other_bytes_are_wanted_first() -> None:
    play = on_demand("-" * 8)
    play >> arrived(ORIGIN, 1000)
    play >> wanted(span(5, 5)) << abort(ORIGIN)
    play >> failed(ORIGIN, FailureKind.ABORTED) << fetch(ORIGIN, chunk=5)
    play >> received(ORIGIN) << digest(5) << fills((0, 1000), span(5, 5))
    play >> digested(5) << publish(5) << STOP << DEMAND_MET
    play.check()


def test_it_does_not_end_when_it_is_about_to_bring_them() -> None:
    play = on_demand("-" * 4)
    play >> arrived(ORIGIN, CHUNK - 1000)
    play >> wanted(span(1, 1))
    play >> arrived(ORIGIN, 2 * CHUNK) << digest(0) << digest(1) << fills((0, 2 * CHUNK))
    play >> digested(0) << publish(0)
    play >> digested(1) << publish(1) << abort(ORIGIN) << STOP << DEMAND_MET
    play.check()


def test_a_peer_brings_what_is_wanted() -> None:
    play = on_demand("----", peer_a="---*")
    play >> received(PEER_A) << digest(3) >> digested(3) << publish(3) << fills(span(3, 3))
    play >> offered(PEER_A, [1, 3]) << abort(ORIGIN)
    play >> wanted(span(1, 1), span(3, 3))
    play >> failed(ORIGIN, FailureKind.ABORTED) << fetch(PEER_A, chunk=1)
    play >> received(PEER_A) << digest(1) >> digested(1) << publish(1) << STOP << fills(span(1, 1)) << DEMAND_MET
    play.check()


def test_nobody_is_waited_for_when_a_peer_has_what_is_wanted() -> None:
    play = Playbook(Stage.new(ON_DEMAND))
    play >> wanted(span(2, 2)) >> begun() << PROBE >> probed(facts(6)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, [2]) << fetch(PEER_A, chunk=2)
    play.check()


def test_a_request_that_has_brought_all_is_not_ended() -> None:
    play = on_demand("--**-")
    play >> arrived(ORIGIN, 2 * CHUNK) << digest(0) << digest(1) << fills((0, 2 * CHUNK))
    play >> wanted(span(4, 4))
    play >> received(ORIGIN) << fetch(ORIGIN, chunk=4)
    play.check()


def test_what_a_peer_is_sending_is_no_reason_to_end_the_origins_request() -> None:
    play = on_demand("---", peer_a="*--")
    play >> lost(PEER_A)
    play >> wanted(span(0, 1))
    play.check()


def test_what_is_there_already_is_met_at_once() -> None:
    play = on_demand("**--")
    play >> wanted(span(0, 1)) << abort(ORIGIN) << STOP << DEMAND_MET
    play.check()


def test_when_the_wanted_is_the_rest_the_file_is_whole() -> None:
    play = on_demand("**--")
    play >> wanted((2 * CHUNK, TO_THE_END))
    play >> received(ORIGIN) << digest(2) << digest(3) << fills(span(2, 3))
    play >> digested(2, 3) << publish(2) << publish(3) << STOP << ALL_THERE << VALIDATE
    play >> wanted(span(0, 0))  # every byte is there
    play >> accepted() << FINISHED
    play >> wanted(span(0, 0)) >> position(CHUNK)
    play.check()
    assert not play.transfer.demanded
    assert play.transfer.snapshot().wanted == ()


def test_what_is_wanted_outlives_a_failure_and_the_process() -> None:
    play = asked(6, wanted(span(4, 4)), position(2 * CHUNK)) << fetch(ORIGIN, chunk=4)
    play >> failed(ORIGIN, FailureKind.BUSY) << STOP << troubled(FailureKind.BUSY)
    play.check()
    left = Restored(snapshot=play.transfer.snapshot(), held=())
    play = Playbook(Stage.new(ON_DEMAND, left))
    assert play.transfer.demanded
    play >> begun() << PROBE >> probed(facts(6)) << CONNECTED << PREPARE << ASK >> near_answered()
    play << fetch(ORIGIN, chunk=4)
    play >> received(ORIGIN) << digest(4) << fills(span(4, 4)) >> digested(4) << publish(4) << STOP << DEMAND_MET
    play >> begun() << PROBE >> probed(facts(6)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(2, 3))
    play.check()


def test_nothing_can_be_wanted_of_a_file_that_is_not_on_demand() -> None:
    play = Playbook(draw(ours="----"))
    play >> wanted(span(2, 2))
    play.check()
    assert not play.transfer.demanded


# --- what cannot be had ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(6 * CHUNK, 7 * CHUNK), (0, 6 * CHUNK + 1), (6 * CHUNK, TO_THE_END)])
def test_what_is_not_in_the_file_is_an_error_and_forgotten(span: tuple[int, int]) -> None:
    play = Playbook(Stage.new(ON_DEMAND))
    play >> wanted(span) >> begun() << PROBE >> probed(facts(6)) << fails("INVALID_RANGE")
    play >> begun() << PROBE >> probed(facts(6)) << CONNECTED << PREPARE << ASK
    play >> wanted(span) << STOP << fails("INVALID_RANGE")
    play.check()


@pytest.mark.parametrize(
    "given", [facts(6, ranges=RangeSupport.NONE), facts(6, etag='W/"v1"'), facts(length=None)], ids=str
)
def test_an_origin_that_cannot_seek_is_an_error_and_resume_fetches_the_whole(given: OriginFacts) -> None:
    play = Playbook(Stage.new(ON_DEMAND))
    play >> wanted(span(1, 1)) >> begun() << PROBE >> probed(given) << fails("RANDOM_ACCESS_UNSUPPORTED")
    play >> begun() << PROBE >> probed(given) << CONNECTED << PREPARE << anything >> near_answered() << anything
    play.check()
    assert play.stage.request(ORIGIN).item.start == 0


def test_an_origin_that_turns_out_not_to_seek() -> None:
    play = asked(6, wanted(span(3, 3)), given=facts(6, ranges=RangeSupport.UNKNOWN)) << fetch(ORIGIN, chunk=3)
    play >> failed(ORIGIN, FailureKind.NO_RANGES) << STOP << fails("RANDOM_ACCESS_UNSUPPORTED", context="origin")
    play.check()
    play = on_demand("*--")
    play >> failed(ORIGIN, FailureKind.NO_RANGES) << fetch(ORIGIN, chunks=(0, 2))  # known before anything is wanted
    play >> wanted(span(2, 2)) << abort(ORIGIN) << STOP << fails("RANDOM_ACCESS_UNSUPPORTED")
    play.check()


# --- where somebody reads --------------------------------------------------------------------------------------


def test_it_comes_in_order_from_where_somebody_reads() -> None:
    play = on_demand("-" * 8)
    play >> position(5 * CHUNK + 7) << abort(ORIGIN)
    play >> failed(ORIGIN, FailureKind.ABORTED) << fetch(ORIGIN, chunks=(5, 7))
    play >> received(ORIGIN) << digest(5) << digest(6) << digest(7) << fills(span(5, 7))
    play << fetch(ORIGIN, chunks=(0, 4))
    play >> position(TO_THE_END)  # beyond the end: the start, and that is on its way
    play.check()


def test_a_peer_is_asked_in_order_too() -> None:
    play = Playbook(Stage.new(ON_DEMAND))
    play >> position(3 * CHUNK)
    play >> begun() << PROBE >> probed(facts(6)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, range(6)) << fetch(PEER_A, chunks=(3, 5)) << fetch(PEER_A, chunks=(0, 2))
    play.check()


# --- who is told -----------------------------------------------------------------------------------------------


def test_a_trickle_is_told_every_half_second() -> None:
    play = on_demand("----")
    play >> arrived(ORIGIN, 100)
    play >> ticked(0.49)
    play >> ticked(0.01) << fills((0, 100))
    play >> arrived(ORIGIN, 200, start=100) >> ticked(0.5) << fills((100, 300))
    play >> ticked(10.0)
    play.check()


def test_whole_chunks_are_told_at_once_but_not_more_than_ten_times_a_second() -> None:
    play = on_demand("-" * 8)
    play >> arrived(ORIGIN, CHUNK) << digest(0) << fills(span(0, 0))
    play >> arrived(ORIGIN, CHUNK, start=CHUNK) << digest(1)
    play >> arrived(ORIGIN, CHUNK, start=2 * CHUNK) << digest(2)
    play >> ticked() << fills(span(1, 2))
    play.check()
    assert play.stage.now == pytest.approx(100.1)


def test_the_last_bytes_are_told_at_once() -> None:
    play = on_demand("----")
    play >> arrived(ORIGIN, 100)
    play >> paused() << abort(ORIGIN) << STOP << fills((0, 100))
    play.check()


def test_bytes_of_a_peer_can_be_read_once_they_are_proven() -> None:
    play = on_demand("-*", peer_a="*-")
    assert play.transfer.filled == (ByteRange(CHUNK, 2 * CHUNK),)
    play >> received(PEER_A) << digest(0)
    assert play.transfer.filled == (ByteRange(CHUNK, 2 * CHUNK),)
    play >> digested(0) << publish(0) << fills(span(0, 0)) << STOP << ALL_THERE << VALIDATE
    play.check()
    assert play.transfer.filled == (ByteRange(0, 2 * CHUNK),)


def test_what_comes_again_is_told_again() -> None:
    play = on_demand("A")
    play >> ticked(1.0)
    play >> rejected() << anything
    play >> begun() << PROBE >> probed(facts(1)) << CONNECTED << PREPARE << fetch(ORIGIN, chunk=0)
    play >> received(ORIGIN) << digest(0) << fills(span(0, 0)) >> digested(0) << anything
    play.check()


def test_nobody_is_told_of_a_file_that_is_not_on_demand() -> None:
    play = Playbook(draw(ours="----"))
    play >> arrived(ORIGIN, 2 * CHUNK) << digest(0) << digest(1)
    play >> ticked(0.9)
    play.check()


def test_what_an_earlier_process_left_is_no_news() -> None:
    before = on_demand("-*--")
    before.check()
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(CHUNK, 2 * CHUNK),))
    play = Playbook(Stage.new(ON_DEMAND, left))
    assert play.transfer.filled == (ByteRange(CHUNK, 2 * CHUNK),)
    play >> begun() << PROBE >> probed(facts(4)) << CONNECTED << PREPARE << digest(1) << ASK
    play >> digested(1) >> near_answered() << fetch(ORIGIN, chunk=0)
    play >> received(ORIGIN) << digest(0) << fills(span(0, 0)) << fetch_bytes(ORIGIN, 2 * CHUNK, 4 * CHUNK)
    play.check()
