"""What goes wrong in a swarm costs what was lost, and no more: each failure as a playbook, then as a whole swarm.

Claims that are late or withdrawn, silent peers and the wishes of one job are in test_swarm.py; lies in
test_fetching.py and test_relays.py; what holds in every swarm in test_swarm_properties.py.
"""

from __future__ import annotations

import dataclasses

import pytest

from agent.core import commands as cmd
from agent.core.ownership import Ownership
from agent.core.sources import ORIGIN
from agent.core.spec import NearUse, OriginUse
from peer.core.failure import FailureKind
from peer.core.standing import Offence
from tests.support.drawing import draw
from tests.support.playbook import (
    CHUNK,
    OWN,
    PEER_A,
    PEER_B,
    Playbook,
    Stage,
    anything,
    arrived,
    begun,
    digest,
    digested,
    facts,
    failed,
    fetch,
    lost,
    near_answered,
    offered,
    probed,
    received,
    report,
    ticked,
)
from tests.support.swarm import Host, Swarm
from validation.content import chunks_in

RATE = 1.25e6
CHUNKS = 16


def owned_by(stage: Stage, who: str, *others: str) -> list[int]:
    """Chunks of one of those who want it; we are one of them."""
    owners = Ownership(stage.transfer.content_ids[0], stage.layout.count, OWN)
    for other in others:
        owners.join(other)  # type: ignore[arg-type]
    return list(chunks_in(owners.ours if who == OWN else owners.owned_by(who)))  # type: ignore[arg-type]


def asked_of_origin(stage: Stage) -> list[int]:
    """Chunks of the origin's requests that are under way."""
    items = [each.item for each in stage.open.values() if each.source == ORIGIN]
    return [chunk for item in items for chunk in stage.layout.touched_by(item)]


def claimed(stage: Stage) -> tuple[int, bool]:
    """What was said last."""
    said = [each for each in stage.log if isinstance(each, cmd.PublishClaim)][-1]
    return said.chunks, said.wants


# --- one transfer ------------------------------------------------------------------------------------------------


def test_who_comes_late_leaves_to_others_what_they_own_and_have() -> None:
    """A late joiner, from its own side: the group is half-way."""
    row = "*" * 8 + "-" * 8
    stage = draw(ours="-" * CHUNKS, wanting=(PEER_A, PEER_B), peer_a=row, peer_b=row)
    mine = owned_by(stage, OWN, PEER_A, PEER_B)
    assert asked_of_origin(stage)
    assert set(asked_of_origin(stage)) <= {chunk for chunk in mine if chunk >= 8}


def test_who_leaves_early_leaves_its_chunks_to_us() -> None:
    """It had some of them, claimed others, and was giving us one."""
    row = "**" + "c" * 14
    play = Playbook(draw(ours="-" * CHUNKS, wanting=(PEER_A,), peer_a=row))
    assert asked_of_origin(play.stage) == []
    play >> lost(PEER_A) << fetch(ORIGIN)
    play >> failed(PEER_A, FailureKind.CONNECTION_CLOSED)
    for _ in range(CHUNKS):
        if not asked_of_origin(play.stage):
            break
        chunks = asked_of_origin(play.stage)
        play >> received(ORIGIN) << anything
        play >> digested(*chunks) << anything
    play.check()
    assert play.transfer.chunks is not None
    assert play.transfer.chunks.complete


def test_a_chunk_that_was_nearly_there_is_asked_of_another_when_its_giver_is_gone() -> None:
    """Whatever its mean rate promised: of who is gone nothing more will come."""
    play = Playbook(draw(ours="*-", wanting=(PEER_A, PEER_B), peer_a="*c", peer_b="*c"))
    play >> offered(PEER_A, [0, 1], wants=True) << fetch(PEER_A, chunk=1)
    play.stage.now += 1.0
    play >> arrived(PEER_A, CHUNK - 1000) << anything
    play >> lost(PEER_A) << anything
    play >> offered(PEER_B, [0, 1], wants=True) << anything
    began = play.stage.now
    while not any(isinstance(each, cmd.AbortFetch) for each in play.stage.log):
        play >> ticked() << anything
        assert play.stage.now < began + 2.0
    play >> failed(PEER_A, FailureKind.ABORTED) << fetch(PEER_B, chunk=1)
    play.check()


