"""How long the claims of others are believed."""

from __future__ import annotations

from agent.core.claims import Claims
from agent.core.sources import peer_source
from agent.core.tuning import Tuning
from peer.core.voucher import PeerId
from validation.content import NO_CHUNKS, Bitfield

A, B = peer_source(PeerId("a" * 64)), peer_source(PeerId("b" * 64))
TUNING = Tuning(claim_patience_s=10.0, claim_rate_bytes_per_s=1024)
ONE, TWO = Bitfield(0b01), Bitfield(0b11)


def claims() -> Claims:
    return Claims(TUNING, 2048)


def until(book: Claims) -> float | None:
    """When A is late; None: it owes nothing."""
    promise = book.find(A)
    return book.until(promise) if promise is not None and promise.owing else None


def test_without_a_measurement_patience_is_long() -> None:
    book = claims()
    assert book.patience_s == 12.0
    assert book.hunger_s == TUNING.hunger_s


def test_patience_follows_the_pace_and_is_bounded() -> None:
    book = claims()
    book.took(1.0)
    assert book.patience_s == TUNING.claim_paces + TUNING.claim_grace_s
    book.took(0.0)
    assert book.patience_s < TUNING.claim_paces + TUNING.claim_grace_s
    fast, slow = claims(), claims()
    fast.took(0.01)
    slow.took(100.0)
    assert (fast.patience_s, slow.patience_s) == (TUNING.least_claim_s, 12.0)


def test_the_pace_is_from_a_claim_to_its_chunk() -> None:
    book = claims()
    book.offered(A, NO_CHUNKS, TWO, 100.0)
    book.offered(A, TWO, NO_CHUNKS, 104.0)
    assert book.pace_s == 2.0


def test_who_delivers_is_believed_longer_and_who_does_not_is_late() -> None:
    book = claims()
    book.took(1.0)
    book.offered(A, NO_CHUNKS, TWO, 100.0)
    assert until(book) == 104.0
    assert (book.late(book.find(A), 103.9), book.late(book.find(A), 104.0)) == (False, True)
    book.offered(A, ONE, Bitfield(0b10), 101.0)
    assert until(book) == 105.0


def test_who_is_slow_and_delivers_is_judged_by_its_own_pace() -> None:
    """One of eight connections got 12 chunks in the time of 52 (`bench/results/NOTES.md`): it was taken for broken
    again and again, and what it was about to have was asked for twice."""
    book = claims()
    book.took(0.5)
    usual_s = book.patience_s
    book.offered(A, NO_CHUNKS, TWO, 100.0)
    assert until(book) == 100.0 + usual_s, "nothing is known of it"
    book.offered(A, ONE, Bitfield(0b10), 101.5)
    for _ in range(20):
        book.took(0.5)
    assert until(book) == 101.5 + TUNING.claim_paces * 1.5 + TUNING.claim_grace_s
    book.offered(B, NO_CHUNKS, ONE, 102.0)
    assert book.late(book.find(B), 102.0 + usual_s + 0.01), "what one takes is no reason to wait for another"


def test_who_is_much_slower_than_the_others_is_not_waited_for() -> None:
    """A peer at a hundredth of the rate claimed the last chunk and held everybody up for twelve seconds."""
    book = claims()
    for _ in range(20):
        book.took(0.1)
    book.offered(A, NO_CHUNKS, TWO, 100.0)
    before = book.patience_s
    book.offered(A, ONE, Bitfield(0b10), 106.0)
    assert book.patience_s <= 2 * before, "nor are others believed much longer"
    assert until(book) == 106.0 + book.patience_s


def test_a_claim_that_is_taken_back_or_changed_renews_nothing() -> None:
    book = claims()
    book.took(1.0)
    book.offered(A, NO_CHUNKS, ONE, 100.0)
    book.offered(A, NO_CHUNKS, NO_CHUNKS, 103.0)
    book.offered(A, NO_CHUNKS, Bitfield(0b10), 103.5)
    assert book.late(book.find(A), 104.0)
    book.offered(A, ONE, Bitfield(0b10), 110.0)  # late, but here it is
    assert not book.late(book.find(A), 110.1)


def test_who_owes_nothing_is_never_late() -> None:
    book = claims()
    assert until(book) is None
    book.offered(A, ONE, NO_CHUNKS, 100.0)
    book.offered(B, ONE, ONE, 100.0)  # it has what it claims
    assert not book.late(book.find(A), 1e9)
    assert not book.late(book.find(B), 1e9)


def test_a_fresh_claim_counts_from_now() -> None:
    book = claims()
    book.took(1.0)
    book.offered(A, NO_CHUNKS, NO_CHUNKS, 100.0)
    book.offered(A, NO_CHUNKS, ONE, 200.0)
    assert until(book) == 204.0
