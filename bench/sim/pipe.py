"""Messages between two processes, which never wait for each other for ever.

Who sends takes in meanwhile what comes: if both waited until the other has read, nothing would happen any more. (A
thread that reads does not do: machine code never lets it have its turn.) Never knows: what messages mean.
"""

from __future__ import annotations

import select
import socket
from collections import deque

_HEAD = 4
"""Bytes that tell a message's length."""
_AT_ONCE = 1 << 20


class PipeError(Exception):
    """Nothing more comes; str() says why."""


class Pipe:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._open = True
        self._bytes = b""
        self._messages: deque[bytes] = deque()

    @staticmethod
    def pair() -> tuple[Pipe, Pipe]:
        """Both ends; each process closes the one that is not its own."""
        one, other = socket.socketpair()
        return Pipe(one), Pipe(other)

    def send(self, message: bytes) -> None:
        """Raises PipeError when the other end is closed."""
        whole, sent = len(message).to_bytes(_HEAD, "big") + message, 0
        while sent < len(whole):
            try:
                sent += self._end.send(memoryview(whole)[sent:])
                continue
            except BlockingIOError:
                pass  # it is full
            except OSError as error:
                raise PipeError(f"is gone: {error}") from error
            if select.select([self._end] if self._open else [], [self._end], [])[0]:
                self._take()

    def receive(self, within_s: float | None = None) -> bytes:
        """The next message. Raises PipeError when it does not come in time, or nothing will come any more."""
        while not self._messages:
            if not self._open:
                raise PipeError("ended early")
            if not select.select([self._end], [], [], within_s)[0]:
                raise PipeError("does not answer")
            self._take()
        return self._messages.popleft()

    def close(self) -> None:
        """The other end hears that nothing more comes."""
        self._end.close()

    def _take(self) -> None:
        try:
            came = self._end.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        if not came:
            self._open = False
        came, at = self._bytes + came, 0
        while len(came) >= at + _HEAD:
            stop = at + _HEAD + int.from_bytes(came[at : at + _HEAD], "big")
            if len(came) < stop:
                break
            self._messages.append(came[at + _HEAD : stop])
            at = stop
        self._bytes = came[at:]
