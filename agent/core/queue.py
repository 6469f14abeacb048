"""Which queued jobs get a slot. A function that changes nothing.

FOREGROUND jobs run at once; background jobs by priority, oldest first, as many as there are slots. A job that
waits in TRANSIENT_ERROR holds no slot and blocks nobody (BITS 1.3 leaves that open). Never knows: files, time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from agent.core.job import JobState

JobId = NewType("JobId", str)
"""32 lower-case hexadecimal digits, random."""


class Rank(IntEnum):
    """BITS' priorities; lower runs first."""

    FOREGROUND = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What the queue sees of one job."""

    job: JobId
    state: JobState
    rank: Rank
    order: int
    """When it was queued, as a count: lower is longer ago."""
    engaged: bool
    """It holds a slot. A job that waits for its application's verdict does not."""


def grant(jobs: Iterable[Waiting], background_slots: int) -> list[JobId]:
    """The queued jobs that may start now, in the order of their start."""
    everyone = list(jobs)
    queued = sorted(
        (job for job in everyone if job.state is JobState.QUEUED), key=lambda job: (job.rank, job.order)
    )
    running = sum(job.engaged and job.rank is not Rank.FOREGROUND for job in everyone)
    granted = [job.job for job in queued if job.rank is Rank.FOREGROUND]
    background = [job.job for job in queued if job.rank is not Rank.FOREGROUND]
    return granted + background[: max(0, background_slots - running)]
