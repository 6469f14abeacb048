"""`nearfetch job explain` as text: a few lines a file, then one line for each source and reason.

Never knows: where documents come from. Every text from outside passes `out` or `table`, which make it harmless.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.cli_support import out, table
from agent.progress import size_text
from agent.schema import ExplainedRange, Explanation, FileExplanation, SourceKind

MOST_ROWS = 12
"""Of one file."""
MOST_FILES = 20
SHORT_ID = 12
"""Characters of an id that nobody has a name for."""
MORE = "--json shows all"


def print_explanation(found: Explanation) -> None:
    """The job, then its files."""
    out(f"{found.job}  {found.name}")
    out(found.state if len(found.files) == 1 else f"{found.state}; {_from(found)}")
    if not found.files:
        out("the job has no file")
    for file in found.files[:MOST_FILES]:
        out("")
        _print_file(file, found.reasons)
    if len(found.files) > MOST_FILES:
        out(f"… {len(found.files) - MOST_FILES} more files, {MORE}")


def _print_file(file: FileExplanation, reasons: dict[str, str]) -> None:
    for line in _summary(file):
        out(line)
    rows = list(_rows(file, reasons))
    if not rows:
        return
    table(("SOURCE", "BYTES", "RANGES", "FIRST RANGE", "WHY NOT FROM NEARER"), rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        out(f"… {len(rows) - MOST_ROWS} more, {MORE}")


def _summary(file: FileExplanation) -> Iterator[str]:
    total = "an unknown length" if file.bytes_total is None else size_text(file.bytes_total)
    yield f"file {file.index}  {file.url}"
    yield f"{file.state}: {size_text(file.bytes_held)} of {total} are there; {_from(file)}"
    if file.origin_copies is not None and (file.bytes_held or file.bytes_from_origin):
        yield f"this agent loaded the origin with {file.origin_copies:.2f} copies of the file"
    timing = _timing(file)
    if timing:
        yield timing
    if file.bytes_unrecorded:
        text = "of unknown history: they came before the agent was started again"
        yield f"{size_text(file.bytes_unrecorded)} {text}"
    if not file.bytes_held:
        yield "nothing of it is there yet"


def _from(item: Explanation | FileExplanation) -> str:
    parts = {"origin": item.bytes_from_origin, "peers": item.bytes_from_peers, "cache": item.bytes_from_cache}
    words = ", ".join(f"{name} {size_text(count)}" for name, count in parts.items())
    return f"from {words}; thrown away {size_text(item.bytes_discarded)}"


def _timing(file: FileExplanation) -> str:
    if file.seconds <= 0:
        return ""
    took = f"took {file.seconds:.1f} s"
    if file.distance is None or file.least_seconds is None or file.fastest_rate is None:
        return f"{took}, too short to tell how far that is from the bound"
    best = f"{file.least_seconds:.1f} s at {size_text(file.fastest_rate)}/s, the best that this agent received"
    return f"{took}, {file.distance:.2f} of the bound: {best}"


def _rows(file: FileExplanation, reasons: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Nearest source first, then what brought most."""
    names = {(share.source, share.id): share.name for share in file.sources}
    order = {kind: place for place, kind in enumerate(SourceKind)}
    groups: dict[tuple[SourceKind, str | None, str], list[ExplainedRange]] = {}
    for item in file.ranges:
        groups.setdefault((item.source, item.id, item.reason), []).append(item)
    sums = {key: sum(item.length for item in items) for key, items in groups.items()}
    for key in sorted(groups, key=lambda each: (order[each[0]], -sums[each])):
        kind, name, reason = key
        who = names.get((kind, name)) or (None if name is None else name[:SHORT_ID])
        items = groups[key]
        yield (
            kind.value if who is None else f"{kind.value} {who}",
            size_text(sums[key]),
            str(len(items)),
            f"{items[0].offset}:{items[0].length}",
            reasons.get(reason, reason),
        )
