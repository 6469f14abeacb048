"""SetValidationState, by real agents: every row of the table (bits-reference 3.2), and its traps 1 to 5.

The peer's copy and the origin's are the same bytes here: the application says "no" because it may. What becomes of
*different* bytes is test_main_job.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import NotFoundError, StateError
from agent.schema import JobDocument, NewFile, NewJob, Validation
from tests.support.agents import Agent, Fleet, download, leftovers
from tests.support.origin import Origin

MIB = 1024 * 1024
FILE_TRANSFERRED = 16
Two = tuple[Agent, Agent]


@pytest.fixture(scope="module", name="two")
def run_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two agents of one group that have met. Tests use contents of their own."""
    with Fleet(tmp_path_factory.mktemp("two")) as fleet:
        a, b = asyncio.run(fleet.start_together("a", "b"))
        yield a, b


async def transferred(agent: Agent, files: list[NewFile], **settings: Any) -> JobDocument:
    """A job with all its files there, and not completed."""
    job = await agent.client.create_job(NewJob(name="job", files=files, **settings))
    await agent.client.resume(job.id)
    job = await agent.client.wait(job.id, {"TRANSFERRED", "ERROR"}, timeout_s=30)
    assert job.state == "TRANSFERRED", job.error
    return job


async def kinds(agent: Agent, job_id: str, until: str) -> list[str]:
    """The job's events in order, up to the first of this kind."""
    found: list[str] = []
    async with asyncio.timeout(10):
        async for event in agent.client.events(after=0, job_id=job_id):
            found.append(event.kind.value)
            if event.kind.value == until:
                break
    return found


async def test_row_1_a_file_that_is_not_all_there_is_pending(two: Two, origin: Origin, place: Path) -> None:
    a, _ = two
    origin.rate = 256 * 1024
    origin.add("/slow.bin", os.urandom(4 * MIB))
    new = NewFile(url=origin.url("/slow.bin"), path=str(place / "slow"))
    job = await a.client.create_job(NewJob(name="slow", files=[new]))
    for state in ("SUSPENDED", "TRANSFERRING"):
        with pytest.raises(StateError, match="once all of it is there"):
            await a.client.set_validation(job.id, 0, valid=True)
        assert (await a.client.job(job.id)).state == state
        if state == "SUSPENDED":
            await a.client.resume(job.id)
            await a.client.wait(job.id, {"TRANSFERRING"}, timeout_s=10)
    with pytest.raises(NotFoundError, match="no file 7"):
        await a.client.set_validation(job.id, 7, valid=True)
    await a.client.cancel(job.id)
    assert leftovers(place) == []


async def test_row_2_a_verdict_is_about_the_file_and_not_about_the_record(
    two: Two, origin: Origin, place: Path
) -> None:
    """BITS answers RECORD_DELETED; our cache is a separate copy, so the file can still be judged (README)."""
    a, _ = two
    origin.add("/record.bin", os.urandom(MIB))
    job = await transferred(a, [NewFile(url=origin.url("/record.bin"), path=str(place / "file"))])
    await a.client.clear_cache()

    job = await a.client.set_validation(job.id, 0, valid=True)

    assert job.files[0].validation is Validation.VALID
    await a.client.complete(job.id)


async def test_row_3_true_leaves_the_record_to_be_served(two: Two, origin: Origin, place: Path) -> None:
    a, b = two
    data = os.urandom(MIB)
    origin.add("/valid.bin", data)
    url = origin.url("/valid.bin")
    job = await transferred(a, [NewFile(url=url, path=str(place / "a"))])
    await a.client.set_validation(job.id, 0, valid=True)

    got = await download(b, url, place / "b")

    assert got.file.peers == {a.peer_id: len(data)}
    await a.client.complete(job.id)


async def test_trap_01_false_on_peer_content_is_no_error_and_only_the_origin_is_asked_again(
    two: Two, origin: Origin, place: Path
) -> None:
    a, b = two
    data = os.urandom(2 * MIB)
    origin.add("/peers.bin", data)
    url = origin.url("/peers.bin")
    await download(a, url, place / "a")
    assert origin.sent("/peers.bin") == len(data)
    job = await transferred(b, [NewFile(url=url, path=str(place / "b"))], notify_flags=FILE_TRANSFERRED)
    assert job.files[0].from_peer

    await b.client.set_validation(job.id, 0, valid=False)
    job = await b.client.wait(job.id, {"TRANSFERRED", "ERROR"}, timeout_s=30)

    assert (job.state, job.error, job.error_count) == ("TRANSFERRED", None, 0)
    assert job.files[0].validation is Validation.UNDECIDED, "the refetched copy is judged anew"
    assert origin.sent("/peers.bin") == 2 * len(data)
    assert (job.files[0].bytes_from_origin, job.files[0].bytes_discarded) == (len(data), len(data))
    await b.client.complete(job.id)
    told = await kinds(b, job.id, "completed")
    assert told.count("file-transferred") == 2, told
    assert "job-error" not in told
    assert (place / "b").read_bytes() == data


