"""What each chunk has to be, on whose word, and who is blamed. How a transfer gets there is in test_fetching.py."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.chunks import ChunkBook
from agent.core.evidence import Concerned, Evidence
from agent.core.naming import Names
from agent.core.origin_share import OriginShare
from agent.core.publishing import Publishing
from agent.core.requests import InFlight, Requests
from agent.core.source_book import SourceBook
from agent.core.sources import CACHE, SourceId, peer_source
from agent.core.spec import ServeUse, Tally
from agent.core.tuning import Tuning
from peer.core.failure import FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId, Voucher
from tests.support.playbook import CHUNK, FILE, PEER_A, PEER_B, digest_of, spec, vouch
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout, ContentId, bitfield, chunks_in
from validation.digest import Algorithm, Digest

ID = ContentId("1" * 64)


@dataclass
class Bench:
    """Everything that is concerned by a judgement about four chunks."""

    evidence: Evidence
    parts: Concerned
    out: list[cmd.Command]

    def of_type(self, kind: type) -> list[cmd.Command]:
        return [each for each in self.out if isinstance(each, kind)]

    def from_origin(self, *chunks: int, flavour: str = "true") -> None:
        for chunk in chunks:
            self.parts.chunks.arrived_from_origin(self.parts.chunks.layout.range_of(ChunkIndex(chunk)))
            self.evidence.ask_digest(ChunkIndex(chunk), self.out)
            self.digested(chunk, flavour)

    def delivered(self, source: SourceId, *chunks: int, said: tuple[Voucher, ...] = ()) -> FailureKind | None:
        layout = self.parts.chunks.layout
        item = layout.span(ChunkIndex(chunks[0]), ChunkIndex(chunks[-1]))
        entry: InFlight = self.parts.requests.open(source, item, bitfield(chunks), 0.0)
        self.parts.requests.close(entry.request)
        self.parts.chunks.arrived_from_near(item)
        fault = self.evidence.judge_delivery(entry, said, self.out)
        return None if fault is None else fault.kind

    def digested(self, chunk: int, flavour: str = "true", token: int | None = None) -> None:
        digest = digest_of(chunk, flavour)
        self.evidence.digested(
            ev.ChunkDigested(file=FILE, chunk=ChunkIndex(chunk), digest=digest, token=token), self.out
        )


def bench(**changes: object) -> Bench:
    given = spec(**changes)
    publishing = Publishing(given)
    publishing.name(Names(content_ids=(ID,), url_ids=(ID,)))
    sources = SourceBook(Tuning(), CHUNK)
    for peer in (PEER_A, PEER_B):
        sources.offered(peer_source(peer), Bitfield(0b1111), NO_CHUNKS, 0.0)
    parts = Concerned(
        chunks=ChunkBook(ChunkLayout.for_length(4 * CHUNK)),
        sources=sources,
        share=OriginShare(Tuning()),
        publishing=publishing,
        tally=Tally(),
        requests=Requests(),
    )
    return Bench(Evidence(given, parts), parts, [])


def said(
    *chunks: int, by: PeerId = PEER_A, flavour: str = "true", content_id: ContentId = ID
) -> tuple[Voucher, ...]:
    return tuple(vouch(content_id, chunk, by, flavour) for chunk in chunks)


def test_a_delivery_is_judged_by_its_own_vouchers() -> None:
    at = bench()
    assert at.delivered(peer_source(PEER_A), 0, 1, said=said(0, 1)) is None
    at.digested(0)
    at.digested(1)
    assert at.parts.chunks.proven == 0b11
    assert at.parts.chunks.suspects == 0b11
    assert [each.signer for each in at.evidence.in_use()] == [PEER_A, PEER_A]


@pytest.mark.parametrize("wrong", [(), said(1), said(0, content_id=ContentId("2" * 64))])
def test_without_a_voucher_for_it_a_chunk_does_not_count(wrong: tuple[Voucher, ...]) -> None:
    at = bench()
    assert at.delivered(peer_source(PEER_A), 0, said=wrong) is FailureKind.NO_VOUCHER
    assert at.parts.chunks.held.total == 0
    assert at.parts.tally.discarded == CHUNK
    assert not at.of_type(cmd.ReportPeer)


def test_the_own_cache_needs_no_voucher() -> None:
    at = bench()
    assert at.delivered(CACHE, 0) is None
    at.digested(0)
    assert at.parts.chunks.proven == 0b1
    assert not at.of_type(cmd.PublishChunk), "it is there already"


def test_a_conflict_is_decided_by_the_origin_and_the_liar_named() -> None:
    at = bench()
    at.delivered(peer_source(PEER_A), 0, said=said(0) + said(0, by=PEER_B, flavour="noise"))
    assert at.evidence.origin_only == 0b1
    assert at.of_type(cmd.LogLine)
    at.from_origin(0)
    (report,) = at.of_type(cmd.ReportPeer)
    assert isinstance(report, cmd.ReportPeer)
    assert (report.peer, report.offence) == (PEER_B, Offence.FALSE_VOUCHER)


def test_what_is_corrupt_bans_its_bearer() -> None:
    at = bench()
    at.delivered(peer_source(PEER_A), 0, said=said(0, by=PEER_B))
    at.digested(0, "noise")
    (report,) = at.of_type(cmd.ReportPeer)
    assert isinstance(report, cmd.ReportPeer)
    assert (report.peer, report.offence) == (PEER_A, Offence.CORRUPT_BYTES)
    assert (at.parts.chunks.held.total, at.evidence.origin_only) == (0, 0b1)
    assert not at.parts.sources.usable(peer_source(PEER_A), 1.0)


def test_what_rests_on_a_liars_word_alone_goes_with_him() -> None:
    at = bench()
    at.delivered(peer_source(PEER_A), 0, 1, said=said(0, 1) + said(1, by=PEER_B) + said(2, flavour="noise"))
    at.digested(0)
    at.digested(1)
    at.from_origin(2)
    assert list(chunks_in(at.parts.chunks.proven)) == [1, 2]


@pytest.mark.parametrize("known", [True, False])
def test_acceptance_names_liars_only_if_it_proves_the_bytes_and_throws_nothing_away(known: bool) -> None:
    digest = Digest(Algorithm.SHA256, bytes(32)) if known else None
    at = bench(digest=digest, serve=ServeUse.NEVER)
    at.delivered(peer_source(PEER_A), 0, 1, said=said(0, 1) + said(2, flavour="noise"))
    at.digested(0)
    at.digested(1)
    at.delivered(peer_source(PEER_B), 3, said=said(3, by=PEER_B))
    at.digested(3)
    at.parts.chunks.arrived_from_origin(at.parts.chunks.layout.range_of(ChunkIndex(2)))
    at.parts.chunks.inherit()
    at.evidence.ask_digests(at.out)
    at.digested(2)
    at.evidence.accepted(at.out)
    blamed = [each.peer for each in at.of_type(cmd.ReportPeer) if isinstance(each, cmd.ReportPeer)]
    assert blamed == ([PEER_A] if known else [])
    assert at.parts.chunks.complete


def test_the_origin_against_a_manifest_is_the_origins_failure() -> None:
    at = bench(anchors=tuple(digest_of(chunk) for chunk in range(4)))
    at.from_origin(0, flavour="noise")
    assert at.parts.share.failure is not None
    assert at.parts.share.failure.kind is FailureKind.CORRUPT
    assert not at.of_type(cmd.ReportPeer)


def test_what_is_inherited_is_used_but_signed_by_nobody() -> None:
    at = bench()
    at.parts.chunks.arrived_from_origin(at.parts.chunks.layout.range_of(ChunkIndex(0)))
    at.parts.chunks.inherit()
    at.evidence.ask_digests(at.out)
    at.digested(0)
    assert at.parts.chunks.from_origin == 0b1
    assert not at.of_type(cmd.PublishChunk)


def test_a_digest_of_bytes_that_were_thrown_away_means_nothing() -> None:
    at = bench()
    at.delivered(peer_source(PEER_A), 0, said=said(0))
    (asked,) = at.of_type(cmd.DigestChunk)
    assert isinstance(asked, cmd.DigestChunk)
    at.parts.chunks.discard([ChunkIndex(0)])
    at.from_origin(1)
    at.delivered(peer_source(PEER_B), 0, said=said(0, by=PEER_B))
    at.digested(0, "noise", token=asked.token)
    assert not at.of_type(cmd.ReportPeer)
    at.digested(0)
    assert at.parts.chunks.proven == 0b11


def test_what_an_earlier_process_had_heard_counts() -> None:
    at = bench()
    at.evidence.remember(said(0))
    at.parts.chunks.restore([at.parts.chunks.layout.range_of(ChunkIndex(0))], NO_CHUNKS)
    at.evidence.ask_digests(at.out)
    at.digested(0, "noise")
    assert at.parts.chunks.proven == NO_CHUNKS
    assert not at.of_type(cmd.ReportPeer), "nobody knows who damaged it"


def test_what_the_origin_sent_we_sign_ourselves() -> None:
    at = bench()
    at.from_origin(0)
    (told,) = at.of_type(cmd.PublishChunk)
    assert isinstance(told, cmd.PublishChunk)
    assert (told.sign, told.vouchers) == ((ID,), ())
