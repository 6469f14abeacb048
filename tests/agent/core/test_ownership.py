"""Everybody comes to the same owners, evenly, and little changes when somebody comes or goes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.core.ownership import Ownership
from agent.core.rendezvous import Group
from peer.core.voucher import PeerId
from validation.content import Bitfield, ContentId

CONTENT = ContentId("c" * 64)
PEERS = [PeerId(f"{number:064x}") for number in range(12)]


def ownership(own: PeerId, others: list[PeerId], count: int = 256) -> Ownership:
    found = Ownership(CONTENT, count, own)
    for other in others:
        found.join(other)
    return found


def test_alone_everything_is_ours() -> None:
    assert ownership(PEERS[0], []).ours == (1 << 256) - 1


@given(st.permutations(PEERS), st.integers(1, 300))
def test_all_agree_whoever_they_heard_of_first_and_each_chunk_has_one_owner(
    order: list[PeerId], count: int
) -> None:
    views = {own: ownership(own, [each for each in order if each != own], count) for own in PEERS}

    masks = [views[own].ours for own in PEERS]

    assert sum(masks) == (1 << count) - 1
    assert all(view.owned_by(own) == views[own].ours for view in views.values() for own in PEERS)


@given(st.sets(st.sampled_from(PEERS[1:])), st.integers(1, 300))
def test_all_have_the_same_number_or_one_more(others: set[PeerId], count: int) -> None:
    view = ownership(PEERS[0], sorted(others), count)
    shares = [view.owned_by(peer).bit_count() for peer in (PEERS[0], *others)]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


@given(st.sets(st.sampled_from(PEERS[1:]), min_size=1), st.data())
def test_who_leaves_gives_its_own_chunks_and_few_others_change_hands(
    others: set[PeerId], data: st.DataObject
) -> None:
    view = ownership(PEERS[0], sorted(others))
    gone = data.draw(st.sampled_from(sorted(others)))
    before = {peer: view.owned_by(peer) for peer in (PEERS[0], *others)}

    view.leave(gone)

    assert view.owned_by(gone) == 0
    stayed = {PEERS[0], *others} - {gone}
    assert sum((before[peer] & ~view.owned_by(peer)).bit_count() for peer in stayed) <= 256 // 8
    assert sum(view.owned_by(peer) for peer in stayed) == (1 << 256) - 1
    view.join(gone)
    assert {peer: view.owned_by(peer) for peer in before} == before


@given(st.sets(st.sampled_from(PEERS[1:]), min_size=1), st.integers(1, 300))
def test_one_other_is_next_in_line_for_each_chunk_and_never_its_owner(others: set[PeerId], count: int) -> None:
    members = sorted({PEERS[0], *others})
    views = [ownership(own, [each for each in members if each != own], count) for own in members]
    assert all(not view.seconds & view.ours for view in views)
    assert sum(view.seconds for view in views) == (1 << count) - 1


def test_another_content_has_other_owners() -> None:
    one, other = ownership(PEERS[0], PEERS[1:]), Ownership(ContentId("d" * 64), 256, PEERS[0])
    for peer in PEERS[1:]:
        other.join(peer)
    assert one.ours != other.ours


# --- a group of which nobody knows more than a part --------------------------------------------------------------

MANY = [PeerId(f"{number:064x}") for number in range(600)]
GROUP = Group(MANY)
KNOWN = 32
EVERYTHING = Bitfield((1 << 128) - 1)


def sparse(own: int, size: int = 600, group: Group = GROUP) -> Ownership:
    """One that knows the 32 after it in a ring; so many want it."""
    found = ownership(MANY[own], [MANY[(own + step) % 600] for step in range(1, KNOWN + 1)], 128)
    found.expect(size, group)
    return found


def test_of_hundreds_exactly_one_goes_for_each_chunk() -> None:
    views = [sparse(own) for own in range(600)]
    assert all(view.sparse for view in views)
    assert sum(view.ours.bit_count() for view in views) / 128 > 15, "by its neighbours alone, 18 would"
    asking = [view.allowed(EVERYTHING, 0) for view in views]
    assert sum(asking) == EVERYTHING
    assert sum(map(int.bit_count, asking)) == 128


def test_where_half_want_it_somebody_is_soon_found_for_each_chunk() -> None:
    views = [sparse(own, 300) for own in range(0, 600, 2)]
    asking = sum(view.allowed(EVERYTHING, 0).bit_count() for view in views) / 128
    assert 0.6 < asking < 1.4, "on average one"
    reached = 0
    for view in views:
        reached |= view.allowed(EVERYTHING, 3)
    assert reached.bit_count() >= 126, "of 128, one has no eager owner among its first fifteen"


@given(st.integers(42, 600))
def test_who_has_waited_longer_may_take_more_and_at_last_anything(size: int) -> None:
    view = sparse(0, size)
    reach = [view.allowed(EVERYTHING, hunger) for hunger in range(view.most_hunger + 1)]
    assert all(less & more == less for less, more in itertools.pairwise(reach))
    assert reach[-1] == EVERYTHING
    assert len(reach) < 20


@given(st.lists(st.tuples(st.integers(0, EVERYTHING), st.integers(0, 8)), max_size=6))
def test_what_is_allowed_does_not_depend_on_what_was_asked_before(asked: list[tuple[int, int]]) -> None:
    view = sparse(0, 300)
    for chunks, hunger in asked:
        assert view.allowed(Bitfield(chunks), hunger) == chunks & sparse(0, 300).allowed(EVERYTHING, hunger)


def test_before_any_hunger_nobody_goes_for_what_one_it_knows_comes_first_for() -> None:
    for own in range(100):
        view = sparse(own, 60)
        assert view.sparse
        assert view.allowed(EVERYTHING, 0) & ~view.ours == 0


def test_a_group_that_is_nearly_known_is_shared_out_as_a_small_one() -> None:
    view = sparse(0, 40)
    assert not view.sparse
    assert view.allowed(EVERYTHING, 0) == view.ours
    assert view.most_hunger == 2


def test_another_group_has_other_owners() -> None:
    view = sparse(0)
    before = view.allowed(EVERYTHING, 6)
    view.expect(600, Group(MANY[:1] + MANY[300:]))
    assert view.allowed(EVERYTHING, 6) != before


def test_a_large_group_goes_through_the_content_in_one_order_a_few_chunks_at_a_time() -> None:
    one, other = sparse(0), sparse(300)
    there = [0, 5, 60, 20, 128]
    opened = [one.opened(count) for count in there]
    assert opened == [other.opened(count) for count in there]
    assert [field.bit_count() for field in opened] == [32, 37, 92, 52, 128]
    assert opened[0] & opened[1] == opened[0]
    assert opened[0] != (1 << 32) - 1, "not simply from the start"
