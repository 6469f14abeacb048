"""One connection of ours to a peer: a request out, a response head and its body in, one exchange at a time.

Never knows: which connection to take, vouchers, retries, scheduling. Every outcome is a value; nothing it leaves
behind can fail later.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from peer.body import Pausable
from peer.channel import Channel
from peer.core import wire
from peer.core.failure import Failure, FailureKind
from peer.wakes import QUIET_S, Wakes

CONNECT_TIMEOUT_S = 5.0
HANDSHAKE_TIMEOUT_S = 5.0
HEAD_TIMEOUT_S = 5.0
"""From the request to the end of the response's head; reliability 3.2, 58."""

DOCUMENT_TIMEOUT_S = 10.0

_DISTRUST = ("CERTIFICATE", "UNKNOWN_CA", "BAD_CERT", "ACCESS_DENIED")
"""Words in the TLS alerts by which the other side refuses our certificate (RFC 8446 §6.2)."""


class Body(Protocol):
    """Takes a response's body: a `BodyReceiver`, a `Document` or a `Following`."""

    @property
    def surplus(self) -> bool: ...

    def attach(self, transport: Pausable) -> None: ...

    def feed(self, data: bytes | bytearray | memoryview) -> None: ...

    def get_buffer(self, sizehint: int) -> memoryview: ...

    def buffer_updated(self, nbytes: int) -> None: ...

    def lost(self, error: Exception | None) -> None: ...

    def abort(self, failure: Failure) -> None: ...

    async def done(self) -> int | Failure: ...


Begin = Callable[[wire.ResponseHead], Body | Failure]
"""Looks at the head of a response: who takes its body, or why it is not wanted."""


