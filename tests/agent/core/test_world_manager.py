"""Several jobs in a random world, some with the same content: whatever happens, the manager keeps its promises.

Users do what they like; only the errors that are documented may come back, and only to them.
"""

from __future__ import annotations

import random
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import RangeSupport
from agent.core.job import FINAL, IllegalTransitionError, JobState
from agent.core.jobs import Intent, Job, JobError, JobSettings, NewTransfer
from agent.core.manager import (
    EmptyJobError,
    EndingJobError,
    JobManager,
    PublishFiles,
    RemoveFiles,
    SaveJob,
)
from agent.core.queue import JobId, Rank
from agent.core.sources import FileId
from agent.core.spec import TransferSpec
from agent.core.transfer import Phase
from agent.core.tuning import Tuning
from tests.support.world import World
from tests.support.world_parts import Flags, Manner
from validation.content import MIN_CHUNK_BYTES

TUNING = Tuning(note_bytes=MIN_CHUNK_BYTES, near_request_chunks=3, origin_share_bytes=2 * MIN_CHUNK_BYTES)
SLOTS = 2
REFUSALS = (IllegalTransitionError, EmptyJobError, EndingJobError)


class Story:
    """A manager, its world, and its users."""

    def __init__(self, seed: int, flags: Flags, shape: tuple[int, ...]) -> None:
        self.rng = random.Random(seed)
        self.world = World(self.rng, flags, self.deliver)
        self.manager = JobManager(background_slots=SLOTS, tuning=TUNING, rng=random.Random(seed))
        for number, files in enumerate(shape):
            settings = JobSettings(rank=self.rng.choice(list(Rank)))
            job = self.manager.create(JobId(f"job{number}"), settings)
            for _ in range(files):
                self.add(job)
        self.drain()

    def add(self, job: Job) -> None:
        file = FileId(f"{job.job}/{len(job.files)}")
        url = f"http://origin.example/{self.rng.choice('xxy')}"
        added = self.manager.add(job, NewTransfer(spec=TransferSpec(file=file, url=url)))
        self.world.transfers[file] = added.transfer

    def deliver(self, event: ev.FileEvent) -> None:
        self.manager.handle(event, self.world.now)
        self.drain()

    def drain(self) -> None:
        for command in self.manager.take():
            if isinstance(command, get_args(cmd.Action)):
                self.world.perform(command)  # type: ignore[arg-type]
                continue
            self.world.trace.append((self.world.now, "==", command))
            match command:
                case PublishFiles(job=job, files=files):
                    self.world.todo.append(lambda job=job, files=files: self.publish(job, files))  # type: ignore[misc]
                case RemoveFiles(job=job):
                    self.world.todo.append(lambda job=job: self.manager.forget(self.manager.jobs[job]))  # type: ignore[misc]
                case SaveJob():
                    pass
        self.look()

    def publish(self, job_id: JobId, files: tuple[FileId, ...]) -> None:
        job = self.manager.jobs[job_id]
        for file in files:
            assert not self.world.mixed(file), "wrong bytes became visible"
        failed = files[:1] if self.rng.random() < 0.2 and not self.world.calm else ()
        error = JobError(code="DISK_FULL", message="no space left", context="local file")
        self.manager.published(job, dict.fromkeys(failed, error), self.world.now)
        self.drain()

    def look(self) -> None:
        """What must hold after every single thing that happened."""
        for job in self.manager.jobs.values():
            phases = [file.transfer.phase for file in job.files]
            running = (Phase.PROBING, Phase.GATHERING, Phase.FETCHING, Phase.VALIDATING)
            if job.state in (JobState.SUSPENDED, JobState.QUEUED, JobState.TRANSIENT_ERROR, JobState.ERROR, *FINAL):
                assert not any(phase in running for phase in phases), f"{job.state} and works: {phases}"
            if job.state is JobState.TRANSFERRED:
                assert not any(phase in running for phase in phases), phases
            if job.state in (JobState.CONNECTING, JobState.TRANSFERRING):
                assert any(phase in running for phase in phases), f"{job.state} and rests: {phases}"
            if job.state is JobState.TRANSIENT_ERROR:
                assert job.retry_at is not None
            if job.state in (JobState.ERROR, JobState.TRANSIENT_ERROR):
                assert job.error is not None, f"{job.state} without a reason"

    def interfere(self) -> None:
        if not self.manager.jobs:
            return
        job = self.rng.choice(list(self.manager.jobs.values()))
        now, manager = self.world.now, self.manager
        file = self.rng.choice(job.files).file if job.files else None
        what = self.rng.choice(["suspend", "resume", "resume", "cancel", "complete", "add", "decide", "up", "lost"])
        self.world.trace.append((now, "!!", f"{what} {job.job} {file}"))
        try:
            match what:
                case "suspend":
                    manager.suspend(job, now)
                case "resume":
                    manager.resume(job, now)
                case "cancel" if self.rng.random() < 0.3:
                    manager.cancel(job, now)
                case "complete":
                    manager.complete(job, now)
                case "add" if len(job.files) < 4:
                    self.add(job)
                case "decide" if file is not None:
                    manager.decide(file, self.rng.choice(list(ev.Decision)), now)
                case "up":
                    manager.network_up(now)
                case "lost" if file in self.world.parts and job.intent is Intent.NONE and self.rng.random() < 0.3:
                    self.world.parts[file].cells.clear()
                    manager.handle(ev.PartFileLost(file=file), now)
        except REFUSALS:
            pass
        self.drain()

    def step(self) -> bool:
        world = self.world
        due = self.manager.deadline()
        if due is not None and due <= world.now:
            self.manager.tick(world.now)
            self.drain()
            again = self.manager.deadline()
            assert again is None or again > world.now, "a deadline that stays in the past"
            return True
        if world.one_answer():
            return True
        if due is None:
            return False
        world.now = due
        return True

    def nudge(self) -> bool:
        """The user at last does what is needed. False when every job has ended."""
        living = [job for job in self.manager.jobs.values() if job.state not in FINAL]
        if not living:
            return False
        for job in living:
            undecided = [file for file in job.files if file.transfer.phase is Phase.DECIDING]
            if undecided:
                self.manager.decide(undecided[0].file, ev.Decision.VALID, self.world.now)
            elif not job.files:
                self.manager.cancel(job, self.world.now)
            elif job.state is JobState.TRANSFERRED and job.all_done:
                self.manager.complete(job, self.world.now)
            elif job.state in (JobState.SUSPENDED, JobState.ERROR, JobState.TRANSFERRED):
                self.manager.resume(job, self.world.now)
            else:
                continue
            self.drain()
            return True
        raise AssertionError(f"it hangs: {[(job.job, job.state) for job in living]}")

    def run(self, chaos: int = 250, patience: int = 6000) -> None:
        for job in self.manager.jobs.values():
            if job.files:
                self.manager.resume(job, self.world.now)
        self.drain()
        for _ in range(chaos):
            if self.rng.random() < 0.1:
                self.world.happen()
            elif self.world.flags.interferes and self.rng.random() < 0.06:
                self.interfere()
            else:
                self.step()
        self.world.calm = True
        for _ in range(patience):
            if not self.step() and not self.nudge():
                return
        raise AssertionError(f"no end: {[job.state for job in self.manager.jobs.values()]}")


def play(seed: int, flags: Flags, shape: tuple[int, ...]) -> Story:
    story = Story(seed, flags, shape)
    try:
        story.run()
    except Exception as error:
        told = "\n".join(f"{at:.3f} {way} {what}" for at, way, what in story.world.trace[-150:])
        raise AssertionError(f"{error}\n{flags} {shape}\nseed {seed}\n{told}") from error
    return story


FLAGS = st.builds(
    Flags,
    manners=st.lists(st.sampled_from(list(Manner)), max_size=4).map(tuple),
    length=st.sampled_from([0, MIN_CHUNK_BYTES - 1, 5 * MIN_CHUNK_BYTES + 7]),
    ranges=st.sampled_from(list(RangeSupport)),
    etag=st.sampled_from([True, True, True, False]),
    says_length=st.sampled_from([True, True, True, False]),
    changes=st.booleans(),
    interferes=st.booleans(),
    fatal=st.booleans(),
    asks=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    flags=FLAGS,
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
)
def test_every_job_ends(seed: int, flags: Flags, shape: tuple[int, ...]) -> None:
    play(seed, flags, shape)
