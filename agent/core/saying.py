"""What peers are told of a transfer while it runs: which chunks it is bringing, and that it takes part at all.

Never knows: why chunks are claimed, how offers travel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.core import commands as cmd
from agent.core.chunks import ChunkBook
from agent.core.sources import FileId
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout, ContentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What others may know of a transfer: they wait for it, or count on it."""

    content_ids: tuple[ContentId, ...]
    layout: ChunkLayout
    claimed: Bitfield
    """Chunks that it is fetching from the origin now."""
    wants: bool
    """It fetches the content, and passes on what it has."""


NOTHING = Said(content_ids=(), layout=ChunkLayout.for_length(0), claimed=NO_CHUNKS, wants=False)


class Saying:
    """Remembers what was said last."""

    def __init__(self, file: FileId) -> None:
        self.said = NOTHING
        self._file = file

    def news(self, said: Said, chunks: ChunkBook | None) -> list[cmd.Command]:
        """What is to be said now, if it is anything else than before.

        A chunk that was claimed stays claimed while it is being digested: it is not offered before that, and what
        nobody claims and nobody has is asked for by the next one.
        """
        brought = NO_CHUNKS if chunks is None else self.said.claimed & chunks.digesting
        if brought and said.content_ids == self.said.content_ids:
            said = replace(said, claimed=Bitfield(said.claimed | brought))
        if said is self.said or said == self.said:
            return []
        self.said = said
        return [
            cmd.PublishClaim(
                file=self._file,
                content_ids=said.content_ids,
                layout=said.layout,
                chunks=said.claimed,
                wants=said.wants,
            )
        ]