class Document:
    """A body that is kept in memory: JSON or a certificate."""

    def __init__(self, length: int) -> None:
        self._data = memoryview(bytearray(length + 1))  # one byte more shows surplus
        self._length, self._filled = length, 0
        self._ended: asyncio.Future[int | Failure] = asyncio.get_running_loop().create_future()
        self._settle()

    @property
    def surplus(self) -> bool:
        return self._filled > self._length

    @property
    def data(self) -> bytes:
        """What came, whole after `done`."""
        return bytes(self._data[: self._length])

    def attach(self, transport: Pausable) -> None:
        """Nothing to pause: there is room for all of it."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        count = min(len(data), len(self._data) - self._filled)
        self._data[self._filled : self._filled + count] = memoryview(data)[:count]
        self.buffer_updated(count)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._data[min(self._filled, self._length) :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._settle()

    def lost(self, error: Exception | None) -> None:
        self.abort(failure_of_connection(error))

    def abort(self, failure: Failure) -> None:
        if not self._ended.done():
            self._ended.set_result(failure)

    async def done(self) -> int | Failure:
        """Its length, or why it did not come. Waits ten seconds."""
        try:
            async with asyncio.timeout(DOCUMENT_TIMEOUT_S):
                return await asyncio.shield(self._ended)
        except TimeoutError:
            return stalled(f"a document did not come within {DOCUMENT_TIMEOUT_S:g} s")

    def _settle(self) -> None:
        if self._filled >= self._length and not self._ended.done():
            self._ended.set_result(self._length)


class Call:
    """A `ChannelUser`: one connection to a peer. Made by `connect`; `exchange` as often as it stays `usable`."""

    def __init__(
        self, context: ssl.SSLContext, judge: Callable[[bytes], Failure | None], gone: Callable[[Call], None]
    ) -> None:
        """`judge` looks at the peer's certificate (DER); `gone` is called once, when the connection is over."""
        self._judge, self._gone = judge, gone
        self.channel = Channel(context, self, server_side=False, handshake_timeout_s=HANDSHAKE_TIMEOUT_S)
        self._ready: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[Body | Failure] | None = None
        self._begin: Begin | None = None
        self._body: Body | None = None
        self._head = bytearray(wire.HEAD_LIMIT)
        self._room = memoryview(self._head)
        self._filled = 0
        self._keep_alive = True
        self._heard = False
        self._over = False
        self._wakes = Wakes()
        self._measured = False
        """The body that comes has a length."""
        self._looking: asyncio.TimerHandle | None = None
        self.reused = False

    @property
    def usable(self) -> bool:
        """True when another exchange may begin."""
        return self._keep_alive and not self._over and self._begin is None and not self.channel.is_closing()

    @property
    def heard(self) -> bool:
        """True when at least one byte of the last exchange's response came."""
        return self._heard

    async def connect(self, host: str, port: int) -> Failure | None:
        """Open the connection and shake hands. None: it is ready, and `judge` accepted the certificate."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(lambda: self.channel, host, port)
        except TimeoutError:
            self._end()
            return Failure(
                kind=FailureKind.CONNECT_TIMEOUT, message=f"no connection within {CONNECT_TIMEOUT_S:g} s"
            )
        except OSError as error:
            self._end()
            return Failure(kind=FailureKind.CONNECT_FAILED, message=f"no connection: {error.strerror or error}")
        except BaseException:
            self.channel.abort()
            self._end()
            raise
        try:
            return await self._ready  # ends with the handshake's own timeout at the latest
        except BaseException:
            self.channel.abort()
            raise

    async def exchange(self, request: bytes, begin: Begin) -> int | Failure:
        """Send a request head; give the response to whom `begin` names. The body's length, or why not.

        After a failure, and when cancelled, the connection is closed (unless the response was whole and empty).
        """
        assert self._begin is None, "one exchange at a time"
        if not self.usable:
            return failure_of_connection(None)  # cut off in the moment in which it was ready
        answer: asyncio.Future[Body | Failure] = asyncio.get_running_loop().create_future()
        self._answer, self._begin, self._filled, self._heard = answer, begin, 0, False
        try:
            self.channel.write(request)
            body = await self._answered(answer)
            outcome = body if isinstance(body, Failure) else await body.done()
        except BaseException:
            self.channel.abort()
            if answer.done() and not isinstance(begun := answer.result(), Failure):
                begun.abort(Failure(kind=FailureKind.ABORTED, message="the fetch was given up"))
                await begun.done()
            raise
        finally:
            self._begin = self._answer = self._body = None
            if self._looking is not None:
                self._looking.cancel()
                self._looking = None
        if not isinstance(body, Failure):
            if body.surplus and not isinstance(outcome, Failure):
                outcome = bad_response("more bytes came than were announced")
            self._keep_alive = self._keep_alive and not isinstance(outcome, Failure)
        if not self._keep_alive:
            self.channel.abort()
        return outcome

    async def _answered(self, answer: asyncio.Future[Body | Failure]) -> Body | Failure:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                return await asyncio.shield(answer)
        except TimeoutError:
            if answer.done():
                return answer.result()
            self._keep_alive = False
            return stalled(f"no answer within {HEAD_TIMEOUT_S:g} s")

    # a ChannelUser's part

    def opened(self, address: str) -> bool:
        return True

    def secured(self) -> None:
        failure = self._judge(self.channel.peer_certificate() or b"")
        if not self._ready.done():
            self._ready.set_result(failure)
        if failure is not None:
            self.channel.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :] if self._body is None else self._body.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = True
        if self._body is not None:
            self._body.buffer_updated(nbytes)
            if self._measured:
                self._wakes.read(nbytes, asyncio.get_running_loop().time())
                self.channel.wake_at(self._wakes.level)
            return
        self._filled += nbytes
        if self._begin is None or self._answer is None or self._answer.done():
            self._keep_alive = False  # bytes that nobody asked for
            self.channel.abort()
            return
        end = self._head.find(b"\r\n\r\n", 0, self._filled) + 4
        if end >= 4:
            self._begin_body(self._begin, self._answer, end)
        elif self._filled == wire.HEAD_LIMIT:
            self._give_up(self._answer, bad_response("the head of the response is too large"))

    def writable(self) -> None:
        """Requests are small: nothing waits for this."""

    def lost(self, error: Exception | None) -> None:
        if not self._ready.done():
            self._ready.set_result(failure_of_handshake(error))
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(failure_of_connection(error))
        if self._body is not None:
            self._body.lost(error)
        self._end()

    def _begin_body(self, begin: Begin, answer: asyncio.Future[Body | Failure], end: int) -> None:
        try:
            head = wire.parse_response_head(bytes(self._room[:end]))
        except wire.WireError as error:
            self._give_up(answer, bad_response(str(error)))
            return
        self._keep_alive = head.keep_alive
        body = begin(head)
        rest, self._filled = self._room[end : self._filled], 0
        if isinstance(body, Failure):
            self._keep_alive = head.keep_alive and head.length == 0 and not rest
            answer.set_result(body)
            if not self._keep_alive:
                self.channel.abort()  # its body is not wanted
            return
        self._body = body
        body.attach(self.channel)
        self._measured = head.length is not None
        if head.length is not None:
            self._watch_wakes(head.length, len(rest))
        body.feed(rest)
        answer.set_result(body)

    def _watch_wakes(self, length: int, read: int) -> None:
        loop = asyncio.get_running_loop()
        self._wakes.begin(length, loop.time())
        self._wakes.read(read, loop.time())
        self.channel.wake_at(self._wakes.level)
        if self._wakes.level > 1:
            self._looking = loop.call_later(QUIET_S, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._wakes.quiet() and self._wakes.level > 1:
            self._looking = asyncio.get_running_loop().call_later(QUIET_S, self._look)
        self.channel.wake_at(self._wakes.level)

    def _give_up(self, answer: asyncio.Future[Body | Failure], failure: Failure) -> None:
        self._keep_alive = False
        answer.set_result(failure)
        self.channel.abort()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._gone(self)


def bad_response(message: str) -> Failure:
    """The peer does not keep to the protocol."""
    return Failure(kind=FailureKind.BAD_RESPONSE, message=message)


def stalled(message: str) -> Failure:
    """The peer is silent or too slow."""
    return Failure(kind=FailureKind.STALLED, message=message)


def failure_of_handshake(error: Exception | None) -> Failure:
    """Why no TLS connection came to be: the peer (or we to it) not trusted, or no TLS at all."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(kind=FailureKind.NOT_TRUSTED, message=f"its certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown"
        text = reason.replace("_", " ").lower()
        if "ALERT" in reason and any(word in reason for word in _DISTRUST):
            return Failure(kind=FailureKind.NOT_TRUSTED, message=f"it refuses our certificate: {text}")
        return Failure(kind=FailureKind.TLS_FAILED, message=f"no TLS: {text}")
    if isinstance(error, TimeoutError):
        return Failure(kind=FailureKind.CONNECT_TIMEOUT, message=str(error))
    return Failure(kind=FailureKind.TLS_FAILED, message="the connection was closed during the handshake")


def failure_of_connection(error: Exception | None) -> Failure:
    """Why an exchange ended early. A refusal of our certificate arrives only after TLS 1.3's handshake."""
    if isinstance(error, ssl.SSLError):
        return failure_of_handshake(error)
    reason = f" ({type(error).__name__})" if error is not None else ""
    return Failure(kind=FailureKind.CONNECTION_CLOSED, message=f"the connection was closed{reason}")
