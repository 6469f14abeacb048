"""Looks for others: keeps mDNS going, knows when a round of looking is over, begins another when somebody asks.

A round begins with a question to the network and is over when the answers that can be expected are here and every
address they named was tried once.
Never knows: who is trusted, what becomes of a sighting. Source: bits-reference 4.1 (DiscoverPeers; one search at a
time).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine

from peer.discovery import Announcement, DiscoveryListener
from peer.locating import Locating

FIRST_ROUND_S = 0.35
"""From the first mDNS question to the last answer that can be expected: the question waits up to 0.12 s (RFC 6762
§5.2), answers as long again (§6), and the way there and back."""


class Search:
    """One agent's looking around. `wake` is called when whoever tries addresses should look at the clock again."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._locating: Locating | None = None
        self._answered_at: float | None = None
        """When the answers of this round are here; None while the question is still to be asked."""
        self._under_way = True
        self._settled = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """Why peers cannot be found by mDNS at the moment; None when they can, or when nobody wants it."""
        return self._locating.problem if self._locating is not None else None

    def without_mdns(self) -> None:
        """Begin: only addresses that are known otherwise are tried."""
        self._answered_at = time.monotonic()

    def by_mdns(
        self, ours: Announcement, interfaces: tuple[str, ...], listener: DiscoveryListener
    ) -> Coroutine[None, None, None]:
        """Begin: what is returned announces us and looks for others until it is cancelled."""
        self._locating = Locating(ours, interfaces, listener, self._asked)
        return self._locating.run()

    async def close(self) -> None:
        """Say goodbye (about 0.3 s)."""
        if self._locating is not None:
            await self._locating.close()

    def again(self) -> bool:
        """Begin another round, now. False: one is under way."""
        if self._under_way:
            return False
        self._under_way = True
        if self._locating is None:
            self._answered_at = time.monotonic()
        else:
            self._answered_at = None
            self._locating.ask_again()
        self._wake()
        return True

    def network_changed(self) -> None:
        """The machine has other addresses: look at once instead of within ten seconds."""
        if self._locating is not None:
            self._locating.network_changed()

    def all_tried(self) -> None:
        """No attempt runs, and nobody is left who was never tried."""
        if self._answered_at is not None and time.monotonic() >= self._answered_at:
            self._under_way = False
            self._settled.set()

    async def settled(self, timeout_s: float) -> None:
        """Returns when the first round is over, at the latest after `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()

    def _asked(self) -> None:
        wait_s = FIRST_ROUND_S if self.problem is None else 0.0
        self._answered_at = time.monotonic() + wait_s
        asyncio.get_running_loop().call_later(wait_s, self._wake)
        self._wake()
