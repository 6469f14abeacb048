"""Jobs of one and of several files: users, slots, retries, decisions, and files with the same content.

The world of tests/support/world.py answers calmly, as far as each test lets it.
"""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import Decision
from agent.core.job import IllegalTransitionError, JobState
from agent.core.jobs import Intent, Job, JobError
from agent.core.manager import (
    EmptyJobError,
    EndingJobError,
    PublishFiles,
    RemoveFiles,
    SaveJob,
)
from agent.core.obstacles import Surroundings
from agent.core.queue import QueueLimits, Rank
from agent.core.sources import FileId
from agent.core.spec import Restored, Snapshot
from agent.core.transfer import Phase
from peer.core.failure import Failure, FailureKind
from tests.support.desk import LENGTH, Desk
from tests.support.world import CELL
from tests.support.world_parts import Cell, Manner, PartFile
from validation.ranges import ByteRange

BUSY = Failure(kind=FailureKind.BUSY, message="busy")
GONE = Failure(kind=FailureKind.GONE, message="gone", http_status=410)


def surround(desk: Desk, *, connected: bool = True, forbidden: frozenset[Rank] = frozenset()) -> None:
    desk.manager.surround(Surroundings(connected=connected, forbidden=forbidden), desk.now)
    desk.drain()


# --- the straight way ----------------------------------------------------------------------------------------


def test_a_job_of_three_files_goes_through_them_in_order() -> None:
    desk = Desk()
    job = desk.job("job", "a", "b", "c")
    desk.do(desk.manager.resume, job)
    states = [job.state]
    while desk.world.one_answer() or desk.tick():
        if states[-1] != job.state:
            states.append(job.state)
        working = [file for file in job.files if not file.waiting and not file.done]
        assert len(working) <= 1
    assert states == ["CONNECTING", "TRANSFERRING", "VALIDATING", "TRANSFERRED"]
    probes = [each.file for each in desk.log if isinstance(each, cmd.ProbeOrigin)]
    assert probes == ["job/0", "job/1", "job/2"]
    desk.do(desk.manager.complete, job)
    assert desk.log[-1] == PublishFiles(job=job.job, files=tuple(file.file for file in job.files))
    assert job.state is JobState.TRANSFERRED, "not before it is done"
    desk.do(desk.manager.published, job, {})
    assert job.state is JobState.ACKNOWLEDGED
    assert RemoveFiles(job=job.job) in desk.log
    desk.manager.forget(job)
    desk.deliver(ev.Ticked(file=FileId("job/0")))
    assert desk.manager.jobs == {}


def test_a_new_job_is_suspended_and_an_empty_one_cannot_be_resumed() -> None:
    desk = Desk()
    job = desk.job("job")
    with pytest.raises(EmptyJobError):
        desk.manager.resume(job, 0.0)
    assert job.state is JobState.SUSPENDED


def test_what_a_user_asked_for_is_saved() -> None:
    desk = Desk()
    job = desk.job("job", "a")
    desk.drain()
    for ask in (desk.manager.resume, desk.manager.suspend, desk.manager.cancel):
        desk.log.clear()
        desk.do(ask, job)
        assert SaveJob(job=job.job) in desk.log


# --- users in every state ------------------------------------------------------------------------------------


def in_state(state: JobState) -> tuple[Desk, Job]:
    """A job that got there by what happens."""
    desk = Desk(slots=0 if state is JobState.QUEUED else 2, asks=state is JobState.VALIDATING)
    job = desk.job("job", "a")
    if state is not JobState.SUSPENDED:
        desk.do(desk.manager.resume, job)
    if state in (JobState.TRANSIENT_ERROR, JobState.ERROR):
        desk.refuse(job, BUSY if state is JobState.TRANSIENT_ERROR else GONE)
    elif state in (JobState.TRANSFERRING, JobState.VALIDATING, JobState.TRANSFERRED):
        desk.run(until=lambda: job.state is state)
    elif state is JobState.ACKNOWLEDGED:
        desk.run()
        desk.do(desk.manager.complete, job)
        desk.do(desk.manager.published, job, {})
    elif state is JobState.CANCELLED:
        desk.do(desk.manager.cancel, job)
    assert job.state is state
    return desk, job


