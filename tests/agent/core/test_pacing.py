"""Bandwidth by priority and hour: parsing, and agreement with a model that walks the week minute by minute."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.pacing import NEVER, Allowance, Policy, Windows, parse_allowance, parse_windows
from agent.core.queue import BACKGROUND, Rank
from agent.core.sizes import parse_size

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MON, TUE, FRI, SAT, SUN = 0, 1, 4, 5, 6
WEEK_MINUTES = 7 * 24 * 60


def at(hours: int, minutes: int = 0, seconds: int = 0) -> int:
    return hours * 3600 + minutes * 60 + seconds


# --- allowances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", Allowance()),
        (" OFF ", Allowance()),
        ("2MB", Allowance(high=2_000_000, normal=2_000_000, low=2_000_000)),
        ("0", Allowance(high=0, normal=0, low=0)),
        ("high=off,normal=1MB,low=0", Allowance(high=None, normal=1_000_000, low=0)),
        (" LOW = 1.5 KiB , high=7", Allowance(high=7, low=1536)),
    ],
)
def test_an_allowance_is_one_rate_or_one_for_each_priority(text: str, expected: Allowance) -> None:
    assert parse_allowance(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be bytes per second such as 2MB"),
        ("fast", "not 'fast'"),
        ("-1", "not '-1'"),
        ("high=fast", "not 'fast'"),
        ("high=", "not ''"),
        ("foreground=1MB", "must name high, normal, low"),
        ("high=1MB,2MB", "not '2MB'"),
        ("high=1MB,", "must name high, normal, low"),
        ("low=1,low=2", "must name low once"),
    ],
)
def test_what_is_no_allowance_is_said_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        parse_allowance(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreground_is_never_limited() -> None:
    blocked = Allowance(high=0, normal=0, low=0)
    assert blocked.of(Rank.FOREGROUND) is None
    assert [blocked.of(rank) for rank in BACKGROUND] == [0, 0, 0]
    assert [Allowance(high=1, normal=2, low=3).of(rank) for rank in BACKGROUND] == [1, 2, 3]


def test_a_limit_below_two_kilobits_means_what_it_says() -> None:
    """BITS acts as if it were 2 kbit/s."""
    assert parse_allowance("10").of(Rank.LOW) == 10


# --- windows -------------------------------------------------------------------------------------------------


def test_work_days() -> None:
    windows = parse_windows("mon-fri 08:00-17:00, sat 09:00-12:00")
    assert not windows.contains(MON, at(8) - 1)
    assert windows.contains(MON, at(8))
    assert windows.contains(FRI, at(17) - 1)
    assert not windows.contains(FRI, at(17))
    assert windows.contains(SAT, at(9))
    assert not windows.contains(SUN, at(10))
    assert windows.next_edge(MON, at(7, 59, 30)) == 30
    assert windows.next_edge(MON, at(8)) == 9 * 3600
    assert windows.next_edge(SAT, at(12)) == at(12) + at(24) + at(8)


def test_what_goes_past_midnight_belongs_to_the_day_it_began() -> None:
    windows = parse_windows("sun 22:00-06:00")
    assert windows.contains(SUN, at(22))
    assert windows.contains(MON, at(5, 59))
    assert not windows.contains(MON, at(6))
    assert not windows.contains(SUN, at(5))
    assert windows.next_edge(SUN, at(23)) == 7 * 3600  # the end of the week is no edge


def test_midnight_is_the_end_of_a_day_in_both_spellings() -> None:
    assert parse_windows("mon 22:00-00:00") == parse_windows("mon 22:00-24:00")


def test_days_may_go_past_the_end_of_the_week() -> None:
    assert parse_windows("fri-mon 10:00-11:00") == parse_windows("mon 10:00-11:00, fri-sun 10:00-11:00")


def test_a_whole_day_and_a_whole_week() -> None:
    day = parse_windows("mon 00:00-24:00")
    assert day.contains(MON, 0)
    assert day.contains(MON, at(24) - 1)
    assert not day.contains(TUE, 0)
    week = parse_windows("daily 00:00-24:00")
    assert week.contains(SUN, at(23, 59, 59))
    assert week.next_edge(SUN, 0) is None
    assert parse_windows("daily 12:00-12:01, daily 12:01-12:00") == week


def test_a_leap_second_belongs_to_the_next_day() -> None:
    assert parse_windows("mon 00:00-24:00").contains(SUN, at(24))


@pytest.mark.parametrize("text", ["off", " Off "])
def test_off_is_never(text: str) -> None:
    assert parse_windows(text) == NEVER
    assert not NEVER.contains(MON, 0)
    assert NEVER.next_edge(MON, 0) is None


@pytest.mark.parametrize(
    "text", ["MON-Fri 8:00-17:00", "mon-fri  08:00 - 17:00", "mon-wed 08:00-17:00,thu-fri 8:00-17:00"]
)
def test_spelling_is_free_where_it_is_clear(text: str) -> None:
    assert parse_windows(text) == parse_windows("mon-fri 08:00-17:00")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be hours such as"),
        ("mon-fri 08:00-17:00,", "not ''"),
        ("08:00-17:00", "must be hours such as"),
        ("mon 8-17", "must be hours such as"),
        ("mon 08:00-17:00; tue 08:00-17:00", "must be hours such as"),
        ("monday 08:00-17:00", "not 'monday'"),
        ("mon-daily 08:00-17:00", "not 'daily'"),
        ("daily-fri 08:00-17:00", "not 'daily'"),
        ("mon 08:60-17:00", "not 08:60"),
        ("mon 08:00-24:01", "not 24:01"),
        ("mon 24:00-06:00", "must begin before 24:00"),
        ("mon 08:00-08:00", "a whole day is 00:00-24:00"),
    ],
)
def test_what_are_no_windows_is_said_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        parse_windows(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- against a naive model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One time as the user means it."""

    first: int
    days: int
    start: int
    minutes: int

    @property
    def text(self) -> str:
        last = DAYS[(self.first + self.days - 1) % 7]
        stop = (self.start + self.minutes) % 1440 or 1440  # midnight is 24:00 of the day before
        hours = f"{self.start // 60:02}:{self.start % 60:02}-{stop // 60:02}:{stop % 60:02}"
        return f"{DAYS[self.first]}-{last} {hours}" if self.days > 1 else f"{DAYS[self.first]} {hours}"

    def mark(self, week: list[bool]) -> None:
        for number in range(self.days):
            midnight = (self.first + number) * 1440
            for minute in range(self.minutes):
                week[(midnight + self.start + minute) % WEEK_MINUTES] = True


