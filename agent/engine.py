"""The asyncio interpreter: feeds events to the core and carries out what it commands.

Only `_settle` touches the manager's output, and everything runs on one event loop, so there is no lock around the
core. Tasks do one piece of I/O and report one event. Never knows: which chunk is best, what a state may become,
JSON.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import secrets
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.announcer import Announcer
from agent.context import Context, Parts
from agent.core import events as ev
from agent.core.account import Account, account_of
from agent.core.jobs import Intent, Job
from agent.core.manager import JobManager, PublishFiles, RemoveFiles, SaveJob
from agent.core.notices import Deliver, DeliveryId, NoteFailure, RunNotifyCommand, SaveNotices
from agent.core.obstacles import Surroundings
from agent.core.queue import JobId, QueueLimits
from agent.core.sources import FileId, peer_source
from agent.core.tuning import Tuning
from agent.errors import AgentError
from agent.filework import FileWork
from agent.finishing import Finisher
from agent.journal import RequestKey
from agent.keeper import LOG_LINES, Keeper
from agent.lanes import Lanes
from agent.schema import DeliveryDocument, JobDocument
from agent.survey import survey
from agent.totals import Totals
from peer.core.voucher import PeerId
from peer.database import DatabaseError

log = logging.getLogger(__name__)

FINAL_KEPT_S = 600.0
"""How long a job's document can still be read after its end."""
FINAL_KEPT = 1000
"""… and of how many jobs at most."""
RESTORED_AT_ONCE = 50
"""Jobs, before others have their turn."""
STOP_S = 5.0
"""Longest wait at the end for saves that are under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What can still be read of a job after its end."""

    document: JobDocument
    accounts: tuple[Account, ...]
    """Of its files, in order."""


