"""Each row of the table of events of BITS (bits-reference 2.2), the rules below it, the flags (2.1), and the traps
7 and 9. When the core of jobs raises which notice is at the end."""

from __future__ import annotations

import pytest

from agent.core import events as ev
from agent.core.job import JobState
from agent.core.jobs import Job
from agent.core.notices import (
    ACK_TIMEOUT_S,
    DEFAULT_FLAGS,
    MAX_IN_FLIGHT,
    Deliver,
    NoticeKind,
    NoticeSettings,
    NotifyFlags,
    RunNotifyCommand,
)
from agent.core.patience import PatienceSettings
from agent.core.queue import JobId
from tests.support.bell import ALL_FLAGS, RETRY_S, Bell
from tests.support.desk import BUSY, GONE, Desk
from tests.support.world_parts import Manner

K = NoticeKind
FINALS = (K.JOB_TRANSFERRED, K.JOB_ERROR)


def bell(flags: NotifyFlags = ALL_FLAGS, *, command: bool = False) -> Bell:
    found = Bell()
    found.job(flags=flags, command=command)
    return found


# --- flags ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NoticeKind)
def test_each_kind_has_its_flag(kind: NoticeKind) -> None:
    """2.1: JOB_TRANSFERRED 1, JOB_ERROR 2, DISABLE 4 (overrides the others), JOB_MODIFICATION 8, FILE_TRANSFERRED
    16, FILE_RANGES_TRANSFERRED 32; default 3."""
    values = {
        K.JOB_TRANSFERRED: 1,
        K.JOB_ERROR: 2,
        K.JOB_MODIFICATION: 8,
        K.FILE_TRANSFERRED: 16,
        K.FILE_RANGES_TRANSFERRED: 32,
    }
    assert DEFAULT_FLAGS == 3
    cases = {values[kind]: True, 63 - 4 - values[kind]: False, 4 | values[kind]: False, 0: False}
    for flags, wanted in cases.items():
        ring = bell(NotifyFlags(flags))
        ring.comes()
        ring.raised(kind, file=0, ranges=((0, 1),))
        assert [each.notice.kind for each in ring.calls()] == ([kind] if wanted else [])


def test_flags_that_ask_for_less_drop_what_waits() -> None:
    """2.1: the flags hold from the moment they are set."""
    ring = bell()
    ring.files(0, 1)
    ring.raised(K.JOB_TRANSFERRED)
    ring.job(flags=NotifyFlags.JOB_TRANSFERRED)
    ring.comes()
    assert ring.told() == [(K.JOB_TRANSFERRED, None)]


# --- the table -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FINALS)
def test_trap_07_a_callback_that_fails_is_called_again(kind: NoticeKind) -> None:
    """JobTransferred, JobError | non-S_OK -> called again, interval arbitrary, until S_OK"""
    ring = bell()
    ring.comes()
    ring.raised(kind)
    delays, serials = [], set()
    for _ in range(12):
        call = ring.call()
        assert call.notice.kind is kind
        serials.add(call.notice.serial)
        ring.fails(call)
        assert ring.quiet()
        delays.append(ring.wait_until_due())
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == RETRY_S, "never rarer than a retry of the job"
    assert serials == {1}, "it is the same notice"
    ring.ok(ring.call())
    ring.wait(10 * RETRY_S)
    assert ring.quiet()
    assert ring.saved[JobId("job")].notices == ()


@pytest.mark.parametrize("kind", FINALS)
def test_trap_07_with_a_command_line_the_callback_is_not_called_again(kind: NoticeKind) -> None:
    """JobTransferred, JobError | with a command line set: after a failed callback the command runs and the callback
    is not called again"""
    ring = bell(command=True)
    ring.comes()
    ring.raised(kind)
    ring.fails(ring.call())
    command = ring.call()
    assert isinstance(command, RunNotifyCommand)
    assert command.notice.kind is kind
    for _ in range(3):
        ring.fails(command)
        ring.comes("job")
        assert ring.quiet(), "also nobody who comes later"
        assert ring.wait_until_due() == RETRY_S
        command = ring.call()
        assert isinstance(command, RunNotifyCommand)
    ring.ok(command)
    ring.wait(10 * RETRY_S)
    assert ring.quiet()


