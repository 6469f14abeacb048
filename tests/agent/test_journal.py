"""The journal gives back what it was told, after a kill, after another boot, and after damage."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.boot import boot_id
from agent.journal import (
    EVENTS_KEPT,
    FileKey,
    FileRecord,
    JobRecord,
    Journal,
    StoredJob,
    decode_ranges,
    encode_ranges,
)
from peer.database import DatabaseTooNew
from validation.ranges import ByteRange
from validation.rangeset import RangeSet

BOOT, OTHER_BOOT = "boot-1", "boot-2"
Reopen = Callable[..., Awaitable[Journal]]


def job(number: int, **changes: object) -> JobRecord:
    record = JobRecord(
        id=f"{number:032x}",
        name=f"job {number}",
        state="SUSPENDED",
        priority="normal",
        created_at=1.5,
        modified_at=2.5,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def file(number: int, index: int = 0, **changes: object) -> FileRecord:
    record = FileRecord(
        job_id=f"{number:032x}",
        index=index,
        url="https://example.org/a",
        directory="/data",
        base="a",
        state="waiting",
        held_boot=BOOT,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def ranges(*pairs: tuple[int, int]) -> RangeSet:
    return RangeSet(ByteRange(start, stop) for start, stop in pairs)


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Reopen]:
    """A function that closes the journal it gave last and opens it again."""
    opened: list[Journal] = []

    async def again(boot: str = BOOT) -> Journal:
        if opened:
            await opened[-1].close()
        opened.append(await Journal.open(tmp_path / "journal.db", boot))
        return opened[-1]

    yield again
    if opened:
        await opened[-1].close()


async def test_everything_comes_back_byte_for_byte(reopen: Reopen) -> None:
    journal = await reopen()
    odd = job(
        1,
        name="caf\udce9\n\0ü",
        state="ERROR",
        priority="high",
        completed_at=9.25,
        settings=b'{"a":1}',
        document=b"\x00\xff",
        error=b"{}",
        intent="completing",
    )
    files = (
        file(1, 0, url="http://[::1]/\udcff", directory="/tmp/\udce9", base="-x\n", state="done", document=b"[]"),
        file(1, 1, temp_name=".a.\udcff.part", device=2**64 - 1, inode=2**63, length=2**50, held_boot=BOOT),
    )
    await journal.save(odd, *files)
    await journal.save(job(0))
    expected = [StoredJob(job=odd, files=files), StoredJob(job=job(0), files=())]
    assert await journal.load_all() == expected
    journal = await reopen()
    assert await journal.load_all() == expected
    assert journal.problems == []


async def test_saving_again_changes_the_record_and_leaves_the_rest(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), file(1, 0), file(1, 1), job(2), file(2))
    await journal.append_event("0" * 31 + "1", 1.0, "made")
    await journal.save(job(1, state="QUEUED"), file(1, 1, state="done"))
    first, second = await journal.load_all()
    assert (first.job, first.files) == (job(1, state="QUEUED"), (file(1, 0), file(1, 1, state="done")))
    assert second == StoredJob(job=job(2), files=(file(2),))
    assert [line.text for line in await journal.events(job(1).id)] == ["made"]


async def test_all_or_none(reopen: Reopen) -> None:
    journal = await reopen()
    with pytest.raises(sqlite3.IntegrityError):
        await journal.save(job(1), file(7))
    assert await journal.load_all() == []


async def test_a_job_goes_with_all_that_is_its(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), file(1), job(2), file(2))
    for number in (1, 2):
        await journal.append_event(job(number).id, 1.0, f"line of {number}")
    await journal.delete_job(job(1).id)
    await journal.delete_job("f" * 32)
    assert [item.job.id for item in await journal.load_all()] == [job(2).id]
    assert await journal.events(job(1).id) == []
    assert len(await journal.events(job(2).id)) == 1
    await journal.append_event(job(1).id, 2.0, "too late")
    assert await journal.events(job(1).id) == []
    await journal.save(job(1), file(1))
    assert (await journal.load_all())[1].files == (file(1),)


async def test_noted_progress_counts_in_this_boot_only(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), file(1), file(1, 1))
    key, safe, more = file(1).key, ranges((0, 10)), ranges((0, 10), (20, 35))
    await journal.checkpoint_progress(key, safe)
    await journal.note_progress(key, more)
    journal = await reopen()
    ((found, untouched),) = [item.files for item in await journal.load_all()]
    assert decode_ranges(found.held) == more
    assert decode_ranges(found.durable) == safe
    assert untouched == file(1, 1)
    journal = await reopen(OTHER_BOOT)
    ((found, _),) = [item.files for item in await journal.load_all()]
    assert decode_ranges(found.held) == safe
    assert found.held_boot == OTHER_BOOT
    await journal.note_progress(key, more)
    journal = await reopen(OTHER_BOOT)
    assert decode_ranges((await journal.load_all())[0].files[0].held) == more


async def test_an_old_record_does_not_undo_progress_but_a_restart_does(reopen: Reopen) -> None:
    journal = await reopen()
    old = file(1)
    await journal.save(job(1), old)
    await journal.checkpoint_progress(old.key, ranges((0, 99)))
    await journal.save(replace(old, state="moving"))
    (found,) = (await journal.load_all())[0].files
    assert (found.state, decode_ranges(found.durable)) == ("moving", ranges((0, 99)))
    fresh = replace(old, state="again", document=b'{"etag":"new"}')
    await journal.restart_file(fresh)
    assert (await journal.load_all())[0].files == (fresh,)


async def test_progress_of_an_unknown_file_is_an_error(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), file(1))
    unknown = FileKey(job_id=job(1).id, index=5)
    for method in (journal.note_progress, journal.checkpoint_progress):
        with pytest.raises(KeyError):
            await method(unknown, ranges((0, 1)))


async def test_the_set_may_change_once_it_was_handed_over(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), file(1))
    held = ranges((0, 10))
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.note_progress(file(1).key, held))
        await asyncio.sleep(0)  # the call has begun
        held.clear()
    assert decode_ranges((await journal.load_all())[0].files[0].held) == ranges((0, 10))


async def test_the_log_keeps_its_last_thousand_lines(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(1), job(2))
    await journal.append_event(job(2).id, 0.5, "of another job\n\udcff")
    for number in range(EVENTS_KEPT + 5):
        await journal.append_event(job(1).id, float(number), f"line {number}")
    lines = await journal.events(job(1).id)
    assert [lines[0].text, lines[-1].text, len(lines)] == ["line 5", f"line {EVENTS_KEPT + 4}", EVENTS_KEPT]
    assert lines[0].at == 5.0
    assert [line.text for line in await journal.events(job(2).id)] == ["of another job\n\udcff"]


async def test_the_last_lines_of_all_jobs_at_once(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(job(3), job(1), job(2))
    for number, lines in ((1, 5), (3, 1)):
        for line in range(lines):
            await journal.append_event(job(number).id, 1.0, f"{line} of {number}")
    expected = {job(3).id: ["0 of 3"], job(1).id: ["3 of 1", "4 of 1"]}
    assert await journal.recent_events(2) == expected
    assert [len(lines) for lines in (await journal.recent_events(100)).values()] == [1, 5]


async def test_records_come_in_any_order(reopen: Reopen) -> None:
    journal = await reopen()
    await journal.save(file(1, 1), file(1), job(1))
    assert (await journal.load_all())[0].files == (file(1), file(1, 1))


async def test_jobs_come_back_in_the_order_of_their_creation_whatever_changed_since(reopen: Reopen) -> None:
    journal = await reopen()
    for number in (5, 3, 9):
        await journal.save(job(number))
    await journal.save(job(5, name="changed"))
    await journal.delete_job(job(9).id)
    await journal.save(job(1))
    assert [item.job.name for item in await (await reopen()).load_all()] == ["changed", "job 3", "job 1"]


async def test_a_snapshot_that_cannot_be_stored_is_a_problem_and_no_error(reopen: Reopen, tmp_path: Path) -> None:
    journal = await reopen()
    (tmp_path / "journal.db.snapshot-new").mkdir()
    for _ in range(2):
        assert await journal.snapshot() is None
    assert len(journal.problems) == 1
    assert "no snapshot of" in journal.problems[0]
    (tmp_path / "journal.db.snapshot-new").rmdir()
    assert await journal.snapshot() == tmp_path / "journal.db.snapshot-1"


async def test_meta(reopen: Reopen) -> None:
    journal = await reopen()
    assert await journal.get_meta("snapshot_at") is None
    await journal.set_meta("snapshot_at", "1")
    await journal.set_meta("snapshot_at", "2")
    assert await (await reopen()).get_meta("snapshot_at") == "2"


@pytest.mark.parametrize("harm", ["garbage", "empty", "missing"])
async def test_a_damaged_journal_falls_back_to_the_last_snapshot_and_says_so(
    reopen: Reopen, tmp_path: Path, harm: str
) -> None:
    journal = await reopen()
    path = tmp_path / "journal.db"
    for number in range(5):
        await journal.save(job(number), file(number))
        await journal.snapshot()
    await journal.save(job(99))
    await journal.close()
    assert sorted(item.name[-1] for item in tmp_path.glob("journal.db.snapshot-*")) == ["3", "4", "5"]
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if harm == "empty" else os.urandom(20_000))
    journal = await reopen()
    assert [item.job for item in await journal.load_all()] == [job(number) for number in range(5)]
    assert len(journal.problems) == 2
    assert "snapshot-5 was put in place" in journal.problems[1]


async def test_a_newer_journal_is_left_alone(reopen: Reopen, tmp_path: Path) -> None:
    await (await reopen()).close()
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=1000")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseTooNew):
        await Journal.open(path)
    assert path.read_bytes() == before


async def test_killed_while_noting(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from agent.journal import Journal
from tests.agent.test_journal import file, job, ranges

async def main():
    journal = await Journal.open(Path(sys.argv[1]))
    await journal.save(job(1), file(1))
    await journal.checkpoint_progress(file(1).key, ranges((0, 1)))
    for number in range(2, 1_000_000):
        await journal.note_progress(file(1).key, ranges((0, number)))
        print(number, flush=True)

asyncio.run(main())
"""
    path = tmp_path / "journal.db"
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    said = 0
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            said = int(line)
            if said == 700:
                child.send_signal(signal.SIGKILL)
    journal = await Journal.open(path)  # the same boot, the real one
    (found,) = (await journal.load_all())[0].files
    assert journal.problems == []
    assert decode_ranges(found.held).stop in (said, said + 1)
    assert decode_ranges(found.durable) == ranges((0, 1))
    await journal.close()