ENDED = (JobState.ACKNOWLEDGED, JobState.CANCELLED)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("ask", ["resume", "suspend", "cancel", "complete"])
def test_every_request_in_every_state(state: JobState, ask: str) -> None:
    desk, job = in_state(state)
    allowed = state not in ENDED
    if not allowed:
        with pytest.raises((IllegalTransitionError, EndingJobError)):
            getattr(desk.manager, ask)(job, desk.now)
        assert job.state is state
        return
    desk.do(getattr(desk.manager, ask), job)
    if ask == "resume":
        waited = state in (JobState.SUSPENDED, JobState.TRANSIENT_ERROR, JobState.ERROR)
        assert job.state is (JobState.CONNECTING if waited else state)
    elif ask == "complete":
        if state is JobState.VALIDATING:  # its validators come first
            assert job.intent is Intent.AWAITING
            desk.run(until=lambda: job.intent is not Intent.AWAITING)
        assert job.intent is Intent.COMPLETING
        desk.do(desk.manager.published, job, {})
        assert job.state is JobState.ACKNOWLEDGED
        assert job.partial is (state not in (JobState.TRANSFERRED, JobState.VALIDATING))
    else:
        assert job.state is (JobState.SUSPENDED if ask == "suspend" else JobState.CANCELLED)
        assert all(
            file.transfer.phase in (Phase.IDLE, Phase.DONE, Phase.DECIDING, Phase.FAILED) for file in job.files
        )
    desk.run()  # late answers do no harm


@pytest.mark.parametrize("state", [state for state in JobState if state not in ENDED])
def test_suspended_anywhere_and_resumed_it_still_ends_well(state: JobState) -> None:
    desk, job = in_state(state)
    desk.do(desk.manager.suspend, job)
    desk.run()
    desk.manager._running.queue.limits = QueueLimits(background_jobs=2, per_host=2)
    desk.do(desk.manager.resume, job)
    desk.run()
    if job.state is JobState.VALIDATING:
        desk.do(desk.manager.decide, job.files[0].file, Decision.VALID)
    assert job.state is JobState.TRANSFERRED
    assert desk.world.origin_bytes < 2 * LENGTH


def test_nothing_can_be_asked_of_a_job_that_is_being_completed() -> None:
    desk = Desk()
    job = desk.transferred("a")
    desk.do(desk.manager.complete, job)
    for ask in (desk.manager.resume, desk.manager.suspend, desk.manager.cancel, desk.manager.complete):
        with pytest.raises(EndingJobError):
            ask(job, desk.now)
    with pytest.raises(EndingJobError):
        desk.manager.decide(job.files[0].file, Decision.INVALID, desk.now)
    desk.do(desk.manager.published, job, {})
    with pytest.raises(IllegalTransitionError):
        desk.manager.decide(job.files[0].file, Decision.INVALID, desk.now)
    assert job.state is JobState.ACKNOWLEDGED


def test_a_part_file_lost_while_completing_waits_for_the_outcome() -> None:
    desk = Desk()
    job = desk.transferred("a")
    desk.do(desk.manager.complete, job)
    desk.deliver(ev.PartFileLost(file=job.files[0].file))
    assert job.state is JobState.TRANSFERRED
    error = JobError(code="IO_ERROR", message="it is gone", context="local file", file=0)
    desk.do(desk.manager.published, job, {job.files[0].file: error})
    desk.do(desk.manager.resume, job)
    desk.run()
    assert job.state is JobState.TRANSFERRED
    assert job.all_done


@pytest.mark.parametrize("completing", [False, True])
def test_a_part_file_lost_while_validators_look_at_it_is_fetched_again(completing: bool) -> None:
    desk = Desk()
    job = desk.reaching(JobState.VALIDATING, "a")
    if completing:
        desk.do(desk.manager.complete, job)
    desk.world.parts[job.files[0].file].cells.clear()
    desk.deliver(ev.PartFileLost(file=job.files[0].file))
    assert (job.state, job.intent) == (JobState.TRANSFERRING, Intent.NONE)
    desk.run()
    assert job.state is JobState.TRANSFERRED
    assert not desk.world.wrong_cells(job.files[0].file)


