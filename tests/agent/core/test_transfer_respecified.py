"""The job changes its mind: URL, use of peers, delay, size. And where redirects lead (bits-reference 1.6, 1.10)."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core.events import Decision
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import ORIGIN
from agent.core.spec import NearUse, Restored, ServeUse
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from peer.core.voucher import PeerId
from tests.support.drawing import draw
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
    REFETCHING,
    STOP,
    URL,
    VALIDATE,
    WITHDRAW,
    Input,
    Playbook,
    Stage,
    abort,
    accepted,
    answered,
    anything,
    arrived,
    begun,
    decided,
    digest,
    digested,
    facts,
    failed,
    fails,
    fetch,
    fetch_bytes,
    near_answered,
    offered,
    part_file_lost,
    paused,
    probe_failed,
    probed,
    publish,
    received,
    rejected,
    respecified,
    sends,
    spec,
    troubled,
    undecided,
)
from validation.content import ContentId, content_id_by_url
from validation.digest import Algorithm, Digest
from validation.ranges import ByteRange

MIRROR = "https://mirror.example/file"


def id_of(url: str, given: OriginFacts) -> ContentId:
    return content_id_by_url(url, given.strong_validator or "", given.length or 0)


def suspended(ours: str, *, bytes_more: int = 0, **drawn: object) -> Playbook:
    """Some chunks are there, the origin had begun with the next; then it was suspended."""
    play = Playbook(draw(ours=ours, **drawn))  # type: ignore[arg-type]
    if bytes_more:
        play >> arrived(ORIGIN, bytes_more) << anything
    play >> paused() << abort(ORIGIN) << STOP >> failed(ORIGIN, FailureKind.ABORTED)
    return play


# --- another URL -----------------------------------------------------------------------------------------------


def test_a_part_goes_on_at_another_url_when_size_and_validator_agree() -> None:
    play = suspended("----", bytes_more=CHUNK + 1000)
    play >> digested(0) << publish(0)
    play >> respecified(url=MIRROR)
    play >> begun() << PROBE >> probed(facts(4)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch_bytes(ORIGIN, CHUNK + 1000, 4 * CHUNK)
    play >> received(ORIGIN) << digest(1) << digest(2) << digest(3)
    play >> digested(1)  # a part of it came from elsewhere: good enough to use, not to vouch for
    play >> digested(2) << publish(2, signers=())
    play.check()
    told = [each.content_ids for each in play.stage.log if isinstance(each, cmd.PublishChunk)]
    assert told == [(id_of(URL, facts(4)),), (id_of(MIRROR, facts(4)),)]


@pytest.mark.parametrize(
    "there",
    [
        facts(4, etag='"other"'),
        facts(3),
        facts(4, etag=None),
        facts(4, etag='W/"v1"'),
        facts(4, ranges=RangeSupport.NONE),
        facts(4, length=None),
    ],
)
def test_otherwise_that_file_begins_again(there: OriginFacts) -> None:
    play = suspended("*---", bytes_more=1000)
    play >> respecified(url=MIRROR)
    play >> begun() << PROBE >> probed(there) << STOP << FORGET << CONNECTED << PREPARE << anything
    play.check()
    assert play.transfer.held_bytes == 0


def test_a_digest_of_the_whole_is_as_good_as_a_validator() -> None:
    given = spec(digest=Digest(Algorithm.SHA256, bytes(32)))
    play = suspended("*--", spec=given)
    play >> respecified(url=MIRROR)
    play >> begun() << PROBE >> probed(facts(3, etag=None)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunks=(1, 2))
    play.check()


def test_the_url_may_change_back_before_anybody_was_asked() -> None:
    play = suspended("*--")
    play >> respecified(url=MIRROR) >> respecified(url=URL)
    dated = facts(3, etag=None, last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    play >> begun() << PROBE >> probed(dated) << CONNECTED << anything
    play.check()
    assert play.transfer.held_bytes, "what is not told contradicts nothing at the same URL"


def test_the_change_outlives_the_process() -> None:
    before = suspended("*--", bytes_more=0)
    before >> respecified(url=MIRROR)
    before.check()
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, CHUNK),))
    play = Playbook(Stage.new(spec(url=MIRROR), left))
    assert play.transfer.content_ids == (id_of(URL, facts(3)),), "what is there is of the old one"
    play >> begun() << PROBE >> probed(facts(3, etag=None)) << STOP << FORGET << anything
    play.check()


def test_an_answer_of_the_old_url_means_nothing() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE
    play >> respecified(url=MIRROR) << PROBE
    play >> answered(1, facts(7))
    play >> answered(2, facts(2)) << CONNECTED << sends(cmd.PrepareFile, length=2 * CHUNK) << ASK
    play.check()
    assert play.transfer.content_ids == (id_of(MIRROR, facts(2)),)


def test_while_it_is_fetched_it_is_asked_anew_and_late_bytes_do_not_count() -> None:
    play = Playbook(draw(ours="---", peer_a="--*"))
    play >> arrived(ORIGIN, 1000)
    play >> arrived(PEER_A, 500)
    play >> respecified(url=MIRROR) << abort(PEER_A) << abort(ORIGIN) << STOP << PROBE
    play >> probed(facts(3)) << CONNECTED << PREPARE << ASK
    assert play.transfer.held_bytes == 1000, "what a peer had half sent is gone"
    play >> near_answered()  # both old requests may still write
    play >> received(PEER_A)
    assert play.transfer.held_bytes == 1000
    play >> failed(ORIGIN, FailureKind.ABORTED) << fetch_bytes(ORIGIN, 1000, 3 * CHUNK)
    play.check()


def test_what_came_late_from_the_old_url_before_the_new_one_answered_counts() -> None:
    play = Playbook(draw(ours="--"))
    play >> paused() << abort(ORIGIN) << STOP
    play >> respecified(url=MIRROR)
    play >> arrived(ORIGIN, CHUNK) << digest(0)
    play >> digested(0) << publish(0, signers=())
    play >> failed(ORIGIN, FailureKind.ABORTED)
    play >> begun() << PROBE >> probed(facts(2)) << CONNECTED << PREPARE << ASK
    play >> near_answered() << fetch(ORIGIN, chunk=1)
    play.check()
    (told,) = [each for each in play.stage.log if isinstance(each, cmd.PublishChunk)]
    assert told.sign == (id_of(URL, facts(2)),), "it did come from there"


@pytest.mark.parametrize("verdict", [accepted(), undecided()])
def test_a_whole_file_is_left_alone(verdict: Input) -> None:
    play = Playbook(draw(ours="A*"))
    play >> respecified(url=MIRROR)
    play >> verdict << anything
    play >> respecified(url="http://third.example/file")
    assert play.transfer.held_bytes == 2 * CHUNK
    play >> decided_invalid() << WITHDRAW << REFETCHING
    play.check()
    gone = next(each for each in play.stage.log if isinstance(each, cmd.WithdrawContent))
    assert gone.content_ids == (id_of(URL, facts(2)),)


def decided_invalid() -> Input:
    return decided(Decision.INVALID)


def test_what_was_offered_under_the_old_url_is_withdrawn_too() -> None:
    play = suspended("----", bytes_more=CHUNK)
    play >> digested(0) << publish(0) >> respecified(url=MIRROR)
    play >> begun() << PROBE >> probed(facts(4)) << CONNECTED << PREPARE << ASK >> near_answered() << fetch(ORIGIN)
    play >> received(ORIGIN) << anything >> digested(1, 2, 3) << anything
    play >> rejected() << WITHDRAW << anything
    play.check()
    gone = next(each for each in play.stage.log if isinstance(each, cmd.WithdrawContent))
    assert gone.content_ids == (id_of(MIRROR, facts(4)), id_of(URL, facts(4)))


def test_the_old_url_is_known_to_the_next_process() -> None:
    play = suspended("----", bytes_more=CHUNK)
    play >> digested(0) << publish(0) >> respecified(url=MIRROR)
    play >> begun() << PROBE >> probed(facts(4)) << CONNECTED << PREPARE << ASK
    play.check()
    left = Restored(snapshot=play.transfer.snapshot(), held=(ByteRange(0, CHUNK),))
    play = Playbook(Stage.new(spec(url=MIRROR), left))
    play >> respecified(serve=ServeUse.NEVER) << WITHDRAW
    play.check()
    (gone,) = [each for each in play.stage.log if isinstance(each, cmd.WithdrawContent)]
    assert gone.content_ids == (id_of(MIRROR, facts(4)), id_of(URL, facts(4)))


def test_what_an_earlier_process_offered_under_the_old_url_is_known_too() -> None:
    before = suspended("----", bytes_more=CHUNK)
    before >> digested(0) << publish(0) >> respecified(url=MIRROR)
    before.check()
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, CHUNK),))
    play = Playbook(Stage.new(spec(url=MIRROR), left))
    play >> begun() << PROBE >> probed(facts(4)) << CONNECTED << PREPARE << digest(0) << ASK
    play >> respecified(serve=ServeUse.NEVER) << WITHDRAW
    play.check()
    (gone,) = [each for each in play.stage.log if isinstance(each, cmd.WithdrawContent)]
    assert gone.content_ids == (id_of(MIRROR, facts(4)), id_of(URL, facts(4)))


def test_peers_are_asked_again_when_another_url_has_another_content() -> None:
    play = Playbook(draw(ours="A*"))
    play >> rejected() << WITHDRAW << REFETCHING
    play >> respecified(url=MIRROR)
    play >> begun() << PROBE >> probed(facts(2, etag='"v2"')) << STOP << FORGET << CONNECTED << PREPARE << ASK
    play.check()
    assert play.transfer.near is NearUse.PREFERRED


def test_the_new_url_may_be_missing_as_often_as_the_old_one() -> None:
    play = Playbook(draw(ours="*-"))
    play >> failed(ORIGIN, FailureKind.NOT_FOUND) << STOP << troubled(FailureKind.NOT_FOUND)
    missing = probe_failed(FailureKind.NOT_FOUND)
    for _ in range(2):
        play >> begun() << PROBE >> missing << STOP << troubled(FailureKind.NOT_FOUND)
    play >> respecified(url=MIRROR)
    for _ in range(3):
        play >> begun() << PROBE >> missing << STOP << troubled(FailureKind.NOT_FOUND)
    play >> begun() << PROBE >> missing << STOP << fails("NOT_FOUND")
    play.check()


def test_a_lost_part_file_is_fetched_from_the_url_of_now() -> None:
    play = Playbook(draw(ours="**"))
    play >> accepted() << FINISHED >> respecified(url=MIRROR)
    play >> part_file_lost() << STOP << FORGET << REFETCHING
    play >> begun() << PROBE >> probed(facts(3, etag='"v9"')) << CONNECTED << PREPARE << ASK
    play.check()
    assert play.transfer.content_ids == (id_of(MIRROR, facts(3, etag='"v9"')),)


# --- where redirects lead --------------------------------------------------------------------------------------


def test_a_reported_redirect_shifts_the_id() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE >> probed(facts(2), final_url=MIRROR) << CONNECTED << PREPARE << ASK
    play.check()
    assert play.transfer.content_ids == (id_of(MIRROR, facts(2)),)
    assert play.transfer.snapshot().final_url == play.transfer.final_url == MIRROR


def test_a_redirect_that_leads_elsewhere_the_next_time_is_like_another_url() -> None:
    play = Playbook(Stage.new())
    play >> begun() << PROBE >> probed(facts(2), final_url=MIRROR) << anything >> near_answered() << fetch(ORIGIN)
    play >> arrived(ORIGIN, CHUNK) << digest(0) >> paused() << anything >> failed(ORIGIN, FailureKind.ABORTED)
    play >> digested(0) << publish(0)
    play >> begun() << PROBE >> probed(facts(2), final_url=MIRROR + "2") << CONNECTED << PREPARE << ASK
    play >> paused() << STOP
    play >> begun() << PROBE >> probed(facts(2, etag=None), final_url=MIRROR) << STOP << FORGET << anything
    play.check()


def test_what_the_origin_said_is_kept_and_its_notes_are_told_once() -> None:
    play = Playbook(Stage.new(), watch=(cmd.LogLine,))
    note, headers = "does not answer HEAD: asked with GET", (("server", "x"),)
    play >> begun() << PROBE
    play >> probed(facts(1), notes=(note,), headers=headers) << sends(cmd.LogLine, text=note) << anything
    play >> paused() << STOP
    play >> begun() << PROBE >> probed(facts(1), notes=(note,), headers=headers) << CONNECTED << PREPARE << ASK
    play.check()
    assert play.transfer.response_headers == headers
    left = Restored(snapshot=play.transfer.snapshot(), held=())
    assert Stage.new(restored=left).transfer.response_headers == headers


# --- the use of peers ------------------------------------------------------------------------------------------


def test_peers_forbidden_in_the_middle() -> None:
    play = Playbook(draw(ours="A--", peer_b="--*"))
    play >> respecified(near=NearUse.NEVER) << anything << anything
    play >> failed(PeerId("b" * 64), FailureKind.ABORTED) >> failed(ORIGIN, FailureKind.ABORTED)
    play >> probed(facts(3)) << CONNECTED << PREPARE << fetch(ORIGIN, chunks=(1, 2))
    play >> offered(PEER_A, [1, 2])
    play.check()
    assert play.transfer.held_bytes == CHUNK, "what is there stays"
    assert play.transfer.content_ids, "it may be served nevertheless"


def test_peers_allowed_later() -> None:
    play = Playbook(draw(ours="---", spec=spec(near=NearUse.NEVER)))
    play >> paused() << abort(ORIGIN) << STOP >> failed(ORIGIN, FailureKind.ABORTED)
    play >> respecified(near=NearUse.PREFERRED)
    play >> begun() << PROBE >> probed(facts(3)) << CONNECTED << PREPARE << ASK
    play >> offered(PEER_A, [0, 1, 2]) << anything
    play.check()
    assert {each.source for each in play.stage.open.values()} == {f"peer:{PEER_A}"}


def test_a_rejected_copy_is_not_forgotten_because_peers_are_allowed_again() -> None:
    play = Playbook(draw(ours="A"))
    play >> rejected() << WITHDRAW << REFETCHING
    play >> respecified(near=NearUse.NEVER) >> respecified(near=NearUse.PREFERRED)
    play.check()
    assert play.transfer.near is NearUse.NEVER
    assert play.transfer.snapshot().near is NearUse.NEVER


def test_the_jobs_own_word_is_not_recorded_as_a_rejection() -> None:
    stage = draw(ours="--", spec=spec(near=NearUse.NEVER))
    left = Restored(snapshot=stage.transfer.snapshot(), held=())
    assert Stage.new(restored=left).transfer.near is NearUse.PREFERRED


def test_fetching_from_peers_and_serving_are_two_switches() -> None:
    play = Playbook(draw(ours="-", spec=spec(near=NearUse.NEVER)))
    play >> received(ORIGIN) << digest(0) >> digested(0) << publish(0, signers=()) << STOP << ALL_THERE << VALIDATE
    play.check()
    play = Playbook(draw(ours="-", spec=spec(serve=ServeUse.NEVER), peer_a="*"))
    play >> received(PEER_A) << digest(0) >> digested(0) << STOP << ALL_THERE << VALIDATE
    play >> accepted() << FINISHED
    play.check()


def test_serving_forbidden_withdraws_what_an_earlier_process_offered() -> None:
    before = draw(ours="*--")
    left = Restored(snapshot=before.transfer.snapshot(), held=(ByteRange(0, CHUNK),))
    play = Playbook(Stage.new(restored=left))
    play >> respecified(serve=ServeUse.NEVER) << WITHDRAW
    play >> begun() << PROBE >> probed(facts(3)) << CONNECTED << PREPARE << digest(0) << ASK
    play >> digested(0) >> near_answered() << fetch(ORIGIN, chunks=(1, 2))
    play.check()


# --- delay and size --------------------------------------------------------------------------------------------


def test_another_retry_delay_holds_from_the_next_failure_on() -> None:
    stage = Stage.new(spec(longest_retry_s=1e6))
    delays = []
    for number in range(24):
        if number == 20:
            play = Playbook(stage)
            play >> respecified(longest_retry_s=5.0)
            play.check()
        play = Playbook(stage)
        play >> begun() << PROBE >> probe_failed(FailureKind.STALLED) << troubled(FailureKind.STALLED)
        play.check()
        trouble = stage.log[-1]
        assert isinstance(trouble, cmd.Troubled)
        delays.append(trouble.retry_at - stage.now)
    assert max(delays[:20]) > 100.0
    assert all(5.0 <= delay <= 5.5 for delay in delays[20:]), delays


def test_too_many_bytes_are_an_error_until_the_job_allows_more() -> None:
    play = Playbook(Stage.new(spec(maximum_bytes=2 * CHUNK)))
    play >> begun() << PROBE >> probed(facts(3)) << fails("MAX_SIZE_REACHED", context="origin")
    play >> respecified(maximum_bytes=3 * CHUNK)
    play >> begun() << PROBE >> probed(facts(3)) << CONNECTED << PREPARE << ASK
    play >> respecified(maximum_bytes=CHUNK) << STOP << PROBE
    play >> probed(facts(3)) << STOP << fails("MAX_SIZE_REACHED")
    play.check()
    assert play.transfer.phase is Phase.FAILED


def test_of_unknown_length_no_more_is_asked_than_the_job_allows() -> None:
    play = Playbook(Stage.new(spec(maximum_bytes=1000)))
    play >> begun() << PROBE
    play >> probed(facts(length=None)) << CONNECTED << PREPARE << fetch_bytes(ORIGIN, 0, 1000)
    play >> arrived(ORIGIN, 900)
    play >> failed(ORIGIN, FailureKind.TOO_LARGE) << STOP << fails("MAX_SIZE_REACHED")
    play.check()
