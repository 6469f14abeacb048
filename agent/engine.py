"""The asyncio interpreter: feeds events to the core and carries out what it commands.

Only `_settle` touches the manager's output, and everything runs on one event loop, so there is no lock around the
core. Tasks do one piece of I/O and report one event. Never knows: which chunk is best, what a state may become,
JSON.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Coroutine
from typing import Any

import msgspec

from agent.context import Context, Parts
from agent.core import events as ev
from agent.core.jobs import Intent, Job
from agent.core.manager import (
    JobManager,
    PublishFiles,
    RemoveFiles,
    SaveJob,
)
from agent.core.queue import JobId
from agent.core.sources import FileId, peer_source
from agent.core.tuning import Tuning
from agent.errors import AgentError
from agent.filework import FileWork
from agent.keeper import Keeper
from agent.schema import (
    JobDocument,
)
from peer.core.voucher import PeerId
from peer.database import DatabaseError

log = logging.getLogger(__name__)

FINAL_KEPT_S = 600.0
"""How long a job's document can still be read after its end."""
CALM_S = 0.15
"""Progress alone wakes a long poll at most this often."""
STOP_S = 5.0
"""Longest wait at the end for saves that are under way."""


class Engine:
    """All jobs of one agent, alive. `start` once, `stop` once, in the task that owns `group`."""

    def __init__(self, parts: Parts, group: asyncio.TaskGroup, tuning: Tuning | None = None) -> None:
        self.parts = parts
        self._group = group
        self._loop = asyncio.get_running_loop()
        seed = random.Random(secrets.randbits(64))
        self.manager = JobManager(
            background_slots=parts.config.background_jobs, tuning=tuning or Tuning(), rng=seed
        )
        self._context = Context(
            parts=parts,
            post=self.post,
            spawn=self._spawn,
            log=self._log,
            save_file=self._save_file,
            work_of=self._work_of,
        )
        self.keeper = Keeper(self._context, self.manager)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes: dict[JobId, asyncio.Lock] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._unsaved: dict[JobId, str] = {}
        self.ended: dict[str, JobDocument] = {}
        self._stopping = False

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the journal and go on with everything that was not finished."""
        for stored in await self.parts.journal.load_all():
            try:
                await self.keeper.restore(stored, self._loop.time())
            except (msgspec.MsgspecError, ValueError, KeyError) as error:
                text = f"job {stored.job.id} in the journal cannot be read and is left alone: {error}"
                self.parts.problems.append(text)
            self._settle()

    async def stop(self) -> None:
        """Stop every transfer, make safe what is held, end all tasks."""
        now = self._loop.time()
        for job in self.manager.jobs.values():
            for file in job.files:
                self.manager.handle(ev.Paused(file=file.file), now)
        self._settle()
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        saving = {task for task in self._tasks if task.get_name().startswith(("save", "job", "publish"))}
        if saving:
            await asyncio.wait(saving, timeout=STOP_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        for work in self.keeper.works.values():
            await work.close()

    def post(self, event: ev.FileEvent) -> None:
        """One event for the core. On the event loop only."""
        if not self._stopping:
            self.manager.handle(event, self._loop.time())
            self._settle()

    def peer_up(self) -> None:
        """Somebody new is there: everything that looks for sources may ask."""
        for work in self.keeper.works.values():
            if work.watch is not None:
                work.watch.peer_up()

    def peer_down(self, peer: PeerId) -> None:
        """A peer left, or was banned."""
        for work in list(self.keeper.works.values()):
            if work.watch is not None:
                work.watch.peer_down(peer)
            self.post(ev.SourceLost(file=work.file, source=peer_source(peer)))

    async def answered(self, job: Job) -> None:
        """Returns when everything the core has asked for this job is on the disk (reliability D2).

        Raises AgentError when it could not be recorded: then it holds only as long as this agent lives.
        """
        self._settle()
        await asyncio.sleep(0)
        lane = self._lanes.get(job.job)
        while lane is not None and (lane.locked() or job.intent is Intent.COMPLETING):
            async with lane:
                pass
            await asyncio.sleep(0)
        if job.job in self._unsaved:
            raise AgentError(f"not recorded: {self._unsaved[job.job]}", code="DISK_FULL", context="local file")

    async def next_change(self, deadline: float) -> bool:
        """Wait for any change of any job; False when the loop's clock reaches `deadline` before."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    # --- inside ----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Carry out what the core has commanded, arm the timer, wake who waits."""
        for command in self.manager.take():
            match command:
                case SaveJob(job=job_id):
                    self._in_lane(job_id, self._save_job(job_id))
                case PublishFiles(job=job_id, files=files):
                    self._in_lane(job_id, self._publish(job_id, files))
                case RemoveFiles(job=job_id):
                    self._in_lane(job_id, self._remove(job_id))
                case _:
                    work = self.keeper.works.get(command.file)
                    if work is not None:
                        work.perform(command)
        self._arm()
        self._wake()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.manager.deadline()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        if not self._stopping:
            self.manager.tick(self._loop.time())
            self._settle()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = self._group.create_task(self._guarded(work, what), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """A task's top: a bug in one piece of work must not take the agent down."""
        try:
            await work
        except Exception:
            log.exception("%s failed unexpectedly", what)

    def _in_lane(self, job_id: JobId, work: Coroutine[Any, Any, None]) -> None:
        """One job's records and files: one after another, in the order the core asked for."""
        lane = self._lanes.setdefault(job_id, asyncio.Lock())

        async def in_turn() -> None:
            async with lane:
                await work

        self._spawn(in_turn(), f"job {job_id}")

    async def _save_job(self, job_id: JobId) -> None:
        job = self.manager.jobs.get(job_id)
        if job is None:
            return
        try:
            await self.keeper.save(job)
        except DatabaseError as error:
            self._unsaved[job_id] = str(error)
            log.error("job %s could not be recorded: %s", job_id, error)
        else:
            self._unsaved.pop(job_id, None)

    async def _publish(self, job_id: JobId, files: tuple[FileId, ...]) -> None:
        job = self.manager.jobs[job_id]
        failures = await self.keeper.publish(job, files)
        self.manager.published(job, failures, self._loop.time())
        self._settle()

    async def _remove(self, job_id: JobId) -> None:
        job = self.manager.jobs[job_id]
        self.ended[job_id] = self.keeper.document(job, self._loop.time())  # its parts go one by one from here
        await self.keeper.remove(job)
        self.manager.forget(job)
        self._loop.call_later(FINAL_KEPT_S, self.ended.pop, job_id, None)
        self._lanes.pop(job_id, None)
        self._unsaved.pop(job_id, None)
        self._wake()

    async def _save_file(self, file: FileId) -> None:
        await self.keeper.save_file(file)

    def _log(self, file: FileId, text: str) -> None:
        self.keeper.log(file, text)

    def _work_of(self, file: FileId) -> FileWork | None:
        return self.keeper.works.get(file)