async def test_what_must_survive_a_power_loss_is_synced_before_the_call_returns(tmp_path: Path) -> None:
    """Seen from the kernel: how often the log was synced within each call."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not there or may not trace")
    code = """
import asyncio, os, sys
from pathlib import Path
from agent.feed import Content, NewsItem, RequestKey
from agent.journal import Journal
from tests.agent.test_journal import file, job, ranges

async def main():
    journal = await Journal.open(Path(sys.argv[1]))
    key = RequestKey(key="k", digest=b"", job_id="x", at=1.0)
    await journal.save(job(9))  # the log's own beginning is synced once more
    for name, call in {
        "create": lambda: journal.save(job(1), file(1), request=key),
        "news": lambda: journal.save(news=[NewsItem(job_id="x", kind="state", at=1.0)]),
        "note": lambda: journal.note_progress(file(1).key, ranges((0, 5))),
        "checkpoint": lambda: journal.checkpoint_progress(file(1).key, ranges((0, 5))),
        "restart": lambda: journal.restart_file(file(1)),
        "line": lambda: journal.append_event(job(1).id, 1.0, "x"),
        "fact": lambda: journal.set_meta("a", "b"),
        "content": lambda: journal.note_contents([Content(content_id="a", url="b", length=1, at=1.0)]),
        "read": lambda: journal.load_all(),
        "delete": lambda: journal.delete_job(job(1).id),
        "end": lambda: journal.feed_bounds(),
    }.items():
        os.write(1, f"{name}.".encode())
        await call()
    os._exit(0)

