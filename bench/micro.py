"""`python -m bench micro`: how fast the parts are, each alone: digests, the path from a socket to the disk, heads,
vouchers, bitfields. Best and median of a few runs; one core unless threads are part of the thing itself.

Sees validation and peer, never the agent.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.report import Column, Spread, Table, complain, json_line
from peer import durable
from peer.body import BodyReceiver
from peer.core import voucherwire, wire
from peer.core.failure import Failure
from peer.core.voucher import PeerId, Voucher
from peer.identity import GroupKey, Identity, verify_voucher
from peer.workers import Workers
from validation.content import Bitfield, ChunkIndex, ChunkLayout, ContentId, decode_bitfield, encode_bitfield
from validation.digest import chunk_digest
from validation.ranges import ByteRange

MIB = 1024 * 1024
RUNS = 5
BYTES_UNIT, CALLS_UNIT = "GB/s", "us"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that is measured: `run(n)` does it n times; `size`: bytes of one, 0 where time counts."""

    name: str
    run: Callable[[int], object]
    size: int = 0

    @property
    def unit(self) -> str:
        """GB/s for what moves bytes, else microseconds each."""
        return BYTES_UNIT if self.size else CALLS_UNIT


def measure(part: Part, seconds: float) -> Spread:
    """Its figures over some runs of about `seconds` each, in its unit."""
    times = _times_for(part, seconds)
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        part.run(times)
        each = (time.perf_counter() - began) / times
        found.append(part.size / each / 1e9 if part.size else each * 1e6)
    return Spread.of(found)


def _times_for(part: Part, seconds: float) -> int:
    times = 1
    while True:
        began = time.perf_counter()
        part.run(times)
        spent = time.perf_counter() - began
        if spent * 10 >= seconds:
            return max(1, round(times * seconds / max(spent, 1e-9)))
        times *= 4


@contextmanager
def parts(place: Path) -> Iterator[list[Part]]:
    """Everything that is measured; `place` is where files may be written."""
    identity = Identity.load_or_create(place, GroupKey.create(), time.time(), "bench")
    workers = Workers(4)
    try:
        yield [*_digests(), *_writing(place, workers), *_heads(), *_vouchers(identity), *_bitfields()]
    finally:
        workers.close()


def _repeat(fn: Callable[[], object]) -> Callable[[int], None]:
    def run(times: int) -> None:
        for _ in range(times):
            fn()

    return run


def _digests() -> list[Part]:
    small, large = os.urandom(256 * 1024), os.urandom(4 * MIB)
    return [
        Part(name="chunk digest (BLAKE3), 256 KiB", run=_repeat(lambda: chunk_digest(small)), size=len(small)),
        Part(name="chunk digest (BLAKE3), 4 MiB", run=_repeat(lambda: chunk_digest(large)), size=len(large)),
        Part(name="SHA-256, 4 MiB", run=_repeat(lambda: hashlib.sha256(large).digest()), size=len(large)),
    ]


