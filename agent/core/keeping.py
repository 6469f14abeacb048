"""What of one file's progress is recorded, and who reads along: when the next process and listeners are told what.

Never knows: sources beyond "the origin or not", requests, where anything is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from agent.core import commands as cmd
from agent.core.chunks import ChunkBook
from agent.core.demand import Filling
from agent.core.saving import SaveClock
from agent.core.spec import TransferSpec
from agent.core.tuning import Tuning
from validation.content import NO_CHUNKS
from validation.ranges import ByteRange
from validation.rangeset import RangeSet


class Keeping:
    """Of one content."""

    def __init__(self, spec: TransferSpec, tuning: Tuning, chunk_bytes: int) -> None:
        self.recorded = NO_CHUNKS
        """Chunks of which some byte is recorded as held."""
        self._file = spec.file
        self._filling = Filling(tuning, chunk_bytes) if spec.on_demand else None
        self._clock = SaveClock(tuning)

    @property
    def is_followed(self) -> bool:
        """Somebody wants to hear of all that can be read."""
        return self._filling is not None

    def restore(self, chunks: ChunkBook, held: Iterable[ByteRange], filled: RangeSet) -> None:
        """This was recorded by an earlier process; what can be read of it is no news."""
        self.recorded = chunks.touched_by(held)
        if self._filling is not None:
            self._filling.begin(filled)

    def deadline(self) -> float:
        """When there will be something to record or to tell, if nothing more comes; infinity for never."""
        recording = self._clock.deadline()
        filling = None if self._filling is None else self._filling.deadline()
        return min(math.inf if recording is None else recording, math.inf if filling is None else filling)

    def arrived(self, item: ByteRange, now: float, *, readable: bool) -> None:
        """New bytes are in the part file; those of near sources can be read once they are proven."""
        self._clock.arrived(item.length, now)
        if readable:
            self.grew(item, now)

    def grew(self, item: ByteRange, now: float) -> None:
        """These bytes can be read from now on."""
        if self._filling is not None:
            self._filling.grew(item, now)

    def due(self, now: float) -> cmd.Durability | None:
        """How progress is to be recorded now; None: not yet."""
        return self._clock.due(now)

    def record(
        self,
        durability: cmd.Durability,
        held: tuple[ByteRange, ...],
        chunks: ChunkBook | None,
        now: float,
        out: list[cmd.Command],
    ) -> None:
        """Record that this is held."""
        self._clock.saved(durability, now)
        if chunks is not None:
            self.recorded = chunks.touched_by(held)
        out.append(cmd.SaveProgress(file=self._file, held=held, durability=durability))

    def news_due(self, now: float) -> bool:
        """Listeners of an on-demand file are to be told now which bytes have become readable."""
        return self._filling is not None and self._filling.due(now)

    def tell(self, filled: RangeSet, now: float, out: list[cmd.Command]) -> None:
        """Tell them, if there is any news."""
        news = () if self._filling is None else self._filling.news(filled, now)
        if news:
            out.append(cmd.RangesFilled(file=self._file, items=news))
