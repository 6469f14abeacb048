"""Which source gets which chunks next: near before far, rarest first, or in order from where somebody reads.
Functions that change nothing.

Never knows: jobs, HTTP, TLS, hosts' names, payload, or whether it runs in a simulation. `transfer.py` commits what
`plan` returns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.ownership import Ownership
from agent.core.sources import ORIGIN, NearSource, peer_of
from agent.core.tuning import Tuning
from agent.core.view import Assignment, OriginReadiness, View
from validation.content import NO_CHUNKS, Bitfield, ChunkIndex, chunks_in

_MANY = 1 << 20
"""No source carries so many requests."""


def left_to_origin(view: View) -> Bitfield:
    """Missing chunks that no near source has or is about to have."""
    return _left_to_origin(view)


def plan(view: View, tuning: Tuning, rng: random.Random) -> list[Assignment]:
    """The requests to make now. Nothing is asked twice; a chunk that is near is not asked of the origin."""
    assignments = _near(view, tuning, rng)
    taken = NO_CHUNKS
    for assignment in assignments:
        taken = Bitfield(taken | assignment.chunks)
    if assignments and view.origin is OriginReadiness.WHOLE_ONLY:
        return assignments  # the whole would be written over what they bring
    far = _far(view, Bitfield(view.missing & ~taken), rng)
    return assignments + ([far] if far is not None else [])


def astray(view: View, current: ChunkIndex) -> bool:
    """The origin's request in flight, which is in chunk `current`, is not about to bring what is wanted first.

    `view.missing` holds its chunks too.
    """
    left = _left_to_origin(view)
    return bool(left) and _first_from(left, view.cursor) not in (current, current + 1)


def _near(view: View, tuning: Tuning, rng: random.Random) -> list[Assignment]:
    wanted = Bitfield(view.missing & ~view.origin_only)
    left, made = view.near_slots, list[Assignment]()
    in_turn = _in_turn(view.near, wanted, rng)
    if left <= 0 or not in_turn:
        return made
    slots = {source.source: source.free_slots for source in in_turn}
    counts = _counts(view.near, wanted) if view.cursor is None else []
    shared = None if all(source.wants for source in in_turn) else _spread(view)
    progress = True
    while progress and left > 0 and wanted:
        progress = False
        for source in in_turn:
            candidates = Bitfield(wanted & source.have)
            if shared is not None and not source.wants and peer_of(source.source) is not None:
                candidates = _of_giver(view, candidates, shared, rng)
            if left <= 0 or slots[source.source] <= 0 or not candidates:
                continue
            in_order = view.cursor is not None
            first = _first_from(candidates, view.cursor) if in_order else _pick(candidates, source, counts, rng)
            last = _run(candidates, first, _longest(view, source, tuning))
            assignment = Assignment(source=source.source, first=first, last=last)
            made.append(assignment)
            wanted = Bitfield(wanted & ~assignment.chunks)
            slots[source.source] -= 1
            left -= 1
            progress = True
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Chunks that need not come from one peer that only gives."""

    spreading: Bitfield
    """Those who want the content have them, or are about to, and pass them on."""
    plenty: Bitfield
    """Half as many have them to give as there are that want the content."""


def _spread(view: View) -> _Shared | None:
    """None when nobody else wants the content."""
    if view.owners is None or not view.owners.others or view.cursor is not None:
        return None
    field = NO_CHUNKS
    for source in view.near:
        if source.wants:
            field = Bitfield(field | source.claimed | (NO_CHUNKS if source.cooling else source.have))
    givers = tuple(source for source in view.near if not source.wants and not source.cooling)
    enough = (len(view.owners.others) + 2) // 2
    plenty = NO_CHUNKS if len(givers) < enough else _at_least(_counts(givers, view.missing), enough)
    return _Shared(spreading=field, plenty=plenty)


