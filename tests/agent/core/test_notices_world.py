"""Any sequence of what happens to some jobs and listeners: no kept notice is lost, told out of order, or told twice
after it was taken well; at most four are under way, and one of a job; also over restarts."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.notices import ACK_TIMEOUT_S, MAX_IN_FLIGHT, Deliver, ListenerId, NoticeKind, NotifyFlags
from tests.support.bell import Bell, Call

JOBS = ("one", "two", "three")
KEPT = (NoticeKind.FILE_TRANSFERRED, NoticeKind.JOB_TRANSFERRED, NoticeKind.JOB_ERROR)
STEPS = [
    *("file", "file", "end", "left", "change", "ranges", "comes", "comes", "leaves"),
    *("answer", "answer", "answer", "answer", "wait", "long wait", "restart"),
]


class Room:
    """A bell, what is owed by each job in order, and who was called."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bell = Bell()
        self.commands = {job: self.rng.random() < 0.5 for job in JOBS}
        for job in JOBS:
            self.bell.job(job, NotifyFlags(1 | 2 | 8 | 16 | 32), command=self.commands[job])
        self.listeners: list[ListenerId] = []
        self.open: list[Call] = []
        self.files: dict[str, list[int]] = {job: [] for job in JOBS}
        """Owed, in order."""
        self.final: dict[str, NoticeKind] = {}
        self.failed: dict[str, int] = {}
        """The serial of a final notice of which a callback failed."""

    def step(self, what: str) -> None:
        """One thing happens."""
        rng, bell, job = self.rng, self.bell, self.rng.choice(JOBS)
        match what:
            case "file":
                file = rng.randrange(4)
                self.files[job] = [each for each in self.files[job] if each != file] + [file]
                bell.files(file, job=job)
            case "end":
                self.final[job] = rng.choice([NoticeKind.JOB_TRANSFERRED, NoticeKind.JOB_ERROR])
                bell.raised(self.final[job], job)
            case "left":
                self.final.pop(job, None)
                bell.left(job)
            case "change":
                bell.raised(NoticeKind.JOB_MODIFICATION, job)
            case "ranges":
                bell.raised(NoticeKind.FILE_RANGES_TRANSFERRED, job, 0, ((rng.randrange(9), 10),))
            case "comes":
                self.listeners.append(bell.comes(rng.choice([None, job])))
            case "leaves" if self.listeners:
                self.leaves(self.listeners.pop(rng.randrange(len(self.listeners))))
            case "answer" if self.open:
                self.answer(self.open.pop(rng.randrange(len(self.open))), ok=rng.random() < 0.6)
            case "wait":
                bell.wait(rng.choice([0.1, 1.0, 30.0, 70.0]))
            case "long wait":
                bell.wait(ACK_TIMEOUT_S)
            case "restart":
                self.open, self.listeners = [], []
                bell.restart()
        self.look()

    def leaves(self, listener: ListenerId) -> None:
        self.open = [each for each in self.open if not isinstance(each, Deliver) or each.listener != listener]
        self.bell.leaves(listener)

    def answer(self, call: Call, *, ok: bool) -> None:
        job, notice = call.notice.job, call.notice
        if ok and notice.kind is NoticeKind.FILE_TRANSFERRED and self.current(call):
            self.files[job].remove(notice.file)  # type: ignore[arg-type]
        elif ok and self.final.get(job) is notice.kind and self.current(call):
            del self.final[job]
        (self.bell.ok if ok else self.bell.fails)(call)

    def current(self, call: Call) -> bool:
        """Nothing newer has made it stale: what it tells is still pending in its hand."""
        pending = self.bell.notices.pending(call.notice.job)
        return any(each.serial == call.notice.serial for each in pending.notices)

    def look(self) -> None:
        """What must hold after each thing. Who has not answered for too long is asked no more."""
        self.open = [each for each in self.open if each.delivery in self.bell.notices._flights]
        for call in self.bell.calls():
            self.open.append(call)
            if call.notice.kind not in KEPT:
                assert isinstance(call, Deliver)
                continue
            job, files = call.notice.job, self.files[call.notice.job]
            if call.notice.kind is NoticeKind.FILE_TRANSFERRED:
                assert isinstance(call, Deliver)
                assert files[0] == call.notice.file, "files in order"
            else:
                assert self.final.get(job) is call.notice.kind, "what was to be told"
                assert isinstance(call, Deliver) is False or not files, "files first"
                assert isinstance(call, Deliver) or self.commands[job]
        assert len(self.open) <= MAX_IN_FLIGHT
        kept = [each.notice.job for each in self.open if each.notice.kind in KEPT]
        assert len(kept) == len(set(kept)), "one of a job at a time"

    def calm_down(self) -> None:
        """In the end everybody listens and takes everything well."""
        self.listeners.append(self.bell.comes())
        self.look()
        for _ in range(500):
            if self.open:
                self.answer(self.open.pop(0), ok=True)
            elif self.bell.notices.deadline() is None:
                break
            else:
                self.bell.wait_until_due()
            self.look()
        owed = {job: files for job, files in self.files.items() if files}
        assert not owed, f"never told: {owed}"
        assert not self.final, f"never told: {self.final}"
        assert all(not self.bell.notices.pending(each).notices for each in self.bell.saved)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(STEPS), max_size=80))
def test_nothing_is_lost_or_out_of_order(seed: int, steps: list[str]) -> None:
    room = Room(seed)
    for step in steps:
        room.step(step)
    room.calm_down()
