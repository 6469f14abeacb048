"""A load of 64 KiB ranges over TLS: the same client for nginx and for an agent's peer server.

A program of its own: `python -m bench.ranges JSON`, where JSON spells `Load`; prints one JSON document. Blocking
sockets in a few threads, one buffer each, one request at a time on a connection that stays open.
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass

RANGE_BYTES = 64 * 1024
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to ask for. `certificate` and `key`: PEM files of the client."""

    port: int
    target: str
    certificate: str
    key: str
    length: int
    seconds: float
    connections: int
    seed: int


class Asker(threading.Thread):
    """One connection."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(name=f"asker {number}")
        self._load = load
        self._rng = random.Random(load.seed * 1000 + number)
        self.requests = 0
        self.cipher = ""
        self.error: Exception | None = None

    def run(self) -> None:
        """Ask until time is up."""
        try:
            with _connect(self._load) as connection:
                found = connection.cipher()
                self.cipher = found[0] if found else ""
                self._ask(connection)
        except Exception as error:  # noqa: BLE001  # the top of a thread: the main thread reports it
            self.error = error

    def _ask(self, connection: ssl.SSLSocket) -> None:
        buffer = memoryview(bytearray(RANGE_BYTES + 16 * 1024))
        places = max(1, self._load.length // RANGE_BYTES)
        until = time.monotonic() + self._load.seconds
        while time.monotonic() < until:
            start = self._rng.randrange(places) * RANGE_BYTES
            stop = min(start + RANGE_BYTES, self._load.length)
            head = f"GET {self._load.target} HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes={start}-{stop - 1}\r\n\r\n"
            connection.sendall(head.encode("ascii"))
            _receive(connection, buffer, stop - start)
            self.requests += 1


def _connect(load: Load) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the load is measured, not the trust
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(load.certificate, load.key)
    plain = socket.create_connection(("127.0.0.1", load.port), timeout=TIMEOUT_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain)


def _receive(connection: ssl.SSLSocket, buffer: memoryview, length: int) -> None:
    """One answer, exactly. Raises ConnectionError for anything but a 206 of the length asked for."""
    filled, end = 0, -1
    while end < 0:
        count = connection.recv_into(buffer[filled:])
        if count == 0:
            raise ConnectionError("closed in the middle of an answer")
        filled += count
        end = bytes(buffer[:filled]).find(b"\r\n\r\n")
    if bytes(buffer[9:12]) != b"206":
        raise ConnectionError(f"the answer is not a 206: {bytes(buffer[:end])!r}")
    total = end + 4 + length
    while filled < total:
        count = connection.recv_into(buffer[filled:total])
        if count == 0:
            raise ConnectionError("closed in the middle of a body")
        filled += count


def main(arguments: list[str]) -> int:
    """The exit code."""
    load = Load(**json.loads(arguments[0]))
    askers = [Asker(load, number) for number in range(load.connections)]
    began = time.monotonic()
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    seconds = time.monotonic() - began
    for asker in askers:
        if asker.error is not None:
            print(f"ranges: {asker.error!r}", file=sys.stderr)
            return 1
    requests = sum(asker.requests for asker in askers)
    print(json.dumps({"requests": requests, "seconds": seconds, "cipher": askers[0].cipher}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