def _of_giver(view: View, candidates: Bitfield, shared: _Shared, rng: random.Random) -> Bitfield:
    """What to ask of a peer that only gives: like the origin, it sends each chunk once, to its owner."""
    assert view.owners is not None
    rare = Bitfield(candidates & ~shared.spreading & ~shared.plenty)
    if not rare:
        return candidates
    ours = Bitfield(rare & view.owners.ours)
    if ours:
        return Bitfield(ours & -ours)
    taken = _of_others(view.owners, rare, view.hunger, rng)
    return Bitfield(candidates & shared.plenty) if taken is None else Bitfield(1 << taken)


def _in_turn(near: tuple[NearSource, ...], wanted: Bitfield, rng: random.Random) -> list[NearSource]:
    """Those who have something wanted and take more requests: nearest kind first; among peers who carries least for
    us, else by chance, so that uploads stay even."""
    able = [each for each in near if each.free_slots > 0 and each.have & wanted]
    own = 0
    while own < len(able) and peer_of(able[own].source) is None:
        own += 1  # `near` has the nearest kind first
    if len(able) < own + 2:
        return able
    by_chance = rng.random
    peers = [(each.wants * _MANY + each.in_flight + by_chance(), each) for each in able[own:]]
    peers.sort()
    return able[:own] + [each[1] for each in peers]


