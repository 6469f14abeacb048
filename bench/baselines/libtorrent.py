"""libtorrent in the laboratory: its Python package, a torrent with a web seed, settings for a LAN.

Everybody has the torrent with all piece digests beforehand. The session runs before the start shot, and gets the
torrents at it.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import ClassVar

from bench.baselines.helped import Torrents
from bench.baselines.libtorrent_session import SETTINGS
from bench.baselines.system import Seat


class Libtorrent(Torrents):
    """One session a host, that goes on seeding when it has everything."""

    name: ClassVar[str] = "libtorrent"
    options: ClassVar[str] = "torrent with web seed, pieces of 256 KiB; " + ", ".join(
        f"{name} {value}" for name, value in SETTINGS.items()
    )

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("libtorrent") is None:
            return "the Python package libtorrent is not installed (pip install 'nearfetch[bench]')"
        return None

    def command(self, seat: Seat) -> list[str]:
        torrents = [str(self.torrent_of(original)) for original in self.ground.work.originals]
        module = "bench.baselines.libtorrent_session"
        return [sys.executable, "-m", module, seat.host.address, str(seat.place / "files"), *torrents]
