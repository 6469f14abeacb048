"""How fast each priority may read from origins, and at which hours of the week. Values and their spelling.

The hours follow local wall-clock time; the caller looks at them again at least every 30 seconds, so that a changed
clock and daylight saving are noticed. That is a deliberate difference from BITS, whose windows run on elapsed time
and do not see a changed clock. Nor is its rule taken over that a limit below 2 kbit/s acts like 2: a limit means
what it says, and 0 blocks. FOREGROUND jobs and peers are never limited here.
Never knows: what time it is, jobs, sockets.

Sources: bits-reference 1.3, 1.5, 7.3 (work hours, other hours, and maintenance, which beats both).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from agent.core.queue import BACKGROUND, Rank
from agent.core.sizes import parse_size

DAY_S = 86_400
WEEK_S = 7 * DAY_S
OFF = "off"


# --- how fast ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Bytes per second that all jobs of one priority may read from origins together. None: no limit; 0: blocked."""

    high: int | None = None
    normal: int | None = None
    low: int | None = None

    def of(self, rank: Rank) -> int | None:
        """The limit of one priority; FOREGROUND has none."""
        match rank:
            case Rank.FOREGROUND:
                return None
            case Rank.HIGH:
                return self.high
            case Rank.NORMAL:
                return self.normal
            case Rank.LOW:
                return self.low
            case _:
                assert_never(rank)


NO_LIMITS = Allowance()
_NAMES = tuple(rank.name.lower() for rank in BACKGROUND)


def parse_allowance(text: str) -> Allowance:
    """What `off`, `2MB` (each of the three), or `high=off,normal=1MB,low=0` says; who is left out has no limit.

    Raises ValueError: a sentence that goes on after the name of a setting.
    """
    if "=" not in text:
        rate = _rate(text)
        return Allowance(high=rate, normal=rate, low=rate)
    rates: dict[str, int | None] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if name not in _NAMES or not equals:
            raise ValueError(
                f"must name {', '.join(_NAMES)}, as in high=off,normal=1MB,low=0, not {part.strip()!r}"
            )
        if name in rates:
            raise ValueError(f"must name {name} once, not twice")
        rates[name] = _rate(value)
    return Allowance(**rates)


def _rate(text: str) -> int | None:
    if text.strip().lower() == OFF:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(
            f"must be bytes per second such as 2MB, 0 or off, or high=off,normal=1MB,low=0, not {text.strip()!r}"
        ) from error


# --- at which hours ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Times that come back every week. Weekdays count from Monday, which is 0; seconds from midnight."""

    spans: tuple[tuple[int, int], ...] = ()
    """Half-open, in seconds of the week, sorted; no two overlap or touch, except at the end of the week."""

    def contains(self, weekday: int, second_of_day: int) -> bool:
        """True inside one of the times."""
        return self._within(_moment(weekday, second_of_day))

    def next_edge(self, weekday: int, second_of_day: int) -> int | None:
        """Seconds (1 to a week) until `contains` changes; None when it never does: no time at all, or all the
        week."""
        now = _moment(weekday, second_of_day)
        inside = self._within(now)
        edges = sorted((edge - now - 1) % WEEK_S + 1 for span in self.spans for edge in span)
        return next((ahead for ahead in edges if self._within((now + ahead) % WEEK_S) != inside), None)

    def _within(self, moment: int) -> bool:
        found = bisect_right(self.spans, moment, key=lambda span: span[0])
        return found > 0 and moment < self.spans[found - 1][1]


NEVER = Windows()


def parse_windows(text: str) -> Windows:
    """The times that `mon-fri 08:00-17:00, sat 09:00-12:00`, `daily 22:00-06:00` or `mon 00:00-24:00` says.

    What goes past midnight belongs to the day on which it began; `fri-mon` goes past the week's end. `off`: never.
    Raises ValueError: a sentence that goes on after the name of a setting.
    """
    if text.strip().lower() == OFF:
        return NEVER
    spans: list[tuple[int, int]] = []
    for part in text.split(","):
        days, start, stop = _entry(part.strip())
        for day in days:
            spans += _in_week(day * DAY_S + start, day * DAY_S + stop)
    return Windows(spans=_merged(spans))


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ENTRY = re.compile(r"([a-z]+)(?:-([a-z]+))?\s+([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})")


def _moment(weekday: int, second_of_day: int) -> int:
    """Second of the week. A leap second at the week's end is the first one of the next."""
    return (weekday * DAY_S + second_of_day) % WEEK_S


def _entry(text: str) -> tuple[list[int], int, int]:
    """Days, and seconds after the midnight before: the end lies after the start, if need be on the next day."""
    match = _ENTRY.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"must be hours such as mon-fri 08:00-17:00, separated by commas, not {text!r}")
    days = _days(match[1], match[2])
    start, stop = _second(match[3], match[4]), _second(match[5], match[6])
    if start == DAY_S:
        raise ValueError(f"must begin before 24:00, not as {text!r}")
    if start == stop:
        raise ValueError(f"must end at another time than it begins (a whole day is 00:00-24:00), not as {text!r}")
    return days, start, stop if stop > start else stop + DAY_S


def _days(first: str, last: str | None) -> list[int]:
    if first == "daily" and last is None:
        return list(range(7))
    for name in (first, last):
        if name is not None and name not in _DAYS:
            raise ValueError(f"must name days as {', '.join(_DAYS)} or daily, not {name!r}")
    begin = _DAYS.index(first)
    count = 1 if last is None else (_DAYS.index(last) - begin) % 7 + 1
    return [(begin + number) % 7 for number in range(count)]


def _second(hours: str, minutes: str) -> int:
    second = int(hours) * 3600 + int(minutes) * 60
    if int(minutes) > 59 or second > DAY_S:
        raise ValueError(f"must be times from 00:00 to 24:00, not {hours}:{minutes}")
    return second


def _in_week(start: int, stop: int) -> list[tuple[int, int]]:
    return [(start, stop)] if stop <= WEEK_S else [(start, WEEK_S), (0, stop - WEEK_S)]


def _merged(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


# --- both ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which allowance holds when: maintenance hours beat work hours, these beat all other hours."""

    work: Windows = NEVER
    work_limit: Allowance = NO_LIMITS
    other_limit: Allowance = NO_LIMITS
    maintenance: Windows = NEVER
    maintenance_limit: Allowance = NO_LIMITS

    def allowance(self, weekday: int, second_of_day: int) -> Allowance:
        """What holds at this time of the week."""
        if self.maintenance.contains(weekday, second_of_day):
            return self.maintenance_limit
        return self.work_limit if self.work.contains(weekday, second_of_day) else self.other_limit

    def next_change(self, weekday: int, second_of_day: int) -> int | None:
        """Seconds (1 to a week) until another allowance holds; None when it is always the same."""
        now = self.allowance(weekday, second_of_day)
        ahead = 0
        while ahead < WEEK_S:
            moment = second_of_day + ahead
            edges = (self.work.next_edge(weekday, moment), self.maintenance.next_edge(weekday, moment))
            nearest = min((edge for edge in edges if edge is not None), default=None)
            if nearest is None:
                return None
            ahead += nearest
            if self.allowance(weekday, second_of_day + ahead) != now:
                return ahead
        return None

    def limited(self) -> frozenset[Rank]:
        """The priorities that have a limit at some hour."""
        some = [self.other_limit]
        some += [self.work_limit] if self.work.spans else []
        some += [self.maintenance_limit] if self.maintenance.spans else []
        return frozenset(rank for rank in BACKGROUND if any(each.of(rank) is not None for each in some))
