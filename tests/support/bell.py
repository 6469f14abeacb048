"""Notices of some jobs, a clock, and who listens: what is told, one call at a time, as a test answers."""

from __future__ import annotations

from agent.core.notices import (
    DEFAULT_FLAGS,
    Deliver,
    DeliveryId,
    ListenerId,
    NoteFailure,
    NoticeCommand,
    NoticeKind,
    Notices,
    NoticeSettings,
    NotifyFlags,
    PendingNotices,
    RunNotifyCommand,
    SaveNotices,
)
from agent.core.queue import JobId

ALL_FLAGS = NotifyFlags(1 | 2 | 8 | 16 | 32)
RETRY_S = 60.0

Call = Deliver | RunNotifyCommand


class Bell:
    """`Notices` with its clock. `calls` are those that are new; answer them with `ok`, `fails` or by leaving."""

    def __init__(self) -> None:
        self.notices = Notices()
        self.now = 1000.0
        self.saved: dict[JobId, PendingNotices] = {}
        self.notes: list[str] = []
        self._new: list[Call] = []
        self._listeners = 0

    # --- what happens ----------------------------------------------------------------------------------------

    def job(self, name: str = "job", flags: NotifyFlags = DEFAULT_FLAGS, *, command: bool = False) -> JobId:
        """A job, or other settings of it."""
        settings = NoticeSettings(flags=flags, has_command=command, minimum_retry_delay_s=RETRY_S)
        self.notices.configure(JobId(name), settings)
        self.tick()
        return JobId(name)

    def raised(
        self, kind: NoticeKind, job: str = "job", file: int | None = None, ranges: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self.notices.raised(JobId(job), kind, self.now, file, ranges)
        self._take()

    def files(self, *files: int, job: str = "job") -> None:
        """These files are there, one after the other."""
        for file in files:
            self.raised(NoticeKind.FILE_TRANSFERRED, job, file)

    def left(self, job: str = "job") -> None:
        """The job leaves TRANSFERRED or ERROR."""
        self.notices.state_left(JobId(job), self.now)
        self._take()

    def comes(self, job: str | None = None) -> ListenerId:
        self._listeners += 1
        self.notices.listener_came(ListenerId(self._listeners), None if job is None else JobId(job), self.now)
        self._take()
        return ListenerId(self._listeners)

    def leaves(self, listener: ListenerId) -> None:
        self.notices.listener_gone(listener, self.now)
        self._take()

    def ok(self, call: Call) -> None:
        self._ended(call, good=True)

    def fails(self, call: Call) -> None:
        self._ended(call, good=False)

    def _ended(self, call: Call, *, good: bool) -> None:
        if isinstance(call, Deliver):
            assert self.notices.answered(call.delivery, good, self.now)
        else:
            self.notices.command_ended(call.delivery, 0 if good else 1, self.now)
        self._take()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def wait_until_due(self) -> float:
        """To the next deadline; how long that was."""
        due = self.notices.deadline()
        assert due is not None
        waited = max(0.0, due - self.now)
        self.wait(waited)
        return waited

    def tick(self) -> None:
        self.notices.tick(self.now)
        self._take()

    def restart(self) -> None:
        """Another process goes on with what was recorded."""
        saved, settings = self.saved, {job: queue.settings for job, queue in self.notices._jobs.items()}
        self.notices, self._new = Notices(first_delivery=10_000), []
        for job, each in settings.items():
            self.notices.configure(job, each)
            self.notices.restore(job, saved.get(job, PendingNotices()), self.now)
        self.tick()

    # --- what comes out --------------------------------------------------------------------------------------

    def _take(self) -> None:
        for command in self.notices.take():
            self._keep(command)

    def _keep(self, command: NoticeCommand) -> None:
        match command:
            case SaveNotices(job=job):
                self.saved[job] = self.notices.pending(job)
            case NoteFailure(text=text):
                self.notes.append(text)
            case _:
                self._new.append(command)

    def calls(self) -> list[Call]:
        """Those that are new."""
        new, self._new = self._new, []
        return new

    def call(self) -> Call:
        """The only new one."""
        (only,) = self.calls()
        return only

    def quiet(self) -> bool:
        """Nobody was called."""
        return not self._new

    def told(self) -> list[tuple[NoticeKind, int | None]]:
        """Everything is taken well until nothing is left: what it was, in order."""
        found = []
        while calls := self.calls():
            for call in calls:
                found.append((call.notice.kind, call.notice.file))
                self.ok(call)
        return found

    def forged(self) -> bool:
        """Whether an answer to a delivery that never was is taken for one."""
        return self.notices.answered(DeliveryId(999_999), True, self.now)
