"""Why a chunk came from there and from no nearer: a playbook for each reason, and what is left of it afterwards."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core import commands as cmd
from agent.core.account import account_of
from agent.core.facts import RangeSupport
from agent.core.integrity import Integrity
from agent.core.ownership import Ownership
from agent.core.provenance import Notes, Provenance, Reason, spans
from agent.core.sources import CACHE, ORIGIN, SourceId, peer_source
from agent.core.spec import NearUse, OriginUse, Restored
from agent.core.tuning import Tuning
from peer.core.failure import FailureKind
from tests.support.drawing import draw
from tests.support.playbook import (
    CHUNK,
    OWN,
    PEER_A,
    PEER_B,
    PEER_C,
    Playbook,
    Stage,
    accepted,
    anything,
    arrived,
    begun,
    corrupt,
    digested,
    facts,
    failed,
    lost,
    near_answered,
    offered,
    paused,
    probed,
    received,
    rejected,
    spec,
    ticked,
    vouch,
    wanted,
)
from validation.content import NO_CHUNKS, Bitfield, ChunkLayout, chunks_in
from validation.ranges import ByteRange
from validation.rangeset import RangeSet

A = peer_source(PEER_A)
B = peer_source(PEER_B)
CHUNKS = 16

Why = dict[int, tuple[SourceId | None, Reason]]


def why(stage: Stage) -> Why:
    """Of each chunk of which something is there."""
    account = account_of(stage.transfer)
    layout = ChunkLayout.for_length(account.length or account.held.stop)
    return {chunk: (span.source, span.reason) for span in account.spans for chunk in layout.touched_by(span.item)}


def reasons(stage: Stage) -> set[Reason]:
    return {reason for _, reason in why(stage).values()}


def bring(stage: Stage, *, rounds: int = 64) -> None:
    """Everybody answers whatever is asked of them, and all of it is right."""
    play = Playbook(stage)
    for _ in range(rounds):
        asked = next(iter(stage.open.values()), None)
        if asked is None:
            break
        begin = len(stage.log)
        play >> received(asked.source) << anything
        for each in stage.log[begin:]:
            if isinstance(each, cmd.DigestChunk):
                play >> digested(each.chunk) << anything
    play.check()


def script(stage: Stage, *inputs: object) -> Stage:
    """These things happen, whatever is commanded."""
    play = Playbook(stage)
    for each in inputs:
        play >> each << anything  # type: ignore[operator]
    play.check()
    return stage


def among(*wanting: str, chunks: int = CHUNKS, **rows: str) -> Stage:
    """In a group with others that want it as well."""
    drawn = {f"peer_{each[0]}": "-" * chunks for each in wanting} | rows
    return draw(ours="-" * chunks, wanting=tuple(wanting), **drawn)  # type: ignore[arg-type]


def ownership(stage: Stage, *others: str) -> Ownership:
    owners = Ownership(stage.transfer.content_ids[0], stage.layout.count, OWN)
    owners.become(others)  # type: ignore[arg-type]
    return owners


# --- from near ---------------------------------------------------------------------------------------------------


def test_from_the_nearest_that_had_it() -> None:
    stage = draw(ours="---", cache="*--", peer_a="-**")
    bring(stage)
    assert why(stage) == {0: (CACHE, Reason.NEAREST), 1: (A, Reason.NEAREST), 2: (A, Reason.NEAREST)}


def test_from_a_peer_although_the_cache_has_it_and_is_busy() -> None:
    one = Tuning(requests_per_source=1, near_request_chunks=1)
    stage = draw(ours="--", cache="**", peer_a="**", tuning=one)
    bring(stage)
    assert why(stage) == {0: (CACHE, Reason.NEAREST), 1: (A, Reason.NEARER_BUSY)}


# --- near sources may not be asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "origin", "reason"),
    [
        ({"near": NearUse.NEVER}, {}, Reason.PEERS_OFF),
        ({"integrity": Integrity.ANCHORED}, {}, Reason.NO_MANIFEST),
        ({}, {"etag": None}, Reason.NOT_SHAREABLE),
        ({}, {"length": None}, Reason.LENGTH_UNKNOWN),
    ],
)
def test_it_may_not_come_from_near(wishes: dict[str, object], origin: dict[str, object], reason: Reason) -> None:
    stage = Stage.new(spec(**wishes), None, None, OWN)
    script(stage, begun(), probed(facts(2, **origin)), arrived(ORIGIN, 2 * CHUNK))
    assert why(stage) == {0: (ORIGIN, reason), 1: (ORIGIN, reason)}


def test_after_a_rejected_copy_only_the_origin_is_asked() -> None:
    stage = draw(ours="--", peer_a="**")
    bring(stage)
    assert reasons(stage) == {Reason.NEAREST}
    script(stage, rejected(), begun(), probed(facts(2)), arrived(ORIGIN, 2 * CHUNK))
    assert why(stage) == {0: (ORIGIN, Reason.COPY_REJECTED), 1: (ORIGIN, Reason.COPY_REJECTED)}


# --- nobody near has it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "reason"), [(None, Reason.NO_GROUP), (OWN, Reason.NOBODY_NEAR)])
def test_nobody_else_is_there(own: str | None, reason: Reason) -> None:
    stage = draw(ours="--", own=own)  # type: ignore[arg-type]
    bring(stage)
    assert reasons(stage) == {reason}


def test_what_is_ours_and_what_we_help_others_with_and_what_nobody_began() -> None:
    stage = among(PEER_A)
    owners = ownership(stage, PEER_A)
    bring(stage)
    script(stage, ticked(2.0))
    bring(stage)
    found = why(stage)
    theirs = list(chunks_in(owners.owned_by(PEER_A)))
    assert {chunk for chunk, (_, reason) in found.items() if reason is Reason.OURS} == set(chunks_in(owners.ours))
    assert [found[chunk][1] for chunk in theirs] == [Reason.NOT_CLAIMED] + [Reason.HELPED] * (len(theirs) - 1)


def test_a_promise_that_was_not_kept() -> None:
    stage = among(PEER_A, peer_a="c" * CHUNKS)
    assert not stage.open
    script(stage, ticked(Tuning().claim_patience_s), ticked(Tuning().claim_patience_s))
    bring(stage)
    assert reasons(stage) == {Reason.LATE_CLAIM}


def test_who_promised_it_left() -> None:
    stage = script(among(PEER_A, peer_a="c" * CHUNKS), lost(PEER_A))
    bring(stage)
    assert reasons(stage) == {Reason.OWNER_LEFT}


def test_a_promise_that_was_taken_back_is_no_broken_one() -> None:
    stage = among(PEER_A, peer_a="c" * CHUNKS)
    owners = ownership(stage, PEER_A)
    script(stage, offered(PEER_A, wants=True))
    assert why(script(stage, arrived(ORIGIN, CHUNK))) == {next(chunks_in(owners.ours)): (ORIGIN, Reason.OURS)}


def test_what_the_origin_had_begun_is_finished_though_it_belongs_to_another() -> None:
    stage = Stage.new(None, None, None, OWN)
    script(stage, begun(), probed(facts(CHUNKS)), near_answered())
    owners = ownership(stage, PEER_A)
    theirs = next(chunk for chunk in chunks_in(owners.owned_by(PEER_A)) if chunk > 2)
    script(stage, arrived(ORIGIN, theirs * CHUNK + 1000), offered(PEER_A, wants=True))
    script(stage, failed(ORIGIN, FailureKind.ABORTED), arrived(ORIGIN, 1000))
    found = why(stage)
    assert found[theirs] == (ORIGIN, Reason.BEGUN)
    assert found[0] == (ORIGIN, Reason.NOBODY_NEAR)


def test_who_reads_the_file_waits_for_nobody() -> None:
    stage = draw(ours="-" * 8, wanting=(PEER_A,), spec=spec(on_demand=True), peer_a="-" * 8)
    owners = ownership(stage, PEER_A)
    script(stage, wanted((0, 8 * CHUNK)))
    bring(stage)
    found = why(stage)
    assert {chunk for chunk, (_, reason) in found.items() if reason is Reason.IN_ORDER} == set(
        chunks_in(owners.owned_by(PEER_A))
    )


def test_an_origin_without_ranges_sends_what_was_near_as_well() -> None:
    stage = draw(ours="---", origin=facts(3, ranges=RangeSupport.NONE), peer_a="*--")
    bring(stage)
    assert why(stage) == {
        0: (ORIGIN, Reason.WHOLE_ONLY),
        1: (ORIGIN, Reason.NO_GROUP),
        2: (ORIGIN, Reason.NO_GROUP),
    }


def test_a_promise_that_stands_is_no_broken_one_when_all_of_it_has_to_be_fetched() -> None:
    """Whoever owns the first chunk fetches the whole."""
    drawn = {"ours": "---", "origin": facts(3, ranges=RangeSupport.NONE)}
    stages = [
        draw(wanting=(peer,), **{f"peer_{peer[0]}": "--c"}, **drawn)  # type: ignore[arg-type]
        for peer in (PEER_A, PEER_B, PEER_C)
    ]
    stage = next(each for each in stages if each.open)
    bring(stage)
    assert reasons(stage) <= {Reason.OURS, Reason.WHOLE_ONLY}


# --- somebody near has it, and that does not help ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"origin_floor": 100_000}, Reason.BELOW_FLOOR),
        ({"origin_use": OriginUse.LEAST_TIME}, Reason.LEAST_TIME),
    ],
)
def test_the_origin_tops_up(wishes: dict[str, object], reason: Reason) -> None:
    stage = draw(ours="-" * CHUNKS, own=OWN, spec=spec(**wishes), peer_a="*" * CHUNKS)
    at = stage.request(PEER_A).item.start
    for number in range(6):
        stage.now += 1.0
        script(stage, arrived(PEER_A, 20_000, start=at + number * 20_000), ticked(0.0))
    script(stage, arrived(ORIGIN, CHUNK))
    assert {pair for pair in why(stage).values() if pair[0] == ORIGIN} == {(ORIGIN, reason)}


def test_a_corrupt_copy() -> None:
    stage = script(draw(ours="a**", peer_a="***", peer_b="*--"), corrupt(chunk=0))
    bring(stage)
    assert why(stage)[0] == (ORIGIN, Reason.BAD_COPY)


def test_vouchers_that_contradict_each_other() -> None:
    stage = draw(ours="--", peer_a="**")
    ids = stage.transfer.content_ids
    said = [vouch(ids[0], 0, PEER_A), vouch(ids[0], 0, PEER_B, "other"), vouch(ids[0], 1, PEER_A)]
    script(stage, received(PEER_A, vouchers=said), digested(1))
    bring(stage)
    assert why(stage) == {0: (ORIGIN, Reason.BAD_COPY), 1: (A, Reason.NEAREST)}


def test_a_chunk_without_a_voucher() -> None:
    stage = script(draw(ours="-", peer_a="*"), received(PEER_A, vouchers=()))
    bring(stage)
    assert why(stage) == {0: (ORIGIN, Reason.UNPROVEN)}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FailureKind.BUSY, Reason.NEAR_BUSY),
        (FailureKind.STALLED, Reason.NEAR_SILENT),
        (FailureKind.CONNECTION_CLOSED, Reason.NEAR_FAILED),
    ],
)
def test_a_near_source_that_fails(kind: FailureKind, reason: Reason) -> None:
    stage = script(draw(ours="-", own=OWN, peer_a="*"), failed(PEER_A, kind, retry_after_s=60.0))
    while not stage.open:
        script(stage, ticked())
        if stage.open and next(iter(stage.open.values())).source == A:
            script(stage, failed(PEER_A, kind, retry_after_s=60.0))
    bring(stage)
    assert why(stage) == {0: (ORIGIN, reason)}


def test_a_near_source_that_sends_nothing_is_not_waited_for() -> None:
    stage = script(draw(ours="--", own=OWN, peer_a="**"), ticked(Tuning().quiet_first_s))
    (other,) = (each.item.start // CHUNK for each in stage.open.values() if each.source == ORIGIN)
    script(stage, arrived(ORIGIN, CHUNK))
    assert why(stage)[other] == (ORIGIN, Reason.NEAR_SILENT)


def test_who_takes_too_long_is_cut_off_and_the_origin_asked() -> None:
    stage = draw(ours="--", own=OWN, peer_a="*-", peer_b="-*")
    script(stage, received(PEER_B), digested(1), arrived(PEER_A, 100))
    while not any(isinstance(each, cmd.AbortFetch) for each in stage.log):
        script(stage, ticked())
    script(stage, failed(PEER_A, FailureKind.ABORTED))
    bring(stage)
    assert why(stage) == {0: (ORIGIN, Reason.NEAR_SLOW), 1: (B, Reason.NEAREST)}


# --- what is left of it ------------------------------------------------------------------------------------------


def again(stage: Stage) -> Stage:
    """The next process, with what this one left."""
    transfer = stage.transfer
    left = Restored(snapshot=transfer.snapshot(), held=transfer.filled)
    return Stage.new(transfer.spec, left, None, OWN)


def test_a_restart_loses_nothing_that_was_recorded() -> None:
    stage = draw(ours="----", own=OWN, peer_a="**--")
    script(stage, received(PEER_A), digested(*range(2)))
    script(stage, arrived(ORIGIN, CHUNK + 1000), paused())
    before = why(stage)
    assert len(before) > 1
    after = again(stage)
    assert why(after) == before
    script(after, begun(), probed(facts(4)))
    whole = [each.chunk for each in after.log if isinstance(each, cmd.DigestChunk)]
    assert len(whole) > 1
    script(after, digested(*whole))
    assert why(after) == before
    assert account_of(after.transfer) == account_of(stage.transfer)


def test_a_finished_file_is_explained_after_a_restart() -> None:
    stage = draw(ours="--", peer_a="**")
    bring(stage)
    script(stage, accepted())
    assert why(again(stage)) == {0: (A, Reason.NEAREST), 1: (A, Reason.NEAREST)}


def test_what_came_after_the_record_is_not_made_up() -> None:
    """The origin was asked for all of it when the row was written; then a peer came, and then the kill."""
    stage = Stage.new(None, None, None, OWN)
    script(stage, begun(), probed(facts(4)), near_answered(), arrived(ORIGIN, CHUNK), digested(0))
    recorded = stage.transfer.snapshot()
    left = Restored(snapshot=recorded, held=(ByteRange(0, 3 * CHUNK),))
    after = Stage.new(None, left, None, OWN)
    assert why(after) == {
        0: (ORIGIN, Reason.NOBODY_NEAR),
        1: (None, Reason.UNRECORDED),
        2: (None, Reason.UNRECORDED),
    }


def test_of_what_an_older_version_left_the_origins_part_is_known() -> None:
    stage = draw(ours="*-*")
    assert why(stage) == {0: (ORIGIN, Reason.UNRECORDED), 2: (ORIGIN, Reason.UNRECORDED)}


def test_content_that_changed_is_explained_anew() -> None:
    stage = draw(ours="--", peer_a="**")
    bring(stage)
    script(stage, rejected(), begun(), probed(facts(2, etag='"v2"')), near_answered(), offered(PEER_A, []))
    assert why(stage) == {}


def test_nothing_is_known_of_a_file_that_has_not_begun() -> None:
    account = account_of(Stage.new().transfer)
    assert (account.spans, account.length, account.distance) == ([], None, None)
    empty = script(Stage.new(), begun(), probed(facts(0)))
    assert account_of(empty.transfer).spans == []


# --- the record itself -------------------------------------------------------------------------------------------


def test_ten_thousand_chunks_of_two_sources_in_turn_cost_little() -> None:
    notes = Notes()
    for chunk in range(10_000):
        notes.note(chunk, chunk, A if chunk % 2 else ORIGIN, Reason.NEAREST if chunk % 2 else Reason.OURS)
    assert sys.getsizeof(notes._codes) < 50_000
    assert len(notes._known) == 2


def test_runs_are_as_long_as_they_can_be_and_end_where_bytes_are_missing() -> None:
    layout = ChunkLayout(length=10 * CHUNK - 7, chunk_bytes=CHUNK)
    notes = Notes()
    notes.note(0, 5, ORIGIN, Reason.OURS)
    notes.note(2, 2, A, Reason.NEAREST)
    notes.note(6, 7, ORIGIN, Reason.OURS)
    held = RangeSet([ByteRange(0, 4 * CHUNK), ByteRange(5 * CHUNK, 10 * CHUNK - 7)])
    found = spans(notes.kept(layout.everything), layout, held, Bitfield(1 << 9))
    assert [(each.item.start, each.item.stop, each.source, each.reason) for each in found] == [
        (0, 2 * CHUNK, ORIGIN, Reason.OURS),
        (2 * CHUNK, 3 * CHUNK, A, Reason.NEAREST),
        (3 * CHUNK, 4 * CHUNK, ORIGIN, Reason.OURS),
        (5 * CHUNK, 8 * CHUNK, ORIGIN, Reason.OURS),
        (8 * CHUNK, 9 * CHUNK, None, Reason.UNRECORDED),
        (9 * CHUNK, 10 * CHUNK - 7, ORIGIN, Reason.UNRECORDED),
    ]


def test_more_sources_than_two_bytes_can_name_are_not_confused() -> None:
    notes = Notes()
    for number in range(65_537):
        notes.note(number, number, SourceId(f"peer:{number}"), Reason.NEAREST)
    kept = notes.kept(Bitfield((1 << 65_537) - 1))
    *_, (_, _, last), (_, _, lost_one) = kept.spread(65_537)
    assert last == (SourceId("peer:65534"), Reason.NEAREST)
    assert lost_one is None


def test_only_what_is_kept_is_told() -> None:
    notes = Notes()
    notes.note(0, 9, ORIGIN, Reason.OURS)
    kept = notes.kept(Bitfield(0b11))
    assert list(kept.spread(4)) == [(0, 2, (ORIGIN, Reason.OURS)), (2, 4, None)]
    assert list(Provenance(pairs=(), runs=(3, 9)).spread(2)) == [(0, 2, None)]
    fresh = Notes()
    fresh.restore(kept)
    assert list(fresh.kept(Bitfield(0b1111)).spread(4)) == list(kept.spread(4))
    assert not notes.kept(NO_CHUNKS).pairs[1:]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words_of_its_own(reason: Reason) -> None:
    assert len(reason.meaning) > 10
    assert [each for each in Reason if each.meaning == reason.meaning] == [reason]


# --- time --------------------------------------------------------------------------------------------------------


def test_time_is_from_the_first_request_to_the_last_byte_without_pauses() -> None:
    stage = Stage.new()
    script(stage, begun(), probed(facts(4)), near_answered())
    for _ in range(2):
        stage.now += 2.0
        play = Playbook(stage)
        start = max(each.stop for each in stage.transfer.filled) if stage.transfer.filled else 0
        play >> arrived(ORIGIN, CHUNK, start=start) << anything
        play.check()
    stage.now += 50.0
    script(stage, paused(), failed(ORIGIN, FailureKind.ABORTED))
    stage.now += 100.0
    script(stage, begun(), probed(facts(4)), near_answered())
    stage.now += 1.0
    script(stage, arrived(ORIGIN, 2 * CHUNK))
    account = account_of(stage.transfer)
    assert account.seconds == 5.0
    assert account.fastest == 2 * CHUNK
    assert account.least_s == 2.0
    assert account.distance == 2.5
    assert account_of(again(stage).transfer).distance == 2.5


def test_less_than_a_second_says_nothing_of_the_best_rate() -> None:
    stage = Stage.new()
    script(stage, begun(), probed(facts(1)), near_answered())
    stage.now += 0.5
    bring(stage)
    account = account_of(stage.transfer)
    assert (account.seconds, account.fastest, account.distance) == (0.5, None, None)


def test_the_distance_is_never_below_one() -> None:
    stage = Stage.new()
    script(stage, begun(), probed(facts(4)), near_answered())
    stage.now += 1.0
    script(stage, arrived(ORIGIN, 10))
    stage.now += 0.9
    script(stage, arrived(ORIGIN, 3 * CHUNK, start=10))
    assert account_of(stage.transfer).distance == 1.0


@given(st.integers(1, 1 << 40), st.floats(0.001, 1e5), st.floats(1.0, 1e9))
@example(5 << 20, 1.152, 1.0)
def test_not_by_the_last_bit_either(received: int, seconds: float, fastest: float) -> None:
    nothing = account_of(Stage.new().transfer)
    account = replace(nothing, received=received, seconds=seconds, fastest=fastest)
    assert account.distance is not None
    assert account.distance >= 1.0
