"""What of a proven chunk may be offered to others, under which ids, and on whose word. Decides only.

Under an id made of the URL a chunk is offered as soon as it is proven. Under an id made of the whole file's digest
nothing is signed, and nobody blamed, before the file was accepted: the origin itself may serve something else.
Never knows: requests, sources, time.
"""

from __future__ import annotations

from agent.core import commands as cmd
from agent.core.chunks import ChunkBook
from agent.core.integrity import Integrity
from agent.core.spec import TransferSpec
from peer.core.voucher import Voucher
from validation.content import ChunkIndex, ContentId
from validation.digest import ChunkDigest


class Publishing:
    """The ids of one content, and the commands that offer its chunks."""

    def __init__(self, spec: TransferSpec) -> None:
        self.content_ids: tuple[ContentId, ...] = ()
        """Every id by which near sources may be asked; empty: it is not shared."""
        self.url_ids: tuple[ContentId, ...] = ()
        """Those that only say what the origin serves."""
        self._spec = spec
        self._waits = spec.integrity is Integrity.WHOLE

    @property
    def after_acceptance(self) -> bool:
        """Something is left to offer once the whole file was accepted."""
        return self._waits or self.content_ids != self.url_ids

    def proven(
        self, chunks: ChunkBook, chunk: ChunkIndex, digest: ChunkDigest, vouchers: tuple[Voucher, ...]
    ) -> list[cmd.Command]:
        """A chunk has just been proven; without vouchers it came from the origin."""
        if self._waits or not self.url_ids:
            return []
        sign = () if vouchers else self.url_ids
        return [self._command(chunks, chunk, digest, (self.url_ids, vouchers, sign))]

    def accepted(
        self, chunks: ChunkBook, chunk: ChunkIndex, digest: ChunkDigest, vouchers: tuple[Voucher, ...]
    ) -> list[cmd.Command]:
        """The whole file was accepted: what had to wait for that, and the id by its digest."""
        if not self.content_ids:
            return []
        ours = chunks.from_origin >> chunk & 1 and not chunks.inherited >> chunk & 1
        urls = self.url_ids if self._waits and ours else ()
        by_digest = tuple(each for each in self.content_ids if each not in self.url_ids)
        return [self._command(chunks, chunk, digest, (self.content_ids, vouchers, (*urls, *by_digest)))]

    def _command(
        self,
        chunks: ChunkBook,
        chunk: ChunkIndex,
        digest: ChunkDigest,
        basis: tuple[tuple[ContentId, ...], tuple[Voucher, ...], tuple[ContentId, ...]],
    ) -> cmd.Command:
        content_ids, vouchers, sign = basis
        return cmd.PublishChunk(
            file=self._spec.file,
            content_ids=content_ids,
            layout=chunks.layout,
            chunk=chunk,
            digest=digest,
            vouchers=vouchers,
            sign=sign,
        )
