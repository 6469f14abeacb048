"""The second process of a huge swarm: what goes there and comes back, and that a run with it is like others."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import ORIGIN, peer_source
from bench.scenarios import SCENARIOS, Scenario
from bench.sim.coding import Coding
from bench.sim.results import figures_of, run_document
from bench.sim.swarm import SimError, Swarm, World
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import Voucher
from validation.content import Bitfield, ChunkIndex
from validation.ranges import ByteRange


def small(name: str, agents: int = 10) -> Scenario:
    return SCENARIOS[name].changed(agents=agents, size=4 << 20)


HUGE = World(huge=5)
SWARM = Swarm(small("cold"), HUGE)
TRANSFER = SWARM.hosts[7].transfers[0]
FILE, CONTENT = TRANSFER.file, TRANSFER.content
SIGNER = SWARM.hosts[3].peer
VOUCHER = Voucher(
    content_id=CONTENT.content_id,
    chunk=ChunkIndex(2),
    digest=CONTENT.digests[2],
    signer=SIGNER,
    signature=b"",
)
FAILURE = Failure(kind=FailureKind.BUSY, message="busy", retry_after_s=1.0)
EVENTS: list[ev.FileEvent] = [
    ev.Begun(file=FILE),
    ev.OriginProbed(file=FILE, facts=OriginFacts(length=5, etag='"1"', ranges=RangeSupport.PROMISED), probe=1),
    ev.ProbeFailed(file=FILE, failure=FAILURE, probe=1),
    ev.SourceLost(file=FILE, source=peer_source(SIGNER)),
    ev.CrowdSized(file=FILE, size=9, group=SWARM.group),
    ev.NearAnswered(file=FILE),
    ev.RangeArrived(file=FILE, request=ev.RequestId(3), item=ByteRange(4, 9)),
    ev.RangeReceived(file=FILE, request=ev.RequestId(3), item=ByteRange(4, 9), vouchers=(VOUCHER,)),
    ev.RangeReceived(file=FILE, request=ev.RequestId(4), item=ByteRange(2, 9), vouchers=(VOUCHER, VOUCHER)),
    ev.RangeFailed(file=FILE, request=ev.RequestId(3), failure=FAILURE),
    ev.StorageFailed(file=FILE, failure=FAILURE),
    ev.ContentAccepted(file=FILE, attempt=2),
    ev.Ticked(file=FILE),
]
COMMANDS: list[cmd.Command] = [
    cmd.ProbeOrigin(file=FILE, probe=4),
    cmd.PrepareFile(file=FILE, length=None),
    cmd.AskNear(file=FILE, content_ids=(CONTENT.content_id,), layout=CONTENT.layout),
    cmd.StopAsking(file=FILE),
    cmd.PublishClaim(
        file=FILE,
        content_ids=(CONTENT.content_id,),
        layout=CONTENT.layout,
        chunks=Bitfield(1 << 90 | 5),
        wants=True,
    ),
    cmd.PublishClaim(file=FILE, content_ids=(), layout=CONTENT.layout, chunks=Bitfield(0), wants=False),
    cmd.PublishChunk(
        file=FILE,
        content_ids=(CONTENT.content_id,),
        layout=CONTENT.layout,
        chunk=ChunkIndex(2),
        digest=CONTENT.digests[2],
        vouchers=(VOUCHER,),
        sign=(),
    ),
    cmd.WithdrawContent(file=FILE, content_ids=(CONTENT.content_id,)),
    cmd.Refetching(file=FILE, reason="rejected"),
    cmd.WithdrawChunks(file=FILE, content_ids=(CONTENT.content_id,), chunks=Bitfield(1 << 100)),
    cmd.FetchRange(file=FILE, request=ev.RequestId(8), source=ORIGIN, item=ByteRange(0, 7)),
    cmd.FetchRange(file=FILE, request=ev.RequestId(9), source=peer_source(SIGNER), item=ByteRange(0, 7)),
    cmd.AbortFetch(file=FILE, request=ev.RequestId(9)),
    cmd.ValidateContent(file=FILE, attempt=2),
    cmd.Finished(file=FILE),
    cmd.Troubled(file=FILE, failure=FAILURE, retry_at=1.5),
    cmd.Failed(file=FILE, code="X", message="no", context="origin"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_as_it_was_sent(event: ev.FileEvent) -> None:
    assert Coding(SWARM).events_of(Coding(SWARM).events([event]), TRANSFER) == [event]


@given(st.lists(st.sampled_from(EVENTS), max_size=6))
def test_so_do_several(events: list[ev.FileEvent]) -> None:
    assert Coding(SWARM).events_of(Coding(SWARM).events(events), TRANSFER) == events


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_comes_back_as_it_was_given(command: cmd.Command) -> None:
    assert TRANSFER.heeds(command)
    coded: list[object] = []
    for each in (command, *COMMANDS):
        Coding(SWARM).command(each, coded)
    assert Coding(SWARM).commands_of(coded, TRANSFER) == [command, *COMMANDS]


def test_all_commands_that_lead_to_anything_were_tried() -> None:
    heeded = {each for each in get_args(cmd.Command) if TRANSFER.heeds(_bare(each))}
    answered_there, of_liars = cmd.DigestChunk, cmd.ReportPeer
    assert heeded - {answered_there, of_liars} == {type(command) for command in COMMANDS}


def _bare(kind: type) -> cmd.Command:
    made: cmd.Command = kind(**dict.fromkeys(kind.__struct_fields__))
    return made


def play(name: str, agents: int = 10) -> tuple[Swarm, dict[str, object]]:
    swarm = Swarm(small(name, agents), HUGE)
    swarm.run()
    return swarm, run_document(swarm, figures_of(swarm))


@pytest.mark.parametrize("name", ["cold", "warm", "dead-owner", "churn", "two-files"])
def test_two_processes_come_to_what_one_comes_to(name: str) -> None:
    swarm, document = play(name)
    assert swarm.helper is not None
    away = [each for host in swarm.hosts for each in host.transfers if each.away is not None]
    assert len(away) >= 4
    assert all(each.progress.held == swarm.scenario.size for each in away if each.done)
    alone = Swarm(small(name), World())
    alone.run()
    assert alone.helper is None
    figures, others = figures_of(swarm).values, figures_of(alone).values
    assert figures["makespan_s"] == pytest.approx(others["makespan_s"], rel=0.15)
    assert figures["origin_copies"] == pytest.approx(others["origin_copies"], abs=0.2)
    assert document["finished"] == document["awaited"]


def test_the_same_seed_gives_the_same_bytes_however_fast_each_of_them_is() -> None:
    first, second = (json.dumps(play("cold", 16)[1]) for _ in range(2))
    assert first == second
    assert swarm_cpu_s(play("cold", 16)[0]) > 0


def swarm_cpu_s(swarm: Swarm) -> float:
    assert swarm.helper is not None
    return swarm.helper.cpu_s


def test_where_somebody_lies_one_process_does_it_all() -> None:
    swarm = Swarm(small("liar"), HUGE)
    swarm.run()
    assert swarm.helper is None


def test_a_second_process_that_dies_ends_the_run() -> None:
    swarm = Swarm(small("cold"), HUGE)

    def each_turn() -> None:
        assert swarm.helper is not None
        if swarm.clock.now > 0.5:
            swarm.helper.close()

    with pytest.raises(SimError, match=r"cold, .* s: the second process "):
        swarm.run(each_turn)
