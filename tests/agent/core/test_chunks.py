"""The book of bytes."""

from __future__ import annotations

from agent.core.chunks import ChunkBook
from validation.content import Bitfield, ChunkIndex, ChunkLayout
from validation.ranges import ByteRange

C = 1024
ONE, TWO = ChunkIndex(1), ChunkIndex(2)


def book(length: int = 3 * C) -> ChunkBook:
    return ChunkBook(ChunkLayout(length=length, chunk_bytes=C))


def prove(of: ChunkBook, chunk: int) -> None:
    of.begin_digest(ChunkIndex(chunk))
    assert of.end_digest(ChunkIndex(chunk))
    of.prove(ChunkIndex(chunk))


def test_empty_content_is_complete() -> None:
    assert book(0).complete
    assert not book().complete


def test_a_chunk_is_whole_when_its_last_byte_comes_whatever_the_order() -> None:
    chunks = book()
    assert chunks.arrived_from_origin(ByteRange(C + 10, 2 * C)) == []
    assert chunks.arrived_from_origin(ByteRange(C, C + 10)) == [ONE]
    assert chunks.next_byte(ONE) == 2 * C
    assert chunks.next_byte(TWO) == 2 * C


def test_the_short_last_chunk() -> None:
    chunks = book(2 * C + 1)
    assert chunks.arrived_from_origin(ByteRange(2 * C, 2 * C + 1)) == [TWO]


def test_proven_bytes_of_the_origin_and_of_others() -> None:
    chunks = book()
    chunks.arrived_from_origin(ByteRange(0, C))
    chunks.arrived_from_near(ByteRange(C, 2 * C))
    prove(chunks, 0)
    prove(chunks, 1)
    assert (chunks.proven, chunks.from_origin, chunks.suspects) == (0b011, 0b001, 0b010)
    assert chunks.missing == 0b100


def test_a_chunk_of_both_is_suspect() -> None:
    chunks = book()
    chunks.arrived_from_near(ByteRange(0, 10))
    chunks.arrived_from_origin(ByteRange(10, C))
    assert not chunks.came_from_origin(ChunkIndex(0))
    prove(chunks, 0)
    assert chunks.suspects == 0b001


def test_a_discarded_chunk_forgets_everything_even_a_digest_on_its_way() -> None:
    chunks = book()
    chunks.arrived_from_near(ByteRange(C, 2 * C))
    chunks.begin_digest(ONE)
    assert chunks.discard([ONE]) == C
    assert not chunks.end_digest(ONE)
    assert chunks.came_from_origin(ONE)
    assert chunks.missing == 0b111


def test_only_proven_and_origin_bytes_are_kept() -> None:
    chunks = book()
    chunks.arrived_from_origin(ByteRange(0, 100))
    chunks.arrived_from_near(ByteRange(C, 2 * C))
    prove(chunks, 1)
    chunks.arrived_from_near(ByteRange(2 * C, 2 * C + 50))
    assert list(chunks.keepable([ByteRange(2 * C, 3 * C)])) == [ByteRange(0, 100), ByteRange(C, 2 * C)]
    assert chunks.held.total == 100 + C + 50, "asking changes nothing"


def test_a_whole_chunk_of_a_peer_is_not_kept_before_its_digest_is_known() -> None:
    chunks = book()
    chunks.arrived_from_near(ByteRange(0, C))
    chunks.begin_digest(ChunkIndex(0))
    assert list(chunks.keepable([])) == []


def test_restored_chunks_are_not_proven_and_remember_whose_they_are() -> None:
    chunks = book()
    chunks.restore([ByteRange(0, 2 * C + 10), ByteRange(5 * C, 6 * C)], Bitfield(0b001))
    assert chunks.proven == 0
    assert chunks.whole_unproven() == [0, 1]
    assert chunks.came_from_origin(ChunkIndex(0))
    assert not chunks.came_from_origin(ONE)
    assert chunks.held.total == 2 * C + 10, "bytes beyond the end are no bytes"
    assert chunks.next_byte(TWO) == 2 * C + 10


def test_what_is_held_when_the_url_changes_is_inherited_and_what_comes_later_is_not() -> None:
    chunks = book()
    chunks.arrived_from_origin(ByteRange(0, C + 10))
    prove(chunks, 0)
    chunks.inherit()
    chunks.arrived_from_origin(ByteRange(2 * C, 3 * C))
    assert chunks.inherited == 0b011
    assert chunks.from_origin == 0b001, "it is the origin's nevertheless"
    chunks.discard([ONE])
    assert chunks.inherited == 0b001