def test_trap_07_an_error_that_may_pass_is_never_told() -> None:
    """JobError | job entered ERROR; never for TRANSIENT_ERROR"""
    desk = Desk()
    desk.listen()
    job = desk.running("a", flags=NotifyFlags(1 | 2 | 16))
    for _ in range(3):
        desk.refuse(job, BUSY)
        desk.wait_for_retry(job)
    desk.surround(connected=False)
    assert desk.told() == []
    desk.surround(connected=True)
    desk.refuse(job, GONE)
    assert desk.told() == [(K.JOB_ERROR, None)]


def test_modification_is_lossy() -> None:
    """JobModification | property, state or progress change | lossy under load; at most one waits, and not more
    often than the minimum interval (500 ms)"""
    ring = bell()
    ring.raised(K.JOB_MODIFICATION)
    ring.comes()
    assert ring.quiet(), "it is not kept for who comes later"
    ring.raised(K.JOB_MODIFICATION)
    first = ring.call()
    for _ in range(100):
        ring.raised(K.JOB_MODIFICATION)
    assert ring.quiet(), "one at a time"
    ring.ok(first)
    assert ring.quiet()
    assert ring.wait_until_due() == 0.5
    ring.fails(ring.call())
    ring.wait(RETRY_S)
    assert ring.quiet(), "the hundred were one, and a failure is none to repeat"


def test_modification_leaves_a_slot_for_what_must_be_told() -> None:
    """JobModification | lossy under load"""
    ring = Bell()
    ring.comes()
    for number in range(6):
        ring.job(f"job{number}", ALL_FLAGS)
        ring.raised(K.JOB_MODIFICATION, f"job{number}")
    busy = ring.calls()
    assert len(busy) == MAX_IN_FLIGHT - 1
    ring.raised(K.JOB_ERROR, "job5")
    assert ring.call().notice.kind is K.JOB_ERROR


def test_modification_is_not_raised_for_the_end() -> None:
    """JobModification | not raised for the move into ERROR/TRANSFERRED"""
    desk = Desk()
    job = desk.reaching(JobState.VALIDATING, "a", flags=ALL_FLAGS)
    desk.listen()
    desk.wait(1.0)
    desk.told()
    desk.wait(1.0)
    desk.run(until=lambda: job.state is JobState.TRANSFERRED)
    assert desk.told() == [(K.FILE_TRANSFERRED, 0), (K.JOB_TRANSFERRED, None)]


def test_trap_09_files_are_told_one_at_a_time_and_before_the_end() -> None:
    """FileTransferred | a failure -> called again until S_OK; one at a time per job, next only after this one
    succeeded; all come before JobTransferred/JobError"""
    ring = bell()
    ring.files(0, 1)
    ring.raised(K.JOB_TRANSFERRED)
    ring.comes()
    for _ in range(3):
        call = ring.call()
        assert (call.notice.kind, call.notice.file) == (K.FILE_TRANSFERRED, 0)
        ring.fails(call)
        assert ring.quiet(), "a handler that keeps failing holds up everything"
        ring.wait_until_due()
    assert ring.told() == [(K.FILE_TRANSFERRED, 0), (K.FILE_TRANSFERRED, 1), (K.JOB_TRANSFERRED, None)]


def test_trap_09_a_file_that_keeps_failing_is_not_given_to_the_command() -> None:
    """FileTransferred | the command line is for TRANSFERRED and ERROR only"""
    ring = bell(command=True)
    ring.comes()
    ring.files(0)
    ring.raised(K.JOB_TRANSFERRED)
    for _ in range(5):
        call = ring.call()
        assert isinstance(call, Deliver)
        assert call.notice.kind is K.FILE_TRANSFERRED
        ring.fails(call)
        ring.wait_until_due()


