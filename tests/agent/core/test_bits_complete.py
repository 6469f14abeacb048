"""Each row of the table of `Complete` of BITS (bits-reference 1.8), the rules below it, and trap 10."""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import Decision
from agent.core.job import IllegalTransitionError, JobState
from agent.core.jobs import Intent, JobError, Kept, NewsKind, NewTransfer
from agent.core.manager import EndingJobError, PublishFiles, RemoveFiles
from agent.core.notices import NoticeKind
from agent.core.patience import PatienceSettings
from agent.core.queue import JobId
from agent.core.spec import Restored
from agent.core.transfer import Phase
from tests.support.desk import BUSY, GONE, Desk
from tests.support.world_parts import Manner

S = JobState


# --- the table -----------------------------------------------------------------------------------------------


def test_all_files() -> None:
    """S_OK | gone (ACKNOWLEDGED) | all renamed temp -> final name"""
    desk = Desk()
    job = desk.transferred("a", "b")
    assert desk.complete(job) == ("job/0", "job/1")
    assert (job.state, job.partial, job.error) == (S.ACKNOWLEDGED, False, None)
    assert [file.completed for file in job.files] == [True, True]
    assert job.news[-1].kind is NewsKind.COMPLETED
    assert desk.log.count(RemoveFiles(job=job.job)) == 1


def test_not_before_the_files_are_where_they_belong() -> None:
    """S_OK | the intent is recorded before the first rename, the end after the last"""
    desk = Desk()
    job = desk.transferred("a")
    desk.log.clear()
    desk.do(desk.manager.complete, job)
    assert [type(each).__name__ for each in desk.log][:2] == ["SaveJob", "PublishFiles"]
    assert (job.state, job.intent) == (S.TRANSFERRED, Intent.COMPLETING)
    desk.do(desk.manager.published, job, {})
    assert job.state is S.ACKNOWLEDGED


@pytest.mark.parametrize("state", [S.TRANSFERRING, S.SUSPENDED, S.QUEUED, S.TRANSIENT_ERROR, S.ERROR])
def test_trap_10_a_part_of_the_files(state: JobState) -> None:
    """PARTIAL_COMPLETE | gone | the finished subset kept, unfinished temps deleted (with 5 files and the 3rd
    running, files 1-2 stay)"""
    desk = Desk()
    job = desk.running("a", "b", "c", "d", "e")
    desk.run(until=lambda: job.files[2].transfer.phase is Phase.PROBING)
    if state in (S.TRANSIENT_ERROR, S.ERROR):
        desk.refuse(job, BUSY if state is S.TRANSIENT_ERROR else GONE, file=2)
    elif state is S.SUSPENDED:
        desk.do(desk.manager.suspend, job)
    elif state is S.QUEUED:
        desk.do(desk.manager.respecify, job, {job.files[2].file: job.files[2].transfer.spec})
        desk.limit(0)
    desk.run(until=lambda: job.state is state)
    assert job.state is state
    assert desk.complete(job) == ("job/0", "job/1")
    assert (job.state, job.partial) == (S.ACKNOWLEDGED, True)
    assert [file.completed for file in job.files] == [True, True, False, False, False]


def test_trap_10_a_destination_that_fails() -> None:
    """rename error (OS code) | stays TRANSFERRED | the renamed ones are available (per-file Completed = TRUE); fix
    and call Complete again, or Cancel"""
    desk = Desk()
    job = desk.transferred("a", "b", "c")
    desk.complete(job, f1="DISK_FULL")
    assert (job.state, job.intent) == (S.TRANSFERRED, Intent.NONE)
    assert [file.completed for file in job.files] == [True, False, True]
    assert [file.error and file.error.code for file in job.files] == [None, "DISK_FULL", None]
    assert job.error is not None
    assert job.error.code == "DISK_FULL"
    assert desk.complete(job) == ("job/1",)
    assert (job.state, job.partial, job.error) == (S.ACKNOWLEDGED, False, None)


