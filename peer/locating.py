"""Keeps discovery going: starts it, starts it again when the machine's addresses change, says why it cannot.

A machine that boots before its network, changes its Wi-Fi or wakes up somewhere else is found again without help.
Never knows: who is trusted, what becomes of a sighting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Interface

from peer.discovery import Announcement, Discovery, DiscoveryListener
from peer.errors import DiscoveryError
from peer.interfaces import choose_interfaces, with_multicast

LOOK_S = 10.0
"""How often the machine's addresses are compared: about 0.3 ms each time."""


class Locating:
    """One agent's discovery over the agent's life. `run` until cancelled, then `close`.

    `listener` is called in zeroconf's threads; `asked` on the loop, after the first start or failure and after each
    `ask_again`, when the question is on its way.
    """

    def __init__(
        self,
        ours: Announcement,
        interfaces: tuple[str, ...],
        listener: DiscoveryListener,
        asked: Callable[[], None],
    ) -> None:
        self._ours, self._wanted, self._listener, self._asked = ours, interfaces, listener, asked
        self._discovery: Discovery | None = None
        self._problem: str | None = None
        self._look_now = asyncio.Event()
        self._ask_again = False

    @property
    def problem(self) -> str | None:
        """Why peers cannot be found by mDNS at the moment; None when they can."""
        return self._problem

    def network_changed(self) -> None:
        """Look at once instead of within ten seconds."""
        self._look_now.set()

    def ask_again(self) -> None:
        """Ask the network who is there, and report everybody once more."""
        self._ask_again = True
        self._look_now.set()

    async def run(self) -> None:
        """Keep discovery going. Ends when cancelled."""
        await self._look()
        self._asked()
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()
            asked, self._ask_again = self._ask_again, False
            await self._look(asked)
            if asked:
                self._asked()

    async def close(self) -> None:
        """Say goodbye (about 0.3 s). After `run` was cancelled."""
        if self._discovery is not None:
            await asyncio.to_thread(self._discovery.close)

    async def _look(self, ask_again: bool = False) -> None:
        try:
            wanted = await asyncio.to_thread(self._usable)
            if self._discovery is not None and self._problem is None and wanted == self._discovery.interfaces:
                if ask_again:
                    await asyncio.to_thread(self._discovery.ask_again)
                return
            await self.close()
            # Assigned before it is opened: if we are cancelled meanwhile, `close` waits for it and closes it.
            self._discovery = Discovery(self._ours, self._wanted, self._listener)
            await asyncio.to_thread(self._discovery.open)
            self._problem = None
        except DiscoveryError as error:
            self._problem = str(error)

    def _usable(self) -> tuple[IPv4Interface, ...]:
        return with_multicast(choose_interfaces(self._wanted))
