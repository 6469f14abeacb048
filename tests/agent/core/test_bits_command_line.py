"""The notify command line of BITS (bits-reference 2.3), rule by rule, and trap 8."""

from __future__ import annotations

import pytest

from agent.core.notices import (
    COMMAND_TIMEOUT_S,
    FORGOTTEN_S,
    MAX_IN_FLIGHT,
    Deliver,
    NoticeKind,
    NotifyFlags,
    RunNotifyCommand,
)
from agent.core.queue import JobId
from tests.support.bell import ALL_FLAGS, RETRY_S, Bell

K = NoticeKind
FINALS = (K.JOB_TRANSFERRED, K.JOB_ERROR)


def bell(flags: NotifyFlags = ALL_FLAGS, *, command: bool = False) -> Bell:
    found = Bell()
    found.job(flags=flags, command=command)
    return found


@pytest.mark.parametrize("kind", NoticeKind)
def test_trap_08_the_command_is_for_the_end_of_a_job(kind: NoticeKind) -> None:
    """2.3: fires for TRANSFERRED and ERROR only, filtered by the flags; used when no callback exists"""
    ring = bell(command=True)
    ring.raised(kind, file=0, ranges=((0, 1),))
    assert [type(each) for each in ring.calls()] == ([RunNotifyCommand] if kind in FINALS else [])
    ring.job(flags=NotifyFlags.DISABLE, command=True)
    ring.left()
    ring.raised(kind, file=0)
    ring.wait(RETRY_S)
    assert ring.quiet()


def test_trap_08_files_that_nobody_hears_of_do_not_hold_the_command() -> None:
    """2.3: used when no valid callback exists; the files wait for who may come later"""
    ring = bell(command=True)
    ring.files(0, 1)
    ring.raised(K.JOB_TRANSFERRED)
    command = ring.call()
    assert isinstance(command, RunNotifyCommand)
    ring.ok(command)
    assert ring.quiet()
    ring.comes()
    assert ring.told() == [(K.FILE_TRANSFERRED, 0), (K.FILE_TRANSFERRED, 1)]


def test_trap_08_a_command_that_works_is_enough() -> None:
    """2.3: exit code 0 = handled"""
    ring = bell(command=True)
    ring.raised(K.JOB_TRANSFERRED)
    ring.ok(ring.call())
    ring.comes()
    ring.wait(10 * RETRY_S)
    assert ring.quiet()


@pytest.mark.parametrize("exit_code", [1, 255, -9, None])
def test_trap_08_a_command_that_fails_runs_again_after_the_retry_delay(exit_code: int | None) -> None:
    """2.3: non-zero, and job not completed/cancelled meanwhile -> run again after MinimumRetryDelay"""
    ring = bell(command=True)
    ring.raised(K.JOB_ERROR)
    for _ in range(3):
        command = ring.call()
        ring.notices.command_ended(command.delivery, exit_code, ring.now)
        ring.tick()
        assert ring.quiet()
        assert ring.wait_until_due() == RETRY_S
    ring.notices.forget(JobId("job"))
    ring.notices.command_ended(ring.call().delivery, exit_code, ring.now)
    ring.wait(10 * RETRY_S)
    assert ring.quiet()
    assert len(ring.notes) == 3


def test_a_command_that_is_never_heard_of_again_does_not_hold_its_slot() -> None:
    """2.3: failure to launch is logged; a slot that is lost for ever would stop all notifications after four"""
    ring = Bell()
    for number in range(MAX_IN_FLIGHT + 1):
        ring.job(f"job{number}", command=True)
        ring.raised(K.JOB_ERROR, f"job{number}")
    lost = ring.calls()
    assert len(lost) == MAX_IN_FLIGHT
    assert ring.wait_until_due() == COMMAND_TIMEOUT_S
    assert ring.call().notice.job == f"job{MAX_IN_FLIGHT}"
    ring.notices.command_ended(lost[1].delivery, 0, ring.now)
    assert len(ring.saved[lost[1].notice.job].notices) == 1, "too late: it runs again"


def test_a_job_that_is_gone_does_not_hold_its_slots() -> None:
    """At most 4 notifications in flight per user | of jobs that live: nobody cares for the others' answers"""
    ring = Bell()
    ring.comes()
    for number in range(MAX_IN_FLIGHT + 1):
        ring.job(f"job{number}")
        ring.raised(K.JOB_ERROR, f"job{number}")
    lost = ring.calls()
    for call in lost:
        ring.notices.forget(call.notice.job)
    assert ring.wait_until_due() == FORGOTTEN_S
    assert ring.call().notice.job == f"job{MAX_IN_FLIGHT}"


def test_a_command_that_is_taken_away_gives_the_callback_back() -> None:
    """2.3: both NULL = remove: the callback is called again"""
    ring = bell(command=True)
    ring.comes()
    ring.raised(K.JOB_ERROR)
    ring.fails(ring.call())
    ring.fails(ring.call())
    ring.job(command=False)
    ring.wait(1.0)
    assert isinstance(ring.call(), Deliver)
