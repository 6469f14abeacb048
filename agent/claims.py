"""What this agent's transfers say of themselves to peers, by content. `PublishClaim` fills it.

Never knows: why chunks are claimed, sockets.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.core.commands import PublishClaim
from agent.core.sources import FileId
from peer.house import Claim
from validation.content import Bitfield, ContentId


class ClaimBoard:
    """The claims of all files. Files of one content are one claim: they copy from each other."""

    def __init__(self) -> None:
        self.changed: Callable[[ContentId], None] = lambda _: None
        """Told which contents are to be looked at again."""
        self._said: dict[FileId, PublishClaim] = {}
        self._files: dict[ContentId, dict[FileId, None]] = {}

    def find(self, content_id: ContentId) -> Claim | None:
        """What is said of a content now; None: nothing."""
        said = [self._said[file] for file in self._files.get(content_id, ())]
        if not said:
            return None
        first, chunks = said[0], 0
        for each in said:
            chunks |= each.chunks if each.layout == first.layout else 0
        return Claim(layout=first.layout, chunks=Bitfield(chunks), wants=any(each.wants for each in said))

    def put(self, said: PublishClaim) -> None:
        """This holds of a file from now on."""
        before = self._said.pop(said.file, None)
        ids = dict.fromkeys(() if before is None else before.content_ids)
        for content_id in ids:
            del self._files[content_id][said.file]
            if not self._files[content_id]:
                del self._files[content_id]
        if said.content_ids:
            self._said[said.file] = said
        for content_id in said.content_ids:
            self._files.setdefault(content_id, {})[said.file] = None
        for content_id in ids | dict.fromkeys(said.content_ids):
            self.changed(content_id)

    def forget(self, file: FileId) -> None:
        """The file is gone."""
        if (before := self._said.get(file)) is not None:
            self.put(PublishClaim(file=file, content_ids=(), layout=before.layout, chunks=Bitfield(0), wants=False))
