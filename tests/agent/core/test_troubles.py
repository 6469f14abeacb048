"""What a failure means for the whole file."""

from __future__ import annotations

import random

import pytest

from agent.core.troubles import Troubles
from agent.core.tuning import Tuning
from peer.core.failure import FailureKind
from tests.support.playbook import failure, spec

NOT_FOUND = failure(FailureKind.NOT_FOUND, http_status=404)


def troubles(**changes: object) -> Troubles:
    return Troubles(spec(**changes), Tuning(), random.Random(5))


def delays(of: Troubles, count: int) -> list[float]:
    return [of.wait(failure(FailureKind.STALLED), 1000.0).retry_at - 1000.0 for _ in range(count)]


def test_a_404_is_forgiven_three_times_once_bytes_have_come() -> None:
    of = troubles()
    assert of.is_fatal(NOT_FOUND, 0)
    assert [of.is_fatal(NOT_FOUND, 1) for _ in range(4)] == [False, False, False, True]


def test_another_url_has_a_clean_sheet() -> None:
    of = troubles()
    tries = [of.is_fatal(NOT_FOUND, 1) for _ in range(4)] + [of.restarts_too_often() for _ in range(6)]
    assert tries[3]
    assert tries[-1]
    of.respecify(spec(longest_retry_s=9.0))
    assert of.is_fatal(NOT_FOUND, 1)
    of.respecify(spec(url="http://elsewhere.example/"))
    assert not of.is_fatal(NOT_FOUND, 1)
    assert not of.restarts_too_often()


@pytest.mark.parametrize("kind", [FailureKind.GONE, FailureKind.MAX_SIZE_REACHED, FailureKind.IO_ERROR])
def test_nothing_else_that_is_fatal_is_forgiven(kind: FailureKind) -> None:
    assert troubles().is_fatal(failure(kind), 1)


def test_what_may_pass_is_never_fatal() -> None:
    of = troubles()
    assert not any(of.is_fatal(failure(FailureKind.STALLED), 0) for _ in range(99))


def test_delays_grow_to_the_jobs_own_and_progress_makes_them_small() -> None:
    of = troubles(longest_retry_s=60.0)
    grown = delays(of, 20)
    assert grown[0] <= 0.25
    assert all(60.0 <= delay <= 66.0 for delay in grown[-5:])
    of.progressed()
    assert delays(of, 1)[0] <= 0.25


def test_the_origin_may_ask_for_more() -> None:
    busy = failure(FailureKind.BUSY, retry_after_s=120.0)
    assert troubles().wait(busy, 0.0).retry_at >= 120.0


def test_whose_fault_it_is() -> None:
    of = troubles()
    assert of.end(failure(FailureKind.IO_ERROR)).context == "local file"
    end = of.end(NOT_FOUND)
    assert (end.code, end.context, end.http_status) == ("NOT_FOUND", "origin", 404)
