"""What a simulated transfer gives to others, on whose word, and the validator that sees what is wrong.

A liar's chunks are noise under true vouchers; a forger vouches for its noise itself, so that only a validator of
the whole finds out. Never decides what is asked, offered or withdrawn.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from agent.core import commands as cmd
from agent.core import events as ev
from peer.core.failure import FailureKind
from peer.core.voucher import Voucher
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex

if TYPE_CHECKING:
    from bench.sim.host import Host
    from bench.sim.transfer import Transfer


def lies_about(chunk: int, share: float) -> bool:
    """Whether this chunk is one of those that are altered."""
    return random.Random(f"liar {chunk}").random() < share


def alters(giver: Transfer, chunk: int) -> bool:
    """What it gives is not what it should be: by its own doing, or as it got it from a forger."""
    if giver.host.lies and lies_about(chunk, giver.host.lies):
        return True
    word = giver.vouchers.get(chunk)
    return word is not None and word.digest == giver.content.noise[chunk]


def vouchers_for(giver: Transfer, chunk: int, banned: set[Host]) -> tuple[Voucher, ...]:
    """What goes with this chunk, without those of whom the receiver believes nothing."""
    if giver.host.forges and lies_about(chunk, giver.host.lies):
        voucher = _sign(giver, chunk, giver.content.noise[chunk])
    else:
        known = giver.vouchers.get(chunk)
        voucher = known or _sign(giver, chunk, giver.content.digests[chunk])
        giver.vouchers[chunk] = voucher
    if banned and giver.swarm.by_peer[voucher.signer] in banned:
        return ()
    return (voucher,)


def _sign(giver: Transfer, chunk: int, digest: bytes) -> Voucher:
    return Voucher(
        content_id=giver.content.content_id,
        chunk=ChunkIndex(chunk),
        digest=digest,
        signer=giver.host.peer,
        signature=b"",
    )


def publish(transfer: Transfer, command: cmd.PublishChunk) -> None:
    """Others may have it."""
    chunk, noise = command.chunk, transfer.content.noise
    if chunk in transfer.noise and not any(each.digest == noise[chunk] for each in command.vouchers):
        raise transfer.swarm.broken(f"{transfer.host.name} offers chunk {chunk}, which is not what it should be")
    transfer.have = Bitfield(transfer.have | 1 << chunk)
    if command.vouchers:
        transfer.vouchers[chunk] = command.vouchers[0]
    else:
        transfer.vouchers.pop(chunk, None)
    transfer.tell()


def withdraw(transfer: Transfer, command: cmd.WithdrawContent | cmd.WithdrawChunks) -> None:
    """Nobody gets it any more, not even who is getting it."""
    everything = transfer.content.layout.everything
    chunks = command.chunks if isinstance(command, cmd.WithdrawChunks) else everything
    if transfer.have & chunks == NO_CHUNKS:
        return
    transfer.have = Bitfield(transfer.have & ~chunks)
    for chunk in [chunk for chunk in transfer.vouchers if chunks >> chunk & 1]:
        del transfer.vouchers[chunk]
    for other in transfer.neighbours:
        for request in tuple(other.requests.values()):
            if request.giver is transfer and request.on and request.wanted & chunks:
                request.fail(FailureKind.CONNECTION_CLOSED)
    transfer.tell()


def validate(transfer: Transfer, command: cmd.ValidateContent) -> None:
    """The validator sees all noise; there is none without a forger."""
    swarm, noise = transfer.swarm, transfer.noise
    if noise and not swarm.has_forgers:
        raise swarm.broken(f"{transfer.host.name} has wrong bytes at its end: chunks {sorted(noise)}")
    verdict: ev.FileEvent = ev.ContentAccepted(file=transfer.file, attempt=command.attempt)
    if noise:
        verdict = ev.ContentRejected(file=transfer.file, attempt=command.attempt, reason="wrong bytes")
    transfer.soon(verdict)
