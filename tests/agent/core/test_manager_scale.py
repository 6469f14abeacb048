"""Very many jobs: what one of them asks, or what happens to it, costs no more because the others are there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.job import JobState
from agent.core.jobs import Job, JobSettings, NewTransfer
from agent.core.manager import JobManager
from agent.core.notices import ListenerId, NoticeKind, NoticeSettings, NotifyFlags
from agent.core.queue import JobId, QueueLimits, Rank
from agent.core.sources import FileId
from agent.core.spec import TransferSpec
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from tests.support.effort import lines_run

FEW, MANY = 100, 3_000
GROWTH = 1.6
"""30 times as many jobs: a logarithm may double where it is all there is; anything that scans is far beyond."""

EMPTY = OriginFacts(length=0, etag='"v1"', ranges=RangeSupport.PROMISED)


class Crowd:
    """Very many jobs with an empty file each; the origin and the validators answer when a test says so."""

    def __init__(self, count: int, hosts: int) -> None:
        self.manager = JobManager(limits=QueueLimits(), tuning=Tuning(), rng=random.Random(1))
        self.hosts = hosts
        self.now = 0.0
        self.made = 0
        for _ in range(count):
            self.create()
        for job in list(self.manager.jobs.values()):
            self.manager.resume(job, self.now)
        self.manager.take()

    def create(self) -> Job:
        """One more."""
        notices = NoticeSettings(flags=NotifyFlags(59), has_command=False, minimum_retry_delay_s=600.0)
        job = self.manager.create(JobId(f"job{self.made}"), JobSettings(notices=notices), self.now)
        url = f"http://host{self.made % self.hosts}.example/{self.made}"
        spec = TransferSpec(file=FileId(f"{job.job}/0"), url=url)
        self.manager.add(job, NewTransfer(spec=spec), self.now)
        self.made += 1
        return job

    def one(self, state: JobState) -> Job:
        """Some job in this state, not the first one."""
        found = [job for job in self.manager.jobs.values() if job.state is state]
        return found[len(found) // 2]

    def finish(self, job: Job) -> None:
        """All that happens to a file from here on."""
        file = job.files[0].file
        self.manager.handle(ev.OriginProbed(file=file, facts=EMPTY), self.now)
        asked = [each for each in self.manager.take() if isinstance(each, cmd.ValidateContent)]
        self.manager.handle(ev.ContentAccepted(file=file, attempt=asked[-1].attempt), self.now)
        assert job.state is JobState.TRANSFERRED

    def fail(self, job: Job) -> None:
        """It will be tried again."""
        busy = Failure(kind=FailureKind.BUSY, message="busy")
        self.manager.handle(ev.ProbeFailed(file=job.files[0].file, failure=busy), self.now)
        assert job.state is JobState.TRANSIENT_ERROR

    def cancel(self, job: Job) -> None:
        """To its very end."""
        self.manager.cancel(job, self.now)
        self.manager.forget(job)

    def complete(self, job: Job) -> None:
        """To its very end."""
        self.manager.complete(job, self.now)
        self.manager.published(job, {}, self.now)
        self.manager.forget(job)

    def change(self, job: Job) -> None:
        """Another priority."""
        self.manager.change(job, replace(job.settings, rank=Rank.LOW), self.now)

    def listen(self, job: Job) -> None:
        """Somebody comes for all jobs, and goes."""
        self.manager.notices.listener_came(ListenerId(1), None, self.now)
        self.manager.notices.listener_gone(ListenerId(1), self.now)


S = JobState
WHAT: dict[str, tuple[JobState, Callable[[Crowd, Job], object]]] = {
    "create": (S.SUSPENDED, lambda crowd, job: crowd.create()),
    "resume": (S.SUSPENDED, lambda crowd, job: crowd.manager.resume(job, crowd.now)),
    "suspend": (S.QUEUED, lambda crowd, job: crowd.manager.suspend(job, crowd.now)),
    "finish": (S.CONNECTING, Crowd.finish),
    "fail": (S.CONNECTING, Crowd.fail),
    "retry": (S.TRANSIENT_ERROR, lambda crowd, job: crowd.manager.resume(job, crowd.now)),
    "cancel": (S.QUEUED, Crowd.cancel),
    "complete": (S.TRANSFERRED, Crowd.complete),
    "change": (S.QUEUED, Crowd.change),
    "listen": (S.QUEUED, Crowd.listen),
    "deadline": (S.QUEUED, lambda crowd, job: crowd.manager.deadline()),
    "tick": (S.QUEUED, lambda crowd, job: crowd.manager.tick(crowd.now)),
}


def efforts(count: int, hosts: int) -> dict[str, int]:
    """Lines for each, in a crowd where some jobs rest, some are through, four run, and the rest waits."""
    crowd = Crowd(count, hosts)
    for job in list(crowd.manager.jobs.values()):
        if job.state is S.QUEUED and int(job.job[3:]) % 2:
            crowd.manager.suspend(job, crowd.now)
    for job in list(crowd.manager.jobs.values())[: count // 20]:
        if job.state is S.CONNECTING:
            crowd.finish(job)
    crowd.manager.take()
    found = {}
    for name, (state, act) in WHAT.items():
        job = crowd.one(state)
        found[name] = lines_run(lambda act=act, job=job: act(crowd, job))  # type: ignore[misc]
        crowd.manager.take()
    return found


@pytest.mark.parametrize("spread", ["one host", "a host each"])
def test_the_cost_of_one_job_does_not_grow_with_the_others(spread: str) -> None:
    few, many = (efforts(count, 1 if spread == "one host" else count) for count in (FEW, MANY))
    grown = {name: (few[name], many[name]) for name in WHAT if many[name] > few[name] * GROWTH}
    assert not grown, grown


def test_queued_jobs_are_all_done_one_after_the_other() -> None:
    """Each file that ends starts the next job."""
    crowd = Crowd(1000, 50)
    for job in crowd.manager.jobs.values():
        assert job.state is S.CONNECTING, "they go in the order they came"
        crowd.finish(job)


def test_pending_notices_cost_nothing_until_somebody_comes() -> None:
    crowd = Crowd(2000, 1)
    notices = crowd.manager.notices
    for job in crowd.manager.jobs.values():
        notices.raised(job.job, NoticeKind.JOB_TRANSFERRED, crowd.now)
    assert crowd.manager.deadline() is not None
    assert lines_run(lambda: notices.tick(crowd.now + 1.0)) < 60
    assert lines_run(lambda: notices.listener_came(ListenerId(1), None, crowd.now + 2.0)) < 600
