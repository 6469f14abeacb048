"""Getting the bytes of one content: requests out, bytes and digests in, until every chunk is proven.

Commits what `scheduler.plan` chooses; whether bytes are right is `evidence.py`. Content of unknown length is one
request to the origin, and is never shared. Never knows: validators, jobs, HTTP, files.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import assert_never

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.chunks import ChunkBook
from agent.core.facts import OriginFacts
from agent.core.fetched import Fetched
from agent.core.fitness import meaning
from agent.core.keeping import Keeping
from agent.core.means import Means
from agent.core.requests import InFlight
from agent.core.saying import NOTHING, Said
from agent.core.scheduler import astray, left_to_origin, plan
from agent.core.sources import ORIGIN, SourceId, SourceKind, kind_of, peer_of
from agent.core.spec import NearUse, OriginUse, Restored, TransferSpec
from agent.core.view import Assignment, OriginReadiness, View
from peer.core.failure import Failure, FailureKind
from validation.content import (
    MAX_CONTENT_BYTES,
    MIN_CHUNK_BYTES,
    NO_CHUNKS,
    Bitfield,
    ChunkIndex,
    chunks_in,
)
from validation.ranges import ByteRange


class Fetching(Fetched):
    """The bytes of one content on their way. `length` None: unknown until the origin's answer ends."""

    def __init__(self, spec: TransferSpec, means: Means, length: int | None) -> None:
        super().__init__(spec, means, length)
        self.changed = False
        """The origin serves other content than we began with."""
        self._keeping = Keeping(spec, self._tuning, self._chunk_bytes or MIN_CHUNK_BYTES)
        self._now = 0.0
        self._fruit = False
        self._stale = True
        """Something happened since the last plan that may lead to another one."""
        self._look_again = 0.0
        self._said = NOTHING

    # --- what the transfer reads

    def all_in_sight(self, now: float) -> bool:
        """Near sources have every missing chunk: there is nothing to wait for."""
        chunks = self.chunks
        if chunks is None or self.comparing:
            return False
        return not chunks.missing & self._demand.goal(chunks.layout) & ~self._sources.in_sight(now)

    def take_fruit(self) -> bool:
        """Whether there was progress since the last call, so that patience may start afresh."""
        fruit, self._fruit = self._fruit, False
        return fruit

    def blocked_by(self) -> Failure | None:
        """Why nothing can go on: nothing in flight, nothing being digested, and the origin failed."""
        if self._requests or (self.chunks is not None and self.chunks.digesting) or self.complete:
            return None
        if self._share.failure is None or self.chunks is None or self._crowd.alone:
            return self._share.failure
        view = self._view(self.chunks, NO_CHUNKS, self._now, True)
        return self._share.failure if left_to_origin(view) else None  # others have it, or will soon

    @property
    def said(self) -> Said:
        """What peers may know now: whoever waits for us must not wait for nothing."""
        if self._crowd.alone or self.chunks is None or not self._publishing.at_once:
            return NOTHING
        claimed = self._crowd.claimed(self._now)
        wants = self._share.failure is None and not self._demand.active
        if not claimed and not wants:
            return NOTHING
        ids, layout, last = self._publishing.content_ids, self.chunks.layout, self._said
        if last.claimed != claimed or last.wants is not wants or last.content_ids is not ids:
            self._said = Said(content_ids=ids, layout=layout, claimed=claimed, wants=wants)
        return self._said

    def deadline(self) -> float:
        """When time alone changes something; infinity for never."""
        return min(self._keeping.deadline(), self._sources.next_change(self._now), *self._crowd.doubts(self._now))

    # --- beginning and ending --------------------------------------------------------------------------------

    def begin(self, facts: OriginFacts, may_join: bool, now: float, out: list[cmd.Command]) -> None:
        """The origin has answered: what it can do is known, what it did before is forgiven."""
        self._now = now
        self._stale = True
        self._share.begin(facts, may_join)
        if self._evidence is not None:
            self._evidence.ask_digests(out)

    def restore(self, restored: Restored) -> None:
        """Take over what an earlier process left. Chunks of a finished file count as proven."""
        if self.chunks is None or self._evidence is None:
            return
        self.chunks.restore(restored.held, restored.snapshot.from_origin)
        self._evidence.remember(restored.snapshot.vouchers)
        self._why.restore(restored.snapshot.provenance)
        if restored.snapshot.finished:
            for chunk in self.chunks.whole_unproven():
                self.chunks.prove(chunk)
        self._keeping.restore(self.chunks, restored.held, self.filled)

    def leave_origin(self) -> None:
        """It goes on at another URL: what is held was left by somebody, what is under way does not count."""
        if self.chunks is not None:
            for entry in self._requests.near:
                self._tally.discarded += self.chunks.discard(chunks_in(entry.chunks))
            self.chunks.inherit()
        self._requests.disown()

    def respecify(self, spec: TransferSpec) -> None:
        """The job has other wishes."""
        self._spec = self._why.spec = spec

    def stop(self, now: float, out: list[cmd.Command]) -> None:
        """Ask for nothing more, and make safe what is held."""
        self.abort_all(out)
        self._sources.forget()
        self._crowd.rest()
        self._why.forget()
        self._tally.timing.pause()
        out.append(cmd.StopAsking(file=self._spec.file))
        self._record(cmd.Durability.POWER, now, out)
        self._keeping.tell(self.filled, now, out)

    def abort_all(self, out: list[cmd.Command]) -> None:
        """End every request."""
        for entry in self._requests:
            self._abort(entry, out)

    def refetch(self, near: NearUse, out: list[cmd.Command]) -> None:
        """Throw the suspects away; only the origin may supply them again. Recorded before anything is written. What
        may be compared with what near sources have, stays."""
        assert self._evidence is not None
        compares = near is NearUse.PREFERRED and not self._crowd.alone
        self._throw_away(self._evidence.doubt(self._rng if compares else None))
        self._record(cmd.Durability.POWER, self._now, out)

    def _throw_away(self, chunks: Bitfield) -> None:
        if chunks and self.chunks is not None:
            self._tally.discarded += self.chunks.discard(chunks_in(chunks))
            self._tally.best = self.held_bytes
            self._why.rejected = Bitfield(self._why.rejected | chunks)

    def publish_accepted(self, out: list[cmd.Command]) -> None:
        """The whole file was accepted: what had to wait for that may now be offered."""
        if self._evidence is not None:
            self._evidence.accepted(out)

    def handle(self, event: ev.FetchEvent, now: float, out: list[cmd.Command]) -> None:
        """Take one event. A request that is over is unknown: what is still said of it changes nothing."""
        self._now = now
        match event:
            case ev.RangeArrived(request=request, item=item):
                self._arrived(request, item, now, out)
                return
            case ev.ChunkDigested():
                self._digested(event, now, out)
                return
            case ev.RangeReceived():
                self._received(event, out)
            case ev.SourceOffered():
                self.offered(event, now, out)
            case ev.SourceLost(source=source):
                self._sources.lost(source)
                self._why.lost(source)
                self._leave_sibling(source, out)
            case ev.CrowdSized(size=size, group=group):
                self._crowd.expect(size, group)
            case ev.RangeFailed(request=request, failure=failure):
                self._failed(request, failure, now)
            case _:
                assert_never(event)
        self._stale = True

    def offered(self, event: ev.SourceOffered, now: float, out: list[cmd.Command]) -> None:
        """The event that is by far the most frequent one in a large group."""
        self._now = now
        self._stale = True
        source, claimed = event.source, event.claimed
        self._sources.offered(source, event.have, claimed, now, wants=event.wants)
        self._why.offered(source, claimed)
        if self._requests.of_origin is not None:
            self._hand_over(source, event.have, now, out)

    def assign(self, now: float, out: list[cmd.Command], near: bool) -> None:
        """Make the requests that are to be made now. Cheap when nothing happened but that bytes arrived."""
        self._now = now
        unchanged = not self._stale and now < self._look_again
        if unchanged or self.changed or self._requests.orphans:
            return
        if self._evidence is not None:
            self._throw_away(self._evidence.compare(near, now))
        if self.complete:
            return
        self._stale = False
        if self.chunks is None:
            self._look_again = math.inf
            if not self._requests and self._share.failure is None:
                self._stream_bytes = 0
                most = min(self._spec.maximum_bytes or MAX_CONTENT_BYTES, MAX_CONTENT_BYTES)
                self._open(ORIGIN, ByteRange(0, most), NO_CHUNKS, now, out)
            return
        flying = self._requests.chunks
        if self._sources.others_came or not self._stands_still(self.chunks, flying, now, near):
            self._plan(self.chunks, flying, now, near, out)
        self._look_again = min((self._sources.next_change(now), *self._crowd.doubts(now)))

    def _stands_still(self, chunks: ChunkBook, flying: Bitfield, now: float, near: bool) -> bool:
        """A plan would be empty: nothing may be asked of the origin, and nobody near can be given anything."""
        readiness = self._share.readiness(self._engaged())
        if readiness is OriginReadiness.WHOLE_ONLY or self._crowd.slow(now):
            return False
        missing = Bitfield(chunks.missing & self._demand.goal(chunks.layout) & ~flying)
        room = self._most_near > len(self._requests.near)
        wanted = missing if self._evidence is None else Bitfield(missing & ~self._evidence.origin_only)
        if near and room and self._sources.useful(wanted, now):
            return False
        ready = readiness is OriginReadiness.READY
        if ready and (wanted != missing or not near or not self._is_barred(chunks, missing, now)):
            return False
        self._crowd.stand(now, room=room, ready=ready, missing=bool(missing))
        return True

    def _is_barred(self, chunks: ChunkBook, missing: Bitfield, now: float) -> bool:
        """In a large group: all of these chunks are for others to bring from the origin."""
        in_order = self._demand.cursor(chunks.layout) is not None
        if in_order or self._begun(chunks) or self.comparing or self._tops_up(now):
            return False
        owners = self._crowd.owners(self._publishing.content_ids, chunks.layout, now)
        if owners is None or not owners.sparse or not owners.others:
            return False
        left = Bitfield(missing & ~self._sources.near_or_coming)  # no more than a plan would leave to the origin
        opened = owners.opened(chunks.layout.count - left.bit_count())  # no fewer than it would go for
        return not owners.allowed(Bitfield(missing & opened), self._crowd.hunger(now))

    def _plan(self, chunks: ChunkBook, flying: Bitfield, now: float, near: bool, out: list[cmd.Command]) -> None:
        self._sources.others_came = False
        view = self._view(chunks, flying, now, near)
        made = plan(view, self._tuning, self._rng)
        self._why.asked(made, view, NearUse.PREFERRED if near else NearUse.NEVER)
        for assignment in made:
            self._commit(assignment, chunks, now, out)
        doubtful = self._crowd.doubt(view, made, now)
        self._why.cut_off(doubtful)
        for entry in doubtful:
            self._abort(entry, out)

    @property
    def _most_near(self) -> int:
        """Requests that near sources may carry together."""
        tuning = self._tuning
        if not self._sources.spreading:
            return tuning.near_requests
        free = self._requests.of_origin is None
        those = len(self._sources) if free else (self._sources.spreaders + 1) // 2
        return min(max(tuning.spreading_near_requests, those), tuning.spreading_near_most)

    def turn(self, now: float, out: list[cmd.Command], near: bool) -> None:
        """Other bytes are wanted first: the origin's request ends unless it is about to bring them."""
        self._now, self._stale = now, True
        entry, chunks = self._requests.of_origin, self.chunks
        if entry is None or chunks is None or self._share.whole_only or entry.cursor >= entry.item.stop:
            return
        flying = NO_CHUNKS
        for other in self._requests.near:
            flying = Bitfield(flying | other.chunks)
        current = ChunkIndex(entry.cursor // chunks.layout.chunk_bytes)
        if astray(self._view(chunks, flying, now, near), current):
            self._abort(entry, out)

    def write_down(self, now: float, out: list[cmd.Command]) -> None:
        """Record progress when a limit is reached, and tell of new bytes when that is due."""
        self._now = now
        durability = self._keeping.due(now)
        if durability is not None:
            self._record(durability, now, out)
        if self._keeping.news_due(now):
            self._keeping.tell(self.filled, now, out)

    def _view(self, chunks: ChunkBook, in_flight: Bitfield, now: float, near: bool) -> View:
        # others may begin where we cannot see them yet
        shares = near and not self.comparing  # what we miss then, others may have and still believe in
        unseen = not self._crowd.alone and chunks.layout.length > self._tuning.origin_share_bytes
        shared = self._sources.any_peer or unseen
        return View(
            layout=chunks.layout,
            missing=Bitfield(chunks.missing & self._demand.goal(chunks.layout) & ~in_flight),
            origin_only=NO_CHUNKS if self._evidence is None else self._evidence.origin_only,
            begun=self._begun(chunks),
            near=self._sources.near(now) if near else (),
            near_slots=max(0, self._most_near - len(self._requests.near)),
            origin=self._share.readiness(self._engaged()),
            origin_chunks=self._share.run_length(chunks.layout, near and shared),
            cursor=self._demand.cursor(chunks.layout),
            owners=self._crowd.owners(self._publishing.content_ids, chunks.layout, now) if shares else None,
            hunger=self._crowd.hunger(now),
            top_up=near and self._tops_up(now),
        )

    def _begun(self, chunks: ChunkBook) -> Bitfield:
        """The chunk of which the origin has sent a part, if there is one."""
        last = self._share.last_chunk
        if last is None or last >= chunks.layout.count or not (self._crowd.alone or chunks.is_begun(last)):
            return NO_CHUNKS
        return Bitfield(1 << last)

    def _engaged(self) -> bool:
        """The origin has a request in flight; a request for the whole waits until nothing else is under way."""
        if not self._share.whole_only:
            return self._requests.of_origin is not None
        return bool(self._requests) or (self.chunks is not None and bool(self.chunks.digesting))

    def _commit(self, assignment: Assignment, chunks: ChunkBook, now: float, out: list[cmd.Command]) -> None:
        item = chunks.layout.span(assignment.first, assignment.last)
        if assignment.source == ORIGIN and self._share.whole_only:
            self._tally.discarded += chunks.discard_all()
            if self._evidence is not None:
                self._evidence.expect_nothing()
            item = chunks.layout.whole
        elif assignment.source == ORIGIN:
            item = ByteRange(chunks.next_byte(assignment.first), item.stop)
        else:
            self._tally.discarded += chunks.discard(chunks_in(assignment.chunks))
        gone = self._keeping.recorded & assignment.chunks
        if gone and gone & ~chunks.touched_by(chunks.held):  # else a crash would take unproven bytes for recorded
            self._record(cmd.Durability.POWER, now, out)
        self._open(assignment.source, item, assignment.chunks, now, out)

    def _open(
        self, source: SourceId, item: ByteRange, chunks: Bitfield, now: float, out: list[cmd.Command]
    ) -> None:
        entry = self._requests.open(source, item, chunks, now)
        self._tally.timing.begin(now)
        self._sources.took(source, now)
        if peer_of(source) is not None:
            self._crowd.near_flow.begin(now)
        out.append(cmd.FetchRange(file=self._spec.file, request=entry.request, source=source, item=item))

    def _hand_over(self, source: SourceId, have: Bitfield, now: float, out: list[cmd.Command]) -> None:
        """A near source has chunks the origin is about to send: end the origin's request, near goes before far."""
        entry = self._requests.of_origin
        if entry is None or self.chunks is None or self._evidence is None:
            return
        if self._share.whole_only or not self._sources.usable(source, now):
            return
        near = Bitfield(have & ~self._sources.shunned(source) & ~self._evidence.origin_only)
        if self._crowd.overtaken(entry, near, self.chunks.layout.chunk_bytes) and not self._tops_up(now):
            self._abort(entry, out)

    def _tops_up(self, now: float) -> bool:
        if self._spec.origin_floor is None and self._spec.origin_use is OriginUse.LEAST_ORIGIN:
            return False
        chunks = self.chunks
        missing = 0 if chunks is None else chunks.layout.length - chunks.held.total
        return self._crowd.tops_up(self._spec, missing, now)

    def _leave_sibling(self, source: SourceId, out: list[cmd.Command]) -> None:
        """A file that leads no more may hold other content already: what is being copied from it does not count."""
        for entry in self._requests:
            if entry.source == source and kind_of(source) is SourceKind.SIBLING:
                self._abort(entry, out)

    def _abort(self, entry: InFlight, out: list[cmd.Command]) -> None:
        if not entry.aborting:
            entry.aborting = True
            out.append(cmd.AbortFetch(file=self._spec.file, request=entry.request))

    def _arrived(self, request: ev.RequestId, item: ByteRange, now: float, out: list[cmd.Command]) -> None:
        entry = self._requests.get(request)
        if entry is None or entry.orphan:
            return
        entry.cursor = item.stop
        self._tally.arrived(entry.source, item.length, now)
        self._keeping.arrived(item, now, readable=entry.source == ORIGIN)
        if self.chunks is None or self._evidence is None:
            self._stream_bytes = item.stop
            self._share.arrived(item, 0, now)
        elif entry.source == ORIGIN:
            self._share.arrived(item, self.chunks.layout.chunk_bytes, now)
            whole = self.chunks.arrived_from_origin(item)
            if whole:
                self._sources.claims.took((now - entry.mark) / len(whole))
                entry.mark = now
            for chunk in whole:
                entry.chunks = Bitfield(entry.chunks & ~(1 << chunk))
                self._evidence.ask_digest(chunk, out)
        else:
            self.chunks.arrived_from_near(item)
            self._crowd.near_flow.add(item.length, now)
            self._stale = self._sources.moved(entry.source, item.length, now) or self._stale
        if self.held_bytes > self._tally.best:
            self._tally.best = self.held_bytes
            self._fruit = True
            out.append(cmd.Progressed(file=self._spec.file))

    def _received(self, event: ev.RangeReceived, out: list[cmd.Command]) -> None:
        entry = self._requests.get(event.request)
        if entry is not None and entry.cursor < event.item.stop:
            self._arrived(event.request, ByteRange(entry.cursor, event.item.stop), self._now, out)
        entry = self._requests.close(event.request)
        if entry is None:
            return
        self._sources.ended(entry.source)
        if self._evidence is None:
            self._stream_bytes, self._stream_ended = event.item.stop, True
        elif entry.source == ORIGIN:
            self._share.succeeded()
        elif (fault := self._evidence.judge_delivery(entry, event.vouchers, out)) is not None:
            self._sources.failed(entry.source, fault, self._now)
            self._why.failed(entry, fault)
        else:
            chunk_s = (self._now - entry.began) / max(1, entry.chunks.bit_count())
            self._sources.delivered(entry.source, chunk_s)

    def _failed(self, request: ev.RequestId, failure: Failure, now: float) -> None:
        entry = self._requests.close(request)
        if entry is None:
            return
        self._sources.ended(entry.source)
        if failure.kind is FailureKind.ABORTED and not entry.aborting:
            failure = replace(failure, kind=FailureKind.CONNECTION_CLOSED)
        if entry.source == ORIGIN:
            self.changed = self.changed or failure.kind is FailureKind.CHANGED
            self._share.failed(meaning(failure, self._spec, self._demand), entry.received)
            return
        if self.chunks is not None:
            self._tally.discarded += self.chunks.discard(chunks_in(entry.chunks))
        self._sources.failed(entry.source, failure, now)
        self._why.failed(entry, failure)

    def _digested(self, event: ev.ChunkDigested, now: float, out: list[cmd.Command]) -> None:
        if self.chunks is None or self._evidence is None:
            return
        before, missing = self.chunks.proven, self.chunks.missing
        self._evidence.digested(event, out)
        fresh = (self.chunks.proven & ~before) >> event.chunk & 1
        if (
            not fresh
            or self.chunks.missing != missing
            or self._sources.others_came
            or self._share.whole_only
            or self._evidence.comparing is not None
        ):
            self._stale = True
        if fresh and self._keeping.is_followed and not self.chunks.came_from_origin(event.chunk):
            self._keeping.grew(self.chunks.layout.range_of(event.chunk), now)

    def _record(self, durability: cmd.Durability, now: float, out: list[cmd.Command]) -> None:
        held = tuple(self.filled) if self.chunks is not None or self._stream_ended else ()
        self._keeping.record(durability, held, self.chunks, now, out)
