"""The body of an origin's answer: from aiohttp's connection into a `BodyReceiver`.

Two ways. Large bodies of known length: once the head is parsed, the transport is taken over from aiohttp, fills the
receiver's buffers directly (data path 1), and is given back after the last byte. All others, chunked ones among
them, come through aiohttp's stream, which knows the framing.

Never knows: URLs, headers, ranges, retries.

Why nothing is lost or doubled at the take-over (aiohttp 3.14.5; asyncio of CPython 3.11; plain and TLS alike).
Bytes are handed to aiohttp's protocol by `data_received` alone, which runs to its end before we do; what it was
given lies in the payload stream, or, where the stream had paused the parser, in the parser's tail. `read_nowait`
empties the stream and, whenever that falls below its low mark, feeds it from the tail, so that both are empty
when it returns nothing. From there to `set_protocol` nothing awaits. Bytes that the transport itself still holds
(TLS) or the kernel go to whatever protocol is set when reading goes on. The parser sees no byte after that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from enum import Enum

import aiohttp

from agent.origin_answer import BodyPlan, Framing
from agent.origin_flow import Flow
from agent.throttle import Limiter
from peer.body import BodyLimits, BodyReceiver
from peer.core.failure import Failure, FailureKind
from peer.sink import Sink
from peer.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Where bodies go, and within which limits."""

    sink: Sink
    workers: Workers
    limits: BodyLimits
    takeover_bytes: int
    """Bodies of at least so many bytes leave aiohttp's stream."""
    limiter: Limiter | None = None
    """Holds back reading."""


async def receive(response: aiohttp.ClientResponse, plan: BodyPlan, intake: Intake) -> int | Failure:
    """Deliver the body that `plan` describes; bytes delivered, or why not.

    Call it without an `await` since the response came: what an origin sent before it cut the connection is lost
    otherwise. When it returns or is cancelled, no write is under way; closing the response is the caller's
    business.
    """
    loop = asyncio.get_running_loop()
    receiver = BodyReceiver(
        start=plan.start,
        length=plan.length,
        sink=intake.sink,
        workers=intake.workers,
        loop=loop,
        limits=intake.limits,
    )
    large = plan.body_length is not None and plan.body_length >= intake.takeover_bytes
    taker = _take_over(response, receiver, intake.limiter) if large else None
    if taker is not None:
        return await _through_taker(taker, receiver, plan)
    stream = _Stream(response)
    try:
        return await _through_stream(stream, receiver, plan, intake)
    finally:
        stream.leave()


async def _through_taker(taker: _Taker, receiver: BodyReceiver, plan: BodyPlan) -> int | Failure:
    if taker.flow is None:
        outcome = await receiver.done()
        if outcome == plan.body_length:
            taker.give_back()
        return outcome
    async with asyncio.TaskGroup() as group:
        paying = group.create_task(taker.flow.run())
        outcome = await receiver.done()
        if outcome == plan.body_length:
            taker.give_back()
        await taker.flow.settle(outcome)
        paying.cancel()
    return outcome


class _Taker(asyncio.BufferedProtocol):
    """The transport's protocol after the take-over. aiohttp's own learns only that the connection is over."""

    def __init__(self, receiver: BodyReceiver, transport: asyncio.Transport, content: aiohttp.StreamReader) -> None:
        self.flow: Flow | None = None
        self._receiver = receiver
        self._transport = transport
        self._content = content
        self._handler = transport.get_protocol()

    def get_buffer(self, sizehint: int) -> memoryview:
        view = self._receiver.get_buffer(sizehint)
        return view if self.flow is None else self.flow.room(view)

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.buffer_updated(nbytes)
        if self.flow is not None:
            self.flow.took(nbytes)

    def eof_received(self) -> None:
        self._receiver.eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.lost(exc)
        self._handler.connection_lost(None)

    def give_back(self) -> None:
        """After the very last byte of the body: aiohttp's protocol again, which takes the body for complete and
        puts the connection into the pool, if the head allowed that.

        The next request gives it a new parser. Whatever comes before then hits the old one, which stands in the
        middle of a body that is over, and ends the connection.
        """
        if self._receiver.surplus or self._transport.is_closing():
            return
        if self.flow is not None:
            self.flow.let_go()
        self._transport.set_protocol(self._handler)
        self._content.feed_eof()


def _take_over(response: aiohttp.ClientResponse, receiver: BodyReceiver, limiter: Limiter | None) -> _Taker | None:
    """Move what aiohttp holds into the receiver, then the transport; None when the transport stays where it is.

    Must not await: see the top of this file.
    """
    content = response.content
    while data := _held(content):
        receiver.feed(data)
    connection = response.connection
    protocol = connection.protocol if connection is not None else None
    transport = connection.transport if connection is not None else None
    if protocol is None or transport is None or transport.is_closing() or content.exception() is not None:
        return None
    if content.is_eof():
        return None
    protocol.pause_reading()
    taker = _Taker(receiver, transport, content)
    transport.set_protocol(taker)
    transport.resume_reading()
    if limiter is None:
        receiver.attach(transport)
        return taker
    taker.flow = Flow(transport, receiver, limiter)
    receiver.attach(taker.flow)
    taker.flow.took(receiver.received)
    return taker