asyncio.run(main())
"""
    trace = tmp_path / "trace"
    words = [strace, "-f", "-y", "-o", str(trace), "-e", "trace=fdatasync,fsync,write", sys.executable, "-c", code]
    done = subprocess.run([*words, str(tmp_path / "j.db")], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    syncs: dict[str, int] = {"": 0}
    for said, _ in re.findall(r'write\(1<[^>]*>, "(\w+)\."|(fdatasync|fsync)\(\d+<[^>]*-wal>', trace.read_text()):
        if said:
            syncs[said] = 0
        else:
            syncs[list(syncs)[-1]] += 1
    del syncs[""]
    once = {"create", "news", "checkpoint", "restart", "fact", "delete"}
    assert syncs == {name: int(name in once) for name in syncs}
    assert len(syncs) == 11


def test_the_boot_id_stays_within_a_boot() -> None:
    code = "from agent.boot import boot_id; print(boot_id())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == boot_id()
    assert len(boot_id()) >= 32


@given(st.lists(st.tuples(st.integers(0, 2**50), st.integers(0, 2**20))))
def test_ranges_survive_encoding(pairs: list[tuple[int, int]]) -> None:
    held = ranges(*[(start, start + length) for start, length in pairs])
    assert decode_ranges(encode_ranges(held)) == held


@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32).map(b"\x01".__add__))
def test_any_bytes_are_ranges_or_refused(data: bytes) -> None:
    try:
        held = decode_ranges(data)
    except ValueError:
        return
    assert decode_ranges(encode_ranges(held)) == held


PAIRS = [(5, 5), (7, 3), (0, 5, 5, 9), (0, 5, 3, 9), (10, 20, 0, 5)]
NOT_RANGES = [b"\x02", b"\x01\x05", b"\x01" + bytes(8), *(struct.pack(f"<B{len(p)}Q", 1, *p) for p in PAIRS)]


@pytest.mark.parametrize("data", NOT_RANGES)
def test_what_was_never_encoded_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ranges"):
        decode_ranges(data)


def test_no_bytes_are_no_ranges() -> None:
    assert decode_ranges(b"") == RangeSet()
