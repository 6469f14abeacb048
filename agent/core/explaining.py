"""Why a chunk is asked of this source and of none nearer, while that can still be known.

Told of what happens to near sources, and of each plan with the view it was made from; changes nothing, and costs
next to nothing while chunks come from near. Never knows: what is done with it, who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.core.integrity import Integrity
from agent.core.provenance import NOTHING_NOTED, Notes, Provenance, Reason
from agent.core.publishing import Publishing
from agent.core.requests import InFlight
from agent.core.sources import ORIGIN, NearSource, SourceId, kind_of, peer_of
from agent.core.spec import NearUse, OriginUse, TransferSpec
from agent.core.view import Assignment, OriginReadiness, View
from peer.core.failure import LOCAL, Failure, FailureKind
from validation.content import NO_CHUNKS, Bitfield, runs_in

Masks = Iterator[tuple[Reason, Bitfield]]


class Explaining:
    """The reasons of one content's requests, as they are made."""

    def __init__(self, spec: TransferSpec, publishing: Publishing, *, alone: bool) -> None:
        """`alone`: there is no group."""
        self.spec = spec
        self._publishing = publishing
        self._alone = alone
        self._notes: Notes | None = None
        self._claims: dict[SourceId, Bitfield] = {}
        """What peers said that they fetch from the origin, believed or not."""
        self._left = NO_CHUNKS
        """Chunks whose fetcher went away."""
        self._tried: dict[Reason, Bitfield] = {}
        """Chunks that a near source was asked for, and why it was in vain the last time."""
        self._failing: dict[SourceId, Reason] = {}
        self.rejected = NO_CHUNKS
        """Chunks that are fetched again because a copy was rejected."""

    # --- reading ---------------------------------------------------------------------------------------------

    def kept(self, chunks: Bitfield) -> Provenance:
        """What is known of these chunks."""
        return NOTHING_NOTED if self._notes is None else self._notes.kept(chunks)

    def restore(self, kept: Provenance) -> None:
        """What an earlier process knew."""
        if kept.runs:
            self._noted.restore(kept)

    @property
    def _noted(self) -> Notes:
        if self._notes is None:
            self._notes = Notes()
        return self._notes

    # --- what happens to near sources --------------------------------------------------------------------------

    def offered(self, source: SourceId, claimed: Bitfield) -> None:
        """It says what it fetches from the origin."""
        if claimed:
            self._claims[source] = claimed
        elif self._claims:
            self._claims.pop(source, None)

    def lost(self, source: SourceId) -> None:
        """It went away."""
        self._left = Bitfield(self._left | self._claims.pop(source, NO_CHUNKS))

    def forget(self) -> None:
        """Nobody is asked any more."""
        self._claims.clear()

    def failed(self, entry: InFlight, failure: Failure) -> None:
        """A request to a near source ended badly, or what it brought could not be proven."""
        if failure.kind is FailureKind.ABORTED or failure.kind in LOCAL:
            return
        reason = _OF_FAILURES.get(failure.kind, Reason.NEAR_FAILED)
        self._failing[entry.source] = reason
        self._in_vain(reason, entry.chunks)

    def cut_off(self, entries: Iterable[InFlight]) -> None:
        """Requests that others are to answer instead."""
        for entry in entries:
            if entry.source != ORIGIN:
                reason = Reason.NEAR_SLOW if entry.received else Reason.NEAR_SILENT
                self._failing[entry.source] = reason
                self._in_vain(reason, entry.chunks)

    def _in_vain(self, reason: Reason, chunks: Bitfield) -> None:
        for each, field in self._tried.items():
            self._tried[each] = Bitfield(field & ~chunks)
        self._tried[reason] = Bitfield(self._tried.get(reason, NO_CHUNKS) | chunks)

    # --- what is asked -----------------------------------------------------------------------------------------

    def asked(self, made: list[Assignment], view: View, near: NearUse) -> None:
        """These requests were planned from this view; `near` says whether near sources might be asked at all."""
        for assignment in made:
            if assignment.source == ORIGIN:
                self._of_origin(assignment, view, near)
            else:
                self._of_near(assignment, view)

    def _of_near(self, assignment: Assignment, view: View) -> None:
        reason = Reason.NEAREST
        if peer_of(view.near[0].source) is None:  # nearest kind first
            kind = kind_of(assignment.source).value
            nearer = (source.have for source in view.near if kind_of(source.source).value < kind)
            if any(have & assignment.chunks for have in nearer):
                reason = Reason.NEARER_BUSY
        self._noted.note(assignment.first, assignment.last, assignment.source, reason)

    def _of_origin(self, assignment: Assignment, view: View, near: NearUse) -> None:
        bar = self._bar(near)
        if bar is not None:
            self._noted.note(assignment.first, assignment.last, ORIGIN, bar)
            return
        self._noted.note(assignment.first, assignment.last, ORIGIN, self._nobody)
        left = assignment.chunks
        for reason, mask in self._why(view):
            hit = Bitfield(left & mask)
            left = Bitfield(left & ~hit)
            self._note_all(hit, reason)
            if not left:
                return

    def _note_all(self, chunks: Bitfield, reason: Reason) -> None:
        for first, last in runs_in(chunks):
            self._noted.note(first, last, ORIGIN, reason)

    @property
    def _nobody(self) -> Reason:
        return Reason.NO_GROUP if self._alone else Reason.NOBODY_NEAR

    def _bar(self, near: NearUse) -> Reason | None:
        """Why no near source may be asked for any of it; None when they may."""
        if near is NearUse.NEVER:
            if self.spec.near is NearUse.NEVER:
                return Reason.PEERS_OFF
            anchored = self.spec.integrity is Integrity.ANCHORED and not self.spec.anchors
            return Reason.NO_MANIFEST if anchored else Reason.COPY_REJECTED
        return None if self._publishing.content_ids else Reason.NOT_SHAREABLE

    def _why(self, view: View) -> Masks:
        """What holds for which chunks; the first that does is the reason."""
        yield Reason.COPY_REJECTED, Bitfield(view.origin_only & self.rejected)
        yield Reason.BAD_COPY, view.origin_only
        have = believed = NO_CHUNKS
        for source in view.near:
            believed = Bitfield(believed | source.claimed)
            if not source.cooling:
                have = Bitfield(have | source.have)
        if view.origin is OriginReadiness.WHOLE_ONLY:
            yield Reason.WHOLE_ONLY, have
        elif view.top_up:
            yield self._top_up(), have
        yield from tuple(self._tried.items())
        yield from self._unreliable(view.near)
        yield Reason.LATE_CLAIM, self._standing(believed)
        yield Reason.OWNER_LEFT, self._left
        yield from _of_group(view)

    def _top_up(self) -> Reason:
        return Reason.LEAST_TIME if self.spec.origin_use is OriginUse.LEAST_TIME else Reason.BELOW_FLOOR

    def _unreliable(self, near: tuple[NearSource, ...]) -> Masks:
        for source in near:
            if source.cooling:
                yield self._failing.get(source.source, Reason.NEAR_SILENT), source.have

    def _standing(self, believed: Bitfield) -> Bitfield:
        field = NO_CHUNKS
        for claimed in self._claims.values():
            field = Bitfield(field | claimed)
        return Bitfield(field & ~believed)


_OF_FAILURES = {
    FailureKind.BUSY: Reason.NEAR_BUSY,
    FailureKind.NO_VOUCHER: Reason.UNPROVEN,
    FailureKind.STALLED: Reason.NEAR_SILENT,
}


def _of_group(view: View) -> Masks:
    """When others want the content as well, and nobody near has the chunk or is about to."""
    owners = view.owners
    if owners is None or not owners.others:
        return
    everything = view.layout.everything
    yield Reason.OURS, owners.ours
    if view.cursor is not None:
        yield Reason.IN_ORDER, everything
    if view.origin is OriginReadiness.WHOLE_ONLY:
        yield Reason.WHOLE_ONLY, everything
    yield Reason.BEGUN, view.begun
    yield Reason.NOT_CLAIMED if view.hunger else Reason.HELPED, everything
