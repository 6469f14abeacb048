"""What members say of each other: two are believed for a while, and slanderers do only so much."""

from __future__ import annotations

import pytest

from peer.core.hearsay import MAX_WITNESSES, NAMES_A_WITNESS, Hearsay
from peer.core.roster import Introduction, Offence, Roster, Sighted, Sighting, Standing
from peer.core.standing import PAROLE_S, STRIKES
from peer.core.voucher import PeerId

OWN, LIAR, ANN, BEN, CID = (PeerId(letter * 64) for letter in "0eabc")


def somebody(number: int) -> PeerId:
    return PeerId(f"{number + 1:064x}")


def meet(roster: Roster, *peers: PeerId, now: float = 0.0) -> None:
    for peer in peers:
        host = f"10.0.0.{peer}"
        roster.heard(Sighting(host=host, port=1000, peer_id=peer, how=Sighted.ANNOUNCED), now)
        roster.candidates_to_try(now)
        assert roster.authenticated(Introduction(peer_id=peer, host=host, port=1000, name="x", version="1"), now)


@pytest.fixture
def roster() -> Roster:
    made = Roster(OWN)
    meet(made, LIAR, ANN, BEN, CID)
    return made


def live(roster: Roster, now: float) -> list[PeerId]:
    return [peer.peer_id for peer in roster.live(now)]


# what is believed


def test_one_word_is_nothing_however_often_it_is_said(roster: Roster) -> None:
    for now in range(5):
        assert roster.denounced(ANN, (LIAR,), float(now)) == []
    assert LIAR in live(roster, 5.0)
    assert roster.standing(LIAR, 5.0) is Standing.GOOD


def test_who_two_found_lying_is_left_alone_and_not_banned(roster: Roster) -> None:
    roster.denounced(ANN, (LIAR,), 1.0)
    assert roster.denounced(BEN, (LIAR,), 2.0) == [LIAR]
    assert live(roster, 2.0) == [ANN, BEN, CID]
    assert not roster.is_banned(LIAR, 2.0)
    assert roster.is_said_to_lie(LIAR, 2.0)
    assert roster.standing(LIAR, 2.0) is Standing.ON_PAROLE
    assert roster.denounced(CID, (LIAR,), 3.0) == [], "it is down already"


def test_it_is_tried_again_when_the_words_are_old(roster: Roster) -> None:
    roster.denounced(ANN, (LIAR,), 1.0)
    roster.denounced(BEN, (LIAR,), 2.0)
    before = 1.0 + PAROLE_S - 0.1
    assert LIAR not in {each.peer_id for each in roster.candidates_to_try(before)}
    assert not roster.is_said_to_lie(LIAR, 1.0 + PAROLE_S)
    again = [each for each in roster.candidates_to_try(1.0 + PAROLE_S) if each.peer_id == LIAR]
    assert again
    at = again[0]
    who = Introduction(peer_id=LIAR, host=at.host, port=at.port, name="x", version="1")
    assert roster.authenticated(who, 1.0 + PAROLE_S)


def test_it_stays_alone_as_long_as_they_say_so(roster: Roster) -> None:
    for now in (0.0, PAROLE_S * 0.9, PAROLE_S * 1.8):
        roster.denounced(ANN, (LIAR,), now)
        roster.denounced(BEN, (LIAR,), now)
    assert LIAR not in live(roster, PAROLE_S * 2.7)


def test_what_is_said_of_a_member_that_is_met_later_holds_too() -> None:
    roster = Roster(OWN)
    roster.denounced(ANN, (LIAR,), 0.0)
    roster.denounced(BEN, (LIAR,), 0.0)
    roster.heard(Sighting(host="10.0.0.1", port=1, peer_id=LIAR, how=Sighted.ANNOUNCED), 1.0)
    assert roster.candidates_to_try(1.0) == []


def test_people_forgive(roster: Roster) -> None:
    roster.denounced(ANN, (LIAR,), 0.0)
    roster.denounced(BEN, (LIAR,), 0.0)
    roster.unban(LIAR, 1.0)
    assert LIAR in {each.peer_id for each in roster.candidates_to_try(1.0)}
    assert roster.denounced(BEN, (LIAR,), 2.0) == [], "both words are forgotten"


