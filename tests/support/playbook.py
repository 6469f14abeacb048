"""Scripts for the core: `>>` says what comes in, `<<` what must go out; `check` fails with a diff.

    play = Playbook(draw(ours="a**", peer_a="***"))
    play >> corrupt(chunk=0)
    play << report(PEER_A, Offence.CORRUPT_BYTES) << fetch(ORIGIN, chunk=0)
    play.check()

Between two `>>` everything that goes out must be expected, in order; `<< anything` lets the rest pass. Commands
that rarely matter (`IGNORED`) are left out unless `watch` names them. A playbook that was never checked fails its
test: tests/agent/core/conftest.py sees to that.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import FileId, SourceId, peer_of, peer_source
from agent.core.spec import Restored, TransferSpec
from agent.core.transfer import FileTransfer
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId, Voucher
from validation.content import MIN_CHUNK_BYTES, Bitfield, ChunkIndex, ChunkLayout, ContentId, bitfield
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

FILE = FileId("job/0")
URL = "http://origin.example/file"
CHUNK = MIN_CHUNK_BYTES
PEER_A, PEER_B, PEER_C, OWN = (PeerId(letter * 64) for letter in "abce")
IGNORED: tuple[type, ...] = (cmd.SaveProgress, cmd.LogLine, cmd.Progressed, cmd.PublishClaim)
UNCHECKED: list[Playbook] = []


def facts(chunks: int = 3, **changes: Any) -> OriginFacts:
    """An origin that does everything right, with a file of so many whole chunks."""
    given: dict[str, Any] = {"length": chunks * CHUNK, "etag": '"v1"', "ranges": RangeSupport.PROMISED}
    return OriginFacts(**(given | changes))


def spec(**changes: Any) -> TransferSpec:
    """A plain file."""
    given: dict[str, Any] = {"file": FILE, "url": URL}
    return TransferSpec(**(given | changes))


def digest_of(chunk: int, flavour: str = "true") -> ChunkDigest:
    """What the digest of a chunk is, by what lies in it."""
    return hashlib.sha256(f"{flavour} {chunk}".encode()).digest()


def vouch(content_id: ContentId, chunk: int, signer: PeerId, flavour: str = "true") -> Voucher:
    """A voucher as it looks after its signature was checked."""
    return Voucher(
        content_id=content_id,
        chunk=ChunkIndex(chunk),
        digest=digest_of(chunk, flavour),
        signer=signer,
        signature=b"checked",
    )


def source_of(who: PeerId | SourceId) -> SourceId:
    """A peer may be named by its id alone."""
    return SourceId(who) if ":" in who or who in ("origin", "cache") else peer_source(PeerId(who))


@dataclass
class Stage:
    """A transfer, its clock, and what its commands have asked for and not been answered."""

    transfer: FileTransfer
    now: float = 100.0
    open: dict[ev.RequestId, cmd.FetchRange] = field(default_factory=dict)
    log: list[cmd.Command] = field(default_factory=list)

    @classmethod
    def new(
        cls,
        given: TransferSpec | None = None,
        restored: Restored | None = None,
        tuning: Tuning | None = None,
        own: PeerId | None = None,
    ) -> Stage:
        """A transfer that has not begun; in a group when it has an id of its own."""
        return cls(FileTransfer(given or spec(), tuning or Tuning(), random.Random(7), restored, own))

    def feed(self, event: ev.FileEvent) -> list[cmd.Command]:
        """Give the transfer one event."""
        if isinstance(event, ev.RangeReceived | ev.RangeFailed):
            self.open.pop(event.request, None)
        out = self.transfer.handle(event, self.now)
        self.open.update({each.request: each for each in out if isinstance(each, cmd.FetchRange)})
        self.log += out
        return out

    def request(self, who: PeerId | SourceId, chunk: int | None = None) -> cmd.FetchRange:
        """The oldest open request to this source (that asks for this chunk)."""
        for each in self.open.values():
            wanted = chunk is None or each.item.start <= chunk * CHUNK < each.item.stop
            if each.source == source_of(who) and wanted:
                return each
        raise AssertionError(f"no open request to {who[:8]} for chunk {chunk}; open: {list(self.open.values())}")

    def request_of(self, request: ev.RequestId) -> cmd.FetchRange:
        """A request by its id, open or not."""
        return next(each for each in self.log if isinstance(each, cmd.FetchRange) and each.request == request)

    @property
    def attempt(self) -> int:
        """Of the last `ValidateContent`."""
        return next(each.attempt for each in reversed(self.log) if isinstance(each, cmd.ValidateContent))

    @property
    def layout(self) -> ChunkLayout:
        """How the content is cut."""
        assert self.transfer.chunks is not None
        return self.transfer.chunks.layout


Input = Callable[[Stage], Iterable[ev.FileEvent]]


# --- what comes in -------------------------------------------------------------------------------------------


def event(make: type[Any], **fields: Any) -> Input:
    """Any event of this file."""
    return lambda stage: [make(file=stage.transfer.spec.file, **fields)]


def begun() -> Input:
    return event(ev.Begun)


def paused() -> Input:
    return event(ev.Paused)


def probed(given: OriginFacts | None = None, **fields: Any) -> Input:
    return event(ev.OriginProbed, facts=given or facts(), **fields)


def answered(number: int, given: OriginFacts | None = None) -> Input:
    """The answer to the first, second... question to the origin; `probed` is one to the last."""

    def make(stage: Stage) -> list[ev.FileEvent]:
        asked = [each for each in stage.log if isinstance(each, cmd.ProbeOrigin)][number - 1]
        return [ev.OriginProbed(file=asked.file, facts=given or facts(), probe=asked.probe)]

    return make


def failure(kind: FailureKind, **fields: Any) -> Failure:
    return Failure(kind=kind, message=kind.value.lower(), **fields)


def probe_failed(kind: FailureKind) -> Input:
    return event(ev.ProbeFailed, failure=failure(kind))


def offered(
    who: PeerId | SourceId, have: Iterable[int] = (), claimed: Iterable[int] = (), *, wants: bool = False
) -> Input:
    return event(
        ev.SourceOffered, source=source_of(who), have=bitfield(have), claimed=bitfield(claimed), wants=wants
    )


def lost(who: PeerId | SourceId) -> Input:
    return event(ev.SourceLost, source=source_of(who))


def near_answered() -> Input:
    return event(ev.NearAnswered)


def arrived(who: PeerId | SourceId, count: int | None = None, *, start: int | None = None) -> Input:
    """`count` bytes of the oldest request to this source (all of it, unless told)."""

    def make(stage: Stage) -> list[ev.FileEvent]:
        asked = stage.request(who)
        begin = asked.item.start if start is None else start
        item = ByteRange(begin, asked.item.stop if count is None else begin + count)
        return [ev.RangeArrived(file=asked.file, request=asked.request, item=item)]

    return make


def received(
    who: PeerId | SourceId,
    *,
    vouchers: Iterable[Voucher] | None = None,
    signer: PeerId | None = None,
    flavour: str = "true",
    chunk: int | None = None,
) -> Input:
    """All bytes of the oldest request to this source (for `chunk`) came; by default a peer signed them. As in the
    agent, the last ones of a peer are not told of before."""

    def make(stage: Stage) -> list[ev.FileEvent]:
        asked = stage.request(who, chunk)
        given = vouchers
        who_signs = signer or peer_of(source_of(who))
        if given is None and who_signs is not None:
            ids = stage.transfer.content_ids[:1]
            chunks = stage.layout.touched_by(asked.item)
            given = [vouch(each, number, who_signs, flavour) for each in ids for number in chunks]
        done = ev.RangeReceived(
            file=asked.file, request=asked.request, item=asked.item, vouchers=tuple(given or ())
        )
        if peer_of(asked.source) is not None:
            return [done]
        return [ev.RangeArrived(file=asked.file, request=asked.request, item=asked.item), done]

    return make


def failed(who: PeerId | SourceId, kind: FailureKind, *, chunk: int | None = None, **fields: Any) -> Input:
    def make(stage: Stage) -> list[ev.FileEvent]:
        asked = stage.request(who, chunk)
        return [ev.RangeFailed(file=asked.file, request=asked.request, failure=failure(kind, **fields))]

    return make


def digested(*chunks: int, flavour: str = "true") -> Input:
    return lambda stage: [
        ev.ChunkDigested(file=stage.transfer.spec.file, chunk=ChunkIndex(chunk), digest=digest_of(chunk, flavour))
        for chunk in chunks
    ]


def corrupt(chunk: int) -> Input:
    return digested(chunk, flavour="noise")


def accepted() -> Input:
    return lambda stage: [ev.ContentAccepted(file=stage.transfer.spec.file, attempt=stage.attempt)]


def rejected(reason: str = "wrong") -> Input:
    return lambda stage: [ev.ContentRejected(file=stage.transfer.spec.file, attempt=stage.attempt, reason=reason)]


def undecided() -> Input:
    return lambda stage: [ev.ContentUndecided(file=stage.transfer.spec.file, attempt=stage.attempt)]


def validator_failed() -> Input:
    return lambda stage: [
        ev.ValidatorFailed(file=stage.transfer.spec.file, attempt=stage.attempt, reason="crashed")
    ]


def decided(decision: ev.Decision) -> Input:
    return event(ev.Decided, decision=decision)


def respecified(**changes: Any) -> Input:
    """The job has other wishes: these."""
    return lambda stage: [
        ev.Respecified(file=stage.transfer.spec.file, spec=replace(stage.transfer.spec, **changes))
    ]


def wanted(*spans: tuple[int, int]) -> Input:
    """Somebody wants these bytes now: start and stop of each."""
    return event(ev.RangesWanted, items=tuple(ByteRange(start, stop) for start, stop in spans))


def position(offset: int) -> Input:
    """Somebody reads on from here."""
    return event(ev.PositionMoved, offset=offset)


def storage_failed(kind: FailureKind) -> Input:
    return event(ev.StorageFailed, failure=failure(kind))


def part_file_lost() -> Input:
    return event(ev.PartFileLost)


def ticked(after_s: float | None = None) -> Input:
    """The clock goes on: to the deadline, or by so many seconds."""

    def make(stage: Stage) -> list[ev.FileEvent]:
        due = stage.transfer.deadline()
        assert after_s is not None or due is not None, "nothing is due, ever"
        stage.now = stage.now + after_s if after_s is not None else max(stage.now, due or 0.0)
        return [ev.Ticked(file=stage.transfer.spec.file)]

    return make


# --- what must go out ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """A command of this kind with these fields; fields that are not named may be anything."""

    kind: type
    fields: dict[str, Any]
    source: SourceId | None = None
    """Of the request that is aborted."""

    def matches(self, stage: Stage, command: cmd.Command) -> bool:
        if not isinstance(command, self.kind):
            return False
        if isinstance(command, cmd.AbortFetch) and self.source is not None:
            return stage.request_of(command.request).source == self.source
        if isinstance(command, cmd.Troubled) and "kind" in self.fields:
            return command.failure.kind is self.fields["kind"]
        return all(getattr(command, name) == value for name, value in self.fields.items())

    def __str__(self) -> str:
        told = self.fields | ({"source": self.source} if self.source else {})
        return f"{self.kind.__name__}({', '.join(f'{name}={value}' for name, value in told.items())})"


anything = Expected(object, {})
"""Whatever else goes out before the next `>>`."""


def sends(kind: type, /, **fields: Any) -> Expected:
    return Expected(kind, fields)


def fetch(who: PeerId | SourceId, *, chunk: int | None = None, chunks: tuple[int, int] | None = None) -> Expected:
    """Whole chunks (first and last included) from a source; no chunk named: whichever."""
    span = (chunk, chunk) if chunk is not None else chunks
    item = {} if span is None else {"item": ByteRange(span[0] * CHUNK, (span[1] + 1) * CHUNK)}
    return Expected(cmd.FetchRange, {"source": source_of(who)} | item)


def fetch_bytes(who: PeerId | SourceId, start: int, stop: int) -> Expected:
    return Expected(cmd.FetchRange, {"source": source_of(who), "item": ByteRange(start, stop)})


def abort(who: PeerId | SourceId) -> Expected:
    return Expected(cmd.AbortFetch, {}, source_of(who))


def digest(chunk: int) -> Expected:
    return sends(cmd.DigestChunk, chunk=chunk)


def publish(chunk: int, signers: tuple[PeerId, ...] | None = None, flavour: str = "true") -> Expected:
    """With `signers`, exactly theirs; `()`: our own will be made."""
    fields: dict[str, Any] = {"chunk": chunk, "digest": digest_of(chunk, flavour)}
    return _Publish(cmd.PublishChunk, fields, None, signers)


@dataclass(frozen=True)
class _Publish(Expected):
    signers: tuple[PeerId, ...] | None = None

    def matches(self, stage: Stage, command: cmd.Command) -> bool:
        if not isinstance(command, cmd.PublishChunk) or not super().matches(stage, command):
            return False
        return self.signers is None or tuple(each.signer for each in command.vouchers) == self.signers


def report(peer: PeerId, offence: Offence) -> Expected:
    return sends(cmd.ReportPeer, peer=peer, offence=offence)


def troubled(kind: FailureKind) -> Expected:
    return sends(cmd.Troubled, kind=kind)


def fails(code: str, **fields: Any) -> Expected:
    return sends(cmd.Failed, code=code, **fields)


def fills(*spans: tuple[int, int]) -> Expected:
    """Listeners learn of exactly these bytes."""
    return sends(cmd.RangesFilled, items=tuple(ByteRange(start, stop) for start, stop in spans))


def withdraws(*chunks: int) -> Expected:
    return sends(cmd.WithdrawChunks, chunks=Bitfield(bitfield(chunks)))


PROBE, ASK, STOP = sends(cmd.ProbeOrigin), sends(cmd.AskNear), sends(cmd.StopAsking)
PREPARE, CONNECTED, ALL_THERE = sends(cmd.PrepareFile), sends(cmd.Connected), sends(cmd.AllThere)
VALIDATE, FINISHED, UNDECIDED = sends(cmd.ValidateContent), sends(cmd.Finished), sends(cmd.Undecided)
DEMAND_MET = sends(cmd.DemandMet)
REFETCHING, FORGET, WITHDRAW = sends(cmd.Refetching), sends(cmd.ForgetProgress), sends(cmd.WithdrawContent)


class Playbook:
    """One script. The transfer runs as the script is written; what differs is told by `check`."""

    def __init__(self, stage: Stage, watch: tuple[type, ...] = ()) -> None:
        self.stage = stage
        self._ignored = tuple(kind for kind in IGNORED if kind not in watch)
        self._rest: list[cmd.Command] = []
        self._lines: list[str] = []
        self._wrong = False
        UNCHECKED.append(self)

    @property
    def transfer(self) -> FileTransfer:
        return self.stage.transfer

    def __rshift__(self, given: Input) -> Playbook:
        self._settle()
        if self._wrong:
            return self  # what follows a difference means nothing
        for each in given(self.stage):
            self._lines.append(f"  >> {each}")
            out = self.stage.feed(each)
            self._rest += [command for command in out if not isinstance(command, self._ignored)]
        return self

    def __lshift__(self, expected: Expected) -> Playbook:
        if self._wrong:
            return self
        if expected is anything:
            self._lines += [f"  .. {command}" for command in self._rest]
            self._rest.clear()
        elif self._rest and expected.matches(self.stage, self._rest[0]):
            self._lines.append(f"  << {self._rest.pop(0)}")
        else:
            self._lines.append(f"- << {expected}")
            self._settle()
            self._wrong = True
        return self

    def _settle(self) -> None:
        if self._rest:
            self._wrong = True
            self._lines += [f"+ << {command}" for command in self._rest]
            self._rest.clear()

    def check(self) -> None:
        """Fail unless everything went as written."""
        UNCHECKED[:] = [each for each in UNCHECKED if each is not self]
        self._settle()
        if self._wrong:
            raise AssertionError("not as written (- missing, + not expected):\n" + "\n".join(self._lines))
