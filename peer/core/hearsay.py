"""What members say of each other: that somebody lies.

One member's word is nothing: it may be the liar. Two different ones are believed for a while, so that not
everybody has to be lied to; a group of slanderers can then keep us from a few honest members, and no bytes are
thrown away for it. Never knows: content, addresses, what is done about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from peer.core.voucher import PeerId

WITNESSES = 2
"""Different members whose word is needed."""

NAMES_A_WITNESS = 4
"""Members that one member can speak of at a time; beyond them it is not listened to. Groups rarely have so many
liars at once, and slanderers can name as many."""

MAX_WITNESSES = 256
"""Members whose words are remembered; beyond it the oldest is forgotten."""


class Hearsay:
    """Who says of whom that it lies. Words that are not repeated are forgotten after `lasts_s` seconds."""

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._said: dict[PeerId, dict[PeerId, float]] = {}
        """When each witness last said it of whom."""

    def hear(self, witness: PeerId, about: Iterable[PeerId], now: float) -> None:
        """`witness`, which may be believed, found these lying."""
        words = self._said.pop(witness, {})
        for peer_id in [peer_id for peer_id, at in words.items() if self._is_old(at, now)]:
            del words[peer_id]
        for peer_id in about:
            if peer_id != witness and (peer_id in words or len(words) < NAMES_A_WITNESS):
                words[peer_id] = now
        if words:
            self._said[witness] = words
        if len(self._said) > MAX_WITNESSES:
            del self._said[next(iter(self._said))]

    def believed_until(self, peer_id: PeerId, now: float, is_credible: Callable[[PeerId], bool]) -> float | None:
        """When it will not be believed any more that this member lies; None: it is not now.

        Only those count that are credible now, whatever they were when they spoke.
        """
        if not self._said:
            return None
        times = [
            at
            for witness, words in self._said.items()
            if (at := words.get(peer_id)) is not None and not self._is_old(at, now) and is_credible(witness)
        ]
        if len(times) < WITNESSES:
            return None
        return sorted(times)[-WITNESSES] + self._lasts_s

    def spoken_of_by(self, witness: PeerId) -> tuple[PeerId, ...]:
        """Whom this witness named."""
        return tuple(self._said.get(witness, ()))

    def forget(self, peer_id: PeerId) -> None:
        """Nothing was said of this member."""
        for words in self._said.values():
            words.pop(peer_id, None)

    def _is_old(self, at: float, now: float) -> bool:
        return now - at >= self._lasts_s