def test_trap_10_a_destination_that_fails_and_then_cancel() -> None:
    """rename error | or Cancel: the renamed ones stay the user's"""
    desk = Desk()
    job = desk.transferred("a", "b")
    desk.complete(job, f0="PERMISSION_DENIED")
    desk.do(desk.manager.cancel, job)
    assert job.state is S.CANCELLED
    assert [file.completed for file in job.files] == [False, True]


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_of_a_final_job(end: str) -> None:
    """INVALID_STATE | unchanged | final state"""
    desk = Desk()
    job = desk.transferred("a")
    if end == "complete":
        desk.complete(job)
    else:
        desk.do(desk.manager.cancel, job)
    before = job.state
    with pytest.raises(IllegalTransitionError):
        desk.manager.complete(job, desk.now)
    assert job.state is before


def test_no_clock_runs_while_it_is_being_done() -> None:
    """S_OK | the inactivity timeout does not cancel what is being completed; it counts again when that fails"""
    desk = Desk()
    job = desk.transferred("a", patience=PatienceSettings(inactivity_timeout_s=100.0))
    desk.do(desk.manager.complete, job)
    desk.wait(1000.0)
    assert job.state is S.TRANSFERRED
    error = JobError(code="DISK_FULL", message="full", context="local file")
    desk.do(desk.manager.published, job, {job.files[0].file: error})
    desk.wait(0.0)
    assert job.state is S.CANCELLED


def test_a_second_time_while_it_is_being_done() -> None:
    """INVALID_STATE | the first one is under way: nothing is begun twice"""
    desk = Desk()
    job = desk.transferred("a")
    desk.do(desk.manager.complete, job)
    with pytest.raises(EndingJobError):
        desk.manager.complete(job, desk.now)
    assert len([each for each in desk.log if isinstance(each, PublishFiles)]) == 1


# --- below the table -----------------------------------------------------------------------------------------


def test_complete_counts_as_valid() -> None:
    """Complete implicitly validates every finished file; the verdict is recorded before it is visible."""
    desk = Desk(asks=True)
    job = desk.running("a", "b")
    desk.run()
    assert job.undecided
    desk.do(desk.manager.complete, job)
    assert [file.transfer.decision for file in job.files] == [Decision.VALID, Decision.VALID]
    assert all(file.transfer.snapshot().finished for file in job.files), "a crash from here on loses nothing"
    assert job.state is S.TRANSFERRED
    desk.do(desk.manager.published, job, {})
    assert (job.state, job.partial) == (S.ACKNOWLEDGED, False)


def test_a_file_that_is_at_its_destination_is_out_of_our_hands() -> None:
    """The renamed ones are available: nothing that happens to the old temporary file concerns them any more, and
    they are no source for others, for the user may change them."""
    desk = Desk()
    desk.world._publish = lambda command: None  # type: ignore[method-assign]  # no cache
    job = desk.transferred("same", "b")
    desk.complete(job, f1="DISK_FULL")
    desk.deliver(ev.PartFileLost(file=job.files[0].file))
    assert (job.state, job.files[0].done) == (S.TRANSFERRED, True)
    other = desk.job("other", "same")
    desk.do(desk.manager.resume, other)
    desk.run()
    assert other.state is S.TRANSFERRED
    assert desk.fetched(other.files[0].file, "sibling") == 0


# --- validators at work --------------------------------------------------------------------------------------


def test_a_file_that_validators_look_at_is_waited_for() -> None:
    """PARTIAL_COMPLETE | what is being looked at is neither there nor missing"""
    desk = Desk()
    job = desk.running("a", "b")
    desk.run(until=lambda: job.files[0].transfer.phase is Phase.VALIDATING)
    desk.do(desk.manager.complete, job)
    assert (job.state, job.intent) == (S.VALIDATING, Intent.AWAITING)
    assert desk.publishing(job) is None
    with pytest.raises(EndingJobError, match="suspend or cancel"):
        desk.manager.complete(job, desk.now)
    desk.run(until=lambda: job.intent is Intent.COMPLETING)
    assert desk.publishing(job) == ("job/0",)
    assert job.files[1].transfer.phase is Phase.IDLE
    desk.do(desk.manager.published, job, {})
    assert (job.state, job.partial) == (S.ACKNOWLEDGED, True)


