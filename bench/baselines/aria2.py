"""aria2 in the laboratory: a torrent with a web seed, and local peer discovery.

Everybody has the torrent with all piece digests beforehand. Source: aria2c(1), BEP 14 (local peer discovery).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from bench.baselines.helped import Torrents
from bench.baselines.system import Seat

_OPTIONS = (
    "--enable-dht=false",
    "--enable-dht6=false",
    "--enable-peer-exchange=true",
    "--bt-enable-lpd=true",
    "--bt-lpd-interface=eth0",
    "--bt-hash-check-seed=true",
    "--check-integrity=true",
    "--allow-overwrite=true",
    "--file-allocation=none",
    "--seed-ratio=0",
    "--seed-time=1000",
    "--max-concurrent-downloads=16",
    "--listen-port=6881",
    "--summary-interval=0",
    "--console-log-level=warn",
    "--no-conf=true",
)


class Aria2(Torrents):
    """One aria2c a host, that goes on seeding when it has everything."""

    name: ClassVar[str] = "aria2"
    options: ClassVar[str] = f"torrent with web seed, pieces of 256 KiB; aria2c {' '.join(_OPTIONS)}"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("aria2c") else "aria2c is not installed"

    def command(self, seat: Seat) -> list[str]:
        torrents = [self.torrent_of(original) for original in self.ground.work.originals]
        markers = [seat.place / f"done-{number}" for number in range(len(torrents))]
        hook = self._hook(seat)
        command = ["aria2c", *_OPTIONS, f"--dir={seat.place / 'files'}", f"--on-bt-download-complete={hook}"]
        return self.starter(markers, [*command, *map(str, torrents)])

    def _hook(self, seat: Seat) -> Path:
        """What aria2c calls with (gid, number of files, first file) when a torrent is complete, before it seeds."""
        hook = seat.place / "done.sh"
        lines = [
            f"    */{original.name}) : > '{seat.place}/done-{number}' ;;"
            for number, original in enumerate(self.ground.work.originals)
        ]
        hook.write_text("\n".join(["#!/bin/sh", 'case "$3" in', *lines, "esac", ""]), encoding="utf-8")
        hook.chmod(0o755)
        return hook
