"""A validator rejects a copy that came from several: only what is wrong comes again, and who lied is found.

How the chunks to compare are chosen is in test_comparing.py.
"""

from __future__ import annotations

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.integrity import Integrity
from agent.core.provenance import Reason, spans
from agent.core.rejections import MOST
from agent.core.sources import ORIGIN, peer_source
from agent.core.spec import Decision, NearUse, Restored, Snapshot
from peer.core.voucher import PeerId, Voucher
from tests.support.playbook import CHUNK, FILE, PEER_A, PEER_B, PEER_C, digest_of, facts, spec, vouch
from tests.support.tribunal import TRUE, Giver, Tribunal
from validation.content import NO_CHUNKS
from validation.digest import Algorithm, Digest
from validation.ranges import ByteRange
from validation.rangeset import RangeSet

OF_A, OF_B, OF_C = range(24), range(24, 48), range(48, 64)
ALTERED = tuple(range(49, 64, 2))


def three(**of_c: object) -> dict[PeerId, Giver]:
    """A and B are honest, C altered half of those that it vouches for."""
    return {
        PEER_A: Giver.of(OF_A, PEER_A),
        PEER_B: Giver.of(OF_B, PEER_B),
        PEER_C: Giver.of(OF_C, PEER_C, ALTERED),
    }


def assert_settled(world: Tribunal, *liars: PeerId) -> None:
    """It ended well, and nobody else was blamed."""
    assert (world.finished, world.failed, world.right) == (True, None, True)
    assert sorted(world.blamed) == sorted(liars)
    assert len(world.again) == len(set(world.again)), "something was asked of the origin twice"


def test_only_what_rests_on_the_liars_word_comes_again() -> None:
    world = Tribunal(64, three()).start().run()
    assert_settled(world, PEER_C)
    assert world.rejections == 1
    assert set(OF_C) <= set(world.again)
    assert len(world.again) <= len(OF_C) + 16
    assert world.stage.transfer.near is NearUse.PREFERRED, "those who did not lie may go on"


def test_a_relay_is_not_blamed_for_whom_it_believed_and_who_is_gone() -> None:
    peers = {PEER_A: Giver.of(OF_A, PEER_A), PEER_B: Giver.of(OF_B, PEER_B).and_of(OF_C, PEER_C, ALTERED)}
    world = Tribunal(64, peers).start().run()
    assert_settled(world, PEER_C)
    assert PEER_B in world.peers
    assert len(world.again) <= len(OF_C) + 16


@pytest.mark.parametrize("who", [(PEER_A, PEER_B), (PEER_A, PEER_B, PEER_C)])
def test_several_liars_are_found_one_after_the_other(who: tuple[PeerId, ...]) -> None:
    parts = {PEER_A: OF_A, PEER_B: OF_B, PEER_C: OF_C}
    peers = {peer: Giver.of(part, peer, [part[3]] if peer in who else []) for peer, part in parts.items()}
    world = Tribunal(64, peers).start().run()
    assert_settled(world, *who)
    assert world.rejections <= len(who)


def test_accomplices_end_with_the_origin_alone() -> None:
    """Each has a few altered, so that each rejection finds one of them; the last finds all."""
    liars = [PeerId(f"{number:x}" * 64) for number in range(1, 9)]
    parts = {peer: range(12 * number, 12 * number + 12) for number, peer in enumerate(liars)}
    peers = {peer: Giver.of(part, peer, part[:1]) for peer, part in parts.items()}
    world = Tribunal(96, peers).start().run()
    assert_settled(world, *liars)
    assert world.rejections == MOST
    assert world.stage.transfer.near is NearUse.NEVER
    assert sorted(world.again) == list(range(96))


