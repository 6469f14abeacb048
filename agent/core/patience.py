"""How long a job has been in trouble, at work, and left alone. Seconds of one clock that never jumps.

Time counts while an agent runs: a changed wall clock, or a machine that was off, neither hurries nor loses a job.
Sources: bits-reference 1.5 (retry, no-progress timeout, maximum download time, inactivity timeout), trap 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatienceSettings:
    """How long each may last."""

    minimum_retry_delay_s: float = 600.0
    no_progress_timeout_s: float = 14 * DAY_S
    maximum_download_time_s: float = 90 * DAY_S
    inactivity_timeout_s: float = 90 * DAY_S

    @property
    def retries(self) -> bool:
        """Whether a transient error is tried again at all: not with a delay beyond the end of patience."""
        return self.minimum_retry_delay_s <= self.no_progress_timeout_s


class Overdue(Enum):
    """What has lasted too long."""

    NO_PROGRESS = "no progress"
    DOWNLOAD_TIME = "maximum download time"
    INACTIVE = "inactivity timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elapsed:
    """The clocks as durations, for the journal."""

    trouble_s: float | None = None
    active_s: float = 0.0
    idle_s: float = 0.0


class Patience:
    """The clocks of one job."""

    def __init__(self, now: float) -> None:
        self.trouble_since: float | None = None
        """Since the first transient error after the last progress."""
        self._trouble_held_s: float | None = None
        """How long it was in trouble when the clock was held; it goes on with the next error."""
        self._active_s = 0.0
        self._active_since: float | None = None
        self._touched = now

    @classmethod
    def restored(cls, elapsed: Elapsed, now: float) -> Patience:
        """The clocks of an earlier process go on."""
        self = cls(now - elapsed.idle_s)
        self._active_s = elapsed.active_s
        self.trouble_since = None if elapsed.trouble_s is None else now - elapsed.trouble_s
        return self

    def elapsed(self, now: float) -> Elapsed:
        """What the next process needs."""
        return Elapsed(
            trouble_s=self._trouble_held_s if self.trouble_since is None else now - self.trouble_since,
            active_s=self.active_s(now),
            idle_s=now - self._touched,
        )

    def active_s(self, now: float) -> float:
        """Time spent connecting and transferring since the last resume."""
        running = 0.0 if self._active_since is None else now - self._active_since
        return self._active_s + running

    def touched(self, now: float) -> None:
        """A property changed, or a byte came: it is not forgotten."""
        self._touched = now

    def progressed(self, now: float) -> None:
        """New bytes: trouble is over."""
        self.trouble_since = self._trouble_held_s = None
        self._touched = now

    def resumed(self, now: float) -> None:
        """Resume gives new patience, and zeroes the download time (trap 12)."""
        self.trouble_since = self._trouble_held_s = None
        self._active_s = 0.0
        if self._active_since is not None:
            self._active_since = now
        self._touched = now

    def troubled(self, now: float) -> None:
        """A transient error: the first one since the last progress starts the clock."""
        if self.trouble_since is None:
            self.trouble_since = now - (self._trouble_held_s or 0.0)
            self._trouble_held_s = None

    def held(self, now: float) -> None:
        """The network or a policy stopped it: that is no trouble of the job's, so the clock stands still."""
        if self.trouble_since is not None:
            self._trouble_held_s = now - self.trouble_since
            self.trouble_since = None

    def work(self, active: bool, now: float) -> None:
        """The job connects or transfers now, or does not."""
        if active and self._active_since is None:
            self._active_since = now
        elif not active and self._active_since is not None:
            self._active_s += now - self._active_since
            self._active_since = None

    def overdue(self, settings: PatienceSettings, now: float, *, waiting: bool) -> Overdue | None:
        """What has lasted too long. `waiting`: the job is in TRANSIENT_ERROR; only then it can lack progress."""
        return next((what for at, what in self._ends(settings, waiting) if now >= at), None)

    def deadline(self, settings: PatienceSettings, now: float, *, waiting: bool) -> float:
        """When `overdue` may next say something. At least once a day, so that idle time can be recorded."""
        return max(now, min(now + DAY_S, *(at for at, _ in self._ends(settings, waiting))))

    def _ends(self, settings: PatienceSettings, waiting: bool) -> list[tuple[float, Overdue]]:
        ends = [(self._touched + settings.inactivity_timeout_s, Overdue.INACTIVE)]
        if self._active_since is not None:
            left_s = settings.maximum_download_time_s - self._active_s
            ends.append((self._active_since + left_s, Overdue.DOWNLOAD_TIME))
        if waiting and self.trouble_since is not None:
            ends.append((self.trouble_since + settings.no_progress_timeout_s, Overdue.NO_PROGRESS))
        return ends
