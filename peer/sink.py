"""Where received bytes go: the contract between whoever reads a socket and whoever owns the file.

The origin's client and the peer's client both fill a `Sink`; neither knows what is behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from peer.core.voucher import Voucher
from validation.ranges import ByteRange


class Sink(Protocol):
    """Takes the bytes of one fetch, in rising order of offset, without gaps."""

    def write(self, offset: int, data: memoryview) -> None:
        """Store all of `data` at `offset` of the content (bytes).

        Called in a worker thread, never twice at once for one fetch; `data` is only valid during the call.
        Raises OSError; the fetch then ends with the matching local Failure (DISK_FULL, IO_ERROR, …).
        """

    def arrived(self, item: ByteRange) -> None:
        """The bytes of `item` are written. Called on the event loop, in order, about once a MiB or a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A fetch that delivered every byte asked for."""

    item: ByteRange
    """What was delivered; for a fetch of unknown length, `stop` tells it."""
    vouchers: tuple[Voucher, ...] = ()
    """From peers: vouchers whose signatures verified, in order of chunk. From the origin: none."""