def _longest(view: View, source: NearSource, tuning: Tuning) -> int:
    """Chunks in one request: what others want as well goes out chunk by chunk, so that they can pass it on."""
    if view.owners is not None and view.owners.others and peer_of(source.source) is not None:
        return 1
    if source.on_trial:
        return 1
    return max(1, min(tuning.near_request_chunks, tuning.near_request_bytes // view.layout.chunk_bytes))


def _far(view: View, missing: Bitfield, rng: random.Random) -> Assignment | None:
    if view.origin is OriginReadiness.ENGAGED or not missing:
        return None
    left = Bitfield(missing & _left_to_origin(view))
    if view.origin is OriginReadiness.WHOLE_ONLY:
        last = ChunkIndex(view.layout.count - 1)
        return Assignment(source=ORIGIN, first=ChunkIndex(0), last=last) if left and _whole_is_ours(view) else None
    chosen = _share(view, left, rng)
    if chosen is None and view.top_up:
        chosen = _share(view, Bitfield(missing & ~_claimed(view)), rng)
    return chosen


def _share(view: View, left: Bitfield, rng: random.Random) -> Assignment | None:
    """What to ask of the origin now, of what is left to it."""
    if not left:
        return None
    if view.cursor is not None:
        return _from(left, _first_from(left, view.cursor), view.origin_chunks)
    owners = view.owners if view.owners is not None and view.owners.others else None
    if owners is not None and owners.sparse:
        left = Bitfield(left & (owners.opened(view.layout.count - left.bit_count()) | view.origin_only))
    ours = left if owners is None else Bitfield(owners.allowed(left, 0) | left & view.origin_only)
    begun = Bitfield(left & view.begun)
    if begun:
        first = next(chunks_in(begun))
        return _from(Bitfield(ours | begun), first, view.origin_chunks)
    if owners is None:
        first = next(chunks_in(left)) if view.origin_chunks is None else _random_chunk(left, rng)
        return _from(left, first, view.origin_chunks)
    if ours:
        return _from(ours, next(chunks_in(ours)), view.origin_chunks)
    taken = _of_others(owners, left, view.hunger, rng)
    return None if taken is None else Assignment(source=ORIGIN, first=taken, last=taken)


def _of_others(owners: Ownership, left: Bitfield, hunger: int, rng: random.Random) -> ChunkIndex | None:
    """A chunk that belongs to another and is not claimed: helping who has most of them left.

    Owners go up and helpers come down, each of them to the chunks it is next in line for, and the lowest is left to
    its owner: so nobody asks for what another asks for in the same moment. After hunger, first the next in line
    may take that too, and then everybody.
    """
    taken = owners.allowed(left, hunger) if hunger else NO_CHUNKS
    if taken:
        return _highest(taken) if hunger == 1 and not owners.sparse else _random_chunk(taken, rng)
    if owners.sparse:
        return None
    theirs = [Bitfield(left & owners.owned_by(peer)) for peer in owners.others]
    for chunks in sorted(theirs, key=int.bit_count, reverse=True):
        spare = Bitfield(chunks & (chunks - 1) & owners.seconds) if chunks else NO_CHUNKS
        if spare:
            return _highest(spare)
    return None


def _whole_is_ours(view: View) -> bool:
    """Of those who want it, one asks for the whole."""
    owners = view.owners
    if owners is None or not owners.others:
        return True
    return bool(owners.allowed(Bitfield(1), view.hunger))


def _left_to_origin(view: View) -> Bitfield:
    """Missing chunks that no near source has or is about to have."""
    left = int(view.missing)
    for source in view.near:
        left &= ~(source.claimed if source.cooling else source.claimed | source.have)
        if not left:
            break
    return Bitfield(left | view.missing & view.origin_only)


def _claimed(view: View) -> Bitfield:
    claimed = NO_CHUNKS
    for source in view.near:
        claimed = Bitfield(claimed | source.claimed)
    return claimed


def _from(field: Bitfield, first: ChunkIndex, longest: int | None) -> Assignment:
    return Assignment(source=ORIGIN, first=first, last=_run(field, first, longest))


def _highest(field: Bitfield) -> ChunkIndex:
    return ChunkIndex(field.bit_length() - 1)


def _first_from(field: Bitfield, cursor: ChunkIndex | None) -> ChunkIndex:
    """The first chunk of a non-empty set at or after `cursor`, around the end if need be."""
    place = cursor or 0
    above = field >> place
    if above:
        return ChunkIndex(place + (above & -above).bit_length() - 1)
    return ChunkIndex((field & -field).bit_length() - 1)


def _counts(near: Sequence[NearSource], wanted: Bitfield) -> list[int]:
    """How many of the sources have each wanted chunk, as binary numbers that stand upright: index k holds the
    chunks whose number has bit k. (Adding a source costs two operations in the mean, however many there are.)"""
    digits: list[int] = []
    for source in near:
        carry = source.have & wanted
        for level, digit in enumerate(digits):
            digits[level], carry = digit ^ carry, digit & carry
            if not carry:
                break
        else:
            if carry:
                digits.append(carry)
    return digits


def _at_least(counts: list[int], least: int) -> Bitfield:
    """The chunks whose number is at least so much, which is more than 0."""
    if least >> len(counts):
        return NO_CHUNKS
    more, same = 0, -1
    for level in range(len(counts) - 1, -1, -1):
        if least >> level & 1:
            same &= counts[level]
        else:
            more |= same & counts[level]
            same &= ~counts[level]
    return Bitfield(more | same)


def _pick(candidates: Bitfield, source: NearSource, counts: list[int], rng: random.Random) -> ChunkIndex:
    """The first chunk of the next request: in order from our own disk, rarest first from peers."""
    if peer_of(source.source) is None:
        return next(chunks_in(candidates))
    rarest = int(candidates)
    for digit in reversed(counts):
        rarest = rarest & ~digit or rarest
    return _random_chunk(Bitfield(rarest), rng)


def _random_chunk(field: Bitfield, rng: random.Random) -> ChunkIndex:
    """A chunk of a non-empty set: the next one at or after a random place, around the end if need be."""
    return _first_from(field, ChunkIndex(rng.randrange(field.bit_length())))


def _run(field: Bitfield, first: ChunkIndex, longest: int | None) -> ChunkIndex:
    """The last chunk of the unbroken run in `field` that begins at `first`, at most `longest` chunks."""
    above = field >> first
    length = (~above & (above + 1)).bit_length() - 1
    if longest is not None:
        length = min(length, longest)
    return ChunkIndex(first + length - 1)
