"""The clocks of one job, each alone; what a job does when one is over is in test_bits_states.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.patience import DAY_S, Elapsed, Overdue, Patience, PatienceSettings

SETTINGS = PatienceSettings(
    minimum_retry_delay_s=5.0,
    no_progress_timeout_s=100.0,
    maximum_download_time_s=200.0,
    inactivity_timeout_s=1000.0,
)


def test_the_defaults_are_those_of_bits() -> None:
    """1.4: 600 s, 14 days, 90 days, 90 days."""
    settings = PatienceSettings()
    assert settings.minimum_retry_delay_s == 600.0
    assert settings.no_progress_timeout_s == 1_209_600.0
    assert settings.maximum_download_time_s == 7_776_000.0
    assert settings.inactivity_timeout_s == 90 * DAY_S


@pytest.mark.parametrize(
    ("delay", "timeout", "retries"), [(5, 0, False), (5, 5, True), (6, 5, False), (5, 6, True)]
)
def test_when_a_retry_makes_sense(delay: float, timeout: float, retries: bool) -> None:
    assert PatienceSettings(minimum_retry_delay_s=delay, no_progress_timeout_s=timeout).retries is retries


def test_no_progress_counts_from_the_first_error() -> None:
    patience = Patience(0.0)
    patience.troubled(10.0)
    patience.troubled(50.0)
    assert patience.deadline(SETTINGS, 50.0, waiting=True) == 110.0
    assert patience.overdue(SETTINGS, 109.9, waiting=True) is None
    assert patience.overdue(SETTINGS, 110.0, waiting=True) is Overdue.NO_PROGRESS
    assert patience.overdue(SETTINGS, 110.0, waiting=False) is None
    patience.progressed(110.0)
    assert patience.overdue(SETTINGS, 111.0, waiting=True) is None


def test_what_the_network_takes_is_given_back() -> None:
    patience = Patience(0.0)
    patience.troubled(0.0)
    patience.held(60.0)
    patience.held(500.0)
    assert patience.overdue(SETTINGS, 900.0, waiting=True) is None
    assert patience.elapsed(900.0).trouble_s == 60.0
    patience.troubled(900.0)
    assert patience.deadline(SETTINGS, 900.0, waiting=True) == 940.0
    patience.held(910.0)
    patience.resumed(950.0)
    patience.troubled(950.0)
    assert patience.elapsed(960.0).trouble_s == 10.0


def test_download_time_is_that_of_work() -> None:
    patience = Patience(0.0)
    patience.work(True, 0.0)
    patience.work(True, 50.0)
    patience.work(False, 150.0)
    patience.work(False, 160.0)
    patience.work(True, 500.0)
    assert patience.active_s(510.0) == 160.0
    assert patience.deadline(SETTINGS, 510.0, waiting=False) == 550.0
    assert patience.overdue(SETTINGS, 550.0, waiting=False) is Overdue.DOWNLOAD_TIME
    patience.resumed(520.0)
    assert patience.active_s(530.0) == 10.0


def test_at_least_once_a_day() -> None:
    assert Patience(0.0).deadline(PatienceSettings(), 5.0, waiting=False) == 5.0 + DAY_S


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["touched", "progressed", "resumed", "troubled", "held", "work", "rest"]),
        st.floats(0.0, 300.0),
    ),
    max_size=20,
)


def lived(steps: list[tuple[str, float]]) -> tuple[Patience, float]:
    patience, now = Patience(0.0), 0.0
    for what, later in steps:
        now += later
        if what in ("work", "rest"):
            patience.work(what == "work", now)
        else:
            getattr(patience, what)(now)
    return patience, now


@given(STEPS, st.booleans())
def test_at_the_deadline_something_is_overdue_or_a_day_is_over(
    steps: list[tuple[str, float]], waiting: bool
) -> None:
    """A deadline at which nothing happens, and which is not later afterwards, would be a busy loop."""
    patience, now = lived(steps)
    at = patience.deadline(SETTINGS, now, waiting=waiting)
    assert at >= now
    assert patience.overdue(SETTINGS, at, waiting=waiting) is not None or at == now + DAY_S
    before = (now + at) / 2
    if now < before < at:
        assert patience.overdue(SETTINGS, before, waiting=waiting) is None


@given(STEPS)
def test_another_process_goes_on_where_this_one_was(steps: list[tuple[str, float]]) -> None:
    patience, now = lived(steps)
    elapsed = patience.elapsed(now)
    after = Patience.restored(elapsed, 7.0).elapsed(7.0)
    assert after.active_s == pytest.approx(elapsed.active_s)
    assert after.idle_s == pytest.approx(elapsed.idle_s)
    assert after.trouble_s == (None if elapsed.trouble_s is None else pytest.approx(elapsed.trouble_s))
    assert Patience.restored(Elapsed(), 7.0).overdue(SETTINGS, 8.0, waiting=True) is None
