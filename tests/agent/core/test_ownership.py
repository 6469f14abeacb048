"""Everybody comes to the same owners, evenly, and little changes when somebody comes or goes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.core.ownership import Ownership
from peer.core.voucher import PeerId
from validation.content import ContentId

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


def test_the_chunks_are_shared_about_evenly() -> None:
    view = ownership(PEERS[0], PEERS[1:8], 512)
    shares = [view.owned_by(peer).bit_count() for peer in PEERS[:8]]
    assert sum(shares) == 512
    assert max(shares) <= 1.6 * 512 / 8
    assert min(shares) >= 0.5 * 512 / 8


@given(st.sets(st.sampled_from(PEERS[1:]), min_size=1), st.data())
def test_who_leaves_gives_only_its_own_chunks(others: set[PeerId], data: st.DataObject) -> None:
    view = ownership(PEERS[0], sorted(others))
    gone = data.draw(st.sampled_from(sorted(others)))
    before = {peer: view.owned_by(peer) for peer in (PEERS[0], *others)}

    view.leave(gone)

    assert view.owned_by(gone) == 0
    for peer in {PEERS[0], *others} - {gone}:
        assert view.owned_by(peer) & before[peer] == before[peer]
    assert sum(view.owned_by(peer) for peer in (PEERS[0], *others)) == (1 << 256) - 1
    view.join(gone)
    assert {peer: view.owned_by(peer) for peer in before} == before


def test_another_content_has_other_owners() -> None:
    one, other = ownership(PEERS[0], PEERS[1:]), Ownership(ContentId("d" * 64), 256, PEERS[0])
    for peer in PEERS[1:]:
        other.join(peer)
    assert one.ours != other.ours


# --- a group of which nobody knows more than a part --------------------------------------------------------------

MANY = [PeerId(f"{number:064x}") for number in range(600)]
KNOWN = 32


def sparse(own: int, size: int, count: int = 128) -> Ownership:
    """One of `size`, which knows the 32 after it in a ring."""
    found = ownership(MANY[own], [MANY[(own + step) % size] for step in range(1, KNOWN + 1)], count)
    found.expect(size)
    return found


def test_of_hundreds_about_one_goes_for_a_chunk_and_with_time_somebody_for_each() -> None:
    views = [sparse(own, 600) for own in range(600)]
    assert all(view.sparse for view in views)
    asking = sum(view.ours.bit_count() for view in views) / 128
    assert 0.7 < asking < 1.4, "on average one"
    assert sum(view.near.bit_count() for view in views) / 128 > 15, "by the neighbours alone it would be 18"

    reached, rounds = 0, 0
    while reached != (1 << 128) - 1:
        for view in views:
            reached |= view.taken_over(rounds)
        rounds += 1
    assert rounds <= 7
    assert views[0].taken_over(views[0].most_hunger) == (1 << 128) - 1
    assert views[0].most_hunger < 20


@given(st.integers(42, 100_000))
def test_who_has_waited_longer_may_take_more(size: int) -> None:
    view = sparse(0, 600)
    view.expect(size)
    reach = [view.taken_over(hunger) for hunger in range(view.most_hunger + 1)]
    assert all(less & more == less for less, more in itertools.pairwise(reach))
    assert reach[-1] == (1 << 128) - 1


def test_a_group_that_is_nearly_known_is_shared_out_as_a_small_one() -> None:
    view = sparse(0, 600)
    view.expect(40)
    assert not view.sparse
    assert view.ours == view.near
    assert view.most_hunger == 2


def test_a_large_group_goes_through_the_content_in_one_order_a_few_chunks_at_a_time() -> None:
    one, other = sparse(0, 600), sparse(300, 600)
    there = [0, 5, 60, 20, 128]
    opened = [one.opened(count) for count in there]
    assert opened == [other.opened(count) for count in there]
    assert [field.bit_count() for field in opened] == [32, 37, 92, 52, 128]
    assert opened[0] & opened[1] == opened[0]
    assert opened[0] != (1 << 32) - 1, "not simply from the start"
