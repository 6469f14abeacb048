"""A manifest: how content is cut, the digest of every chunk, and perhaps the digest of the whole.

On paper it is one JSON object: `format`, `version`, `length`, `chunk_bytes`, `chunks` (BLAKE3, hexadecimal, in
order) and optionally `digest` (`algorithm:hex`). Whoever holds a manifest that it trusts can take chunks from
anybody. Never knows: who made it, whether it is trusted, files, the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from validation.content import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, ChunkIndex, ChunkLayout
from validation.digest import DIGEST_BYTES, Algorithm, ChunkDigest, Digest, chunk_digest, hasher
from validation.errors import DigestFormatError, ManifestError

FORMAT = "nearfetch manifest"
VERSION = 1

MAX_CHUNKS = 1 << 18
"""1 TiB in chunks of 4 MiB. Their digests are 17.6 MB of JSON and about 17 MB in memory."""

MAX_DOCUMENT_BYTES = 24 * 1024 * 1024
"""A third above the largest manifest that is allowed, for white space."""

_CHUNK_DIGEST_BYTES = DIGEST_BYTES[Algorithm.BLAKE3]


class _Head(msgspec.Struct):
    """Read first, so that another version is named as such and not as an unknown field."""

    format: str
    version: int


class _Paper(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The document, field by field."""

    format: str
    version: int
    length: int
    chunk_bytes: int
    chunks: list[str]
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What content is, chunk by chunk. Raises ManifestError when its parts contradict each other."""

    layout: ChunkLayout
    chunks: tuple[ChunkDigest, ...]
    """BLAKE3 of every chunk, in order."""
    whole: Digest | None = None
    """Digest of the whole content, when it is known."""

    def __post_init__(self) -> None:
        if len(self.chunks) != self.layout.count:
            raise ManifestError(
                f"{self.layout.length} bytes in chunks of {self.layout.chunk_bytes} are {self.layout.count} chunks,"
                f" but the manifest has {len(self.chunks)} digests"
            )
        for index, digest in enumerate(self.chunks):
            if len(digest) != _CHUNK_DIGEST_BYTES:
                raise ManifestError(
                    f"the digest of chunk {index} has {len(digest)} bytes, not {_CHUNK_DIGEST_BYTES}"
                )
        self._check_whole()

    def _check_whole(self) -> None:
        """Of empty content, and of content of one chunk, the whole digest can be known to be wrong."""
        if self.whole is None:
            return
        algorithm = self.whole.algorithm
        if self.layout.count == 0 and self.whole.value != hasher(algorithm).digest():
            raise ManifestError("the content is empty, but the whole digest is not the digest of nothing")
        only_chunk = self.chunks[0] if self.layout.count == 1 and algorithm is Algorithm.BLAKE3 else None
        if only_chunk is not None and self.whole.value != only_chunk:
            raise ManifestError("the only chunk and the whole content have different BLAKE3 digests")

    def digest_of(self, chunk: ChunkIndex) -> ChunkDigest:
        """The digest of one chunk. Raises IndexError when there is no such chunk."""
        if not 0 <= chunk < len(self.chunks):
            raise IndexError(f"chunk {chunk} of {len(self.chunks)}")
        return self.chunks[chunk]

    def to_json(self) -> bytes:
        """The document. Raises ManifestError when it would exceed a limit that `from_json` enforces."""
        _check_limits(self.layout)
        paper = _Paper(
            format=FORMAT,
            version=VERSION,
            length=self.layout.length,
            chunk_bytes=self.layout.chunk_bytes,
            chunks=[digest.hex() for digest in self.chunks],
            digest=None if self.whole is None else str(self.whole),
        )
        return msgspec.json.encode(paper)

    @classmethod
    def from_json(cls, document: bytes) -> Manifest:
        """Read a document that anybody may have written. Raises ManifestError with one sentence."""
        if len(document) > MAX_DOCUMENT_BYTES:
            raise ManifestError(f"the manifest has {len(document)} bytes; {MAX_DOCUMENT_BYTES} are allowed")
        paper = _read(document)
        try:
            layout = ChunkLayout(length=paper.length, chunk_bytes=paper.chunk_bytes)
        except ValueError as error:
            raise ManifestError(f"the manifest's {error}") from error
        _check_limits(layout)
        return cls(layout=layout, chunks=_digests(paper.chunks), whole=_whole(paper.digest))


def _read(document: bytes) -> _Paper:
    try:
        head = msgspec.json.decode(document, type=_Head)
        if head.format != FORMAT:
            raise ManifestError(f"not a {FORMAT}: its format is {head.format[:40]!r}")
        if head.version != VERSION:
            raise ManifestError(f"the manifest has version {head.version}; this agent reads version {VERSION}")
        paper = msgspec.json.decode(document, type=_Paper)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"the manifest cannot be read: {error}") from error
    _check_said_once(document)
    return paper


def _check_said_once(document: bytes) -> None:
    """JSON readers differ about a key that occurs twice, so two agents could read two manifests in one document.

    No value of a manifest needs a backslash; without one every key can be counted as it stands.
    """
    if b"\\" in document:
        raise ManifestError("the manifest has an escape sequence, and nothing in a manifest needs one")
    for field in _Paper.__struct_fields__:
        if document.count(f'"{field}"'.encode()) > 1:
            raise ManifestError(f"the manifest says {field!r} more than once")


def _check_limits(layout: ChunkLayout) -> None:
    if not MIN_CHUNK_BYTES <= layout.chunk_bytes <= MAX_CHUNK_BYTES:
        raise ManifestError(
            f"the chunk size must be between {MIN_CHUNK_BYTES} and {MAX_CHUNK_BYTES} bytes,"
            f" not {layout.chunk_bytes}"
        )
    if layout.count > MAX_CHUNKS:
        raise ManifestError(f"the manifest describes {layout.count} chunks; {MAX_CHUNKS} are allowed")


def _digests(texts: list[str]) -> tuple[ChunkDigest, ...]:
    if len(texts) > MAX_CHUNKS:
        raise ManifestError(f"the manifest has {len(texts)} chunk digests; {MAX_CHUNKS} are allowed")
    found: list[ChunkDigest] = []
    for index, text in enumerate(texts):
        try:
            found.append(Digest.from_hex(Algorithm.BLAKE3, text).value)
        except DigestFormatError as error:
            raise ManifestError(f"chunk {index}: {error}"[:200]) from error
    return tuple(found)


def _whole(text: str | None) -> Digest | None:
    if text is None:
        return None
    try:
        return Digest.parse(text)
    except DigestFormatError as error:
        raise ManifestError(f"the whole digest is {error}"[:200]) from error


class ManifestBuilder:
    """Makes a manifest from the content itself, block by block; holds one chunk's state, never the content."""

    def __init__(self, layout: ChunkLayout, whole: Algorithm | None = Algorithm.SHA256) -> None:
        self._layout = layout
        self._algorithm = whole
        self._whole = None if whole is None else hasher(whole)
        self._chunk = hasher(Algorithm.BLAKE3)
        self._in_chunk = 0
        self._total = 0
        self._chunks: list[ChunkDigest] = []

    def add(self, block: bytes | bytearray | memoryview) -> None:
        """The next bytes, any number of them. Raises ManifestError when they exceed the announced length."""
        with memoryview(block) as items, items.cast("B") as view:
            if self._total + len(view) > self._layout.length:
                raise ManifestError(f"more content than the {self._layout.length} bytes announced")
            self._total += len(view)
            if self._whole is not None:
                self._whole.update(view)
            start = 0
            while start < len(view):
                stop = min(len(view), start + self._layout.chunk_bytes - self._in_chunk)
                with view[start:stop] as part:
                    self._add_to_chunk(part)
                start = stop

    def _add_to_chunk(self, part: memoryview) -> None:
        if len(part) == self._layout.chunk_bytes:
            self._chunks.append(chunk_digest(part))
            return
        self._chunk.update(part)
        self._in_chunk += len(part)
        if self._in_chunk == self._layout.chunk_bytes:
            self._end_chunk()

    def _end_chunk(self) -> None:
        self._chunks.append(self._chunk.digest())
        self._chunk = hasher(Algorithm.BLAKE3)
        self._in_chunk = 0

    def finish(self) -> Manifest:
        """The manifest, once all bytes were added. Raises ManifestError when some are missing."""
        if self._total != self._layout.length:
            raise ManifestError(f"{self._total} bytes of content where {self._layout.length} were announced")
        if self._in_chunk:
            self._end_chunk()
        whole = None
        if self._whole is not None and self._algorithm is not None:
            whole = Digest(self._algorithm, self._whole.digest())
        return Manifest(layout=self._layout, chunks=tuple(self._chunks), whole=whole)


def build_manifest(
    blocks: Iterable[bytes | bytearray | memoryview], length: int, whole: Algorithm | None = Algorithm.SHA256
) -> Manifest:
    """The manifest of `length` bytes of content, in the layout every agent uses. Raises ManifestError."""
    builder = ManifestBuilder(ChunkLayout.for_length(length), whole)
    for block in blocks:
        builder.add(block)
    return builder.finish()
