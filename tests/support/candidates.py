"""Candidates for validators, as the agent would present them."""

from __future__ import annotations

from pathlib import Path

from validation.validator import BytesFrom, Candidate, Patience, Validator, Verdict, judge


def candidate(path: Path, content: bytes | None = None) -> Candidate:
    """The file at `path`, written first when `content` is given."""
    if content is not None:
        path.write_bytes(content)
    length = path.stat().st_size if path.is_file() else 0
    return Candidate(
        path=path,
        url="https://origin.example/data.bin",
        length=length,
        name="data.bin",
        bytes_from=BytesFrom.MIXED,
    )


def verdict_on(validator: Validator, path: Path, content: bytes | None = None) -> Verdict:
    """What `validator` says about the file at `path`."""
    return judge(validator, candidate(path, content), Patience.endless())
