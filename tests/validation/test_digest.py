"""Digests: written, read, and computed block by block."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.digest import DIGEST_BYTES, Algorithm, Digest, chunk_digest, hasher
from validation.errors import DigestFormatError, ValidationError

algorithms = st.sampled_from(list(Algorithm))
digests = algorithms.flatmap(
    lambda algorithm: st.binary(min_size=DIGEST_BYTES[algorithm], max_size=DIGEST_BYTES[algorithm]).map(
        lambda value: Digest(algorithm, value)
    )
)

# FIPS 180-4 and RFC 7693 Appendix A give "abc"; BLAKE3's reference vectors give the empty input.
VECTORS = [
    (Algorithm.SHA256, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        Algorithm.SHA512,
        b"abc",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
    ),
    (
        Algorithm.BLAKE2B,
        b"abc",
        (
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
            "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
        ),
    ),
    (Algorithm.BLAKE3, b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
]


@pytest.mark.parametrize(("algorithm", "data", "wanted"), VECTORS, ids=[str(vector[0]) for vector in VECTORS])
def test_published_vectors(algorithm: Algorithm, data: bytes, wanted: str) -> None:
    state = hasher(algorithm)
    state.update(data)
    assert state.digest().hex() == wanted


@given(algorithms, st.lists(st.binary(max_size=50), max_size=8))
def test_blocks_do_not_matter(algorithm: Algorithm, blocks: list[bytes]) -> None:
    piecewise, at_once = hasher(algorithm), hasher(algorithm)
    for block in blocks:
        piecewise.update(memoryview(block))
    at_once.update(b"".join(blocks))
    assert piecewise.digest() == at_once.digest()
    assert len(piecewise.digest()) == DIGEST_BYTES[algorithm]


@given(st.binary(max_size=100))
def test_a_chunk_has_blake3(data: bytes) -> None:
    state = hasher(Algorithm.BLAKE3)
    state.update(data)
    assert chunk_digest(data) == chunk_digest(bytearray(data)) == chunk_digest(memoryview(data)) == state.digest()


@given(digests)
def test_written_and_read_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert Digest.parse(str(digest).upper()) == digest
    assert Digest.from_hex(digest.algorithm, f" {digest.value.hex()}\n") == digest


@given(digests, st.integers(0, 511))
def test_matches_only_itself(digest: Digest, bit: int) -> None:
    bit %= len(digest.value) * 8
    other = bytearray(digest.value)
    other[bit // 8] ^= 1 << bit % 8
    assert digest.matches(digest.value)
    assert not digest.matches(bytes(other))
    assert not digest.matches(digest.value[:-1])


@given(st.text(max_size=90) | st.builds("{}:{}".format, algorithms, st.text("0123456789abcdefg ", max_size=140)))
def test_any_text_is_a_digest_or_a_format_error(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except DigestFormatError:
        return
    assert digest.value.hex() in text.lower()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "algorithms: sha256, sha512, blake2b, blake3"),
        ("md5:" + "0" * 32, "not a digest"),
        ("sha256", "not a digest"),
        ("sha256:abcd", "has 64 hexadecimal digits, this has 4"),
        ("sha256:" + "g" * 64, "not hexadecimal"),
        ("sha256:" + "ab " * 21 + "a", "not hexadecimal"),  # bytes.fromhex skips spaces; we do not
        ("sha256:" + "１" * 64, "not hexadecimal"),
    ],
)
def test_errors_say_what_to_write(text: str, words: str) -> None:
    with pytest.raises(DigestFormatError, match=words):
        Digest.parse(text)


def test_wrong_length_is_refused_and_errors_belong_to_the_tree() -> None:
    with pytest.raises(ValidationError, match="has 32 bytes, not 31"):
        Digest(Algorithm.SHA256, b"x" * 31)
    assert Digest(Algorithm.SHA256, hashlib.sha256(b"").digest())
