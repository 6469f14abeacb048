"""Jobs that ask for ranges: the local file is these, one behind the other (bits-reference 1.7)."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import ORIGIN
from agent.core.spec import AskedRange, Restored, TransferSpec
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from tests.support.playbook import (
    ALL_THERE,
    ASK,
    CHUNK,
    CONNECTED,
    FINISHED,
    FORGET,
    PEER_A,
    PREPARE,
    PROBE,
    STOP,
    VALIDATE,
    Playbook,
    Stage,
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
    near_answered,
    offered,
    paused,
    probed,
    publish,
    received,
    sends,
    spec,
    troubled,
)
from validation.digest import Algorithm, Digest
from validation.ranges import ByteRange

REMOTE = facts(20)
"""20 chunks at the origin."""


def asking(*ranges: tuple[int, int | None], **changes: object) -> TransferSpec:
    """Offset and length of each, in chunks."""
    return spec(
        ranges=tuple(
            AskedRange(offset=offset * CHUNK, length=None if length is None else length * CHUNK)
            for offset, length in ranges
        ),
        **changes,
    )


LAST_THEN_FIRST = asking((18, None), (0, 1))
"""Three chunks: 18, 19, 0."""


def begin(given: TransferSpec, origin: OriginFacts = REMOTE) -> Playbook:
    play = Playbook(Stage.new(given))
    play >> begun() << PROBE >> probed(origin) << CONNECTED << PREPARE << ASK
    return play


def test_trap_13_the_file_is_the_ranges_in_the_order_given_and_offsets_are_its_own() -> None:
    play = Playbook(Stage.new(LAST_THEN_FIRST))
    play >> begun() << PROBE
    play >> probed(REMOTE) << CONNECTED << sends(cmd.PrepareFile, length=3 * CHUNK) << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 2))
    play.check()
    transfer = play.transfer
    assert transfer.length == 3 * CHUNK
    assert transfer.pieces(ByteRange(0, 3 * CHUNK)) == [
        (ByteRange(18 * CHUNK, 20 * CHUNK), 0),
        (ByteRange(0, CHUNK), 2 * CHUNK),
    ]
    assert transfer.pieces(ByteRange(2 * CHUNK - 5, 2 * CHUNK + 5)) == [
        (ByteRange(20 * CHUNK - 5, 20 * CHUNK), 2 * CHUNK - 5),
        (ByteRange(0, 5), 2 * CHUNK),
    ]


def test_trap_13_peers_offer_the_record_not_the_url() -> None:
    play = begin(LAST_THEN_FIRST)
    asked = next(each for each in play.stage.log if isinstance(each, cmd.AskNear))
    assert asked.layout.length == 3 * CHUNK
    play >> offered(PEER_A, [2]) >> near_answered() << fetch(PEER_A, chunk=2) << fetch(ORIGIN)
    play >> received(PEER_A) << digest(2) >> digested(2) << publish(2, signers=(PEER_A,))
    play.check()


def test_to_the_end_of_it() -> None:
    play = begin(LAST_THEN_FIRST)
    play >> near_answered() << fetch(ORIGIN)
    play >> received(ORIGIN) << digest(0) << digest(1) << digest(2) >> digested(0, 1, 2) << anything
    play >> accepted() << FINISHED
    play.check()
    assert (play.transfer.held_bytes, play.transfer.tally.from_origin) == (3 * CHUNK, 3 * CHUNK)
    assert play.transfer.filled == (ByteRange(0, 3 * CHUNK),)


def test_the_rest_after_a_cut() -> None:
    play = begin(LAST_THEN_FIRST)
    play >> near_answered() << fetch(ORIGIN)
    play >> arrived(ORIGIN, CHUNK + 10) << digest(0)
    play >> failed(ORIGIN, FailureKind.CONNECTION_CLOSED) << fetch_bytes(ORIGIN, CHUNK + 10, 3 * CHUNK)
    play.check()


def test_the_map_is_known_to_the_next_process() -> None:
    before = begin(LAST_THEN_FIRST)
    before.check()
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, CHUNK),))
    transfer = Stage.new(LAST_THEN_FIRST, left).transfer
    assert (transfer.length, transfer.content_ids) == (3 * CHUNK, before.transfer.content_ids)
    assert transfer.pieces(ByteRange(0, 10)) == [(ByteRange(18 * CHUNK, 18 * CHUNK + 10), 0)]


def test_before_the_origin_answered_nothing_is_known() -> None:
    assert Stage.new(LAST_THEN_FIRST).transfer.length is None


def test_content_that_changed_is_another_map() -> None:
    play = begin(LAST_THEN_FIRST)
    play >> near_answered() << fetch(ORIGIN) >> arrived(ORIGIN, 10)
    play >> paused() << anything >> failed(ORIGIN, FailureKind.ABORTED)
    play >> begun() << PROBE >> probed(facts(21, etag='"v2"')) << STOP << FORGET << CONNECTED
    play << sends(cmd.PrepareFile, length=4 * CHUNK) << ASK
    play.check()


# --- ids -------------------------------------------------------------------------------------------------------


def ids(given: TransferSpec) -> tuple[str, ...]:
    play = begin(given)
    play.check()
    return play.transfer.content_ids


def test_the_id_tells_ranges_apart() -> None:
    some = [ids(given) for given in (spec(), LAST_THEN_FIRST, asking((0, 1), (18, None)), asking((0, 3)))]
    assert len(set(some)) == len(some)


def test_who_asks_for_all_of_it_in_parts_meets_those_who_ask_for_the_whole() -> None:
    assert ids(asking((0, 5), (5, None))) == ids(spec())


def test_what_ends_at_the_end_is_the_same_however_it_was_said() -> None:
    assert ids(asking((18, None), (0, 1))) == ids(asking((18, 1), (19, 1), (0, 1)))


def test_a_digest_is_that_of_the_local_file() -> None:
    digest = Digest(Algorithm.SHA256, bytes(32))
    assert ids(asking((18, 2), digest=digest))[-1] == ids(spec(digest=digest))[-1]


# --- faults of the origin --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        (facts(18), "INVALID_RANGE"),
        (facts(18, length=18 * CHUNK + 0), "INVALID_RANGE"),
        (facts(20, ranges=RangeSupport.NONE), "RANGES_REQUIRED"),
        (facts(length=None), "RANGES_REQUIRED"),
    ],
)
def test_what_the_origin_cannot_give_is_an_error_at_once(origin: OriginFacts, code: str) -> None:
    play = Playbook(Stage.new(LAST_THEN_FIRST))
    play >> begun() << PROBE >> probed(origin) << fails(code, context="origin")
    play.check()
    assert play.transfer.phase is Phase.FAILED


def test_a_range_that_ends_beyond_the_end() -> None:
    play = Playbook(Stage.new(asking((19, 2))))
    play >> begun() << PROBE >> probed(REMOTE) << fails("INVALID_RANGE")
    play.check()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FailureKind.BAD_RESPONSE, "INVALID_SERVER_RESPONSE"),
        (FailureKind.NO_RANGES, "RANGES_REQUIRED"),
    ],
)
def test_ranges_that_come_merged_reordered_or_not_at_all(kind: FailureKind, code: str) -> None:
    play = begin(LAST_THEN_FIRST)
    play >> near_answered() << fetch(ORIGIN) >> arrived(ORIGIN, CHUNK // 2)
    play >> failed(ORIGIN, kind) << STOP << fails(code, context="origin")
    play.check()


def test_other_failures_are_those_of_any_job() -> None:
    play = begin(LAST_THEN_FIRST)
    play >> near_answered() << fetch(ORIGIN)
    play >> failed(ORIGIN, FailureKind.CONNECT_FAILED) << STOP << troubled(FailureKind.CONNECT_FAILED)
    play.check()


def test_a_job_without_ranges_gets_round_a_bad_answer() -> None:
    play = begin(spec(), facts(3))
    play >> near_answered() << fetch(ORIGIN)
    play >> failed(ORIGIN, FailureKind.BAD_RESPONSE) << STOP << troubled(FailureKind.BAD_RESPONSE)
    play.check()


def test_without_a_validator_all_of_it_comes_in_one_go() -> None:
    play = Playbook(Stage.new(LAST_THEN_FIRST))
    play >> begun() << PROBE >> probed(facts(20, etag=None)) << CONNECTED << PREPARE << fetch(ORIGIN, chunks=(0, 2))
    play >> received(ORIGIN) << digest(0) << digest(1) << digest(2) >> digested(0, 1, 2)
    play << STOP << ALL_THERE << VALIDATE
    play.check()


def test_the_limit_is_for_the_local_file() -> None:
    play = begin(asking((0, 3), maximum_bytes=3 * CHUNK))
    play.check()
    play = Playbook(Stage.new(asking((0, 3), maximum_bytes=3 * CHUNK - 1)))
    play >> begun() << PROBE >> probed(REMOTE) << fails("MAX_SIZE_REACHED")
    play.check()
