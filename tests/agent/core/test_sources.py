"""What near sources offer and how they behave."""

from __future__ import annotations

import pytest

from agent.core.source_book import SourceBook
from agent.core.sources import (
    CACHE,
    ORIGIN,
    FileId,
    SourceKind,
    kind_of,
    peer_of,
    peer_source,
    sibling_of,
    sibling_source,
)
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import PeerId
from validation.content import MIN_CHUNK_BYTES, Bitfield

A, B = peer_source(PeerId("a" * 64)), peer_source(PeerId("b" * 64))
SIBLING = sibling_source(FileId("j/1"))
SOME, NONE = Bitfield(0b101), Bitfield(0)
STALLED = Failure(kind=FailureKind.STALLED, message="stalled")


def book(*sources: object) -> SourceBook:
    made = SourceBook(Tuning(), MIN_CHUNK_BYTES)
    for source in sources:
        made.offered(source, SOME, NONE, 0.0)  # type: ignore[arg-type]
    return made


def test_names() -> None:
    assert [kind_of(each) for each in (CACHE, SIBLING, A, ORIGIN)] == list(SourceKind)
    assert (peer_of(A), peer_of(SIBLING), peer_of(CACHE)) == ("a" * 64, None, None)
    assert (sibling_of(SIBLING), sibling_of(A)) == ("j/1", None)


def test_nearest_first_then_by_name() -> None:
    assert [each.source for each in book(B, A, SIBLING, CACHE).near(0.0)] == [CACHE, SIBLING, A, B]


def test_slots() -> None:
    sources = book(A)
    for _ in range(3):
        sources.took(A)
    assert sources.near(0.0)[0].free_slots == 1
    sources.ended(A)
    assert sources.near(0.0)[0].free_slots == 2


def test_three_strikes_and_it_is_dropped_for_good() -> None:
    sources = book(A)
    for _ in range(3):
        sources.failed(A, STALLED, 0.0)
    sources.offered(A, SOME, NONE, 1.0)
    assert len(sources) == 0
    assert not sources.usable(A, 1e9)


def test_delivering_forgives() -> None:
    sources = book(A)
    for _ in range(9):
        sources.failed(A, STALLED, 0.0)
        sources.delivered(A)
    assert len(sources) == 1


def test_cooling_off_doubles_and_ends() -> None:
    sources = book(A)
    sources.failed(A, STALLED, 10.0)
    assert sources.next_change(10.0) == 10.5
    assert (sources.near(10.4)[0].free_slots, sources.near(10.4)[0].cooling) == (0, True)
    assert sources.near(10.5)[0].free_slots == 4
    assert (sources.in_sight(10.4), sources.in_sight(10.5)) == (NONE, SOME)
    sources.failed(A, STALLED, 20.0)
    assert sources.next_change(20.0) == 21.0


def test_busy_is_no_strike_and_its_wait_is_bounded() -> None:
    sources = book(A)
    for _ in range(9):
        sources.failed(A, Failure(kind=FailureKind.BUSY, message="busy", retry_after_s=3600.0), 10.0)
    assert [sources.near(at)[0].free_slots for at in (14.9, 15.0)] == [0, 4]


def test_a_busy_peer_is_counted_on_for_a_while_and_longer_when_it_has_delivered() -> None:
    busy = Failure(kind=FailureKind.BUSY, message="busy")
    tuning = Tuning()
    fresh, known = book(A), book(A)
    known.delivered(A, 0.1)
    for sources in (fresh, known):
        sources.failed(A, busy, 10.0)
        assert (sources.near(10.0)[0].free_slots, sources.near(10.0)[0].cooling) == (0, False)
    later = 10.0 + tuning.quiet_s
    assert (fresh.near(later)[0].cooling, known.near(later)[0].cooling) == (True, False)
    assert known.near(10.0 + tuning.busy_s)[0].cooling


def test_a_peer_that_sends_nothing_is_not_counted_on_until_it_does() -> None:
    tuning, sources = Tuning(), book(A)
    sources.took(A, 10.0)
    assert not sources.near(10.0)[0].cooling
    assert sources.near(10.0 + tuning.quiet_first_s)[0].cooling
    assert not sources.moved(A, tuning.audible_bytes - 1, 12.0)
    assert sources.near(12.0)[0].cooling, "a few bytes are nothing"
    assert sources.moved(A, 1, 12.0)
    assert not sources.near(12.0)[0].cooling
    assert not sources.moved(A, tuning.audible_bytes, 12.1)


