"""One time for each key, and the earliest at hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.agenda import Agenda


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 50))),
            st.integers(0, 50),
        ),
        max_size=300,
    )
)
def test_it_is_what_a_dictionary_would_say(steps: list[tuple[int, int | None] | int]) -> None:
    agenda: Agenda[int] = Agenda()
    plain: dict[int, float] = {}
    for step in steps:
        if isinstance(step, tuple):
            key, at = step
            agenda.set(key, at)
            plain.pop(key, None)
            if at is not None:
                plain[key] = at
        else:
            due = agenda.due(step)
            assert sorted(due) == sorted(key for key, at in plain.items() if at <= step)
            assert [plain[key] for key in due] == sorted(plain[key] for key in due)
            for key in due:
                del plain[key]
        assert agenda.next() == min(plain.values(), default=None)
        assert len(agenda) == len(plain)


def test_times_that_change_very_often_do_not_fill_the_memory() -> None:
    agenda: Agenda[str] = Agenda()
    for number in range(10_000):
        agenda.set("a", float(number))
    assert len(agenda._heap) < 200
    assert agenda.due(1e9) == ["a"]
