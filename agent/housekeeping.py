"""What an agent does every hour and every day, whoever asks: the cache's age limit, what is remembered of contents
that are gone, a snapshot of the journal.

Never decides about jobs. Source: reliability 2.3 (a snapshot daily and on a clean stop).
"""

from __future__ import annotations

import asyncio

from agent.journal import Journal
from agent.keeper import Keeper
from peer.cache import PeerCache

TIDY_S = 3600.0
TIDIES_A_DAY = 24


async def keep_house(cache: PeerCache, journal: Journal, keeper: Keeper) -> None:
    """Until it is cancelled. The first round is at once, the first snapshot after a day."""
    rounds = 0
    while True:
        await cache.tidy()
        await keeper.forget_urls(
            {name for record in cache.records() for name in (record.content_id, *record.aliases)}
        )
        if rounds % TIDIES_A_DAY == TIDIES_A_DAY - 1:
            await journal.snapshot()
        rounds += 1
        await asyncio.sleep(TIDY_S)
