"""The rules of BITS about time and retries (bits-reference 1.5), and the traps 11 and 12. The rule that a test is
about stands in its docstring."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import Decision
from agent.core.job import JobState
from agent.core.notices import NoticeKind, NotifyFlags
from agent.core.obstacles import Surroundings
from agent.core.patience import DAY_S, PatienceSettings
from agent.core.queue import Rank
from peer.core.failure import Failure, FailureKind
from tests.support.desk import BUSY, GONE, Desk

S = JobState
ALL = NotifyFlags(1 | 2 | 8 | 16 | 32)


# --- timing --------------------------------------------------------------------------------------------------


def test_a_retry_delay_above_the_timeout_means_no_retry() -> None:
    """1.5: if MinimumRetryDelay > NoProgressTimeout no retry happens: straight to ERROR."""
    desk = Desk()
    patience = PatienceSettings(minimum_retry_delay_s=11.0, no_progress_timeout_s=10.0)
    job = desk.running("a", patience=patience, flags=ALL)
    desk.refuse(job, BUSY)
    assert (job.state, job.error_count) == (S.ERROR, 1)
    assert job.error is not None
    assert "no retry" in job.error.message
    desk.listen()
    assert (NoticeKind.JOB_ERROR, None) in desk.told()


def test_a_timeout_of_zero_makes_the_first_error_final() -> None:
    """1.4: NoProgressTimeout 0: the first error is final."""
    desk = Desk()
    job = desk.running("a", timeout_s=0.0)
    desk.refuse(job, BUSY)
    assert job.state is S.ERROR


def test_progress_clears_the_clock_of_no_progress() -> None:
    """1.5: the clock starts at the first transient error, and is cleared by any progress."""
    desk = Desk()
    job = desk.running("a")
    desk.refuse(job, BUSY)
    assert job.patience.trouble_since == desk.now
    first = desk.now
    desk.wait_for_retry(job)
    desk.refuse(job, BUSY)
    assert job.patience.trouble_since == first
    desk.wait_for_retry(job)
    desk.run(until=lambda: desk.world.origin_bytes > 0)
    assert job.patience.trouble_since is None


def test_only_connecting_and_transferring_count_as_download_time() -> None:
    """1.5: MaximumDownloadTime counts only time in CONNECTING and TRANSFERRING; exceed -> ERROR."""
    desk = Desk(slots=1)
    job = desk.running("a", patience=PatienceSettings(maximum_download_time_s=100.0))
    desk.wait(60.0)
    desk.refuse(job, replace(BUSY, retry_after_s=500.0))
    desk.wait(500.0)
    assert job.state is S.CONNECTING, "waiting for the retry does not count"
    desk.wait(39.0)
    assert job.state is S.CONNECTING
    desk.wait(1.0)
    assert job.state is S.ERROR
    assert job.error is not None
    assert job.error.code == "MAX_DOWNLOAD_TIME"


@pytest.mark.parametrize("touch", ["progress", "property", "file", "verdict"])
def test_inactivity_ends_with_any_change_or_progress(touch: str) -> None:
    """1.5: JobInactivityTimeout: any property change or progress restarts it."""
    desk = Desk(asks=True)
    patience = PatienceSettings(inactivity_timeout_s=100.0)
    job = desk.reaching(S.TRANSFERRING, "a", patience=patience)
    if touch == "verdict":
        desk.run()
    desk.wait(60.0)
    match touch:
        case "progress":
            desk.run(until=lambda: job.files[0].transfer.tally.from_origin > 0)
        case "property":
            desk.do(desk.manager.change, job, replace(job.settings, rank=Rank.HIGH))
        case "file":
            desk.add(job, "b")
        case "verdict":
            desk.do(desk.manager.decide, job.files[0].file, Decision.VALID)
    desk.wait(99.0)
    assert job.state is not S.CANCELLED
    desk.wait(1.0)
    assert job.state is S.CANCELLED


def test_each_failed_try_counts() -> None:
    """1.5: ErrorCount: +1 for each TRANSFERRING -> (TRANSIENT_)ERROR and each failed retry; never reset."""
    desk = Desk()
    job = desk.reaching(S.TRANSFERRING, "a")
    desk.world.todo.clear()
    desk.world.asked.clear()
    full = Failure(kind=FailureKind.DISK_FULL, message="full")
    desk.deliver(ev.StorageFailed(file=job.files[0].file, failure=full))
    assert (job.state, job.error_count) == (S.TRANSIENT_ERROR, 1)
    desk.wait_for_retry(job)
    desk.refuse(job, BUSY)
    assert (job.state, job.error_count) == (S.TRANSIENT_ERROR, 2)
    desk.wait_for_retry(job)
    desk.refuse(job, GONE)
    assert (job.state, job.error_count) == (S.ERROR, 3)
    desk.do(desk.manager.resume, job)
    desk.run()
    assert (job.state, job.error_count) == (S.TRANSFERRED, 3)


def test_zero_bandwidth_waits_for_its_end() -> None:
    """1.5, 6.3: MaxInternetBandwidth = 0: TRANSIENT_ERROR with BLOCKED_BY_POLICY, event-driven, not counted."""
    desk = Desk()
    job = desk.reaching(S.TRANSFERRING, "a")
    desk.surround(forbidden=frozenset({Rank.NORMAL}))
    assert (job.state, job.retry_at, job.error_count) == (S.TRANSIENT_ERROR, None, 0)
    assert job.error is not None
    assert job.error.code == "BLOCKED_BY_POLICY"
    desk.do(desk.manager.change, job, replace(job.settings, rank=Rank.HIGH))
    assert job.state is S.CONNECTING, "another priority is not blocked"
    desk.do(desk.manager.change, job, replace(job.settings, rank=Rank.NORMAL))
    assert job.state is S.TRANSIENT_ERROR
    desk.surround()
    assert job.state is S.CONNECTING


def test_what_blocks_a_job_is_kept_up_to_date() -> None:
    """1.5: with network and policy both away, the job says which one it still waits for."""
    desk = Desk()
    job = desk.running("a")
    desk.surround(connected=False, forbidden=frozenset({Rank.NORMAL}))
    assert job.error is not None
    assert job.error.code == "BLOCKED_BY_POLICY"
    desk.surround(connected=False)
    assert job.error.code == "NETWORK_DISCONNECTED"
    desk.surround(forbidden=frozenset({Rank.NORMAL}))
    assert job.state is S.TRANSIENT_ERROR
    assert job.error.code == "BLOCKED_BY_POLICY"
    desk.surround()
    assert job.state is S.CONNECTING


# --- traps ---------------------------------------------------------------------------------------------------


def test_trap_11_network_loss_sets_no_timer_and_counts_for_nothing() -> None:
    """Network loss and zero bandwidth are event-driven: no retry timer, no ErrorCount; on reconnect all transient
    jobs requeue at once. Nor does the time without a network use up the patience of a job in trouble."""
    desk = Desk(slots=9)
    job, other = desk.running("a", timeout_s=100.0), desk.job("other", "b", timeout_s=100.0)
    desk.do(desk.manager.resume, other)
    desk.refuse(job, BUSY)
    desk.do(desk.manager.resume, job)
    desk.refuse(job, BUSY)
    desk.wait(0.01)
    desk.surround(connected=False)
    desk.wait_for_retry(job)
    assert (job.state, other.state) == (S.TRANSIENT_ERROR, S.TRANSIENT_ERROR)
    assert (job.retry_at, other.retry_at) == (None, None)
    assert (job.error_count, other.error_count) == (2, 0)
    desk.wait(30 * DAY_S)
    assert (job.state, other.state) == (S.TRANSIENT_ERROR, S.TRANSIENT_ERROR)
    desk.surround(connected=True)
    assert (job.state, other.state) == (S.CONNECTING, S.CONNECTING)
    desk.refuse(job, BUSY)
    trouble_s = job.patience.elapsed(desk.now).trouble_s
    assert trouble_s is not None
    assert trouble_s < 60.0, "its patience did not run meanwhile"
    desk.wait(0.01)
    assert job.state is S.TRANSIENT_ERROR


def test_trap_11_a_failure_without_a_network_is_the_networks() -> None:
    """What fails before the loss is noticed as such is no error of the origin."""
    desk = Desk()
    job = desk.reaching(S.TRANSFERRING, "a")
    desk.run(until=lambda: any(isinstance(each, cmd.FetchRange) for each in desk.log))
    desk.manager._running.surroundings = replace(desk.manager._running.surroundings, connected=False)
    desk.world.todo.clear()
    asked = next(each for each in desk.log if isinstance(each, cmd.FetchRange))
    gone = Failure(kind=FailureKind.CONNECTION_CLOSED, message="closed")
    desk.deliver(ev.RangeFailed(file=asked.file, request=asked.request, failure=gone))
    assert (job.state, job.error_count, job.retry_at) == (S.TRANSIENT_ERROR, 0, None)
    assert job.error is not None
    assert job.error.code == "NETWORK_DISCONNECTED"


def test_trap_12_download_time_is_zeroed_by_resume() -> None:
    """MaxDownloadTime counts only connecting/transferring time and is zeroed by Resume."""
    desk = Desk()
    job = desk.running("a", patience=PatienceSettings(maximum_download_time_s=100.0))
    desk.wait(99.0)
    desk.do(desk.manager.suspend, job)
    desk.wait(1000.0)
    desk.do(desk.manager.resume, job)
    desk.wait(99.0)
    assert job.state is S.CONNECTING
    desk.wait(1.0)
    assert job.state is S.ERROR
    desk.do(desk.manager.resume, job)
    assert job.state is S.CONNECTING
    assert job.patience.active_s(desk.now) == 0.0


def test_trap_12_every_time_is_of_the_callers_clock() -> None:
    """Timers are monotonic: two jobs at any two times of the clock behave the same."""
    spent = []
    for began in (0.0, 1e9):
        desk = Desk()
        desk.world.now = began
        job = desk.running("a", timeout_s=30.0)
        while job.state is not S.ERROR:
            desk.refuse(job, BUSY)
            due = desk.manager.deadline()
            assert due is not None
            desk.wait(due - desk.now)
        spent.append(round(desk.now - began, 3))
    assert spent[0] == spent[1] == 30.0


def test_an_address_that_comes_later_gives_every_transient_job_another_try() -> None:
    """1.2, 1.5: network comes up: QUEUED. A link-local address is a network already; the one that leads somewhere
    comes a moment after it."""
    desk = Desk()
    job = desk.running("a")
    desk.refuse(job, BUSY)
    assert job.state is S.TRANSIENT_ERROR

    desk.manager.surround(Surroundings(arrivals=1), desk.now)

    assert job.state is S.CONNECTING