def test_the_host_that_counts_is_that_of_the_file_under_way() -> None:
    desk = Desk()
    job = desk.running("http://first.example/a", "http://second.example/b", "http://third.example/c")
    assert job.next_host == "first.example"
    desk.run(until=lambda: job.files[0].done)
    assert job.next_host == "second.example"
    desk.deliver(ev.PartFileLost(file=job.files[0].file))
    assert job.next_host == "second.example", "the first one waits"
    desk.do(desk.manager.suspend, job)
    assert job.next_host == "first.example"
    desk.do(desk.manager.resume, job)
    desk.run()
    assert job.next_host == ""


def test_a_destination_that_fails_leaves_the_job_transferred() -> None:
    desk = Desk()
    job = desk.transferred("a", "b")
    desk.do(desk.manager.complete, job)
    error = JobError(code="DISK_FULL", message="no space left", context="local file", file=1)
    desk.do(desk.manager.published, job, {job.files[1].file: error})
    assert (job.state, job.error, job.intent) == (JobState.TRANSFERRED, error, Intent.NONE)
    desk.do(desk.manager.complete, job)
    assert desk.log[-1] == PublishFiles(job=job.job, files=(job.files[1].file,))


def test_completing_a_failed_job_keeps_its_whole_files() -> None:
    desk = Desk()
    job = desk.job("job", "a", "b")
    desk.do(desk.manager.resume, job)
    desk.run(until=lambda: job.files[0].done)
    desk.world.todo.clear()
    desk.deliver(ev.ProbeFailed(file=job.files[1].file, failure=GONE))
    assert job.state is JobState.ERROR
    desk.do(desk.manager.complete, job)
    assert desk.log[-1] == PublishFiles(job=job.job, files=(job.files[0].file,))


def test_a_file_added_to_a_transferred_job() -> None:
    desk = Desk()
    job = desk.transferred("a")
    desk.add(job, "b")
    assert job.state is JobState.TRANSFERRED
    desk.do(desk.manager.resume, job)
    desk.run()
    assert job.state is JobState.TRANSFERRED
    assert [file.done for file in job.files] == [True, True]


def test_nothing_can_be_added_to_a_job_that_ended() -> None:
    desk, job = in_state(JobState.CANCELLED)
    with pytest.raises(IllegalTransitionError):
        desk.add(job, "b")


# --- slots and retries ---------------------------------------------------------------------------------------


def test_slots_are_handed_on() -> None:
    desk = Desk(slots=1)
    first, second = desk.job("one", "a"), desk.job("two", "b")
    for job in (first, second):
        desk.do(desk.manager.resume, job)
    assert (first.state, second.state) == (JobState.CONNECTING, JobState.QUEUED)
    desk.do(desk.manager.suspend, first)
    assert second.state is JobState.CONNECTING


def test_jobs_that_need_their_slot_for_nothing_hand_it_on_at_once() -> None:
    desk = Desk(slots=1)
    busy = desk.job("busy", "x")
    desk.do(desk.manager.resume, busy)
    waiting = [desk.job(name) for name in ("one", "two", "three")]
    for job in waiting:
        done = Snapshot(facts=desk.world.facts(), finished=True)
        desk.add(job, "a", Restored(snapshot=done, held=(ByteRange(0, LENGTH),)))
        desk.do(desk.manager.resume, job)
    desk.do(desk.manager.suspend, busy)
    assert [job.state for job in waiting] == [JobState.TRANSFERRED] * 3


def test_foreground_runs_at_once_and_a_waiting_job_blocks_nobody() -> None:
    desk = Desk(slots=1)
    first, second = desk.job("one", "a"), desk.job("two", "b")
    now = desk.job("now", "c", rank=Rank.FOREGROUND)
    for job in (first, second, now):
        desk.do(desk.manager.resume, job)
    assert now.state is JobState.CONNECTING
    desk.refuse(first, BUSY)
    assert (first.state, second.state) == (JobState.TRANSIENT_ERROR, JobState.CONNECTING)


