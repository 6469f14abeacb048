"""Hosts that asked us to stay away (Retry-After), and until when: for all jobs together.

Never knows: sockets, jobs. Sources: RFC 9110 §10.2.3, RFC 6585 §4; bits-reference 6.3.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from yarl import URL

from peer.core.failure import Failure, FailureKind

REMEMBERED = 1024
"""Hosts that are remembered at most, the latest ones: remote strings must not fill the memory."""


class Holds:
    """Scheme, host and port -> what it said last, and when we may come back. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[str, tuple[float, Failure]] = OrderedDict()

    def note(self, url: URL, failure: Failure) -> None:
        """The host of `url` answered so. Of two times that it named, the later one counts."""
        if failure.kind is not FailureKind.BUSY or not failure.retry_after_s:
            return
        key = str(url.origin())
        until = self._clock() + failure.retry_after_s
        known = self._until.get(key)
        if known is None or known[0] < until:
            self._until[key] = (until, failure)
        self._until.move_to_end(key)
        if len(self._until) > REMEMBERED:
            self._until.popitem(last=False)

    def standing(self, url: URL) -> Failure | None:
        """The host's answer once more, with the time that is left of it; None when it may be asked."""
        if not self._until:
            return None
        key = str(url.origin())
        known = self._until.get(key)
        if known is None:
            return None
        left = known[0] - self._clock()
        if left <= 0:
            del self._until[key]
            return None
        return replace(known[1], retry_after_s=left)
