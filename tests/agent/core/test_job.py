"""The job machine, pair by pair: the table written out again, by hand, as bits-reference 1.2 has it."""

from __future__ import annotations

import pytest

from agent.core.job import (
    FINAL,
    RUNNING,
    TRANSITIONS,
    IllegalTransitionError,
    JobInput,
    JobState,
    next_state,
)

S, I = JobState, JobInput  # noqa: E741
LIVE = set(S) - {S.ACKNOWLEDGED, S.CANCELLED}
LEGAL: dict[JobInput, dict[JobState, JobState]] = {
    I.RESUME: {
        S.SUSPENDED: S.QUEUED,
        S.QUEUED: S.QUEUED,
        S.CONNECTING: S.CONNECTING,
        S.TRANSFERRING: S.TRANSFERRING,
        S.VALIDATING: S.VALIDATING,
        S.TRANSFERRED: S.QUEUED,
        S.TRANSIENT_ERROR: S.QUEUED,
        S.ERROR: S.QUEUED,
    },
    I.SUSPEND: dict.fromkeys(LIVE, S.SUSPENDED),
    I.CANCEL: dict.fromkeys(LIVE, S.CANCELLED),
    I.INACTIVE: dict.fromkeys(LIVE, S.CANCELLED),
    I.COMPLETE: dict.fromkeys(LIVE, S.ACKNOWLEDGED),
    I.SET_INVALID_PEER: {S.TRANSFERRED: S.QUEUED},
    I.SET_INVALID_ORIGIN: dict.fromkeys((S.SUSPENDED, S.QUEUED, S.TRANSFERRED), S.ERROR),
    I.SLOT_GRANTED: {S.QUEUED: S.CONNECTING},
    I.SLOT_LOST: dict.fromkeys((S.CONNECTING, S.TRANSFERRING, S.VALIDATING), S.QUEUED),
    I.ORIGIN_ANSWERED: {S.CONNECTING: S.TRANSFERRING},
    I.ALL_THERE: {S.TRANSFERRING: S.VALIDATING},
    I.ACCEPTED: {S.VALIDATING: S.TRANSFERRED},
    I.REFETCH: {S.VALIDATING: S.TRANSFERRING},
    I.REJECTED: {S.VALIDATING: S.ERROR},
    I.TRANSIENT_FAILURE: dict.fromkeys((S.CONNECTING, S.TRANSFERRING, S.VALIDATING), S.TRANSIENT_ERROR),
    I.FATAL_FAILURE: dict.fromkeys((S.CONNECTING, S.TRANSFERRING, S.VALIDATING, S.TRANSIENT_ERROR), S.ERROR),
    I.RETRY_DUE: {S.TRANSIENT_ERROR: S.QUEUED},
    I.NETWORK_UP: {S.TRANSIENT_ERROR: S.QUEUED},
    I.UNBLOCKED: {S.TRANSIENT_ERROR: S.QUEUED},
    I.BLOCKED: dict.fromkeys((S.QUEUED, S.CONNECTING, S.TRANSFERRING), S.TRANSIENT_ERROR),
    I.DEMAND_MET: {S.TRANSFERRING: S.SUSPENDED},
    I.NO_PROGRESS: {S.TRANSIENT_ERROR: S.ERROR},
}


def test_every_input_is_written_out_here() -> None:
    assert set(LEGAL) == set(JobInput)


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("given", JobInput)
def test_every_pair(state: JobState, given: JobInput) -> None:
    wanted = LEGAL[given].get(state)
    if wanted is not None:
        assert next_state(state, given) is wanted
        return
    with pytest.raises(IllegalTransitionError) as refused:
        next_state(state, given)
    assert (refused.value.state, refused.value.given) == (state, given)
    assert state in str(refused.value)


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_the_final_states_and_those_that_hold_a_slot() -> None:
    assert {S.ACKNOWLEDGED, S.CANCELLED} == FINAL
    assert {S.CONNECTING, S.TRANSFERRING, S.VALIDATING} == RUNNING


def test_every_state_can_be_reached_and_every_live_one_can_end() -> None:
    reached = {S.SUSPENDED}
    while more := {after for state in reached for after in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(JobState)
    assert all(I.CANCEL in TRANSITIONS[state] for state in LIVE)
