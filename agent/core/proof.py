"""What a chunk's digest has to be before the chunk counts. Values and one rule; never knows: requests, time."""

from __future__ import annotations

import msgspec

from agent.core.sources import SourceId
from peer.core.voucher import Voucher
from validation.content import ChunkIndex
from validation.digest import ChunkDigest


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk from a near source must be, and who brought it. No digest: the source is this agent, or the
    job's own manifest says what the chunk must be."""

    source: SourceId
    digest: ChunkDigest | None
    vouchers: tuple[Voucher, ...]
    """What there is for `digest`; without one, what came with the bytes."""

    def vouchers_for(self, digest: ChunkDigest) -> tuple[Voucher, ...]:
        """Those that say so."""
        if digest == self.digest:
            return self.vouchers
        return tuple([voucher for voucher in self.vouchers if voucher.digest == digest])


def allowed(
    chunk: ChunkIndex,
    anchors: tuple[ChunkDigest, ...],
    expected: Expected | None,
    claims: tuple[ChunkDigest, ...],
) -> tuple[ChunkDigest, ...]:
    """The digests of which the chunk must have one; empty: any will do. `claims` are what vouchers say of a chunk
    that an earlier process had from a near source."""
    if chunk < len(anchors):
        return (anchors[chunk],)
    if expected is not None:
        return (expected.digest,) if expected.digest is not None else ()
    return claims
