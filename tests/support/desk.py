"""A job manager at work in a calm world: it goes as far as a test lets it, and everything it commanded is kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import get_args

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.job import JobState
from agent.core.jobs import Job, JobSettings, NewTransfer
from agent.core.manager import (
    JobCommand,
    JobManager,
)
from agent.core.queue import JobId, Rank
from agent.core.sources import FileId, kind_of
from agent.core.spec import Restored, TransferSpec
from agent.core.tuning import Tuning
from peer.core.failure import Failure
from tests.support.world import World
from tests.support.world_parts import Flags
from validation.content import MIN_CHUNK_BYTES

LENGTH = 4 * MIN_CHUNK_BYTES


class Desk:
    """A manager, a calm world, and everything that was commanded."""

    def __init__(self, slots: int = 2, **flags: object) -> None:
        self.world = World(random.Random(3), Flags(length=LENGTH, **flags), self.deliver)  # type: ignore[arg-type]
        self.world.calm = True
        self.manager = JobManager(background_slots=slots, tuning=Tuning(), rng=random.Random(3))
        self.log: list[JobCommand] = []

    @property
    def now(self) -> float:
        return self.world.now

    def job(self, name: str, *urls: str, rank: Rank = Rank.NORMAL, timeout_s: float = 1000.0) -> Job:
        settings = JobSettings(rank=rank, no_progress_timeout_s=timeout_s)
        job = self.manager.create(JobId(name), settings)
        for url in urls:
            self.add(job, url)
        return job

    def add(self, job: Job, url: str, restored: Restored | None = None) -> FileId:
        file = FileId(f"{job.job}/{len(job.files)}")
        spec = TransferSpec(file=file, url=f"http://origin.example/{url}")
        self.world.transfers[file] = self.manager.add(job, NewTransfer(spec=spec, restored=restored)).transfer
        return file

    def do(self, what: Callable[..., None], *args: object) -> None:
        what(*args, self.now)
        self.drain()

    def deliver(self, event: ev.FileEvent) -> None:
        self.do(self.manager.handle, event)

    def drain(self) -> None:
        for command in self.manager.take():
            self.log.append(command)
            if isinstance(command, get_args(cmd.Action)):
                self.world.perform(command)  # type: ignore[arg-type]

    def run(self, until: Callable[[], bool] = lambda: False, steps: int = 2000) -> None:
        """Answers come until there are none, or until something is so."""
        for _ in range(steps):
            if until() or not (self.world.one_answer() or self.tick()):
                return
        raise AssertionError("no end")

    def tick(self) -> bool:
        """Time passes, if only time is missing; not as far as a retry."""
        due = self.manager.deadline()
        retries = [job.retry_at for job in self.manager.jobs.values() if job.state is JobState.TRANSIENT_ERROR]
        if due is None or due in retries:
            return False
        self.world.now = max(self.now, due)
        self.do(self.manager.tick)
        return True

    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.do(self.manager.tick)

    def refuse(self, job: Job, failure: Failure) -> None:
        """The first question to the origin is answered so."""
        self.world.todo.clear()
        self.deliver(ev.ProbeFailed(file=job.files[0].file, failure=failure))

    def transferred(self, *urls: str) -> Job:
        job = self.job("job", *urls)
        self.do(self.manager.resume, job)
        self.run()
        assert job.state is JobState.TRANSFERRED
        return job

    def fetched(self, file: FileId, kind: str = "origin") -> int:
        """Bytes asked of a kind of source by this file."""
        asked = [each for each in self.log if isinstance(each, cmd.FetchRange) and each.file == file]
        return sum(each.item.length for each in asked if kind_of(each.source).name.lower() == kind)
