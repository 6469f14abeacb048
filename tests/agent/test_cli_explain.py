"""`job explain` as text: readable at a glance, however much there is to tell."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cli_explain_text import MOST_FILES, MOST_ROWS, print_explanation
from agent.schema import ExplainedRange, Explanation, FileExplanation, FileState, SourceKind, SourceShare

MIB = 1024 * 1024
PEER = "ab" * 32
REASONS = {"ours": "it was ours", "nearest": "nothing nearer had it", "unrecorded": "it was not recorded"}


def part(offset: int, source: SourceKind, reason: str, name: str | None = None) -> ExplainedRange:
    """One MiB."""
    return ExplainedRange(offset=offset, length=MIB, source=source, id=name, reason=reason)


def file(index: int = 0, **changes: Any) -> FileExplanation:
    given: dict[str, Any] = {
        "index": index,
        "url": "http://origin.example/file",
        "path": "/srv/file",
        "state": FileState.TRANSFERRED,
        "bytes_total": 4 * MIB,
        "bytes_held": 4 * MIB,
        "bytes_from_origin": 2 * MIB,
        "bytes_from_peers": 2 * MIB,
        "bytes_from_cache": 0,
        "bytes_discarded": 0,
        "bytes_unrecorded": 0,
        "origin_copies": 0.5,
        "seconds": 3.0,
        "fastest_rate": 2.0 * MIB,
        "least_seconds": 2.0,
        "distance": 1.5,
        "sources": [
            SourceShare(source=SourceKind.PEER, id=PEER, name="beta", bytes_held=2 * MIB, bytes_received=2 * MIB)
        ],
        "ranges": [
            part(0, SourceKind.ORIGIN, "ours"),
            part(MIB, SourceKind.PEER, "nearest", PEER),
            part(2 * MIB, SourceKind.ORIGIN, "ours"),
            part(3 * MIB, SourceKind.PEER, "nearest", PEER),
        ],
    }
    return FileExplanation(**(given | changes))


def shown(capsys: pytest.CaptureFixture[str], *files: FileExplanation) -> list[str]:
    found = Explanation(
        job="4f2a",
        name="images",
        state="TRANSFERRED",
        bytes_total=4 * MIB * len(files),
        bytes_from_origin=2 * MIB,
        bytes_from_peers=2 * MIB,
        bytes_from_cache=0,
        bytes_discarded=0,
        files=list(files),
        reasons=REASONS,
    )
    print_explanation(found)
    return capsys.readouterr().out.splitlines()


def test_one_line_for_each_source_and_reason_nearest_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, file()) == [
        "4f2a  images",
        "TRANSFERRED",
        "",
        "file 0  http://origin.example/file",
        "transferred: 4.0 MiB of 4.0 MiB are there; from origin 2.0 MiB, peers 2.0 MiB, cache 0 B; thrown away 0 B",
        "this agent loaded the origin with 0.50 copies of the file",
        "took 3.0 s, 1.50 of the bound: 2.0 s at 2.0 MiB/s, the best that this agent received",
        "SOURCE     BYTES    RANGES  FIRST RANGE      WHY NOT FROM NEARER",
        "peer beta  2.0 MiB  2       1048576:1048576  nothing nearer had it",
        "origin     2.0 MiB  2       0:1048576        it was ours",
    ]


def test_a_long_table_and_many_files_are_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    ranges = [part(number * MIB, SourceKind.PEER, "nearest", f"{number:064x}") for number in range(MOST_ROWS + 3)]
    lines = shown(capsys, *(file(number, ranges=ranges, sources=[]) for number in range(MOST_FILES + 2)))
    assert lines[1] == ("TRANSFERRED; from origin 2.0 MiB, peers 2.0 MiB, cache 0 B; thrown away 0 B")
    assert lines.count("… 3 more, --json shows all") == MOST_FILES
    assert lines[-1] == "… 2 more files, --json shows all"
    assert sum(line.startswith("peer 000000000000 ") for line in lines) == MOST_FILES * MOST_ROWS


def test_what_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    short = {"seconds": 0.4, "fastest_rate": None, "least_seconds": None, "distance": None}
    lost = [part(0, SourceKind.NEAR, "unrecorded")]
    lines = shown(capsys, file(**short, bytes_unrecorded=MIB, ranges=lost, bytes_total=None, origin_copies=None))
    assert "transferred: 4.0 MiB of an unknown length are there" in lines[4]
    assert lines[5:] == [
        "took 0.4 s, too short to tell how far that is from the bound",
        "1.0 MiB of unknown history: they came before the agent was started again",
        "SOURCE  BYTES    RANGES  FIRST RANGE  WHY NOT FROM NEARER",
        "near    1.0 MiB  1       0:1048576    it was not recorded",
    ]


def test_a_file_that_has_not_begun_and_a_job_without_files(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"bytes_held": 0, "bytes_from_origin": 0, "bytes_from_peers": 0, "seconds": 0.0, "ranges": []}
    lines = shown(capsys, file(**nothing, state=FileState.WAITING))
    assert lines[4:] == [
        "waiting: 0 B of 4.0 MiB are there; from origin 0 B, peers 0 B, cache 0 B; thrown away 0 B",
        "nothing of it is there yet",
    ]
    assert shown(capsys)[-1] == "the job has no file"


def test_words_from_outside_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    evil = SourceShare(source=SourceKind.PEER, id=PEER, name="\x1b[2J", bytes_held=1, bytes_received=1)
    lines = shown(capsys, file(url="http://x/\r", sources=[evil]))
    assert not any("\x1b" in line or "\r" in line for line in lines)
