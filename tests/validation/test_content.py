"""Content ids, layouts, bitfields, and the URL that goes into an id."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from validation.content import (
    AIMED_CHUNKS,
    MAX_CHUNK_BYTES,
    MAX_CONTENT_BYTES,
    MIN_CHUNK_BYTES,
    Bitfield,
    ChunkIndex,
    ChunkLayout,
    bitfield,
    chunks_in,
    content_id_by_digest,
    content_id_by_url,
    decode_bitfield,
    encode_bitfield,
    normalise_url,
    runs_in,
)
from validation.digest import Digest
from validation.ranges import ByteRange

layouts = st.builds(
    lambda length, power: ChunkLayout(length=length, chunk_bytes=1 << power), st.integers(0, 200), st.integers(0, 8)
)
windows = st.tuples(st.integers(0, 260), st.integers(0, 260)).map(lambda pair: ByteRange(min(pair), max(pair)))
chunk_sets = st.sets(st.integers(0, 300))


# --- layout


@given(layouts)
def test_layout_covers_every_byte_exactly_once(layout: ChunkLayout) -> None:
    parts = [layout.range_of(ChunkIndex(index)) for index in range(layout.count)]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(layout.length))
    assert all(part.length == layout.chunk_bytes for part in parts[:-1])
    assert all(0 < part.length <= layout.chunk_bytes for part in parts)
    assert layout.everything == bitfield(range(layout.count))
    assert layout.whole == ByteRange(0, layout.length)


@given(layouts, windows)
def test_touched_and_inside_as_the_words_say(layout: ChunkLayout, item: ByteRange) -> None:
    parts = [(index, layout.range_of(ChunkIndex(index))) for index in range(layout.count)]
    assert list(layout.touched_by(item)) == [index for index, part in parts if part.overlaps(item)]
    assert list(layout.inside(item)) == [index for index, part in parts if part in item]


@given(layouts.filter(lambda layout: layout.count > 0), st.data())
def test_span_reaches_from_first_to_last(layout: ChunkLayout, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, layout.count - 1))
    last = data.draw(st.integers(first, layout.count - 1))
    span = layout.span(ChunkIndex(first), ChunkIndex(last))
    assert list(layout.touched_by(span)) == list(range(first, last + 1)) == list(layout.inside(span))


@given(st.integers(0, MAX_CONTENT_BYTES))
@example(2 * MIN_CHUNK_BYTES * AIMED_CHUNKS)
@example(2 * MIN_CHUNK_BYTES * AIMED_CHUNKS - 1)
@example(MAX_CHUNK_BYTES * AIMED_CHUNKS)
@example(MAX_CHUNK_BYTES * AIMED_CHUNKS - 1)
def test_the_layout_of_everybody(length: int) -> None:
    layout = ChunkLayout.for_length(length)
    assert MIN_CHUNK_BYTES <= layout.chunk_bytes <= MAX_CHUNK_BYTES
    assert layout.chunk_bytes & (layout.chunk_bytes - 1) == 0
    if layout.chunk_bytes > MIN_CHUNK_BYTES:
        assert length >= layout.chunk_bytes * AIMED_CHUNKS
    if layout.chunk_bytes < MAX_CHUNK_BYTES:
        assert length < 2 * layout.chunk_bytes * AIMED_CHUNKS


@pytest.mark.parametrize("index", [-1, 2, 1 << 60])
def test_no_such_chunk(index: int) -> None:
    with pytest.raises(IndexError):
        ChunkLayout(length=7, chunk_bytes=4).range_of(ChunkIndex(index))


@pytest.mark.parametrize(("length", "chunk_bytes"), [(-1, 4), (MAX_CONTENT_BYTES + 1, 4), (1, 0), (1, 3), (1, -4)])
def test_impossible_layouts_are_refused(length: int, chunk_bytes: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        ChunkLayout(length=length, chunk_bytes=chunk_bytes)


# --- bitfields


@given(chunk_sets, st.integers(0, 40))
def test_bitfield_round_trips(chunks: set[int], more: int) -> None:
    field = bitfield(chunks)
    count = max(chunks, default=-1) + 1 + more
    encoded = encode_bitfield(field, count)
    assert len(encoded) == -(-count // 8)
    assert decode_bitfield(encoded, count) == field
    assert list(chunks_in(field)) == sorted(chunks)


@given(chunk_sets)
def test_runs_are_the_longest_there_are(chunks: set[int]) -> None:
    runs = list(runs_in(bitfield(chunks)))
    assert [index for first, last in runs for index in range(first, last + 1)] == sorted(chunks)
    assert all(one[1] + 1 < two[0] for one, two in pairwise(runs))


def test_chunk_0_is_the_lowest_bit_of_the_first_byte() -> None:
    assert encode_bitfield(bitfield([0, 9]), 10) == b"\x01\x02"


@given(st.binary(max_size=6), st.integers(0, 50))
@example(b"\x08", 3)
@example(b"\x07", 3)
@example(b"\x00\x02", 9)
def test_decoding_takes_what_encoding_makes_and_nothing_else(data: bytes, count: int) -> None:
    try:
        field = decode_bitfield(data, count)
    except ValueError:
        assert len(data) != -(-count // 8) or int.from_bytes(data, "little") >> count
    else:
        assert encode_bitfield(field, count) == data


@pytest.mark.parametrize(("field", "count"), [(0b1000, 3), (1 << 9, 3), (1, 0), (-1, 8)])
def test_encoding_refuses_chunks_that_do_not_exist(field: int, count: int) -> None:
    """What `decode_bitfield` of the other side would refuse must not go out."""
    with pytest.raises(ValueError, match="beyond"):
        encode_bitfield(Bitfield(field), count)


# --- URLs

PIECES = [
    "a",
    "B",
    "/",
    ".",
    "..",
    "%",
    "%41",
    "%2f",
    "%zz",
    "%e",
    "?",
    "é",
    "~",
    ";",
    "=",
    "&",
    "[",
    " ",
    "+",
    "|",
]
tails = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
urls = st.builds(
    lambda scheme, host, tail: f"{scheme}://{host}/{tail}",
    st.sampled_from(["http", "HTTPS", "ftp"]),
    st.sampled_from(["Example.COM", "user:pw@h", "h:80", "h:443", "h:8080", "[2001:DB8::1]:80", "h:", "[::1]"]),
    tails,
)


@given(urls)
def test_normalising_twice_changes_nothing(url: str) -> None:
    once = normalise_url(url)
    assert normalise_url(once) == once


@given(urls)
def test_normalised_urls_are_plain_ascii_without_secrets_and_dots(url: str) -> None:
    once = normalise_url(url)
    assert once.isascii()
    assert "pw@" not in once
    path = once.split("?")[0].split("://")[1]
    assert not {".", ".."} & set(path.split("/")[1:])


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        # RFC 3986 §6.2.2
        ("eXAMPLE://a/./b/../b/%63/%7bfoo%7d", "example://a/b/c/%7Bfoo%7D"),
        # §6.2.2.1
        ("HTTP://www.EXAMPLE.com/", "http://www.example.com/"),
        ("http://h/%3a", "http://h/%3A"),
        # §6.2.2.2
        ("http://h/%7Esmith%2D%5F%2e", "http://h/~smith-_."),
        # §6.2.3
        ("http://example.com", "http://example.com/"),
        ("http://example.com/", "http://example.com/"),
        ("http://example.com:/", "http://example.com/"),
        ("http://example.com:80/", "http://example.com/"),
        ("https://example.com:443/", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        # §5.4.2, as paths of a whole URL
        ("http://a/b/c/../../../g", "http://a/g"),
        ("http://a/b/c/./g/", "http://a/b/c/g/"),
        ("http://a/b/c/..g", "http://a/b/c/..g"),
        ("http://a/b/c/g;x=1/../y", "http://a/b/c/y"),
        ("http://a/b/c/g?y/../x", "http://a/b/c/g?y/../x"),
        ("http://a/b/..", "http://a/"),
        ("http://a/b/.", "http://a/b/"),
        ("http://a//b", "http://a//b"),
        ("http://a/%2e%2E/b", "http://a/b"),
        # an empty query is not the same as none (§6.2.3)
        ("http://a/?", "http://a/?"),
        ("http://a?", "http://a/?"),
        ("http://a/#f?", "http://a/"),
        ("http://a/?#f", "http://a/?"),
        # an escaped delimiter is data, not a delimiter
        ("http://a/b%2Fc%3Fd", "http://a/b%2Fc%3Fd"),
        # what must be escaped is; a lone percent sign is data
        ("http://a/é|100%", "http://a/%C3%A9%7C100%25"),
        ("http://[2001:DB8::A]:80/", "http://[2001:db8::a]/"),
        # user information and fragment say nothing about the content
        ("http://user:secret@h/x#part", "http://h/x"),
    ],
)
def test_rfc_3986_section_6(url: str, normal: str) -> None:
    assert normalise_url(url) == normal


@pytest.mark.parametrize(
    "url", ["", "/path", "http:///x", "mailto:a@b", "http://h:70000/", "http://h:x/", "http://[1/"]
)
def test_what_is_no_absolute_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words of urllib differ between versions
        normalise_url(url)


@given(st.text(max_size=30))
def test_any_text_is_normalised_or_a_value_error(text: str) -> None:
    for url in (text, f"http://{text}", f"http://h/{text}"):
        try:
            once = normalise_url(url)
        except ValueError:
            continue
        assert normalise_url(once) == once


# --- ids


def test_ids_of_one_content_meet() -> None:
    one = content_id_by_url("HTTP://h:80/a/../b", '"v1"', 10)
    assert one == content_id_by_url("http://user@h/b#x", '"v1"', 10)
    assert len(one) == 64
    assert set(one) <= set("0123456789abcdef")


def test_everything_in_an_id_counts() -> None:
    digest = Digest.parse("sha256:" + "ab" * 32)
    ids = [
        content_id_by_url("http://h/b", '"v1"', 10),
        content_id_by_url("http://h/b", '"v1"', 11),
        content_id_by_url("http://h/b", '"v2"', 10),
        content_id_by_url("http://h/c", '"v1"', 10),
        content_id_by_url("https://h/b", '"v1"', 10),
        content_id_by_url("http://h/b?", '"v1"', 10),
        content_id_by_digest(digest),
        content_id_by_digest(Digest.parse("blake3:" + "ab" * 32)),
    ]
    assert len(set(ids)) == len(ids)


def test_parts_of_an_id_cannot_be_shifted() -> None:
    assert content_id_by_url("http://h/b", "1", 23) != content_id_by_url("http://h/b", "12", 3)
