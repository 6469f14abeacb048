"""Who gets a slot."""

from __future__ import annotations

from agent.core.job import JobState
from agent.core.queue import JobId, Rank, Waiting, grant


def job(name: str, rank: Rank = Rank.NORMAL, state: JobState = JobState.QUEUED, order: int = 0) -> Waiting:
    engaged = state in (JobState.CONNECTING, JobState.TRANSFERRING)
    return Waiting(job=JobId(name), state=state, rank=rank, order=order, engaged=engaged)


def test_oldest_first_within_a_priority() -> None:
    assert grant([job("b", order=2), job("a", order=1), job("c", order=3)], 2) == ["a", "b"]


def test_priority_before_age() -> None:
    jobs = [job("low", Rank.LOW, order=1), job("high", Rank.HIGH, order=3), job("normal", order=2)]
    assert grant(jobs, 2) == ["high", "normal"]


def test_foreground_needs_no_slot_and_takes_none() -> None:
    running = job("runs", Rank.FOREGROUND, JobState.TRANSFERRING)
    jobs = [running, job("now", Rank.FOREGROUND, order=9), job("a", order=1)]
    assert grant(jobs, 1) == ["now", "a"]
    assert grant(jobs, 0) == ["now"]


def test_running_jobs_hold_their_slots_and_waiting_ones_do_not() -> None:
    runs, waits = job("r", state=JobState.TRANSFERRING), job("t", state=JobState.TRANSIENT_ERROR)
    assert grant([runs, waits, job("a", order=1), job("b", order=2)], 2) == ["a"]
    undecided = Waiting(job=JobId("u"), state=JobState.VALIDATING, rank=Rank.NORMAL, order=0, engaged=False)
    assert grant([runs, undecided, job("a")], 2) == ["a"]


def test_more_running_than_slots_grants_nobody() -> None:
    runs = [job(str(number), state=JobState.CONNECTING) for number in range(3)]
    assert grant([*runs, job("a")], 2) == []


def test_only_queued_jobs_are_granted() -> None:
    jobs = [job(state, state=state) for state in JobState]
    assert grant(jobs, 9) == [JobState.QUEUED]
