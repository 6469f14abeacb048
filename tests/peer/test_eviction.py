"""Which records go: expired first, then least recently used; never more than needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peer.core.eviction import EvictionLimits, Usage, choose, shrink
from validation.content import ContentId

LIMITS = EvictionLimits(max_bytes=100, max_age_s=50)


def usage(name: str, size: int, at: float, busy: bool = False) -> Usage:
    return Usage(content_id=ContentId(name), bytes_held=size, last_access_at=at, busy=busy)


def test_nothing_goes_while_all_fits() -> None:
    assert choose([usage("a", 50, 1), usage("b", 40, 2)], 10, 10, LIMITS) == ()


def test_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    records = [usage("new", 30, 9), usage("old", 30, 1), usage("mid", 30, 5)]
    assert choose(records, 11, 10, LIMITS) == (ContentId("old"),)
    assert choose(records, 41, 10, LIMITS) == (ContentId("old"), ContentId("mid"))


def test_expired_ones_go_even_when_there_is_room() -> None:
    records = [usage("aged", 1, 0), usage("fresh", 1, 50)]
    assert choose(records, 1, 51, LIMITS) == (ContentId("aged"),)
    assert shrink(records, 51, LIMITS) == (ContentId("aged"),)
    assert shrink(records, 50, LIMITS) == ()


def test_busy_ones_stay_and_count() -> None:
    records = [usage("busy", 80, 0, busy=True), usage("idle", 20, 9)]
    assert choose(records, 20, 10, LIMITS) == (ContentId("idle"),)
    assert choose(records, 21, 10, LIMITS) is None
    assert shrink(records, 1000, LIMITS) == (ContentId("idle"),)


def test_a_clock_set_back_expires_nothing() -> None:
    assert shrink([usage("a", 1, 1e9)], 0, LIMITS) == ()
    assert choose([usage("a", 1, 1e9)], 1, 0, LIMITS) == ()


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 90), st.booleans()), max_size=8),
    st.integers(0, 120),
    st.integers(0, 100),
)
def test_it_fits_after_and_the_order_does_not_matter(
    rows: list[tuple[int, int, bool]], need: int, now: int
) -> None:
    records = [usage(f"{number:02}", size, at, busy) for number, (size, at, busy) in enumerate(rows)]
    drop = choose(records, need, now, LIMITS)
    assert drop == choose(records[::-1], need, now, LIMITS)
    if drop is None:
        assert sum(item.bytes_held for item in records if item.busy) + need > LIMITS.max_bytes
    else:
        kept = [item for item in records if item.content_id not in drop]
        assert sum(item.bytes_held for item in kept) + need <= LIMITS.max_bytes
        assert {item.content_id for item in records if item.busy}.isdisjoint(drop)
        assert set(shrink(records, now, LIMITS)) <= set(drop)
