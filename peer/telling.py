"""One peer listens for news of one content: what is said to it, and when.

Several changes go out as one message; while the peer does not read, nothing is said, and then all at once. Never
knows: requests, TLS, why something changed. When news may wait is `peer.core.news`, how they are written is
`peer.core.newswire`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from peer.core.news import Pace
from peer.core.newswire import STREAM_END, STREAM_HEAD, format_news
from peer.core.state import State
from peer.core.voucher import PeerId
from peer.core.wire import NewsRequest

if TYPE_CHECKING:
    from peer.channel import Channel
    from peer.house import House


class Telling:
    """A `Listener`, from `begin` to `end`."""

    def __init__(self, house: House, channel: Channel, peer_id: PeerId, request: NewsRequest) -> None:
        self.peer_id = peer_id
        self._house, self._channel, self._request = house, channel, request
        self._distrusted = request.distrusted
        self._pace = Pace()
        self._told: State | None = None
        self._of: int | None = None
        """Of which id something was told."""
        self._blocked = False
        """The peer has to read before more is said."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> bool:
        """The first message goes out at once. False: it is the last one too, because too many listen."""
        going_on = self._house.offers.listen(self._request.content_ids, self)
        self._channel.encrypt(STREAM_HEAD)
        self._say(*self._now())
        if not going_on:
            self._channel.write(STREAM_END)
            self._stop_timer()
        return going_on

    def end(self, *, orderly: bool = False) -> None:
        """Say no more; `orderly`: something else follows on the connection."""
        self._stop_timer()
        self._house.offers.leave(self._request.content_ids, self)
        if orderly:
            self._channel.write(STREAM_END)

    def offer_changed(self) -> None:
        """A `Listener`'s part."""
        timer = self._timer
        if self._blocked or timer is None:
            return
        state, of = self._now()
        due = self._pace.due(state)
        if due is None and of == self._of:
            return
        now = asyncio.get_running_loop().time()
        if due is None or due <= now:
            self._say(state, of)
        elif due < timer.when():
            self._say_at(due)

    def writable(self) -> None:
        """The peer has read what was said."""
        self._blocked = False
        self.offer_changed()

    def _now(self) -> tuple[State | None, int]:
        """What holds, under the first id by which we know the content."""
        house = self._house
        avoided = house.is_avoided(self.peer_id)
        for of, content_id in enumerate(self._request.content_ids):
            state = house.offers.now(content_id, self._distrusted, avoided=avoided)
            if state is not None:
                return state, of
        return None, 0

    def _say_now(self) -> None:
        if self._blocked:
            self._channel.abort()  # all this time it has read nothing
        else:
            self._say(*self._now())

    def _say(self, state: State | None, of: int) -> None:
        message = format_news(self._told, state, of, first=of != self._of)
        now = asyncio.get_running_loop().time()
        self._pace.told(state, len(message), now)
        self._told, self._of = state, of
        self._blocked = not self._channel.write(message)
        self._say_at(now + self._request.wait_s)

    def _say_at(self, when: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_at(when, self._say_now)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
