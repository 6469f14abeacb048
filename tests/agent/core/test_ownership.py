"""Everybody comes to the same owners, evenly, and little changes when somebody comes or goes."""

from __future__ import annotations

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
