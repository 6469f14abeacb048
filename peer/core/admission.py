"""Upload slots: who may ask now, who comes back later, who reads too slowly, and how fast we send.

Pure counting; every time is passed in, in seconds of the caller's clock. Limits are those of reliability 1.4.
Never knows: sockets, TLS, content.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from peer.core.voucher import PeerId

K = TypeVar("K", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """What all peers together, and each of them, may use of us."""

    slots: int = 16
    """Range requests served at once, in all."""
    requests_per_peer: int = 8
    connections: int = 512
    """Open connections in all, those in the handshake included: 256 for bytes, and 256 that wait for offers."""
    half_open: int = 64
    """Connections in the handshake, in all."""
    half_open_per_address: int = 16
    connections_per_peer: int = 12
    """Four for bytes, and eight that wait for offers (`peer.offers`)."""
    minimum_rate: int = 8 * 1024
    """Bytes per second below which a reader is dropped, over `rate_window_s`."""
    rate_window_s: float = 30.0
    upload_rate: int | None = None
    """Bytes per second for all peers together; None: as fast as it goes."""


SLOWEST_SLOT = 32 * 1024
"""Bytes per second a slot is worth at least: four times what makes a receiver give us up (8 KiB/s), because the
upload limit is shared unevenly for short times."""

MAX_RETRY_AFTER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Not now: `retry_after_s` is when a slot should be free, in whole seconds."""

    retry_after_s: int


class Admission:
    """Counts connections and range requests. Whoever opened or admitted something must end it, once."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self.upload = None if limits.upload_rate is None else TokenBucket(limits.upload_rate)
        self._half_open: Counter[str] = Counter()
        self._half_open_total = 0
        self._connections: Counter[PeerId] = Counter()
        self._requests: dict[PeerId, int] = {}
        self._in_flight = 0
        self._usual_s = 0.0

    @property
    def connections(self) -> int:
        """Open connections, those in the handshake included."""
        return self._half_open_total + self._connections.total()

    @property
    def in_flight(self) -> int:
        """Range requests admitted and not finished."""
        return self._in_flight

    @property
    def slots(self) -> int:
        """Range requests served at once: fewer than the limit when the upload limit would starve them."""
        rate = self.limits.upload_rate
        return self.limits.slots if rate is None else max(1, min(self.limits.slots, rate // SLOWEST_SLOT))

    def open(self, address: str) -> bool:
        """A connection came in. False: close it at once (nothing was counted)."""
        limits = self.limits
        if (
            self._half_open_total >= limits.half_open
            or self._half_open[address] >= limits.half_open_per_address
            or self.connections >= limits.connections
        ):
            return False
        self._half_open[address] += 1
        self._half_open_total += 1
        return True

    def not_authenticated(self, address: str) -> None:
        """An opened connection ended before its handshake did."""
        self._half_open_total -= 1
        _decrease(self._half_open, address)

    def authenticated(self, address: str, peer_id: PeerId) -> bool:
        """The handshake is over. False: the peer has enough connections; it counts as ended."""
        self.not_authenticated(address)
        if self._connections[peer_id] >= self.limits.connections_per_peer:
            return False
        self._connections[peer_id] += 1
        return True

    def closed(self, peer_id: PeerId) -> None:
        """An authenticated connection ended."""
        _decrease(self._connections, peer_id)

    def admit(self, peer_id: PeerId) -> Busy | None:
        """A range request came in. None: it is admitted, and must be `finished`."""
        theirs = self._requests.get(peer_id, 0)
        if self._in_flight >= self.slots or theirs >= self.limits.requests_per_peer:
            return Busy(retry_after_s=min(MAX_RETRY_AFTER_S, max(1, ceil(self._usual_s))))
        self._requests[peer_id] = theirs + 1
        self._in_flight += 1
        return None

    def finished(self, peer_id: PeerId, duration_s: float) -> None:
        """An admitted request is over, in whatever way, `duration_s` after it was admitted."""
        self._in_flight -= 1
        _decrease(self._requests, peer_id)
        self._usual_s += (duration_s - self._usual_s) / 8


class TokenBucket:
    """At most `rate` bytes per second, and a quarter of a second's worth at once. May be overdrawn by one piece."""

    def __init__(self, rate: int, burst_s: float = 0.25) -> None:
        if rate < 1:
            raise ValueError(f"a rate is at least 1 byte/s, not {rate}")
        self.rate = rate
        self._burst = rate * burst_s
        self._tokens = self._burst
        self._at: float | None = None

    def delay(self, now: float) -> float:
        """Seconds to wait before the next piece may go; 0.0 for now."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._tokens > 0 else (1 - self._tokens) / self.rate

    def spend(self, count: int) -> None:
        """A piece of `count` bytes goes out."""
        self._tokens -= count


class ReadRate:
    """Watches one reader: has it taken `minimum_rate` bytes per second over each window?"""

    __slots__ = ("_at", "_limits", "_taken")

    def __init__(self, limits: AdmissionLimits, now: float) -> None:
        self._limits = limits
        self._at = now
        self._taken = 0

    def took(self, count: int) -> None:
        """The reader took `count` bytes from us."""
        self._taken += count

    def too_slow(self, now: float) -> bool:
        """True when a whole window went by without its minimum. Begins the next window when one is over."""
        if now - self._at < self._limits.rate_window_s:
            return False
        enough = self._taken >= self._limits.minimum_rate * (now - self._at)
        self._at, self._taken = now, 0
        return not enough


def _decrease(counter: dict[K, int], key: K) -> None:
    left = counter[key] - 1
    if left > 0:
        counter[key] = left
    else:
        del counter[key]
