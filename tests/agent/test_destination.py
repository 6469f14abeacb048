"""Destinations that cannot work are refused in one sentence that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.destination import check_destination, destination_error, is_published, mode_by_umask, show
from agent.errors import CODES, DestinationError


def refusal(path: Path) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        check_destination(path)
    assert caught.value.code in CODES
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_can_work_passes_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("new", "old", "link", "ü" * 127, "-x", "with\nnewline", "caf\udce9", "..."):
        check_destination(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["link", "old"]


def test_the_directory_is_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path / "no" / "file")
    assert error.code == "DESTINATION_MISSING"
    assert f"{tmp_path}/no does not exist: create it" in str(error)


def test_the_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    error = refusal(tmp_path / "plain" / "file")
    assert error.code == "DESTINATION_MISSING"
    assert "is not a directory" in str(error)


def test_the_target_is_a_directory_or_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dir").mkdir()
    assert "is a directory: add a file name" in str(refusal(tmp_path / "dir"))
    assert "device, pipe or socket" in str(refusal(tmp_path / "pipe"))
    assert refusal(tmp_path / "dir").code == "DESTINATION_INVALID"


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128])
def test_the_name_is_too_long(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path / name)
    assert error.code == "DESTINATION_INVALID"
    assert "(256 bytes): choose a shorter one" in str(error)


@pytest.mark.parametrize("path", ["relative/file", "/", "/tmp/..", "/tmp/a\0b"])
def test_no_path_of_a_file(path: str) -> None:
    assert refusal(Path(path)).code == "DESTINATION_INVALID"


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = """
import os, sys
from pathlib import Path
from agent.destination import check_destination, DestinationError
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    check_destination(Path(sys.argv[1]) / "file")
except DestinationError as error:
    print(error.code, error)
"""
    for parent in tmp_path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o111)  # so that another user gets there
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    tmp_path.chmod(0o755)
    assert done.stdout.startswith("PERMISSION_DENIED no permission to write into"), done.stderr


def test_paths_are_shown_on_one_printable_line() -> None:
    assert show(Path("/a\nb/caf\udce9\x1b[31m/ü")) == "/a\\nb/caf\\udce9\\x1b[31m/ü"
    error = destination_error(OSError(30, "ignored"), Path("/x\ny"))
    assert str(error) == "cannot write /x\\ny: Read-only file system (EROFS)"
    assert error.code == "PERMISSION_DENIED"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_follows_the_umask(mask: int) -> None:
    before = os.umask(mask)
    try:
        assert mode_by_umask() == 0o666 & ~mask
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_is_published_looks_at_the_inode(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "other").write_bytes(b"")
    inode = (tmp_path / "file").stat().st_ino
    assert is_published(tmp_path, "file", inode)
    assert not is_published(tmp_path, "other", inode)
    assert not is_published(tmp_path, "missing", inode)