# who is not believed


def test_nobody_is_believed_about_us(roster: Roster) -> None:
    assert roster.denounced(ANN, (OWN,), 0.0) == roster.denounced(BEN, (OWN,), 0.0) == []
    assert not roster.is_said_to_lie(OWN, 0.0)


def test_a_member_says_nothing_of_itself(roster: Roster) -> None:
    roster.denounced(LIAR, (LIAR,), 0.0)
    assert roster.denounced(ANN, (LIAR,), 0.0) == []


@pytest.mark.parametrize("why", ["banned", "three strikes", "denounced"])
def test_who_may_not_be_used_is_no_witness(roster: Roster, why: str) -> None:
    if why == "banned":
        roster.offend(LIAR, Offence.CORRUPT_BYTES, 0.0)
    elif why == "three strikes":
        for _ in range(STRIKES):
            roster.offend(LIAR, Offence.STALLED, 0.0)
    else:
        roster.denounced(ANN, (LIAR,), 0.0)
        roster.denounced(BEN, (LIAR,), 0.0)
    roster.denounced(ANN, (CID,), 1.0)
    assert roster.denounced(LIAR, (CID,), 1.0) == []
    assert CID in live(roster, 1.0)


def test_a_witness_that_turns_out_to_lie_gives_back_whom_it_slandered(roster: Roster) -> None:
    roster.denounced(ANN, (CID,), 0.0)
    assert roster.denounced(LIAR, (CID,), 0.0) == [CID]
    roster.offend(LIAR, Offence.FALSE_VOUCHER, 1.0)
    assert CID in {each.peer_id for each in roster.candidates_to_try(1.0)}, "it is tried again at once"
    assert roster.standing(CID, 1.0) is Standing.GOOD


def test_who_is_banned_by_people_is_no_witness_either(roster: Roster) -> None:
    roster.denounced(ANN, (CID,), 0.0)
    roster.denounced(LIAR, (CID,), 0.0)
    roster.ban(LIAR, 1.0)
    assert CID in {each.peer_id for each in roster.candidates_to_try(1.0)}


# what slanderers can do


def test_two_slanderers_reach_only_so_many() -> None:
    roster = Roster(OWN)
    honest = [somebody(number) for number in range(12)]
    meet(roster, LIAR, ANN, *honest)
    for now in range(3):
        for first in range(12):
            roster.denounced(LIAR, tuple(honest[first:] + honest[:first]), float(now))
            roster.denounced(ANN, tuple(honest[first:] + honest[:first]), float(now))
    assert [peer for peer in honest if peer not in live(roster, 3.0)] == honest[:NAMES_A_WITNESS]


def test_slander_of_the_witnesses_comes_too_late(roster: Roster) -> None:
    """Two who lie to many say first that those lied; or they come second, and are not heard."""
    roster.denounced(ANN, (LIAR, CID), 0.0)
    roster.denounced(BEN, (LIAR, CID), 0.1)
    assert roster.denounced(LIAR, (ANN, BEN), 0.2) == roster.denounced(CID, (ANN, BEN), 0.2) == []
    assert live(roster, 0.2) == [ANN, BEN]


def test_room_for_names_comes_back_with_time() -> None:
    said = Hearsay(10.0)
    said.hear(ANN, map(somebody, range(NAMES_A_WITNESS)), 0.0)
    said.hear(ANN, [LIAR], 9.0)
    said.hear(BEN, [LIAR], 9.0)
    assert said.believed_until(LIAR, 9.0, lambda _: True) is None
    said.hear(ANN, [LIAR], 10.0)
    assert said.believed_until(LIAR, 10.0, lambda _: True) == 19.0


def test_witnesses_are_remembered_within_bounds() -> None:
    said = Hearsay(10.0)
    for number in range(MAX_WITNESSES + 1):
        said.hear(somebody(number), [LIAR], 0.0)
    assert said.spoken_of_by(somebody(0)) == ()
    assert len(said._said) == MAX_WITNESSES
