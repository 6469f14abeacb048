"""What an earlier process left: the same file again, or why not; and nothing unrecorded."""

from __future__ import annotations

import os
from pathlib import Path

from agent.journal import FileKey, FileRecord
from agent.partfile import PartFile
from agent.survey import survey

JOB = "abcdef0123456789"


def row(directory: Path, index: int = 0, *, part: PartFile | None = None) -> FileRecord:
    return FileRecord(
        job_id=JOB,
        index=index,
        url="http://origin.example/film",
        directory=str(directory),
        base="film",
        state="idle",
        temp_name=None if part is None else part.name,
        device=None if part is None else part.device,
        inode=None if part is None else part.inode,
        length=3,
        document=b"{}",
    )


def key(index: int = 0) -> FileKey:
    return FileKey(job_id=JOB, index=index)


def test_the_temporary_file_is_found_and_rests(tmp_path: Path) -> None:
    with PartFile.create(tmp_path, "film", JOB, 3) as part:
        part.write(0, memoryview(b"abc"))
    before = len(os.listdir("/dev/fd"))

    seen = survey([row(tmp_path, part=part)])[key()]

    assert seen.lost is None
    assert seen.part is not None
    assert len(os.listdir("/dev/fd")) == before
    with seen.part.borrowed() as fd:
        assert os.pread(fd, 3, 0) == b"abc"
    seen.part.close()


def test_a_temporary_file_that_was_replaced_is_lost(tmp_path: Path) -> None:
    with PartFile.create(tmp_path, "film", JOB, 3) as part:
        pass
    kept = part.path.rename(tmp_path / "kept")  # so that its inode number is not given out again
    part.path.write_bytes(b"xyz")

    seen = survey([row(tmp_path, part=part)])[key()]

    assert seen.part is None
    assert "another file" in (seen.lost or "")
    assert kept.exists()


def test_a_published_file_is_known_by_its_inode(tmp_path: Path) -> None:
    with PartFile.create(tmp_path, "film", JOB, 3) as part:
        part.path.rename(tmp_path / "film")

    assert survey([row(tmp_path, part=part)])[key()].published


def test_what_a_kill_left_unrecorded_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with (
        PartFile.create(tmp_path, "film", JOB, None) as orphan,
        PartFile.create(tmp_path, "film", JOB, None) as part,
    ):
        pass

    seen = survey([row(tmp_path, 0), row(tmp_path, 1, part=part), row(tmp_path, 2)])

    assert os.listdir(tmp_path) == [part.name]
    assert not orphan.path.exists()
    assert seen[key(0)].part is None
    assert seen[key(0)].lost is None
    assert seen[key(1)].part is not None
