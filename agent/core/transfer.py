"""One file on its way, from the first question to the last verdict.

`FileTransfer` gets events and the time, and returns commands. It decides what a failure means, when content is
complete, and whose fault a rejection is; *which* chunk comes from where is `scheduler.plan`. Never knows: jobs,
HTTP, TLS, files, threads.
"""

from __future__ import annotations

import random
from dataclasses import replace
from enum import Enum
from typing import assert_never

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.backoff import Backoff
from agent.core.chunks import ChunkBook
from agent.core.facts import OriginFacts, RangeSupport, Sharing
from agent.core.fetching import FetchEvent, Fetching
from agent.core.integrity import Integrity
from agent.core.requests import Requests
from agent.core.spec import NearUse, Restored, Snapshot, Tally, TransferSpec
from agent.core.tuning import Tuning
from peer.core.failure import LOCAL, Failure, FailureKind, Persistence
from validation.content import (
    ChunkIndex,
    ChunkLayout,
    ContentId,
    chunks_in,
    content_id_by_digest,
    content_id_by_url,
)


class Phase(Enum):
    """Where a file is. Exactly one at a time; the only state that decides what an event means."""

    IDLE = "idle"
    """Waits for `Begun`."""
    PROBING = "probing"
    GATHERING = "gathering"
    FETCHING = "fetching"
    VALIDATING = "validating"
    DECIDING = "deciding"
    DONE = "done"
    FAILED = "failed"


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
_BUSY = (Phase.PROBING, Phase.GATHERING, Phase.FETCHING, Phase.VALIDATING)