async def test_trap_02_false_on_origin_content_is_an_error_with_progress_zero_and_resume_fetches_again(
    two: Two, origin: Origin, place: Path
) -> None:
    a, _ = two
    data = os.urandom(MIB)
    origin.add("/origin.bin", data)
    job = await transferred(a, [NewFile(url=origin.url("/origin.bin"), path=str(place / "file"))])
    assert not job.files[0].from_peer

    job = await a.client.set_validation(job.id, 0, valid=False)

    assert job.state == "ERROR"
    assert job.error is not None
    assert (job.error.code, job.error.file) == ("VALIDATION_FAILED", 0)
    assert (job.bytes_transferred, job.files[0].bytes_transferred) == (0, 0)
    await a.client.resume(job.id)
    job = await a.client.wait(job.id, {"TRANSFERRED", "ERROR"}, timeout_s=30)
    assert job.state == "TRANSFERRED"
    assert origin.sent("/origin.bin") == 2 * len(data)
    await a.client.complete(job.id)
    assert (place / "file").read_bytes() == data


async def test_trap_04_never_decided_counts_as_valid_at_complete(two: Two, origin: Origin, place: Path) -> None:
    a, b = two
    data = os.urandom(MIB)
    origin.add("/implicit.bin", data)
    url = origin.url("/implicit.bin")
    job = await transferred(a, [NewFile(url=url, path=str(place / "a"))])
    assert job.files[0].validation is Validation.UNDECIDED

    job = await a.client.complete(job.id)

    assert job.files[0].validation is Validation.VALID
    got = await download(b, url, place / "b")
    assert got.file.peers == {a.peer_id: len(data)}


async def test_trap_05_what_is_found_invalid_later_is_withdrawn(two: Two, origin: Origin, place: Path) -> None:
    """FALSE after TRUE, which BITS does not describe: the record goes."""
    a, b = two
    data = os.urandom(MIB)
    origin.add("/withdrawn.bin", data)
    url = origin.url("/withdrawn.bin")
    job = await transferred(a, [NewFile(url=url, path=str(place / "a"))])
    await a.client.set_validation(job.id, 0, valid=True)

    job = await a.client.set_validation(job.id, 0, valid=False)

    assert job.state == "ERROR"
    got = await download(b, url, place / "b")
    assert (got.file.peers, got.file.bytes_from_origin) == ({}, len(data))
    await a.client.cancel(job.id)


async def test_a_verdict_per_file_while_the_job_still_runs(two: Two, origin: Origin, place: Path) -> None:
    a, _ = two
    first, second = os.urandom(MIB), os.urandom(4 * MIB)
    origin.add("/first.bin", first)
    origin.add("/second.bin", second)
    origin.rate = MIB
    files = [
        NewFile(url=origin.url(f"/{name}.bin"), path=str(place / name), validators=["application"])
        for name in ("first", "second")
    ]
    job = await a.client.create_job(NewJob(name="two", files=files))
    await a.client.resume(job.id)
    async with asyncio.timeout(20):
        async for seen in a.client.watch(job.id):
            if seen.files[0].state == "deciding":
                break

    job = await a.client.set_validation(job.id, 0, valid=True)

    assert job.state == "TRANSFERRING"
    assert [file.validation for file in job.files] == [Validation.VALID, Validation.UNDECIDED]
    async with asyncio.timeout(30):
        async for seen in a.client.watch(job.id):
            if seen.files[1].state == "deciding":
                break
    assert seen.state == "VALIDATING"
    await a.client.set_validation(job.id, 1, valid=True)
    job = await a.client.wait(job.id, {"TRANSFERRED"}, timeout_s=10)
    await a.client.complete(job.id)
    assert (place / "first").read_bytes() + (place / "second").read_bytes() == first + second
