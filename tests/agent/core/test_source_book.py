"""What the book of sources remembers of its own answers never makes it answer otherwise than one that was not asked
before."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.core.source_book import SourceBook
from agent.core.sources import CACHE, SourceId, peer_source
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import PeerId
from validation.content import Bitfield

PEERS = [peer_source(PeerId(letter * 64)) for letter in "abc"]
FAILURES = [Failure(kind=kind, message="no") for kind in (FailureKind.BUSY, FailureKind.CONNECT_FAILED)]

source = st.sampled_from([*PEERS, CACHE])
field = st.integers(0, 15).map(Bitfield)
step = st.one_of(
    st.tuples(st.just("offered"), source, field, field, st.booleans()),
    st.tuples(st.just("lost"), source),
    st.tuples(st.just("took"), source),
    st.tuples(st.just("moved"), source, st.sampled_from([1, 1 << 20])),
    st.tuples(st.just("ended"), source),
    st.tuples(st.just("delivered"), source),
    st.tuples(st.just("failed"), source, st.sampled_from(FAILURES)),
    st.tuples(st.just("shun"), source, field),
    st.tuples(st.just("claim took"), st.sampled_from([0.1, 3.0])),
)
script = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 4.0]), step), max_size=30)


def do(book: SourceBook, now: float, name: str, *what: Any) -> None:
    match name:
        case "offered":
            who, have, claimed, wants = what
            book.offered(who, have, claimed, now, wants=wants and who != CACHE)
        case "took":
            book.took(what[0], now)
        case "moved":
            book.moved(*what, now)
        case "delivered":
            book.delivered(what[0], 1.0)
        case "failed":
            book.failed(*what, now)
        case "claim took":
            book.claims.took(*what)
        case _:
            getattr(book, name)(*what)


def ask(book: SourceBook, now: float) -> tuple[object, ...]:
    asked: list[SourceId] = [each.source for each in book.near(now)]
    gives = [book.only_gives(each, now) for each in asked]
    return book.near(now), book.wanting(now), book.any_giver, gives, book.useful(Bitfield(15), now)


@given(script, st.booleans())
def test_who_is_asked_often_says_the_same_as_who_is_asked_once(steps: list[Any], cautious: bool) -> None:
    often, once = (SourceBook(Tuning(), 1 << 18, cautious=cautious) for _ in range(2))
    now = 0.0
    for book in (often, once):
        for each in (*PEERS, CACHE):
            do(book, now, "offered", each, Bitfield(5), Bitfield(2), each == PEERS[0])
    for pause_s, (name, *what) in steps:
        now += pause_s
        for book in (often, once):
            do(book, now, name, *what)
        fresh = deepcopy(once)
        assert ask(often, now) == ask(fresh, now)
        assert now < often.next_change(now) <= fresh.next_change(now), "too early does no harm"
