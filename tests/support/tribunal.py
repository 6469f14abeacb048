"""One transfer among scripted peers, driven to its end: whose word each chunk rests on, what the origin serves, and
a validator that sees every wrong chunk.

Peers give what they are drawn to have, at once; the part file is what was written into it last. Nothing is decided
here: it is for tests of what happens after a rejection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.sources import ORIGIN, peer_of, peer_source
from agent.core.spec import Restored, TransferSpec
from agent.core.transfer import Phase
from peer.core.failure import FailureKind
from peer.core.voucher import PeerId, Voucher
from tests.support.playbook import (
    CHUNK,
    OWN,
    Stage,
    begun,
    digest_of,
    facts,
    failure,
    near_answered,
    offered,
    probed,
    ticked,
    vouch,
)
from validation.content import ChunkIndex, chunks_in

TRUE = "true"
STEPS = 20_000
"""More than any of these transfers takes."""


@dataclass
class Giver:
    """A peer: of each of its chunks who vouches for it, and what is in it."""

    words: dict[int, tuple[PeerId, str]] = field(default_factory=dict)
    wants: bool = False
    shy: bool = False
    """When the copy is rejected it takes back all that it offers, but what it vouches for itself."""
    leaves: bool = False
    """It is gone as soon as it is asked for something after a rejection."""
    fresh: dict[int, str] = field(default_factory=dict)
    """What it has then on its own word, whatever it had before."""

    @classmethod
    def of(cls, chunks: Iterable[int], signer: PeerId, wrong: Iterable[int] = (), **more: bool) -> Giver:
        """It has these on that word; `wrong` ones are altered."""
        bad = set(wrong)
        return cls({chunk: (signer, "noise" if chunk in bad else TRUE) for chunk in chunks}, **more)

    def and_of(self, chunks: Iterable[int], signer: PeerId, wrong: Iterable[int] = ()) -> Giver:
        """... and these on another's."""
        bad = set(wrong)
        self.words |= {chunk: (signer, "noise" if chunk in bad else TRUE) for chunk in chunks}
        return self


