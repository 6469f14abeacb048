"""Who is told what, when, and how often: the notices of all jobs of one agent. Pure.

What must be told (file-transferred, job-transferred, job-error) waits until somebody takes it well: a callback that
fails is called again, a notify command takes over from it, a listener may come late, the agent may restart between.
The lossy kinds (job-modification, file-ranges-transferred) go only to a listener that is there. At most four calls
and commands are under way at once, shared fairly between the jobs; file-transferred come one at a time, in order,
and before job-transferred and job-error of the same job.

Usage: call what happened, then `take` the commands; call `tick` when the time of `deadline` has come. All times are
seconds of one clock that never jumps.

Never knows: why a job entered a state, how a callback is reached, what the command line is, SQLite.
Sources: bits-reference 2, traps 7-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from agent.core.notice_lines import Lane, Lines
from agent.core.notice_listeners import Listeners
from agent.core.notice_queue import Changes, JobQueue, Kept, NewRanges, callback_delay_s
from agent.core.notice_values import (
    ABOUT_THE_JOB,
    ACK_TIMEOUT_S,
    COMMAND_TIMEOUT_S,
    DEFAULT_FLAGS,
    FIRST_RETRY_S,
    FORGOTTEN_S,
    MAX_IN_FLIGHT,
    NEVER,
    Deliver,
    DeliveryId,
    ListenerId,
    NoteFailure,
    Notice,
    NoticeCommand,
    NoticeKind,
    NoticeSettings,
    NotifyFlags,
    PendingNotice,
    PendingNotices,
    RunNotifyCommand,
    SaveNotices,
)
from agent.core.queue import JobId

__all__ = [
    "ACK_TIMEOUT_S",
    "COMMAND_TIMEOUT_S",
    "DEFAULT_FLAGS",
    "FIRST_RETRY_S",
    "FORGOTTEN_S",
    "MAX_IN_FLIGHT",
    "Deliver",
    "DeliveryId",
    "ListenerId",
    "NoteFailure",
    "Notice",
    "NoticeCommand",
    "NoticeKind",
    "NoticeSettings",
    "Notices",
    "NotifyFlags",
    "PendingNotice",
    "PendingNotices",
    "RunNotifyCommand",
    "SaveNotices",
]


class _Failure(Enum):
    """How a callback failed, as a log line begins."""

    FAILED = "the callback for {} failed"
    GONE = "the listener left before it had answered {}"
    SILENT = "the callback for {} did not end within {:g} s"


@dataclass(slots=True)
class _Flight:
    """One call or command under way."""

    queue: JobQueue
    lane: Lane
    notice: Notice
    kept: Kept | None
    """What is told again if this fails; None: nothing (lossy, or nobody wants it any more)."""
    listener: ListenerId | None
    """None: the notify command."""
    until: float = NEVER
    """When silence becomes a failure."""


class Notices:
    """The deliveries of all jobs of one agent.

    `first_delivery` begins the count of deliveries. An answer may come after a restart of the agent, and must not
    count for another delivery: let each process begin somewhere else.
    """

    def __init__(self, *, first_delivery: int = 1) -> None:
        self._jobs: dict[JobId, JobQueue] = {}
        self._listeners = Listeners()
        self._lines = Lines(self._listeners)
        self._flights: dict[DeliveryId, _Flight] = {}
        self._next_delivery = first_delivery
        self._out: list[NoticeCommand] = []
        self._unsaved: set[JobId] = set()

    # --- jobs ------------------------------------------------------------------------------------------------

    def configure(self, job: JobId, settings: NoticeSettings) -> None:
        """A job is there (before anything else is said of it), or its settings changed. Pending notices that the
        flags no longer want are dropped. What may go now goes with the next `tick`: `deadline` says at once."""
        queue = self._jobs.get(job)
        if queue is None:
            self._jobs[job] = JobQueue(settings)
            return
        if queue.settings == settings:
            return
        queue.settings = settings
        dropped = queue.drop_unwanted()
        flight = self._in_hand(queue)
        if flight is not None and flight.kept is not None and not settings.wants(flight.kept.kind):
            flight.kept = None
            dropped = True
        if dropped:
            self._save(job)
        for lane in Lane:
            self._lines.line_up(job, queue, lane)

    def raised(
        self,
        job: JobId,
        kind: NoticeKind,
        now: float,
        file: int | None = None,
        ranges: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """Something happened that the job may want to tell. Nothing is told of a job that is not configured.

        A file-transferred needs `file`; a file-ranges-transferred `ranges`, half-open.
        """
        self._advance(now)
        queue = self._jobs.get(job)
        if queue is not None and queue.settings.wants(kind):
            match kind:
                case NoticeKind.JOB_MODIFICATION:
                    self._change_raised(job, queue)
                case NoticeKind.FILE_RANGES_TRANSFERRED:
                    self._ranges_raised(job, queue, file, ranges)
                case NoticeKind.FILE_TRANSFERRED | NoticeKind.JOB_TRANSFERRED | NoticeKind.JOB_ERROR:
                    queue.last_serial += 1
                    queue.add(Kept(kind=kind, serial=queue.last_serial, file=file))
                    self._save(job)
                    self._lines.line_up(job, queue, Lane.KEPT)
                case _:
                    assert_never(kind)
        self._serve()

    def state_left(self, job: JobId, now: float) -> None:
        """The job left TRANSFERRED or ERROR: what was to be said of that is stale. One in a listener's hand ends
        there."""
        self._advance(now)
        queue = self._jobs.get(job)
        if queue is None:
            return
        flight = self._in_hand(queue)
        stale = queue.final is not None
        queue.final = None
        if flight is not None and flight.kept is not None and flight.kept.kind in ABOUT_THE_JOB:
            flight.kept = None
            stale = True
        if stale:
            self._save(job)
        self._lines.line_up(job, queue, Lane.KEPT)
        self._serve()

    def forget(self, job: JobId) -> None:
        """The job ended: nothing more is told of it. What is in hand keeps its slot until it is answered, or for
        FORGOTTEN_S."""
        queue = self._jobs.pop(job, None)
        if queue is None:
            return
        self._lines.forget(job)
        self._unsaved.discard(job)
        for flight in self._flights.values():
            if flight.queue is queue:
                flight.kept = None
                flight.until = min(flight.until, self._lines.now + FORGOTTEN_S)

    def pending(self, job: JobId) -> PendingNotices:
        """What of this job must survive a restart. Nothing for a job that is not there."""
        queue = self._jobs.get(job)
        if queue is None:
            return PendingNotices()
        flight = self._in_hand(queue)
        return queue.pending(None if flight is None else flight.kept)

    def restore(self, job: JobId, pending: PendingNotices, now: float) -> None:
        """Go on with what an earlier process left. After `configure`: KeyError for a job that is not there.

        Callbacks are called again at once (when somebody listens); a command that had failed waits its delay.
        """
        self._advance(now)
        queue = self._jobs[job]
        queue.last_serial = max(queue.last_serial, pending.last_serial)
        for each in pending.notices:
            if queue.settings.wants(each.kind):
                kept = Kept(kind=each.kind, serial=each.serial, file=each.file, failures=int(each.tried))
                kept.command_failed_at = now if each.command_failed else None
                queue.add(kept)
            else:
                self._save(job)
        self._lines.line_up(job, queue, Lane.KEPT)
        self._serve()

    # --- listeners -------------------------------------------------------------------------------------------

    def listener_came(self, listener: ListenerId, job: JobId | None, now: float) -> None:
        """Somebody listens to this job (None: to all jobs), and gets what waits. For one job the last one who came
        wins; one for the job beats one for all. One that comes again is taken as gone first."""
        self._advance(now)
        self._listener_left(listener)
        self._listeners.came(listener, job, now)
        if job is None:
            for each in self._lines.shaken():
                self._lines.line_up(each, self._jobs[each], Lane.KEPT)
        elif job in self._jobs:
            self._lines.line_up(job, self._jobs[job], Lane.KEPT)
        self._serve()

    def listener_gone(self, listener: ListenerId, now: float) -> None:
        """It listens no more; the calls in its hands have failed."""
        self._advance(now)
        self._listener_left(listener)
        self._serve()

    def answered(self, delivery: DeliveryId, ok: bool, now: float) -> bool:
        """A callback ended. False: no such delivery, or it is over (its listener left, or it took too long)."""
        self._advance(now)
        flight = self._flights.get(delivery)
        known = flight is not None and flight.listener is not None
        if known:
            self._callback_ended(delivery, None if ok else _Failure.FAILED)
        self._serve()
        return known

    def command_ended(self, delivery: DeliveryId, exit_code: int | None, now: float) -> None:
        """A notify command ended: 0 is success, negative is minus the signal. None: it could not be started, or
        took too long."""
        self._advance(now)
        flight = self._flights.get(delivery)
        if flight is not None and flight.listener is None:
            self._command_ended(delivery, exit_code)
        self._serve()

    # --- time and commands -----------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is wanted next; it may be in the past. None: not before something happens."""
        if self._next_place() is not None:
            return self._lines.now
        times = [flight.until for flight in self._flights.values()]
        waiting = self._lines.next_time()
        return min([*times, waiting] if waiting is not None else times, default=None)

    def tick(self, now: float) -> None:
        """The time has come."""
        self._advance(now)
        for delivery, flight in list(self._flights.items()):
            if flight.until > now:
                continue
            if flight.listener is None:
                self._command_ended(delivery, None)
            else:
                self._callback_ended(delivery, _Failure.SILENT)
        self._serve()

    def take(self) -> list[NoticeCommand]:
        """What is to be done since the last call, in order. One `SaveNotices` at most for each job."""
        out = [each for each in self._out if not isinstance(each, SaveNotices) or each.job in self._unsaved]
        self._out = []
        self._unsaved.clear()
        return out

    # --- inside: waiting -------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Who has waited long enough gets into line."""
        for job, lane in self._lines.due(now):
            self._lines.line_up(job, self._jobs[job], lane)

    def _change_raised(self, job: JobId, queue: JobQueue) -> None:
        if self._listeners.of(job) is not None:
            queue.changes = queue.changes or Changes()
            queue.changes.waiting = True
            self._lines.line_up(job, queue, Lane.CHANGES)

    def _ranges_raised(
        self, job: JobId, queue: JobQueue, file: int | None, ranges: tuple[tuple[int, int], ...]
    ) -> None:
        if self._listeners.of(job) is not None and ranges:
            queue.ranges = queue.ranges or NewRanges()
            queue.ranges.add(file, ranges)
            self._lines.line_up(job, queue, Lane.RANGES)

    # --- inside: going out -----------------------------------------------------------------------------------

    def _next_place(self) -> tuple[JobId, Lane] | None:
        """Whose turn it is, if there is a slot."""
        free = MAX_IN_FLIGHT - len(self._flights)
        return self._lines.first(spare=free > 1) if free > 0 else None

    def _serve(self) -> None:
        """Fill the slots."""
        while (place := self._next_place()) is not None:
            job, lane = place
            queue = self._jobs[job]
            listener = self._listeners.of(job)
            match lane:
                case Lane.KEPT:
                    self._send_kept(job, queue, listener)
                case Lane.RANGES:
                    self._send_ranges(job, queue, listener)
                case Lane.CHANGES:
                    self._send_change(job, queue, listener)
                case _:
                    assert_never(lane)
            self._lines.line_up(job, queue, lane)

    def _send_kept(self, job: JobId, queue: JobQueue, listener: ListenerId | None) -> None:
        heard = listener is not None
        kept = queue.take(heard=heard)
        queue.in_hand = True
        notice = Notice(kind=kept.kind, job=job, file=kept.file, serial=kept.serial)
        to = None if queue.by_command(kept, heard=heard) else listener
        self._send(_Flight(queue, Lane.KEPT, notice, kept, to))

    def _send_ranges(self, job: JobId, queue: JobQueue, listener: ListenerId | None) -> None:
        assert queue.ranges is not None
        if listener is None:
            queue.ranges.files.clear()
            return
        file, ranges = queue.ranges.take()
        kind, serial = NoticeKind.FILE_RANGES_TRANSFERRED, queue.ranges.sent(self._lines.now)
        notice = Notice(kind=kind, job=job, file=file, ranges=ranges, serial=serial)
        self._send(_Flight(queue, Lane.RANGES, notice, None, listener))

    def _send_change(self, job: JobId, queue: JobQueue, listener: ListenerId | None) -> None:
        assert queue.changes is not None
        queue.changes.waiting = False
        if listener is not None:
            serial = queue.changes.sent(self._lines.now)
            notice = Notice(kind=NoticeKind.JOB_MODIFICATION, job=job, serial=serial)
            self._send(_Flight(queue, Lane.CHANGES, notice, None, listener))

    def _send(self, flight: _Flight) -> None:
        delivery = DeliveryId(self._next_delivery)
        self._next_delivery += 1
        self._flights[delivery] = flight
        if flight.listener is None:
            flight.until = self._lines.now + COMMAND_TIMEOUT_S
            self._out.append(RunNotifyCommand(delivery=delivery, notice=flight.notice))
        else:
            flight.until = self._lines.now + ACK_TIMEOUT_S
            self._out.append(Deliver(delivery=delivery, listener=flight.listener, notice=flight.notice))

    def _in_hand(self, queue: JobQueue) -> _Flight | None:
        """The kept notice of this job that is under way."""
        flights = self._flights.values()
        return next((each for each in flights if each.queue is queue and each.lane is Lane.KEPT), None)

    # --- inside: coming back ---------------------------------------------------------------------------------

    def _listener_left(self, listener: ListenerId) -> None:
        job = self._listeners.gone(listener)
        for delivery in [each for each, flight in self._flights.items() if flight.listener == listener]:
            self._callback_ended(delivery, _Failure.GONE)
        if job is not None and job in self._jobs:
            self._lines.line_up(job, self._jobs[job], Lane.KEPT)

    def _callback_ended(self, delivery: DeliveryId, failure: _Failure | None) -> None:
        """None: it succeeded."""
        flight = self._flights.pop(delivery)
        queue = flight.queue
        match flight.lane:
            case Lane.KEPT:
                queue.in_hand = False
                self._kept_ended(flight, failure)
            case Lane.RANGES:
                self._ranges_ended(flight, failure)
            case Lane.CHANGES:
                assert queue.changes is not None
                queue.changes.in_hand = False
            case _:
                assert_never(flight.lane)
        self._come_back(flight)

    def _kept_ended(self, flight: _Flight, failure: _Failure | None) -> None:
        kept, queue = flight.kept, flight.queue
        if kept is None:
            return
        if failure is not None and not queue.superseded(kept):
            kept.failures += 1
            kept.failed_at = self._lines.now
            queue.put_back(kept)
            takes_over = queue.by_command(kept, heard=True)
            self._note(flight.notice, failure, None if takes_over else kept.failures)
        if failure is None or kept.failures == 1:
            self._save(flight.notice.job)

    def _ranges_ended(self, flight: _Flight, failure: _Failure | None) -> None:
        queue, notice = flight.queue, flight.notice
        news = queue.ranges
        assert news is not None
        news.in_hand = False
        if failure is None:
            news.failures = 0
        elif queue.settings.wants(notice.kind):
            news.failures += 1
            news.failed_at = self._lines.now
            news.add(notice.file, notice.ranges)
            if self._jobs.get(notice.job) is queue:
                self._note(notice, failure, news.failures)

    def _command_ended(self, delivery: DeliveryId, exit_code: int | None) -> None:
        flight = self._flights.pop(delivery)
        kept, queue = flight.kept, flight.queue
        queue.in_hand = False
        if kept is not None:
            if exit_code != 0 and not queue.superseded(kept):
                kept.command_failed_at = self._lines.now
                queue.put_back(kept)
                delay_s = queue.settings.minimum_retry_delay_s
                text = f"the notify command for {kept.kind} {_how(exit_code)}; it runs again in {delay_s:g} s"
                self._out.append(NoteFailure(job=flight.notice.job, text=text))
            self._save(flight.notice.job)
        self._come_back(flight)

    def _come_back(self, flight: _Flight) -> None:
        """The job may go on, if it is still there."""
        job = flight.notice.job
        if self._jobs.get(job) is flight.queue:
            self._lines.line_up(job, flight.queue, flight.lane)

    def _note(self, notice: Notice, failure: _Failure, failures: int | None) -> None:
        """None: the command takes over."""
        what = notice.kind if notice.file is None else f"{notice.kind} of file {notice.file}"
        if failures is None:
            then = "the notify command takes over"
        elif self._listeners.of(notice.job) is None:
            then = "it waits for a listener"
        else:
            delay_s = callback_delay_s(failures, self._jobs[notice.job].settings)
            then = f"it is called again in {delay_s:g} s"
        text = f"{failure.value.format(what, ACK_TIMEOUT_S)}; {then}"
        self._out.append(NoteFailure(job=notice.job, text=text))

    def _save(self, job: JobId) -> None:
        if job not in self._unsaved:
            self._unsaved.add(job)
            self._out.append(SaveNotices(job=job))


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "could not be run, or took too long"
    return f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
