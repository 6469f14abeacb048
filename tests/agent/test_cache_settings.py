"""What a user set at run time wins over the configuration, and outlives a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.cache_settings import KEY, CacheSettings, limits_of
from agent.config import Config
from agent.journal import Journal
from agent.schema import CacheChange
from peer.cache import CacheLimits


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


def config(**changes: object) -> Config:
    return Config(home=Path("/home"), **changes)  # type: ignore[arg-type]


async def test_nothing_is_set_at_first(journal: Journal) -> None:
    assert await CacheSettings.load(journal) == CacheSettings()


async def test_what_was_set_comes_back(journal: Journal) -> None:
    change = CacheChange(limit_bytes=5, max_age_s=86_400.0, peer_fetch=False, peer_serve=True)
    settings = CacheSettings().changed(change)
    await settings.save(journal)
    assert await CacheSettings.load(journal) == settings
    assert settings == CacheSettings(limit_bytes=5, max_age_s=86_400.0, peer_fetch=False, peer_serve=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"limit_bytes": "many"}', '{"max_age_s": []}'])
async def test_what_cannot_be_read_is_as_if_nothing_were_set(journal: Journal, text: str) -> None:
    await journal.set_meta(KEY, text)
    assert await CacheSettings.load(journal) == CacheSettings()


async def test_settings_of_a_later_version_are_read_as_far_as_they_are_known(journal: Journal) -> None:
    await journal.set_meta(KEY, '{"limit_share": 0.2, "colour": "blue"}')
    assert await CacheSettings.load(journal) == CacheSettings(limit_share=0.2)


def test_what_a_change_leaves_out_stays() -> None:
    before = CacheSettings(limit_bytes=5, peer_fetch=False)
    assert before.changed(CacheChange()) == before
    after = before.changed(CacheChange(peer_serve=False))
    assert after == CacheSettings(limit_bytes=5, peer_fetch=False, peer_serve=False)


def test_one_limit_takes_the_place_of_the_other() -> None:
    by_share = CacheSettings(limit_bytes=5).changed(CacheChange(limit_share=0.5))
    assert by_share == CacheSettings(limit_share=0.5)
    assert by_share.changed(CacheChange(limit_bytes=0)) == CacheSettings(limit_bytes=0)


@pytest.mark.parametrize(
    ("given", "here", "limits"),
    [
        (config(), CacheSettings(), CacheLimits(max_bytes=None, max_share=0.1, max_age_s=7_776_000.0)),
        (
            config(cache_max_bytes=7, cache_max_share=0.3, cache_max_age_s=5.0),
            CacheSettings(),
            CacheLimits(max_bytes=7, max_share=0.3, max_age_s=5.0),
        ),
        (
            config(cache_max_bytes=7, cache_max_age_s=5.0),
            CacheSettings(limit_share=0.2),
            CacheLimits(max_bytes=None, max_share=0.2, max_age_s=5.0),
        ),
        (
            config(cache_max_bytes=7),
            CacheSettings(limit_bytes=0, max_age_s=86_400.0),
            CacheLimits(max_bytes=0, max_share=0.1, max_age_s=86_400.0),
        ),
    ],
)
def test_what_holds(given: Config, here: CacheSettings, limits: CacheLimits) -> None:
    assert limits_of(given, here) == limits
