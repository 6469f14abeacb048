"""What peers are told of transfers under way."""

from __future__ import annotations

from agent.claims import ClaimBoard
from agent.core.commands import PublishClaim
from agent.core.sources import FileId
from peer.house import Claim
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout, ContentId

LAYOUT = ChunkLayout.for_length(1 << 20)
A, B = ContentId("a" * 64), ContentId("b" * 64)


def said(file: str, *ids: ContentId, chunks: int = 0, wants: bool = True) -> PublishClaim:
    return PublishClaim(file=FileId(file), content_ids=ids, layout=LAYOUT, chunks=Bitfield(chunks), wants=wants)


def claim(chunks: int, wants: bool = True) -> Claim:
    return Claim(layout=LAYOUT, chunks=Bitfield(chunks), wants=wants)


def test_a_content_is_told_of_under_each_of_its_ids_until_it_is_taken_back() -> None:
    board, told = ClaimBoard(), []
    board.changed = told.append
    board.put(said("j/0", A, B, chunks=0b1))
    assert (board.find(A), board.find(B)) == (claim(0b1), claim(0b1))
    board.put(said("j/0", B, chunks=0b10))
    assert (board.find(A), board.find(B)) == (None, claim(0b10))
    board.put(said("j/0", chunks=NO_CHUNKS, wants=False))
    assert board.find(B) is None
    assert told == [A, B, A, B, B]


def test_files_of_one_content_are_one_claim() -> None:
    board = ClaimBoard()
    board.put(said("j/0", A, chunks=0b1, wants=False))
    board.put(said("k/0", A, chunks=0b10))
    assert board.find(A) == claim(0b11)
    board.forget(FileId("k/0"))
    assert board.find(A) == claim(0b1, wants=False)
    board.forget(FileId("k/0"))
    board.forget(FileId("j/0"))
    assert board.find(A) is None
