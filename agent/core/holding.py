"""What is known of the content of one file, and what of it is held: facts, ids, ranges, and the bytes on their way.

Says whether what is held goes on when the origin answers anew. Counts in local offsets, `pieces` alone knows the
remote ones. Never knows: phases, verdicts, time, HTTP.
Sources: bits-reference 1.6 (SetRemoteName, ReplaceRemotePrefix), 1.7, 1.12.
"""

from __future__ import annotations

from dataclasses import replace

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.chunks import ChunkBook
from agent.core.facts import OriginFacts
from agent.core.fetching import Fetching
from agent.core.fitness import joinable, same_elsewhere
from agent.core.means import Means
from agent.core.naming import Names, Naming
from agent.core.ranges_map import RangeMap
from agent.core.spec import Restored, ServeUse, Snapshot, TransferSpec
from agent.core.timing import Timing
from peer.core.failure import Failure
from validation.content import Bitfield
from validation.ranges import ByteRange
from validation.rangeset import RangeSet


class Holding:
    """One file's content. `fetching` is None until the origin has answered, and once everything was thrown away."""

    def __init__(self, spec: TransferSpec, means: Means, restored: Restored | None) -> None:
        before = Snapshot() if restored is None else restored.snapshot
        self.spec = spec
        self.facts: OriginFacts | None = before.facts
        """What the origin said of the remote file."""
        self.response_headers = before.response_headers
        """Of the origin's last answer."""
        self.final_url = before.final_url
        """Of which URL `facts` tell, when not of the job's: where redirects led, or the one before a change."""
        self.fetching: Fetching | None = None
        self._map = _map(spec, self.facts)
        self._means = means
        self._naming = Naming()
        self._publishing = means.publishing
        # an earlier process may have offered something, unless the job forbade that
        self._publishing.published = restored is not None and spec.serve is ServeUse.ALLOWED
        self._publishing.former_ids = before.former_ids
        means.tally.timing = Timing(past_s=before.seconds, fastest=before.fastest)
        self._restored = restored

    # --- reading ---------------------------------------------------------------------------------------------

    @property
    def length(self) -> int | None:
        """Bytes of the local file; None while unknown."""
        if self._map is not None:
            return self._map.length
        return None if self.facts is None or self.spec.ranges else self.facts.length

    @property
    def held_bytes(self) -> int:
        """Bytes in the part file."""
        if self.fetching is not None:
            return self.fetching.held_bytes
        return sum(item.length for item in self._restored.held) if self._restored is not None else 0

    @property
    def filled(self) -> tuple[ByteRange, ...]:
        """Local ranges that can be read in the part file, sorted and merged."""
        if self.fetching is not None:
            return tuple(self.fetching.filled)
        return tuple(RangeSet(self._restored.held)) if self._restored is not None else ()

    @property
    def names(self) -> Names:
        """By which ids others may know it, if it may be shared at all."""
        return self._naming.names(self.spec, self.facts, self._map, self.final_url)

    @property
    def chunks(self) -> ChunkBook | None:
        """What is held and proven; None until the origin has answered, and for unknown lengths."""
        return None if self.fetching is None else self.fetching.chunks

    @property
    def is_torn(self) -> bool:
        """A part is held to which no other could be joined safely."""
        return self.facts is not None and self._is_part(self.length) and not joinable(self.spec, self.facts)

    def _is_part(self, length: int | None) -> bool:
        return self.held_bytes > 0 and self.held_bytes != length

    def pieces(self, local: ByteRange) -> list[tuple[ByteRange, int]]:
        """Remote ranges that make up a local one, in order, each with the local offset of its first byte."""
        return [(local, local.start)] if self._map is None else self._map.pieces(local)

    def snapshot(self) -> Snapshot:
        """What the next process needs of this."""
        before = Snapshot() if self._restored is None else self._restored.snapshot
        fetching = self.fetching
        return Snapshot(
            facts=self.facts,
            from_origin=before.from_origin if fetching is None else fetching.from_origin,
            vouchers=before.vouchers if fetching is None else fetching.vouchers_in_use(),
            final_url=self.final_url,
            response_headers=self.response_headers,
            former_ids=self._publishing.former_ids,
            provenance=before.provenance if fetching is None else fetching.provenance,
            seconds=self._means.tally.timing.seconds,
            fastest=self._means.tally.timing.fastest,
        )

    # --- the origin answers ----------------------------------------------------------------------------------

    def moves(self, event: ev.OriginProbed) -> bool:
        """The answer is about another URL than what is known."""
        return (event.final_url or self.spec.url) != (self.final_url or self.spec.url)

    def why_worthless(self, event: ev.OriginProbed, where: RangeMap | None) -> str | None:
        """Why what is held does not count any more; None when it goes on, or when there is nothing."""
        before, facts = self.facts, event.facts
        if before is None or (self.fetching is None and self._restored is None):
            return None
        if self.moves(event):
            if not same_elsewhere(self.spec, before, facts):
                return "the other URL has nothing that could be continued: starting again"
        elif not before.same_content(facts):
            return "the origin's content has changed: starting again"
        length = facts.length if where is None else where.length
        if self._is_part(length):
            if not joinable(self.spec, facts):
                return "the origin gives no way to join parts safely: starting again"
            if length is None and self.fetching is None:
                return "the origin does not tell the length any more: starting again"
        return None

    def take(self, event: ev.OriginProbed, where: RangeMap | None) -> Fetching:
        """This is how it is now. What was held goes on; under another URL it is somebody else's."""
        if self.fetching is not None and self.moves(event):
            self.fetching.leave_origin()
        self._publishing.name(self.names)  # what an earlier process left was offered under these
        self.facts, self._map, self.final_url = event.facts, where, event.final_url
        self._publishing.name(self.names)
        return self.fetching or self._new_fetching()

    def settle_length(self, length: int) -> None:
        """All of it is there: so long it is."""
        if self.facts is not None and self.facts.length is None:
            self.facts = replace(self.facts, length=length)

    def revive(self) -> Fetching | None:
        """What is held, also when that was left by an earlier process and the origin was not asked since."""
        if self.fetching is None and self._restored is not None and self.length is not None:
            self._new_fetching()
        return self.fetching

    def forget(self, out: list[cmd.Command]) -> int:
        """Throw everything away that is held. Returns how many bytes that were."""
        count = self.held_bytes
        if self.fetching is not None:
            self.fetching.abort_all(out)
            self._means.requests.disown()
        self.fetching = self._restored = None
        return count

    def forget_facts(self) -> None:
        """What the origin said is not true any more."""
        self.facts = self._map = self.final_url = None

    def withdraw(self) -> list[cmd.Command]:
        """Nobody may be given it any more."""
        self._publishing.name(self.names)
        return self._publishing.withdraw()

    def take_back(self) -> list[cmd.Command]:
        """Nobody may be given any more what did not come from the origin."""
        self._publishing.name(self.names)
        chunks = self.chunks
        if chunks is None:
            return self._publishing.withdraw()
        sure = chunks.from_origin & ~chunks.inherited
        return self._publishing.take_back(Bitfield(chunks.layout.everything & ~sure))

    def respecify(self, spec: TransferSpec, *, accepted: bool, out: list[cmd.Command]) -> None:
        """Other wishes. What is held stays: the next answer says whether another URL can continue it.

        What may be served only now, and was accepted, goes into the cache.
        """
        self._publishing.name(self.names)
        before, self.spec = self.spec, spec
        if spec.url != before.url and self.facts is not None and self.final_url is None:
            self.final_url = before.url
        if self.fetching is not None:
            self.fetching.respecify(spec)
        if spec.serve is not before.serve:
            out += self._publishing.use(spec.serve, accepted=accepted)
            waited = accepted and spec.serve is ServeUse.ALLOWED and not self._publishing.published
            if waited and self.fetching is not None:
                self.fetching.publish_accepted(out)

    def _new_fetching(self) -> Fetching:
        fetching = self.fetching = Fetching(self.spec, self._means, self.length)
        if self._restored is not None:
            fetching.restore(self._restored)
            self._restored = None
        return fetching


def _map(spec: TransferSpec, facts: OriginFacts | None) -> RangeMap | None:
    """The map an earlier process had: its facts are known, and fitted then."""
    found = RangeMap.resolve(spec.ranges, facts) if spec.ranges and facts is not None else None
    return None if isinstance(found, Failure) else found
