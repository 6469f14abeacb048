"""One TLS connection over an asyncio transport, for the peer's client and server alike.

asyncio's own TLS layer hides why a handshake failed, allocates 256 KiB for each connection before the other side
has said a word, and copies what it sends several times. This one reads into a buffer that all connections share,
decrypts straight into the user's buffer, and tells every end of a connection exactly once.

Never knows: HTTP, content, who is trusted (the context and its owner decide). Sources: RFC 8446 (TLS 1.3).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Protocol, cast

RAW_BUFFER_BYTES = 256 * 1024
SEND_BYTES = 64 * 1024
"""Encrypted and given to the transport at once. Larger blocks would be mapped and unmapped by malloc each time,
with a page fault for every 4 KiB."""

WRITE_HIGH_BYTES = 64 * 1024
"""Encrypted bytes the transport may hold before the user is told to wait."""

GOODBYE_S = 2.0
"""How long what is already written may take to leave after `close`."""

HANDSHAKE_TIMEOUT_S = 10.0
"""Reliability 3.2, 62."""


class ChannelUser(Protocol):
    """Who talks through a channel. Every method is called on the loop."""

    def opened(self, address: str) -> bool:
        """The TCP connection to `address` is there. False: cut it at once, without a word; `lost` follows."""

    def secured(self) -> None:
        """The handshake is over. Called at most once, before anything is read."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where decrypted bytes go; never empty. As in `asyncio.BufferedProtocol`."""

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` bytes lie in the buffer."""

    def writable(self) -> None:
        """After a `write` that said False: more may be written."""

    def lost(self, error: Exception | None) -> None:
        """The connection is over, or never came to be. Called exactly once, last. None: in an orderly way."""


class _State(Enum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSING = "closing"
    """We said goodbye; what is written still leaves, what comes is not looked at."""
    LOST = "lost"


class _Then(Enum):
    MORE = "more"
    WAIT = "wait"
    GOODBYE = "goodbye"


class Channel(asyncio.BufferedProtocol):
    """TLS for one connection. Also has what a `BodyReceiver` needs of a transport."""

    def __init__(
        self,
        context: ssl.SSLContext,
        user: ChannelUser,
        *,
        server_side: bool,
        handshake_timeout_s: float,
    ) -> None:
        self._user = user
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._state = _State.HANDSHAKE
        self._handshake_timeout_s = handshake_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._raw = _raw_buffer()
        self._writing_paused = self._reading_paused = self._pumping = False
        self._wakes_at = 1

    # what the user calls

    def peer_certificate(self) -> bytes | None:
        """The other side's certificate (DER), after `secured`."""
        return self._tls.getpeercert(binary_form=True)

    def write(self, data: bytes | memoryview) -> bool:
        """Encrypt and send all of `data` (which may be used again at once). False: wait for `writable`.

        Does nothing on a connection that is over; `lost` tells it.
        """
        if self._state is not _State.OPEN or self._transport is None or self._transport.is_closing():
            return False
        rest = memoryview(data)
        while len(rest):
            count = self._tls.write(rest[:SEND_BYTES])
            rest = rest[count:]
            self._send()
        return not self._writing_paused

    def encrypt(self, data: bytes) -> None:
        """Encrypt `data`, to be sent with the next `write`."""
        if self._state is _State.OPEN:
            self._tls.write(data)

    def wake_at(self, count: int) -> None:
        """Read only when so many encrypted bytes are here, or the other side has ended. 1: as usual."""
        if count == self._wakes_at or self._transport is None:
            return
        self._wakes_at = count
        sock = self._transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):  # not known here: then every packet wakes us
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def pause_reading(self) -> None:
        """No `buffer_updated` until `resume_reading`."""
        self._reading_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on; bytes that are here already come with the next turn of the loop."""
        if self._reading_paused:
            self._reading_paused = False
            if self._transport is not None:
                self._transport.resume_reading()
            asyncio.get_running_loop().call_soon(self._pump)

    def is_closing(self) -> bool:
        """True when nothing can be sent or received any more."""
        return self._state in (_State.CLOSING, _State.LOST)

    def close(self) -> None:
        """Say goodbye; what is written leaves within two seconds or never. `lost` follows."""
        if self._state is _State.HANDSHAKE:
            self.abort()
        if self._state is not _State.OPEN or self._transport is None:
            return
        self._state = _State.CLOSING
        with suppress(ssl.SSLError):  # it wants the other side's goodbye, which we do not wait for
            self._tls.unwrap()
        self._send()
        self._linger()

    def abort(self) -> None:
        """End at once; what is written may be lost, what is here is not looked at. `lost` follows."""
        if self._transport is not None:
            if self._state is not _State.LOST:
                self._state = _State.CLOSING
            self._transport.abort()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer_name = transport.get_extra_info("peername")
        if not self._user.opened(peer_name[0].removeprefix("::ffff:") if peer_name else ""):
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._handshake_timeout_s, self._handshake_too_long)
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._raw

    def buffer_updated(self, nbytes: int) -> None:
        if self._state is _State.OPEN:
            self._incoming.write(self._raw[:nbytes])
            self._pump()
        elif self._state is _State.HANDSHAKE:
            self._incoming.write(self._raw[:nbytes])
            self._handshake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The user hears of it a little later: a transport that is aborted or closed inside this call ends twice
        (CPython 3.11's `_write_ready` looks at its state again afterwards)."""
        self._writing_paused = False
        asyncio.get_running_loop().call_soon(self._tell_writable)

    def eof_received(self) -> None:
        """The transport closes itself; `connection_lost` follows."""
        if self._state is _State.HANDSHAKE:
            self._fail(ConnectionResetError("closed during the handshake"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._tell_lost(exc)
        self._transport = None

    # inside

    def _tell_writable(self) -> None:
        if self._state is _State.OPEN and not self._writing_paused:
            self._user.writable()

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return
        except (ssl.SSLError, OSError) as error:
            self._fail(error)
            return
        self._stop_timer()
        self._state = _State.OPEN
        self._send()
        self._user.secured()
        self._pump()

    def _handshake_too_long(self) -> None:
        self._fail(TimeoutError(f"no handshake within {self._handshake_timeout_s:g} s"))

    def _pump(self) -> None:
        """Decrypt what is here into the user's buffers."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._state is _State.OPEN and not self._reading_paused and self._fill_once():
                pass
        finally:
            self._pumping = False
        if self._outgoing.pending and self._state is _State.OPEN:
            self._send()  # a key update wants an answer

    def _fill_once(self) -> bool:
        """Fill one buffer of the user. False when there is nothing more to decrypt for now."""
        buffer = self._user.get_buffer(-1)
        filled, then = self._decrypt(buffer)
        if filled:
            self._user.buffer_updated(filled)
        if isinstance(then, Exception):
            self._fail(then)
        elif then is _Then.GOODBYE:
            self.close()
        return then is _Then.MORE

    def _decrypt(self, buffer: memoryview) -> tuple[int, _Then | Exception]:
        """How many bytes came into `buffer`, and what follows them."""
        read = cast("Callable[[int, memoryview], int]", self._tls.read)  # with a buffer it returns a count
        filled, size, incoming = 0, len(buffer), self._incoming
        try:
            while filled < size:
                room = size - filled
                count = read(room, buffer[filled:] if filled else buffer)
                if not count:
                    return filled, _Then.GOODBYE
                filled += count
                if count < room and not incoming.pending:
                    return filled, _Then.WAIT  # the record is used up: spares an exception for each request
        except ssl.SSLWantReadError:
            return filled, _Then.WAIT
        except ssl.SSLZeroReturnError:
            return filled, _Then.GOODBYE
        except (ssl.SSLError, OSError) as error:
            return filled, error
        return filled, _Then.MORE

    def _send(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _fail(self, error: Exception) -> None:
        """Send the alert that TLS may have for the other side, and end."""
        if self._state is _State.LOST or self._transport is None:
            return
        self._stop_timer()
        self._tell_lost(error)
        self._send()
        self._linger()

    def _linger(self) -> None:
        """Let what is written leave, then close; a reader that takes nothing is cut off."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(GOODBYE_S, transport.abort)
        transport.resume_reading()
        if transport.get_write_buffer_size():
            transport.close()
            return
        try:
            transport.write_eof()  # and read on to the other side's end: closing on unread bytes would cut off ours
        except OSError:
            transport.abort()

    def _tell_lost(self, error: Exception | None) -> None:
        if self._state is not _State.LOST:
            self._state = _State.LOST
            self._user.lost(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_of_thread = threading.local()


def _raw_buffer() -> memoryview:
    """Encrypted bytes are taken out of it before the next read, so one is enough for a thread's connections."""
    buffer: memoryview | None = getattr(_of_thread, "buffer", None)
    if buffer is None:
        buffer = _of_thread.buffer = memoryview(bytearray(RAW_BUFFER_BYTES))
    return buffer
