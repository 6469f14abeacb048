"""The temporary file: found again only when it is the same, visible only when it is whole."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import DestinationError
from agent.partfile import Overwrite, PartFile, PartFileLost, Publication
from peer import durable
from tests.support.disks import FULL_DISK_BYTES, full_disk_command
from validation.digest import chunk_digest
from validation.ranges import ByteRange

MIB = 1024 * 1024
TAG = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def part(tmp_path: Path) -> Iterator[PartFile]:
    file = PartFile.create(tmp_path, "film.bin", TAG, 3 * MIB)
    yield file
    file.close()


def publication(
    base: str = "film.bin", *, modified_at: float | None = None, overwrite: Overwrite = Overwrite.REPLACE
) -> Publication:
    return Publication(base=base, mode=0o644, modified_at=modified_at, overwrite=overwrite)


def reopen(part: PartFile, at_least: int = 0) -> PartFile:
    return PartFile.reopen(part.directory, part.name, part.device, part.inode, at_least)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_new_file_is_hidden_private_and_has_its_space(part: PartFile, tmp_path: Path) -> None:
    assert names(tmp_path) == [part.name]
    assert part.path == tmp_path / part.name
    start, tag, rest = part.name.rsplit(".", 3)[0], part.name.rsplit(".", 3)[1], part.name.rsplit(".", 3)[2:]
    assert (start, tag, rest[1], len(rest[0])) == (".film.bin", "01234567", "part", 8)
    found = part.path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (found.st_dev, found.st_ino) == (part.device, part.inode)
    assert found.st_size in (0, 3 * MIB)  # 0 where the file system cannot reserve


@pytest.mark.parametrize("base", ["x" * 255, "ü" * 127, "\udcff" * 255, "a"])
def test_the_temporary_name_always_fits(tmp_path: Path, base: str) -> None:
    with PartFile.create(tmp_path, base, TAG, None) as part:
        assert len(os.fsencode(part.name)) <= 255
        part.publish(publication(base))
    assert names(tmp_path) == [base]


def test_create_says_what_is_wrong_with_the_directory(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="does not exist") as caught:
        PartFile.create(tmp_path / "no", "a", TAG, None)
    assert caught.value.code == "DESTINATION_MISSING"
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(DestinationError, match="not a directory"):
        PartFile.create(tmp_path / "plain", "a", TAG, None)


def test_bytes_come_back_from_any_place_in_any_order(part: PartFile) -> None:
    data = os.urandom(3 * MIB)
    for start in (2 * MIB, 0, MIB):
        part.write(start, memoryview(data)[start : start + MIB])
    assert part.pread(ByteRange(MIB - 5, 2 * MIB + 5)) == data[MIB - 5 : 2 * MIB + 5]
    buffer = bytearray(100)
    assert part.read_into(3 * MIB - 50, memoryview(buffer)) == 50
    assert bytes(buffer[:50]) == data[-50:]
    for item in (ByteRange(0, 3 * MIB), ByteRange(7, 7), ByteRange(MIB - 1, 2 * MIB + 1)):
        assert part.digest_range(item) == chunk_digest(data[item.start : item.stop])
    for read in (part.pread, part.digest_range):
        with pytest.raises(OSError, match="ended before") as caught:
            read(ByteRange(3 * MIB - 1, 3 * MIB + 1))
        assert caught.value.errno == errno.EIO


def test_many_threads_read_through_buffers_of_their_own(part: PartFile) -> None:
    data = os.urandom(3 * MIB)
    part.write(0, memoryview(data))
    items = [ByteRange(start, start + MIB + 77) for start in range(0, 2 * MIB - 77, 50_001)]
    found: dict[int, bytes] = {}

    def work(first: int) -> None:
        for index in range(first, len(items), 4):
            found[index] = part.digest_range(items[index])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {i: chunk_digest(data[item.start : item.stop]) for i, item in enumerate(items)}


def test_copy_from_another_file(part: PartFile, tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source:
        part.copy_from(source.fileno(), ByteRange(MIB, 2 * MIB))
    assert part.pread(ByteRange(MIB, 2 * MIB)) == data[MIB:]


def test_lengths(part: PartFile) -> None:
    part.write(0, memoryview(b"x" * 100))
    part.truncate()
    assert part.path.stat().st_size == 0
    part.set_length(MIB)
    assert part.path.stat().st_size == MIB
    assert part.pread(ByteRange(0, 100)) == bytes(100)
    part.set_length(10)
    assert part.path.stat().st_size == 10
    with pytest.raises(DestinationError, match="not enough space") as caught:
        part.set_length(1 << 50)
    assert caught.value.code == "DISK_FULL"
    assert part.path.stat().st_size == 10


def test_a_reservation_that_fails_half_way_is_undone(part: PartFile, monkeypatch: pytest.MonkeyPatch) -> None:
    part.set_length(10)

    def run_out(fd: int, length: int) -> None:
        os.ftruncate(fd, length // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "reserve", run_out)
    with pytest.raises(DestinationError, match="not enough space"):
        part.set_length(MIB)
    assert part.path.stat().st_size == 10


def test_reopened_it_is_the_same_file(part: PartFile) -> None:
    part.write(0, memoryview(b"hello"))
    part.sync()
    part.start_writeback(ByteRange(0, 5))
    part.close()
    with reopen(part, 5) as again:
        assert again.pread(ByteRange(0, 5)) == b"hello"
        assert (again.name, again.device, again.inode) == (part.name, part.device, part.inode)


@pytest.mark.parametrize("what", ["gone", "symlink", "other inode", "shorter", "directory", "fifo"])
def test_lost_is_lost(part: PartFile, tmp_path: Path, what: str) -> None:
    part.set_length(100)
    part.close()
    path, kept = part.path, tmp_path / "kept"
    os.rename(path, kept)  # the inode stays in use, so that no new file can get it
    match what:
        case "symlink":
            path.symlink_to(kept)
        case "other inode":
            path.write_bytes(kept.read_bytes())
        case "shorter":
            os.rename(kept, path)
            os.truncate(path, 99)
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    with pytest.raises(PartFileLost):
        reopen(part, 100)


def test_a_missing_directory_is_no_loss(part: PartFile, tmp_path: Path) -> None:
    part.close()
    with pytest.raises(DestinationError, match="does not exist"):
        PartFile.reopen(tmp_path / "no", part.name, part.device, part.inode, 0)


def test_publish_shows_the_whole_file_with_mode_and_time(part: PartFile, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    part.write(0, memoryview(data))
    assert not (tmp_path / "film.bin").exists()
    part.publish(publication(modified_at=1_234_567_890.5))
    assert names(tmp_path) == ["film.bin"]
    found = (tmp_path / "film.bin").stat()
    assert (tmp_path / "film.bin").read_bytes() == data
    assert stat.S_IMODE(found.st_mode) == 0o644
    assert found.st_mtime == 1_234_567_890.5
    assert part.path == tmp_path / "film.bin"
    part.discard()
    assert names(tmp_path) == ["film.bin"]


def test_publish_replaces_or_keeps(part: PartFile, tmp_path: Path) -> None:
    target = tmp_path / "film.bin"
    target.write_bytes(b"old")
    with pytest.raises(DestinationError, match="already exists") as caught:
        part.publish(publication(overwrite=Overwrite.KEEP))
    assert caught.value.code == "DESTINATION_EXISTS"
    assert target.read_bytes() == b"old"
    assert part.path.exists()
    target.unlink()
    target.symlink_to("elsewhere")
    part.publish(publication())
    assert not target.is_symlink()
    assert names(tmp_path) == ["film.bin"]


def test_publish_keeping_finds_the_name_free(part: PartFile, tmp_path: Path) -> None:
    part.publish(publication(overwrite=Overwrite.KEEP))
    assert names(tmp_path) == ["film.bin"]


def test_publish_cut_off_between_two_names_is_finished(part: PartFile, tmp_path: Path) -> None:
    os.link(part.path, tmp_path / "film.bin")
    part.publish(publication(overwrite=Overwrite.KEEP))
    assert names(tmp_path) == ["film.bin"]


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_publish_does_not_replace_what_is_no_file(part: PartFile, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "film.bin"
    target.mkdir() if kind == "directory" else os.mkfifo(target)
    with pytest.raises(DestinationError, match="is a d"):
        part.publish(publication())
    assert part.path.exists()


@pytest.mark.parametrize("what", ["moved", "replaced", "removed"])
def test_publish_notices_that_the_directory_is_another(tmp_path: Path, what: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with PartFile.create(home, "film.bin", TAG, None) as part:
        if what == "removed":
            part.path.unlink()
            home.rmdir()
        else:
            home.rename(tmp_path / "away")
        if what == "replaced":
            home.mkdir()
        with pytest.raises(DestinationError, match="was moved, replaced or removed") as caught:
            part.publish(publication())
        assert caught.value.code == "DESTINATION_MISSING"
        if what != "removed":
            if what == "replaced":
                home.rmdir()
            (tmp_path / "away").rename(home)
            part.publish(publication())
            assert names(home) == ["film.bin"]


@pytest.mark.parametrize("what", ["gone", "other"])
def test_publish_only_its_own_inode(part: PartFile, tmp_path: Path, what: str) -> None:
    os.rename(part.path, tmp_path / "stolen")
    if what == "other":
        part.path.write_bytes(b"evil")
    with pytest.raises(PartFileLost):
        part.publish(publication())
    assert not (tmp_path / "film.bin").exists()
    part.discard()
    assert part.path.exists() == (what == "other")


def test_discard_removes_only_what_is_ours(part: PartFile, tmp_path: Path) -> None:
    part.discard()
    part.discard()
    assert names(tmp_path) == []


def test_publish_orders_its_steps(part: PartFile, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for name in ("sync_file", "rename", "sync_directory"):
        original = getattr(durable, name)

        def note(*arguments: object, name: str = name, original: object = original) -> None:
            mode = stat.S_IMODE(os.fstat(part.fd).st_mode)
            steps.append(f"{name} {mode:o}")
            assert callable(original)
            original(*arguments)

        monkeypatch.setattr(durable, name, note)
    part.publish(publication())
    assert steps == ["sync_file 644", "rename 644", "sync_directory 644"]


def test_a_failed_sync_is_never_believed_again(part: PartFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = durable.sync_data, list[int]()

    def fail_once(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(durable, "sync_data", fail_once)
    assert not part.suspect
    with pytest.raises(OSError, match="Input/output"):
        part.sync()
    assert part.suspect
    with pytest.raises(OSError, match="earlier sync"):
        part.sync()
    with pytest.raises(OSError, match="earlier sync"):
        part.publish(publication())
    assert len(calls) == 1
    assert names(part.directory) == [part.name]
    part.close()
    with reopen(part) as again:
        again.sync()
        assert not again.suspect


def test_close_waits_for_who_is_inside_and_keeps_others_out(part: PartFile) -> None:
    inside, go = threading.Event(), threading.Event()
    order: list[str] = []

    def use() -> None:
        with part.borrowed() as fd:
            inside.set()
            assert go.wait(10)
            os.pwrite(fd, b"late", 0)
            order.append("written")

    def close() -> None:
        part.close()
        order.append("closed")

    user, closer = threading.Thread(target=use), threading.Thread(target=close)
    user.start()
    assert inside.wait(10)
    closer.start()
    while True:  # until the closer has shut the door
        try:
            part.write(0, memoryview(b"x"))
        except ValueError:
            break
    go.set()
    user.join(10)
    closer.join(10)
    assert order == ["written", "closed"]
    part.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(part.fd)


def test_a_full_disk_is_said_before_the_download(tmp_path: Path) -> None:
    code = f"""
