"""`plan`: near before far, rarest first, nothing twice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.scheduler import astray, plan
from agent.core.sources import CACHE, ORIGIN, NearSource, SourceId, SourceKind, kind_of
from agent.core.tuning import MIB, Tuning
from agent.core.view import Assignment, OriginReadiness, View
from validation.content import MIN_CHUNK_BYTES, Bitfield, ChunkLayout, bitfield, chunks_in

A, B, C = (SourceId(f"peer:{letter}") for letter in "abc")


def near(source: SourceId, have: str, claimed: str = "", slots: int = 4, cooling: bool = False) -> NearSource:
    return NearSource(
        source=source, have=row(have), claimed=row(claimed), free_slots=0 if cooling else slots, cooling=cooling
    )


def row(drawn: str) -> Bitfield:
    return bitfield(number for number, letter in enumerate(drawn) if letter == "*")


def view(missing: str, *sources: NearSource, **changes: object) -> View:
    given: dict[str, object] = {
        "layout": ChunkLayout.for_length(len(missing) * MIN_CHUNK_BYTES),
        "missing": row(missing),
        "origin_only": Bitfield(0),
        "begun": Bitfield(0),
        "near": sources,
        "near_slots": 12,
        "origin": OriginReadiness.READY,
        "origin_chunks": None,
    }
    return View(**(given | changes))  # type: ignore[arg-type]


def planned(of: View, seed: int = 1, **tuning: int) -> list[Assignment]:
    return plan(of, Tuning(**tuning), random.Random(seed))  # type: ignore[arg-type]


def chunks_of(assignments: list[Assignment], source: SourceId) -> Bitfield:
    return bitfield(chunk for each in assignments if each.source == source for chunk in chunks_in(each.chunks))


def test_near_before_far() -> None:
    made = planned(view("****", near(A, "*-*-")))
    assert chunks_of(made, A) == row("*-*-")
    assert chunks_of(made, ORIGIN) == row("-*--")  # one run, from the first


def test_own_cache_before_peers_and_in_order() -> None:
    made = planned(view("***", near(CACHE, "***"), near(A, "***"), near_slots=1))
    assert made == [Assignment(source=CACHE, first=0, last=2)]  # type: ignore[arg-type]


def test_rarest_first() -> None:
    for seed in range(20):
        made = planned(view("***", near(A, "***"), near(B, "**-"), near(C, "*--")), seed, near_request_chunks=1)
        assert next(each.first for each in made if each.source == A) == 2


def test_a_request_stops_at_its_size() -> None:
    chunks = "*" * 64
    by_count = planned(view(chunks, near(CACHE, chunks, slots=1)), near_request_chunks=5)
    assert by_count[0].last - by_count[0].first + 1 == 5
    by_bytes = planned(view(chunks, near(CACHE, chunks, slots=1)), near_request_bytes=2 * MIB)
    assert by_bytes[0].last - by_bytes[0].first + 1 == 8


def test_slots_of_one_source_and_of_all() -> None:
    chunks = "*" * 64
    one = planned(view(chunks, near(A, chunks, slots=3)), near_request_chunks=1)
    assert sum(each.source == A for each in one) == 3
    few = planned(view(chunks, near(A, chunks), near(B, chunks), near_slots=5), near_request_chunks=1)
    assert sum(each.source != ORIGIN for each in few) == 5


def test_what_is_near_is_not_asked_of_the_origin_even_when_nobody_has_a_slot() -> None:
    assert planned(view("**", near(A, "**", slots=0))) == []


def test_claimed_chunks_are_waited_for() -> None:
    assert chunks_of(planned(view("***", near(A, "---", "**-"))), ORIGIN) == row("--*")
    assert planned(view("**", near(A, "--", "**"))) == []


def test_nobody_waits_for_a_source_that_cools_off() -> None:
    made = planned(view("**", near(A, "**", cooling=True)))
    assert chunks_of(made, ORIGIN) == row("**")


def test_contested_chunks_come_from_the_origin_only() -> None:
    made = planned(view("**", near(A, "**"), origin_only=row("*-")))
    assert (chunks_of(made, ORIGIN), chunks_of(made, A)) == (row("*-"), row("-*"))


def test_what_the_origin_had_begun_is_finished_first() -> None:
    made = planned(view("****", near(A, "----"), begun=row("--*-"), origin_chunks=1))
    assert made == [Assignment(source=ORIGIN, first=2, last=2)]  # type: ignore[arg-type]


def test_the_origins_share_is_limited_and_somewhere() -> None:
    starts = {planned(view("*" * 64, origin_chunks=4), seed)[0].first for seed in range(40)}
    assert len(starts) > 10, "many agents begin at different places"
    assert all(
        each.last - each.first < 4 for seed in range(40) for each in planned(view("*" * 64, origin_chunks=4), seed)
    )


def test_an_engaged_origin_is_left_alone() -> None:
    assert planned(view("**", origin=OriginReadiness.ENGAGED)) == []


def test_the_whole_or_nothing() -> None:
    whole = [Assignment(source=ORIGIN, first=0, last=3)]  # type: ignore[arg-type]
    assert planned(view("--**", origin=OriginReadiness.WHOLE_ONLY)) == whole
    assert planned(view("----", origin=OriginReadiness.WHOLE_ONLY)) == []
    beside = planned(view("--**", near(A, "--*-"), origin=OriginReadiness.WHOLE_ONLY))
    assert [each.source for each in beside] == [A], "the whole would be written over what A brings"


FIELD = st.integers(0, 2**12 - 1).map(Bitfield)
SOURCES = st.lists(st.tuples(FIELD, FIELD, st.integers(0, 4), st.booleans()), max_size=5)


@given(
    FIELD,
    FIELD,
    FIELD,
    SOURCES,
    st.integers(0, 12),
    st.sampled_from(OriginReadiness),
    st.integers(0, 5),
    st.integers(),
)
def test_nothing_twice_and_nothing_unasked(
    missing: Bitfield,
    origin_only: Bitfield,
    begun: Bitfield,
    sources: list[tuple[Bitfield, Bitfield, int, bool]],
    slots: int,
    origin: OriginReadiness,
    share: int,
    seed: int,
) -> None:
    drawn = tuple(
        NearSource(
            source=SourceId(f"peer:{number}"),
            have=have,
            claimed=claimed,
            free_slots=0 if cooling else free,
            cooling=cooling,
        )
        for number, (have, claimed, free, cooling) in enumerate(sources)
    )
    given_view = view("*" * 12, *drawn, near_slots=slots, origin=origin, begun=begun)
    seen_by = replace(given_view, missing=missing, origin_only=origin_only, origin_chunks=share or None)
    made = plan(seen_by, Tuning(near_request_chunks=2), random.Random(seed))
    have = {each.source: each.have for each in drawn}
    seen = 0
    for each in made:
        assert not seen & each.chunks, "a chunk twice"
        seen |= each.chunks
        if each.source == ORIGIN and origin is OriginReadiness.WHOLE_ONLY:
            assert len(made) == 1
            continue
        assert not each.chunks & ~missing, "a chunk that is not missing"
        if kind_of(each.source) is SourceKind.PEER:
            assert not each.chunks & (~have[each.source] | origin_only)
    assert sum(each.source == ORIGIN for each in made) <= (origin is not OriginReadiness.ENGAGED)
    assert sum(each.source != ORIGIN for each in made) <= slots
    assert made == plan(seen_by, Tuning(near_request_chunks=2), random.Random(seed))


# --- in order ----------------------------------------------------------------------------------------------------


def test_from_the_cursor_on_and_around_the_end() -> None:
    (made,) = planned(view("********", cursor=5))
    assert (made.source, made.first, made.last) == (ORIGIN, 5, 7)
    (made,) = planned(view("***-----", cursor=5))
    assert (made.first, made.last) == (0, 2)
    (made,) = planned(view("******-*", cursor=3, origin_chunks=2))
    assert (made.first, made.last) == (3, 4)


def test_peers_are_asked_in_order_from_the_cursor_whatever_is_rare() -> None:
    for seed in range(10):
        made = planned(view("****", near(A, "****"), near(B, "-***"), cursor=2), seed, near_request_chunks=1)
        assert [each.first for each in made if each.first >= 2] == [2, 3]
        assert [each.first for each in made if each.first < 2][-1:] == [1] or made[-1].first == 0


def test_the_cursor_is_above_what_was_begun() -> None:
    (made,) = planned(view("********", cursor=4, begun=row("**------")))
    assert made.first == 4


def test_a_request_is_astray_when_other_chunks_come_first() -> None:
    assert astray(view("********", cursor=5), 0)  # type: ignore[arg-type]
    assert not astray(view("********", cursor=5), 5)  # type: ignore[arg-type]
    assert not astray(view("--------", cursor=5), 0)  # type: ignore[arg-type]
    assert not astray(view("********", near(A, "********"), cursor=5), 0)  # type: ignore[arg-type]


def test_a_request_that_gets_there_with_the_next_chunk_is_not_astray() -> None:
    assert not astray(view("*****---", cursor=3), 2)  # type: ignore[arg-type]
    assert astray(view("*****---", cursor=3), 1)  # type: ignore[arg-type]
