"""Files of one agent that want the same content: one fetches, the others copy from it chunk by chunk.

The same thought as between agents: the first is a near source that *has* its proven chunks and has *claimed* the
rest, so that nobody else asks the origin for them. When it stops, the next in line takes over. Never knows: jobs.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.core import events as ev
from agent.core.sources import FileId, sibling_source
from agent.core.transfer import FileTransfer, Phase
from validation.content import NO_CHUNKS, Bitfield, ContentId

_ABLE = (Phase.GATHERING, Phase.FETCHING, Phase.VALIDATING, Phase.DECIDING, Phase.DONE)
_WANTING = (Phase.GATHERING, Phase.FETCHING)


class Siblings:
    """Remembers who leads which content, and what it last told whom."""

    def __init__(self) -> None:
        self._line: dict[ContentId, list[FileId]] = {}
        self._told: dict[tuple[FileId, FileId], tuple[Bitfield, Bitfield]] = {}

    def news(self, transfers: Iterable[FileTransfer]) -> list[ev.SourceOffered | ev.SourceLost]:
        """What has to be told since the last call. Costs nothing while no two files want the same."""
        groups: dict[ContentId, dict[FileId, FileTransfer]] = {}
        for transfer in transfers:
            if transfer.phase in _ABLE and transfer.chunks is not None:
                for content_id in transfer.content_ids[:1]:
                    groups.setdefault(content_id, {})[transfer.spec.file] = transfer
        self._line = {
            content_id: [file for file in self._line.get(content_id, ()) if file in group]
            + [file for file in group if file not in self._line.get(content_id, ())]
            for content_id, group in groups.items()
        }
        wanted = {
            (follower, self._line[content_id][0]): group
            for content_id, group in groups.items()
            for follower in self._line[content_id][1:]
            if group[follower].phase in _WANTING
        }
        lost = [pair for pair in self._told if pair not in wanted]
        for pair in lost:
            del self._told[pair]
        out: list[ev.SourceOffered | ev.SourceLost] = [
            ev.SourceLost(file=follower, source=sibling_source(leader)) for follower, leader in lost
        ]
        for (follower, leader), group in wanted.items():
            offer = _offer(group[leader])
            if self._told.get((follower, leader)) != offer:
                self._told[follower, leader] = offer
                source = sibling_source(leader)
                out.append(ev.SourceOffered(file=follower, source=source, have=offer[0], claimed=offer[1]))
        return out


def _offer(leader: FileTransfer) -> tuple[Bitfield, Bitfield]:
    chunks = leader.chunks
    assert chunks is not None
    claimed = chunks.layout.everything & ~chunks.proven if leader.phase in _WANTING else NO_CHUNKS
    return chunks.proven, Bitfield(claimed)
