"""A chunk's digest as it is written is that of the chunk as it is read back, or there is none."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.partfile import PartFile
from agent.partsink import FreshDigests, PartSink
from validation.content import ChunkIndex, ChunkLayout
from validation.ranges import ByteRange

CHUNK = 64
LAYOUT = ChunkLayout(length=5 * CHUNK + 7, chunk_bytes=CHUNK)


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(LAYOUT.length)


def write(sink: PartSink, data: bytes, start: int, cuts: list[int]) -> None:
    places = [start, *sorted(start + cut for cut in cuts if start + cut < len(data)), len(data)]
    for begin, end in itertools.pairwise(places):
        if begin < end:
            sink.write(begin, memoryview(data)[begin:end])


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, LAYOUT.length - 1),
    cuts=st.lists(st.integers(1, LAYOUT.length), max_size=12),
    overwritten=st.none() | st.integers(0, LAYOUT.length - 1),
)
def test_a_fresh_digest_is_that_of_what_lies_in_the_file(
    tmp_path_factory: object, start: int, cuts: list[int], overwritten: int | None
) -> None:
    directory: Path = tmp_path_factory.mktemp("part")  # type: ignore[attr-defined]  # pytest's own factory
    with PartFile.create(directory, "f", "ab", LAYOUT.length) as part:
        part.write(0, memoryview(content(1)))
        fresh = FreshDigests()
        write(PartSink(part, LAYOUT, fresh, lambda item: None), content(2), start, cuts)
        if overwritten is not None:
            sink = PartSink(part, LAYOUT, fresh, lambda item: None)
            sink.write(overwritten, memoryview(b"!"))
        found = 0
        for chunk in range(LAYOUT.count):
            digest = fresh.take(ChunkIndex(chunk))
            if digest is not None:
                found += 1
                assert digest == part.digest_range(LAYOUT.range_of(ChunkIndex(chunk)))
                assert fresh.take(ChunkIndex(chunk)) is None
        whole = LAYOUT.inside(ByteRange(start, LAYOUT.length))
        lost = overwritten is not None and overwritten // CHUNK in whole
        assert found == len(whole) - lost


def test_two_requests_that_meet_in_a_chunk_leave_no_digest(tmp_path: Path) -> None:
    data = content(3)
    with PartFile.create(tmp_path, "f", "ab", LAYOUT.length) as part:
        fresh = FreshDigests()
        PartSink(part, LAYOUT, fresh, lambda item: None).write(0, memoryview(data)[:40])
        PartSink(part, LAYOUT, fresh, lambda item: None).write(40, memoryview(data)[40 : 2 * CHUNK])
        assert fresh.take(ChunkIndex(0)) is None
        assert fresh.take(ChunkIndex(1)) == part.digest_range(LAYOUT.range_of(ChunkIndex(1)))
