"""curl in the laboratory: everybody takes everything from the origin.

Source: curl(1).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import ClassVar

from bench.baselines.helped import Helped
from bench.baselines.system import Progress, Seat


class Curl(Helped):
    """One curl a host, for all its files."""

    name: ClassVar[str] = "curl"
    options: ClassVar[str] = "curl --fail --silent --show-error --parallel, one process a host"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("curl") else "curl is not installed"

    async def progress(self, seat: Seat, by_client: Mapping[str, int]) -> Progress:
        """There is no other source."""
        found = await super().progress(seat, by_client)
        return Progress(from_origin=found.from_origin + found.from_peers)

    def command(self, seat: Seat) -> list[str]:
        work = self.ground.work
        command = ["curl", "--fail", "--silent", "--show-error"]
        command += ["--parallel"] if len(work.urls) > 1 else []
        for url, original in zip(work.urls, work.originals, strict=True):
            command += ["--output", str(seat.destination(original)), url]
        return self.starter([], command)
