"""Files of one agent that want the same content: one fetches, the others copy from it chunk by chunk.

The same thought as between agents: the first is a near source that *has* its proven chunks and has *claimed* the
rest, so that nobody else asks the origin for them. When it stops, the next in line takes over. Never knows: jobs.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.core import events as ev
from agent.core.sources import FileId, sibling_source
from agent.core.transfer import FileTransfer, Phase
from validation.content import NO_CHUNKS, Bitfield

WANTING = (Phase.GATHERING, Phase.FETCHING)


class Siblings:
    """Remembers what a leader last told each of its followers."""

    def __init__(self) -> None:
        self._told: dict[tuple[FileId, FileId], tuple[Bitfield, Bitfield]] = {}

    def news(
        self, families: Iterable[tuple[FileTransfer, list[FileTransfer]]]
    ) -> list[ev.SourceOffered | ev.SourceLost]:
        """What has to be told since the last call. Each family: who leads, and who wants what it has."""
        wanted = {
            (follower.spec.file, leader.spec.file): leader
            for leader, followers in families
            for follower in followers
        }
        lost = [pair for pair in self._told if pair not in wanted]
        for pair in lost:
            del self._told[pair]
        out: list[ev.SourceOffered | ev.SourceLost] = [
            ev.SourceLost(file=follower, source=sibling_source(leader)) for follower, leader in lost
        ]
        for (follower, leader), transfer in wanted.items():
            offer = _offer(transfer)
            if self._told.get((follower, leader)) != offer:
                self._told[follower, leader] = offer
                source = sibling_source(leader)
                out.append(ev.SourceOffered(file=follower, source=source, have=offer[0], claimed=offer[1]))
        return out


def _offer(leader: FileTransfer) -> tuple[Bitfield, Bitfield]:
    chunks = leader.chunks
    assert chunks is not None
    claimed = chunks.layout.everything & ~chunks.proven if leader.phase in WANTING else NO_CHUNKS
    return chunks.proven, Bitfield(claimed)
