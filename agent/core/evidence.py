"""What each chunk has to be, on whose word; and whose fault it is when it is something else.

Judges bytes by vouchers, and vouchers by the origin's bytes. Never knows: requests, time, jobs, files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.chunks import ChunkBook
from agent.core.comparing import FEW, Comparing, Sight
from agent.core.means import Means
from agent.core.origin_share import OriginShare
from agent.core.proof import Expected, allowed
from agent.core.publishing import Publishing
from agent.core.requests import InFlight, Requests
from agent.core.source_book import SourceBook
from agent.core.sources import peer_of, peer_source
from agent.core.spec import Tally, TransferSpec
from peer.core.failure import Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId, Voucher, VoucherBook
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, bitfield, chunks_in
from validation.digest import ChunkDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """Whom a judgement concerns."""

    chunks: ChunkBook
    sources: SourceBook
    share: OriginShare
    publishing: Publishing
    tally: Tally
    requests: Requests

    @classmethod
    def of(cls, means: Means, chunks: ChunkBook, sources: SourceBook, share: OriginShare) -> Concerned:
        """With what a file is fetched with for its whole life."""
        return cls(
            chunks=chunks,
            sources=sources,
            share=share,
            publishing=means.publishing,
            tally=means.tally,
            requests=means.requests,
        )


class Evidence:
    """Vouchers, expectations and digests of one content."""

    def __init__(self, spec: TransferSpec, concerned: Concerned) -> None:
        self._contested = NO_CHUNKS
        """Chunks of which only the origin can say what they are."""
        self._corrupted = NO_CHUNKS
        """Chunks that somebody, who was banned for that, gave us damaged: better from the origin now."""
        self._file = spec.file
        self._anchors = spec.anchors
        self._whole_is_known = spec.digest is not None
        self._chunks = concerned.chunks
        self._sources = concerned.sources
        self._share = concerned.share
        self._publishing = concerned.publishing
        self._tally = concerned.tally
        self._requests = concerned.requests
        self._vouchers = VoucherBook()
        self._liars = False
        """Somebody's word counts no more: who passes on what rests on it alone may be honest."""
        self._expected: dict[ChunkIndex, Expected] = {}
        self._digests: dict[ChunkIndex, ChunkDigest] = {}
        self._tokens: dict[ChunkIndex, int] = {}
        self.comparing: Comparing | None = None
        """What was held was rejected, and it is being found out what of it is wrong."""

    @property
    def origin_only(self) -> Bitfield:
        """Chunks that must not come from near sources now. What is known of a damaged one still holds: while the
        origin gives nothing, those who were not caught may bring it."""
        compared = NO_CHUNKS if self.comparing is None else self.comparing.origin_only
        damaged = self._corrupted if self._share.failure is None else NO_CHUNKS
        return Bitfield(self._contested | damaged | compared)

    def remember(self, vouchers: tuple[Voucher, ...]) -> None:
        """What an earlier process had heard."""
        for voucher in vouchers:
            self._vouchers.hear(voucher)

    def in_use(self) -> tuple[Voucher, ...]:
        """The vouchers behind the chunks that came from near sources, or that are to be compared with those."""
        chunks = self._chunks.suspects
        if self.comparing is not None:
            chunks = Bitfield(chunks | self.comparing.suspects & ~self._chunks.proven)
        return tuple(
            voucher
            for chunk in chunks_in(chunks)
            if (digest := self._digest_of(chunk)) is not None
            for voucher in self._vouchers.vouchers(chunk, digest)
        )

    def expect_nothing(self) -> None:
        """What had been expected of chunks is of no interest: the origin supplies them."""
        self._expected.clear()

    def _digest_of(self, chunk: ChunkIndex) -> ChunkDigest | None:
        """Of what is, or was last, held; after a restart all that is known is what was said of it."""
        claims = self._vouchers.digests(chunk)
        return self._digests.get(chunk, claims[0] if len(claims) == 1 else None)

    def _signers(self, chunk: ChunkIndex) -> tuple[PeerId, ...]:
        digest = self._digest_of(chunk)
        return () if digest is None else tuple(each.signer for each in self._vouchers.vouchers(chunk, digest))

    # --- after a rejection -----------------------------------------------------------------------------------

    def doubt(self, rng: random.Random | None) -> Bitfield:
        """The copy was rejected. Returns what has to come again, from the origin. With `rng` the rest stays, and is
        compared if that may say what of it is wrong."""
        self.comparing = None
        self._expected.clear()
        suspects = self._chunks.suspects
        signed = bitfield(chunk for chunk in chunks_in(suspects) if self._signers(chunk))
        if rng is None or self._anchors or self._share.whole_only or signed.bit_count() <= FEW:
            return suspects
        self.comparing = Comparing({chunk: self._digest_of(chunk) for chunk in chunks_in(suspects)}, rng)
        self.comparing.origin_only = Bitfield(suspects & ~signed)
        return self.comparing.origin_only

    def compare(self, near: bool, now: float) -> Bitfield:
        """What is to be thrown away, and compared, next."""
        if self.comparing is None:
            return NO_CHUNKS
        chunks = self._chunks
        missing = Bitfield(chunks.layout.everything & ~chunks.proven)
        sight = Sight(
            suspects=chunks.suspects,
            missing=missing,
            awaited=Bitfield(missing & self.origin_only),
            offers=tuple(self._sources.offers(now)) if near else (),
        )
        for chunk in chunks_in(self.comparing.given_up(sight)):
            for signer in self._signers(chunk):
                self._sources.forgive(peer_source(signer), Bitfield(1 << chunk))
        chosen = self.comparing.choose(sight, self._signers)
        for chunk in chunks_in(Bitfield(chosen & ~self.comparing.origin_only)):
            for signer in self._signers(chunk):  # another's word is wanted
                self._sources.shun(peer_source(signer), Bitfield(1 << chunk))
        return chosen

    def _compared(self, chunk: ChunkIndex, digest: ChunkDigest, word: tuple[PeerId, ...]) -> None:
        """It is there again. If it is not what it was, what rests on the same word alone goes as well; of those who
        are not liars for sure (a mirror may serve something else), it comes from the origin."""
        comparing = self.comparing
        if comparing is None or not comparing.proven(chunk, digest):
            return
        gone = []
        for other in chunks_in(self._chunks.suspects):
            signers = self._signers(other)
            if other != chunk and signers and set(signers) <= set(word):
                gone.append(other)
        comparing.origin_only = Bitfield(comparing.origin_only | bitfield(gone))
        self._tally.discarded += self._chunks.discard(gone)

    # --- deliveries ------------------------------------------------------------------------------------------

    def judge_delivery(
        self, entry: InFlight, vouchers: tuple[Voucher, ...], out: list[cmd.Command]
    ) -> Failure | None:
        """A near source delivered: each chunk needs a digest it must have, or it does not count.

        Returns what is to be held against the source.
        """
        ids = self._publishing.content_ids
        told = [voucher for voucher in vouchers if voucher.content_id in ids and self._vouchers.hear(voucher)]
        named = {voucher.chunk for voucher in told}
        of_peer = peer_of(entry.source) is not None
        silent = False
        for chunk in chunks_in(entry.chunks):
            claims = self._vouchers.digests(chunk)
            if self._anchors or not (of_peer or claims):
                came_with = tuple(voucher for voucher in told if voucher.chunk == chunk)
                self._expect(chunk, Expected(source=entry.source, digest=None, vouchers=came_with), out)
            elif of_peer and chunk not in named:
                # what others vouched for is no measure of these bytes; it may know only a liar's word for them
                silent = not self._liars
                self._sources.shun(entry.source, Bitfield(1 << chunk))
                self._tally.discarded += self._chunks.discard((chunk,))
            elif len(claims) == 1:
                given = self._vouchers.vouchers(chunk, claims[0])
                self._expect(chunk, Expected(source=entry.source, digest=claims[0], vouchers=given), out)
            else:
                self._tally.discarded += self._chunks.discard((chunk,))
                self._contested = Bitfield(self._contested | 1 << chunk)
                text = f"vouchers contradict each other for chunk {chunk}: asking the origin"
                out.append(cmd.LogLine(file=self._file, text=text))
        return Failure(kind=FailureKind.NO_VOUCHER, message="no voucher for a chunk") if silent else None

    def _expect(self, chunk: ChunkIndex, expected: Expected, out: list[cmd.Command]) -> None:
        self._expected[chunk] = expected
        self.ask_digest(chunk, out)

    # --- digests ---------------------------------------------------------------------------------------------

    def ask_digests(self, out: list[cmd.Command]) -> None:
        """Of every chunk that is whole and has none; some that were asked for may never be answered: the disk had
        failed."""
        self._chunks.forget_digests()
        in_flight = self._requests.chunks
        for chunk in self._chunks.whole_unproven():
            if not in_flight >> chunk & 1:
                self.ask_digest(chunk, out)

    def ask_digest(self, chunk: ChunkIndex, out: list[cmd.Command]) -> None:
        """The chunk is whole."""
        self._chunks.begin_digest(chunk)
        item = self._chunks.layout.range_of(chunk)
        token = self._tokens[chunk] = self._requests.number()
        out.append(cmd.DigestChunk(file=self._file, chunk=chunk, item=item, token=token))

    def digested(self, event: ev.ChunkDigested, out: list[cmd.Command]) -> None:
        """The digest of a chunk is known: it is proven, or it does not count."""
        chunk, digest, chunks = event.chunk, event.digest, self._chunks
        if event.token is not None and event.token != self._tokens.get(chunk):
            return
        if not chunks.end_digest(chunk):
            return
        self._tokens.pop(chunk, None)
        expected = self._expected.pop(chunk, None)
        claims = () if chunks.came_from_origin(chunk) else self._vouchers.digests(chunk)
        wanted = allowed(chunk, self._anchors, expected, claims)
        if wanted and digest not in wanted:
            self._corrupt(chunk, digest, expected, out)
            return
        vouched = not self._anchors and expected is not None and expected.digest is not None
        if vouched and not self._vouchers.vouchers(chunk, digest):  # its only signer was found lying meanwhile
            self._tally.discarded += chunks.discard((chunk,))
            return
        self._proven(chunk, digest, expected, out)

    def _proven(
        self, chunk: ChunkIndex, digest: ChunkDigest, expected: Expected | None, out: list[cmd.Command]
    ) -> None:
        chunks = self._chunks
        chunks.prove(chunk)
        word = () if self.comparing is None else self._signers(chunk)
        self._digests[chunk] = digest
        if expected is None and chunks.came_from_origin(chunk):
            if not chunks.inherited >> chunk & 1:
                for liar in self._vouchers.refute(chunk, digest, self._publishing.url_ids):
                    self._ban(liar, Offence.FALSE_VOUCHER, f"chunk {chunk}", out)
                out += self._publishing.proven(chunks, chunk, digest, ())
        elif expected is not None and peer_of(expected.source) is not None:
            given = expected.vouchers_for(digest)
            if self.comparing is None or not self.comparing.is_doubtful(chunk, len(given)):
                out += self._publishing.proven(chunks, chunk, digest, given)
        self._compared(chunk, digest, word)

    def accepted(self, out: list[cmd.Command]) -> None:
        """The whole file was accepted: what had to wait for that may now be offered.

        With a digest of the whole it is the truth as well, so that who vouched for something else lied.
        """
        if not self._publishing.after_acceptance:
            return
        for chunk, digest in sorted(self._digests.items()):
            if self._whole_is_known:
                for liar in self._vouchers.refute(chunk, digest, self._publishing.content_ids):
                    self._blame(liar, Offence.FALSE_VOUCHER, f"chunk {chunk}", out)
            vouchers = self._vouchers.vouchers(chunk, digest)
            out += self._publishing.accepted(self._chunks, chunk, digest, vouchers)

    # --- blame -----------------------------------------------------------------------------------------------

    def _corrupt(
        self, chunk: ChunkIndex, digest: ChunkDigest, expected: Expected | None, out: list[cmd.Command]
    ) -> None:
        """Bytes that are not what they had to be: thrown away, their bearer blamed, the origin asked instead.

        Who brought exactly what somebody else vouches for handed on what it was given. The signer is named by
        the origin's bytes; until then it is nobody's fault.
        """
        from_origin = self._chunks.came_from_origin(chunk)
        self._tally.discarded += self._chunks.discard((chunk,))
        self._corrupted = Bitfield(self._corrupted | 1 << chunk)
        if expected is None and not from_origin:
            return  # left by an earlier process, damaged since
        if expected is None:
            text = f"chunk {chunk} from the origin does not match the manifest"
            self._share.failed(Failure(kind=FailureKind.CORRUPT, message=text), 0)
            return
        peer = peer_of(expected.source)
        if any(voucher.signer != peer for voucher in expected.vouchers_for(digest)):
            self._contested = Bitfield(self._contested | 1 << chunk)
            return
        self._sources.drop(expected.source)
        if peer is not None:
            self._ban(peer, Offence.CORRUPT_BYTES, f"chunk {chunk}", out)
        else:
            ids = self._publishing.content_ids
            out.append(cmd.WithdrawChunks(file=self._file, content_ids=ids, chunks=Bitfield(1 << chunk)))

    def _ban(self, peer: PeerId, offence: Offence, detail: str, out: list[cmd.Command]) -> None:
        """Nothing that rests on this peer's word alone counts any more."""
        baseless = self._blame(peer, offence, detail, out)
        if not self._anchors:
            suspects = self._chunks.suspects
            gone = [at for at, digest in baseless if suspects >> at & 1 and self._digests.get(at, digest) == digest]
            self._tally.discarded += self._chunks.discard(gone)
            if gone and self.comparing is not None:
                self.comparing.caught = True

    def _blame(
        self, peer: PeerId, offence: Offence, detail: str, out: list[cmd.Command]
    ) -> list[tuple[ChunkIndex, ChunkDigest]]:
        """Its word counts no more. Returns what rested on that alone."""
        self._sources.drop(peer_source(peer))
        self._liars = True
        out.append(cmd.ReportPeer(file=self._file, peer=peer, offence=offence, detail=detail))
        return self._vouchers.forget_signer(peer)
