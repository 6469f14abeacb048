"""Getting the bytes of one content: requests out, bytes and digests in, until every chunk is proven.

Commits what `scheduler.plan` chooses; judges bytes by vouchers, and vouchers by the origin's bytes. Never knows:
validators, jobs, HTTP, files. Content of unknown length is one request to the origin, and is never shared.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.chunks import ChunkBook
from agent.core.facts import OriginFacts
from agent.core.origin_share import OriginShare
from agent.core.proof import Expected, allowed
from agent.core.publishing import Publishing
from agent.core.requests import InFlight, Requests
from agent.core.saving import SaveClock
from agent.core.scheduler import Assignment, View, plan
from agent.core.sources import ORIGIN, SourceBook, SourceId, SourceKind, kind_of, peer_of, peer_source
from agent.core.spec import Restored, Tally, TransferSpec
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId, Voucher, VoucherBook
from validation.content import (
    MAX_CONTENT_BYTES,
    NO_CHUNKS,
    Bitfield,
    ChunkIndex,
    ChunkLayout,
    ContentId,
    chunks_in,
)
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

FetchEvent = (
    ev.SourceOffered | ev.SourceLost | ev.RangeArrived | ev.RangeReceived | ev.RangeFailed | ev.ChunkDigested
)


class Fetching:
    """The bytes of one content on their way. `length` None: unknown until the origin's answer ends."""

    def __init__(
        self,
        *,
        spec: TransferSpec,
        tuning: Tuning,
        rng: random.Random,
        tally: Tally,
        requests: Requests,
        length: int | None,
    ) -> None:
        self.publishing = Publishing(spec)
        self.chunks: ChunkBook | None = ChunkBook(ChunkLayout.for_length(length)) if length is not None else None
        self.changed = False
        """The origin serves other content than we began with."""
        self._spec = spec
        self._tuning = tuning
        self._rng = rng
        self._tally = tally
        self._requests = requests
        self._sources = SourceBook(tuning, self.chunks.layout.chunk_bytes if self.chunks is not None else 0)
        self._vouchers = VoucherBook()
        self._expected: dict[ChunkIndex, Expected] = {}
        self._digests: dict[ChunkIndex, ChunkDigest] = {}
        self._tokens: dict[ChunkIndex, int] = {}
        self._origin_only = NO_CHUNKS
        self._share = OriginShare(tuning)
        self._save = SaveClock(tuning)
        self._stream_bytes = 0
        self._stream_ended = False
        self._now = 0.0
        self._fruit = False
        self._stale = True
        """Something happened since the last plan that may lead to another one."""
        self._look_again = 0.0

    # --- what the transfer reads -----------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Every byte is there and proven."""
        return self._stream_ended if self.chunks is None else self.chunks.complete

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._requests)

    @property
    def held_bytes(self) -> int:
        """Bytes in the part file."""
        return self._stream_bytes if self.chunks is None else self.chunks.held.total

    @property
    def from_origin(self) -> Bitfield:
        """Chunks the origin supplied."""
        return NO_CHUNKS if self.chunks is None else self.chunks.from_origin

    @property
    def claimed(self) -> Bitfield:
        """Chunks that are being fetched from the origin now."""
        entry = self._requests.of_origin
        return NO_CHUNKS if entry is None else entry.chunks

    def vouchers_in_use(self) -> tuple[Voucher, ...]:
        """The vouchers behind the chunks that came from near sources."""
        if self.chunks is None:
            return ()
        return tuple(
            voucher
            for chunk in chunks_in(self.chunks.suspects)
            if chunk in self._digests
            for voucher in self._vouchers.vouchers(chunk, self._digests[chunk])
        )

    def all_in_sight(self, now: float) -> bool:
        """Near sources have every missing chunk: there is nothing to wait for."""
        return self.chunks is not None and not self.chunks.missing & ~self._sources.in_sight(now)

    def take_fruit(self) -> bool:
        """Whether there was progress since the last call, so that patience may start afresh."""
        fruit, self._fruit = self._fruit, False
        return fruit

    def blocked_by(self) -> Failure | None:
        """Why nothing can go on: nothing in flight, nothing being digested, and the origin failed."""
        if self._requests or (self.chunks is not None and self.chunks.digesting) or self.complete:
            return None
        return self._share.failure

    def deadline(self) -> float | None:
        """When time alone changes something."""
        candidates = [self._save.deadline(), *self._sources.changes(self._now)]
        return min((at for at in candidates if at is not None), default=None)

    # --- beginning and ending --------------------------------------------------------------------------------

    def begin(self, facts: OriginFacts, may_join: bool, now: float, out: list[cmd.Command]) -> None:
        """The origin has answered: what it can do is known, what it did before is forgiven."""
        self._now = now
        self._stale = True
        self._share.begin(facts, may_join)
        self._digest_whole(out)

    def restore(self, restored: Restored) -> None:
        """Take over what an earlier process left. Chunks of a finished file count as proven."""
        if self.chunks is None:
            return
        self.chunks.restore(restored.held, restored.snapshot.from_origin)
        for voucher in restored.snapshot.vouchers:
            self._vouchers.hear(voucher)
        if restored.snapshot.finished:
            for chunk in self.chunks.whole_unproven():
                self.chunks.prove(chunk)

    def stop(self, now: float, out: list[cmd.Command]) -> None:
        """Ask for nothing more, and make safe what is held."""
        self.abort_all(out)
        self._sources.forget()
        out.append(cmd.StopAsking(file=self._spec.file))
        self._record(cmd.Durability.POWER, now, out)

    def abort_all(self, out: list[cmd.Command]) -> None:
        """End every request."""
        for entry in self._requests:
            self._abort(entry, out)

    def refetch(self, suspects: list[ChunkIndex], out: list[cmd.Command]) -> None:
        """Throw the suspects away; only the origin may supply them again. Recorded before anything is written."""
        assert self.chunks is not None
        self._tally.discarded += self.chunks.discard(suspects)
        self._tally.best = self.held_bytes
        self._expected.clear()
        self._record(cmd.Durability.POWER, self._now, out)

    def publish_accepted(self, out: list[cmd.Command]) -> None:
        """The whole file was accepted: what had to wait for that may now be offered."""
        if self.chunks is None or not self.publishing.after_acceptance:
            return
        for chunk, digest in sorted(self._digests.items()):
            self._refute(chunk, digest, self.publishing.content_ids, out)
            vouchers = self._vouchers.vouchers(chunk, digest)
            out += self.publishing.accepted(self.chunks, chunk, digest, vouchers)

    # --- events ----------------------------------------------------------------------------------------------

    def handle(self, event: FetchEvent, now: float, out: list[cmd.Command]) -> None:
        """Take one event. A request that is over is unknown: what is still said of it changes nothing."""
        self._now = now
        self._stale = self._stale or not isinstance(event, ev.RangeArrived)
        match event:
            case ev.SourceOffered(source=source, have=have, claimed=claimed):
                self._sources.offered(source, have, claimed, now)
                self._hand_over(source, have, now, out)
            case ev.SourceLost(source=source):
                self._sources.lost(source)
                self._leave_sibling(source, out)
            case ev.RangeArrived(request=request, item=item):
                self._arrived(request, item, now, out)
            case ev.RangeReceived():
                self._received(event, out)
            case ev.RangeFailed(request=request, failure=failure):
                self._failed(request, failure, now)
            case ev.ChunkDigested(chunk=chunk, digest=digest, token=token):
                if token is None or token == self._tokens.get(chunk):
                    self._digested(chunk, digest, out)
            case _:
                assert_never(event)

    def assign(self, now: float, out: list[cmd.Command], near: bool) -> None:
        """Make the requests that are to be made now. Cheap when nothing happened but that bytes arrived."""
        self._now = now
        unchanged = not self._stale and now < self._look_again
        if unchanged or self.complete or self.changed or self._requests.orphans:
            return
        self._stale = False
        self._look_again = min(self._sources.changes(now), default=math.inf)
        if self.chunks is None:
            if not self._requests and self._share.failure is None:
                self._stream_bytes = 0
                self._open(ORIGIN, ByteRange(0, MAX_CONTENT_BYTES), NO_CHUNKS, now, out)
            return
        for assignment in plan(self._view(self.chunks, now, near), self._tuning, self._rng):
            self._commit(assignment, self.chunks, now, out)

    def save_if_due(self, now: float, out: list[cmd.Command]) -> None:
        """Record progress when a limit is reached."""
        durability = self._save.due(now)
        if durability is not None:
            self._record(durability, now, out)

    # --- choosing --------------------------------------------------------------------------------------------

    def _view(self, chunks: ChunkBook, now: float, near: bool) -> View:
        in_flight = self._requests.chunks
        begun = NO_CHUNKS
        if self._share.last_chunk is not None and self._share.last_chunk < chunks.layout.count:
            begun = Bitfield(1 << self._share.last_chunk)
        return View(
            layout=chunks.layout,
            missing=Bitfield(chunks.missing & ~in_flight),
            origin_only=self._origin_only,
            begun=begun,
            near=self._sources.near(now) if near else (),
            near_slots=max(0, self._tuning.near_requests - len(self._requests.near)),
            origin=self._share.readiness(self._engaged()),
            origin_chunks=self._share.run_length(chunks.layout, near and self._sources.any_peer),
        )

    def _engaged(self) -> bool:
        """The origin has a request in flight; a request for the whole waits until nothing else is under way."""
        if not self._share.whole_only:
            return self._requests.of_origin is not None
        return bool(self._requests) or (self.chunks is not None and bool(self.chunks.digesting))

    def _commit(self, assignment: Assignment, chunks: ChunkBook, now: float, out: list[cmd.Command]) -> None:
        item = chunks.layout.span(assignment.first, assignment.last)
        if assignment.source == ORIGIN and self._share.whole_only:
            self._tally.discarded += chunks.discard_all()
            self._expected.clear()
            item = chunks.layout.whole
        elif assignment.source == ORIGIN:
            item = ByteRange(chunks.next_byte(assignment.first), item.stop)
        else:
            self._tally.discarded += chunks.discard(chunks_in(assignment.chunks))
        self._open(assignment.source, item, assignment.chunks, now, out)

    def _open(
        self, source: SourceId, item: ByteRange, chunks: Bitfield, now: float, out: list[cmd.Command]
    ) -> None:
        entry = self._requests.open(source, item, chunks, now)
        self._sources.took(source)
        out.append(cmd.FetchRange(file=self._spec.file, request=entry.request, source=source, item=item))

    def _hand_over(self, source: SourceId, have: Bitfield, now: float, out: list[cmd.Command]) -> None:
        """A near source has chunks the origin is about to send: end the origin's request, near goes before far."""
        entry = self._requests.of_origin
        if entry is None or self.chunks is None or self._share.whole_only or not self._sources.usable(source, now):
            return
        current = 1 << (entry.cursor // self.chunks.layout.chunk_bytes)
        if have & entry.chunks & ~self._origin_only & ~current:
            self._abort(entry, out)

    def _leave_sibling(self, source: SourceId, out: list[cmd.Command]) -> None:
        """A file that leads no more may hold other content already: what is being copied from it does not count."""
        for entry in self._requests:
            if entry.source == source and kind_of(source) is SourceKind.SIBLING:
                self._abort(entry, out)

    def _abort(self, entry: InFlight, out: list[cmd.Command]) -> None:
        if not entry.aborting:
            entry.aborting = True
            out.append(cmd.AbortFetch(file=self._spec.file, request=entry.request))

    # --- bytes -----------------------------------------------------------------------------------------------

    def _arrived(self, request: ev.RequestId, item: ByteRange, now: float, out: list[cmd.Command]) -> None:
        entry = self._requests.get(request)
        if entry is None or entry.orphan:
            return
        entry.cursor = item.stop
        self._count(entry.source, item.length)
        self._save.arrived(item.length, now)
        if self.chunks is None:
            self._stream_bytes = item.stop
            self._share.arrived(item, 0, now)
        elif entry.source == ORIGIN:
            self._share.arrived(item, self.chunks.layout.chunk_bytes, now)
            for chunk in self.chunks.arrived_from_origin(item):
                entry.chunks = Bitfield(entry.chunks & ~(1 << chunk))
                self._digest(chunk, out)
        else:
            self.chunks.arrived_from_near(item)
        if self.held_bytes > self._tally.best:
            self._tally.best = self.held_bytes
            self._fruit = True
            out.append(cmd.Progressed(file=self._spec.file))

    def _count(self, source: SourceId, length: int) -> None:
        peer = peer_of(source)
        if source == ORIGIN:
            self._tally.from_origin += length
        elif peer is not None:
            self._tally.by_peer[peer] = self._tally.by_peer.get(peer, 0) + length
        else:
            self._tally.from_cache += length

    def _received(self, event: ev.RangeReceived, out: list[cmd.Command]) -> None:
        entry = self._requests.close(event.request)
        if entry is None:
            return
        self._sources.ended(entry.source)
        if self.chunks is None:
            self._stream_bytes, self._stream_ended = event.item.stop, True
        elif entry.source == ORIGIN:
            self._share.succeeded()
        else:
            self._judge_delivery(entry, event.vouchers, self.chunks, out)

    def _failed(self, request: ev.RequestId, failure: Failure, now: float) -> None:
        entry = self._requests.close(request)
        if entry is None:
            return
        self._sources.ended(entry.source)
        if failure.kind is FailureKind.ABORTED and not entry.aborting:
            failure = replace(failure, kind=FailureKind.CONNECTION_CLOSED)
        if entry.source == ORIGIN:
            self.changed = self.changed or failure.kind is FailureKind.CHANGED
            self._share.failed(failure, entry.received)
            return
        if self.chunks is not None:
            self._tally.discarded += self.chunks.discard(chunks_in(entry.chunks))
        self._sources.failed(entry.source, failure, now)

    # --- proof -----------------------------------------------------------------------------------------------

    def _judge_delivery(
        self, entry: InFlight, vouchers: tuple[Voucher, ...], chunks: ChunkBook, out: list[cmd.Command]
    ) -> None:
        """A near source delivered: each chunk needs a digest it must have, or it does not count."""
        told = {
            voucher.chunk
            for voucher in vouchers
            if voucher.content_id in self.publishing.content_ids and self._vouchers.hear(voucher)
        }
        of_peer = kind_of(entry.source) is SourceKind.PEER
        silent = False
        for chunk in chunks_in(entry.chunks):
            claims = self._vouchers.digests(chunk)
            if self._spec.anchors or not (of_peer or claims):
                self._expect(chunk, entry.source, None, out)
            elif of_peer and chunk not in told:
                silent = True  # what others vouched for is no measure of these bytes
                self._tally.discarded += chunks.discard((chunk,))
            elif len(claims) == 1:
                self._expect(chunk, entry.source, claims[0], out)
            else:
                self._tally.discarded += chunks.discard((chunk,))
                self._origin_only = Bitfield(self._origin_only | 1 << chunk)
                self._log(f"vouchers contradict each other for chunk {chunk}: asking the origin", out)
        if silent:
            missing = Failure(kind=FailureKind.NO_VOUCHER, message="no voucher for a chunk")
            self._sources.failed(entry.source, missing, self._now)
        else:
            self._sources.delivered(entry.source)

    def _expect(
        self, chunk: ChunkIndex, source: SourceId, digest: ChunkDigest | None, out: list[cmd.Command]
    ) -> None:
        vouchers = self._vouchers.vouchers(chunk, digest) if digest is not None else ()
        self._expected[chunk] = Expected(source=source, digest=digest, vouchers=vouchers)
        self._digest(chunk, out)

    def _digest_whole(self, out: list[cmd.Command]) -> None:
        if self.chunks is None:
            return
        self.chunks.forget_digests()  # some may never be answered: the disk had failed
        in_flight = self._requests.chunks
        for chunk in self.chunks.whole_unproven():
            if not in_flight >> chunk & 1:
                self._digest(chunk, out)

    def _digest(self, chunk: ChunkIndex, out: list[cmd.Command]) -> None:
        assert self.chunks is not None
        self.chunks.begin_digest(chunk)
        item = self.chunks.layout.range_of(chunk)
        token = self._tokens[chunk] = self._requests.number()
        out.append(cmd.DigestChunk(file=self._spec.file, chunk=chunk, item=item, token=token))

    def _digested(self, chunk: ChunkIndex, digest: ChunkDigest, out: list[cmd.Command]) -> None:
        chunks = self.chunks
        if chunks is None or not chunks.end_digest(chunk):
            return
        expected = self._expected.pop(chunk, None)
        claims = () if chunks.came_from_origin(chunk) else self._vouchers.digests(chunk)
        wanted = allowed(chunk, self._spec.anchors, expected, claims)
        if wanted and digest not in wanted:
            self._corrupt(chunk, expected, chunks, out)
            return
        vouched = not self._spec.anchors and expected is not None and expected.digest is not None
        if vouched and not self._vouchers.vouchers(chunk, digest):  # its only signer was found lying meanwhile
            self._tally.discarded += chunks.discard((chunk,))
            return
        chunks.prove(chunk)
        self._digests[chunk] = digest
        if expected is None and chunks.came_from_origin(chunk):
            if not chunks.inherited >> chunk & 1:
                self._refute(chunk, digest, self.publishing.url_ids, out)
                out += self.publishing.proven(chunks, chunk, digest, ())
        elif expected is not None and kind_of(expected.source) is SourceKind.PEER:
            out += self.publishing.proven(chunks, chunk, digest, expected.vouchers)

    def _corrupt(
        self, chunk: ChunkIndex, expected: Expected | None, chunks: ChunkBook, out: list[cmd.Command]
    ) -> None:
        """Bytes that are not what they had to be: thrown away, their bearer blamed, the origin asked instead."""
        from_origin = chunks.came_from_origin(chunk)
        self._tally.discarded += chunks.discard((chunk,))
        self._origin_only = Bitfield(self._origin_only | 1 << chunk)
        if expected is None and not from_origin:
            return  # left by an earlier process, damaged since
        if expected is None:
            text = f"chunk {chunk} from the origin does not match the manifest"
            self._share.failed(Failure(kind=FailureKind.CORRUPT, message=text), 0)
            return
        self._sources.drop(expected.source)
        peer = peer_of(expected.source)
        if peer is not None:
            self._report(peer, Offence.CORRUPT_BYTES, f"chunk {chunk}", out)
        else:
            out.append(
                cmd.WithdrawChunks(
                    file=self._spec.file, content_ids=self.publishing.content_ids, chunks=Bitfield(1 << chunk)
                )
            )

    def _refute(
        self, chunk: ChunkIndex, truth: ChunkDigest, ids: tuple[ContentId, ...], out: list[cmd.Command]
    ) -> None:
        for signer in self._vouchers.refute(chunk, truth, ids):
            self._report(signer, Offence.FALSE_VOUCHER, f"chunk {chunk}", out)

    def _report(self, peer: PeerId, offence: Offence, detail: str, out: list[cmd.Command]) -> None:
        self._sources.drop(peer_source(peer))
        chunks, baseless = self.chunks, self._vouchers.forget_signer(peer)
        if chunks is not None and not self._spec.anchors:
            suspects = chunks.suspects
            gone = [at for at, digest in baseless if suspects >> at & 1 and self._digests.get(at) == digest]
            self._tally.discarded += chunks.discard(gone)
        out.append(cmd.ReportPeer(file=self._spec.file, peer=peer, offence=offence, detail=detail))

    # --- recording -------------------------------------------------------------------------------------------

    def _record(self, durability: cmd.Durability, now: float, out: list[cmd.Command]) -> None:
        self._save.saved(durability, now)
        held: Iterable[ByteRange] = ()
        if self.chunks is not None:
            held = self.chunks.keepable(entry.item for entry in self._requests.near)
        out.append(cmd.SaveProgress(file=self._spec.file, held=tuple(held), durability=durability))

    def _log(self, text: str, out: list[cmd.Command]) -> None:
        out.append(cmd.LogLine(file=self._spec.file, text=text))