class _FileSink:
    """Bytes into a file, as a download does it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, offset: int, data: memoryview) -> None:
        durable.pwrite_all(self._fd, data, offset)

    def arrived(self, item: ByteRange) -> None:
        """Nobody waits."""


def _writing(place: Path, workers: Workers) -> list[Part]:
    total, piece = 32 * MIB, os.urandom(4 * MIB)

    def write(times: int) -> None:
        for _ in range(times):
            _into_a_file(place, lambda fd: _write_all(fd, piece, total))

    def receive(times: int) -> None:
        for _ in range(times):
            _into_a_file(place, lambda fd: asyncio.run(_receive(fd, piece, total, workers)))

    return [
        Part(name="write 32 MiB to a fresh file", run=write, size=total),
        Part(name="socket -> buffers -> fresh file, 32 MiB", run=receive, size=total),
    ]


def _into_a_file(place: Path, fill: Callable[[int], None]) -> None:
    directory = durable.open_directory(place)
    try:
        fd = durable.create_file(directory, "written")
        try:
            fill(fd)
        finally:
            os.close(fd)
            durable.remove(directory, "written")
    finally:
        os.close(directory)


def _write_all(fd: int, piece: bytes, total: int) -> None:
    for offset in range(0, total, len(piece)):
        durable.pwrite_all(fd, piece, offset)


class _Reading(asyncio.BufferedProtocol):
    """Hands what a socket brings to a receiver, as the clients of origins and peers do."""

    def __init__(self, receiver: BodyReceiver) -> None:
        self._receiver = receiver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._receiver.attach(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._receiver.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.buffer_updated(nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.lost(exc)


async def _receive(fd: int, piece: bytes, total: int, workers: Workers) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=_send, args=(theirs, piece, total))
    receiver = BodyReceiver(start=0, length=total, sink=_FileSink(fd), workers=workers, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: _Reading(receiver), ours)
    sender.start()
    try:
        outcome = await receiver.done()
    finally:
        transport.close()
        await asyncio.to_thread(sender.join)
    if isinstance(outcome, Failure):
        raise OSError(outcome.message)


def _send(out: socket.socket, piece: bytes, total: int) -> None:
    with out:
        for _ in range(0, total, len(piece)):
            out.sendall(piece)


def _heads() -> list[Part]:
    content = ContentId("ab" * 32)
    usual = wire.format_request(wire.bytes_target(content), 4711, ByteRange(0, 65536))
    curl = f"GET {wire.bytes_target(content)} HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8.0\r\n".encode()
    curl += b"Accept: */*\r\nRange: bytes=0-65535\r\n\r\n"
    answer = wire.format_range_head(ByteRange(0, 65536), 1 << 30, "")
    return [
        Part(name="read a request's head, an agent's", run=_repeat(lambda: wire.parse_request_head(usual))),
        Part(name="read a request's head, curl's", run=_repeat(lambda: wire.parse_request_head(curl))),
        Part(name="read an answer's head", run=_repeat(lambda: wire.parse_response_head(answer))),
    ]


def _vouchers(identity: Identity) -> list[Part]:
    content, digest = ContentId("cd" * 32), chunk_digest(b"chunk")
    made = [identity.vouch(content, ChunkIndex(chunk), digest) for chunk in range(16)]
    header, first, certificate = voucherwire.format_vouchers(made), made[0], identity.certificate_der
    stranger = Voucher(
        content_id=content, chunk=ChunkIndex(0), digest=digest, signer=PeerId("0" * 64), signature=bytes(64)
    )
    assert verify_voucher(first, certificate)
    assert not verify_voucher(stranger, certificate)
    return [
        Part(name="sign a voucher", run=_repeat(lambda: identity.vouch(content, ChunkIndex(0), digest))),
        Part(name="verify a voucher", run=_repeat(lambda: verify_voucher(first, certificate))),
        Part(name="write 16 vouchers into a header", run=_repeat(lambda: voucherwire.format_vouchers(made))),
        Part(
            name="read 16 vouchers from a header", run=_repeat(lambda: voucherwire.parse_vouchers(header, content))
        ),
    ]


def _bitfields() -> list[Part]:
    layout = ChunkLayout.for_length(16 << 30)
    have = Bitfield(int.from_bytes(os.urandom(-(-layout.count // 8)), "little") & layout.everything)
    encoded = encode_bitfield(have, layout.count)
    offer = wire.format_document(wire.offer_of(layout, have, Bitfield(0)))
    return [
        Part(
            name=f"encode a bitfield, {layout.count} chunks",
            run=_repeat(lambda: encode_bitfield(have, layout.count)),
        ),
        Part(
            name=f"decode a bitfield, {layout.count} chunks",
            run=_repeat(lambda: decode_bitfield(encoded, layout.count)),
        ),
        Part(name=f"read an offer, {layout.count} chunks", run=_repeat(lambda: wire.parse_offer(offer))),
    ]


COLUMNS = (
    Column(title="PART", width=42, lean="<"),
    Column(title="MEDIAN", width=10),
    Column(title="BEST", width=10),
    Column(title="UNIT", width=5, lean="<"),
)


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench micro", description="How fast the parts are, each alone."
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="of one run of one part (default: 0.2)")
    parser.add_argument("--json", action="store_true", help="print one document a part instead of a table")
    given = parser.parse_args(arguments)
    if not 0 < given.seconds <= 60:
        parser.error("--seconds must be above 0 and at most 60")
    table = Table(COLUMNS)
    if not given.json:
        table.head()
    try:
        with tempfile.TemporaryDirectory(prefix="nearfetch-micro-") as place, parts(Path(place)) as found:
            for part in found:
                spread = measure(part, given.seconds)
                best = spread.greatest if part.size else spread.least
                if given.json:
                    json_line({"part": part.name, "unit": part.unit, "best": best, **spread.document()})
                else:
                    table.row([part.name, f"{spread.median:.2f}", f"{best:.2f}", part.unit])
    except OSError as error:
        complain(str(error))
        return 1
    return 0
