"""Every durable operation, on real files; a full disk on a real tmpfs where we may mount one."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer import durable
from tests.support.disks import full_disk_command

MIB = 1024 * 1024


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = durable.open_directory(tmp_path)
    yield fd
    os.close(fd)


def test_create_refuses_what_is_there_and_follows_no_link(directory: int, tmp_path: Path) -> None:
    os.close(durable.create_file(directory, "a"))
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            durable.create_file(directory, name)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("opener", [durable.open_file, durable.open_or_create_file])
def test_open_follows_no_link(directory: int, tmp_path: Path, opener: object) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert callable(opener)
    with pytest.raises(OSError, match="symbolic") as caught:
        opener(directory, "link")
    assert caught.value.errno == errno.ELOOP


def test_write_atomically_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    for text in (b"first", b"second, longer"):
        durable.write_atomically(target, text, 0o640)
        assert target.read_bytes() == text
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["state.json"]


def test_write_atomically_keeps_the_old_file_when_the_sync_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "state.json"
    durable.write_atomically(target, b"old")

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(durable, "sync_file", fail)
    with pytest.raises(OSError, match="no"):
        durable.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_rename_new_never_replaces(directory: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        durable.rename_new(directory, "a", "b")
    assert (tmp_path / "b").read_bytes() == b"b"
    durable.rename_new(directory, "a", "c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


def test_rename_new_without_the_system_call(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "other")
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        durable.rename_new(directory, "a", "b")
    durable.rename_new(directory, "a", "c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


def test_remove_is_fine_with_a_missing_file(directory: int) -> None:
    durable.remove(directory, "never-there")


@pytest.mark.parametrize("way", ["as the system can", "by hand"])
@pytest.mark.parametrize("length", [0, 1, 4096, 3 * MIB + 7])
def test_copy_moves_exactly_the_range(
    directory: int, way: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "by hand":
        monkeypatch.setattr(sys, "platform", "other")
    data = os.urandom(4 * MIB)
    source, target = durable.create_file(directory, "s"), durable.create_file(directory, "t")
    try:
        durable.pwrite_all(source, data, 0)
        durable.clone_or_copy(source, 4096, target, 8192, length)
        assert os.pread(target, 5 * MIB, 0) == (bytes(8192) + data[4096 : 4096 + length] if length else b"")
        assert os.lseek(target, 0, os.SEEK_CUR) == 0
    finally:
        os.close(source)
        os.close(target)


@pytest.mark.parametrize("platform", ["linux", "other"])
def test_a_copy_from_a_short_file_is_an_error(
    directory: int, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    source, target = durable.create_file(directory, "s"), durable.create_file(directory, "t")
    try:
        durable.pwrite_all(source, b"x" * 1000, 0)
        with pytest.raises(OSError, match="ended early") as caught:
            durable.clone_or_copy(source, 0, target, 0, 1001)
        assert caught.value.errno == errno.EIO
    finally:
        os.close(source)
        os.close(target)


def test_reserve_takes_space_and_release_gives_it_back(directory: int) -> None:
    fd = durable.create_file(directory, "r")
    try:
        durable.reserve(fd, 8 * MIB)
        if os.fstat(fd).st_size == 0:
            pytest.skip("this file system cannot reserve")
        assert os.fstat(fd).st_blocks * 512 >= 8 * MIB
        durable.pwrite_all(fd, b"x" * 8 * MIB, 0)
        durable.start_writeback(fd, 0, 8 * MIB)
        durable.sync_data(fd)
        durable.release(fd, 0, 4 * MIB)
        assert os.fstat(fd).st_blocks * 512 <= 5 * MIB
        assert os.pread(fd, 2, 4 * MIB - 1) == b"\0x"
    finally:
        os.close(fd)


def test_reserve_says_that_the_disk_is_full(tmp_path: Path) -> None:
    code = """
import os, sys
from peer import durable
directory = durable.open_directory(sys.argv[1])
fd = durable.create_file(directory, "big")
try:
    durable.reserve(fd, 64 << 20)
except OSError as error:
    print(error.errno)
"""
    command = full_disk_command(tmp_path, [sys.executable, "-c", code])
    if command is None:
        pytest.skip("no permission to mount a small tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) == errno.ENOSPC, done.stderr


def test_names_are_cut_between_characters() -> None:
    assert durable.cut_name("abc", 3) == "abc"
    assert durable.cut_name("äöü", 5) == "äö"
    assert durable.cut_name("\udcff\udcfe\udcfd", 2) == "\udcff\udcfe"
    assert len(os.fsencode(durable.temporary_name("ü" * 127))) <= durable.NAME_MAX


def test_private_directory_is_made_and_narrowed(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    durable.make_private_directory(deep)
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    deep.chmod(0o755)
    durable.make_private_directory(deep)
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        durable.make_private_directory(tmp_path / "file")