def test_a_liar_that_is_banned_owns_nothing_any_more() -> None:
    """What it had claimed is asked for at once, not after its time is over."""
    row = "*" + "c" * 15
    play = Playbook(draw(ours="a" + "-" * 15, wanting=(PEER_A,), peer_a=row))
    assert asked_of_origin(play.stage) == []
    play >> digested(0, flavour="noise") << report(PEER_A, Offence.CORRUPT_BYTES) << fetch(ORIGIN)
    play.check()


def test_a_link_to_the_origin_that_drops_is_told_and_the_group_brings_the_rest() -> None:
    """We promise nothing more, and wait for what others claim instead of giving up."""
    stage = draw(ours="-" * CHUNKS, wanting=(PEER_A,), peer_a="-" * CHUNKS)
    assert claimed(stage)[1] is True
    play = Playbook(stage)
    play >> offered(PEER_A, (), range(CHUNKS), wants=True) << anything
    play >> failed(ORIGIN, FailureKind.STALLED) << anything
    assert claimed(stage) == (0, False)
    (
        play
        >> offered(PEER_A, [3], [each for each in range(CHUNKS) if each != 3], wants=True)
        << fetch(PEER_A, chunk=3)
    )
    play >> received(PEER_A) << digest(3)
    play >> digested(3) << anything
    play.check()
    assert not any(isinstance(each, cmd.Troubled) for each in stage.log)


def test_without_the_origin_and_without_anybody_who_claims_the_rest_it_is_tried_again_later() -> None:
    stage = draw(ours="-" * CHUNKS, wanting=(PEER_A,), peer_a="-" * CHUNKS)
    play = Playbook(stage)
    play >> failed(ORIGIN, FailureKind.STALLED) << anything
    play.check()
    assert any(isinstance(each, cmd.Troubled) for each in stage.log)


def test_what_is_being_digested_is_still_claimed() -> None:
    """Between the last byte and the offer nobody else may take it for left alone."""
    stage = Stage.new(None, None, None, OWN)
    play = Playbook(stage, watch=(cmd.PublishClaim,))
    play >> begun() << anything
    play >> probed(facts(2)) << anything
    play >> near_answered() << anything
    play >> received(ORIGIN) << digest(0) << digest(1)
    assert claimed(stage) == (0b11, True)
    play >> digested(0) << anything
    assert claimed(stage) == (0b10, True)
    play >> digested(1) << anything
    play.check()
    assert claimed(stage) == (0, False)


# --- whole swarms ------------------------------------------------------------------------------------------------


def host(**changes: object) -> Host:
    return Host(**({"up": RATE, "down": RATE} | changes))  # type: ignore[arg-type]


def hosts(count: int, odd: Host | None = None) -> list[Host]:
    return [odd if odd is not None and number == 3 else host() for number in range(count)]


def last_of_the_others(swarm: Swarm) -> float:
    return max(agent.finished_at or 0.0 for agent in swarm.agents if agent.number != 3)


@pytest.fixture(name="even", scope="module")
def play_without_trouble() -> Swarm:
    """The same six when nothing goes wrong."""
    return Swarm(hosts(6), chunks=32, origin_up=RATE).run()