def _held(content: aiohttp.StreamReader) -> bytes:
    """What the stream holds; nothing when it has failed, which the next read tells."""
    try:
        return content.read_nowait()
    except (aiohttp.ClientError, OSError):
        return b""


class _Gate(asyncio.Transport):
    """Stands for the transport when bytes come through aiohttp's stream: closed while no buffer is free."""

    def __init__(self) -> None:
        super().__init__()
        self._open = asyncio.Event()
        self._open.set()

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._open.clear()

    def resume_reading(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        """Return when a buffer is free. Bounded by the writes under way."""
        await self._open.wait()


class _Stream:
    """aiohttp's stream, and the truth about its end.

    aiohttp leaves two things unsaid: a reset while a body runs to the end of the connection looks like that end,
    and after a chunk that is none the reader is never woken (client_proto.ResponseHandler, `connection_lost` and
    `data_received`). The future that tells how the connection ended knows both. Silence is the receiver's business.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.content = response.content
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        self._closed = protocol.closed if protocol is not None else None
        if self._closed is not None:
            self._closed.add_done_callback(self._on_closed)
        if protocol is not None:
            protocol.read_timeout = None
            protocol.start_timeout()

    @property
    def torn(self) -> BaseException | None:
        """Why the connection was lost, when it did not end in good order."""
        return self._closed.exception() if self._closed is not None and self._closed.done() else None

    def leave(self) -> None:
        """Let go of the connection: it may carry other bodies from now on."""
        if self._closed is not None:
            self._closed.remove_done_callback(self._on_closed)

    def _on_closed(self, closed: asyncio.Future[None]) -> None:
        closed.exception()
        if not self.content.is_eof() and self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientPayloadError("the connection ended"))


class _End(Enum):
    """How a stream came to its end."""

    CLEAN = "clean"
    """The framing said so, or the connection closed where that is the end."""
    MORE = "more"
    """Bytes came after those that were wanted."""
    CUT = "cut"
    """The connection was lost, or what came was no valid framing."""
    ENOUGH = "enough"
    """We have what we want and did not look further."""


async def _through_stream(stream: _Stream, receiver: BodyReceiver, plan: BodyPlan, intake: Intake) -> int | Failure:
    gate = _Gate()
    flow = None if intake.limiter is None else Flow(gate, receiver, intake.limiter)
    receiver.attach(flow or gate)
    if flow is not None:
        flow.took(receiver.received)
    begun = _held(stream.content)
    end = None
    async with asyncio.TaskGroup() as group:
        pump = group.create_task(_pump(stream, receiver, _Way(plan, gate, flow), begun))
        paying = None if flow is None else group.create_task(flow.run())
        outcome = await receiver.done()
        if not isinstance(outcome, Failure):
            await asyncio.wait((pump,), timeout=intake.limits.stall_time_s)
        if pump.done():
            end = pump.result()
        pump.cancel()
        if flow is not None and paying is not None:
            await flow.settle(outcome)
            paying.cancel()
    return _judge_end(outcome, end, plan)


@dataclass(frozen=True, slots=True)
class _Way:
    """What a pump is told."""

    plan: BodyPlan
    gate: _Gate
    flow: Flow | None

    async def wait(self, receiver: BodyReceiver) -> None:
        """Return when more may be read: at once when only the end is waited for."""
        if not receiver.over:
            await self.gate.wait()


async def _pump(stream: _Stream, receiver: BodyReceiver, way: _Way, data: bytes) -> _End:
    plan = way.plan
    try:
        while True:
            data = data or await stream.content.readany()
            if not data:
                if plan.framing is Framing.UNTIL_CLOSE and stream.torn is not None:
                    receiver.lost(None)
                    return _End.CUT
                receiver.eof()
                return _End.CLEAN
            room = plan.limit - receiver.received
            if plan.length is None and len(data) > room:
                receiver.feed(memoryview(data)[:room])
                receiver.abort(Failure(kind=FailureKind.TOO_LARGE, message=f"sent more than {plan.limit} bytes"))
                return _End.MORE
            receiver.feed(data)
            if way.flow is not None:
                way.flow.took(len(data))
            if receiver.surplus:
                return _End.MORE
            if receiver.over and not plan.must_end:
                return _End.ENOUGH
            await way.wait(receiver)
            data = b""
    except (aiohttp.ClientError, OSError, RuntimeError) as error:  # RuntimeError: the client was closed meanwhile
        receiver.lost(error)
        return _End.CUT


def _judge_end(outcome: int | Failure, end: _End | None, plan: BodyPlan) -> int | Failure:
    """The receiver counts bytes; whether the body ended where it had to is seen here."""
    if isinstance(outcome, Failure):
        early = outcome.kind is FailureKind.CONNECTION_CLOSED and end is _End.CLEAN
        if early and plan.framing is Framing.CHUNKED:
            return replace(outcome, kind=FailureKind.LENGTH_MISMATCH, message="the body is shorter than announced")
        return outcome
    if not plan.must_end or end is _End.CLEAN:
        return outcome
    if end is _End.MORE:
        return Failure(kind=FailureKind.LENGTH_MISMATCH, message="the body is longer than announced")
    return Failure(kind=FailureKind.CONNECTION_CLOSED, message="the end of the body is missing")
