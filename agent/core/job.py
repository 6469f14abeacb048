"""The job machine: states, inputs, and the table of transitions. Everything about transitions lives here.

The states are those of BITS (bits-reference 1.1, 1.2) with one of ours, VALIDATING: BITS calls a file whose bytes
are all there TRANSFERRED and lets the application find out; we let validators look first. Two kinds of input
exist: what a user asks for (resume, suspend, cancel, complete, set-validation) and what happened (the rest).
An input that the table does not name for a state is refused for users, and a bug of ours otherwise.

TRANSIENT_ERROR means: it may pass by itself, there will be another try. ERROR means: somebody has to change
something, then resume. ACKNOWLEDGED and CANCELLED are final. Never knows: bytes, sources, chunks, time.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The spelling is the same in the journal, in REST, on the command line and in the README."""

    SUSPENDED = "SUSPENDED"
    QUEUED = "QUEUED"
    CONNECTING = "CONNECTING"
    TRANSFERRING = "TRANSFERRING"
    VALIDATING = "VALIDATING"
    TRANSFERRED = "TRANSFERRED"
    TRANSIENT_ERROR = "TRANSIENT_ERROR"
    ERROR = "ERROR"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    CANCELLED = "CANCELLED"


class JobInput(StrEnum):
    """What moves a job."""

    RESUME = "resume"
    SUSPEND = "suspend"
    CANCEL = "cancel"
    COMPLETE = "complete"
    SET_INVALID_PEER = "set invalid, bytes of peers"
    SET_INVALID_ORIGIN = "set invalid, bytes of the origin"
    SLOT_GRANTED = "slot granted"
    SLOT_LOST = "slot lost"
    """Or it had given its slot away, and has more to fetch now."""
    ORIGIN_ANSWERED = "origin answered"
    ALL_THERE = "all there"
    ACCEPTED = "accepted"
    REFETCH = "refetch"
    """More bytes are wanted after all."""
    REJECTED = "rejected"
    TRANSIENT_FAILURE = "transient failure"
    FATAL_FAILURE = "fatal failure"
    RETRY_DUE = "retry due"
    NETWORK_UP = "network up"
    UNBLOCKED = "policy allows it"
    BLOCKED = "network or policy forbids it"
    DEMAND_MET = "ranges wanted are there"
    NO_PROGRESS = "no progress"
    INACTIVE = "untouched for the inactivity time"


S, I = JobState, JobInput  # noqa: E741 - the table below reads better with one letter each

_EVERY_LIVE_STATE = {
    I.COMPLETE: S.ACKNOWLEDGED,
    I.CANCEL: S.CANCELLED,
    I.SUSPEND: S.SUSPENDED,
    I.INACTIVE: S.CANCELLED,
}

TRANSITIONS: dict[JobState, dict[JobInput, JobState]] = {
    S.SUSPENDED: {I.RESUME: S.QUEUED, I.SET_INVALID_ORIGIN: S.ERROR, **_EVERY_LIVE_STATE},
    S.QUEUED: {
        I.SLOT_GRANTED: S.CONNECTING,
        I.BLOCKED: S.TRANSIENT_ERROR,
        I.SET_INVALID_ORIGIN: S.ERROR,
        I.RESUME: S.QUEUED,
        **_EVERY_LIVE_STATE,
    },
    S.CONNECTING: {
        I.ORIGIN_ANSWERED: S.TRANSFERRING,
        I.SLOT_LOST: S.QUEUED,
        I.BLOCKED: S.TRANSIENT_ERROR,
        I.TRANSIENT_FAILURE: S.TRANSIENT_ERROR,
        I.FATAL_FAILURE: S.ERROR,
        I.RESUME: S.CONNECTING,
        **_EVERY_LIVE_STATE,
    },
    S.TRANSFERRING: {
        I.ALL_THERE: S.VALIDATING,
        I.DEMAND_MET: S.SUSPENDED,
        I.SLOT_LOST: S.QUEUED,
        I.BLOCKED: S.TRANSIENT_ERROR,
        I.TRANSIENT_FAILURE: S.TRANSIENT_ERROR,
        I.FATAL_FAILURE: S.ERROR,
        I.RESUME: S.TRANSFERRING,
        **_EVERY_LIVE_STATE,
    },
    S.VALIDATING: {
        I.ACCEPTED: S.TRANSFERRED,
        I.REFETCH: S.TRANSFERRING,
        I.SLOT_LOST: S.QUEUED,
        I.REJECTED: S.ERROR,
        I.FATAL_FAILURE: S.ERROR,
        I.TRANSIENT_FAILURE: S.TRANSIENT_ERROR,
        I.RESUME: S.VALIDATING,
        **_EVERY_LIVE_STATE,
    },
    S.TRANSFERRED: {
        I.SET_INVALID_PEER: S.QUEUED,
        I.SET_INVALID_ORIGIN: S.ERROR,
        I.RESUME: S.QUEUED,
        **_EVERY_LIVE_STATE,
    },
    S.TRANSIENT_ERROR: {
        I.RETRY_DUE: S.QUEUED,
        I.RESUME: S.QUEUED,
        I.NETWORK_UP: S.QUEUED,
        I.UNBLOCKED: S.QUEUED,
        I.NO_PROGRESS: S.ERROR,
        I.FATAL_FAILURE: S.ERROR,
        **_EVERY_LIVE_STATE,
    },
    S.ERROR: {I.RESUME: S.QUEUED, **_EVERY_LIVE_STATE},
    S.ACKNOWLEDGED: {},
    S.CANCELLED: {},
}

FINAL = frozenset(state for state, inputs in TRANSITIONS.items() if not inputs)
"""Nothing happens to these any more."""

RUNNING = frozenset({S.CONNECTING, S.TRANSFERRING, S.VALIDATING})
"""These hold a slot."""


class IllegalTransitionError(Exception):
    """The state does not allow the input. `str()` is one sentence for the user."""

    def __init__(self, state: JobState, given: JobInput) -> None:
        allowed = ", ".join(TRANSITIONS[state]) or "nothing"
        super().__init__(f"a job in {state} does not take {given.value!r} (it takes: {allowed})")
        self.state = state
        self.given = given


def next_state(state: JobState, given: JobInput) -> JobState:
    """The table. Raises IllegalTransitionError for a pair that is not in it."""
    try:
        return TRANSITIONS[state][given]
    except KeyError:
        raise IllegalTransitionError(state, given) from None
