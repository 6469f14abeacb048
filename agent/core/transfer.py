"""One file on its way, from the first question to the last verdict.

`FileTransfer` gets events and the time, and returns commands. It decides when content is complete, and what
answers, verdicts and wishes mean in which phase; *which* chunk comes from where is `scheduler.plan`, whether what
is held goes on is `holding.py`. Never knows: jobs, HTTP, TLS, files, threads.
Sources: bits-reference 1.6, 1.11, 3.2, 3.3 and its traps 1 to 5.
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
from agent.core.demand import Demand
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.fetching import Fetching
from agent.core.fitness import fit, may_join
from agent.core.holding import Holding
from agent.core.integrity import Integrity
from agent.core.means import Means
from agent.core.phases import BUSY, GETTING, WHOLE
from agent.core.phases import Phase as Phase
from agent.core.publishing import Publishing
from agent.core.rejections import Rejections
from agent.core.requests import Requests
from agent.core.saying import NOTHING, Saying
from agent.core.spec import Decision, NearUse, Restored, ServeUse, Snapshot, Tally, TransferSpec
from agent.core.troubles import Troubles
from agent.core.tuning import Tuning
from peer.core.failure import LOCAL, Failure, FailureKind
from peer.core.voucher import PeerId
from validation.content import Bitfield, ChunkLayout, ContentId
from validation.ranges import ByteRange

Verdict = ev.ContentAccepted | ev.ContentRejected | ev.ContentUndecided | ev.ValidatorFailed
Ending = ev.RangeReceived | ev.RangeFailed
Wish = ev.RangesWanted | ev.PositionMoved | ev.Respecified | ev.Decided
PhaseEvent = (
    ev.Begun
    | ev.Paused
    | ev.OriginProbed
    | ev.ProbeFailed
    | ev.NearAnswered
    | ev.Ticked
    | ev.StorageFailed
    | ev.PartFileLost
)
_NO_SUCH_PART = frozenset({FailureKind.INVALID_RANGE, FailureKind.RANDOM_ACCESS_UNSUPPORTED})


class FileTransfer:
    """One file on its way. Pure: same events, same `now`, same seed give the same commands."""

    def __init__(
        self,
        spec: TransferSpec,
        tuning: Tuning,
        rng: random.Random,
        restored: Restored | None = None,
        own: PeerId | None = None,
    ) -> None:
        """`own`: this agent, as its group knows it; None without a group."""
        before = Snapshot() if restored is None else restored.snapshot
        self.spec = spec
        self.phase = Phase.DONE if before.finished else Phase.IDLE
        self.tally = Tally(
            from_origin=before.from_origin_bytes,
            from_cache=before.from_cache_bytes,
            by_peer=dict(before.by_peer),
            discarded=before.discarded_bytes,
        )
        self.decision: Decision | None = before.decision
        """Of the application, about the bytes that are there or were rejected; None: it has decided nothing."""
        self._demand = Demand(on_demand=spec.on_demand, wanted=before.wanted, position=before.position)
        self._means = Means(
            tuning=tuning,
            rng=rng,
            tally=self.tally,
            requests=Requests(),
            demand=self._demand,
            publishing=Publishing(spec),
            own=own,
        )
        self._saying = Saying(spec.file)
        self._troubles = Troubles(spec, tuning, rng)
        self._held = Holding(spec, self._means, restored)
        self._rejections = Rejections(spec.file, before)
        self._probe = 0
        self._attempt = 0
        self._gather_until: float | None = None
        self._noted: dict[str, None] = {}

    # --- what others may read ------------------------------------------------------------------------------

    @property
    def near(self) -> NearUse:
        """Whether near sources may supply this file: the job's word, and no copy of theirs was rejected."""
        return NearUse.NEVER if self._rejections.near_refused else self.spec.near

    @property
    def facts(self) -> OriginFacts | None:
        """What the origin said of the remote file."""
        return self._held.facts

    @property
    def response_headers(self) -> tuple[tuple[str, str], ...]:
        """Of the origin's last answer."""
        return self._held.response_headers

    @property
    def final_url(self) -> str | None:
        """Of which URL `facts` tell, when not of the job's: where redirects led, or the one before a change."""
        return self._held.final_url

    @property
    def length(self) -> int | None:
        """Bytes of the local file; None while unknown."""
        return self._held.length

    @property
    def held_bytes(self) -> int:
        """Bytes in the part file."""
        return self._held.held_bytes

    @property
    def filled(self) -> tuple[ByteRange, ...]:
        """Local ranges that can be read in the part file, sorted and merged (BITS' GetFilledFileRanges)."""
        return self._held.filled

    @property
    def demanded(self) -> bool:
        """Some bytes are wanted before everything else, and nothing else for now."""
        return self._demand.active and self.phase not in WHOLE

    @property
    def content_ids(self) -> tuple[ContentId, ...]:
        """By which ids others may ask for this content; empty when it may not be shared or has no identity."""
        apart = self.spec.near is NearUse.NEVER and self.spec.serve is ServeUse.NEVER
        return () if apart else self._held.names.content_ids

    @property
    def chunks(self) -> ChunkBook | None:
        """What is held and proven; None until the origin has answered, and for unknown lengths."""
        return self._held.chunks

    @property
    def claim(self) -> Bitfield:
        """The chunks that it is fetching from the origin now, as peers are told."""
        return self._saying.said.claimed

    @property
    def wants(self) -> bool:
        """Peers are told that it takes part in bringing this content."""
        return self._saying.said.wants

    def pieces(self, local: ByteRange) -> list[tuple[ByteRange, int]]:
        """Remote ranges that make up a local one, in order, each with the local offset of its first byte."""
        return self._held.pieces(local)

    def snapshot(self) -> Snapshot:
        """What the next process needs besides the held ranges."""
        return replace(
            self._held.snapshot(),
            near=NearUse.NEVER if self._rejections.near_refused else NearUse.PREFERRED,
            rejections=self._rejections.count,
            finished=self.phase is Phase.DONE,
            decision=self.decision,
            from_origin_bytes=self.tally.from_origin,
            from_cache_bytes=self.tally.from_cache,
            by_peer=tuple(sorted(self.tally.by_peer.items())),
            discarded_bytes=self.tally.discarded,
            wanted=tuple(self._demand.wanted),
            position=self._demand.position,
        )

    def deadline(self) -> float | None:
        """When `handle(Ticked(...), now)` is wanted next, in seconds of the caller's clock."""
        fetching = math.inf if self._held.fetching is None else self._held.fetching.deadline()
        first = min(fetching, math.inf if self._gather_until is None else self._gather_until)
        return None if first == math.inf else first

    # --- events --------------------------------------------------------------------------------------------

    def handle(self, event: ev.FileEvent, now: float) -> list[cmd.Command]:
        """Take one event and say what to do. Events that come too late to matter change nothing."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[ev.FileEvent], now: float) -> list[cmd.Command]:
        """Take what happened at one moment. What is asked for next is decided once, after the last event."""
        out: list[cmd.Command] = []
        for event in events:
            self._take(event, now, out)
        self._advance(now, out)
        fetching = self._held.fetching
        said = NOTHING if fetching is None or not self._asks_near() else fetching.said
        return self._saying.news(said, self.chunks) + out

    def _take(self, event: ev.FileEvent, now: float, out: list[cmd.Command]) -> None:
        match event:
            case ev.SourceOffered():
                self._offered(event, now, out)
            case (  # the most frequent ones first: each that it is not costs something
                ev.RangeArrived()
                | ev.RangeReceived()
                | ev.ChunkDigested()
                | ev.RangeFailed()
                | ev.SourceLost()
                | ev.CrowdSized()
            ):
                self._fetch_event(event, now, out)
            case ev.ContentAccepted() | ev.ContentRejected() | ev.ContentUndecided() | ev.ValidatorFailed():
                self._verdict(event, out)
            case ev.RangesWanted() | ev.PositionMoved() | ev.Respecified() | ev.Decided():
                self._wish(event, now, out)
            case _:
                self._phase_event(event, now, out)

    def _phase_event(self, event: PhaseEvent, now: float, out: list[cmd.Command]) -> None:
        match event:
            case ev.Begun():
                if self.phase in (Phase.IDLE, Phase.FAILED):
                    self._ask_origin(out)
            case ev.Paused():
                if self.phase in BUSY:
                    self._stand_still(now, out)
                    self.phase = Phase.IDLE
            case ev.OriginProbed():
                if self._awaits(event.probe):
                    self._probed(event, now, out)
            case ev.ProbeFailed(failure=failure):
                if self._awaits(event.probe):
                    self._trouble(failure, now, out)
            case ev.NearAnswered():
                self._gathered()
            case ev.Ticked():
                if self._gather_until is not None and now >= self._gather_until:
                    self._gathered()
            case ev.StorageFailed(failure=failure):
                if self.phase in BUSY:
                    self._trouble(failure, now, out)
            case ev.PartFileLost():
                self._part_file_lost(out)
            case _:
                assert_never(event)

    def _offered(self, event: ev.SourceOffered, now: float, out: list[cmd.Command]) -> None:
        fetching = self._held.fetching
        if fetching is None or not self._asks_near():
            return
        fetching.offered(event, now, out)

    def _fetch_event(self, event: ev.FetchEvent, now: float, out: list[cmd.Command]) -> None:
        requests = self._means.requests
        if requests.orphans and isinstance(event, Ending) and requests.close_orphan(event.request):
            return
        fetching = self._held.fetching
        if fetching is None:
            return
        failed = event if type(event) is ev.RangeFailed and requests.get(event.request) is not None else None
        fetching.handle(event, now, out)
        if failed is not None and failed.failure.kind in LOCAL and self.phase in BUSY:
            self._trouble(failed.failure, now, out)

    def _ask_origin(self, out: list[cmd.Command]) -> None:
        self.phase = Phase.PROBING
        self._probe = self._means.requests.number()
        out.append(cmd.ProbeOrigin(file=self.spec.file, probe=self._probe))

    def _awaits(self, probe: int | None) -> bool:
        return self.phase is Phase.PROBING and probe in (None, self._probe)

    def _stand_still(self, now: float, out: list[cmd.Command]) -> None:
        self._gather_until = None
        self._attempt += 1
        if self._held.fetching is not None:
            self._held.fetching.stop(now, out)

    # --- the origin has answered -----------------------------------------------------------------------------

    def _probed(self, event: ev.OriginProbed, now: float, out: list[cmd.Command]) -> None:
        facts, file, held = event.facts, self.spec.file, self._held
        held.response_headers = event.headers
        fresh = [text for text in event.notes if text not in self._noted]
        self._noted.update(dict.fromkeys(fresh))
        out += [cmd.LogLine(file=file, text=text) for text in fresh]
        found = fit(self.spec, facts, self._demand)
        if isinstance(found, Failure):
            self._trouble(found, now, out)
            return
        if (why := held.why_worthless(event, found)) is not None:
            self._forget(why, out)
            self._rejections.near_refused = self._rejections.near_refused and not held.moves(event)
        fetching = held.take(event, found)
        out.append(cmd.Connected(file=file))
        out.append(cmd.PrepareFile(file=file, length=held.length))
        fetching.begin(facts, may_join(self.spec, facts), now, out)
        if (not fetching.complete or fetching.comparing) and self._usable_near() and held.names.content_ids:
            self.phase = Phase.GATHERING
            self._gather_until = now + self._means.tuning.gather_s
            layout = ChunkLayout.for_length(held.length or 0)
            out.append(cmd.AskNear(file=file, content_ids=held.names.content_ids, layout=layout))
        else:
            self.phase = Phase.FETCHING

    def _asks_near(self) -> bool:
        return self.phase in GETTING and self._usable_near()

    def _usable_near(self) -> bool:
        spec = self.spec
        return self.near is NearUse.PREFERRED and (spec.integrity is not Integrity.ANCHORED or bool(spec.anchors))

    def _gathered(self) -> None:
        self._gather_until = None
        if self.phase is Phase.GATHERING:
            self.phase = Phase.FETCHING

    def _forget(self, why: str, out: list[cmd.Command]) -> None:
        """Nothing that is held counts any more."""
        self.tally.discarded += self._held.forget(out)
        self._attempt += 1
        out.append(cmd.StopAsking(file=self.spec.file))
        out.append(cmd.ForgetProgress(file=self.spec.file))
        out.append(cmd.LogLine(file=self.spec.file, text=why))

    def _part_file_lost(self, out: list[cmd.Command]) -> None:
        self._forget("the temporary file is not the one that was written: starting again", out)
        if self.phase in BUSY:
            self._gather_until = None
            self._ask_origin(out)
        elif self.phase in (Phase.DECIDING, Phase.DONE):
            self.phase = Phase.IDLE
            out.append(cmd.Refetching(file=self.spec.file, reason="the temporary file was lost"))

    # --- going on --------------------------------------------------------------------------------------------

    def _advance(self, now: float, out: list[cmd.Command]) -> None:
        fetching = self._held.fetching
        if fetching is None:
            return
        fetching.write_down(now, out)
        if self.phase is Phase.GATHERING and fetching.all_in_sight(now):
            self._gathered()
        if self.phase is not Phase.FETCHING:
            return
        fetching.assign(now, out, self._usable_near())
        if fetching.changed:
            self._content_changed(now, out)
        elif fetching.complete and not fetching.in_flight:
            self._validate(fetching, now, out)
        elif fetching.demand_met and not fetching.complete:
            self._stand_still(now, out)
            self._demand.forget()
            self.phase = Phase.IDLE
            out.append(cmd.DemandMet(file=self.spec.file))
        elif (failure := fetching.blocked_by()) is not None:
            self._trouble(failure, now, out)

    def _content_changed(self, now: float, out: list[cmd.Command]) -> None:
        if self._troubles.restarts_too_often():
            self._forget("the origin's content changes faster than it can be fetched", out)
            why = Failure(kind=FailureKind.CHANGED, message="the content keeps changing at the origin")
            self._trouble(why, now, out)
            return
        self._forget("the origin's content has changed: starting again", out)
        self.tally.best = 0
        self._held.forget_facts()
        self._ask_origin(out)

    def _validate(self, fetching: Fetching, now: float, out: list[cmd.Command]) -> None:
        self._held.settle_length(fetching.held_bytes)
        self._demand.forget()
        fetching.stop(now, out)
        self._attempt += 1
        self.decision = None
        self.phase = Phase.VALIDATING
        out.append(cmd.AllThere(file=self.spec.file))
        out.append(cmd.ValidateContent(file=self.spec.file, attempt=self._attempt))

    def _trouble(self, failure: Failure, now: float, out: list[cmd.Command]) -> None:
        """Nothing can be done now: wait if it may pass, else give up until somebody changes something."""
        self._stand_still(now, out)
        if failure.kind in _NO_SUCH_PART:
            self._demand.forget()
        if self._troubles.is_fatal(failure, self.held_bytes):
            self.phase = Phase.FAILED
            out.append(self._troubles.end(failure))
            return
        self.phase = Phase.IDLE
        if self._held.fetching is not None and self._held.fetching.take_fruit():
            self._troubles.progressed()
        if self._held.is_torn:
            self._forget("what came cannot be continued: its space is given back", out)
        out.append(self._troubles.wait(failure, now))

    # --- verdicts --------------------------------------------------------------------------------------------

    def _verdict(self, event: Verdict, out: list[cmd.Command]) -> None:
        if self.phase is not Phase.VALIDATING or event.attempt != self._attempt:
            return
        match event:
            case ev.ContentAccepted():
                self._accept(out)
            case ev.ContentUndecided():
                self.phase = Phase.DECIDING
                if self.decision is Decision.VALID:
                    self._accept(out)
                else:
                    out.append(cmd.Undecided(file=self.spec.file))
            case ev.ContentRejected(reason=reason):
                self._reject(reason, out)
            case ev.ValidatorFailed(reason=reason):
                self.phase = Phase.FAILED
                out.append(
                    cmd.Failed(file=self.spec.file, code="VALIDATOR_FAILED", message=reason, context="validator")
                )
            case _:
                assert_never(event)

    def _accept(self, out: list[cmd.Command]) -> None:
        self.phase = Phase.DONE
        if self._held.fetching is not None:
            self._held.fetching.publish_accepted(out)
        out.append(cmd.Finished(file=self.spec.file))

    def _decided(self, decision: Decision, out: list[cmd.Command]) -> None:
        """BITS' SetValidationState: whatever was decided before, as long as every byte is there."""
        if self.phase not in WHOLE:
            return
        self.decision = decision
        if decision is Decision.INVALID:
            self._reject("the application found it invalid", out)
        elif self.phase is Phase.DECIDING:
            self._accept(out)

    def _reject(self, reason: str, out: list[cmd.Command]) -> None:
        """BITS 3.2: invalid bytes of peers are fetched again from the origin; those of the origin are an error."""
        near = NearUse.PREFERRED if self._usable_near() else NearUse.NEVER
        if self._rejections.take(self._held, near, reason, out):
            self.phase = Phase.IDLE
            return
        self._forget(f"rejected: {reason}", out)
        self.tally.best = 0
        self.phase = Phase.FAILED
        out.append(cmd.Failed(file=self.spec.file, code="VALIDATION_FAILED", message=reason, context="origin"))

    # --- what the job wishes ---------------------------------------------------------------------------------

    def _wish(self, event: Wish, now: float, out: list[cmd.Command]) -> None:
        match event:
            case ev.Decided(decision=decision):
                self._decided(decision, out)
            case ev.Respecified(spec=spec):
                self._respecify(spec, now, out)
            case ev.RangesWanted(items=items):
                if self.phase not in WHOLE:
                    self._demand.want(items)
                    self._turn(now, out)
            case ev.PositionMoved(offset=offset):
                self._demand.position = offset
                self._turn(now, out)
            case _:
                assert_never(event)

    def _turn(self, now: float, out: list[cmd.Command]) -> None:
        """Other bytes are wanted first, if they can be had."""
        facts, fetching = self.facts, self._held.fetching
        if self.phase not in GETTING or facts is None or fetching is None:
            return
        if self._demand.active and fetching.whole_only:
            facts = replace(facts, ranges=RangeSupport.NONE)
        found = fit(self.spec, facts, self._demand)
        if isinstance(found, Failure):
            self._trouble(found, now, out)
            return
        fetching.turn(now, out, self._usable_near())

    def _respecify(self, spec: TransferSpec, now: float, out: list[cmd.Command]) -> None:
        """A file that is whole is left alone: another URL counts when it has to be fetched again."""
        before, self.spec = self.spec, spec
        self._troubles.respecify(spec)
        self._held.respecify(spec, accepted=self.phase is Phase.DONE, out=out)
        if spec.url != before.url:
            self.tally.best = 0
        asks_anew = (spec.url, spec.near, spec.maximum_bytes) != (before.url, before.near, before.maximum_bytes)
        if asks_anew and (self.phase is Phase.PROBING or self.phase in GETTING):
            self._stand_still(now, out)
            self._ask_origin(out)
