"""Object files that stay open between reads: removed is removed, and no descriptor is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peer.cachefiles import NotCached, ObjectFiles
from validation.ranges import ByteRange

WHOLE = ByteRange(0, 5)


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"bytes")
    return path


def fill(files: ObjectFiles, source: Path, names: list[str]) -> None:
    with source.open("rb") as file:
        for name in names:
            files.copy_in(name, file.fileno(), WHOLE)


def test_a_removed_file_is_not_read_through_an_open_descriptor(tmp_path: Path, source: Path) -> None:
    files = ObjectFiles(tmp_path / "objects")
    fill(files, source, ["a"])
    assert files.read("a", WHOLE) == files.read("a", WHOLE) == b"bytes"
    files.remove(["a"])
    with pytest.raises(NotCached):
        files.read("a", WHOLE)
    files.close()


def test_a_read_beyond_the_end_is_refused(tmp_path: Path, source: Path) -> None:
    files = ObjectFiles(tmp_path / "objects")
    fill(files, source, ["a"])
    with pytest.raises(NotCached):
        files.read("a", ByteRange(0, 6))
    files.close()


def test_descriptors_are_bounded_and_all_closed(tmp_path: Path, source: Path) -> None:
    before = opened()
    files = ObjectFiles(tmp_path / "objects")
    names = [f"file{number}" for number in range(100)]
    fill(files, source, names)
    for name in names:
        assert files.read(name, WHOLE) == b"bytes"
    assert opened() - before < 50
    assert files.read(names[0], WHOLE) == b"bytes", "closed meanwhile, opened again"
    files.close()
    assert opened() == before
