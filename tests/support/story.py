"""A manager, a random world, its users, its listeners, and what must hold after every single thing that happens."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from typing import get_args

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.job import FINAL, IllegalTransitionError, JobState
from agent.core.jobs import Intent, Job, JobError, JobSettings, NewTransfer
from agent.core.manager import (
    EmptyJobError,
    EndingJobError,
    JobCommand,
    JobManager,
    PublishFiles,
    RemoveFiles,
)
from agent.core.moves import is_blocked
from agent.core.notices import (
    MAX_IN_FLIGHT,
    Deliver,
    ListenerId,
    NoticeKind,
    NoticeSettings,
    NotifyFlags,
    RunNotifyCommand,
)
from agent.core.obstacles import Surroundings
from agent.core.patience import PatienceSettings
from agent.core.queue import BACKGROUND, JobId, QueueLimits, Rank
from agent.core.sources import FileId
from agent.core.spec import TransferSpec
from agent.core.transfer import Phase
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from tests.support.world import World, etag_of
from tests.support.world_parts import Flags
from validation.content import MIN_CHUNK_BYTES, ContentId, content_id_by_url

TUNING = Tuning(note_bytes=MIN_CHUNK_BYTES, near_request_chunks=3, origin_share_bytes=2 * MIN_CHUNK_BYTES)
LIMITS = QueueLimits(background_jobs=2, per_host=1, slice_s=5.0)
REFUSALS = (IllegalTransitionError, EmptyJobError, EndingJobError)
BUSY = (Phase.PROBING, Phase.GATHERING, Phase.FETCHING, Phase.VALIDATING)
SOON_S = 3600.0
"""Longer than any retry: what is farther away is the end of somebody's patience."""

ALL_FLAGS = NotifyFlags(1 | 2 | 8 | 16 | 32)
ASKS = [
    *("suspend", "resume", "resume", "cancel", "complete", "add", "decide", "lost"),
    *("network", "policy", "rank", "url", "listener", "leave"),
]


class Listening:
    """Everybody who is told, and what is still owed."""

    def __init__(self) -> None:
        self.listeners: list[ListenerId] = []
        self.open: dict[int, Deliver | RunNotifyCommand] = {}
        self.owed: dict[JobId, NoticeKind] = {}
        """What must be told before the job may be taken for known."""
        self._states: dict[JobId, JobState] = {}
        self._files: dict[JobId, list[int]] = {}

    def look(self, jobs: list[Job]) -> None:
        """Note which states were entered and left."""
        kinds = {JobState.TRANSFERRED: NoticeKind.JOB_TRANSFERRED, JobState.ERROR: NoticeKind.JOB_ERROR}
        for job in jobs:
            if self._states.get(job.job) is not job.state:
                self.owed.pop(job.job, None)
                if job.state in kinds and job.settings.notices.wants(kinds[job.state]):
                    self.owed[job.job] = kinds[job.state]
                self._states[job.job] = job.state

    def begin(self, call: Deliver | RunNotifyCommand) -> None:
        """Somebody is told."""
        kept = [each.notice for each in self.open.values() if not _lossy(each)]
        assert len(self.open) < MAX_IN_FLIGHT, "more than four at once"
        assert _lossy(call) or all(each.job != call.notice.job for each in kept), "two of one job at once"
        if isinstance(call, RunNotifyCommand):
            assert call.notice.kind in (NoticeKind.JOB_TRANSFERRED, NoticeKind.JOB_ERROR)
        else:
            assert call.listener in self.listeners
        self.open[call.delivery] = call

    def end(self, call: Deliver | RunNotifyCommand, ok: bool) -> None:
        """It was taken well, or not."""
        del self.open[call.delivery]
        if ok and self.owed.get(call.notice.job) is call.notice.kind:
            del self.owed[call.notice.job]


def _lossy(call: Deliver | RunNotifyCommand) -> bool:
    return call.notice.kind in (NoticeKind.JOB_MODIFICATION, NoticeKind.FILE_RANGES_TRANSFERRED)


def _aborted(command: cmd.FetchRange) -> ev.RangeFailed:
    failure = Failure(kind=FailureKind.ABORTED, message="aborted")
    return ev.RangeFailed(file=command.file, request=command.request, failure=failure)


class Renaming(World):
    """A world in which a file may be given another URL while it is fetched."""

    def content_id(self, file: FileId, version: str) -> ContentId:
        transfer = self.transfers[file]
        url = transfer.final_url or transfer.spec.url
        return content_id_by_url(url, etag_of(version), self.flags.length)


