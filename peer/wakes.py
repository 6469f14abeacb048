"""How many received bytes are worth waking up for, on one connection that carries one body after the other.

To wake the loop, read and decrypt costs about 0.1 ms, whatever comes. A peer that gives to many sends each of them
a few kilobytes at a time; read as they come, they cost more than the bytes themselves (5,000 reads of 25 KB for
128 MiB were measured). So the socket is told to stay silent until as much is there as came in about 80 ms of the
body before (SO_RCVLOWAT, socket(7)). The end of a body never waits, and neither does one that has become slow.

Pure. Never knows: sockets, TLS, whose body it is.
"""

from __future__ import annotations

WAIT_S = 0.08
MOST_BYTES = 128 * 1024
LEAST_BYTES = 16 * 1024
"""Below it each packet may as well wake us."""

RECORD_BYTES = 17 * 1024
"""One TLS record, header included (RFC 8446, 5.1): so much may be here already, and not count for the socket."""

QUIET_S = 0.2
"""After so long without a read any byte wakes us."""


class Wakes:
    """Times in seconds of one clock. `level` is what the socket is to be told."""

    def __init__(self) -> None:
        self.level = 1
        self._rate = 0.0
        self._began = 0.0
        self._length = self._rest = 0
        self._seen = 0

    def begin(self, length: int, now: float) -> None:
        """A body of `length` bytes begins."""
        self._length = self._rest = self._seen = length
        self._began = now
        self.level = self._worth(min(MOST_BYTES, int(self._rate * WAIT_S)))

    def read(self, count: int, now: float) -> None:
        """So many bytes of it were read."""
        self._rest -= count
        if self._rest <= 0:
            self._rate = self._length / max(now - self._began, 1e-4)
            self.level = 1
        else:
            self.level = self._worth(self.level)

    def quiet(self) -> bool:
        """To be asked each QUIET_S while a body comes: nothing was read since, so that any byte counts now."""
        if self._seen == self._rest:
            self._rate, self.level = 0.0, 1
            return True
        self._seen = self._rest
        return False

    def _worth(self, wanted: int) -> int:
        most = min(wanted, self._rest - RECORD_BYTES)
        return most if most >= LEAST_BYTES else 1
