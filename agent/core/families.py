"""Which files of this agent have the same content, kept up to date file by file.

`Siblings` says what they tell each other; this only spares it those that have nothing to say or to ask: ten
thousand finished files with the same content cost nothing. Never knows: jobs.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from agent.core import events as ev
from agent.core.siblings import WANTING, Siblings
from agent.core.sources import FileId
from agent.core.transfer import FileTransfer, Phase
from validation.content import ContentId

_ABLE = (*WANTING, Phase.VALIDATING, Phase.DECIDING, Phase.DONE)


@dataclass(slots=True)
class _Family:
    """The files with one content, in the order they came: the first leads."""

    members: OrderedDict[FileId, FileTransfer] = field(default_factory=OrderedDict)
    wanting: dict[FileId, FileTransfer] = field(default_factory=dict)
    """Those that still miss something."""

    @property
    def leader(self) -> FileTransfer:
        """Whom the others ask."""
        return next(iter(self.members.values()))

    @property
    def followers(self) -> list[FileTransfer]:
        """Who asks it."""
        leader = self.leader
        return [each for each in self.wanting.values() if each is not leader]


class Families:
    """Files by content."""

    def __init__(self) -> None:
        self._siblings = Siblings()
        self._content: dict[FileId, ContentId] = {}
        self._families: dict[ContentId, _Family] = {}
        self._active: dict[ContentId, None] = {}
        """Those in which somebody can ask somebody else."""
        self._stale = False

    def look(self, transfer: FileTransfer, *, living: bool) -> None:
        """Something happened to the file. `living`: it may be a source for others."""
        file = transfer.spec.file
        able = living and transfer.phase in _ABLE and transfer.chunks is not None
        content = next(iter(transfer.content_ids), None) if able else None
        if self._content.get(file) != content:
            self.leave(file)
        if content is None:
            return
        self._content[file] = content
        family = self._families.setdefault(content, _Family())
        family.members[file] = transfer
        if transfer.phase in WANTING:
            family.wanting[file] = transfer
        else:
            family.wanting.pop(file, None)
        self._changed(content, family)

    def leave(self, file: FileId) -> None:
        """The file is gone."""
        content = self._content.pop(file, None)
        if content is not None:
            family = self._families[content]
            del family.members[file]
            family.wanting.pop(file, None)
            self._changed(content, family)
            if not family.members:
                del self._families[content]

    def news(self) -> list[ev.SourceOffered | ev.SourceLost]:
        """What has to be told since the last call. Costs nothing while no two files want the same."""
        if not self._stale:
            return []
        self._stale = False
        families = [self._families[content] for content in self._active]
        return self._siblings.news((family.leader, family.followers) for family in families)

    def _changed(self, content: ContentId, family: _Family) -> None:
        before = content in self._active
        if len(family.members) > 1 and family.wanting:
            self._active[content] = None
        else:
            self._active.pop(content, None)
        self._stale = self._stale or before or content in self._active