import errno, os, sys
from pathlib import Path
from agent.errors import DestinationError
from agent.partfile import PartFile
home = Path(sys.argv[1])
try:
    PartFile.create(home, "big", "{TAG}", {FULL_DISK_BYTES} + 1)
except DestinationError as error:
    assert error.code == "DISK_FULL", error.code
    print(error)
assert os.listdir(home) == []
with PartFile.create(home, "unknown", "{TAG}", None) as part:
    try:
        for offset in range(0, {FULL_DISK_BYTES} + 1, 65536):
            part.write(offset, memoryview(bytes(65536)))
    except OSError as error:
        assert error.errno == errno.ENOSPC
        print("while writing")
    part.discard()
with PartFile.create(home, "fits", "{TAG}", {FULL_DISK_BYTES} // 2) as part:
    part.write(0, memoryview(bytes({FULL_DISK_BYTES} // 2)))
    part.sync()
"""
    command = full_disk_command(tmp_path, [sys.executable, "-c", code])
    if command is None:
        pytest.skip("no permission to mount a small tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "not enough space" in first
    assert second == "while writing"


def test_the_file_size_limit_is_an_error_of_the_write(tmp_path: Path) -> None:
    """Needs no privilege, unlike a full disk; Python ignores SIGXFSZ, so EFBIG arrives."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))

    code = f"""
import errno, os, sys
from pathlib import Path
from agent.errors import DestinationError
from agent.partfile import PartFile
home = Path(sys.argv[1])
try:
    PartFile.create(home, "big", "{TAG}", {2 * MIB})
except DestinationError as error:
    assert error.code == "DISK_FULL" and "EFBIG" in str(error), error
assert os.listdir(home) == []
with PartFile.create(home, "unknown", "{TAG}", None) as part:
    part.write(0, memoryview(bytes({MIB})))
    try:
        part.write({MIB}, memoryview(b"x"))
    except OSError as error:
        assert error.errno == errno.EFBIG
        print("EFBIG")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=limit,
    )
    assert done.stdout == "EFBIG\n", done.stderr


def test_killed_while_writing_then_reopened(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from agent.partfile import PartFile
part = PartFile.create(Path(sys.argv[1]), "film.bin", "{TAG}", 64 << 20)
print(part.name, part.device, part.inode, flush=True)
for number in range(64 * 16):
    part.write(number << 16, memoryview(number.to_bytes(4, "big") * (1 << 14)))
    print(number, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        name, device, inode = child.stdout.readline().split()
        said = 0
        for line in child.stdout:
            said = int(line)
            if said == 100:
                child.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [name]
    held = (said + 1) << 16
    with PartFile.reopen(tmp_path, name, int(device), int(inode), held) as part:
        for number in range(said + 1):
            assert part.pread(ByteRange(number << 16, (number << 16) + 4)) == number.to_bytes(4, "big")
        part.discard()
    assert names(tmp_path) == []


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_a_file_at_rest_holds_no_descriptor_and_goes_on_where_it_was(part: PartFile) -> None:
    part.write(0, memoryview(b"before"))
    open_before = descriptors()

    part.rest()
    part.rest()

    assert descriptors() == open_before - 2
    part.write(6, memoryview(b" and after"))
    assert part.pread(ByteRange(0, 16)) == b"before and after"
    assert descriptors() == open_before


def test_a_file_in_use_does_not_rest(part: PartFile) -> None:
    with part.borrowed() as fd:
        part.rest()
        os.fstat(fd)


def test_a_file_that_was_replaced_at_rest_is_lost(part: PartFile, tmp_path: Path) -> None:
    part.rest()
    part.path.rename(tmp_path / "moved")
    part.path.write_bytes(b"another one")

    with pytest.raises(PartFileLost, match="another file"):
        part.sync()
    part.path.unlink()
    with pytest.raises(PartFileLost, match="gone"):
        part.discard()
    part.close()


def test_a_directory_that_was_replaced_at_rest_is_said(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with PartFile.create(place, "film.bin", TAG, None) as part:
        part.rest()
        place.rename(tmp_path / "elsewhere")
        place.mkdir()
        with pytest.raises(DestinationError, match="was moved, replaced or removed") as caught:
            part.publish(publication())
        assert caught.value.code == "DESTINATION_MISSING"
        place.rmdir()
        (tmp_path / "elsewhere").rename(place)
        part.publish(publication())
        part.rest()
    assert names(place) == ["film.bin"]