def test_an_undecided_job_frees_its_slot() -> None:
    desk = Desk(slots=1, asks=True)
    first, second = desk.job("one", "a"), desk.job("two", "b")
    desk.do(desk.manager.resume, first)
    desk.do(desk.manager.resume, second)
    desk.run()
    assert first.undecided
    assert second.undecided
    assert [first.state, second.state] == [JobState.VALIDATING] * 2


def test_a_transient_error_is_tried_again_when_it_is_due() -> None:
    desk, job = in_state(JobState.TRANSIENT_ERROR)
    assert (job.error and job.error.code, job.error_count) == ("BUSY", 1)
    assert job.retry_at is not None
    assert desk.manager.deadline() == job.retry_at
    assert job.patience.trouble_since == desk.now
    desk.wait(job.retry_at - desk.now)
    assert job.state is JobState.CONNECTING
    desk.run()
    assert (job.state, job.error) == (JobState.TRANSFERRED, None)


def test_network_up_tries_all_at_once() -> None:
    desk, job = in_state(JobState.TRANSIENT_ERROR)
    surround(desk, connected=False)
    surround(desk, connected=True)
    assert job.state is JobState.CONNECTING


def test_without_progress_for_too_long_it_is_an_error_with_the_last_reason() -> None:
    desk = Desk()
    job = desk.job("job", "a", timeout_s=100.0)
    desk.do(desk.manager.resume, job)
    began = desk.now
    while job.state is not JobState.ERROR:
        assert desk.now < began + 200.0
        desk.refuse(job, BUSY)
        due = desk.manager.deadline()
        assert due is not None
        desk.wait(max(0.0, due - desk.now))
    assert desk.now == began + 100.0
    assert job.error is not None
    assert job.error.code == "BUSY"
    assert "without progress" in job.error.message
    desk.do(desk.manager.resume, job)
    desk.refuse(job, BUSY)
    assert job.state is JobState.TRANSIENT_ERROR, "resume gives new patience"


def test_a_failing_file_stops_its_job_and_says_which() -> None:
    desk = Desk()
    job = desk.job("job", "a", "b", "c")
    desk.do(desk.manager.resume, job)
    desk.run(until=lambda: job.files[0].done)
    desk.world.todo.clear()
    desk.deliver(ev.ProbeFailed(file=job.files[1].file, failure=GONE))
    assert job.state is JobState.ERROR
    assert job.error is not None
    assert (job.error.code, job.error.file, job.error.http_status) == ("GONE", 1, 410)
    desk.run()
    assert job.files[2].transfer.phase is Phase.IDLE


# --- decisions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [False, True])
def test_invalid_bytes_of_the_origin_are_an_error(asks: bool) -> None:
    desk = Desk(asks=asks)
    job = desk.job("job", "a")
    desk.do(desk.manager.resume, job)
    desk.run()
    desk.do(desk.manager.decide, job.files[0].file, Decision.INVALID)
    assert job.state is JobState.ERROR
    assert job.error is not None
    assert job.error.code == "VALIDATION_FAILED"
    assert job.files[0].transfer.held_bytes == 0


@pytest.mark.parametrize("asks", [False, True])
def test_invalid_bytes_of_a_peer_are_fetched_from_the_origin(asks: bool) -> None:
    desk = Desk(asks=asks, manners=(Manner.FALSE_VOUCHER,), checked=False)
    job = desk.job("job", "a")
    desk.do(desk.manager.resume, job)
    desk.run()
    assert desk.world.wrong_cells(job.files[0].file)
    desk.do(desk.manager.decide, job.files[0].file, Decision.INVALID)
    assert job.state in (JobState.CONNECTING, JobState.TRANSFERRING)
    desk.run()
    assert not desk.world.wrong_cells(job.files[0].file)
    assert job.state is (JobState.VALIDATING if asks else JobState.TRANSFERRED)
    assert desk.world.peers[0].banned
    assert job.error is None


def test_invalid_while_another_file_waits_for_its_retry() -> None:
    desk = Desk()
    job = desk.job("job", "a", "b")
    desk.do(desk.manager.resume, job)
    desk.run(until=lambda: job.files[0].done)
    desk.world.todo.clear()
    desk.deliver(ev.ProbeFailed(file=job.files[1].file, failure=BUSY))
    desk.do(desk.manager.decide, job.files[0].file, Decision.INVALID)
    assert job.state is JobState.ERROR


