"""What is around the jobs: the network, and how much bandwidth each priority has at this hour.

Looks at the clock at least every half minute, and at once when the network changes; tells the engine. The hours
follow local wall-clock time. Never decides what a job does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent.config import Config
from agent.core.obstacles import Surroundings
from agent.core.pacing import Policy
from agent.core.queue import Rank
from agent.netwatch import NetworkState, NetworkWatch
from agent.throttle import Throttles

LOOK_S = 30.0
_RANKS = (Rank.HIGH, Rank.NORMAL, Rank.LOW)

Tell = Callable[[Surroundings], None]
"""What holds now."""


class SurroundingsWatch:
    """Watches until it is cancelled. `connected` is what was seen last."""

    def __init__(
        self,
        config: Config,
        throttles: Throttles,
        tell: Tell,
        network_changed: Callable[[], None],
        *,
        local_time: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._policy: Policy = config.policy()
        self._throttles = throttles
        self._tell = tell
        self._network_changed = network_changed
        self._local_time = local_time
        self._watch = NetworkWatch()
        self.connected = self._watch.state.connected
        self._arrivals = 0
        self._wake = asyncio.Event()

    def look(self) -> None:
        """Tell what holds now."""
        now = self._local_time()
        allowance = self._policy.allowance(now.tm_wday, _second_of(now))
        self._throttles.apply(allowance)
        blocked = frozenset(rank for rank in _RANKS if allowance.of(rank) == 0)
        self._tell(Surroundings(connected=self.connected, arrivals=self._arrivals, forbidden=blocked))

    async def run(self) -> None:
        """Look again whenever something may have changed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run(self._changed))
            while True:
                self.look()
                now = self._local_time()
                change = self._policy.next_change(now.tm_wday, _second_of(now))
                wait_s = LOOK_S if change is None else min(LOOK_S, max(0.2, change))
                try:
                    await asyncio.wait_for(self._wake.wait(), wait_s)
                except TimeoutError:
                    continue
                self._wake.clear()

    def _changed(self, before: NetworkState, after: NetworkState) -> None:
        self.connected = after.connected
        self._arrivals += bool(after.addresses - before.addresses)
        self._network_changed()
        self._wake.set()


def _second_of(now: time.struct_time) -> int:
    return now.tm_hour * 3600 + now.tm_min * 60 + now.tm_sec
