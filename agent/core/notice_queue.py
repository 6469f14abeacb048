"""What one job has to tell, in which order, when each may go, and whether a callback or the command is next.

Never knows: other jobs, who listens, deliveries, the journal. Sources: bits-reference 2.2, 2.3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.core.notice_values import (
    ABOUT_THE_JOB,
    FIRST_RETRY_S,
    NEVER,
    NoticeKind,
    NoticeSettings,
    PendingNotice,
    PendingNotices,
)
from validation.ranges import ByteRange
from validation.rangeset import RangeSet


@dataclass(slots=True)
class Kept:
    """A notice that is told until somebody takes it well."""

    kind: NoticeKind
    serial: int
    file: int | None = None
    failures: int = 0
    """Of callbacks."""
    failed_at: float = NEVER
    command_failed_at: float | None = None

    @property
    def tried(self) -> bool:
        """A callback has failed."""
        return self.failures > 0

    def record(self) -> PendingNotice:
        """For the journal."""
        failed = self.command_failed_at is not None
        return PendingNotice(
            kind=self.kind, file=self.file, serial=self.serial, tried=self.tried, command_failed=failed
        )


@dataclass(slots=True)
class Lossy:
    """When the last notice of a lossy kind went out, and whether it is still in somebody's hands."""

    serial: int = 0
    sent_at: float = NEVER
    in_hand: bool = False

    def sent(self, now: float) -> int:
        """One goes out. Its serial."""
        self.serial += 1
        self.sent_at, self.in_hand = now, True
        return self.serial


@dataclass(slots=True)
class Changes(Lossy):
    """job-modification: at most one waits."""

    waiting: bool = False


@dataclass(slots=True)
class NewRanges(Lossy):
    """file-ranges-transferred: merged for each file while they wait."""

    files: dict[int | None, RangeSet] = field(default_factory=dict)
    failures: int = 0
    failed_at: float = NEVER

    def add(self, file: int | None, ranges: Iterable[tuple[int, int]]) -> None:
        """These bytes are to be told."""
        known = self.files.setdefault(file, RangeSet())
        for start, stop in ranges:
            known.add(ByteRange(start, stop))

    def take(self) -> tuple[int | None, tuple[tuple[int, int], ...]]:
        """The file that has waited longest, and all its ranges: they no longer wait."""
        file = next(iter(self.files))
        return file, tuple((item.start, item.stop) for item in self.files.pop(file))


def callback_delay_s(failures: int, settings: NoticeSettings) -> float:
    """Seconds until a callback that has failed so often is called again."""
    return min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 30), settings.minimum_retry_delay_s)