@pytest.mark.parametrize(
    ("odd", "copies", "slower"),
    [
        (host(leaves=True), 1.05, 1.1),
        (host(up=RATE / 10, down=RATE / 10), 1.1, 1.1),
        (host(starts_at=3.0), 1.03, 1.1),
        (host(dies_at=2.5), 1.1, 1.3),
        (host(origin_down_at=2.5), 1.1, 1.2),
        (host(lies=0.1), 1.3, 1.3),  # what it brought itself, a sixth, is believed no more (20 seeds: 1.0 to 1.31)
        (host(slots=1), 1.03, 1.2),
    ],
    ids=["leaves", "ten times slower", "late", "dies", "link drops", "lies", "one slot"],
)
def test_one_of_six_in_trouble_costs_little(odd: Host, copies: float, slower: float, even: Swarm) -> None:
    swarm = Swarm(hosts(6, odd), chunks=32, origin_up=RATE).run(without=frozenset({3}))
    assert swarm.copies <= copies
    assert last_of_the_others(swarm) <= slower * even.makespan
    assert swarm.wrong == 0


@pytest.mark.parametrize(
    ("policy", "quicker"),
    [({"origin_use": OriginUse.LEAST_TIME}, True), ({"origin_floor": int(2 * RATE)}, True), ({}, False)],
    ids=["least time", "floor", "least origin"],
)
def test_a_fast_origin_helps_when_the_job_says_so(policy: dict[str, object], quicker: bool) -> None:
    """Links that take four times what they give: the group alone is the narrow place."""
    least = Swarm([host(down=4 * RATE) for _ in range(6)], chunks=40, origin_up=5 * RATE).run()
    swarm = Swarm([host(down=4 * RATE, spec=policy) for _ in range(6)], chunks=40, origin_up=5 * RATE).run()
    assert least.copies <= 1.03
    assert (swarm.makespan < 0.95 * least.makespan) is quicker
    assert (swarm.copies > 1.03) is quicker


def test_least_time_takes_one_copy_of_a_slow_origin() -> None:
    policy = {"origin_use": OriginUse.LEAST_TIME}
    swarm = Swarm([host(down=4 * RATE, spec=policy) for _ in range(5)], chunks=32, origin_up=RATE).run()
    assert swarm.copies <= 1.03


ALL_OF_THEM = {
    "seeds that die": {"has_all": True, "dies_at": 0.5},
    "seeds that stall": {"has_all": True, "stalls": True},
    "seeds that lie": {"has_all": True, "lies": 1.0},
    "that die": {"dies_at": 3.0},
    "that stall": {"stalls": True},
    "that lie": {"lies": 1.0},
    "that cannot reach the origin": {"origin_down_at": 0.0},
}


@pytest.mark.parametrize("bad", ALL_OF_THEM.values(), ids=ALL_OF_THEM)
def test_never_worse_than_direct(bad: dict[str, object]) -> None:
    """All four others are so."""
    assert_never_worse(bad)


def test_never_worse_than_direct_when_all_others_are_always_busy() -> None:
    assert_never_worse({"slots": 0})


def assert_never_worse(bad: dict[str, object]) -> None:
    """Direct: the same agents, each for itself."""
    among = [host(), *(host(**bad) for _ in range(4))]
    apart = [dataclasses.replace(each, spec={"near": NearUse.NEVER}) for each in among]
    others = frozenset(range(1, 5))
    direct = Swarm(apart, chunks=80, origin_up=RATE).run(without=others)
    swarm = Swarm(among, chunks=80, origin_up=RATE).run(1.5 * direct.makespan, without=others)
    assert swarm.wrong == 0
    ours, alone = swarm.agents[0].finished_at, direct.agents[0].finished_at
    assert ours is not None
    assert alone is not None
    assert ours <= 1.1 * alone


def test_a_forger_is_found_by_the_validator_and_no_relay_is_blamed() -> None:
    """The world asserts that nobody else is reported; what was poisoned is fetched again."""
    swarm = Swarm(hosts(5, host(lies=0.5, forges=True)), chunks=16, origin_up=RATE).run()
    assert swarm.wrong == 0
    forger = swarm.agents[3]
    assert any(forger in agent.banned for agent in swarm.agents)