def test_when_all_are_honest_and_the_origin_is_wrong_the_job_is_in_error_after_one_more_copy() -> None:
    """As if everything had been fetched again at once; the validator is asked twice."""
    peers = {PEER_A: Giver.of(OF_A, PEER_A), PEER_B: Giver.of([*OF_B, *OF_C], PEER_B)}
    world = Tribunal(64, peers)
    world.accepts = False
    world.start().run()
    assert (world.failed, world.finished, world.blamed) == ("VALIDATION_FAILED", False, {})
    assert sorted(world.again) == list(range(64))
    assert world.rejections == 2
    assert world.published == {}
    assert (world.stage.transfer.held_bytes, world.stage.transfer.near) == (0, NearUse.NEVER)


def test_another_who_fetched_it_again_points_at_it() -> None:
    """Two words differ, so that one chunk of the origin is enough."""
    peers = three()
    peers[PEER_B].fresh = {ALTERED[0]: TRUE}
    for peer in (PEER_A, PEER_B, PEER_C):
        peers[peer].shy = peers[peer].wants = True
    world = Tribunal(64, peers).start().run()
    assert_settled(world, PEER_C)
    assert sorted(world.again) == list(OF_C)
    assert (PEER_B, ALTERED[0]) in world.compared


def test_who_contradicts_what_is_right_is_the_liar() -> None:
    peers = three()
    peers[PEER_B].fresh = {3: "noise"}
    for peer in (PEER_A, PEER_B):
        peers[peer].shy = peers[peer].wants = True
    world = Tribunal(64, peers).start().run()
    assert_settled(world, PEER_B, PEER_C)
    assert not set(world.again) >= set(OF_A), "A was believed, and rightly"


def test_who_is_caught_lying_elsewhere_is_looked_at_before_the_others() -> None:
    """What is held of that chunk is right: so far nothing is another than it was."""
    peers = three()
    peers[PEER_C].fresh = {3: "noise"}
    for peer in (PEER_A, PEER_B, PEER_C):
        peers[peer].shy = peers[peer].wants = True
    world = Tribunal(64, peers).start().run()
    assert_settled(world, PEER_C)
    assert sorted(world.again) == [3, *OF_C]


def test_who_vouched_for_the_whole_files_digest_is_named_when_the_file_is_right() -> None:
    """Another origin may serve something else by right: until then what rests on its word comes from ours."""
    whole = spec(digest=Digest(Algorithm.SHA256, bytes(32)))
    world = Tribunal(64, three(), given=whole)
    world.id_used = -1
    world.start().run()
    assert_settled(world, PEER_C)
    assert world.rejections == 1
    told = [type(each) for each in world.stage.log if isinstance(each, cmd.ValidateContent | cmd.ReportPeer)]
    assert told[:2] == [cmd.ValidateContent] * 2
    assert set(told[2:]) == {cmd.ReportPeer}


def test_what_two_vouch_for_is_compared_last() -> None:
    """What is confirmed by a peer need not be fetched from the origin to find who lied elsewhere."""
    peers = three()
    peers[PEER_B].fresh = dict.fromkeys(OF_A, TRUE)
    for peer in (PEER_A, PEER_B, PEER_C):
        peers[peer].shy = peers[peer].wants = True
    world = Tribunal(64, peers).start().run()
    assert_settled(world, PEER_C)
    assert len({chunk for peer, chunk in world.compared if peer == PEER_B} & set(OF_A)) > 8
    assert len(set(world.again) & set(OF_A)) <= 4


def test_what_cannot_be_compared_with_anothers_comes_from_where_it_was() -> None:
    """Who had another copy is gone: its chunks need not come from the origin for that."""
    peers = three()
    peers[PEER_B].fresh = dict.fromkeys(OF_A[:6], TRUE)
    peers[PEER_A].shy = peers[PEER_B].shy = peers[PEER_A].wants = peers[PEER_B].wants = True
    peers[PEER_B].leaves = True
    world = Tribunal(64, peers).start().run()
    assert_settled(world, PEER_C)
    assert PEER_B not in world.peers, "it was never asked: this proves nothing"
    assert len([chunk for peer, chunk in world.compared if peer == PEER_A and chunk in OF_A[:6]]) >= 4