# --- files with the same content -----------------------------------------------------------------------------


def pair(desk: Desk) -> tuple[Job, Job]:
    first, second = desk.job("one", "same"), desk.job("two", "same")
    desk.do(desk.manager.resume, first)
    desk.do(desk.manager.resume, second)
    return first, second


def test_two_files_with_the_same_content_fetch_it_once() -> None:
    desk = Desk()
    first, second = pair(desk)
    desk.run()
    assert (first.state, second.state) == (JobState.TRANSFERRED, JobState.TRANSFERRED)
    assert desk.world.origin_bytes == LENGTH
    assert sum(desk.fetched(FileId(file), "sibling") for file in ("one/0", "two/0")) == LENGTH


@pytest.mark.parametrize("ask", ["suspend", "cancel"])
def test_the_follower_takes_over_when_the_leader_stops(ask: str) -> None:
    desk = Desk()
    first, second = pair(desk)
    desk.run(until=lambda: desk.world.origin_bytes > 0)
    leader, follower = (first, second) if desk.fetched(FileId("one/0")) else (second, first)
    desk.do(getattr(desk.manager, ask), leader)
    desk.run()
    assert follower.state is JobState.TRANSFERRED
    assert not desk.world.wrong_cells(follower.files[0].file)


def test_what_was_transferred_is_copied_while_its_job_lives_and_not_afterwards() -> None:
    for ended in (False, True):
        desk = Desk()
        desk.world._publish = lambda command: None  # type: ignore[method-assign]  # no cache
        first = desk.transferred("same")
        if ended:
            desk.do(desk.manager.complete, first)  # from now on the file may be the user's
        second = desk.job("two", "same")
        desk.do(desk.manager.resume, second)
        desk.run()
        assert second.state is JobState.TRANSFERRED
        assert desk.fetched(FileId("two/0"), "sibling") == (0 if ended else LENGTH)


# --- restore -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (JobState.TRANSFERRING, JobState.CONNECTING),
        (JobState.VALIDATING, JobState.CONNECTING),
        (JobState.QUEUED, JobState.CONNECTING),
        (JobState.TRANSIENT_ERROR, JobState.CONNECTING),
        (JobState.SUSPENDED, JobState.SUSPENDED),
        (JobState.ERROR, JobState.ERROR),
    ],
)
def test_after_a_restart_what_ran_runs_and_what_rested_rests(before: JobState, after: JobState) -> None:
    desk = Desk()
    job = desk.job("job", "a")
    error = JobError(code="GONE", message="gone", context="origin")
    desk.manager.restored(job, before, error, desk.now)
    desk.manager.step(desk.now)
    assert job.state is after
    assert job.error == (None if after is JobState.CONNECTING else error)


def test_after_a_restart_only_the_missing_bytes_are_fetched() -> None:
    desk = Desk()
    job = desk.job("job")
    left = Restored(snapshot=Snapshot(facts=desk.world.facts()), held=(ByteRange(0, LENGTH // 2),))
    file = desk.add(job, "a", left)
    half = {cell: Cell(f"v1.{cell}", "origin") for cell in range(LENGTH // 2 // CELL)}  # type: ignore[arg-type]
    desk.world.parts[file] = PartFile(cells=half)
    desk.manager.restored(job, JobState.TRANSFERRING, None, desk.now)
    desk.manager.step(desk.now)
    desk.drain()
    desk.run()
    assert job.state is JobState.TRANSFERRED
    assert desk.world.origin_bytes == LENGTH // 2


def test_a_restored_job_whose_files_are_all_there_needs_no_byte() -> None:
    desk = Desk()
    job = desk.job("job")
    done = Snapshot(facts=desk.world.facts(), finished=True)
    desk.add(job, "a", Restored(snapshot=done, held=(ByteRange(0, LENGTH),)))
    desk.manager.restored(job, JobState.TRANSFERRING, None, desk.now)
    desk.manager.step(desk.now)
    assert job.state is JobState.TRANSFERRED