def model(entries: list[Entry]) -> list[bool]:
    week = [False] * WEEK_MINUTES
    for entry in entries:
        entry.mark(week)
    return week


def is_writable(entry: Entry) -> bool:
    """A whole day can only be written as 00:00-24:00."""
    return entry.minutes < 1440 or entry.start == 0


ENTRIES = st.builds(Entry, st.integers(0, 6), st.integers(1, 7), st.integers(0, 1439), st.integers(1, 1440)).filter(
    is_writable
)
# Few and round ones too, so that they touch, and cover whole days.
ROUND = st.builds(
    Entry,
    st.integers(0, 6),
    st.integers(1, 7),
    st.sampled_from([0, 360, 720, 1080]),
    st.sampled_from([360, 720, 1080, 1440]),
).filter(is_writable)
WEEKS = st.lists(ENTRIES | ROUND, min_size=1, max_size=5)
SECONDS = st.integers(0, 59)


def windows_of(entries: list[Entry]) -> Windows:
    return parse_windows(", ".join(entry.text for entry in entries))


@given(WEEKS)
def test_contains_is_what_the_model_says_in_every_minute(entries: list[Entry]) -> None:
    windows, week = windows_of(entries), model(entries)
    for second in (0, 59):
        found = [windows.contains(minute // 1440, minute % 1440 * 60 + second) for minute in range(WEEK_MINUTES)]
        assert found == week


@given(WEEKS, st.integers(0, WEEK_MINUTES - 1), SECONDS)
def test_next_edge_is_the_next_change_of_the_model(entries: list[Entry], minute: int, second: int) -> None:
    week = model(entries)
    ahead = (n for n in range(1, WEEK_MINUTES) if week[(minute + n) % WEEK_MINUTES] != week[minute])
    expected = next((n * 60 - second for n in ahead), None)
    assert windows_of(entries).next_edge(minute // 1440, minute % 1440 * 60 + second) == expected


LIMITS = st.builds(Allowance, high=st.sampled_from([None, 0, 5]), low=st.sampled_from([None, 0]))


@given(WEEKS, WEEKS, st.tuples(LIMITS, LIMITS, LIMITS), st.integers(0, WEEK_MINUTES - 1), SECONDS)
def test_the_policy_is_what_the_model_says(
    work: list[Entry],
    maintenance: list[Entry],
    limits: tuple[Allowance, Allowance, Allowance],
    minute: int,
    second: int,
) -> None:
    policy = Policy(
        work=windows_of(work),
        work_limit=limits[0],
        other_limit=limits[1],
        maintenance=windows_of(maintenance),
        maintenance_limit=limits[2],
    )
    pairs = zip(model(maintenance), model(work), strict=True)
    week = [limits[2] if in_maintenance else limits[0 if at_work else 1] for in_maintenance, at_work in pairs]
    moment = (minute // 1440, minute % 1440 * 60 + second)
    assert policy.allowance(*moment) == week[minute]
    ahead = (n for n in range(1, WEEK_MINUTES) if week[(minute + n) % WEEK_MINUTES] != week[minute])
    assert policy.next_change(*moment) == next((n * 60 - second for n in ahead), None)
    named = frozenset(rank for rank in BACKGROUND for each in week if each.of(rank) is not None)
    assert named <= policy.limited()


# --- the policy ----------------------------------------------------------------------------------------------


def test_maintenance_beats_work_beats_other_hours() -> None:
    policy = Policy(
        work=parse_windows("mon-fri 08:00-17:00"),
        work_limit=Allowance(low=1),
        other_limit=Allowance(low=2),
        maintenance=parse_windows("mon 12:00-13:00"),
        maintenance_limit=Allowance(low=3),
    )
    hours = [(MON, at(7)), (MON, at(9)), (MON, at(12)), (TUE, at(12)), (SAT, at(12))]
    assert [policy.allowance(*hour).low for hour in hours] == [2, 1, 3, 1, 2]
    assert policy.next_change(MON, at(12)) == 3600


def test_an_edge_that_changes_nothing_wakes_nobody() -> None:
    slow = Allowance(normal=1)
    policy = Policy(work=parse_windows("daily 08:00-17:00"), work_limit=slow, other_limit=slow)
    assert policy.next_change(MON, 0) is None
    assert Policy().next_change(MON, 0) is None


def test_only_priorities_with_a_limit_at_some_hour_are_limited() -> None:
    assert Policy().limited() == frozenset()
    assert Policy(other_limit=Allowance(low=0)).limited() == {Rank.LOW}
    never = Policy(work_limit=Allowance(high=1), maintenance_limit=Allowance(high=1))
    assert never.limited() == frozenset()
    work = Policy(work=parse_windows("mon 08:00-09:00"), work_limit=Allowance(high=1))
    assert work.limited() == {Rank.HIGH}


# --- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 2**20), ("10GiB", 10 * 2**30), ("1.5 kB", 1500), ("2 TiB", 2 * 2**40), ("7b", 7), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "1 2", "-1", "1e6", "10 parsecs", "1,5MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as"):
        parse_size(text)