@pytest.mark.parametrize("fetches", [1, 2, 5, 9])
def test_a_restart_in_the_middle_costs_a_verdict_and_nothing_else(fetches: int) -> None:
    before = Tribunal(64, three()).start().run(fetches=fetches)
    assert before.rejections == 1
    assert not before.finished
    after = again_after_restart(before)
    assert_settled(after, *({PEER_C} - set(before.blamed)))
    assert not set(after.again) & set(kept_of_origin(before))
    assert after.stage.transfer.snapshot().rejections <= 2


def again_after_restart(before: Tribunal) -> Tribunal:
    """Another process goes on with what is recorded; requests that were under way have left their bytes."""
    saved = [each for each in before.stage.log if isinstance(each, cmd.SaveProgress)][-1]
    restored = Restored(snapshot=before.stage.transfer.snapshot(), held=saved.held)
    return Tribunal(64, before.peers, restored=restored, part=before.part).start().run()


def kept_of_origin(before: Tribunal) -> list[int]:
    """Chunks that are the origin's, recorded or not: it is asked for those again that were not recorded."""
    held = RangeSet([each for each in before.stage.log if isinstance(each, cmd.SaveProgress)][-1].held)
    from_origin = before.stage.transfer.snapshot().from_origin
    return [at for at in range(64) if from_origin >> at & 1 and ByteRange(at * CHUNK, (at + 1) * CHUNK) in held]


def test_who_vouched_for_what_is_being_fetched_again_is_not_forgotten_by_a_restart() -> None:
    """It is the only chunk that was altered, and it had been thrown away already."""
    peers = three()
    peers[PEER_C] = Giver.of(OF_C, PEER_C, ALTERED[:1])
    before = Tribunal(64, peers).start()
    while ALTERED[0] not in before.again:
        count = len(before.again)
        before.run(fetches=count + 1)
        assert len(before.again) > count
    assert before.blamed == {}
    before.peers.clear()
    after = again_after_restart(before)
    assert_settled(after, PEER_C)


def test_what_nobody_vouches_for_comes_from_the_origin_first() -> None:
    """An earlier process finished it, and its vouchers are not all there; then the application finds it invalid."""
    world = found_invalid([*said_of(OF_A, PEER_A), *said_of(OF_B, PEER_B)])
    assert world.stage.transfer.held_bytes == 48 * CHUNK
    world.run()
    assert_settled(world)
    assert sorted(world.again) == list(OF_C), "the validator was asked as soon as something was another"


def test_what_an_earlier_process_heard_is_enough_to_find_who_lied() -> None:
    """It does not know the digests of what it holds, only what was said of them."""
    world = found_invalid([*said_of(OF_A, PEER_A), *said_of(OF_B, PEER_B), *said_of(OF_C, PEER_C, ALTERED)])
    assert world.stage.transfer.held_bytes == 64 * CHUNK
    world.run()
    assert_settled(world, PEER_C)
    assert world.rejections == 1
    assert set(OF_C) <= set(world.again)


def said_of(chunks: range, signer: PeerId, wrong: tuple[int, ...] = ()) -> list[Voucher]:
    """Vouchers for these."""
    content_id = Tribunal(64, three()).start().run().stage.transfer.content_ids[0]
    return [vouch(content_id, chunk, signer, "noise" if chunk in wrong else TRUE) for chunk in chunks]


def found_invalid(vouchers: list[Voucher]) -> Tribunal:
    """By the application, after a restart; nobody else is there."""
    snapshot = Snapshot(facts=facts(64), finished=True, vouchers=tuple(vouchers))
    restored = Restored(snapshot=snapshot, held=(ByteRange(0, 64 * CHUNK),))
    part = {chunk: "noise" if chunk in ALTERED else TRUE for chunk in range(64)}
    world = Tribunal(64, {}, restored=restored, part=part)
    world.rejections = 1
    world.feed(ev.Decided(file=FILE, decision=Decision.INVALID))
    return world


