"""A copy was rejected, and who lied is not known: which of its chunks are fetched once more, in which order.

What came from others is suspect, and rests on the word of whoever vouched for it. A few at a time, suspects are
fetched again and compared with what was held: from the origin some of each signer's in turn, so that who altered a
tenth is found after about ten of its own; from peers what they have on another's word, which costs the origin
nothing. Two words that differ are a contradiction, which the origin decides. Once something differs, no more is
fetched again than what rests on the liar's word; then the validator has to say whether that was all. What was
compared with the origin is the origin's from then on, so that everything is, in the end, if nothing ever differs.

Chooses only. Never knows: requests, digests' making, validators, time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, bitfield, chunks_in
from validation.digest import ChunkDigest

FEW = 4
"""Suspects that are all fetched again: finding out whose fault it is would cost as much."""

AT_A_TIME = 2
"""Chunks asked of the origin at first: the second is under way while the digest of the first is made."""

GROWTH = 4
"""Later, this part of what was compared before: when much was right, the liar is rare, or there is none."""

NEAR_AT_A_TIME = 8
"""Chunks that are compared with peers' at a time."""

PASSED_ON_AT_A_TIME = 2
"""... when all that is to be had is what peers pass on."""

Offer = tuple[PeerId, Bitfield, bool]
"""A peer, what it has, and whether it fetches the content too."""

Signers = Callable[[ChunkIndex], tuple[PeerId, ...]]
"""Who vouches for what is held of a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What there is to compare now."""

    suspects: Bitfield
    """Chunks that are there, and not the origin's."""
    missing: Bitfield
    """Chunks that are not there."""
    awaited: Bitfield
    """Those of them that only the origin may supply."""
    offers: tuple[Offer, ...]
    """What peers have."""


