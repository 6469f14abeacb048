"""The peer cache says which contents change, so that nobody has to look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from peer.cache import CacheLimits, PeerCache
from tests.support.contents import ALICE, Content, MakeContent, Reopen, cid
from validation.content import NO_CHUNKS, ChunkIndex, ContentId, bitfield

IDS = (cid("one"), cid("alias"))


class Changes:
    """What a cache said, and what it would have offered then."""

    def __init__(self, cache: PeerCache) -> None:
        self.heard: list[tuple[ContentId, int]] = []
        self._cache = cache
        cache.on_change = self._changed

    def _changed(self, content_id: ContentId) -> None:
        entry = self._cache.find(content_id)
        self.heard.append((content_id, NO_CHUNKS if entry is None else entry.have))

    def take(self) -> list[tuple[ContentId, int]]:
        heard, self.heard = self.heard, []
        return heard


async def filled(content: Content, cache: PeerCache) -> Changes:
    """Two chunks of a content with two ids; then every change is heard."""
    for chunk in (0, 1):
        await cache.add_chunk(replace(content.chunk(chunk, ALICE), content_ids=IDS))
    return Changes(cache)


async def test_a_chunk_that_comes_is_said_under_every_id(content: MakeContent, reopen: Reopen) -> None:
    one, cache = content("one"), await reopen()
    changes = Changes(cache)
    await cache.add_chunk(replace(one.chunk(0), content_ids=IDS))
    await cache.add_chunk(replace(one.chunk(2), content_ids=IDS))
    assert changes.take() == [(item, have) for have in (bitfield([0]), bitfield([0, 2])) for item in IDS]


@pytest.mark.parametrize(
    ("act", "left"),
    [
        (lambda cache: cache.withdraw_chunks(IDS[1], bitfield([0, 5])), bitfield([1])),
        (lambda cache: cache.withdraw_vouched_by(ALICE), NO_CHUNKS),
        (lambda cache: cache.withdraw(IDS[1]), NO_CHUNKS),
        (lambda cache: cache.delete(IDS[0]), NO_CHUNKS),
        (lambda cache: cache.clear(), NO_CHUNKS),
        (lambda cache: cache.set_limits(CacheLimits(max_bytes=10)), NO_CHUNKS),
    ],
    ids=["chunks", "signer", "content", "delete", "clear", "limits"],
)
async def test_what_goes_is_said_too(
    content: MakeContent, reopen: Reopen, act: Callable[[PeerCache], Awaitable[object]], left: int
) -> None:
    cache = await reopen()
    changes = await filled(content("one"), cache)
    await act(cache)
    assert set(changes.take()) == {(item, left) for item in IDS}


async def test_what_is_cleared_in_use_is_gone_for_others(content: MakeContent, reopen: Reopen) -> None:
    cache = await reopen()
    changes = await filled(content("one"), cache)
    let_go = cache.hold(IDS[0])
    assert await cache.clear() == 1
    assert set(changes.take()) == {(item, NO_CHUNKS) for item in IDS}
    assert let_go()
    await cache.sweep()


async def test_damage_that_is_found_is_said(content: MakeContent, reopen: Reopen) -> None:
    one = content("one")
    await filled(one, await reopen())
    cache = await reopen()
    changes = Changes(cache)
    (path,) = (cache._directory / "objects").iterdir()
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    assert changes.take() == []
    await cache.ensure_checked(IDS[0], ChunkIndex(0), ChunkIndex(1))
    assert set(changes.take()) == {(item, bitfield([1])) for item in IDS}