def test_a_file_is_told_again_when_its_copy_was_replaced() -> None:
    """FileTransferred | raised a second time when an invalid peer copy was replaced from origin"""
    desk = Desk(asks=True, manners=(Manner.FALSE_VOUCHER,), checked=False)
    desk.listen()
    job = desk.running("a", flags=NotifyFlags(1 | 2 | 16))
    desk.run()
    assert desk.told() == [(K.FILE_TRANSFERRED, 0)]
    desk.do(desk.manager.decide, job.files[0].file, ev.Decision.INVALID)
    desk.run()
    assert desk.told() == [(K.FILE_TRANSFERRED, 0)]
    desk.do(desk.manager.decide, job.files[0].file, ev.Decision.VALID)
    assert desk.told() == [(K.JOB_TRANSFERRED, None)]


def test_a_file_that_is_there_again_before_it_was_told_is_told_once() -> None:
    """FileTransferred | the newer one counts, in its new place; one that was in somebody's hand is told again"""
    ring = bell()
    ring.files(0, 1, 0)
    ring.comes()
    first = ring.call()
    assert first.notice.file == 1
    ring.files(1)
    ring.fails(first)
    assert ring.told() == [(K.FILE_TRANSFERRED, 0), (K.FILE_TRANSFERRED, 1)]


def test_ranges_are_those_new_since_the_last_time() -> None:
    """FileRangesTransferred | lists ranges new since the last call; lossy, rate-limited by the 500 ms property"""
    ring = bell()
    ring.raised(K.FILE_RANGES_TRANSFERRED, file=0, ranges=((0, 5),))
    ring.comes()
    assert ring.quiet(), "not kept for who comes later"
    ring.raised(K.FILE_RANGES_TRANSFERRED, file=0, ranges=((10, 20),))
    first = ring.call()
    ring.raised(K.FILE_RANGES_TRANSFERRED, file=0, ranges=((20, 30),))
    ring.raised(K.FILE_RANGES_TRANSFERRED, file=0, ranges=((40, 50),))
    ring.raised(K.FILE_RANGES_TRANSFERRED, file=1, ranges=((0, 1),))
    ring.ok(first)
    assert first.notice.ranges == ((10, 20),)
    assert ring.wait_until_due() == 0.5
    second = ring.call()
    assert (second.notice.file, second.notice.ranges) == (0, ((20, 30), (40, 50)))
    ring.fails(second)
    ring.wait(0.5)
    ring.raised(K.FILE_RANGES_TRANSFERRED, file=0, ranges=((30, 40),))
    ring.wait(1.0)
    told = {}
    while calls := ring.calls():
        told |= {call.notice.file: call.notice.ranges for call in calls}
        for call in calls:
            ring.ok(call)
        ring.wait(0.5)
    assert told == {0: ((20, 50),), 1: ((0, 1),)}, "what failed is told with the rest"


# --- below the table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FINALS, K.FILE_TRANSFERRED])
@pytest.mark.parametrize("restarted", [False, True])
def test_trap_07_who_comes_late_is_told(kind: NoticeKind, restarted: bool) -> None:
    """Delivery is at least once: if nobody listens at the time, it is delivered upon registration, also after a
    restart"""
    ring = bell()
    ring.raised(kind, file=0 if kind is K.FILE_TRANSFERRED else None)
    ring.wait(1_000_000.0)
    if restarted:
        ring.restart()
    assert ring.quiet()
    ring.comes()
    assert [each for each, _ in ring.told()] == [kind]
    ring.comes()
    ring.restart()
    ring.comes()
    assert ring.quiet(), "and not twice"


