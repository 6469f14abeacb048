"""One file in trouble: the origin changes or fails, the disk fails, the part file is lost."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import RangeSupport
from agent.core.sources import ORIGIN
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from tests.support.drawing import draw
from tests.support.playbook import (
    ALL_THERE,
    ASK,
    CHUNK,
    CONNECTED,
    FORGET,
    PEER_A,
    PEER_B,
    PREPARE,
    PROBE,
    REFETCHING,
    STOP,
    VALIDATE,
    Input,
    Playbook,
    Stage,
    abort,
    accepted,
    anything,
    arrived,
    begun,
    digest,
    digest_of,
    digested,
    facts,
    failed,
    fails,
    fetch,
    fetch_bytes,
    near_answered,
    part_file_lost,
    paused,
    probe_failed,
    probed,
    publish,
    received,
    storage_failed,
    ticked,
    troubled,
    undecided,
)


def whole(stage: Stage) -> Playbook:
    """Everything is proven; the validators are asked."""
    assert stage.transfer.phase is Phase.VALIDATING
    return Playbook(stage)


# --- the origin changes, or cannot -----------------------------------------------------------------------------


def test_the_content_changes_in_the_middle() -> None:
    play = Playbook(draw(ours="*--", peer_a="-*-"))
    play >> failed(ORIGIN, FailureKind.CHANGED) << abort(PEER_A) << STOP << FORGET << PROBE
    play >> probed(facts(3, etag='"v2"')) << CONNECTED << PREPARE << ASK
    play >> near_answered()  # the old request still writes: nothing may be asked before it has ended
    play >> failed(PEER_A, FailureKind.ABORTED) << fetch(ORIGIN, chunks=(0, 2))
    play.check()
    numbers = [each.request for each in play.stage.log if isinstance(each, cmd.FetchRange)]
    assert len(numbers) == len(set(numbers))


def test_late_bytes_and_digests_of_the_old_content_mean_nothing() -> None:
    play = Playbook(draw(ours="a--", peer_b="--*"))
    old = next(each for each in play.stage.log if isinstance(each, cmd.DigestChunk))
    play >> failed(ORIGIN, FailureKind.CHANGED) << abort(PEER_B) << STOP << FORGET << PROBE
    play >> received(PEER_B, vouchers=())
    play >> probed(facts(3, etag='"v2"')) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 2))
    play >> received(ORIGIN) << digest(0) << digest(1) << digest(2)
    late = ev.ChunkDigested(file=old.file, chunk=old.chunk, digest=digest_of(0), token=old.token)
    play >> (lambda stage: [late])
    play >> digested(0, flavour="new") << publish(0, (), "new")
    play.check()


def test_content_that_keeps_changing_is_a_trouble() -> None:
    play = Playbook(draw(ours="-"))
    for number in range(5):
        play >> failed(ORIGIN, FailureKind.CHANGED) << STOP << FORGET << PROBE
        play >> probed(facts(1, etag=f'"{number}"')) << CONNECTED << PREPARE << ASK
        play >> near_answered() << fetch(ORIGIN, chunk=0)
    play >> failed(ORIGIN, FailureKind.CHANGED) << STOP << FORGET << troubled(FailureKind.CHANGED)
    play.check()


def test_changed_between_two_tries() -> None:
    play = Playbook(draw(ours="A-"))
    play >> paused() << abort(ORIGIN) << STOP >> failed(ORIGIN, FailureKind.ABORTED)
    play >> begun() << PROBE
    play >> probed(facts(3, etag='"v2"')) << STOP << FORGET << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 2))
    play.check()


def test_an_origin_without_ranges_sends_the_whole() -> None:
    none = facts(2, ranges=RangeSupport.NONE)
    play = Playbook(draw(ours="--", origin=none))
    play >> arrived(ORIGIN, CHUNK) << digest(0)
    play >> failed(ORIGIN, FailureKind.CONNECTION_CLOSED)  # chunk 0 is being digested: it is not written over
    play >> digested(0) << publish(0) << STOP << troubled(FailureKind.CONNECTION_CLOSED)
    play >> begun() << PROBE >> probed(none) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 1))
    play.check()


def test_without_ranges_every_retry_waits_longer() -> None:
    none = facts(2, ranges=RangeSupport.NONE)
    stage, delays = draw(ours="--", origin=none), []
    for _ in range(8):
        play = Playbook(stage)
        play >> arrived(ORIGIN, CHUNK - 1)
        play >> failed(ORIGIN, FailureKind.CONNECTION_CLOSED) << STOP << troubled(FailureKind.CONNECTION_CLOSED)
        play.check()
        trouble = stage.log[-1]
        assert isinstance(trouble, cmd.Troubled)
        delays.append(trouble.retry_at - stage.now)
        play = Playbook(stage)
        play >> begun() << PROBE >> probed(none) << CONNECTED << PREPARE << ASK
        play >> near_answered() << fetch(ORIGIN, chunks=(0, 1))
        play.check()
    assert delays[-1] > 10 * delays[0], delays


def test_an_origin_that_promised_ranges_and_sends_the_whole() -> None:
    play = Playbook(draw(ours="*--"))
    play >> failed(ORIGIN, FailureKind.NO_RANGES) << fetch(ORIGIN, chunks=(0, 2))
    play.check()
    assert play.transfer.held_bytes == 0


def test_near_bytes_and_the_whole_are_never_written_at_once() -> None:
    play = Playbook(draw(ours="---", peer_a="*--", origin=facts(3, ranges=RangeSupport.NONE)))
    assert [each.source for each in play.stage.open.values()] == [f"peer:{PEER_A}"]
    play >> received(PEER_A) << digest(0)
    play >> digested(0) << publish(0) << fetch(ORIGIN, chunks=(0, 2))
    play.check()


# --- troubles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FailureKind.GONE, FailureKind.FORBIDDEN, FailureKind.AUTH_REQUIRED])
def test_a_fatal_answer_ends_it_until_somebody_resumes(kind: FailureKind) -> None:
    play = Playbook(draw(ours="*-"))
    play >> failed(ORIGIN, kind, http_status=404) << STOP << fails(kind.value, context="origin", http_status=404)
    play >> ticked(1e6)
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunk=1)
    play.check()


def test_not_found_after_bytes_came_is_forgiven_three_times() -> None:
    play = Playbook(draw(ours="*-"))
    play >> failed(ORIGIN, FailureKind.NOT_FOUND, http_status=404) << STOP << troubled(FailureKind.NOT_FOUND)
    for _ in range(2):
        play >> begun() << PROBE >> probe_failed(FailureKind.NOT_FOUND) << STOP << troubled(FailureKind.NOT_FOUND)
    play >> begun() << PROBE >> probe_failed(FailureKind.NOT_FOUND) << STOP << fails("NOT_FOUND", context="origin")
    play.check()


def test_fatal_at_the_first_question() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE >> probe_failed(FailureKind.FORBIDDEN) << fails("FORBIDDEN")
    play.check()


def test_retry_after_is_obeyed() -> None:
    play = Playbook(draw(ours="-"))
    play >> failed(ORIGIN, FailureKind.BUSY, retry_after_s=120.0) << STOP << troubled(FailureKind.BUSY)
    play.check()
    trouble = play.stage.log[-1]
    assert isinstance(trouble, cmd.Troubled)
    assert trouble.retry_at >= play.stage.now + 120.0


def test_an_origin_cut_many_times_is_simply_continued() -> None:
    play = Playbook(draw(ours="-" * 8))
    for cut in range(1, 20):
        play >> arrived(ORIGIN, 100_000) << anything
        play >> failed(ORIGIN, FailureKind.CONNECTION_CLOSED) << fetch_bytes(ORIGIN, cut * 100_000, 8 * CHUNK)
    play.check()


def test_a_cut_that_brought_nothing_is_a_trouble_and_the_delay_grows() -> None:
    stage, delays = Stage.new(), []
    for _ in range(8):
        play = Playbook(stage)
        play >> begun() << PROBE
        play >> probe_failed(FailureKind.CONNECT_FAILED) << troubled(FailureKind.CONNECT_FAILED)
        play.check()
        trouble = stage.log[-1]
        assert isinstance(trouble, cmd.Troubled)
        delays.append(trouble.retry_at - stage.now)
    assert delays[-1] > 10 * delays[0]


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        (FailureKind.DISK_FULL, troubled(FailureKind.DISK_FULL)),
        (FailureKind.IO_ERROR, fails("IO_ERROR", context="local file")),
        (FailureKind.PERMISSION_DENIED, fails("PERMISSION_DENIED", context="local file")),
    ],
)
@pytest.mark.parametrize("who", [ORIGIN, PEER_A])
def test_a_failing_disk_is_nobodys_fault(kind: FailureKind, end: object, who: str) -> None:
    play = Playbook(draw(ours="--", peer_a="*-"))
    other = PEER_A if who == ORIGIN else ORIGIN
    play >> failed(who, kind) << abort(other) << STOP << end  # type: ignore[arg-type, operator]
    play.check()


def test_a_disk_that_failed_while_digesting_is_asked_again() -> None:
    play = Playbook(draw(ours="a*", peer_a="*-"))
    play >> storage_failed(FailureKind.DISK_FULL) << STOP << troubled(FailureKind.DISK_FULL)
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << digest(0) << ASK
    play >> near_answered()
    play >> digested(0) << publish(0, signers=(PEER_A,)) << STOP << ALL_THERE << VALIDATE
    play.check()


def test_a_lost_part_file_means_to_begin_again() -> None:
    play = Playbook(draw(ours="A*-"))
    play >> part_file_lost() << abort(ORIGIN) << STOP << FORGET << PROBE
    play >> failed(ORIGIN, FailureKind.ABORTED)
    play >> probed(facts(3)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(0, 2))
    play.check()


@pytest.mark.parametrize("verdict", [accepted(), undecided()])
def test_a_finished_part_file_that_is_lost_is_wanted_again(verdict: Input) -> None:
    play = whole(draw(ours="**"))
    play >> verdict << anything
    play >> part_file_lost() << STOP << FORGET << REFETCHING
    play >> begun() << PROBE
    play.check()
