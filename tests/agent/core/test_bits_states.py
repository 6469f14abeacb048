"""Each row of the table of states and transitions of BITS (bits-reference 1.2), the rules below it, and scheduling
(1.3). The row that a test is about stands in its docstring."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import Decision
from agent.core.job import IllegalTransitionError, JobState
from agent.core.manager import EmptyJobError, RemoveFiles
from agent.core.notices import NotifyFlags
from agent.core.patience import PatienceSettings
from agent.core.queue import Rank
from agent.core.transfer import Phase
from peer.core.failure import Failure, FailureKind
from tests.support.desk import BUSY, GONE, LENGTH, Desk
from tests.support.world_parts import Manner

S = JobState
ALL = NotifyFlags(1 | 2 | 8 | 16 | 32)


# --- the table -----------------------------------------------------------------------------------------------


def test_created() -> None:
    """(none) | CreateJob | SUSPENDED"""
    assert Desk().job("job").state is S.SUSPENDED


def test_resumed_with_a_file() -> None:
    """SUSPENDED | Resume, job has >=1 file | QUEUED"""
    assert Desk(slots=0).running("a").state is S.QUEUED


def test_resumed_without_a_file() -> None:
    """SUSPENDED | Resume, no file | stays; returns EMPTY"""
    desk = Desk()
    job = desk.job("job")
    with pytest.raises(EmptyJobError, match="no file"):
        desk.manager.resume(job, desk.now)
    assert job.state is S.SUSPENDED


def test_picked_by_the_scheduler() -> None:
    """QUEUED | scheduler picks job | CONNECTING"""
    desk = Desk(slots=1)
    first, second = desk.running("a"), desk.job("two", "b")
    desk.do(desk.manager.resume, second)
    assert (first.state, second.state) == (S.CONNECTING, S.QUEUED)
    desk.do(desk.manager.suspend, first)
    assert second.state is S.CONNECTING


def test_connected() -> None:
    """CONNECTING | connected | TRANSFERRING"""
    desk = Desk()
    job = desk.running("a")
    assert job.state is S.CONNECTING
    desk.world.one_answer()
    assert job.state is S.TRANSFERRING


def test_connecting_fails_and_it_may_pass() -> None:
    """CONNECTING | failed, transient class | TRANSIENT_ERROR"""
    desk = Desk()
    job = desk.running("a")
    desk.refuse(job, BUSY)
    assert (job.state, job.error_count) == (S.TRANSIENT_ERROR, 1)
    assert job.error is not None
    assert (job.error.code, job.error.context, job.error.file) == ("BUSY", "origin", 0)


@pytest.mark.parametrize("state", [S.CONNECTING, S.TRANSFERRING])
def test_it_fails_for_good(state: JobState) -> None:
    """CONNECTING / TRANSFERRING | failed, fatal class | ERROR"""
    desk = Desk()
    job = desk.reaching(state, "a")
    if state is S.CONNECTING:
        desk.refuse(job, GONE)
    else:
        full = Failure(kind=FailureKind.PERMISSION_DENIED, message="not allowed")
        desk.deliver(ev.StorageFailed(file=job.files[0].file, failure=full))
    assert (job.state, job.error_count) == (S.ERROR, 1)
    assert job.retry_at is None


def test_the_slice_is_over() -> None:
    """TRANSFERRING | slice over | QUEUED"""
    desk = Desk(slots=1, slice_s=30.0)
    first = desk.reaching(S.TRANSFERRING, "a")
    second = desk.job("two", "b")
    desk.do(desk.manager.resume, second)
    desk.wait(29.0)
    assert (first.state, second.state) == (S.TRANSFERRING, S.QUEUED)
    desk.wait(1.0)
    assert (first.state, second.state) == (S.QUEUED, S.CONNECTING)
    assert first.files[0].transfer.phase is Phase.IDLE
    desk.run()
    assert (first.state, second.state) == (S.TRANSFERRED, S.TRANSFERRED)


def test_preempted_by_a_higher_priority() -> None:
    """TRANSFERRING | preempted by higher priority | QUEUED"""
    desk = Desk(slots=1)
    low = desk.reaching(S.TRANSFERRING, "a", rank=Rank.LOW)
    high = desk.job("high", "b", rank=Rank.HIGH)
    desk.do(desk.manager.resume, high)
    assert (low.state, high.state) == (S.QUEUED, S.CONNECTING)
    desk.run()
    assert (low.state, high.state) == (S.TRANSFERRED, S.TRANSFERRED)
    assert desk.world.origin_bytes == 2 * LENGTH, "it went on where it was"


def test_all_files_are_there() -> None:
    """TRANSFERRING | all files done | TRANSFERRED"""
    desk = Desk()
    job = desk.transferred("a", "b")
    assert all(file.done for file in job.files)


@pytest.mark.parametrize("state", [S.QUEUED, S.CONNECTING, S.TRANSFERRING])
def test_the_network_is_lost(state: JobState) -> None:
    """QUEUED / TRANSFERRING | network lost | TRANSIENT_ERROR with NETWORK_DISCONNECTED"""
    desk = Desk(slots=0 if state is S.QUEUED else 1)
    job = desk.reaching(state, "a")
    desk.surround(connected=False)
    assert job.state is S.TRANSIENT_ERROR
    assert job.error is not None
    assert job.error.code == "NETWORK_DISCONNECTED"


def test_a_job_queued_without_a_network_waits_for_it() -> None:
    """QUEUED | network lost | also when it was lost before"""
    desk = Desk()
    desk.surround(connected=False)
    here = desk.job("here", "http://localhost:8080/x")
    desk.do(desk.manager.resume, here)
    assert desk.running("a").state is S.TRANSIENT_ERROR
    assert here.state is S.CONNECTING, "this machine is always there"


@pytest.mark.parametrize("by", ["delay", "resume"])
def test_a_transient_error_is_tried_again(by: str) -> None:
    """TRANSIENT_ERROR | retry delay over, or Resume | QUEUED"""
    desk = Desk(slots=1)
    job = desk.running("a")
    desk.refuse(job, BUSY)
    other = desk.job("other", "b")
    desk.do(desk.manager.resume, other)  # so that QUEUED can be seen
    if by == "delay":
        desk.wait_for_retry(job)
    else:
        desk.do(desk.manager.resume, job)
    assert job.state is S.QUEUED
    assert job.retry_at is None


def test_the_network_comes_up() -> None:
    """TRANSIENT_ERROR (any code) | network comes up | QUEUED (all such jobs at once)"""
    desk = Desk(slots=9)
    jobs = [desk.job(f"job{number}", f"file{number}") for number in range(5)]
    for job in jobs[:4]:
        desk.do(desk.manager.resume, job)
    for job in jobs[:2]:
        desk.refuse(job, BUSY)
    desk.surround(connected=False)
    assert [job.state for job in jobs] == [S.TRANSIENT_ERROR] * 4 + [S.SUSPENDED]
    assert [job.error and job.error.code for job in jobs[1:3]] == ["BUSY", "NETWORK_DISCONNECTED"]
    desk.limit(0)
    desk.surround(connected=True)
    assert [job.state for job in jobs] == [S.QUEUED] * 4 + [S.SUSPENDED]


def test_no_progress_for_too_long() -> None:
    """TRANSIENT_ERROR | no progress for NoProgressTimeout | ERROR"""
    desk = Desk()
    job = desk.running("a", timeout_s=30.0)
    while job.state is not S.ERROR:
        assert desk.now < 1031.0
        desk.refuse(job, BUSY)
        due = desk.manager.deadline()
        assert due is not None
        desk.wait(due - desk.now)
    assert desk.now == 1030.0
    assert job.error is not None
    assert job.error.message == "gave up after 30 s without progress: busy"


@pytest.mark.parametrize(
    "state", [S.SUSPENDED, S.QUEUED, S.CONNECTING, S.TRANSFERRING, S.VALIDATING, S.TRANSFERRED, S.ERROR]
)
def test_suspended_at_any_time(state: JobState) -> None:
    """any non-final | Suspend | SUSPENDED (already suspended: no-op)"""
    desk = Desk(slots=0 if state is S.QUEUED else 1)
    job = desk.job("job", "a") if state is S.SUSPENDED else desk.running("a")
    if state is S.ERROR:
        desk.refuse(job, GONE)
    desk.run(until=lambda: job.state is state)
    desk.do(desk.manager.suspend, job)
    assert job.state is S.SUSPENDED
    version, news = job.version, len(job.news)
    desk.do(desk.manager.suspend, job)
    assert (job.state, len(job.news)) == (S.SUSPENDED, news)
    assert job.version >= version


@pytest.mark.parametrize("failure", [GONE, BUSY])
def test_an_error_is_resumed(failure: Failure) -> None:
    """ERROR / TRANSIENT_ERROR | Resume | QUEUED"""
    desk = Desk(slots=1)
    job = desk.running("a")
    desk.refuse(job, failure)
    other = desk.job("other", "b")
    desk.do(desk.manager.resume, other)
    desk.do(desk.manager.resume, job)
    assert job.state is S.QUEUED
    assert job.error is not None, "until it transfers again (1.9)"
    desk.run()
    assert (job.state, job.error) == (S.TRANSFERRED, None)
    assert job.error_count == 1, "never reset (1.5)"


@pytest.mark.parametrize("state", [S.QUEUED, S.CONNECTING, S.TRANSFERRING, S.VALIDATING])
def test_resume_of_a_job_that_runs_changes_nothing(state: JobState) -> None:
    """action state | Resume | unchanged"""
    desk = Desk(slots=0 if state is S.QUEUED else 1)
    job = desk.reaching(state, "a")
    asked = len(desk.log)
    desk.do(desk.manager.resume, job)
    assert job.state is state
    assert not [each for each in desk.log[asked:] if isinstance(each, cmd.FetchRange | cmd.ProbeOrigin)]


def test_more_files_for_a_transferred_job() -> None:
    """TRANSFERRED | add more files, then Resume | QUEUED (allowed, unusual)"""
    desk = Desk()
    job = desk.transferred("a")
    desk.do(desk.manager.resume, job)
    assert job.state is S.TRANSFERRED, "there is nothing to do"
    desk.add(job, "b")
    assert job.state is S.TRANSFERRED
    desk.limit(0)
    desk.do(desk.manager.resume, job)
    assert job.state is S.QUEUED


@pytest.mark.parametrize("state", [state for state in S if state not in (S.ACKNOWLEDGED, S.CANCELLED)])
def test_completed_at_any_time(state: JobState) -> None:
    """ERROR, TRANSFERRED, or any non-final download | Complete | ACKNOWLEDGED"""
    desk = Desk(slots=0 if state is S.QUEUED else 1)
    job = desk.job("job", "a") if state is S.SUSPENDED else desk.running("a")
    if state in (S.ERROR, S.TRANSIENT_ERROR):
        desk.refuse(job, GONE if state is S.ERROR else BUSY)
    desk.run(until=lambda: job.state is state)
    desk.complete(job)
    assert job.state is S.ACKNOWLEDGED


@pytest.mark.parametrize("state", [state for state in S if state not in (S.ACKNOWLEDGED, S.CANCELLED)])
@pytest.mark.parametrize("by", ["cancel", "inactivity"])
def test_cancelled_at_any_time(state: JobState, by: str) -> None:
    """any non-final | Cancel | CANCELLED
    any non-final | untouched for JobInactivityTimeout | CANCELLED by the service, files removed"""
    patience = PatienceSettings(inactivity_timeout_s=100.0, maximum_download_time_s=1e9, no_progress_timeout_s=1e9)
    desk = Desk(slots=0 if state is S.QUEUED else 1, asks=state is S.VALIDATING)
    job = desk.job("job", "a", patience=patience)
    if state is not S.SUSPENDED:
        desk.do(desk.manager.resume, job)
    if state in (S.ERROR, S.TRANSIENT_ERROR):
        desk.refuse(job, GONE if state is S.ERROR else replace(BUSY, retry_after_s=1000.0))
    desk.run(until=lambda: job.state is state)
    assert job.state is state
    if by == "cancel":
        desk.do(desk.manager.cancel, job)
    else:
        desk.wait(99.0)
        assert job.state is state
        desk.wait(1.0)
    assert job.state is S.CANCELLED
    assert desk.log.count(RemoveFiles(job=job.job)) == 1
    for ask in (desk.manager.resume, desk.manager.suspend, desk.manager.cancel, desk.manager.complete):
        with pytest.raises(IllegalTransitionError):
            ask(job, desk.now)


@pytest.mark.parametrize("state", [S.SUSPENDED, S.QUEUED, S.VALIDATING, S.TRANSFERRED])
def test_the_application_rejects_bytes_of_the_origin(state: JobState) -> None:
    """TRANSFERRED | SetValidationState(FALSE), origin content | ERROR, VALIDATION_FAILED"""
    desk = Desk(slots=1, asks=state is S.VALIDATING)
    job = desk.reaching(S.VALIDATING if state is S.VALIDATING else S.TRANSFERRED, "a")
    desk.run()
    if state is S.SUSPENDED:
        desk.do(desk.manager.suspend, job)
    elif state is S.QUEUED:
        desk.add(job, "b")
        desk.limit(0)
        desk.do(desk.manager.resume, job)
    assert job.state is state
    desk.do(desk.manager.decide, job.files[0].file, Decision.INVALID)
    assert job.state is S.ERROR
    assert job.error is not None
    assert job.error.code == "VALIDATION_FAILED"
    assert job.error_count == 0, "no try failed"
    assert job.files[0].transfer.held_bytes == 0


@pytest.mark.parametrize("state", [S.VALIDATING, S.TRANSFERRED])
def test_the_application_rejects_bytes_of_a_peer(state: JobState) -> None:
    """TRANSFERRED / transferring | SetValidationState(FALSE), peer content | refetch from the origin, QUEUED"""
    desk = Desk(slots=1, asks=state is S.VALIDATING, manners=(Manner.FALSE_VOUCHER,), checked=False)
    job = desk.reaching(state, "a")
    desk.run()
    other = desk.job("other", "b")
    desk.do(desk.manager.resume, other)
    asked = len(desk.log)
    desk.do(desk.manager.decide, job.files[0].file, Decision.INVALID)
    assert job.state is S.QUEUED, "its slot is somebody else's now"
    assert not [each for each in desk.log[asked:] if isinstance(each, cmd.ProbeOrigin)]
    assert (job.error, job.error_count) == (None, 0)
    desk.do(desk.manager.cancel, other)
    desk.run()
    assert job.state is state
    assert not desk.world.wrong_cells(job.files[0].file)


# --- below the table -----------------------------------------------------------------------------------------


def test_one_file_error_stops_the_job() -> None:
    """One file error stops the job: later files are not tried until it is solved."""
    desk = Desk()
    job = desk.running("a", "b", "c")
    desk.run(until=lambda: job.files[0].done)
    desk.refuse(job, GONE, file=1)
    desk.run()
    assert (job.state, job.files[2].transfer.phase) == (S.ERROR, Phase.IDLE)
    assert job.files[0].done
    desk.do(desk.manager.resume, job)
    desk.run()
    assert job.state is S.TRANSFERRED


def test_files_go_in_the_order_added() -> None:
    """1.3: inside a job files go strictly in the order added, one at a time."""
    desk = Desk()
    desk.transferred("a", "b", "c")
    probes = [each.file for each in desk.log if isinstance(each, cmd.ProbeOrigin)]
    assert probes == ["job/0", "job/1", "job/2"]


def test_foreground_runs_at_once() -> None:
    """1.3: all FOREGROUND jobs run at once, in parallel with the background ones; the policy is not for them."""
    desk = Desk(slots=1)
    desk.surround(forbidden=frozenset({Rank.HIGH, Rank.NORMAL, Rank.LOW}))
    jobs = [desk.job(f"job{number}", f"file{number}", rank=Rank.FOREGROUND) for number in range(5)]
    for job in jobs:
        desk.do(desk.manager.resume, job)
    assert [job.state for job in jobs] == [S.CONNECTING] * 5


def test_a_transient_error_blocks_nobody() -> None:
    """1.3: a job in TRANSIENT_ERROR does not block lower priorities."""
    desk = Desk(slots=1)
    high, low = desk.running("a", rank=Rank.HIGH), desk.job("low", "b", rank=Rank.LOW)
    desk.do(desk.manager.resume, low)
    assert low.state is S.QUEUED
    desk.refuse(high, BUSY)
    assert (high.state, low.state) == (S.TRANSIENT_ERROR, S.CONNECTING)


def test_another_priority_holds_at_once() -> None:
    """1.3: a job that becomes FOREGROUND runs; one that is no more makes room."""
    desk = Desk(slots=1)
    first, second = desk.running("a"), desk.job("two", "b")
    desk.do(desk.manager.resume, second)
    foreground = replace(second.settings, rank=Rank.FOREGROUND)
    desk.do(desk.manager.change, second, foreground)
    assert (first.state, second.state) == (S.CONNECTING, S.CONNECTING)
    desk.do(desk.manager.change, second, replace(foreground, rank=Rank.NORMAL))
    assert [first.state, second.state].count(S.QUEUED) == 1
