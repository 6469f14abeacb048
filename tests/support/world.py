"""A small random world that carries out the core's commands, and watches it while it does.

Answers come in any order and time; requests break, peers appear, vanish, lie and get banned, the user interferes.
Nothing real moves: a part file is a dict from cell to what lies there, and a chunk's digest is that of its cells.
After `calm` the origin and the user behave; liars go on lying. Every promise the core makes is an assert in here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import CACHE, ORIGIN, FileId, SourceId, peer_of, peer_source, sibling_of
from agent.core.spec import ServeUse
from agent.core.transfer import FileTransfer, Phase
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import PeerId, Voucher
from tests.support.world_parts import Asked, Cell, Flags, Manner, PartFile, Peer
from validation.content import (
    MIN_CHUNK_BYTES,
    Bitfield,
    ChunkIndex,
    ChunkLayout,
    ContentId,
    bitfield,
    content_id_by_url,
)
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

CELL = MIN_CHUNK_BYTES // 4
"""The smallest thing that is written at once. A cell holds a label: what these bytes are."""

_PASSING = (FailureKind.CONNECTION_CLOSED, FailureKind.STALLED, FailureKind.BUSY, FailureKind.CONNECT_FAILED)


def etag_of(version: str) -> str:
    """The strong validator of a version."""
    return f'"{version}"'


def digest_of_labels(labels: list[str]) -> ChunkDigest:
    """Any injection will do."""
    return hashlib.sha256("\n".join(labels).encode()).digest()


class World:
    """Everything outside the core. `deliver` is how an event gets to the core."""

    def __init__(self, rng: random.Random, flags: Flags, deliver: Callable[[ev.FileEvent], None]) -> None:
        self.rng = rng
        self.flags = flags
        self.deliver = deliver
        self.now = 1000.0
        self.calm = False
        self.version = "v1"
        self.layout = ChunkLayout.for_length(flags.length)
        self.parts: dict[FileId, PartFile] = {}
        self.transfers: dict[FileId, FileTransfer] = {}
        self.asked: dict[FileId, dict[ev.RequestId, Asked]] = {}
        self.used: set[tuple[FileId, ev.RequestId]] = set()
        self.asking: dict[FileId, cmd.AskNear] = {}
        self.todo: list[Callable[[], None]] = []
        """Answers that are owed; any of them may come next."""
        self.cache: dict[tuple[ContentId, int], tuple[list[str], tuple[Voucher, ...]]] = {}
        self.trace: list[tuple[float, str, object]] = []
        """What happened: time, direction, event or command."""
        self.origin_bytes = 0
        self.peers = [self._peer(number, manner) for number, manner in enumerate(flags.manners)]

    # --- who is there ----------------------------------------------------------------------------------------

    def _peer(self, number: int, manner: Manner) -> Peer:
        everything = self.layout.everything
        have = Bitfield(self.rng.getrandbits(self.layout.count or 1) & everything)
        liars = [PeerId(str(at) * 64) for at, each in enumerate(self.flags.manners) if each is Manner.FALSE_VOUCHER]
        misled = manner is Manner.HONEST and liars and self.rng.random() < 0.5
        return Peer(
            peer=PeerId(str(number) * 64),
            manner=manner,
            have=have if manner is Manner.HONEST else everything,
            version=self.version,
            relayed_from=self.rng.choice(liars) if misled else None,
        )

    def facts(self) -> OriginFacts:
        """What the origin says now."""
        return OriginFacts(
            length=self.flags.length if self.flags.says_length else None,
            etag=etag_of(self.version) if self.flags.etag else f"W/{etag_of(self.version)}",
            ranges=self.flags.ranges,
        )

    def content_id(self, file: FileId, version: str) -> ContentId:
        """The id under which peers that hold this version know it."""
        transfer = self.transfers[file]
        return content_id_by_url(transfer.final_url or transfer.spec.url, etag_of(version), self.flags.length)

    def truth(self, chunk: int, version: str) -> ChunkDigest:
        """The digest of the origin's bytes."""
        cells = self._cells(self.layout.range_of(ChunkIndex(chunk)))
        return digest_of_labels([f"{version}.{cell}" for cell in cells])

    def noise(self, chunk: int, liar: PeerId) -> ChunkDigest:
        """The digest of a liar's bytes."""
        cells = self._cells(self.layout.range_of(ChunkIndex(chunk)))
        return digest_of_labels([f"noise {liar[0]}.{cell}" for cell in cells])

    @staticmethod
    def _cells(item: ByteRange) -> range:
        return range(item.start // CELL, -(-item.stop // CELL))

    def digest_on_disk(self, file: FileId, item: ByteRange) -> ChunkDigest:
        """What a reader of the part file computes now."""
        cells = self.parts[file].cells
        missing = Cell("hole", ORIGIN)
        return digest_of_labels([cells.get(cell, missing).label for cell in self._cells(item)])

    # --- commands --------------------------------------------------------------------------------------------

    def perform(self, command: cmd.Action) -> None:
        """Take one command: check what must hold, and remember what is owed."""
        file = command.file
        part = self.parts.setdefault(file, PartFile())
        self.trace.append((self.now, "<<", command))
        match command:
            case cmd.ProbeOrigin(probe=number):
                self.todo.append(lambda: self._probe(file, number))
            case cmd.AskNear():
                self._ask(command)
            case cmd.StopAsking():
                self.asking.pop(file, None)
            case cmd.FetchRange():
                self._fetch(command)
            case cmd.AbortFetch(request=request):
                assert request in self.asked[file], "abort of a request that is over"
                self.asked[file][request].aborted = True
            case cmd.DigestChunk():
                self._digest(command)
            case cmd.PublishChunk():
                self._publish(command)
            case cmd.ReportPeer(peer=peer):
                self._report(peer)
            case cmd.ValidateContent(attempt=attempt):
                assert not self.asked.get(file), "validated while bytes may still arrive"
                self.todo.append(lambda: self._validate(file, attempt))
            case cmd.SaveProgress(held=held):
                self._save(file, held)
            case cmd.ForgetProgress():
                part.saved = ()
                part.cells.clear()
            case cmd.WithdrawChunks(content_ids=ids, chunks=chunks):
                drop = [(each, at) for each, at in self.cache if each in ids and chunks >> at & 1]
                self._uncache(drop)
            case cmd.WithdrawContent(content_ids=ids):
                self._uncache([(each, at) for each, at in self.cache if each in ids])
            case cmd.PrepareFile() | cmd.LogLine():
                pass

    def _uncache(self, drop: list[tuple[ContentId, int]]) -> None:
        for key in drop:
            del self.cache[key]

    def _ask(self, command: cmd.AskNear) -> None:
        file = command.file
        self.asking[file] = command
        for peer in self.peers:
            self.todo.append(lambda peer=peer: self._offer(file, peer))  # type: ignore[misc]
        if self.cache:
            self.todo.append(lambda: self._offer_cache(file))
        self.todo.append(lambda: self.send(ev.NearAnswered(file=file)))

    def _fetch(self, command: cmd.FetchRange) -> None:
        file = command.file
        flying = self.asked.setdefault(file, {})
        assert (file, command.request) not in self.used, "a request id was used twice"
        self.used.add((file, command.request))
        for other in flying.values():
            rest = ByteRange(other.cursor, max(other.cursor, other.command.item.stop))
            assert not rest.overlaps(command.item), f"asked twice at the same time: {other.command} {command}"
        transfer = self.transfers[file]
        assert transfer.phase is Phase.FETCHING, f"asked for bytes while {transfer.phase}"
        if command.source == ORIGIN:
            assert not any(other.command.source == ORIGIN for other in flying.values()), "two at the origin"
        else:
            assert len(flying) < 13, "too many at near sources"
            assert transfer.near.value == "preferred", "asked near although near is forbidden"
        asked = Asked(command, self.version, command.item.start)
        flying[command.request] = asked
        self.todo.append(lambda: self._go_on(asked))

    def _digest(self, command: cmd.DigestChunk) -> None:
        cells = self.parts[command.file].cells
        assert all(cell in cells for cell in self._cells(command.item)), "digest of bytes that are not there"
        for other in self.asked.get(command.file, {}).values():
            rest = ByteRange(other.cursor, max(other.cursor, other.command.item.stop))
            assert not rest.overlaps(command.item), "digest of a chunk that is still being written"
        early = self.digest_on_disk(command.file, command.item) if self.rng.random() < 0.5 else None
        self.todo.append(lambda: self._digested(command, early))

    def _publish(self, command: cmd.PublishChunk) -> None:
        item = self.layout.range_of(command.chunk)
        assert self.transfers[command.file].spec.serve is ServeUse.ALLOWED, "offered although the job forbids it"
        labels = [self.parts[command.file].cells[cell].label for cell in self._cells(item)]
        assert digest_of_labels(labels) == command.digest, "published bytes that do not match their digest"
        assert self.parts[command.file].digests.get(command.chunk) == command.digest, "published unproven bytes"
        if command.vouchers:
            assert {each.digest for each in command.vouchers} == {command.digest}
        else:
            sources = {self.parts[command.file].cells[cell].source for cell in self._cells(item)}
            assert sources == {ORIGIN}, f"signed what came from {sources}"
            versions = {label.partition(".")[0] for label in labels}
            assert len(versions) == 1, f"signed a mixture: {labels}"
            (version,) = versions
            assert self.content_id(command.file, version) in command.content_ids, "signed under a wrong id"
        for content_id in command.content_ids:
            self.cache[content_id, command.chunk] = (labels, command.vouchers)

    def _report(self, peer: PeerId) -> None:
        known = next(each for each in self.peers if each.peer == peer)
        assert known.manner.lies, f"an honest peer was reported ({known.manner})"
        known.banned = True
        for at, (_, vouchers) in list(self.cache.items()):
            if vouchers and all(each.signer == peer for each in vouchers):
                del self.cache[at]
        for file in self.asking:
            lost = ev.SourceLost(file=file, source=peer_source(peer))
            self.todo.append(lambda lost=lost: self.send(lost))  # type: ignore[misc]

    def _save(self, file: FileId, held: tuple[ByteRange, ...]) -> None:
        self.check_readable(file, held)
        self.parts[file].saved = held

    def check_readable(self, file: FileId, items: tuple[ByteRange, ...]) -> None:
        """What is recorded or told of is there, and not an unproven word of a peer."""
        part = self.parts[file]
        for item in items:
            for cell in self._cells(item):
                assert cell in part.cells, "recorded bytes that are not there"
                chunk = cell * CELL // self.layout.chunk_bytes
                sure = part.cells[cell].source == ORIGIN or self._vouched(file, chunk)
                assert sure, "recorded unproven bytes of a peer"

    def _vouched(self, file: FileId, chunk: int) -> bool:
        """Somebody may have signed what lies in the chunk."""
        found = self.digest_on_disk(file, self.layout.range_of(ChunkIndex(chunk)))
        liars = [each.peer for each in self.peers if each.manner is Manner.FALSE_VOUCHER]
        told = [self.truth(chunk, version) for version in ("v1", "v2")] + [
            self.noise(chunk, each) for each in liars
        ]
        return found in told

    # --- answers ---------------------------------------------------------------------------------------------

    def send(self, event: ev.FileEvent) -> None:
        self.trace.append((self.now, ">>", event))
        self.deliver(event)

    def _trouble(self, chance: float) -> bool:
        return not self.calm and self.rng.random() < chance

    def _origin_failure(self) -> Failure:
        if self.flags.fatal and self.rng.random() < 0.2:
            return Failure(kind=FailureKind.NOT_FOUND, message="not found", http_status=404)
        return Failure(kind=self.rng.choice(_PASSING), message="passing")

    def _probe(self, file: FileId, number: int) -> None:
        if self._trouble(0.2):
            self.send(ev.ProbeFailed(file=file, failure=self._origin_failure(), probe=number))
        else:
            self.send(ev.OriginProbed(file=file, facts=self.facts(), probe=number))

    def _offer(self, file: FileId, peer: Peer) -> None:
        asking = self.asking.get(file)
        if asking is None or peer.banned or self.content_id(file, peer.version) not in asking.content_ids:
            return
        nothing, everything = Bitfield(0), self.layout.everything
        source = peer_source(peer.peer)
        claims = peer.manner is Manner.CLAIMS
        have, claimed = (nothing, everything) if claims else (peer.have, nothing)
        self.send(ev.SourceOffered(file=file, source=source, have=have, claimed=claimed))

    def _offer_cache(self, file: FileId) -> None:
        asking = self.asking.get(file)
        if asking is not None:
            have = bitfield(chunk for content_id, chunk in self.cache if content_id in asking.content_ids)
            self.send(ev.SourceOffered(file=file, source=CACHE, have=have, claimed=Bitfield(0)))

    def _go_on(self, asked: Asked) -> None:
        """One step of a request: some bytes, or its end."""
        item, file = asked.command.item, asked.command.file
        failure = self._why_it_ends(asked)
        if failure is not None:
            self._end(asked)
            self.send(ev.RangeFailed(file=file, request=asked.command.request, failure=failure))
            return
        stop = min(item.stop, self.flags.length)
        if asked.cursor >= stop:
            self._end(asked)
            if self._torn(asked):
                self.send(ev.RangeFailed(file=file, request=asked.command.request, failure=_gone()))
                return
            done = ByteRange(item.start, stop)
            vouchers = self._vouchers(asked)
            event = ev.RangeReceived(file=file, request=asked.command.request, item=done, vouchers=vouchers)
            self.send(event)
            return
        until = min(stop, (asked.cursor // CELL + self.rng.randint(1, 6)) * CELL)
        arrived = ByteRange(asked.cursor, until)
        self._write(asked, arrived)
        asked.cursor = until
        self.todo.append(lambda: self._go_on(asked))
        self.send(ev.RangeArrived(file=file, request=asked.command.request, item=arrived))

    def _why_it_ends(self, asked: Asked) -> Failure | None:
        source, fresh = asked.command.source, asked.cursor == asked.command.item.start
        if asked.aborted and self.rng.random() < 0.6:
            return Failure(kind=FailureKind.ABORTED, message="aborted")
        if source == ORIGIN:
            if fresh and self.transfers[asked.command.file].facts != self.facts():
                return Failure(kind=FailureKind.CHANGED, message="changed")
            if fresh and self.flags.ranges is not RangeSupport.PROMISED and asked.command.item.start > 0:
                return Failure(kind=FailureKind.NO_RANGES, message="the whole came")
            if self._trouble(0.05) and self.flags.interferes:
                return Failure(kind=FailureKind.DISK_FULL, message="no space left")
            return self._origin_failure() if self._trouble(0.15) else None
        peer = self._peer_behind(source)
        if peer is not None and peer.banned:
            return Failure(kind=FailureKind.NOT_TRUSTED, message="banned")
        if peer is not None and peer.manner is Manner.EMPTY:
            return Failure(kind=FailureKind.STALLED, message="nothing comes")
        if source == CACHE and not all(self._in_cache(asked, chunk) for chunk in self._chunks(asked)):
            return _gone()
        if (sibling := sibling_of(source)) is not None and not self._sibling_has(sibling, asked):
            return _gone()
        return Failure(kind=self.rng.choice(_PASSING), message="passing") if self._trouble(0.1) else None

    def _torn(self, asked: Asked) -> bool:
        """A sibling threw away what was being copied: the copier sees that and says so."""
        sibling = sibling_of(asked.command.source)
        if sibling is None:
            return False
        chunks = self.transfers[sibling].chunks
        return chunks is None or any(not chunks.proven >> chunk & 1 for chunk in self._chunks(asked))

    def _sibling_has(self, sibling: FileId, asked: Asked) -> bool:
        part = self.parts.get(sibling)
        rest = ByteRange(asked.cursor, asked.command.item.stop)
        return part is not None and all(cell in part.cells for cell in self._cells(rest))

    def _chunks(self, asked: Asked) -> range:
        return self.layout.touched_by(asked.command.item)

    def _in_cache(self, asked: Asked, chunk: int) -> bool:
        return (self.content_id(asked.command.file, asked.version), chunk) in self.cache

    def _peer_behind(self, source: SourceId) -> Peer | None:
        who = peer_of(source)
        return next((each for each in self.peers if each.peer == who), None)

    def _write(self, asked: Asked, item: ByteRange) -> None:
        source, cells = asked.command.source, self.parts[asked.command.file].cells
        for cell in self._cells(item):
            cells[cell] = Cell(self._label(asked, cell), source)
        if source == ORIGIN:
            self.origin_bytes += item.length

    def _label(self, asked: Asked, cell: int) -> str:
        source = asked.command.source
        if source == ORIGIN:
            return f"{asked.version}.{cell}"
        if (sibling := sibling_of(source)) is not None:
            return self.parts[sibling].cells[cell].label
        if source == CACHE:
            chunk = cell * CELL // self.layout.chunk_bytes
            labels, _ = self.cache[self.content_id(asked.command.file, asked.version), chunk]
            return labels[cell - chunk * self.layout.chunk_bytes // CELL]
        peer = self._peer_behind(source)
        assert peer is not None
        if peer.manner in (Manner.CORRUPT, Manner.FALSE_VOUCHER, Manner.NO_VOUCHER):
            return f"noise {peer.peer[0]}.{cell}"
        if peer.relayed_from is not None:
            return f"noise {peer.relayed_from[0]}.{cell}"
        return f"{peer.version}.{cell}"

    def _vouchers(self, asked: Asked) -> tuple[Voucher, ...]:
        file, source = asked.command.file, asked.command.source
        chunks = self._chunks(asked)
        if source == CACHE:
            content_id = self.content_id(file, asked.version)
            kept = [chunk for chunk in chunks if (content_id, chunk) in self.cache]
            return tuple(each for chunk in kept for each in self._cached(content_id, chunk))
        peer = self._peer_behind(source)
        if peer is None or peer.manner is Manner.NO_VOUCHER:
            return ()

        def sign(chunk: int, digest: ChunkDigest, signer: PeerId) -> Voucher:
            content_id = self.content_id(file, peer.version)
            return Voucher(
                content_id=content_id, chunk=ChunkIndex(chunk), digest=digest, signer=signer, signature=b""
            )

        if peer.manner is Manner.FALSE_VOUCHER:
            return tuple(sign(chunk, self.noise(chunk, peer.peer), peer.peer) for chunk in chunks)
        if peer.relayed_from is not None:
            liar = peer.relayed_from
            return tuple(sign(chunk, self.noise(chunk, liar), liar) for chunk in chunks)
        honest = tuple(sign(chunk, self.truth(chunk, peer.version), peer.peer) for chunk in chunks)
        if peer.manner is Manner.POISON:
            others = [chunk for chunk in range(self.layout.count) if chunk not in chunks]
            return honest + tuple(sign(chunk, self.noise(chunk, peer.peer), peer.peer) for chunk in others)
        if self._trouble(0.1):
            return honest[1:]  # a signature could not be checked: its signer's certificate was not to be had
        return honest

    def _cached(self, content_id: ContentId, chunk: int) -> tuple[Voucher, ...]:
        labels, vouchers = self.cache[content_id, chunk]
        if vouchers:
            return vouchers
        own = PeerId("e" * 64)
        digest = digest_of_labels(labels)
        return (Voucher(content_id=content_id, chunk=ChunkIndex(chunk), digest=digest, signer=own, signature=b""),)

    def _digested(self, command: cmd.DigestChunk, early: ChunkDigest | None) -> None:
        digest = early or self.digest_on_disk(command.file, command.item)
        self.parts[command.file].digests[command.chunk] = digest
        self.send(ev.ChunkDigested(file=command.file, chunk=command.chunk, digest=digest, token=command.token))

    def wrong_cells(self, file: FileId) -> list[int]:
        """Cells that are not what the origin serves now."""
        return self._differing(file, self.version)

    def mixed(self, file: FileId) -> bool:
        """The file is no version that the origin ever served."""
        return all(self._differing(file, version) for version in ("v1", "v2"))

    def _differing(self, file: FileId, version: str) -> list[int]:
        cells, hole = self.parts[file].cells, Cell("hole", ORIGIN)
        wanted = self._cells(ByteRange(0, self.flags.length))
        return [cell for cell in wanted if cells.get(cell, hole).label != f"{version}.{cell}"]

    def _validate(self, file: FileId, attempt: int) -> None:
        if self._trouble(0.1):
            self.send(ev.ValidatorFailed(file=file, attempt=attempt, reason="crashed"))
        elif self.flags.checked and self.wrong_cells(file):
            self.send(ev.ContentRejected(file=file, attempt=attempt, reason="wrong digest"))
        elif self.flags.asks:
            self.send(ev.ContentUndecided(file=file, attempt=attempt))
        else:
            self.send(ev.ContentAccepted(file=file, attempt=attempt))

    def _end(self, asked: Asked) -> None:
        assert not asked.over, "ended twice"
        asked.over = True
        self.asked[asked.command.file].pop(asked.command.request, None)

    # --- time and chance -------------------------------------------------------------------------------------

    def one_answer(self) -> bool:
        """Give one of the answers that are owed. False when none is."""
        if not self.todo:
            return False
        self.now += self.rng.random() * 0.05
        self.todo.pop(self.rng.randrange(len(self.todo)))()
        return True

    def happen(self) -> None:
        """Something among the peers or at the origin."""
        self.now += self.rng.random() * 0.3
        if not self.transfers:
            return
        file = self.rng.choice(sorted(self.transfers))
        if self.flags.changes and self.rng.random() < 0.05:
            self.version = "v2"
        if self.peers:
            peer = self.rng.choice(self.peers)
            if self.rng.random() < 0.5:
                grown = peer.have | 1 << self.rng.randrange(max(1, self.layout.count))
                peer.have = Bitfield(grown & self.layout.everything)
                self._offer(file, peer)
            elif file in self.asking:
                self.send(ev.SourceLost(file=file, source=peer_source(peer.peer)))

    def crash(self, file: FileId) -> None:
        """The process dies: nothing that was owed to this file comes any more."""
        for asked in self.asked.pop(file, {}).values():
            asked.over = True
        self.asking.pop(file, None)
        self.todo.clear()
        self.used = {pair for pair in self.used if pair[0] != file}


def _gone() -> Failure:
    return Failure(kind=FailureKind.LENGTH_MISMATCH, message="it does not have that")