def test_trap_07_a_command_set_later_is_run() -> None:
    """Delivery is at least once: also to a command set later"""
    ring = bell()
    ring.raised(K.JOB_ERROR)
    assert ring.notices.deadline() is None
    settings = NoticeSettings(flags=ALL_FLAGS, has_command=True, minimum_retry_delay_s=RETRY_S)
    ring.notices.configure(JobId("job"), settings)
    ring.wait_until_due()
    assert isinstance(ring.call(), RunNotifyCommand)


@pytest.mark.parametrize("how", ["leaves", "silence", "restart"])
def test_trap_07_a_listener_that_does_not_answer_has_failed(how: str) -> None:
    """A client that re-registers after its pointer died gets it again"""
    ring = bell()
    listener = ring.comes()
    ring.raised(K.JOB_TRANSFERRED)
    lost = ring.call()
    match how:
        case "leaves":
            ring.leaves(listener)
        case "silence":
            assert ring.wait_until_due() == ACK_TIMEOUT_S
        case "restart":
            ring.restart()
    ring.comes()
    ring.wait(1.0)
    again = ring.call()
    assert again.notice.serial == lost.notice.serial
    assert not ring.notices.answered(lost.delivery, True, ring.now), "too late"
    assert not ring.forged()
    ring.ok(again)


def test_trap_07_the_state_after_failures_survives_a_restart() -> None:
    """At least once over a restart: what failed is with the command, which waits its delay; nothing else is lost"""
    ring = bell(command=True)
    ring.comes()
    ring.files(0, 1)
    ring.raised(K.JOB_ERROR)
    for _ in range(2):
        ring.ok(ring.call())
    ring.fails(ring.call())
    ring.fails(ring.call())
    ring.restart()
    ring.comes()
    assert ring.quiet()
    ring.wait(RETRY_S - 1)
    assert ring.quiet()
    ring.wait(1)
    again = ring.call()
    assert isinstance(again, RunNotifyCommand)
    ring.ok(again)
    ring.restart()
    ring.raised(K.JOB_TRANSFERRED)
    assert ring.call().notice.serial == 4, "no serial is given twice"


def test_trap_09_four_at_once() -> None:
    """At most 4 notifications in flight per user; a handler that blocks delays others"""
    ring = Bell()
    ring.comes()
    for number in range(9):
        ring.job(f"job{number}", ALL_FLAGS, command=number % 2 == 0)
        ring.files(0, 1, job=f"job{number}")
        ring.raised(K.JOB_TRANSFERRED, f"job{number}")
    open_calls = ring.calls()
    order = [each.notice.job for each in open_calls]
    assert len(open_calls) == MAX_IN_FLIGHT
    while open_calls:
        ring.ok(open_calls.pop(0))
        new = ring.calls()
        order += [each.notice.job for each in new]
        open_calls += new
        assert len(open_calls) <= MAX_IN_FLIGHT
    assert len(order) == 27
    assert sorted(order[:9]) == [f"job{number}" for number in range(9)], "one of each before a second of any"


def test_the_last_listener_wins() -> None:
    """Callback object: last setter wins; one for the job beats one for all; after it the one before is asked"""
    ring = bell()
    everything, first, second = ring.comes(), ring.comes("job"), ring.comes("job")
    for wanted in (second, first, everything):
        ring.raised(K.JOB_ERROR)
        call = ring.call()
        assert isinstance(call, Deliver)
        assert call.listener == wanted
        ring.ok(call)
        ring.left()
        ring.leaves(wanted)


def test_a_handler_may_end_the_job() -> None:
    """A handler may call Complete or Cancel inside JobTransferred/JobError"""
    ring = bell()
    ring.comes()
    ring.raised(K.JOB_TRANSFERRED)
    call = ring.call()
    ring.left()
    ring.notices.forget(JobId("job"))
    ring.ok(call)
    ring.wait(10 * RETRY_S)
    assert ring.quiet()
    assert ring.notices.deadline() is None