class Comparing:
    """What was held of one copy when that was rejected, and what was found out since."""

    def __init__(self, rejected: Mapping[ChunkIndex, ChunkDigest | None], rng: random.Random) -> None:
        """`rejected`: the digest of each suspect; None: nobody knows it."""
        self.different = False
        """Something is not what it was when the copy was rejected: the next verdict may be another one."""
        self.caught = False
        """What rests on a liar's word alone has been thrown away: first that has to be there again."""
        self.origin_only = NO_CHUNKS
        """Chunks that the origin has to supply."""
        self._rejected = dict(rejected)
        self._rng = rng
        self._of_near = NO_CHUNKS
        """Chunks that were compared with a peer's, or are being."""
        self._given_up = NO_CHUNKS
        """... and those of them with which nothing could be compared after all."""
        self._first: Bitfield | None = None
        """Those with which it began: the origin is asked afterwards. None: it has not begun."""
        self._sampled: Counter[PeerId] = Counter()
        """Chunks of each signer that the origin was asked for."""

    @property
    def suspects(self) -> Bitfield:
        """What was suspect when the copy was rejected."""
        return bitfield(self._rejected)

    def before(self, chunk: ChunkIndex) -> ChunkDigest | None:
        """The digest of what was rejected, if it is known."""
        return self._rejected.get(chunk)

    def is_doubtful(self, chunk: ChunkIndex, signers: int) -> bool:
        """So many vouch for what a peer has sent to be compared, and that is not enough to pass it on."""
        return signers < 2 and bool(self._of_near >> chunk & 1) and not self.different

    def proven(self, chunk: ChunkIndex, digest: ChunkDigest) -> bool:
        """A chunk is there again. True: it is another than what was rejected."""
        if chunk not in self._rejected or self._rejected[chunk] == digest:
            return False
        self.different = True
        return True

    def choose(self, sight: Sight, signers: Signers) -> Bitfield:
        """What to fetch again now. Of the origin only when nothing of it is awaited."""
        self.caught = self.caught and bool(sight.missing)
        if self.different or self.caught:
            return NO_CHUNKS
        by_word = {chunk: signers(chunk) for chunk in chunks_in(sight.suspects)}
        fresh, passed_on = self._elsewhere(by_word, sight.offers)
        near = self._next_of_near(fresh, passed_on, sight.missing)
        if self._first is None:
            self._first = Bitfield(near & fresh)
        if self._first & (sight.missing | near) or sight.awaited:
            return near
        left = {chunk: word for chunk, word in by_word.items() if not near >> chunk & 1}
        far = self._next_of_origin(left)
        self.origin_only = Bitfield(self.origin_only | far)
        return Bitfield(near | far)

    def given_up(self, sight: Sight) -> Bitfield:
        """What was to be compared with a peer's, and nobody has it any more but who vouched for it before: it may
        come from there again."""
        lone = Bitfield(self._of_near & sight.missing & ~self.origin_only & ~self._given_up)
        for _, have, _ in sight.offers:
            lone = Bitfield(lone & ~have)
        self._given_up = Bitfield(self._given_up | lone)
        return lone

    # --- of the origin ---------------------------------------------------------------------------------------

    def _next_of_origin(self, by_word: Mapping[ChunkIndex, tuple[PeerId, ...]]) -> Bitfield:
        """Some of each signer's, who had fewest compared first; last what several vouch for."""
        asked = self._sampled.total()
        if 2 * asked >= len(self._rejected):
            return bitfield(by_word)
        wanted = max(AT_A_TIME, asked // GROWTH)
        alone: dict[PeerId, list[ChunkIndex]] = {}
        for chunk, word in by_word.items():
            if len(word) == 1:
                alone.setdefault(word[0], []).append(chunk)
        chosen: list[ChunkIndex] = []
        while alone and len(chosen) < wanted:
            fewest = min(self._sampled[signer] for signer in alone)
            signer = self._rng.choice([each for each in alone if self._sampled[each] == fewest])
            chunks = alone[signer]
            chosen.append(chunks.pop(self._rng.randrange(len(chunks))))
            self._sampled[signer] += 1
            if not chunks:
                del alone[signer]
        if chosen:
            return bitfield(chosen)
        chosen = list(by_word)[:wanted]
        self._sampled.update(word[0] for word in (by_word[chunk] for chunk in chosen) if word)
        return bitfield(chosen)

    # --- of peers --------------------------------------------------------------------------------------------

    def _next_of_near(self, fresh: Bitfield, passed_on: Bitfield, missing: Bitfield) -> Bitfield:
        """What rests on one word and somebody else has. Who fetches the content too is likely to compare as well:
        it took back what others gave it, and offers what it has from the origin. The others pass on all sorts."""
        chosen = NO_CHUNKS
        for field, most in ((fresh, NEAR_AT_A_TIME), (passed_on, PASSED_ON_AT_A_TIME)):
            chunks = list(chunks_in(Bitfield(field & ~chosen)))
            room = most - (self._of_near & missing | chosen).bit_count()
            chosen = Bitfield(chosen | bitfield(self._rng.sample(chunks, max(0, min(room, len(chunks))))))
        self._of_near = Bitfield(self._of_near | chosen)
        return chosen

    def _elsewhere(
        self, by_word: Mapping[ChunkIndex, tuple[PeerId, ...]], offers: tuple[Offer, ...]
    ) -> tuple[Bitfield, Bitfield]:
        """What others than its signer have, who fetch it too, and who do not."""
        alone: dict[PeerId, Bitfield] = {}
        for chunk, word in by_word.items():
            if len(word) == 1 and not self._of_near >> chunk & 1:
                alone[word[0]] = Bitfield(alone.get(word[0], NO_CHUNKS) | 1 << chunk)
        fresh = passed_on = NO_CHUNKS
        for signer, chunks in alone.items():
            for peer, have, wants in offers:
                if peer != signer and wants:
                    fresh = Bitfield(fresh | chunks & have)
                elif peer != signer:
                    passed_on = Bitfield(passed_on | chunks & have)
        return fresh, passed_on
