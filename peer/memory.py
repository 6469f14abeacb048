"""What an agent remembers of others across restarts: the ledger and the certificates, and when they are written.

Never knows: sockets, who is online, what an offence leads to.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from peer.certificates import CertificateBook
from peer.core.voucher import PeerId
from peer.identity import Identity
from peer.ledger import Ledger
from peer.workers import Workers

T = TypeVar("T")

LEDGER_NAME = "peers.json"
CERTIFICATES_NAME = "certificates"


class Memory:
    """An agent's ledger and certificates. Made by `open`; `save` at the end."""

    def __init__(self, ledger: Ledger, certificates: CertificateBook, workers: Workers) -> None:
        """Use `open`."""
        self.ledger, self.certificates = ledger, certificates
        self.problem: str | None = None
        """Why the last `save` failed."""
        self._workers = workers
        self._given: Counter[PeerId] = Counter()
        self._saving = asyncio.Lock()

    @classmethod
    async def open(cls, home: Path, identity: Identity, workers: Workers) -> Memory:
        """Read what is stored. Raises LedgerError, OSError."""
        ledger = await workers.run(Ledger.load, home / LEDGER_NAME, time.time())
        certificates = CertificateBook(home / CERTIFICATES_NAME, identity, time.time)
        await workers.run(certificates.load)
        return cls(ledger, certificates, workers)

    def count_given(self, totals: Mapping[PeerId, int]) -> None:
        """Bytes sent to each peer since the start of this process; what is new goes into the ledger."""
        for peer_id, total in totals.items():
            self.ledger.count(peer_id, given=total - self._given[peer_id])
            self._given[peer_id] = total

    async def save(self) -> None:
        """Write what is new. A write that has begun ends before this does, also when it is cancelled."""
        async with self._saving:
            try:
                if (data := self.ledger.take_changes()) is not None:
                    await self._to_the_end(self.ledger.write, data)
                if items := self.certificates.take_unsaved():
                    await self._to_the_end(self.certificates.write, items)
                self.problem = None
            except OSError as error:
                self.problem = f"what is known of peers could not be stored: {error}"

    async def _to_the_end(self, fn: Callable[[T], None], argument: T) -> None:
        """Two writes at once could end in the wrong order."""
        writing = asyncio.get_running_loop().run_in_executor(self._workers.executor, fn, argument)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
