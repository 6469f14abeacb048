"""The names of temporary files: found again after a kill, and nobody else's taken for them."""

from __future__ import annotations

import os
from pathlib import Path

from agent.partnames import create_unique, remove_orphans
from peer import durable

TAG = "abcdef0123456789"


def make(directory: Path, base: str, tag: str = TAG) -> str:
    directory_fd = durable.open_directory(directory)
    try:
        name, fd = create_unique(directory_fd, directory, base, tag)
        os.close(fd)
    finally:
        os.close(directory_fd)
    return name


def test_only_files_of_that_name_and_job_are_removed(tmp_path: Path) -> None:
    name = make(tmp_path, "film")
    others = [
        ".film.abcdef01.part",
        ".film.abcdef01.12345678.party",
        ".film.abcdef01.1234567X.part",
        ".filmx.abcdef01.12345678.part",
        ".film.00000000.12345678.part",
        "film",
    ]
    for other in others:
        (tmp_path / other).touch()

    assert remove_orphans(tmp_path, [("film", TAG), ("other", TAG)]) == 1

    assert sorted(os.listdir(tmp_path)) == sorted(others)
    assert name not in others


def test_a_recorded_file_of_the_same_name_stays(tmp_path: Path) -> None:
    recorded, orphan = make(tmp_path, "film"), make(tmp_path, "film")

    assert remove_orphans(tmp_path, [("film", TAG)], {recorded}) == 1

    assert os.listdir(tmp_path) == [recorded]
    assert orphan != recorded


def test_a_long_name_is_cut_and_found_again(tmp_path: Path) -> None:
    name = make(tmp_path, "ü" * 120)
    assert len(os.fsencode(name)) <= 255
    assert remove_orphans(tmp_path, [("ü" * 120, TAG)]) == 1


def test_a_directory_that_is_away_holds_none(tmp_path: Path) -> None:
    assert remove_orphans(tmp_path / "nowhere", [("film", TAG)]) == 0