@pytest.mark.parametrize(
    "how",
    [
        {"own": None},
        {"given": spec(anchors=tuple(digest_of(chunk) for chunk in range(64)))},
        {"given": spec(integrity=Integrity.ANCHORED, anchors=tuple(digest_of(chunk) for chunk in range(64)))},
    ],
    ids=["without a group", "with a manifest", "by a manifest only"],
)
def test_where_nothing_can_be_learned_all_of_it_comes_again(how: dict[str, object]) -> None:
    peers = {PEER_A: Giver.of(range(64), PEER_A)}
    world = Tribunal(64, peers, **how)  # type: ignore[arg-type]
    world.accepts = False
    world.start().run(fetches=1)
    assert world.rejections == 1
    assert world.stage.transfer.near is NearUse.NEVER
    assert world.stage.transfer.held_bytes == 64 * CHUNK, "one request brought everything"
    assert len(world.again) == 64


def test_a_handful_is_fetched_again_without_ado() -> None:
    world = Tribunal(4, {PEER_A: Giver.of(range(4), PEER_A, [2])}).start().run()
    assert_settled(world, PEER_A)
    assert sorted(world.again) == [0, 1, 2, 3]
    assert world.stage.transfer.near is NearUse.NEVER


def test_only_what_is_known_to_be_right_is_offered_meanwhile() -> None:
    """What we fetched ourselves stays, what others brought goes until the validator is content."""
    peers = {PEER_A: Giver.of(OF_A, PEER_A), PEER_C: Giver.of(OF_C, PEER_C, ALTERED)}
    world = Tribunal(64, peers).start().run(fetches=3)
    assert world.rejections == 1
    done = [chunk for chunk in world.again if world.stage.transfer.snapshot().from_origin >> chunk & 1]
    assert sorted(world.published) == sorted([*OF_B, *done])
    assert set(world.published.values()) == {()}
    world.run()
    assert_settled(world, PEER_C)
    assert sorted(world.published) == list(range(64))
    assert {world.published[chunk] for chunk in set(OF_A) - set(world.again)} == {(PEER_A,)}


def test_what_a_peer_sent_to_be_compared_is_passed_on_when_two_vouch_for_it() -> None:
    peers = {
        PEER_A: Giver.of(OF_A, PEER_A),
        PEER_B: Giver.of(OF_B, PEER_B),
        PEER_C: Giver.of(OF_C, PEER_C, ALTERED),
    }
    peers[PEER_B].and_of(OF_A[:4], PEER_A)
    peers[PEER_A].fresh = {OF_B[0]: TRUE}
    peers[PEER_A].wants = peers[PEER_B].wants = True
    world = Tribunal(64, peers).start().run(fetches=1)
    sent = {chunk for _, chunk in world.compared}
    assert set(OF_A[:4]) <= sent
    assert OF_B[0] in sent
    offered = {chunk: signers for chunk, signers in world.published.items() if chunk in sent}
    assert offered == {OF_B[0]: (PEER_B, PEER_A)}


def test_it_can_be_explained_what_came_again_and_why() -> None:
    world = Tribunal(64, three()).start().run()
    transfer = world.stage.transfer
    assert transfer.chunks is not None
    snapshot = transfer.snapshot()
    told = {
        chunk: (span.source, span.reason)
        for span in spans(snapshot.provenance, world.stage.layout, RangeSet(transfer.filled), NO_CHUNKS)
        for chunk in world.stage.layout.touched_by(span.item)
    }
    sampled = set(world.again) - set(OF_C)
    assert sampled
    assert {told[chunk] for chunk in sampled} == {(ORIGIN, Reason.COPY_REJECTED)}
    assert {told[chunk][0] for chunk in OF_C} == {ORIGIN}
    assert {told[chunk] for chunk in set(OF_A) - sampled} == {(peer_source(PEER_A), Reason.NEAREST)}
    lines = [each.text for each in world.stage.log if isinstance(each, cmd.LogLine)]
    assert "rejected, comparing with the origin: wrong" in lines
