"""How long the bytes of one file took, and how fast they came at best. Pure arithmetic; never knows: sources."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 1.0
"""A rate is a mean over at least this: shorter bursts are what buffers held back."""


@dataclass(slots=True)
class Timing:
    """From the first request to the last byte, without pauses."""

    past_s: float = 0.0
    """Of the times before the last pause."""
    fastest: float | None = None
    """Bytes per second, all sources together, over the best second; None: it took less than one."""
    _since: float | None = None
    _last: float = 0.0
    _mark: float = 0.0
    _count: int = 0

    @property
    def seconds(self) -> float:
        """Until the last byte."""
        return self.past_s if self._since is None else self.past_s + self._last - self._since

    def begin(self, now: float) -> None:
        """Something was asked for."""
        if self._since is None:
            self._since = self._last = self._mark = now
            self._count = 0

    def arrived(self, count: int, now: float) -> None:
        """So many bytes came."""
        self._last = now
        self._count += count
        if now - self._mark >= WINDOW_S:
            rate = self._count / (now - self._mark)
            self.fastest = rate if self.fastest is None else max(self.fastest, rate)
            self._mark, self._count = now, 0

    def pause(self) -> None:
        """Nothing more is asked for."""
        self.past_s, self._since = self.seconds, None