class Tribunal:
    """The transfer, and its world."""

    def __init__(
        self,
        chunks: int,
        peers: dict[PeerId, Giver],
        *,
        given: TransferSpec | None = None,
        restored: Restored | None = None,
        part: dict[int, str] | None = None,
        origin: str = TRUE,
        own: PeerId | None = OWN,
    ) -> None:
        self.chunks, self.peers, self.origin = chunks, peers, origin
        self.stage = Stage.new(given, restored, own=own)
        self.part: dict[int, str] = dict(part or {})
        self.fetched: list[tuple[int, int]] = []
        """Of the origin: how many rejections there had been, and which chunk."""
        self.compared: list[tuple[PeerId, int]] = []
        """What peers sent after a rejection."""
        self.rejections = 0
        self.published: dict[int, tuple[PeerId, ...]] = {}
        """What is offered now, and who vouches for it; nobody else: we do."""
        self.accepts = True
        """The validator is satisfied when all is what it should be."""
        self.id_used = 0
        """Which of the content's ids the vouchers are for; the last may be the one by the whole file's digest."""
        self._todo: list[cmd.Command] = []

    # --- what came of it ---------------------------------------------------------------------------------------

    @property
    def blamed(self) -> dict[PeerId, None]:
        """Who was reported, in order."""
        return {each.peer: None for each in self.stage.log if isinstance(each, cmd.ReportPeer)}

    @property
    def again(self) -> list[int]:
        """Chunks that were asked of the origin after a rejection."""
        return [chunk for rejections, chunk in self.fetched if rejections]

    @property
    def failed(self) -> str | None:
        """The code of the error with which it ended."""
        return next((each.code for each in self.stage.log if isinstance(each, cmd.Failed)), None)

    @property
    def finished(self) -> bool:
        return any(isinstance(each, cmd.Finished) for each in self.stage.log)

    @property
    def right(self) -> bool:
        """Every byte is what it should be."""
        return self.part == dict.fromkeys(range(self.chunks), TRUE)

    # --- running -----------------------------------------------------------------------------------------------

    def start(self) -> Tribunal:
        self._feed(*begun()(self.stage))
        return self

    def run(self, *, fetches: int | None = None) -> Tribunal:
        """To its end, or until so many chunks were asked of the origin after a rejection."""
        for _ in range(STEPS):
            if self.finished or self.failed or (fetches is not None and len(self.again) >= fetches):
                return self._settle()
            if self._todo:
                self._perform(self._todo.pop(0))
            else:
                self._feed(*ticked()(self.stage))
        raise AssertionError("it never ends")

    def _settle(self) -> Tribunal:
        """What was said to the end is heard, too."""
        for command in self._todo:
            if isinstance(command, cmd.PublishChunk | cmd.WithdrawContent | cmd.WithdrawChunks):
                self._perform(command)
        return self

    def feed(self, *events: ev.FileEvent) -> None:
        """Something else happens."""
        self._feed(*events)

    def _feed(self, *events: ev.FileEvent) -> None:
        for event in events:
            self._todo += self.stage.feed(event)

    def _perform(self, command: cmd.Command) -> None:
        match command:
            case cmd.ProbeOrigin():
                self._feed(*probed(facts(self.chunks))(self.stage))
            case cmd.AskNear():
                self._offer()
                self._feed(*near_answered()(self.stage))
            case cmd.FetchRange():
                self._fetch(command)
            case cmd.AbortFetch(request=request):
                if request in self.stage.open:
                    raise AssertionError("requests are answered at once here")
            case cmd.DigestChunk(chunk=chunk, token=token):
                digest = digest_of(chunk, self.part[chunk])
                self._feed(ev.ChunkDigested(file=command.file, chunk=chunk, digest=digest, token=token))
            case cmd.PublishChunk(chunk=chunk, vouchers=vouchers):
                self.published[chunk] = tuple(each.signer for each in vouchers)
            case cmd.WithdrawContent():
                self.published.clear()
            case cmd.WithdrawChunks(chunks=chunks):
                for chunk in chunks_in(chunks):
                    self.published.pop(chunk, None)
            case cmd.ReportPeer(peer=peer):
                if self.peers.pop(peer, None) is not None and self.stage.transfer.phase is Phase.FETCHING:
                    self._feed(ev.SourceLost(file=command.file, source=peer_source(peer)))
            case cmd.ValidateContent(attempt=attempt):
                self._judge(command, attempt)
            case cmd.Refetching():
                self._feed(*begun()(self.stage))
            case _:
                pass

    def _judge(self, command: cmd.ValidateContent, attempt: int) -> None:
        if self.right and self.accepts:
            self._feed(ev.ContentAccepted(file=command.file, attempt=attempt))
            return
        self.rejections += 1
        for peer, giver in self.peers.items():
            if giver.shy:
                giver.words = {chunk: word for chunk, word in giver.words.items() if word[0] == peer}
            giver.words |= {chunk: (peer, flavour) for chunk, flavour in giver.fresh.items()}
        self._feed(ev.ContentRejected(file=command.file, attempt=attempt, reason="wrong"))

    def _offer(self) -> None:
        for peer, giver in self.peers.items():
            self._feed(*offered(peer, giver.words, wants=giver.wants)(self.stage))

    def tell(self, peer: PeerId) -> None:
        """It offers what it has now."""
        self._feed(*offered(peer, self.peers[peer].words, wants=self.peers[peer].wants)(self.stage))

    def _fetch(self, command: cmd.FetchRange) -> None:
        if command.request not in self.stage.open:
            return
        chunks = list(self.stage.layout.touched_by(command.item))
        who = peer_of(command.source)
        vouchers: list[Voucher] = []
        if command.source == ORIGIN:
            assert command.item.start % CHUNK == 0
            self.fetched += [(self.rejections, chunk) for chunk in chunks]
            self.part |= dict.fromkeys(chunks, self.origin)
        else:
            assert who is not None
            if self.rejections and self.peers[who].leaves:
                del self.peers[who]
                gone = failure(FailureKind.CONNECTION_CLOSED)
                self._feed(ev.RangeFailed(file=command.file, request=command.request, failure=gone))
                self._feed(ev.SourceLost(file=command.file, source=command.source))
                return
            for chunk in chunks:
                signer, self.part[chunk] = self.peers[who].words[chunk]
                if signer not in self.blamed:
                    content_id = self.stage.transfer.content_ids[self.id_used]
                    vouchers.append(vouch(content_id, ChunkIndex(chunk), signer, self.part[chunk]))
            self.compared += [(who, chunk) for chunk in chunks if self.rejections]
        self._feed(
            ev.RangeArrived(file=command.file, request=command.request, item=command.item),
            ev.RangeReceived(
                file=command.file, request=command.request, item=command.item, vouchers=tuple(vouchers)
            ),
        )