def test_a_peer_that_sent_nothing_may_be_tried_but_is_not_counted_on_until_it_delivers() -> None:
    sources = book(A)
    sources.failed(A, STALLED, 10.0)
    after = sources.near(20.0)[0]
    assert (after.cooling, after.free_slots > 0) == (True, True)
    sources.delivered(A)
    assert not sources.near(20.0)[0].cooling


def test_a_peer_that_failed_otherwise_is_counted_on_again_when_it_has_cooled_off() -> None:
    sources = book(A)
    sources.failed(A, Failure(kind=FailureKind.NOT_FOUND, message="no"), 10.0)
    assert sources.near(10.0)[0].cooling
    assert not sources.near(20.0)[0].cooling


def test_what_a_mean_pace_says_of_others_is_heeded_at_once() -> None:
    tuning, sources = Tuning(), book(A, B)
    sources.delivered(B, 1.0)
    sources.took(A, 10.0)
    late = 10.0 + tuning.quiet_paces * 1.0
    assert not sources.near(late - 0.1)[0].cooling
    for _ in range(20):
        sources.delivered(B, 0.1)
    assert sources.near(late - 0.1)[0].cooling, "others are that fast by now"


def test_a_peer_that_is_slow_may_be_silent_longer() -> None:
    tuning = Tuning()
    for pace_s, quiet_s in ((0.1, tuning.quiet_s), (1.0, tuning.quiet_paces), (60.0, tuning.quiet_most_s)):
        sources = book(A)
        sources.delivered(A, pace_s)
        sources.took(A, 10.0)
        assert not sources.near(10.0 + quiet_s - 0.01)[0].cooling, pace_s
        assert sources.next_change(10.0) == 10.0 + quiet_s, pace_s
        assert sources.near(10.0 + quiet_s)[0].cooling, pace_s


def test_who_is_much_slower_than_the_others_may_not_be_silent_for_longer() -> None:
    tuning, sources = Tuning(), book(A, B)
    sources.delivered(A, 4.0)
    for _ in range(30):
        sources.delivered(B, 0.1)
    sources.took(A, 10.0)
    assert sources.next_change(10.0) == 10.0 + tuning.quiet_s


def test_a_new_peer_may_be_silent_longer_while_others_deliver() -> None:
    tuning = Tuning()
    sources = book(A, B)
    sources.took(A, 10.0)
    assert sources.next_change(10.0) == 10.0 + tuning.quiet_first_s
    sources.took(B, 10.0)
    sources.ended(B)
    sources.delivered(B, 0.1)
    assert not sources.near(10.0 + tuning.quiet_first_s)[0].cooling
    assert sources.near(10.0 + tuning.quiet_s)[0].cooling


@pytest.mark.parametrize("kind", [FailureKind.ABORTED, FailureKind.DISK_FULL, FailureKind.IO_ERROR])
def test_what_is_our_own_doing_is_not_held_against_it(kind: FailureKind) -> None:
    sources = book(A)
    for _ in range(9):
        sources.failed(A, Failure(kind=kind, message="ours"), 0.0)
    assert sources.near(0.0)[0].free_slots == 4


def test_lost_may_come_back_untrusted_may_not() -> None:
    sources = book(A, B)
    sources.lost(A)
    sources.failed(B, Failure(kind=FailureKind.NOT_TRUSTED, message="banned"), 0.0)
    sources.offered(A, SOME, NONE, 1.0)
    sources.offered(B, SOME, NONE, 1.0)
    assert [each.source for each in sources.near(1.0)] == [A]
    sources.forget()
    assert len(sources) == 0


def test_claims_count_for_a_while_and_longer_when_they_lead_to_something() -> None:
    sources = SourceBook(Tuning(claim_patience_s=10.0, claim_rate_bytes_per_s=1024), 2048)
    sources.offered(A, NONE, Bitfield(0b11), 0.0)
    assert sources.next_change(0.0) == 12.0
    sources.lost(A)
    sources.offered(A, NONE, Bitfield(0b11), 11.0)  # coming back renews nothing
    assert sources.near(11.9)[0].claimed == 0b11
    assert sources.near(12.0)[0].claimed == NONE
    sources.offered(A, Bitfield(0b01), Bitfield(0b10), 20.0)
    assert sources.near(31.9)[0].claimed == 0b10
    sources.offered(SIBLING, NONE, Bitfield(0b11), 0.0)
    assert sources.near(1e9)[0].claimed == 0b11


def test_nothing_is_expected_of_a_claimant_that_cools_off() -> None:
    sources = SourceBook(Tuning(), MIN_CHUNK_BYTES)
    sources.offered(A, SOME, Bitfield(0b10), 0.0)
    sources.failed(A, STALLED, 0.0)
    assert sources.near(0.1)[0].claimed == NONE