def test_what_the_validators_leave_open_counts_as_valid() -> None:
    desk = Desk(asks=True)
    job = desk.reaching(S.VALIDATING, "a")
    desk.complete(job)
    assert (job.state, job.partial) == (S.ACKNOWLEDGED, False)


def test_what_the_validators_reject_is_not_completed() -> None:
    """A rejected file is an error as if nobody had asked: complete again to give it up."""
    desk = Desk()
    job = desk.running("a", "b")
    desk.run(until=lambda: job.files[1].transfer.phase is Phase.VALIDATING)
    desk.do(desk.manager.complete, job)
    attempt = next(each.attempt for each in reversed(desk.log) if isinstance(each, cmd.ValidateContent))
    desk.world.todo.clear()
    desk.deliver(ev.ContentRejected(file=job.files[1].file, attempt=attempt, reason="wrong"))
    assert (job.state, job.intent) == (S.ERROR, Intent.NONE)
    assert desk.publishing(job) is None
    assert desk.complete(job) == ("job/0",)
    assert (job.state, job.partial) == (S.ACKNOWLEDGED, True)


def test_a_rejected_copy_of_a_peer_is_fetched_again_although_complete_was_asked() -> None:
    desk = Desk(manners=(Manner.FALSE_VOUCHER,))
    job = desk.reaching(S.VALIDATING, "a")
    desk.do(desk.manager.complete, job)
    desk.run(until=lambda: job.state is not S.VALIDATING)
    assert (job.state, job.intent) == (S.TRANSFERRING, Intent.NONE)
    desk.run()
    assert job.state is S.TRANSFERRED


@pytest.mark.parametrize("ask", ["suspend", "cancel"])
def test_who_does_not_want_to_wait_for_the_validators(ask: str) -> None:
    desk = Desk()
    job = desk.reaching(S.VALIDATING, "a")
    desk.do(desk.manager.complete, job)
    desk.do(getattr(desk.manager, ask), job)
    desk.run()
    assert job.state is (S.SUSPENDED if ask == "suspend" else S.CANCELLED)
    assert desk.publishing(job) is None


def test_nothing_interrupts_the_validators_that_complete_waits_for() -> None:
    desk = Desk(slots=1)
    job = desk.running("a", "b")
    desk.run(until=lambda: job.files[0].transfer.phase is Phase.VALIDATING)
    desk.do(desk.manager.complete, job)
    desk.surround(connected=False)
    other = desk.job("other", "http://localhost/c")
    desk.do(desk.manager.resume, other)
    desk.wait(1000.0)
    assert (job.state, other.state) == (S.VALIDATING, S.QUEUED)
    desk.run(until=lambda: job.intent is Intent.COMPLETING)
    assert other.state is S.CONNECTING


# --- restart -------------------------------------------------------------------------------------------------


def test_a_completion_that_was_cut_off_goes_on() -> None:
    """A crash between the intent and the end: the next process completes what was recorded, and the same files."""
    before = Desk(asks=True)
    old = before.running("a", "b")
    before.run(until=lambda: old.files[0].transfer.phase is Phase.DECIDING)
    before.do(before.manager.complete, old)
    desk = Desk()
    job = desk.manager.restore(JobId("job"), old.settings, Kept(state=old.state), desk.now)
    for file in old.files:
        snapshot = file.transfer.snapshot()
        held = tuple(file.transfer.chunks.held) if file.transfer.chunks is not None else ()
        new = NewTransfer(spec=file.transfer.spec, restored=Restored(snapshot=snapshot, held=held))
        desk.world.transfers[file.file] = desk.manager.put_back(job, new, completed=False).transfer
    desk.manager.restored(job, old.state, None, desk.now)
    desk.manager.step(desk.now)
    assert desk.complete(job) == ("job/0",)
    assert (job.state, job.partial) == (S.ACKNOWLEDGED, True)


def test_a_listener_is_not_told_of_a_job_that_was_completed() -> None:
    """Complete without waiting for the notification: there is nothing left to say."""
    desk = Desk()
    job = desk.transferred("a")
    desk.complete(job)
    desk.manager.forget(job)
    desk.listen()
    assert (NoticeKind.JOB_TRANSFERRED, None) not in desk.told()
