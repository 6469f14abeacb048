"""Upload slots, caps, the upload limit, and who reads too slowly. Times are made up."""

from __future__ import annotations

import random

import pytest

from peer.core.admission import Admission, AdmissionLimits, Busy, ReadRate, TokenBucket
from peer.core.voucher import PeerId

A, B = PeerId("a" * 64), PeerId("b" * 64)


def peer(number: int) -> PeerId:
    return PeerId(f"{number:064x}")


def test_slots_are_given_until_they_are_gone() -> None:
    admission = Admission(AdmissionLimits(slots=3))
    assert [admission.admit(peer(number)) for number in range(4)] == [None, None, None, Busy(retry_after_s=1)]
    admission.finished(peer(0), 0.1)
    assert admission.admit(peer(3)) is None
    assert admission.in_flight == 3


def test_one_peer_cannot_have_them_all() -> None:
    admission = Admission(AdmissionLimits(requests_per_peer=2))
    assert [admission.admit(A) is None for _ in range(3)] == [True, True, False]
    assert admission.admit(B) is None


def test_retry_after_follows_what_requests_usually_take() -> None:
    admission = Admission(AdmissionLimits(slots=1))
    for _ in range(100):
        admission.admit(A)
        admission.finished(A, 4.5)
    admission.admit(A)
    assert admission.admit(B) == Busy(retry_after_s=5)
    admission.finished(A, 100_000.0)
    admission.admit(A)
    assert admission.admit(B) == Busy(retry_after_s=10)


def test_an_upload_limit_leaves_fewer_slots() -> None:
    assert Admission(AdmissionLimits(upload_rate=128 * 1024)).slots == 4
    assert Admission(AdmissionLimits(upload_rate=1)).slots == 1
    assert Admission(AdmissionLimits(upload_rate=1 << 30)).slots == 16


def test_connections_are_capped_in_all_by_address_and_by_peer() -> None:
    admission = Admission(
        AdmissionLimits(connections=6, half_open=4, half_open_per_address=2, connections_per_peer=2)
    )
    assert [admission.open("x") for _ in range(3)] == [True, True, False]
    assert [admission.open(name) for name in ("y", "z", "w")] == [True, True, False]
    assert admission.authenticated("x", A)
    assert admission.authenticated("x", A)
    assert not admission.authenticated("y", A)  # the third of one peer: counts as ended
    admission.not_authenticated("z")
    assert admission.connections == 2
    admission.closed(A)
    assert admission.open("y")
    assert admission.authenticated("y", A)
    for number in range(4):
        assert admission.open(f"q{number}")
    assert not admission.open("one too many")


def test_nothing_is_left_when_all_is_over() -> None:
    admission, rng = Admission(AdmissionLimits(slots=5)), random.Random(7)
    members: list[PeerId] = []
    asking: list[PeerId] = []
    for _ in range(2000):
        who = peer(rng.randrange(9))
        step = rng.randrange(4)
        if step == 0 and admission.open("x"):
            if rng.random() < 0.5:
                admission.not_authenticated("x")
            elif admission.authenticated("x", who):
                members.append(who)
        elif step == 1 and members:
            admission.closed(members.pop(rng.randrange(len(members))))
        elif step == 2 and admission.admit(who) is None:
            asking.append(who)
        elif step == 3 and asking:
            admission.finished(asking.pop(rng.randrange(len(asking))), rng.random())
        assert admission.connections == len(members)
        assert admission.in_flight == len(asking) <= 5
    for who in members:
        admission.closed(who)
    for who in asking:
        admission.finished(who, 1.0)
    assert (admission.connections, admission.in_flight) == (0, 0)
    counters = (admission._connections, admission._requests, admission._half_open)
    assert [len(counter) for counter in counters] == [0, 0, 0], "counters that only grow"


@pytest.mark.parametrize("piece", [1000, 65_536, 262_144])
def test_the_bucket_keeps_its_rate(piece: int) -> None:
    bucket, now, sent = TokenBucket(1_000_000), 50.0, 0
    while now < 60.0:
        wait = bucket.delay(now)
        if wait:
            now += wait
        else:
            bucket.spend(piece)
            sent += piece
    assert 9_900_000 <= sent <= 10_250_000 + 2 * piece


def test_a_bucket_saves_only_a_little() -> None:
    bucket = TokenBucket(1000)
    assert bucket.delay(0.0) == 0.0
    bucket.spend(250)
    assert bucket.delay(1_000_000.0) == 0.0
    bucket.spend(251)
    assert bucket.delay(1_000_000.0) > 0.0


def test_a_bucket_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(0)


def test_a_reader_is_judged_over_whole_windows() -> None:
    limits = AdmissionLimits()
    rate = ReadRate(limits, 100.0)
    assert not rate.too_slow(129.9)
    assert rate.too_slow(130.0)
    rate.took(8 * 1024 * 31)
    assert not rate.too_slow(160.0)
    assert not rate.too_slow(189.0)
    assert rate.too_slow(191.0), "what was taken in an earlier window does not count again"
