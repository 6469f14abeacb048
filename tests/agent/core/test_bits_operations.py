"""Each row of the table of operations of BITS that the core of jobs decides (bits-reference 1.6), and on-demand
jobs (1.11). What is checked before the core is asked (names, URLs, limits) is tested where that is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.job import IllegalTransitionError, JobState
from agent.core.jobs import Job, NewsKind
from agent.core.manager import EndingJobError, RemoveFiles, SaveJob
from agent.core.notices import NoticeKind, NotifyFlags
from agent.core.queue import JobId
from agent.core.spec import NearUse, Restored, Snapshot
from agent.core.transfer import Phase
from tests.support.desk import BUSY, GONE, LENGTH, Desk
from tests.support.world import CELL
from tests.support.world_parts import Cell, PartFile
from validation.content import MIN_CHUNK_BYTES
from validation.ranges import ByteRange

S = JobState
ALL = NotifyFlags(1 | 2 | 8 | 16 | 32)
LIVE = [state for state in S if state not in (S.ACKNOWLEDGED, S.CANCELLED)]


def news_of(job: Job) -> list[NewsKind]:
    return [each.kind for each in job.news]


def in_state(state: JobState, *urls: str, **flags: object) -> tuple[Desk, Job]:
    """A job that got there by what happens."""
    desk = Desk(slots=0 if state is S.QUEUED else 2, **flags)
    job = desk.job("job", *urls)
    if state is not S.SUSPENDED:
        desk.do(desk.manager.resume, job)
    if state in (S.TRANSIENT_ERROR, S.ERROR):
        desk.refuse(job, BUSY if state is S.TRANSIENT_ERROR else GONE)
    desk.run(until=lambda: job.state is state)
    assert job.state is state
    return desk, job


def respecify(desk: Desk, job: Job, **changes: object) -> None:
    """The same change for every file."""
    specs = {file.file: replace(file.transfer.spec, **changes) for file in job.files}  # type: ignore[arg-type]
    desk.do(desk.manager.respecify, job, specs)


# --- CreateJob, EnumJobs, GetJob -----------------------------------------------------------------------------


def test_create() -> None:
    """CreateJob | SUSPENDED; DOWNLOAD jobs take many files"""
    desk = Desk()
    job = desk.job("job", *[f"file{number}" for number in range(20)])
    desk.drain()
    assert (job.state, len(job.files)) == (S.SUSPENDED, 20)
    assert news_of(job) == [NewsKind.CREATED] + [NewsKind.MODIFIED] * 20
    assert SaveJob(job=job.job) in desk.log


def test_list_and_get() -> None:
    """EnumJobs, GetJob | every job until it is final, by its id; NOT_FOUND afterwards"""
    desk = Desk()
    first, second = desk.job("one", "a"), desk.job("two", "b")
    assert list(desk.manager.jobs) == ["one", "two"]
    assert desk.manager.jobs[JobId("one")] is first
    assert desk.manager.owner(second.files[0].file) is second
    desk.do(desk.manager.cancel, first)
    desk.manager.forget(first)
    assert list(desk.manager.jobs) == ["two"]
    assert desk.manager.owner(first.files[0].file) is None
    assert desk.manager.transfer(first.files[0].file) is None


# --- AddFile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LIVE)
def test_a_file_is_added_in_any_state(state: JobState) -> None:
    """AddFile / AddFileSet | any non-final state; add after TRANSFERRED then Resume is legal"""
    desk, job = in_state(state, "a")
    desk.add(job, "b")
    desk.drain()
    if state is S.VALIDATING:
        assert job.state is S.TRANSFERRING, "there is more to fetch"
    else:
        assert job.state is state
    if state in (S.SUSPENDED, S.TRANSFERRED, S.ERROR, S.TRANSIENT_ERROR):
        desk.do(desk.manager.resume, job)
    desk.limit(2)
    desk.run()
    assert job.state is S.TRANSFERRED
    assert [file.done for file in job.files] == [True, True]


def test_a_file_added_to_a_job_that_waits_for_its_application_needs_a_slot() -> None:
    """AddFile | a job that has given its slot away does not take one that is not free"""
    desk = Desk(slots=1, asks=True)
    job = desk.running("a")
    desk.run()
    assert job.undecided
    other = desk.job("other", "b")
    desk.do(desk.manager.resume, other)
    desk.add(job, "c")
    assert (job.state, other.state) == (S.QUEUED, S.CONNECTING)
    desk.run()
    assert job.undecided
    assert other.undecided


@pytest.mark.parametrize("end", ["cancel", "complete"])
def test_nothing_is_added_to_a_final_job(end: str) -> None:
    """AddFile | INVALID_STATE in final states"""
    desk = Desk()
    job = desk.transferred("a")
    if end == "cancel":
        desk.do(desk.manager.cancel, job)
    else:
        desk.complete(job)
    with pytest.raises(IllegalTransitionError):
        desk.add(job, "b")


# --- Cancel --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LIVE)
def test_cancel(state: JobState) -> None:
    """Cancel | stops, deletes temp (and not-completed) files; INVALID_STATE when final; irreversible"""
    desk, job = in_state(state, "a", "b")
    desk.do(desk.manager.cancel, job)
    assert job.state is S.CANCELLED
    assert desk.log.count(RemoveFiles(job=job.job)) == 1
    assert news_of(job)[-1] is NewsKind.CANCELLED
    asked = len(desk.log)
    desk.run()
    assert not [each for each in desk.log[asked:] if isinstance(each, cmd.FetchRange | cmd.ProbeOrigin)]
    with pytest.raises(IllegalTransitionError):
        desk.manager.cancel(job, desk.now)
    desk.manager.forget(job)
    assert desk.manager.jobs == {}


# --- SetRemoteName, ReplaceRemotePrefix ----------------------------------------------------------------------


@pytest.mark.parametrize("state", [S.SUSPENDED, S.QUEUED, S.CONNECTING, S.TRANSFERRING, S.ERROR])
def test_another_url(state: JobState) -> None:
    """SetRemoteName | change the URL of one file; a job that runs goes on with it"""
    desk, job = in_state(state, "a")
    respecify(desk, job, url="http://mirror.example/a")
    assert job.files[0].transfer.spec.url == "http://mirror.example/a"
    assert job.files[0].host == "mirror.example"
    assert job.state is (S.CONNECTING if state is S.TRANSFERRING else state)
    if state in (S.SUSPENDED, S.ERROR):
        desk.do(desk.manager.resume, job)
    desk.limit(2)
    desk.run()
    assert job.state is S.TRANSFERRED


def half_done(desk: Desk, etag: str) -> Job:
    """A job whose file is half there, with this validator."""
    job = desk.job("job")
    facts = replace(desk.world.facts(), etag=etag)
    left = Restored(snapshot=Snapshot(facts=facts), held=(ByteRange(0, LENGTH // 2),))
    file = desk.add(job, "old/a", left)
    cells = {cell: Cell(f"v1.{cell}", "origin") for cell in range(LENGTH // 2 // CELL)}  # type: ignore[arg-type]
    desk.world.parts[file] = PartFile(cells=cells)
    return job


@pytest.mark.parametrize(("etag", "fetched"), [('"v1"', LENGTH // 2), ('"v0"', LENGTH)])
def test_a_part_goes_on_when_it_is_the_same_content(etag: str, fetched: int) -> None:
    """ReplaceRemotePrefix | a partly done file continues at its offset when size and validator are equal, otherwise
    that file restarts"""
    desk = Desk()
    job = half_done(desk, etag)
    respecify(desk, job, url="http://mirror.example/new/a")
    desk.do(desk.manager.resume, job)
    desk.run()
    assert job.state is S.TRANSFERRED
    assert desk.world.origin_bytes == fetched


def test_another_use_of_peers_stops_and_reschedules() -> None:
    """3.3 | changing the CLIENT flag on a running job stops and reschedules it; it continues where it was"""
    desk = Desk(slots=1)
    job = desk.reaching(S.TRANSFERRING, "a")
    desk.run(until=lambda: job.files[0].transfer.held_bytes > 0)
    waiting = desk.job("waiting", "b")
    desk.do(desk.manager.resume, waiting)
    respecify(desk, job, near=NearUse.NEVER)
    assert (job.state, waiting.state) == (S.QUEUED, S.CONNECTING)
    desk.run()
    assert job.state is S.TRANSFERRED


def test_a_file_that_is_cut_off_from_the_network_goes_on_at_a_url_that_is_not() -> None:
    """SetRemoteName | fix it and go on, also without a resume when only the network was missing"""
    desk = Desk()
    desk.surround(connected=False)
    job = desk.running("a")
    assert job.state is S.TRANSIENT_ERROR
    respecify(desk, job, url="http://127.0.0.1:8000/a")
    assert job.state is S.CONNECTING


# --- properties ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LIVE)
def test_any_property_while_the_job_lives(state: JobState) -> None:
    """1.9 modification time | any property, state, byte or file change is told, and recorded"""
    desk, job = in_state(state, "a")
    desk.listen(job)
    desk.do(desk.manager.change, job, replace(job.settings, notices=replace(job.settings.notices, flags=ALL)))
    desk.told()
    desk.wait(1.0)
    desk.told()
    before, recorded = job.version, desk.log.count(SaveJob(job=job.job))
    desk.do(desk.manager.change, job, job.settings)
    assert job.version > before
    assert desk.log.count(SaveJob(job=job.job)) > recorded
    assert news_of(job)[-1] is NewsKind.MODIFIED
    desk.wait(0.5)
    assert (NoticeKind.JOB_MODIFICATION, None) in desk.told()


@pytest.mark.parametrize("ask", ["add", "change", "respecify", "decide", "want"])
def test_nothing_is_changed_while_the_job_ends(ask: str) -> None:
    """1.2 | every call on a final job gives INVALID_STATE; one that is about to be takes nothing either"""
    desk = Desk()
    job = desk.transferred("a")
    desk.do(desk.manager.complete, job)
    file, now, manager = job.files[0].file, desk.now, desk.manager
    asks = {
        "add": lambda: desk.add(job, "b"),
        "change": lambda: manager.change(job, job.settings, now),
        "respecify": lambda: manager.respecify(job, {}, now),
        "decide": lambda: manager.decide(file, ev.Decision.INVALID, now),
        "want": lambda: manager.want(file, (ByteRange(0, 1),), now),
    }
    with pytest.raises(EndingJobError, match="completing"):
        asks[ask]()
    desk.do(manager.published, job, {})
    with pytest.raises(IllegalTransitionError):
        asks[ask]()


# --- on demand -----------------------------------------------------------------------------------------------


def want(desk: Desk, job: Job, chunk: int, file: int = 0) -> None:
    start = chunk * MIN_CHUNK_BYTES
    desk.do(desk.manager.want, job.files[file].file, (ByteRange(start, start + MIN_CHUNK_BYTES),))


def test_wanted_ranges_bring_a_job_to_work_and_then_to_rest() -> None:
    """1.11 | when the asked ranges are in, the job becomes SUSPENDED if the file is not whole"""
    desk = Desk()
    job = desk.job("job", flags=ALL)
    desk.add(job, "a", on_demand=True)
    desk.listen(job)
    want(desk, job, 2)
    assert job.state is S.CONNECTING
    desk.run()
    assert job.state is S.SUSPENDED
    assert job.files[0].transfer.filled == (ByteRange(2 * MIN_CHUNK_BYTES, 3 * MIN_CHUNK_BYTES),)
    told = [each.notice for each in desk.calls() if each.notice.kind is NoticeKind.FILE_RANGES_TRANSFERRED]
    assert told
    assert NewsKind.FILE_RANGES_TRANSFERRED in news_of(job)


def test_the_whole_file_on_demand_is_transferred() -> None:
    """1.11 | when the asked ranges are in, the job becomes TRANSFERRED if the whole file is there"""
    desk = Desk()
    job = desk.job("job")
    desk.add(job, "a", on_demand=True)
    for chunk in (3, 1, 0):
        want(desk, job, chunk)
        desk.run()
        assert job.state is S.SUSPENDED
    want(desk, job, 2)
    desk.run()
    assert job.state is S.TRANSFERRED
    assert desk.world.origin_bytes == LENGTH


def test_resume_without_a_wish_fetches_all() -> None:
    """1.11 | Resume of an on-demand job of which nothing is wanted"""
    desk = Desk()
    job = desk.job("job")
    desk.add(job, "a", on_demand=True)
    desk.do(desk.manager.resume, job)
    desk.run()
    assert job.state is S.TRANSFERRED


def test_a_file_of_which_parts_are_wanted_goes_first() -> None:
    """1.11 | the wish is served before what nobody waits for, and the job rests afterwards"""
    desk = Desk()
    job = desk.job("job")
    for url in ("a", "b", "c"):
        desk.add(job, url, on_demand=True)
    want(desk, job, 1, file=2)
    desk.run()
    assert job.state is S.SUSPENDED
    assert [file.transfer.held_bytes > 0 for file in job.files] == [False, False, True]
    desk.do(desk.manager.resume, job)
    desk.run(until=lambda: job.files[0].transfer.phase is Phase.FETCHING)
    want(desk, job, 3, file=1)
    assert job.files[0].transfer.phase is Phase.IDLE
    assert job.state is S.TRANSFERRING
    want(desk, job, 0, file=2)
    desk.run()
    assert job.state is S.SUSPENDED
    assert job.files[1].transfer.filled == (ByteRange(3 * MIN_CHUNK_BYTES, LENGTH),)
    assert job.files[2].transfer.filled == (ByteRange(0, 2 * MIN_CHUNK_BYTES),)