class Story:
    """One run. `shape`: how many files each job has."""

    def __init__(self, seed: int, flags: Flags, shape: tuple[int, ...]) -> None:
        self.rng = random.Random(seed)
        self.world = Renaming(self.rng, flags, self.deliver)
        self.manager = JobManager(limits=LIMITS, tuning=TUNING, rng=random.Random(seed))
        self.listening = Listening()
        self._listener = 0
        for number, files in enumerate(shape):
            job = self.manager.create(JobId(f"job{number}"), self._settings(), self.world.now)
            for _ in range(files):
                self.add(job)
        self.drain()

    def _settings(self) -> JobSettings:
        impatient = self.rng.random() < 0.1
        notices = NoticeSettings(
            flags=self.rng.choice([ALL_FLAGS, NotifyFlags(3), NotifyFlags(7)]),
            has_command=self.rng.random() < 0.3,
            minimum_retry_delay_s=20.0,
        )
        return JobSettings(
            rank=self.rng.choice(list(Rank)),
            patience=PatienceSettings(no_progress_timeout_s=0.0) if impatient else PatienceSettings(),
            notices=notices,
        )

    def add(self, job: Job) -> None:
        """One more file, whose content another one may have too."""
        file = FileId(f"{job.job}/{len(job.files)}")
        new = NewTransfer(spec=TransferSpec(file=file, url=self._url()))
        self.world.transfers[file] = self.manager.add(job, new, self.world.now).transfer

    def _url(self) -> str:
        host = self.rng.choice(["origin.example", "origin.example", "localhost:80"])
        return f"http://{host}/{self.rng.choice('xxy')}"

    def deliver(self, event: ev.FileEvent) -> None:
        self.manager.handle(event, self.world.now)
        self.drain()

    # --- what comes out --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Carry out what was commanded."""
        todo = self.world.todo
        self.listening.look(list(self.manager.jobs.values()))
        commands = self.manager.take()
        asked = {(each.file, each.request) for each in commands if isinstance(each, cmd.FetchRange)}
        never = asked & {(each.file, each.request) for each in commands if isinstance(each, cmd.AbortFetch)}
        for command in commands:
            if isinstance(command, cmd.FetchRange | cmd.AbortFetch) and (command.file, command.request) in never:
                if isinstance(command, cmd.FetchRange):  # it lost its slot before it began
                    todo.append(lambda command=command: self.world.send(_aborted(command)))  # type: ignore[misc]
            elif isinstance(command, get_args(cmd.Action)):
                self.world.perform(command)  # type: ignore[arg-type]
            else:
                self._carry_out(command)
        self.look()

    def _carry_out(self, command: JobCommand) -> None:
        todo = self.world.todo
        self.world.trace.append((self.world.now, "==", command))
        match command:
            case PublishFiles(job=job, files=files):
                todo.append(lambda: self.publish(job, files))
            case RemoveFiles(job=job):
                todo.append(lambda: self.manager.forget(self.manager.jobs[job]))
            case Deliver() | RunNotifyCommand():
                self.listening.begin(command)
                todo.append(lambda: self.told(command))

    def told(self, call: Deliver | RunNotifyCommand) -> None:
        """A callback or a command ends."""
        if call.delivery not in self.listening.open:
            return  # its listener has left meanwhile
        ok = self.world.calm or self.rng.random() < 0.7
        self.listening.end(call, ok)
        if isinstance(call, Deliver):
            self.manager.notices.answered(call.delivery, ok, self.world.now)
        else:
            code = 0 if ok else self.rng.choice([1, -9, None])
            self.manager.notices.command_ended(call.delivery, code, self.world.now)
        self.drain()

    def publish(self, job_id: JobId, files: tuple[FileId, ...]) -> None:
        job = self.manager.jobs[job_id]
        for file in files:
            assert not self.world.mixed(file), "wrong bytes became visible"
        failed = files[:1] if self.rng.random() < 0.2 and not self.world.calm else ()
        error = JobError(code="DISK_FULL", message="no space left", context="local file")
        self.manager.published(job, dict.fromkeys(failed, error), self.world.now)
        self.drain()

    # --- what must hold --------------------------------------------------------------------------------------

    def look(self) -> None:
        for job in self.manager.jobs.values():
            phases = [file.transfer.phase for file in job.files]
            busy = sum(phase in BUSY for phase in phases)
            assert busy <= 1, f"{job.state}: files go one at a time, these: {phases}"
            match job.state:
                case JobState.CONNECTING | JobState.TRANSFERRING:
                    assert busy, f"{job.state} and rests: {phases}"
                case JobState.VALIDATING:
                    assert not busy or Phase.VALIDATING in phases, f"{job.state} and fetches: {phases}"
                case _:
                    assert not busy, f"{job.state} and works: {phases}"
            if job.state is JobState.TRANSIENT_ERROR:
                assert is_blocked(job) is (job.retry_at is None), f"{job.retry_at} {job.error}"
            if job.state in (JobState.ERROR, JobState.TRANSIENT_ERROR):
                assert job.error is not None, f"{job.state} without a reason"
        self._look_at_slots(list(self.manager.jobs.values()))

    def _look_at_slots(self, jobs: list[Job]) -> None:
        queue = self.manager._running.queue
        held = [job.wish for job in jobs if queue.holds(job.job) and job.settings.rank is not Rank.FOREGROUND]
        fixed = [job.wish for job in jobs if job.engaged and job.state is JobState.VALIDATING]
        queued = [job.wish for job in jobs if job.state is JobState.QUEUED]
        assert all(job.engaged is queue.holds(job.job) for job in jobs)
        if not fixed:  # these keep what they have, whatever became of their priority
            assert len(held) <= LIMITS.background_jobs
            hosts = [each.host for each in held]
            assert all(hosts.count(host) <= LIMITS.per_host for host in hosts), hosts
            assert len({each.rank for each in held}) <= 1, held
        for wish in queued:
            assert wish.rank is not Rank.FOREGROUND, "a FOREGROUND job waits"
            level = next(rank for rank in BACKGROUND if any(each.rank is rank for each in held + queued))
            room = sum(each.host == wish.host for each in held) < LIMITS.per_host
            idle = room and len(held) < LIMITS.background_jobs and wish.rank is level
            assert not idle, f"{wish} could run"

    # --- users -----------------------------------------------------------------------------------------------

    def interfere(self) -> None:
        """Somebody does something to some job."""
        if not self.manager.jobs:
            return
        job = self.rng.choice(list(self.manager.jobs.values()))
        file = self.rng.choice(job.files).file if job.files else None
        what = self.rng.choice(ASKS)
        self.world.trace.append((self.world.now, "!!", f"{what} {job.job} {file}"))
        with suppress(*REFUSALS):
            self._ask(what, job, file)
        self.drain()

    def _ask(self, what: str, job: Job, file: FileId | None) -> None:
        manager, now = self.manager, self.world.now
        match what:
            case "suspend" | "resume" | "complete":
                getattr(manager, what)(job, now)
            case "cancel" if self.rng.random() < 0.3:
                manager.cancel(job, now)
            case "add" if len(job.files) < 4:
                self.add(job)
            case "decide" if file is not None and not job.files[int(file.partition("/")[2])].completed:
                manager.decide(file, self.rng.choice(list(ev.Decision)), now)
            case "network" | "policy":
                away = frozenset(self.rng.sample(BACKGROUND, self.rng.choice([0, 0, 1, 2])))
                manager.surround(Surroundings(connected=self.rng.random() < 0.6, forbidden=away), now)
            case "rank":
                manager.change(job, replace(job.settings, rank=self.rng.choice(list(Rank))), now)
            case "url" if file is not None and not job.files[int(file.partition("/")[2])].publishable:
                spec = replace(self.world.transfers[file].spec, url=self._url())
                manager.respecify(job, {file: spec}, now)
            case "listener" | "leave":
                self._listeners_change(what, job)
            case "lost" if file in self.world.parts and job.intent is Intent.NONE and self.rng.random() < 0.3:
                self.world.parts[file].cells.clear()
                manager.handle(ev.PartFileLost(file=file), now)

    def _listeners_change(self, what: str, job: Job) -> None:
        listening, notices, now = self.listening, self.manager.notices, self.world.now
        if what == "listener":
            self._listener += 1
            listener = ListenerId(self._listener)
            listening.listeners.append(listener)
            notices.listener_came(listener, self.rng.choice([None, None, job.job]), now)
        elif listening.listeners:
            listener = listening.listeners.pop(self.rng.randrange(len(listening.listeners)))
            for call in list(listening.open.values()):
                if isinstance(call, Deliver) and call.listener == listener:
                    listening.end(call, ok=False)
            notices.listener_gone(listener, now)

    # --- going on --------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """The next thing that happens by itself. False: nothing will for a long time."""
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
        if due is None or due > world.now + SOON_S:
            return False
        world.now = due
        return True

    def nudge(self) -> bool:
        """The user at last does what is needed. False when every job has ended."""
        living = [job for job in self.manager.jobs.values() if job.state not in FINAL]
        assert not self.listening.open, "somebody was called and never asked again"
        assert not self.listening.owed, f"never told: {self.listening.owed}"
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
        assert not living, f"it hangs: {[(job.job, job.state) for job in living]}"
        return False

    def run(self, chaos: int = 250, patience: int = 6000) -> None:
        """From chaos to calm, to the end of all jobs."""
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
        self.manager.surround(Surroundings(), self.world.now)
        self._listener += 1
        self.listening.listeners.append(ListenerId(self._listener))
        self.manager.notices.listener_came(ListenerId(self._listener), None, self.world.now)
        self.drain()
        for _ in range(patience):
            if not self.step() and not self.nudge():
                return
        raise AssertionError(f"no end: {[job.state for job in self.manager.jobs.values()]}")
