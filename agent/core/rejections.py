"""How often a copy of one file with bytes of near sources was rejected, and what follows of that.

Near sources may go on as long as it comes out who lied; whoever still lies after a few of those has accomplices,
and then the origin supplies the rest alone. Never knows: phases, how verdicts are made, which chunk is compared.
Source: bits-reference 3.2 (invalid bytes of peers are fetched again; those of the origin are an error).
"""

from __future__ import annotations

from agent.core import commands as cmd
from agent.core.holding import Holding
from agent.core.sources import FileId
from agent.core.spec import NearUse, Snapshot

MOST = 4
"""Rejected copies; with the last of them near sources are out."""


class Rejections:
    """Of one file."""

    def __init__(self, file: FileId, before: Snapshot) -> None:
        self.near_refused = before.near is NearUse.NEVER
        """No near source is asked any more."""
        self.count = before.rejections
        self._file = file

    def take(self, held: Holding, near: NearUse, reason: str, out: list[cmd.Command]) -> bool:
        """A copy was rejected. True: some of it was not the origin's, and what is wrong of that comes again; `near`
        says whether others may still be asked."""
        fetching = held.revive()
        if fetching is None or fetching.chunks is None or not fetching.chunks.suspects:
            out += held.withdraw()
            self.near_refused = True
            return False
        self.count += 1
        begun: list[cmd.Command] = []
        fetching.refetch(near if self.count < MOST else NearUse.NEVER, begun)
        self.near_refused = not fetching.comparing
        out += held.take_back() if fetching.comparing else held.withdraw()
        out += begun
        what = "comparing with" if fetching.comparing else "fetching again from"
        out.append(cmd.LogLine(file=self._file, text=f"rejected, {what} the origin: {reason}"))
        out.append(cmd.Refetching(file=self._file, reason=reason))
        return True
