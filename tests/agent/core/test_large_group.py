"""A group of which an agent knows a few: what it asks of the origin at once, after a while, and at last.

It knows two peers that want the content; 600 are there, or 30.
"""

from __future__ import annotations

import itertools

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.ownership import Ownership
from agent.core.rendezvous import Group
from agent.core.sources import ORIGIN
from agent.core.tuning import Tuning
from peer.core.voucher import PeerId
from tests.support.playbook import (
    OWN,
    PEER_A,
    PEER_B,
    Playbook,
    Stage,
    anything,
    begun,
    digested,
    event,
    facts,
    fetch,
    near_answered,
    offered,
    probed,
    received,
    ticked,
)
from validation.content import Bitfield, chunks_in

CHUNKS = 16
EVERYTHING = Bitfield((1 << CHUNKS) - 1)
STEP_S = Tuning().sparse_hunger_s


def group_of(start: int, count: int) -> Group:
    """All who are there, us and those we know included."""
    others = (PeerId(f"{number:064x}") for number in range(start, start + count - 3))
    return Group((OWN, PEER_A, PEER_B, *others))


def owners_in(group: Group, stage: Stage) -> Ownership:
    """As the transfer sees them."""
    owners = Ownership(stage.transfer.content_ids[0], CHUNKS, OWN)
    owners.become((PEER_A, PEER_B))
    owners.expect(len(group.members), group)
    return owners


def among(group: Group) -> Stage:
    """It has heard of the two, and how many there are, and now may ask."""
    stage = Stage.new(own=OWN)
    play = Playbook(stage)
    play >> begun() << anything
    play >> probed(facts(CHUNKS)) << anything
    play >> offered(PEER_A, wants=True) << anything
    play >> offered(PEER_B, wants=True) << anything
    play >> event(ev.CrowdSized, size=len(group.members), group=group) << anything
    play >> near_answered() << anything
    play.check()
    return stage


def first_where(*, ours: bool, count: int = 600) -> tuple[Group, Stage]:
    """A group in which some chunk is ours, or none."""
    for start in range(100):
        group = group_of(start * count, count)
        stage = among(group)
        if bool(owners_in(group, stage).allowed(EVERYTHING, 0)) is ours:
            return group, stage
    raise AssertionError("no group is like that")


def asked(stage: Stage) -> list[int]:
    """Chunks that were asked of the origin, in order."""
    requests = (each for each in stage.log if isinstance(each, cmd.FetchRange) and each.source == ORIGIN)
    return [chunk for each in requests for chunk in stage.layout.touched_by(each.item)]


def test_what_is_ours_is_asked_for_at_once_and_nothing_else() -> None:
    group, stage = first_where(ours=True, count=30)
    ours = owners_in(group, stage).allowed(EVERYTHING, 0)
    play = Playbook(stage)
    while any(each.source == ORIGIN for each in stage.open.values()):
        chunks = list(stage.layout.touched_by(stage.request(ORIGIN).item))
        play >> received(ORIGIN) << anything
        play >> digested(*chunks) << anything
    play.check()
    assert asked(stage) == list(chunks_in(ours))


def test_what_is_for_others_is_left_to_them_until_one_more_may_be_before_us_each_time() -> None:
    group, stage = first_where(ours=False)
    owners, began = owners_in(group, stage), stage.now
    assert asked(stage) == []
    play = Playbook(stage)
    for waited in itertools.count(1):
        assert waited <= owners.most_hunger
        play >> ticked() << anything
        assert stage.now == pytest.approx(began + waited * STEP_S)
        allowed = owners.allowed(EVERYTHING, waited)
        assert bool(asked(stage)) is bool(allowed)
        if allowed:
            assert set(asked(stage)) <= set(chunks_in(allowed))
            break
    play.check()


def test_what_is_heard_meanwhile_does_not_make_it_wait_longer() -> None:
    """Each time it hears something it finds again that there is nothing to ask for."""
    group, stage = first_where(ours=False)
    owners, began = owners_in(group, stage), stage.now
    play = Playbook(stage)
    while not asked(stage):
        play >> ticked(0.05) << anything
        play >> offered(PEER_A, claimed=[3], wants=True) << anything
        play >> offered(PEER_A, wants=True) << anything
        assert stage.now < began + owners.most_hunger * STEP_S + 1.0
    play.check()
    first = next(hunger for hunger in itertools.count() if owners.allowed(EVERYTHING, hunger))
    assert stage.now - began == pytest.approx(first * STEP_S, abs=0.11)


def test_what_a_peer_has_is_asked_of_it_though_nothing_may_be_asked_of_the_origin() -> None:
    _, stage = first_where(ours=False)
    play = Playbook(stage)
    play >> offered(PEER_B, [5], wants=True) << fetch(PEER_B, chunk=5)
    play.check()


def test_who_finds_itself_alone_after_all_asks_for_everything() -> None:
    _, stage = first_where(ours=False)
    play = Playbook(stage)
    play >> event(ev.SourceLost, source=f"peer:{PEER_A}") << anything
    play >> event(ev.SourceLost, source=f"peer:{PEER_B}") << fetch(ORIGIN)
    play.check()
