"""Systems that are a command or a program of the bench on each host, started by a helper that waits for `go`.

Never knows: which system it is, how anything is measured.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from abc import abstractmethod
from pathlib import Path

from bench.agents import BenchError
from bench.baselines.system import Ground, Seat, SeatError, System, Usage
from bench.baselines.torrent import torrent
from bench.lab_process import Helper, HelperError


class Helped(System):
    """One helper a seat: ready before the start shot, told to go at it, and asked for what it cost in the end."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._helpers: dict[int, Helper] = {}

    @abstractmethod
    def command(self, seat: Seat) -> list[str]:
        """The helper's command line, on the seat's host."""

    async def open(self) -> None:
        for seat in self.ground.seats:
            (seat.place / "files").mkdir(parents=True, exist_ok=True)
            command = self.ground.wrapped(seat, self.command(seat))
            self._helpers[seat.number] = Helper(f"{self.name} on {seat.name}", command, seat.place / "log")
        starts = [helper.start() for helper in self._helpers.values()]
        for end in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(end, BaseException):
                raise end

    async def close(self) -> None:
        await asyncio.gather(*(helper.stop() for helper in self._helpers.values()))

    async def fetch(self, seat: Seat) -> None:
        helper = self._helpers[seat.number]
        try:
            helper.tell("go")
            end = await helper.hear(None)
        except HelperError as error:
            raise SeatError(str(error)) from error
        if "failed" in end:
            raise SeatError(f"{seat.name}: {end['failed']}")

    async def kill(self, seat: Seat) -> None:
        """The whole host's processes: the helper would tidy up."""
        seat.host.kill_all()

    async def usage(self, seat: Seat) -> Usage:
        found = await self._helpers[seat.number].ask("usage")
        cpu_s, peak, discarded = found.get("cpu_s"), found.get("peak_memory"), found.get("discarded")
        if not isinstance(cpu_s, float) or not isinstance(peak, int):
            raise BenchError(f"{self.name} on {seat.name} does not say what it cost")
        return Usage(cpu_s=cpu_s, peak_memory=peak, discarded=discarded if isinstance(discarded, int) else None)

    def starter(self, markers: list[Path], command: list[str]) -> list[str]:
        """A helper that runs this command."""
        flags = [word for marker in markers for word in ("--marker", str(marker))]
        return [sys.executable, "-m", "bench.node", "run", *flags, "--", *command]


class Torrents(Helped):
    """Those that get a torrent file; seeds have the files from the beginning."""

    async def open(self) -> None:
        work = self.ground.work
        for original, url in zip(work.originals, work.urls, strict=True):
            data = await asyncio.to_thread(torrent, original, url)
            self.torrent_of(original).write_bytes(data)
        for seat in self.ground.seeds:
            for original in work.originals:
                target = seat.destination(original)
                target.parent.mkdir(parents=True, exist_ok=True)
                await asyncio.to_thread(shutil.copyfile, original, target)
        await super().open()
        for seat in self.ground.seeds:
            await self.fetch(seat)

    def torrent_of(self, original: Path) -> Path:
        """Where the torrent file is."""
        return self.ground.place / f"{original.name}.torrent"
