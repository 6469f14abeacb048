"""Manifests: built, written, read, and refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation import manifest as module
from validation.content import MIN_CHUNK_BYTES, ChunkIndex, ChunkLayout
from validation.digest import Algorithm, Digest, chunk_digest
from validation.errors import ManifestError
from validation.manifest import MAX_CHUNKS, MAX_DOCUMENT_BYTES, Manifest, ManifestBuilder, build_manifest

CONTENT = bytes(range(256)) * 4096  # 1 MiB: four chunks
LAYOUT = ChunkLayout.for_length(len(CONTENT))


def good() -> Manifest:
    return build_manifest([CONTENT], len(CONTENT))


def document(**changes: object) -> bytes:
    fields = json.loads(good().to_json())
    fields.update(changes)
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


# --- building


@given(st.binary(max_size=70), st.lists(st.integers(0, 70), max_size=8), st.sampled_from([1, 4, 16, 128]))
def test_blocks_do_not_matter(content: bytes, cuts: list[int], chunk_bytes: int) -> None:
    layout = ChunkLayout(length=len(content), chunk_bytes=chunk_bytes)
    builder = ManifestBuilder(layout)
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    for start, stop in pairwise(edges):
        builder.add(memoryview(content)[start:stop])
    found = builder.finish()
    parts = [layout.range_of(ChunkIndex(index)) for index in range(layout.count)]
    assert found.chunks == tuple(chunk_digest(content[part.start : part.stop]) for part in parts)
    assert found.whole == Digest(Algorithm.SHA256, hashlib.sha256(content).digest())


@pytest.mark.parametrize("whole", [None, *Algorithm])
def test_the_whole_digest_is_a_choice(whole: Algorithm | None) -> None:
    found = build_manifest([CONTENT[:5], bytearray(CONTENT[5:])], len(CONTENT), whole)
    assert (found.whole.algorithm if found.whole else None) == whole
    assert found.layout == LAYOUT
    assert Manifest.from_json(found.to_json()) == found


@pytest.mark.parametrize("length", [0, 1, MIN_CHUNK_BYTES - 1, MIN_CHUNK_BYTES, MIN_CHUNK_BYTES + 1])
def test_edges_of_chunks(length: int) -> None:
    content = bytes(length)
    found = build_manifest([content], length, Algorithm.BLAKE3)
    assert len(found.chunks) == -(-length // MIN_CHUNK_BYTES)
    assert Manifest.from_json(found.to_json()) == found


def test_too_few_and_too_many_bytes() -> None:
    with pytest.raises(ManifestError, match="3 bytes of content where 4 were announced"):
        build_manifest([b"abc"], 4)
    with pytest.raises(ManifestError, match="more content than the 4 bytes announced"):
        build_manifest([b"abc", b"de"], 4)


def test_the_builder_keeps_no_hold_of_the_block() -> None:
    block = bytearray(10)
    builder = ManifestBuilder(ChunkLayout(length=10, chunk_bytes=4))
    builder.add(block)
    block.extend(b"a bytearray that is exported somewhere cannot grow")


def test_blocks_of_other_items_count_in_bytes() -> None:
    builder = ManifestBuilder(ChunkLayout(length=8, chunk_bytes=4))
    builder.add(memoryview(b"abcdefgh").cast("I"))
    assert builder.finish().chunks == (chunk_digest(b"abcd"), chunk_digest(b"efgh"))


def test_digest_of_one_chunk() -> None:
    found = good()
    assert found.digest_of(ChunkIndex(3)) == chunk_digest(CONTENT[-MIN_CHUNK_BYTES:])
    for index in (-1, 4):
        with pytest.raises(IndexError):
            found.digest_of(ChunkIndex(index))


# --- reading


def test_the_document_is_what_the_docstring_says() -> None:
    fields = json.loads(good().to_json())
    assert list(fields) == ["format", "version", "length", "chunk_bytes", "chunks", "digest"]
    assert fields["format"] == "nearfetch manifest"
    assert fields["version"] == 1
    assert fields["digest"] == "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert fields["chunks"][0] == chunk_digest(CONTENT[:MIN_CHUNK_BYTES]).hex()
    assert "digest" not in json.loads(build_manifest([b"a"], 1, None).to_json())


def test_other_writers_are_understood() -> None:
    fields = json.loads(good().to_json())
    shuffled = {name: fields[name] for name in reversed(fields)}
    shuffled["chunks"] = [text.upper() for text in fields["chunks"]]
    assert Manifest.from_json(json.dumps(shuffled, indent=4).encode()) == good()
    assert Manifest.from_json(document(digest=None)).whole is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "metalink"}, "not a nearfetch manifest: its format is 'metalink'"),
        ({"version": 2, "novelty": 1}, "has version 2; this agent reads version 1"),
        ({"novelty": 1}, "unknown field `novelty`"),
        ({"length": ...}, "missing required field `length`"),
        ({"length": -1}, "the manifest's length must be between 0 and"),
        ({"length": 10**30}, "the manifest's length must be between 0 and"),
        ({"length": 1.5}, "Expected `int`, got `float`"),
        ({"length": True}, "Expected `int`, got `bool`"),
        ({"length": "7"}, "Expected `int`, got `str`"),
        ({"length": len(CONTENT) + 1}, "are 5 chunks, but the manifest has 4 digests"),
        ({"length": len(CONTENT) - MIN_CHUNK_BYTES}, "are 3 chunks, but the manifest has 4 digests"),
        ({"chunk_bytes": 0}, "power of two"),
        ({"chunk_bytes": MIN_CHUNK_BYTES + 1}, "power of two"),
        ({"chunk_bytes": 1024}, "chunk size must be between"),
        ({"chunk_bytes": 1 << 23}, "chunk size must be between"),
        ({"length": 1 << 50}, f"4294967296 chunks; {MAX_CHUNKS} are allowed"),
        ({"chunks": {}}, "Expected `array`, got `object`"),
        ({"chunks": ["ab" * 32] * 3 + ["ab"]}, "chunk 3: a blake3 digest has 64 hexadecimal digits"),
        ({"chunks": ["ab" * 32] * 3 + ["zz" * 32]}, "chunk 3: not hexadecimal"),
        ({"chunks": ["ab" * 32] * (MAX_CHUNKS + 1)}, f"has {MAX_CHUNKS + 1} chunk digests"),
        ({"digest": "sha256:ab"}, "the whole digest is a sha256 digest has 64"),
        ({"digest": "md5:" + "ab" * 16}, "the whole digest is not a digest"),
        ({"length": 0, "chunks": []}, "the content is empty, but"),
        (
            {"length": 1, "chunks": ["ab" * 32], "digest": "blake3:" + "cd" * 32},
            "the only chunk and the whole content have different",
        ),
    ],
)
def test_contradictions_and_excesses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words.replace("`", ".")) as caught:
        Manifest.from_json(document(**changes))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(b'"length"', b'"length":5,"length"'),
        lambda text: text.replace(b'"length"', b'"\\u006cength":5,"length"'),
        lambda text: text[:-1],
        lambda text: text + b"{}",
        lambda text: b"",
        lambda text: b"[]",
        lambda text: b"null",
        lambda text: b"\xff\xfe" + text,
        lambda text: text.replace(b'"length"', b'"\xff":1,"length"'),
        lambda text: b'{"x":' * 100_000,
        lambda text: text.replace(b'"version":1', b'"version":1e0'),
    ],
)
def test_damaged_documents(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(spoil(good().to_json()))


def test_a_large_document_is_refused_unread() -> None:
    with pytest.raises(ManifestError, match="bytes; 25165824 are allowed"):
        Manifest.from_json(b" " * (MAX_DOCUMENT_BYTES + 1))


def test_the_largest_manifest_fits_its_own_limit() -> None:
    layout = ChunkLayout(length=MAX_CHUNKS * (1 << 22), chunk_bytes=1 << 22)
    largest = Manifest(layout=layout, chunks=(bytes(32),) * MAX_CHUNKS, whole=None)
    written = largest.to_json()
    assert len(written) < MAX_DOCUMENT_BYTES
    assert Manifest.from_json(written) == largest


def test_what_could_not_be_read_is_not_written() -> None:
    tiny = Manifest(layout=ChunkLayout(length=2, chunk_bytes=1), chunks=(bytes(32),) * 2)
    with pytest.raises(ManifestError, match="chunk size must be between"):
        tiny.to_json()


@given(st.binary(max_size=200) | st.builds(lambda a, b: document(**{a: b}), st.text(), st.text() | st.integers()))
def test_any_bytes_are_a_manifest_or_a_manifest_error(data: bytes) -> None:
    try:
        found = Manifest.from_json(data)
    except ManifestError:
        return
    assert Manifest.from_json(found.to_json()) == found


@given(st.data())
def test_a_flipped_byte_is_never_a_crash(data: st.DataObject) -> None:
    raw = bytearray(good().to_json())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    try:
        found = Manifest.from_json(bytes(raw))
    except ManifestError:
        return
    assert found.layout.count == len(found.chunks)


def test_the_limits_are_named() -> None:
    assert module.FORMAT == "nearfetch manifest"
    assert module.VERSION == 1
