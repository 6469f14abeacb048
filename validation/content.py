"""What content is: its id, its chunks, and sets of chunks.

Two agents that want the same content compute the same id and the same layout without a word between
them. Never knows: files, peers, jobs, HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NewType
from urllib.parse import unquote_to_bytes, urlsplit

from validation.digest import Digest
from validation.ranges import ByteRange

ContentId = NewType("ContentId", str)
"""64 lower-case hexadecimal digits. Says nothing to one who does not know what it was made of."""

ChunkIndex = NewType("ChunkIndex", int)
"""Number of a chunk within its content, from 0. Not an offset."""

Bitfield = NewType("Bitfield", int)
"""A set of chunks as one integer: bit i is chunk i."""

NO_CHUNKS = Bitfield(0)

MIN_CHUNK_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 4 * 1024 * 1024
AIMED_CHUNKS = 256
"""With M chunks and N machines the chunking costs a factor 1 + log2(N)/M (pipelined relay through a tree of
depth log2 N); 256 keeps that below 2 % for 32 machines."""

MAX_CONTENT_BYTES = 1 << 50
"""1 PiB. A declared length above it is a lie or a mistake; it is refused before anything is allocated."""

_DOMAIN = b"nearfetch content v1"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT_IN_PATH = frozenset(b"!$&'()*+,;=:@/")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLayout:
    """How content of `length` bytes is cut: chunks of `chunk_bytes`, the last one shorter.

    Raises ValueError for a negative or absurd length or a chunk size that is no power of two.
    """

    length: int
    chunk_bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.length <= MAX_CONTENT_BYTES:
            raise ValueError(f"length must be between 0 and {MAX_CONTENT_BYTES} bytes, not {self.length}")
        if self.chunk_bytes < 1 or self.chunk_bytes & (self.chunk_bytes - 1):
            raise ValueError(f"chunk size must be a power of two, not {self.chunk_bytes}")

    @classmethod
    def for_length(cls, length: int) -> ChunkLayout:
        """The layout every agent uses: the largest power of two that still gives 256 chunks, within bounds."""
        size = MAX_CHUNK_BYTES
        while size > MIN_CHUNK_BYTES and length < size * AIMED_CHUNKS:
            size //= 2
        return cls(length=length, chunk_bytes=size)

    @property
    def count(self) -> int:
        """Number of chunks; 0 for empty content."""
        return -(-self.length // self.chunk_bytes)

    @property
    def everything(self) -> Bitfield:
        """All chunks."""
        return Bitfield((1 << self.count) - 1)

    @property
    def whole(self) -> ByteRange:
        """All bytes."""
        return ByteRange(0, self.length)

    def range_of(self, chunk: ChunkIndex) -> ByteRange:
        """The bytes of one chunk. Raises IndexError when there is no such chunk."""
        if not 0 <= chunk < self.count:
            raise IndexError(f"chunk {chunk} of {self.count}")
        start = chunk * self.chunk_bytes
        return ByteRange(start, min(start + self.chunk_bytes, self.length))

    def span(self, first: ChunkIndex, last: ChunkIndex) -> ByteRange:
        """The bytes from the start of `first` to the end of `last` (both included)."""
        if first < 0 or last >= self.count:
            raise IndexError(f"chunks {first} to {last} of {self.count}")
        return ByteRange(first * self.chunk_bytes, min((last + 1) * self.chunk_bytes, self.length))

    def touched_by(self, item: ByteRange) -> range:
        """Indexes of the chunks with at least one byte in `item`, which may reach beyond the end."""
        stop = min(item.stop, self.length)
        if item.start >= stop:
            return range(0)
        return range(item.start // self.chunk_bytes, (stop - 1) // self.chunk_bytes + 1)

    def inside(self, item: ByteRange) -> range:
        """Indexes of the chunks that lie wholly in `item` (the short last chunk counts when its end does)."""
        first = -(-item.start // self.chunk_bytes)
        last = self.count if item.stop >= self.length else item.stop // self.chunk_bytes
        return range(first, max(first, last))


def bitfield(chunks: Iterable[int]) -> Bitfield:
    """The set of the given chunk indexes."""
    value = 0
    for chunk in chunks:
        value |= 1 << chunk
    return Bitfield(value)


def chunks_in(field: Bitfield) -> Iterator[ChunkIndex]:
    """The chunks of a set in rising order, in time proportional to the chunks it holds."""
    rest = int(field)
    while rest:
        low = rest & -rest
        yield ChunkIndex(low.bit_length() - 1)
        rest ^= low


def runs_in(field: Bitfield) -> Iterator[tuple[ChunkIndex, ChunkIndex]]:
    """Unbroken runs of a set, in order, as (first, last), both included."""
    rest, base = int(field), 0
    while rest:
        skip = (rest & -rest).bit_length() - 1
        rest >>= skip
        base += skip
        length = (~rest & (rest + 1)).bit_length() - 1
        yield ChunkIndex(base), ChunkIndex(base + length - 1)
        rest >>= length
        base += length


def encode_bitfield(field: Bitfield, count: int) -> bytes:
    """`count` bits, least significant bit of the first byte first (chunk 0).

    Raises ValueError for a chunk beyond `count`, which `decode_bitfield` would refuse.
    """
    if field >> count:
        raise ValueError(f"bitfield names chunks beyond the last of {count}")
    return int(field).to_bytes(-(-count // 8), "little")


def decode_bitfield(data: bytes, count: int) -> Bitfield:
    """Reverse of `encode_bitfield`. Raises ValueError for a wrong length or a bit beyond `count`."""
    if len(data) != -(-count // 8):
        raise ValueError(f"a bitfield of {count} chunks has {-(-count // 8)} bytes, not {len(data)}")
    value = int.from_bytes(data, "little")
    if value >> count:
        raise ValueError(f"bitfield names chunks beyond the last of {count}")
    return Bitfield(value)


def normalise_url(url: str) -> str:
    """The URL as content ids see it: RFC 3986 §6.2.2 (case, percent-encoding, dot segments) and §6.2.3
    (default port, empty path), without user information and fragment.

    Raises ValueError when the URL has no scheme or host, or an impossible port.
    """
    parts = urlsplit(url)
    scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    if not scheme or not host:
        raise ValueError(f"not an absolute URL: {url!r}")
    netloc = f"[{host}]" if ":" in host else host.lower()
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        netloc += f":{port}"
    path = _remove_dot_segments(_normalise_escapes(parts.path)) or "/"
    # An empty query is another URL than none (RFC 3986 §6.2.3), and urlsplit does not tell them apart.
    has_query = "?" in url.partition("#")[0]
    query = "?" + _normalise_escapes(parts.query, also=b"?") if has_query else ""
    return f"{scheme}://{netloc}{path}{query}"


def content_id_by_url(url: str, strong_validator: str, length: int) -> ContentId:
    """Id of what an origin serves: URL (normalised), strong validator as the origin spelled it, length in bytes.

    Nobody can compute it without an answer of the origin: access there is the right to ask peers.
    """
    return _content_id("url", normalise_url(url), strong_validator, str(length))


def content_id_by_digest(digest: Digest) -> ContentId:
    """Id of the content with this digest, wherever it is served: mirrors and renamed URLs meet."""
    return _content_id("digest", str(digest))


def _content_id(*parts: str) -> ContentId:
    state = hashlib.sha256(_DOMAIN)
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape")
        state.update(len(raw).to_bytes(8, "big") + raw)
    return ContentId(state.hexdigest())


def _normalise_escapes(text: str, also: bytes = b"") -> str:
    """Decode what needs no escape, escape what needs one, upper-case the rest (RFC 3986 §6.2.2.1-2)."""
    kept = _UNRESERVED | _KEPT_IN_PATH | frozenset(also)
    if text.isascii() and kept.issuperset(text.encode("ascii")):  # most have nothing to normalise
        return text
    out: list[str] = []
    raw, index = text.encode("utf-8", "surrogateescape"), 0
    while index < len(raw):
        byte = raw[index]
        if byte == 0x25 and len(unquote_to_bytes(raw[index : index + 3])) == 1:
            decoded = unquote_to_bytes(raw[index : index + 3])[0]
            out.append(chr(decoded) if decoded in _UNRESERVED else f"%{decoded:02X}")
            index += 3
        else:
            out.append(chr(byte) if byte in kept else f"%{byte:02X}")
            index += 1
    return "".join(out)


def _remove_dot_segments(path: str) -> str:
    """RFC 3986 §5.2.4."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
