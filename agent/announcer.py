"""Tells listeners: the feed of events to whoever reads it, deliveries to callbacks, and notify commands.

The feed is read from the journal, so that a reader that comes back misses nothing; only progress, which nobody has
to know, passes by it. Which notice goes to whom, and when again, is decided by `agent/core/notices.py`.
Never knows: REST, sockets, rules of notification.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec

from agent.core.jobs import Job
from agent.core.notices import Deliver, ListenerId, Notice, RunNotifyCommand
from agent.core.queue import JobId
from agent.journal import FeedItem, Journal
from agent.notify_command import CommandResult, run_notify_command
from agent.schema import DeliveryDocument, EventDocument, EventKind, JobDocument

PAGE = 500
"""Events read from the journal at once."""
PROGRESS_S = 0.5
"""Progress of one job is told at most this often (BITS: 500 ms)."""
WAITING_DELIVERIES = 64
"""Deliveries that may wait for one listener; the core has at most four under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a reader stands before any event has come: what it names when it comes back."""

    number: int


@dataclass(slots=True, eq=False)
class _Reader:
    """Somebody who reads the feed."""

    job: JobId | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    progress: dict[JobId, EventDocument] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Listener:
    """Somebody who answers deliveries."""

    deliveries: asyncio.Queue[DeliveryDocument] = field(
        default_factory=lambda: asyncio.Queue(maxsize=WAITING_DELIVERIES)
    )


class Announcer:
    """All listeners of one agent. On the engine's loop."""

    def __init__(self, journal: Journal, home: str) -> None:
        self._journal = journal
        self._home = home
        self._readers: set[_Reader] = set()
        self._listeners: dict[ListenerId, _Listener] = {}
        self._numbers = itertools.count(1)
        self._told_at: dict[JobId, float] = {}

    # --- the feed --------------------------------------------------------------------------------------------

    def recorded(self, items: list[FeedItem]) -> None:
        """These events are in the journal now."""
        if items:
            for reader in self._readers:
                reader.wake.set()

    def progressed(self, job: Job, document: Callable[[], JobDocument]) -> None:
        """Bytes came, or a property changed: told to readers that are there, and at most twice a second."""
        readers = [reader for reader in self._readers if reader.job in (None, job.job)]
        now = time.monotonic()
        if not readers or now < self._told_at.get(job.job, -PROGRESS_S) + PROGRESS_S:
            return
        self._told_at[job.job] = now
        found = document()
        event = EventDocument(
            sequence=None,
            at=time.time(),
            kind=EventKind.JOB_MODIFICATION,
            job=job.job,
            name=found.name,
            state=found.state,
            bytes_transferred=found.bytes_transferred,
            bytes_total=found.bytes_total,
        )
        for reader in readers:
            reader.progress[job.job] = event
            reader.wake.set()

    def gone(self, job: JobId) -> None:
        """The job has ended: its progress means nothing any more."""
        self._told_at.pop(job, None)
        for reader in self._readers:
            reader.progress.pop(job, None)

    async def events(self, after: int | None, job_id: str | None) -> AsyncIterator[EventDocument | Mark]:
        """Every event with a number above `after` (None: from now on), then each as it happens. A mark comes first
        when the reader does not know where it stands."""
        reader = _Reader(job=None if job_id is None else JobId(job_id))
        self._readers.add(reader)
        try:
            first, last = await self._journal.feed_bounds()
            position = last if after is None else min(after, last)
            if after is not None and (after + 1 < first or after > last):
                yield EventDocument(sequence=None, at=time.time(), kind=EventKind.LOST, job="")
                position = max(position, first - 1) if after <= last else last
            if position != after:
                yield Mark(number=position)
            while True:
                reader.wake.clear()
                while items := await self._journal.feed_after(position, PAGE, job_id):
                    for item in items:
                        yield numbered(item)
                    position = items[-1].sequence
                progress, reader.progress = reader.progress, {}
                for event in progress.values():
                    yield event
                await reader.wake.wait()
        finally:
            self._readers.discard(reader)

    # --- callbacks -------------------------------------------------------------------------------------------

    def new_listener(self) -> ListenerId:
        """Make room for a listener; the caller tells the core of it."""
        listener = ListenerId(next(self._numbers))
        self._listeners[listener] = _Listener()
        return listener

    def drop_listener(self, listener: ListenerId) -> None:
        """It went away; the caller tells the core."""
        self._listeners.pop(listener, None)

    async def deliveries_of(self, listener: ListenerId) -> AsyncIterator[DeliveryDocument]:
        """What the listener is to be told, as it comes."""
        queue = self._listeners[listener].deliveries
        while True:
            yield await queue.get()

    def deliver(self, command: Deliver, document: JobDocument) -> bool:
        """Hand a delivery to its listener. False: it cannot take it."""
        found = self._listeners.get(command.listener)
        if found is None or found.deliveries.full():
            return False
        notice = command.notice
        found.deliveries.put_nowait(
            DeliveryDocument(
                delivery=command.delivery,
                serial=notice.serial,
                notice=notice.kind.value,
                file=notice.file,
                ranges=list(notice.ranges),
                job=document,
            )
        )
        return True

    # --- commands --------------------------------------------------------------------------------------------

    async def run_command(self, command: RunNotifyCommand, document: JobDocument) -> CommandResult:
        """Run the job's notify command once. The serial is the same when the same notice comes again."""
        notice: Notice = command.notice
        environment = {
            "NEARFETCH_JOB": document.id,
            "NEARFETCH_STATE": document.state,
            "NEARFETCH_EVENT": notice.kind.value,
            "NEARFETCH_SERIAL": str(notice.serial),
            "NEARFETCH_HOME": self._home,
        }
        body = msgspec.json.encode({"event": notice.kind.value, "job": document})
        return await run_notify_command(document.notify_command or (), environment, body)


def numbered(item: FeedItem) -> EventDocument:
    """An event as it was recorded, with its number."""
    return msgspec.structs.replace(msgspec.json.decode(item.data, type=EventDocument), sequence=item.sequence)
