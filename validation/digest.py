"""Digests: which algorithms, how they are written, how they are computed bit by bit.

Never knows: files, chunks, where bytes come from.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from blake3 import blake3

from validation.errors import DigestFormatError


class Algorithm(StrEnum):
    """Digest algorithms. BLAKE3 is for chunks (about four times SHA-256 on one core); the others are what
    publishers give."""

    SHA256 = "sha256"
    SHA512 = "sha512"
    BLAKE2B = "blake2b"
    BLAKE3 = "blake3"


DIGEST_BYTES = {Algorithm.SHA256: 32, Algorithm.SHA512: 64, Algorithm.BLAKE2B: 64, Algorithm.BLAKE3: 32}
"""Length of each algorithm's digest in bytes (FIPS 180-4; RFC 7693 §2.1, full length; BLAKE3 §2)."""

ChunkDigest = bytes
"""BLAKE3 digest of one chunk: 32 bytes."""


class Hasher(Protocol):
    """An incremental digest. `update` accepts any buffer and releases the GIL for large ones."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Digest:
    """An algorithm and its value. `str()` gives `sha256:ab12…`, the form `parse` reads.

    Raises DigestFormatError when the value's length does not fit the algorithm.
    """

    algorithm: Algorithm
    value: bytes

    def __post_init__(self) -> None:
        wanted = DIGEST_BYTES[self.algorithm]
        if len(self.value) != wanted:
            raise DigestFormatError(f"a {self.algorithm} digest has {wanted} bytes, not {len(self.value)}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value.hex()}"

    def matches(self, value: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.value, value)

    @classmethod
    def from_hex(cls, algorithm: Algorithm, text: str) -> Digest:
        """A digest from its hexadecimal digits, in either case. Raises DigestFormatError."""
        cleaned, digits = text.strip(), DIGEST_BYTES[algorithm] * 2
        if len(cleaned) != digits:
            raise DigestFormatError(
                f"a {algorithm} digest has {digits} hexadecimal digits, this has {len(cleaned)}"
            )
        try:
            return cls(algorithm, bytes.fromhex(cleaned))
        except ValueError as error:
            raise DigestFormatError(f"not hexadecimal: {cleaned!r}") from error

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`. Raises DigestFormatError."""
        name, colon, digits = text.partition(":")
        if not colon or name.lower() not in tuple(Algorithm):
            known = ", ".join(Algorithm)
            raise DigestFormatError(f"not a digest: {text!r} (write ALGORITHM:HEX; algorithms: {known})")
        return cls.from_hex(Algorithm(name.lower()), digits)


_FACTORIES: dict[Algorithm, Callable[[], Hasher]] = {
    Algorithm.SHA256: hashlib.sha256,
    Algorithm.SHA512: hashlib.sha512,
    Algorithm.BLAKE2B: hashlib.blake2b,
    Algorithm.BLAKE3: blake3,
}


def hasher(algorithm: Algorithm) -> Hasher:
    """A fresh incremental digest."""
    return _FACTORIES[algorithm]()


def chunk_digest(data: bytes | bytearray | memoryview) -> ChunkDigest:
    """BLAKE3 of a chunk that is in memory."""
    return blake3(data).digest()