def test_what_is_stale_is_not_told() -> None:
    """A job that left TRANSFERRED or ERROR says nothing of it any more, and tells its next end once"""
    ring = bell()
    ring.raised(K.JOB_ERROR)
    ring.left()
    ring.comes()
    assert ring.quiet()
    ring.raised(K.JOB_ERROR)
    stale = ring.call()
    ring.left()
    ring.raised(K.JOB_TRANSFERRED)
    assert ring.quiet(), "one at a time"
    ring.fails(stale)
    assert ring.told() == [(K.JOB_TRANSFERRED, None)]


def test_a_shorter_wait_for_who_has_not_failed_yet() -> None:
    """Interval arbitrary: a new listener does not wait as long as the one that failed ten times"""
    ring = bell()
    failing = ring.comes()
    ring.raised(K.JOB_ERROR)
    for _ in range(8):
        ring.fails(ring.call())
        ring.wait_until_due()
    ring.fails(ring.call())
    ring.leaves(failing)
    ring.wait(1.0)
    ring.comes()
    assert isinstance(ring.call(), Deliver)


# --- from the core of jobs -----------------------------------------------------------------------------------


def kinds(desk: Desk, job: Job) -> list[tuple[NoticeKind, int | None]]:
    return [each for each in desk.told() if each[0] is not K.JOB_MODIFICATION]


def test_a_job_of_three_files_tells_its_story() -> None:
    """2.2: FileTransferred for each file in order, then JobTransferred"""
    desk = Desk()
    desk.listen()
    job = desk.transferred("a", "b", "c", flags=ALL_FLAGS)
    assert kinds(desk, job) == [(K.FILE_TRANSFERRED, file) for file in range(3)] + [(K.JOB_TRANSFERRED, None)]


def test_the_end_is_told_again_after_more_files() -> None:
    """2.2: JobTransferred | all files in"""
    desk = Desk()
    desk.listen()
    job = desk.transferred("a")
    assert kinds(desk, job) == [(K.JOB_TRANSFERRED, None)]
    desk.add(job, "b")
    desk.do(desk.manager.resume, job)
    desk.run()
    assert kinds(desk, job) == [(K.JOB_TRANSFERRED, None)]
    desk.do(desk.manager.suspend, job)
    desk.do(desk.manager.resume, job)
    assert kinds(desk, job) == [(K.JOB_TRANSFERRED, None)]


@pytest.mark.parametrize("end", ["TRANSFERRED", "ERROR"])
def test_a_job_that_has_left_its_end_says_nothing_of_it(end: str) -> None:
    """2.2: a handler looks at the state itself; it is not called for one that is over"""
    desk = Desk()
    job = desk.running("a")
    if end == "ERROR":
        desk.refuse(job, GONE)
    desk.run()
    assert job.state == end
    desk.do(desk.manager.suspend, job)
    desk.listen()
    assert desk.told() == []


@pytest.mark.parametrize("cause", ["fatal", "no progress", "download time", "verdict"])
def test_every_way_into_error_is_told_once(cause: str) -> None:
    """2.2: JobError | job entered ERROR"""
    desk = Desk()
    desk.listen()
    patience = PatienceSettings(
        no_progress_timeout_s=0.0 if cause == "no progress" else 1000.0, maximum_download_time_s=100.0
    )
    job = desk.running("a", patience=patience)
    match cause:
        case "fatal":
            desk.refuse(job, GONE)
        case "no progress":
            desk.refuse(job, BUSY)
        case "download time":
            desk.wait(100.0)
        case "verdict":
            desk.run()
            desk.told()
            desk.do(desk.manager.decide, job.files[0].file, ev.Decision.INVALID)
    assert kinds(desk, job) == [(K.JOB_ERROR, None)]
    assert [each.kind.value for each in job.news].count("job-error") == 1
