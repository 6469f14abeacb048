"""What was fetched for ever: jobs that ended, and those that are alive."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.job import JobState
from agent.journal import Journal
from agent.totals import KEY, Totals
from tests.support.desk import LENGTH, Desk


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


async def test_nothing_was_fetched_at_first(journal: Journal) -> None:
    before = time.time()
    total = (await Totals.load(journal)).with_living(())
    assert (total.from_origin, total.from_peers, total.from_cache, total.discarded) == (0, 0, 0, 0)
    assert (total.jobs, total.files) == (0, 0)
    assert before <= total.since <= time.time()


async def test_jobs_that_live_count_as_long_as_they_do_and_ended_ones_for_ever(journal: Journal) -> None:
    desk = Desk()
    job = desk.transferred("a")
    totals = await Totals.load(journal)
    tally = job.files[0].transfer.tally
    assert tally.from_origin >= LENGTH
    living = totals.with_living([job])
    assert (living.from_origin, living.jobs, living.files) == (tally.from_origin, 0, 0)
    assert totals.with_living([]).from_origin == 0
    desk.do(desk.manager.complete, job)
    desk.do(desk.manager.published, job, {})
    assert job.state is JobState.ACKNOWLEDGED
    await journal.delete_job(job.job, meta=totals.count(job))
    for again in (totals, await Totals.load(journal)):
        total = again.with_living([])
        assert (total.from_origin, total.jobs, total.files) == (tally.from_origin, 1, 1)
    assert (await Totals.load(journal)).with_living([]).since == totals.with_living([]).since


async def test_the_bytes_of_a_cancelled_job_count_but_it_was_not_completed(journal: Journal) -> None:
    desk = Desk()
    job = desk.transferred("a")
    desk.do(desk.manager.cancel, job)
    totals = await Totals.load(journal)
    await journal.delete_job(job.job, meta=totals.count(job))
    total = totals.with_living([])
    assert (total.jobs, total.files) == (0, 0)
    assert total.from_origin >= LENGTH


@pytest.mark.parametrize("text", ["{", "[]", '{"since": "yesterday"}'])
async def test_what_cannot_be_read_begins_anew(journal: Journal, text: str) -> None:
    await journal.set_meta(KEY, text)
    assert (await Totals.load(journal)).with_living([]).since > time.time() - 60
