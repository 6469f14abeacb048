"""The peer cache's records in memory: found by any of their ids, held while somebody uses them.

A record that is to go while it is held is *doomed*: nobody finds it any more, whoever uses it reads on, and it goes
when the last one lets go of it.
Never knows: files, the index, limits. On the event loop, but for `get`, which may be called in any thread.
Source: bits-reference 4.1 (in-use records go after the activity ends).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

from peer.cacheindex import Record
from peer.cachevalues import CacheRecord
from peer.core.eviction import Usage
from validation.content import ChunkLayout, ContentId, runs_in


class Shelf:
    """All records of one cache."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._by_id: dict[ContentId, Record] = {}
        self._next_key = 1

    def __iter__(self) -> Iterator[Record]:
        """Every record, oldest first, doomed ones included; the shelf may change meanwhile."""
        return iter(list(self._records.values()))

    def get(self, content_id: ContentId) -> Record | None:
        """The record of this id, also a doomed one: for those who hold it."""
        return self._by_id.get(content_id)

    def find(self, content_id: ContentId) -> Record | None:
        """The record of this id, for everybody else."""
        record = self._by_id.get(content_id)
        return None if record is None or record.doomed else record

    def load(self, records: Iterable[Record]) -> None:
        """What the index knew."""
        for record in records:
            self._records[record.key] = record
            self._by_id.update(dict.fromkeys(record.content_ids, record))
        self._next_key = max(self._records, default=0) + 1

    def put(self, content_ids: tuple[ContentId, ...], layout: ChunkLayout, now: float) -> Record | None:
        """The record of a content under all these ids, made when it is new. None: it is doomed.

        Raises ValueError when the content is known with another layout.
        """
        record = next((self._by_id[item] for item in content_ids if item in self._by_id), None)
        if record is None:
            record = Record(
                key=self._next_key,
                file=secrets.token_hex(16),
                layout=layout,
                created_at=now,
                last_access_at=now,
                stored_access_at=now,
            )
            self._next_key += 1
            self._records[record.key] = record
        elif record.doomed:
            return None
        elif record.layout != layout:
            raise ValueError(f"{content_ids[0]} is cached as {record.layout}, not as {layout}")
        for content_id in content_ids:
            if content_id not in self._by_id:
                self._by_id[content_id] = record
                record.content_ids += (content_id,)
        return record

    def take_away(self, records: Iterable[Record]) -> None:
        """These are gone at once, whoever uses them."""
        for record in records:
            record.gone = True
            record.lose(record.have)
            self._records.pop(record.key, None)
            for content_id in record.content_ids:
                self._by_id.pop(content_id, None)

    def usages(self) -> list[Usage]:
        """What each occupies, for those who choose what to drop."""
        return [
            Usage(
                content_id=record.content_ids[0],
                bytes_held=record.bytes_held + record.bytes_coming,
                last_access_at=record.last_access_at,
                busy=record.busy,
            )
            for record in self._records.values()
        ]


def shown(record: Record) -> CacheRecord:
    """The record as people see it."""
    layout = record.layout
    spans = (layout.span(first, last) for first, last in runs_in(record.have))
    return CacheRecord(
        content_id=record.content_ids[0],
        aliases=record.content_ids[1:],
        length=layout.length,
        chunks_held=record.have.bit_count(),
        bytes_held=record.bytes_held,
        ranges_held=tuple((item.start, item.stop) for item in spans),
        last_access_at=record.last_access_at,
        created_at=record.created_at,
    )