class FileTransfer:
    """One file on its way. Pure: same events, same `now`, same seed give the same commands."""

    def __init__(
        self, spec: TransferSpec, tuning: Tuning, rng: random.Random, restored: Restored | None = None
    ) -> None:
        self.spec = spec
        self.phase = Phase.IDLE
        self.facts: OriginFacts | None = None
        self.near = spec.near
        self.tally = Tally()
        self.decision: ev.Decision | None = None
        self._tuning = tuning
        self._rng = rng
        self._backoff = Backoff(first_s=tuning.retry_small_s, longest_s=spec.longest_retry_s, rng=rng)
        self._requests = Requests()
        self._fetching: Fetching | None = None
        self._attempt = 0
        self._restarts = 0
        self._not_found = 0
        self._gather_until: float | None = None
        self._digest_id: ContentId | None = None
        self._url_id: tuple[OriginFacts, ContentId] | None = None
        self._restored = restored
        if restored is not None:
            self._take_over(restored.snapshot)

    # --- what others may read ------------------------------------------------------------------------------

    @property
    def length(self) -> int | None:
        """Bytes in all; None while unknown."""
        return None if self.facts is None else self.facts.length

    @property
    def held_bytes(self) -> int:
        """Bytes in the part file."""
        if self._fetching is not None:
            return self._fetching.held_bytes
        return sum(item.length for item in self._restored.held) if self._restored is not None else 0

    @property
    def content_ids(self) -> tuple[ContentId, ...]:
        """By which ids others may ask for this content; empty when it may not be shared or has no identity."""
        if not self._shareable or self.spec.digest is None:
            return self.url_ids
        if self._digest_id is None:
            self._digest_id = content_id_by_digest(self.spec.digest)
        return (*self.url_ids, self._digest_id)

    @property
    def url_ids(self) -> tuple[ContentId, ...]:
        """The id made of the URL and the origin's answer, if there is one."""
        facts = self.facts
        if not self._shareable or facts is None or facts.strong_validator is None:
            return ()
        if self._url_id is None or self._url_id[0] is not facts:
            named = content_id_by_url(self.spec.url, facts.strong_validator, facts.length or 0)
            self._url_id = (facts, named)
        return (self._url_id[1],)

    @property
    def _shareable(self) -> bool:
        """The job and the origin's answer allow sharing, and there is something to share."""
        facts = self.facts
        if facts is None or self.spec.near is NearUse.NEVER:
            return False
        return facts.sharing is Sharing.ALLOWED and bool(facts.length)

    @property
    def chunks(self) -> ChunkBook | None:
        """What is held and proven; None until the origin has answered, and for unknown lengths."""
        return None if self._fetching is None else self._fetching.chunks

    def snapshot(self) -> Snapshot:
        """What the next process needs besides the held ranges."""
        fetching = self._fetching
        before = self._restored.snapshot if self._restored is not None else Snapshot()
        return Snapshot(
            facts=self.facts,
            from_origin=fetching.from_origin if fetching is not None else before.from_origin,
            near=self.near,
            finished=self.phase is Phase.DONE,
            vouchers=fetching.vouchers_in_use() if fetching is not None else before.vouchers,
            from_origin_bytes=self.tally.from_origin,
            from_cache_bytes=self.tally.from_cache,
            by_peer=tuple(sorted(self.tally.by_peer.items())),
            discarded_bytes=self.tally.discarded,
        )

    def deadline(self) -> float | None:
        """When `handle(Ticked(...), now)` is wanted next, in seconds of the caller's clock."""
        fetching = None if self._fetching is None else self._fetching.deadline()
        return min((at for at in (self._gather_until, fetching) if at is not None), default=None)

    # --- events --------------------------------------------------------------------------------------------

    def handle(self, event: ev.FileEvent, now: float) -> list[cmd.Command]:
        """Take one event and say what to do. Events that come too late to matter change nothing."""
        out: list[cmd.Command] = []
        match event:
            case (
                ev.SourceOffered()
                | ev.SourceLost()
                | ev.RangeArrived()
                | ev.RangeReceived()
                | ev.RangeFailed()
                | ev.ChunkDigested()
            ):
                self._fetch_event(event, now, out)
            case ev.ContentAccepted() | ev.ContentRejected() | ev.ContentUndecided() | ev.ValidatorFailed():
                self._verdict(event, out)
            case ev.Decided(decision=decision):
                self._decided(decision, out)
            case _:
                self._phase_event(event, now, out)
        self._advance(now, out)
        return out

    def _phase_event(self, event: PhaseEvent, now: float, out: list[cmd.Command]) -> None:
        match event:
            case ev.Begun():
                self._begin(out)
            case ev.Paused():
                self._pause(now, out)
            case ev.OriginProbed(facts=facts):
                if self.phase is Phase.PROBING:
                    self._probed(facts, now, out)
            case ev.ProbeFailed(failure=failure):
                if self.phase is Phase.PROBING:
                    self._trouble(failure, now, out)
            case ev.NearAnswered():
                self._gathered()
            case ev.Ticked():
                if self._gather_until is not None and now >= self._gather_until:
                    self._gathered()
            case ev.StorageFailed(failure=failure):
                if self.phase in _BUSY:
                    self._trouble(failure, now, out)
            case ev.PartFileLost():
                self._part_file_lost(out)
            case _:
                assert_never(event)

    def _fetch_event(self, event: FetchEvent, now: float, out: list[cmd.Command]) -> None:
        if isinstance(event, ev.RangeReceived | ev.RangeFailed) and self._requests.close_orphan(event.request):
            return
        if self._fetching is None or (isinstance(event, ev.SourceOffered) and not self._asks_near()):
            return
        mine = isinstance(event, ev.RangeFailed) and self._requests.get(event.request) is not None
        self._fetching.handle(event, now, out)
        if mine and isinstance(event, ev.RangeFailed) and event.failure.kind in LOCAL and self.phase in _BUSY:
            self._trouble(event.failure, now, out)
        if self.phase is Phase.GATHERING and self._fetching.all_in_sight(now):
            self._gathered()

    def _begin(self, out: list[cmd.Command]) -> None:
        if self.phase in (Phase.IDLE, Phase.FAILED):
            self.phase = Phase.PROBING
            out.append(cmd.ProbeOrigin(file=self.spec.file))

    def _pause(self, now: float, out: list[cmd.Command]) -> None:
        if self.phase in _BUSY:
            self._stand_still(now, out)
            self.phase = Phase.IDLE

    def _stand_still(self, now: float, out: list[cmd.Command]) -> None:
        self._gather_until = None
        self._attempt += 1
        if self._fetching is not None:
            self._fetching.stop(now, out)

    def _probed(self, facts: OriginFacts, now: float, out: list[cmd.Command]) -> None:
        fetching = self._fetching
        if self.facts is not None and not self.facts.same_content(facts):
            self._forget("the origin's content has changed: starting again", out)
            fetching = None
        elif not self._joinable(facts) and self._has_part_of(facts):
            self._forget("the origin gives no way to join parts safely: starting again", out)
            fetching = None
        self.facts = facts
        out.append(cmd.Connected(file=self.spec.file))
        out.append(cmd.PrepareFile(file=self.spec.file, length=facts.length))
        if fetching is None:
            fetching = self._new_fetching(facts)
        self._fetching = fetching
        self._name(fetching)
        fetching.begin(facts, self._may_join(facts), now, out)
        if self._usable_near() and self.content_ids and not fetching.complete:
            self.phase = Phase.GATHERING
            self._gather_until = now + self._tuning.gather_s
            layout = ChunkLayout.for_length(facts.length or 0)
            out.append(cmd.AskNear(file=self.spec.file, content_ids=self.content_ids, layout=layout))
        else:
            self.phase = Phase.FETCHING

    def _new_fetching(self, facts: OriginFacts) -> Fetching:
        fetching = Fetching(
            spec=self.spec,
            tuning=self._tuning,
            rng=self._rng,
            tally=self.tally,
            requests=self._requests,
            length=facts.length,
        )
        self._name(fetching)
        if self._restored is not None:
            fetching.restore(self._restored)
            self._restored = None
        return fetching

    def _name(self, fetching: Fetching) -> None:
        fetching.publishing.content_ids = self.content_ids
        fetching.publishing.url_ids = self.url_ids

    def _asks_near(self) -> bool:
        return self.phase in (Phase.GATHERING, Phase.FETCHING) and self._usable_near()

    def _usable_near(self) -> bool:
        anchored = self.spec.integrity is not Integrity.ANCHORED or bool(self.spec.anchors)
        return self.near is NearUse.PREFERRED and anchored

    def _joinable(self, facts: OriginFacts) -> bool:
        """Parts fetched at different times can be joined: one strong validator on each, or a digest at the end."""
        return facts.strong_validator is not None or self.spec.digest is not None or bool(self.spec.anchors)

    def _may_join(self, facts: OriginFacts) -> bool:
        return facts.ranges is not RangeSupport.NONE and self._joinable(facts)

    def _has_part_of(self, facts: OriginFacts) -> bool:
        return self.held_bytes > 0 and self.held_bytes != facts.length

    def _gathered(self) -> None:
        self._gather_until = None
        if self.phase is Phase.GATHERING:
            self.phase = Phase.FETCHING

    def _forget(self, why: str, out: list[cmd.Command]) -> None:
        """Nothing that is held counts any more."""
        self.tally.discarded += self.held_bytes
        if self._fetching is not None:
            self._fetching.abort_all(out)
            self._requests.disown()
        self._fetching = None
        self._restored = None
        self._attempt += 1
        out.append(cmd.StopAsking(file=self.spec.file))
        out.append(cmd.ForgetProgress(file=self.spec.file))
        out.append(cmd.LogLine(file=self.spec.file, text=why))

    def _part_file_lost(self, out: list[cmd.Command]) -> None:
        self._forget("the temporary file is not the one that was written: starting again", out)
        if self.phase in _BUSY:
            self.phase = Phase.PROBING
            out.append(cmd.ProbeOrigin(file=self.spec.file))
        elif self.phase in (Phase.DECIDING, Phase.DONE):
            self.phase = Phase.IDLE
            out.append(cmd.Refetching(file=self.spec.file, reason="the temporary file was lost"))

    # --- going on --------------------------------------------------------------------------------------------

    def _advance(self, now: float, out: list[cmd.Command]) -> None:
        fetching = self._fetching
        if fetching is None:
            return
        fetching.save_if_due(now, out)
        if self.phase is not Phase.FETCHING:
            return
        fetching.assign(now, out, self._usable_near())
        if fetching.changed:
            self._content_changed(now, out)
        elif fetching.complete and not fetching.in_flight:
            self._validate(now, out)
        elif (failure := fetching.blocked_by()) is not None:
            self._trouble(failure, now, out)

    def _content_changed(self, now: float, out: list[cmd.Command]) -> None:
        self._restarts += 1
        if self._restarts > self._tuning.restarts:
            self._forget("the origin's content changes faster than it can be fetched", out)
            self._trouble(
                Failure(kind=FailureKind.CHANGED, message="the content keeps changing at the origin"),
                now,
                out,
            )
            return
        self._forget("the origin's content has changed: starting again", out)
        self.tally.best = 0
        self.facts = None
        self.phase = Phase.PROBING
        out.append(cmd.ProbeOrigin(file=self.spec.file))

    def _validate(self, now: float, out: list[cmd.Command]) -> None:
        assert self._fetching is not None
        if self.facts is not None and self.facts.length is None:
            self.facts = replace(self.facts, length=self._fetching.held_bytes)
        self._fetching.stop(now, out)
        self._attempt += 1
        self.decision = None
        self.phase = Phase.VALIDATING
        out.append(cmd.AllThere(file=self.spec.file))
        out.append(cmd.ValidateContent(file=self.spec.file, attempt=self._attempt))

    def _trouble(self, failure: Failure, now: float, out: list[cmd.Command]) -> None:
        """Nothing can be done now: wait if it may pass, else give up until somebody changes something."""
        self._stand_still(now, out)
        context = "local file" if failure.kind in LOCAL else "origin"
        if failure.persistence is Persistence.FATAL and not self._may_come_back(failure):
            self.phase = Phase.FAILED
            out.append(
                cmd.Failed(
                    file=self.spec.file,
                    code=failure.kind.value,
                    message=failure.message,
                    context=context,
                    http_status=failure.http_status,
                )
            )
            return
        self.phase = Phase.IDLE
        if self._fetching is not None and self._fetching.take_fruit():
            self._backoff.reset()
        if self.facts is not None and not self._joinable(self.facts) and self._has_part_of(self.facts):
            self._forget("what came cannot be continued: its space is given back", out)
        retry_at = now + self._backoff.next_delay(failure.retry_after_s)
        out.append(cmd.Troubled(file=self.spec.file, failure=failure, retry_at=retry_at))

    def _may_come_back(self, failure: Failure) -> bool:
        """A file that was there a moment ago and is not found now may be in the middle of being replaced."""
        if failure.kind is not FailureKind.NOT_FOUND or not self.held_bytes:
            return False
        self._not_found += 1
        return self._not_found <= self._tuning.not_found_tries

    # --- verdicts --------------------------------------------------------------------------------------------

    def _verdict(
        self,
        event: ev.ContentAccepted | ev.ContentRejected | ev.ContentUndecided | ev.ValidatorFailed,
        out: list[cmd.Command],
    ) -> None:
        if self.phase is not Phase.VALIDATING or event.attempt != self._attempt:
            return
        match event:
            case ev.ContentAccepted():
                self._accept(out)
            case ev.ContentUndecided():
                self.phase = Phase.DECIDING
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
        if self._fetching is not None:
            self._fetching.publish_accepted(out)
        out.append(cmd.Finished(file=self.spec.file))

    def _decided(self, decision: ev.Decision, out: list[cmd.Command]) -> None:
        if self.phase not in (Phase.DECIDING, Phase.DONE):
            return
        self.decision = decision
        if decision is ev.Decision.INVALID:
            self._reject("the application found it invalid", out)
        elif self.phase is Phase.DECIDING:
            self._accept(out)

    def _reject(self, reason: str, out: list[cmd.Command]) -> None:
        """BITS 3.2: invalid bytes of peers are fetched again from the origin; those of the origin are an error."""
        out.append(cmd.WithdrawContent(file=self.spec.file, content_ids=self.content_ids))
        self.near = NearUse.NEVER
        suspects = self._suspects()
        if suspects:
            assert self._fetching is not None
            self._fetching.refetch(suspects, out)
            self.phase = Phase.IDLE
            out.append(cmd.LogLine(file=self.spec.file, text=f"rejected, fetching again from the origin: {reason}"))
            out.append(cmd.Refetching(file=self.spec.file, reason=reason))
            return
        self._forget(f"rejected: {reason}", out)
        self.phase = Phase.FAILED
        out.append(cmd.Failed(file=self.spec.file, code="VALIDATION_FAILED", message=reason, context="origin"))

    def _suspects(self) -> list[ChunkIndex]:
        if self._fetching is None and self._restored is not None and self.facts is not None:
            self._fetching = self._new_fetching(self.facts)
        chunks = self.chunks
        return list(chunks_in(chunks.suspects)) if chunks is not None else []

    def _take_over(self, snapshot: Snapshot) -> None:
        self.facts = snapshot.facts
        self.near = snapshot.near
        self.tally = Tally(
            from_origin=snapshot.from_origin_bytes,
            from_cache=snapshot.from_cache_bytes,
            by_peer=dict(snapshot.by_peer),
            discarded=snapshot.discarded_bytes,
        )
        if snapshot.finished:
            self.phase = Phase.DONE
