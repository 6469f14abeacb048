"""The roster: from rumours to peers, and what keeps a flood of rumours cheap."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peer.core.failure import Failure, FailureKind
from peer.core.roster import (
    ATTEMPTS_AT_ONCE,
    ATTEMPTS_PER_S,
    BAN_S,
    CHECK_AGAIN_S,
    CHECK_S,
    MAX_CANDIDATES,
    MAX_MEMBERS,
    RETRY_S,
    TRIES,
    Consequence,
    Introduction,
    Offence,
    Roster,
    Sighted,
    Sighting,
    Standing,
)
from peer.core.standing import PAROLE_S
from peer.core.voucher import PeerId

OWN, ANN, BEN = PeerId("0" * 64), PeerId("a" * 64), PeerId("b" * 64)
REFUSED = Failure(kind=FailureKind.CONNECT_FAILED, message="nobody there")


def announced(peer_id: PeerId | None = ANN, port: int = 1000, host: str = "10.0.0.1") -> Sighting:
    return Sighting(host=host, port=port, peer_id=peer_id, how=Sighted.ANNOUNCED)


def stranger(number: int) -> PeerId:
    return PeerId(f"{number + 1:064x}")


def called(peer_id: PeerId = ANN, port: int = 1000) -> Sighting:
    return Sighting(host="10.0.0.1", port=port, peer_id=peer_id, how=Sighted.CALLED_US)


def who(peer_id: PeerId = ANN, port: int = 1000, host: str = "10.0.0.1", name: str = "ann") -> Introduction:
    return Introduction(peer_id=peer_id, host=host, port=port, name=name, version="1.0")


@pytest.fixture
def roster() -> Roster:
    return Roster(OWN)


def meet(roster: Roster, now: float = 0.0, peer_id: PeerId = ANN) -> None:
    roster.heard(announced(peer_id), now)
    assert announced(peer_id) in roster.candidates_to_try(now)
    assert roster.authenticated(who(peer_id), now)


def names(roster: Roster, now: float) -> list[PeerId]:
    return [peer.peer_id for peer in roster.live(now)]


# from rumour to peer


def test_a_rumour_is_tried_at_once_and_is_no_peer(roster: Roster) -> None:
    roster.heard(announced(), 5.0)
    assert roster.deadline(5.0) == 5.0
    assert roster.candidates_to_try(5.0) == [announced()]
    assert roster.live(5.0) == []


def test_only_who_proved_its_id_is_live(roster: Roster) -> None:
    meet(roster, 5.0)
    (peer,) = roster.live(6.0)
    assert (peer.peer_id, peer.host, peer.port, peer.name, peer.version) == (ANN, "10.0.0.1", 1000, "ann", "1.0")
    assert (peer.standing, peer.last_seen) == (Standing.GOOD, 5.0)


def test_news_come_once(roster: Roster) -> None:
    meet(roster)
    assert roster.authenticated(who(), 1.0) is None


def test_one_attempt_a_minute_for_each_candidate(roster: Roster) -> None:
    roster.heard(announced(), 0.0)
    assert roster.candidates_to_try(0.0)
    roster.failed(announced(), REFUSED, 1.0)
    roster.heard(announced(), 2.0)
    assert roster.candidates_to_try(60.9) == []
    assert roster.deadline(2.0) == 1.0 + RETRY_S
    assert roster.candidates_to_try(61.0) == [announced()]


def test_an_attempt_that_runs_is_not_begun_twice(roster: Roster) -> None:
    roster.heard(announced(), 0.0)
    assert roster.candidates_to_try(0.0)
    assert roster.candidates_to_try(1e6) == []
    assert roster.deadline(1e6) is None


def test_a_flood_of_rumours_is_bounded(roster: Roster) -> None:
    for number in range(10_000):
        roster.heard(announced(stranger(number), 1 + number), 0.0)
    tried = sum(len(roster.candidates_to_try(tenth / 10)) for tenth in range(101))
    assert tried == pytest.approx(ATTEMPTS_AT_ONCE + ATTEMPTS_PER_S * 10, abs=1)
    tried += sum(len(roster.candidates_to_try(tenth / 10)) for tenth in range(101, 600))
    assert tried == MAX_CANDIDATES


def test_the_deadline_waits_for_a_permit(roster: Roster) -> None:
    for number in range(ATTEMPTS_AT_ONCE + 1):
        roster.heard(announced(stranger(number), 1 + number), 0.0)
    assert len(roster.candidates_to_try(0.0)) == ATTEMPTS_AT_ONCE
    deadline = roster.deadline(0.0)
    assert deadline == pytest.approx(1 / ATTEMPTS_PER_S)
    assert len(roster.candidates_to_try(deadline)) == 1


def test_a_flood_does_not_keep_callers_out(roster: Roster) -> None:
    for number in range(10_000):
        roster.heard(announced(stranger(number), 1 + number), 0.0)
    roster.candidates_to_try(0.0)
    roster.heard(called(), 0.1)
    assert called() in roster.candidates_to_try(0.1)


def test_what_failed_makes_room_for_what_is_new(roster: Roster) -> None:
    for number in range(MAX_CANDIDATES):
        roster.heard(announced(stranger(number), 1 + number), 0.0)
    roster.heard(announced(ANN), 0.0)
    assert announced(ANN) not in roster.candidates_to_try(0.0)
    roster.failed(announced(stranger(0), 1), REFUSED, 1.0)
    roster.heard(announced(ANN), 1.0)
    roster.heard(announced(BEN), 1.0)
    tried = [item for second in range(60) for item in roster.candidates_to_try(1.0 + second)]
    assert announced(ANN) in tried
    assert announced(BEN) not in tried


def test_we_are_not_our_own_peer(roster: Roster) -> None:
    roster.heard(announced(OWN), 0.0)
    assert roster.candidates_to_try(0.0) == []
    static = Sighting(host="10.0.0.1", port=1000, peer_id=None, how=Sighted.CONFIGURED)
    roster.heard(static, 0.0)
    assert roster.candidates_to_try(0.0) == [static]
    assert roster.authenticated(who(OWN), 0.0) is None
    assert roster.known(0.0) == []
    assert roster.candidates_to_try(1e6) == []


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_impossible_ports_are_ignored(roster: Roster, port: int) -> None:
    roster.heard(announced(port=port), 0.0)
    assert roster.candidates_to_try(0.0) == []


def test_a_configured_address_learns_who_lives_there(roster: Roster) -> None:
    static = Sighting(host="10.0.0.1", port=1000, peer_id=None, how=Sighted.CONFIGURED)
    roster.heard(static, 0.0)
    assert roster.candidates_to_try(0.0) == [static]
    assert roster.authenticated(who(), 0.0)
    assert roster.untried(0.0) == 0
    roster.troubled(ANN, REFUSED, 100.0)
    assert static in roster.candidates_to_try(100.0)


def test_two_good_addresses_keep_the_first(roster: Roster) -> None:
    meet(roster)
    assert roster.authenticated(who(host="10.9.9.9", name="ann 2"), 1.0) is None
    (peer,) = roster.live(1.0)
    assert (peer.host, peer.name) == ("10.0.0.1", "ann 2")
    roster.troubled(ANN, REFUSED, 2.0)
    moved = roster.authenticated(who(host="10.9.9.9"), 3.0)
    assert moved is not None
    assert moved.host == "10.9.9.9"


# who comes and goes


def test_a_goodbye_is_looked_into_at_once(roster: Roster) -> None:
    meet(roster)
    roster.lost(ANN, 10.0)
    assert names(roster, 10.0) == [ANN]
    (check,) = roster.candidates_to_try(10.0)
    assert roster.failed(check, REFUSED, 10.1) == ANN
    assert roster.live(10.1) == []


def test_a_forged_goodbye_drops_nobody_and_costs_little(roster: Roster) -> None:
    meet(roster)
    checks = 0
    for tenth in range(100):
        now = 10.0 + tenth / 10
        roster.lost(ANN, now)
        for _ in roster.candidates_to_try(now):
            checks += 1
            roster.authenticated(who(), now)
    assert names(roster, 20.0) == [ANN]
    assert checks <= 10 / CHECK_AGAIN_S + 1


def test_a_silent_peer_is_checked(roster: Roster) -> None:
    meet(roster)
    assert roster.deadline(0.0) == CHECK_S
    roster.spoke(ANN, 30.0)
    assert roster.candidates_to_try(CHECK_S) == []
    assert len(roster.candidates_to_try(30.0 + CHECK_S)) == 1


def test_who_is_busy_is_there(roster: Roster) -> None:
    meet(roster)
    (check,) = roster.candidates_to_try(CHECK_S)
    assert roster.failed(check, Failure(kind=FailureKind.BUSY, message="later"), CHECK_S) is None
    assert names(roster, CHECK_S) == [ANN]


def test_news_of_a_peer_going_down_come_once(roster: Roster) -> None:
    meet(roster)
    assert roster.troubled(ANN, REFUSED, 1.0) == ANN
    assert roster.troubled(ANN, REFUSED, 1.0) is None
    assert roster.troubled(BEN, REFUSED, 1.0) is None


def test_a_broken_transfer_is_only_a_reason_to_look(roster: Roster) -> None:
    meet(roster)
    assert roster.troubled(ANN, Failure(kind=FailureKind.CONNECTION_CLOSED, message=""), 5.0) is None
    assert names(roster, 5.0) == [ANN]
    assert len(roster.candidates_to_try(5.0)) == 1
    assert roster.troubled(ANN, Failure(kind=FailureKind.NOT_FOUND, message=""), 50.0) is None


def test_a_restarted_peer_that_calls_is_met_without_waiting(roster: Roster) -> None:
    """It crashed without a goodbye and took the same port again: nothing announces that, but it calls us."""
    meet(roster)
    roster.troubled(ANN, REFUSED, 10.0)
    roster.candidates_to_try(10.0)
    roster.failed(announced(), REFUSED, 10.1)
    roster.heard(called(), 13.0)
    assert called() in roster.candidates_to_try(13.0)


MOVED_WHEN = [0.2, 5.0, 59.0, 1000.0]
"""Seconds after the first meeting: also before a second check of the same address is allowed."""


@pytest.mark.parametrize("at", MOVED_WHEN)
@pytest.mark.parametrize("order", ["announced", "called", "announced, called", "called, announced"])
def test_who_was_killed_and_comes_back_at_a_new_port_is_met_there(roster: Roster, at: float, order: str) -> None:
    """Whatever we hear first, and however often: within a second or two, never after a minute."""
    meet(roster)
    for step, how in enumerate(order.split(", ")):
        now = at + 0.1 * step
        if how == "announced":
            roster.heard(announced(port=2000), now)
        else:
            roster.called(ANN, "10.0.0.1", 2000, now)
    now = at + 0.2
    while now <= at + 2 * CHECK_AGAIN_S:
        for attempt in roster.candidates_to_try(now):
            if attempt.port == 2000:
                roster.authenticated(who(port=2000), now)
            else:
                roster.failed(attempt, REFUSED, now)
        now += 0.05
    (peer,) = roster.live(now)
    assert peer.port == 2000


def test_a_call_says_nothing_of_another_address(roster: Roster) -> None:
    """Where it was is looked into as soon as that is allowed, though it proved meanwhile that it lives."""
    meet(roster)
    roster.heard(announced(port=2000), 0.6)
    roster.called(ANN, "10.0.0.1", 2000, 0.7)
    assert roster.live(0.7)[0].last_seen == 0.7
    assert roster.deadline(0.7) == CHECK_AGAIN_S
    (check,) = roster.candidates_to_try(CHECK_AGAIN_S)
    assert (check.host, check.port) == ("10.0.0.1", 1000)


def test_a_call_from_where_we_know_it_needs_no_check(roster: Roster) -> None:
    meet(roster)
    roster.called(ANN, "10.0.0.1", 1000, 30.0)
    assert roster.candidates_to_try(CHECK_S) == []
    assert len(roster.candidates_to_try(30.0 + CHECK_S)) == 1


def test_a_caller_that_names_no_port_is_only_seen(roster: Roster) -> None:
    meet(roster)
    roster.called(ANN, "10.0.0.1", None, 30.0)
    assert roster.live(30.0)[0].last_seen == 30.0
    assert len(roster.candidates_to_try(CHECK_S)) == 1


def test_a_peer_with_two_ways_to_us_is_not_checked_for_each_call(roster: Roster) -> None:
    """It calls from its other address, but listens at the same port: nothing says that it was started again."""
    meet(roster)
    checks = 0
    for second in range(1, 50):
        roster.called(ANN, "10.9.9.9", 1000, float(second))
        for _ in roster.candidates_to_try(float(second)):
            checks += 1
            roster.authenticated(who(), float(second))
    assert checks == 1  # when that address was new


def test_a_new_port_of_the_same_host_is_where_it_is_now(roster: Roster) -> None:
    """The proof at the new port may come before the old one has failed; what becomes of that does not matter."""
    static = Sighting(host="10.0.0.1", port=2000, peer_id=None, how=Sighted.CONFIGURED)
    meet(roster)
    (check,) = roster.candidates_to_try(CHECK_S)
    roster.heard(static, CHECK_S)
    assert roster.candidates_to_try(CHECK_S) == [static]
    assert roster.authenticated(who(port=2000), CHECK_S) is None
    assert roster.live(CHECK_S)[0].port == 2000
    assert roster.failed(check, REFUSED, CHECK_S + 0.1) is None
    assert names(roster, CHECK_S + 0.1) == [ANN]


def test_a_second_good_address_takes_over_at_once(roster: Roster) -> None:
    """Another host: the first address stays while it works, and proves that within a second."""
    static = Sighting(host="10.9.9.9", port=1000, peer_id=None, how=Sighted.CONFIGURED)
    meet(roster)
    roster.heard(static, 10.0)
    assert roster.candidates_to_try(10.0) == [static]
    assert roster.authenticated(who(host="10.9.9.9"), 10.0) is None
    assert roster.live(10.0)[0].host == "10.0.0.1"
    (check,) = roster.candidates_to_try(10.0)
    assert check.host == "10.0.0.1"
    assert roster.failed(check, REFUSED, 10.1) == ANN
    assert roster.deadline(10.1) == 10.0 + CHECK_AGAIN_S  # not after the minute of its own last attempt
    assert roster.candidates_to_try(10.0 + CHECK_AGAIN_S) == [static]


def test_a_call_during_a_failing_attempt_is_not_forgotten(roster: Roster) -> None:
    roster.heard(announced(), 0.0)
    (attempt,) = roster.candidates_to_try(0.0)
    roster.called(ANN, "10.0.0.1", 1000, 2.0)
    roster.failed(attempt, REFUSED, 3.0)
    (again,) = roster.candidates_to_try(3.0)
    roster.failed(again, REFUSED, 3.1)
    assert roster.candidates_to_try(3.1 + RETRY_S - 1) == []  # nothing was heard of it since


def test_an_attempt_outlives_the_rumour_it_began_with(roster: Roster) -> None:
    """Two ports announced in turn do not lead to two attempts at one of them."""
    for port in (1000, 2000, 1000):
        roster.heard(announced(port=port), 0.0)
        roster.candidates_to_try(0.0)
    assert roster.untried(0.0) == 2
    roster.failed(announced(port=1000), REFUSED, 1.0)
    roster.failed(announced(port=2000), REFUSED, 1.0)
    assert roster.untried(1.0) == 0


# what people decide


def test_who_is_forgotten_comes_back_as_anybody_may(roster: Roster) -> None:
    meet(roster)
    assert roster.forget(ANN)
    assert not roster.forget(ANN)
    assert roster.known(1.0) == []
    assert roster.candidates_to_try(1e6) == []
    roster.called(ANN, "10.0.0.1", 1000, 2.0)
    assert called() in roster.candidates_to_try(2.0)


def test_forgetting_spares_bans_and_configuration(roster: Roster) -> None:
    static = Sighting(host="10.0.0.1", port=1000, peer_id=None, how=Sighted.CONFIGURED)
    roster.heard(static, 0.0)
    roster.candidates_to_try(0.0)
    roster.authenticated(who(), 0.0)
    assert roster.forget(ANN)
    assert static in roster.candidates_to_try(RETRY_S)
    roster.ban(BEN, 0.0)
    assert not roster.forget(BEN)
    assert roster.is_banned(BEN, 1.0)


def test_looking_again_tries_everybody_at_once(roster: Roster) -> None:
    meet(roster)
    roster.heard(announced(BEN, 2000), 0.0)
    (attempt,) = roster.candidates_to_try(0.0)
    roster.failed(attempt, REFUSED, 0.5)
    assert roster.candidates_to_try(10.0) == []
    roster.look_again(10.0)
    assert roster.untried(10.0) == 1
    assert {item.peer_id for item in roster.candidates_to_try(10.0)} == {ANN, BEN}


def test_looking_again_all_the_time_is_no_flood(roster: Roster) -> None:
    for number in range(MAX_CANDIDATES):
        roster.heard(announced(stranger(number), 1 + number), 0.0)
    tried = 0
    for tenth in range(101):
        roster.look_again(tenth / 10)
        for attempt in roster.candidates_to_try(tenth / 10):
            tried += 1
            roster.failed(attempt, REFUSED, tenth / 10)
    assert tried == pytest.approx(ATTEMPTS_AT_ONCE + ATTEMPTS_PER_S * 10, abs=1)


def test_a_new_port_replaces_the_old_one(roster: Roster) -> None:
    roster.heard(announced(port=1000), 0.0)
    roster.heard(announced(port=2000), 0.0)
    assert roster.candidates_to_try(0.0) == [announced(port=2000)]


def test_a_caller_that_is_gone_is_forgotten(roster: Roster) -> None:
    roster.heard(called(), 0.0)
    now = 0.0
    for _ in range(TRIES):
        (attempt,) = roster.candidates_to_try(now)
        roster.failed(attempt, REFUSED, now)
        now += RETRY_S
    assert roster.candidates_to_try(now) == []
    assert roster.deadline(now) is None


def test_a_member_that_left_is_not_asked_for_ever(roster: Roster) -> None:
    meet(roster)
    roster.lost(ANN, 10.0)
    tried = Counter[PeerId | None]()
    for minute in range(60):
        for attempt in roster.candidates_to_try(10.0 + minute * RETRY_S):
            tried[attempt.peer_id] += 1
            roster.failed(attempt, REFUSED, 10.0 + minute * RETRY_S)
    assert tried == {ANN: TRIES}


def test_members_are_bounded(roster: Roster) -> None:
    for number in range(MAX_MEMBERS + 10):
        roster.authenticated(who(stranger(number), 1 + number % 60_000), float(number))
    assert len(roster.known(0.0)) == MAX_MEMBERS


def test_the_first_round_is_over_when_all_have_answered(roster: Roster) -> None:
    assert roster.untried(0.0) == 0
    roster.heard(announced(ANN), 0.0)
    roster.heard(announced(BEN, 2000), 0.0)
    assert roster.untried(0.0) == 2
    roster.candidates_to_try(0.0)
    assert roster.untried(0.0) == 2
    roster.authenticated(who(ANN), 0.1)
    roster.failed(announced(BEN, 2000), REFUSED, 0.1)
    assert roster.untried(0.1) == 0


# standing


@pytest.mark.parametrize("offence", [Offence.CORRUPT_BYTES, Offence.FALSE_VOUCHER])
def test_a_lie_is_a_ban(roster: Roster, offence: Offence) -> None:
    meet(roster)
    assert roster.offend(ANN, offence, 10.0) is Consequence.BANNED
    assert roster.live(10.0) == []
    assert roster.is_banned(ANN, 10.0 + BAN_S - 1)
    assert not roster.is_banned(ANN, 10.0 + BAN_S)
    assert roster.standing(ANN, 10.0) is Standing.BANNED


def test_a_banned_peer_is_neither_tried_nor_met(roster: Roster) -> None:
    roster.ban(ANN, 0.0)
    roster.heard(announced(), 1.0)
    assert roster.candidates_to_try(1.0) == []
    assert roster.deadline(1.0) is None
    assert roster.authenticated(who(), 2.0) is None
    assert roster.live(2.0) == []


def test_who_was_banned_must_prove_itself_again(roster: Roster) -> None:
    """An attempt that ran while the ban came does not make a peer out of a pardon."""
    roster.heard(announced(), 0.0)
    (attempt,) = roster.candidates_to_try(0.0)
    assert attempt.peer_id == ANN
    roster.ban(ANN, 0.1)
    assert roster.authenticated(who(), 0.2) is None
    roster.unban(ANN, 1.0)
    assert roster.live(1.0) == []
    assert roster.candidates_to_try(1.0) == [announced()]


def test_a_pardon_takes_effect_at_once(roster: Roster) -> None:
    meet(roster)
    roster.offend(ANN, Offence.CORRUPT_BYTES, 10.0)
    roster.unban(ANN, 20.0)
    assert roster.candidates_to_try(20.0) == [announced()]
    assert roster.authenticated(who(), 20.0)
    assert names(roster, 20.0) == [ANN]


@pytest.mark.parametrize("offence", [Offence.STALLED, Offence.BROKE_PROTOCOL])
def test_an_accident_is_a_strike(roster: Roster, offence: Offence) -> None:
    meet(roster)
    assert roster.offend(ANN, offence, 1.0) is Consequence.PAROLE
    assert roster.live(1.0)[0].standing is Standing.ON_PAROLE
    assert roster.standing(ANN, 1.0 + PAROLE_S) is Standing.GOOD


def test_three_strikes_and_a_pause(roster: Roster) -> None:
    meet(roster)
    for now in (1.0, 2.0):
        assert roster.offend(ANN, Offence.STALLED, now) is Consequence.PAROLE
    assert roster.offend(ANN, Offence.STALLED, 3.0) is Consequence.LEFT_ALONE
    assert roster.live(3.0) == []
    assert roster.candidates_to_try(3.0 + PAROLE_S - 1) == []
    assert len(roster.candidates_to_try(3.0 + PAROLE_S)) == 1


def test_old_strikes_do_not_count(roster: Roster) -> None:
    for number in range(10):
        assert roster.offend(ANN, Offence.STALLED, number * PAROLE_S / 2) is Consequence.PAROLE


# whatever happens

PEERS = [PeerId(character * 64) for character in "0abc"]
peers = st.sampled_from(PEERS)
hosts = st.sampled_from(["10.0.0.1", "10.0.0.2"])
ports = st.sampled_from([1, 2])
kinds = st.sampled_from(list(FailureKind))


class AnyHistory(RuleBasedStateMachine):
    """Any order of events: what the network relies on holds."""

    def __init__(self) -> None:
        super().__init__()
        self.roster, self.now = Roster(OWN), 0.0
        self.running: list[Sighting] = []
        self.rumours: list[float] = []
        self.met: set[PeerId] = set()
        self.up: set[PeerId] = set()

    @rule(peer=peers | st.none(), host=hosts, port=ports, how=st.sampled_from(Sighted))
    def heard(self, peer: PeerId | None, host: str, port: int, how: Sighted) -> None:
        self.roster.heard(Sighting(host=host, port=port, peer_id=peer, how=how), self.now)

    @rule(peer=peers, host=hosts, port=ports | st.none())
    def called(self, peer: PeerId, host: str, port: int | None) -> None:
        self.roster.called(peer, host, port, self.now)

    @rule(peer=peers)
    def forgotten(self, peer: PeerId) -> None:
        self.roster.forget(peer)
        self.up.discard(peer)

    @rule()
    def looks_again(self) -> None:
        self.roster.look_again(self.now)

    @rule(peer=peers)
    def lost(self, peer: PeerId) -> None:
        self.roster.lost(peer, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 61.0, PAROLE_S, BAN_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def attempts_begin(self) -> None:
        begun = self.roster.candidates_to_try(self.now)
        assert len({(item.peer_id, item.host, item.port) for item in begun + self.running}) == len(
            begun + self.running
        )
        self.rumours += [self.now for item in begun if item.how is Sighted.ANNOUNCED]
        self.running += begun

    @precondition(lambda self: self.running)
    @rule(data=st.data(), learnt=peers)
    def attempt_succeeds(self, data: st.DataObject, learnt: PeerId) -> None:
        attempt = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        peer = attempt.peer_id or learnt
        news = self.roster.authenticated(who(peer, attempt.port, attempt.host), self.now)
        self.met.add(peer)
        if news is not None:
            assert peer not in self.up
            self.up.add(peer)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), kind=kinds)
    def attempt_fails(self, data: st.DataObject, kind: FailureKind) -> None:
        attempt = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.went_down(self.roster.failed(attempt, Failure(kind=kind, message=""), self.now))

    @rule(peer=peers, kind=kinds)
    def troubled(self, peer: PeerId, kind: FailureKind) -> None:
        self.went_down(self.roster.troubled(peer, Failure(kind=kind, message=""), self.now))

    @rule(peer=peers, offence=st.sampled_from(Offence))
    def offends(self, peer: PeerId, offence: Offence) -> None:
        if self.roster.offend(peer, offence, self.now) is not Consequence.PAROLE:
            self.up.discard(peer)
            assert peer not in names(self.roster, self.now)

    @rule(peer=peers)
    def pardoned(self, peer: PeerId) -> None:
        self.roster.unban(peer, self.now)

    def went_down(self, peer: PeerId | None) -> None:
        if peer is not None:
            assert peer in self.up
            self.up.discard(peer)

    @invariant()
    def the_news_tell_who_is_live(self) -> None:
        assert set(names(self.roster, self.now)) == self.up

    @invariant()
    def only_others_who_proved_themselves_are_live(self) -> None:
        live = names(self.roster, self.now)
        assert OWN not in live
        assert set(live) <= self.met
        assert not any(self.roster.is_banned(peer, self.now) for peer in live)

    @invariant()
    def rumours_stay_below_their_rate(self) -> None:
        for start in self.rumours[-30:]:
            within = sum(start <= at <= start + 1.0 for at in self.rumours)
            assert within <= ATTEMPTS_AT_ONCE + ATTEMPTS_PER_S

    @invariant()
    def the_deadline_is_right(self) -> None:
        """Nothing to do before it: the network may sleep until then."""
        deadline = self.roster.deadline(self.now)
        if deadline is None or deadline > self.now:
            assert self.roster.candidates_to_try(self.now) == []


AnyHistory.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
