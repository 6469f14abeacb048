"""By which ids others may ask for the content of one file.

Never knows: whether it is shared, chunks, sources.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.facts import OriginFacts, Sharing
from agent.core.ranges_map import RangeMap
from agent.core.spec import TransferSpec
from validation.content import ContentId, content_id_by_digest, content_id_by_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Every id of one content. Empty: it has none, or the origin forbids to share it."""

    content_ids: tuple[ContentId, ...] = ()
    """Those in `url_ids`, and the one by the digest of the whole file."""
    url_ids: tuple[ContentId, ...] = ()
    """Those that only say what the origin serves."""


class Naming:
    """Makes the names, once for each answer of the origin."""

    def __init__(self) -> None:
        self._made: tuple[TransferSpec, OriginFacts, str | None, Names] | None = None

    def names(
        self, spec: TransferSpec, facts: OriginFacts | None, where: RangeMap | None, final_url: str | None
    ) -> Names:
        """The ids of what `facts` describe; of the part that `where` says, if it is one."""
        if facts is None or facts.sharing is not Sharing.ALLOWED or not facts.length:
            return Names()
        made = self._made
        if made is None or made[0] is not spec or made[1] is not facts or made[2] != final_url:
            made = self._made = (spec, facts, final_url, _names(spec, facts, where, final_url))
        return made[3]


def _names(spec: TransferSpec, facts: OriginFacts, where: RangeMap | None, final_url: str | None) -> Names:
    validator, length = facts.strong_validator, facts.length or 0
    by_url: tuple[ContentId, ...] = ()
    if validator is not None:
        if where is not None and not where.is_whole(length):
            # no header holds a NUL, so that no validator of an origin can look like this one
            validator = f"{validator}\0ranges {where.name}"
        by_url = (content_id_by_url(final_url or spec.url, validator, length),)
    by_digest = () if spec.digest is None else (content_id_by_digest(spec.digest),)
    return Names(content_ids=by_url + by_digest, url_ids=by_url)
