"""What of a proven chunk may be offered to others, under which ids, and on whose word. Decides only.

Under an id made of the URL a chunk is offered as soon as it is proven. Under an id made of the whole file's digest
nothing is signed, and nobody blamed, before the file was accepted: the origin itself may serve something else.
What the job forbids to serve before the file was accepted is withdrawn; what it forbids later stays (bits-reference
3.3, trap 5). Never knows: requests, sources, time.
"""

from __future__ import annotations

from agent.core import commands as cmd
from agent.core.chunks import ChunkBook
from agent.core.integrity import Integrity
from agent.core.naming import Names
from agent.core.spec import ServeUse, TransferSpec
from peer.core.voucher import Voucher
from validation.content import Bitfield, ChunkIndex, ContentId
from validation.digest import ChunkDigest


class Publishing:
    """The ids of one content, and the commands that offer its chunks."""

    def __init__(self, spec: TransferSpec) -> None:
        self.content_ids: tuple[ContentId, ...] = ()
        """Every id by which near sources may be asked; empty: it is not shared."""
        self.url_ids: tuple[ContentId, ...] = ()
        """Those that only say what the origin serves."""
        self.published = False
        """Something of it may be in the cache because of us."""
        self.former_ids: tuple[ContentId, ...] = ()
        """Other ids under which something may be there because of us."""
        self._taken_back = False
        """What peers brought is not offered until it is known to be right."""
        self._spec = spec
        self._serve = spec.serve
        self._waits = spec.integrity is Integrity.WHOLE or spec.serve is ServeUse.NEVER

    @property
    def after_acceptance(self) -> bool:
        """Something is left to say once the whole file was accepted."""
        return self._waits or self._taken_back or self.content_ids != self.url_ids

    @property
    def at_once(self) -> bool:
        """Chunks are offered as soon as they are proven."""
        return self._serve is ServeUse.ALLOWED and not self._waits and bool(self.url_ids)

    def name(self, names: Names) -> None:
        """The ids are these from now on. What was offered under others is remembered: it is the same content."""
        if self.published:
            gone = (each for each in self.content_ids if each not in names.content_ids + self.former_ids)
            self.former_ids += tuple(gone)
        self.content_ids, self.url_ids = names.content_ids, names.url_ids

    def withdraw(self) -> list[cmd.Command]:
        """Nobody may be given any of it any more, whoever put it into the cache."""
        self.published = False
        ids = self._every_id
        self.former_ids = ()
        return [cmd.WithdrawContent(file=self._spec.file, content_ids=ids)] if ids else []

    def take_back(self, chunks: Bitfield) -> list[cmd.Command]:
        """Nobody may be given these any more; the others are what the origin serves, and stay."""
        if not self.at_once:
            return self.withdraw()
        self._taken_back = True
        return [cmd.WithdrawChunks(file=self._spec.file, content_ids=self._every_id, chunks=chunks)]

    @property
    def _every_id(self) -> tuple[ContentId, ...]:
        return self.content_ids + tuple(each for each in self.former_ids if each not in self.content_ids)

    def use(self, serve: ServeUse, *, accepted: bool) -> list[cmd.Command]:
        """The job's word, which may be another than before. Once it was "never", all waits for the acceptance."""
        self._serve = serve
        if serve is ServeUse.ALLOWED or accepted:
            return []
        self._waits = True
        return self.withdraw() if self.published or self.former_ids else []

    def proven(
        self, chunks: ChunkBook, chunk: ChunkIndex, digest: ChunkDigest, vouchers: tuple[Voucher, ...]
    ) -> list[cmd.Command]:
        """A chunk has just been proven; without vouchers it came from the origin."""
        if self._serve is ServeUse.NEVER or self._waits or not self.url_ids:
            return []
        sign = () if vouchers else self.url_ids
        return [self._command(chunks, chunk, digest, (self.url_ids, vouchers, sign))]

    def accepted(
        self, chunks: ChunkBook, chunk: ChunkIndex, digest: ChunkDigest, vouchers: tuple[Voucher, ...]
    ) -> list[cmd.Command]:
        """The whole file was accepted: what had to wait for that, and the id by its digest."""
        if self._serve is ServeUse.NEVER or not self.content_ids:
            return []
        ours = chunks.from_origin >> chunk & 1 and not chunks.inherited >> chunk & 1
        urls = self.url_ids if self._waits and ours else ()
        by_digest = tuple(each for each in self.content_ids if each not in self.url_ids)
        sign = (*urls, *by_digest)
        if not sign and not vouchers:
            return []  # an earlier process left it: nobody could say on whose word it is what it is
        return [self._command(chunks, chunk, digest, (self.content_ids, vouchers, sign))]

    def _command(
        self,
        chunks: ChunkBook,
        chunk: ChunkIndex,
        digest: ChunkDigest,
        basis: tuple[tuple[ContentId, ...], tuple[Voucher, ...], tuple[ContentId, ...]],
    ) -> cmd.Command:
        content_ids, vouchers, sign = basis
        self.published = True
        return cmd.PublishChunk(
            file=self._spec.file,
            content_ids=content_ids,
            layout=chunks.layout,
            chunk=chunk,
            digest=digest,
            vouchers=vouchers,
            sign=sign,
        )