class Engine:
    """All jobs of one agent, alive. `start` once, `stop` once, in the task that owns `group`."""

    def __init__(
        self, parts: Parts, group: asyncio.TaskGroup, totals: Totals, tuning: Tuning | None = None
    ) -> None:
        self.parts = parts
        self._group = group
        self._loop = asyncio.get_running_loop()
        config = parts.config
        limits = QueueLimits(
            background_jobs=config.background_jobs,
            per_host=config.connections_per_host,
            slice_s=config.time_slice_s,
        )
        seed = random.Random(secrets.randbits(64))
        own = None if parts.network is None else parts.network.identity.peer_id
        self.manager = JobManager(limits=limits, tuning=tuning or Tuning(), rng=seed, own=own)
        self._context = Context(
            parts=parts,
            post=self.post,
            spawn=self._spawn,
            log=self._log,
            save_file=self._save_file,
            work_of=self._work_of,
        )
        self.keeper = Keeper(self._context, self.manager)
        self.announcer = Announcer(parts.journal, str(config.home))
        self._finisher = Finisher(self._context, self.keeper, totals)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes = Lanes(self._spawn, self._guarded)
        self._waiters: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._unsaved: dict[JobId, str] = {}
        self._requests: dict[JobId, RequestKey] = {}
        self.ended: dict[str, Ended] = {}
        self.ready = asyncio.Event()
        """Every job of the journal is back."""
        self.connected = True
        self._stopping = False

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the journal and go on with everything that was not finished.

        Nothing of what is read becomes garbage: without the collector, which would look at all of it again and
        again, ten thousand jobs are back in less than half the time.
        """
        gc.disable()
        try:
            await self._restore()
        finally:
            gc.enable()
            gc.freeze()
        self.ready.set()

    async def _restore(self) -> None:
        await self.keeper.load_urls()
        logs = await self.parts.journal.recent_events(LOG_LINES)
        all_stored = await self.parts.journal.load_all()
        rows = [row for stored in all_stored for row in stored.files]
        seen = await self.parts.workers.run(survey, rows)
        for number, stored in enumerate(all_stored):
            try:
                self.keeper.restore(stored, seen, logs.get(stored.job.id, ()), self._loop.time())
            except (msgspec.MsgspecError, ValueError, KeyError, AgentError) as error:
                text = f"job {stored.job.id} in the journal cannot be read and is left alone: {error}"
                self.parts.problems.append(text)
            if number % RESTORED_AT_ONCE == 0:
                await asyncio.sleep(0)
        self.manager.step(self._loop.time())
        self.settle()

    async def stop(self) -> None:
        """Stop every transfer, make safe what is held, end all tasks."""
        now = self._loop.time()
        for job in self.manager.jobs.values():
            for file in job.files:
                self.manager.handle(ev.Paused(file=file.file), now)
        self.settle()
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
            self.settle()
            if isinstance(event, ev.RangeArrived | ev.RangeReceived):
                self._tell_progress(event.file)

    def surround(self, surroundings: Surroundings) -> None:
        """The network came or went, or other limits hold at this hour."""
        if not self._stopping:
            self.connected = surroundings.connected
            self.manager.surround(surroundings, self._loop.time())
            self.settle()

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

    async def answered(self, job: Job, request: RequestKey | None = None) -> None:
        """Returns when everything the core has asked for this job is on the disk (reliability D2).

        Raises AgentError when it could not be recorded: then it holds only as long as this agent lives.
        """
        if request is not None:
            self._requests[job.job] = request
        self.settle()
        await self._lanes.idle(job.job, lambda: job.intent is Intent.COMPLETING)
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

    # --- listeners -------------------------------------------------------------------------------------------

    async def deliveries(self, job_id: JobId | None) -> AsyncIterator[DeliveryDocument]:
        """Everything that one listener is to be told, until it leaves."""
        listener = self.announcer.new_listener()
        self.manager.notices.listener_came(listener, job_id, self._loop.time())
        self.settle()
        try:
            async for delivery in self.announcer.deliveries_of(listener):
                yield delivery
        finally:
            self.announcer.drop_listener(listener)
            if not self._stopping:
                self.manager.notices.listener_gone(listener, self._loop.time())
                self.settle()

    def answer(self, delivery: DeliveryId, ok: bool) -> bool:
        """A callback ended. False: that delivery is unknown, or over."""
        known = self.manager.notices.answered(delivery, ok, self._loop.time())
        self.settle()
        return known

    # --- inside ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry out what the core has commanded, arm the timer, wake who waits."""
        for command in self.manager.take():
            match command:
                case SaveJob(job=job_id) | SaveNotices(job=job_id):
                    self._lanes.save(job_id, self._save_job)
                case PublishFiles(job=job_id, files=files):
                    self._lanes.add(job_id, self._publish(job_id, files))
                case RemoveFiles(job=job_id):
                    self._lanes.add(job_id, self._remove(job_id))
                case Deliver(notice=notice):
                    self._lanes.add(notice.job, self._deliver(command))
                case RunNotifyCommand(notice=notice):
                    self._lanes.add(notice.job, self._begin_command(command))
                case NoteFailure(job=job_id, text=text):
                    self.keeper.log_job(job_id, text)
                case _:
                    work = self.keeper.works.get(command.file)
                    if work is not None:
                        work.perform(command)
        self._arm()
        self._wake()

    def _arm(self) -> None:
        deadline = self.manager.deadline()
        if deadline == self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._armed = None
        if not self._stopping:
            self.manager.tick(self._loop.time())
            self.settle()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _tell_progress(self, file: FileId) -> None:
        job = self.manager.owner(file)
        if job is not None:
            self.announcer.progressed(job, lambda: self.keeper.document(job, self._loop.time(), brief=True))

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

    # --- one piece of work on a job each, in the job's lane ---------------------------------------------------

    async def _save_job(self, job_id: JobId) -> None:
        job = self.manager.jobs.get(job_id)
        if job is None:
            return
        request = self._requests.pop(job_id, None)
        try:
            items = await self.keeper.save(job, self._loop.time(), request)
        except DatabaseError as error:
            self._unsaved[job_id] = str(error)
            log.error("job %s could not be recorded: %s", job_id, error)
        else:
            self._unsaved.pop(job_id, None)
            self.announcer.recorded(items)
        self._wake()

    async def _publish(self, job_id: JobId, files: tuple[FileId, ...]) -> None:
        job = self.manager.jobs[job_id]
        failures = await self._finisher.publish(files)
        self.manager.published(job, failures, self._loop.time())
        self.settle()

    async def _remove(self, job_id: JobId) -> None:
        job = self.manager.jobs[job_id]
        self._remember(job)  # its parts go one by one from here
        self.announcer.recorded(await self._finisher.remove(job))
        self.manager.forget(job)
        self.announcer.gone(job_id)
        self._lanes.forget(job_id)
        self._unsaved.pop(job_id, None)
        self._wake()

    def _remember(self, job: Job) -> None:
        accounts = tuple(account_of(file.transfer) for file in job.files)
        self.ended[job.job] = Ended(document=self.keeper.document(job, self._loop.time()), accounts=accounts)
        self._loop.call_later(FINAL_KEPT_S, self.ended.pop, job.job, None)
        if len(self.ended) > FINAL_KEPT:
            del self.ended[next(iter(self.ended))]

    async def _deliver(self, command: Deliver) -> None:
        job = self.manager.jobs.get(command.notice.job)
        document = None if job is None or job.job in self.ended else self.keeper.document(job, self._loop.time())
        if document is None or not self.announcer.deliver(command, document):
            self.answer(command.delivery, False)

    async def _begin_command(self, command: RunNotifyCommand) -> None:
        """In the lane only as far as the document: the command may take a minute."""
        job = self.manager.jobs.get(command.notice.job)
        if job is not None and job.job not in self.ended:
            document = self.keeper.document(job, self._loop.time())
            self._spawn(self._run_command(command, document), f"notify command of {job.job}")
        else:
            self.manager.notices.command_ended(command.delivery, None, self._loop.time())
            self.settle()

    async def _run_command(self, command: RunNotifyCommand, document: JobDocument) -> None:
        exit_code: int | None = None
        try:
            result = await self.announcer.run_command(command, document)
            exit_code = result.exit_code
            if exit_code != 0:
                why = result.problem or f"it exited with {exit_code}: {result.output[-200:].strip()}"
                self.keeper.log_job(command.notice.job, f"the notify command failed: {why}")
        finally:
            if not self._stopping:
                self.manager.notices.command_ended(command.delivery, exit_code, self._loop.time())
                self.settle()

    async def _save_file(self, file: FileId) -> None:
        await self.keeper.save_file(file)

    def _log(self, file: FileId, text: str) -> None:
        self.keeper.log(file, text)

    def _work_of(self, file: FileId) -> FileWork | None:
        return self.keeper.works.get(file)
