"""Server-sent events from an agent: taken apart, and opened again when the agent comes back.

Never knows: what an event means. Source: HTML Living Standard §9.2 "Server-sent events".
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.client_http import MAX_ANSWER_BYTES, Pieces, Request, Wire
from agent.core.backoff import Backoff
from agent.errors import AgentError, AgentUnavailableError

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
"""Between two tries to find the agent again: from the first to the longest, growing, with jitter. A try costs one
call of the system on this machine."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event as it came."""

    data: str
    kind: str = "message"
    id: str = ""
    """The last one that was sent, with this event or before."""


class EventParser:
    """Takes a `text/event-stream` apart, however the bytes are cut."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        """Of the last block that was ended by an empty line, also of one without data."""
        self._line = bytearray()
        self._after_cr = False
        self._first = True
        self._kind, self._id, self._data = "", last_id, list[str]()
        self._held = 0

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that are complete with these bytes. Raises AgentError for one that is too long."""
        if self._after_cr and data.startswith(b"\n"):
            data, self._after_cr = data[1:], False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *lines, rest = _LINE_END.split(data)
        if lines:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        self._line += rest
        found = [event for line in lines if (event := self._take(line)) is not None]
        if self._held + len(self._line) > MAX_ANSWER_BYTES:
            raise AgentError(f"the agent's event is longer than {MAX_ANSWER_BYTES} bytes")
        return found

    def _take(self, line: bytes) -> ServerEvent | None:
        if self._first:
            self._first, line = False, line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, raw = line.partition(b":")
        value = raw.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"data":
                self._data.append(value)
                self._held += len(raw)
            case b"event":
                self._kind = value
            case b"id" if "\0" not in value:
                self._id = value
            case _:  # a comment, `retry` (our own delays are bounded), or a field of the future
                pass
        return None

    def _dispatch(self) -> ServerEvent | None:
        self.last_id = self._id
        data, kind = self._data, self._kind
        self._data, self._kind, self._held = [], "", 0
        return ServerEvent(data="\n".join(data), kind=kind or "message", id=self.last_id) if data else None


class Feed:
    """A stream of events that outlives the agent's restarts, until `close`. One reader.

    No generator: of several, one in the other, asyncio closes the inner ones first when a program ends, and
    complains. The first connection has to succeed; later ones are tried again, with growing delays between
    FIRST_RETRY_S and LONGEST_RETRY_S, until the agent has been away for `patience_s` seconds (None: for ever).
    """

    def __init__(self, wire: Wire, request: Callable[[str], Request], *, patience_s: float | None) -> None:
        """`request`: what to ask for after the event with this id ("": nothing came yet)."""
        self._wire, self._request, self._patience_s = wire, request, patience_s
        self.last_id = ""
        """Of the connections before this one: what was asked for."""
        self.connection = 0
        """Counts the connections; what belongs to an earlier one is over."""
        self._pieces: Pieces | None = None
        self._parser = EventParser()
        self._ready: deque[ServerEvent] = deque()
        self._since = 0.0
        """When the agent came, or went."""
        self._backoff = Backoff(first_s=FIRST_RETRY_S, longest_s=LONGEST_RETRY_S, rng=random.Random())

    @property
    def connected(self) -> bool:
        """The agent is there, as far as is known."""
        return self._pieces is not None

    def close(self) -> None:
        """Leave it. Repeating it is safe."""
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None

    async def next(self) -> ServerEvent | None:
        """The next event, and None for each new connection, also the first. Raises what the agent refuses with, and
        AgentUnavailableError when it stays away."""
        while not self._ready:
            try:
                if self._pieces is None:
                    self._pieces = await self._open()
                    return None
                self._ready.extend(self._parser.feed(await self._pieces.read()))
            except AgentUnavailableError:
                if self._given_up(asyncio.get_running_loop().time()):
                    raise
                await asyncio.sleep(self._backoff.next_delay())
        return self._ready.popleft()

    async def _open(self) -> Pieces:
        pieces = await self._wire.open(self._request(self.last_id))
        if pieces.content_type != b"text/event-stream":
            pieces.close()
            raise AgentError("the agent's answer is no stream of events")
        self.connection += 1
        self._parser = EventParser(self.last_id)
        self._since = asyncio.get_running_loop().time()
        return pieces

    def _given_up(self, now: float) -> bool:
        """After a failure: whether it was the last one."""
        if self.connected:
            self.close()
            self.last_id = self._parser.last_id
            if now - self._since > LONGEST_RETRY_S:
                self._backoff.reset()  # else it is an agent that stops as soon as it runs
            self._since = now
        away_too_long = self._patience_s is not None and now - self._since >= self._patience_s
        return self.connection == 0 or away_too_long
