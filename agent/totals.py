"""What this agent has fetched and given, for ever. Kept in the journal; jobs that are alive are added when asked.

Never knows: rules. Counts may lack the last seconds before a crash.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from agent.core.job import JobState
from agent.core.jobs import Job
from agent.journal import Journal

KEY = "totals"


class _Stored(msgspec.Struct, kw_only=True, omit_defaults=True):
    since: float
    from_origin: int = 0
    from_peers: int = 0
    from_cache: int = 0
    discarded: int = 0
    jobs: int = 0
    files: int = 0


class Totals:
    """Sums over jobs that have ended."""

    def __init__(self, stored: _Stored) -> None:
        """Use `load`."""
        self._stored = stored

    @classmethod
    async def load(cls, journal: Journal) -> Totals:
        """What was counted before."""
        text = await journal.get_meta(KEY)
        try:
            stored = msgspec.json.decode(text, type=_Stored) if text else _Stored(since=time.time())
        except msgspec.DecodeError:
            stored = _Stored(since=time.time())
        return cls(stored)

    def count(self, job: Job) -> dict[str, str]:
        """A job has ended. Returns what is to be recorded together with that, so that no job counts twice."""
        self._add(self._stored, job)
        self._stored.jobs += job.state is JobState.ACKNOWLEDGED
        self._stored.files += sum(file.completed for file in job.files)
        return {KEY: msgspec.json.encode(self._stored).decode("utf-8")}

    def with_living(self, jobs: Iterable[Job]) -> _Stored:
        """The sums, with those of the jobs that are alive."""
        total = msgspec.structs.replace(self._stored)
        for job in jobs:
            self._add(total, job)
        return total

    @staticmethod
    def _add(total: _Stored, job: Job) -> None:
        for file in job.files:
            tally = file.transfer.tally
            total.from_origin += tally.from_origin
            total.from_peers += tally.from_peers
            total.from_cache += tally.from_cache
            total.discarded += tally.discarded