class JobQueue:
    """What one job has to tell. Answers when and how; changes nothing by itself."""

    __slots__ = ("changes", "files", "final", "in_hand", "last_serial", "ranges", "settings")

    def __init__(self, settings: NoticeSettings) -> None:
        self.settings = settings
        self.files: OrderedDict[int, Kept] | None = None
        """By file, in order. A file that is raised again is told once, in its new place."""
        self.final: Kept | None = None
        """job-transferred or job-error."""
        self.in_hand = False
        """A kept notice is with a listener or a command (also one that nobody wants any more)."""
        self.last_serial = 0
        self.ranges: NewRanges | None = None
        self.changes: Changes | None = None

    def add(self, kept: Kept) -> None:
        """A new notice waits, behind the others; it takes the place of one it makes stale."""
        if kept.kind in ABOUT_THE_JOB:
            self.final = kept
            return
        assert kept.file is not None
        if self.files is None:
            self.files = OrderedDict()
        self.files.pop(kept.file, None)
        self.files[kept.file] = kept

    def put_back(self, kept: Kept) -> None:
        """It failed and waits again, before the others. Not when it is `superseded`."""
        if kept.kind in ABOUT_THE_JOB:
            self.final = kept
            return
        assert kept.file is not None
        if self.files is None:
            self.files = OrderedDict()
        self.files[kept.file] = kept
        self.files.move_to_end(kept.file, last=False)

    def superseded(self, kept: Kept) -> bool:
        """Whether a newer one waits that makes this one (in hand) stale."""
        if kept.kind in ABOUT_THE_JOB:
            return self.final is not None
        return self.files is not None and kept.file in self.files

    def take(self, *, heard: bool) -> Kept:
        """The notice that goes next; it no longer waits. `heard`: there is a listener. When there is none, the
        command does not wait for file notices that nobody is there to take."""
        if self.files and (heard or self.final is None):
            return self.files.popitem(last=False)[1]
        assert self.final is not None
        kept, self.final = self.final, None
        return kept

    def by_command(self, kept: Kept, *, heard: bool) -> bool:
        """Whether the command runs for it now, rather than a callback."""
        able = self.settings.has_command and kept.kind in ABOUT_THE_JOB
        return able and (kept.tried or not heard)

    def heard_at(self, since: float) -> float | None:
        """When the next notice may go if there is a listener (the last came at `since`). None: nothing waits."""
        if self.files:
            return self._callback_at(next(iter(self.files.values())), since)
        if self.final is None:
            return None
        if self.by_command(self.final, heard=True):
            return self._command_at(self.final)
        return self._callback_at(self.final, since)

    def unheard_at(self, since: float) -> float | None:
        """When the next may go if there is none: by the command. None: not without a listener. Never before
        `heard_at`.

        A file notice that just failed holds the command for its own delay: its listener may come back.
        """
        if self.final is None or not self.settings.has_command:
            return None
        held = self._callback_at(next(iter(self.files.values())), since) if self.files else NEVER
        return max(held, self._command_at(self.final))

    def drop_unwanted(self) -> bool:
        """Drop what waits and the flags no longer ask for. Whether anything was dropped that is recorded."""
        wants, dropped = self.settings.wants, False
        if self.files and not wants(NoticeKind.FILE_TRANSFERRED):
            self.files, dropped = None, True
        if self.final is not None and not wants(self.final.kind):
            self.final, dropped = None, True
        if self.ranges is not None and not wants(NoticeKind.FILE_RANGES_TRANSFERRED):
            self.ranges.files.clear()
        if self.changes is not None and not wants(NoticeKind.JOB_MODIFICATION):
            self.changes.waiting = False
        return dropped

    def pending(self, in_hand: Kept | None) -> PendingNotices:
        """For the journal: the one in hand first, for it may have to be told again."""
        waiting: list[Kept] = [] if self.files is None else list(self.files.values())
        if in_hand is not None and not self.superseded(in_hand):
            waiting.insert(0, in_hand)
        if self.final is not None:
            waiting.append(self.final)
        return PendingNotices(notices=tuple(kept.record() for kept in waiting), last_serial=self.last_serial)

    def ranges_at(self) -> float | None:
        """When the next file-ranges-transferred may go."""
        news = self.ranges
        if news is None or news.in_hand or not news.files:
            return None
        again = news.failed_at + callback_delay_s(news.failures, self.settings) if news.failures else NEVER
        return max(again, news.sent_at + self.settings.minimum_interval_s)

    def changes_at(self) -> float | None:
        """When the next job-modification may go."""
        news = self.changes
        if news is None or news.in_hand or not news.waiting:
            return None
        return news.sent_at + self.settings.minimum_interval_s

    def _callback_at(self, kept: Kept, since: float) -> float:
        if not kept.tried or kept.failed_at == NEVER:
            return NEVER
        # Who has come since has not failed yet: a long delay is not for him.
        long = callback_delay_s(kept.failures if kept.failed_at >= since else 1, self.settings)
        return kept.failed_at + long

    def _command_at(self, kept: Kept) -> float:
        if kept.command_failed_at is None:
            return NEVER
        return kept.command_failed_at + self.settings.minimum_retry_delay_s
