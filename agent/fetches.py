"""The requests in flight of one file, carried out: one source, one range, one outcome.

Every `FetchRange` ends in exactly one `RangeReceived` or `RangeFailed`, also when it is aborted. Never retries.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, assert_never

from agent.context import Context, Work
from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.events import RequestId
from agent.core.facts import OriginFacts
from agent.core.sources import FileId, SourceKind, kind_of, peer_of, sibling_of
from agent.errors import DestinationError
from agent.near import NearWatch
from agent.origin import OriginRequest
from agent.origin_options import OriginOptions
from agent.partfile import PartFile, PartFileLost
from agent.partsink import FreshDigests, PartSink, ShiftedSink
from agent.schema import NewFile
from agent.throttle import Limiter
from peer.body import failure_of_oserror
from peer.cache import NotCached
from peer.core.failure import Failure, FailureKind
from peer.core.voucher import Voucher
from peer.sink import Fetched
from validation.content import ChunkIndex, ChunkLayout
from validation.ranges import ByteRange


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginWishes:
    """How the origin is to be asked, and how fast."""

    options: OriginOptions = field(default_factory=OriginOptions)
    limiter: Limiter | None = None
    basis: tuple[object, ...] = ()
    """What the limiter was made of: equal ones hold back alike."""

    def alike(self, other: OriginWishes) -> bool:
        """A request made under one would not be another one under the other."""
        return (self.options, self.basis) == (other.options, other.basis)


class FetchWork(Work, Protocol):
    """What fetching needs to know of the file it fetches for."""

    new: NewFile
    wishes: OriginWishes
    taken_back: asyncio.Event | None

    @property
    def file(self) -> FileId:
        """Its id."""

    @property
    def facts(self) -> OriginFacts:
        """The origin's description."""

    @property
    def remote_url(self) -> str:
        """Where the origin is asked."""

    @property
    def watch(self) -> NearWatch | None:
        """Who is asked; None while nobody is."""

    async def ready(self) -> PartFile | None:
        """The part file once nothing is being prepared; None when it could not be made."""


log = logging.getLogger(__name__)


class Fetches:
    """All requests in flight of one file."""

    def __init__(self, work: FetchWork, context: Context) -> None:
        self._work = work
        self._context = context
        self._tasks: dict[RequestId, asyncio.Task[None] | None] = {}
        self._of_origin: set[RequestId] = set()
        self.fresh = FreshDigests()
        """Digests of what was just written."""

    def begin(self, command: cmd.FetchRange) -> None:
        """Start one request."""
        self._tasks[command.request] = None
        if kind_of(command.source) is SourceKind.ORIGIN:
            self._of_origin.add(command.request)
        carried_out = self._carry_out(command, self._work.taken_back)
        self._context.spawn(carried_out, f"fetch {command.request} {self._work.file}")

    def abort(self, request: RequestId) -> None:
        """End one request early. One that is over is left alone."""
        if request in self._tasks:
            task = self._tasks[request]
            if task is None:
                del self._tasks[request]  # not begun yet: it will see that and end
            else:
                task.cancel()

    def renew_origin(self) -> None:
        """The origin is to be asked in another way from now on: what is under way ends, and begins again."""
        for request in list(self._of_origin):
            self.abort(request)

    async def end(self) -> None:
        """End every request and wait until none of them writes any more."""
        running = [task for task in self._tasks.values() if task is not None]
        for request in list(self._tasks):
            self.abort(request)
        if running:
            await asyncio.wait(running)

    async def _carry_out(self, command: cmd.FetchRange, taken_back: asyncio.Event | None) -> None:
        outcome: Fetched | Failure = Failure(kind=FailureKind.ABORTED, message="ended by this agent")
        try:
            if command.request in self._tasks:
                self._tasks[command.request] = asyncio.current_task()
                if taken_back is not None:
                    await taken_back.wait()
                outcome = await self._fetch(command)
        except asyncio.CancelledError:
            raise
        except OSError as error:
            outcome = failure_of_oserror(error)
        except (NotCached, PartFileLost, DestinationError, ValueError) as error:
            outcome = Failure(kind=FailureKind.NOT_FOUND, message=str(error))
        except Exception:
            log.exception("a fetch failed unexpectedly")
            outcome = Failure(kind=FailureKind.IO_ERROR, message="an unexpected error, see the agent's log")
        finally:
            self._tasks.pop(command.request, None)
            self._of_origin.discard(command.request)
            self._report(command, outcome)

    def _report(self, command: cmd.FetchRange, outcome: Fetched | Failure) -> None:
        if isinstance(outcome, Failure):
            self._context.post(ev.RangeFailed(file=self._work.file, request=command.request, failure=outcome))
        else:
            self._context.post(
                ev.RangeReceived(
                    file=self._work.file,
                    request=command.request,
                    item=outcome.item,
                    vouchers=outcome.vouchers,
                )
            )

    async def _fetch(self, command: cmd.FetchRange) -> Fetched | Failure:
        part = await self._work.ready()
        if part is None:
            return Failure(kind=FailureKind.ABORTED, message="there is no temporary file")
        match kind_of(command.source):
            case SourceKind.ORIGIN:
                return await self._from_origin(command, part)
            case SourceKind.PEER:
                return await self._from_peer(command, part)
            case SourceKind.CACHE:
                return await self._from_cache(command, part)
            case SourceKind.SIBLING:
                return await self._from_sibling(command, part)
            case unknown:
                assert_never(unknown)

    async def _from_origin(self, command: cmd.FetchRange, part: PartFile) -> Fetched | Failure:
        """One request for each piece of the remote file that the range is made of: in the job's order, so that a
        server which would merge or reorder them has nothing to merge (bits-reference 1.7)."""
        work, sink = self._work, self._sink(command, part)
        item = command.item
        for remote, local in work.transfer.pieces(command.item):
            shifted = sink if remote.start == local else ShiftedSink(sink, local - remote.start)
            request = OriginRequest(
                url=work.remote_url,
                home=work.new.url,
                item=remote,
                facts=work.facts,
                options=work.wishes.options,
                limiter=work.wishes.limiter,
            )
            outcome = await self._context.parts.origin.fetch(request, shifted)
            if isinstance(outcome, Failure):
                return outcome
            item = ByteRange(command.item.start, local + outcome.item.length)
        return Fetched(item=item)

    async def _from_peer(self, command: cmd.FetchRange, part: PartFile) -> Fetched | Failure:
        network, watch, peer = self._context.parts.network, self._work.watch, peer_of(command.source)
        if network is None or watch is None or peer is None:
            return Failure(kind=FailureKind.ABORTED, message="nobody is asked any more")
        sink = self._sink(command, part)
        return await network.fetch(peer, watch.id_for(peer), self._layout(), command.item, sink)

    async def _from_cache(self, command: cmd.FetchRange, part: PartFile) -> Fetched | Failure:
        cache, content_ids = self._context.parts.cache, self._work.transfer.content_ids
        if not content_ids:
            return Failure(kind=FailureKind.NOT_FOUND, message="not in the cache")
        self._overwrite(command.item)
        with part.borrowed() as fd:
            await cache.copy_out(content_ids[0], command.item, fd)
        self._arrived(command, command.item)
        vouchers: list[Voucher] = []
        for chunk in self._layout().touched_by(command.item):
            for content_id in content_ids:
                vouchers += cache.vouchers(content_id, ChunkIndex(chunk))
        return Fetched(item=command.item, vouchers=tuple(vouchers))

    async def _from_sibling(self, command: cmd.FetchRange, part: PartFile) -> Fetched | Failure:
        leader = sibling_of(command.source)
        work = self._context.work_of(leader) if leader is not None else None
        if work is None or work.part is None:
            return Failure(kind=FailureKind.NOT_FOUND, message="the other job is gone")
        self._overwrite(command.item)
        with work.part.borrowed() as fd:
            await self._context.parts.workers.finish(part.copy_from, fd, command.item)
        chunks, ids = work.transfer.chunks, self._work.transfer.content_ids
        if (
            chunks is None
            or work.transfer.content_ids[:1] != ids[:1]
            or any(not chunks.proven >> chunk & 1 for chunk in chunks.layout.touched_by(command.item))
        ):
            return Failure(kind=FailureKind.NOT_FOUND, message="the other job has discarded it")
        self._arrived(command, command.item)
        return Fetched(item=command.item)

    def _overwrite(self, item: ByteRange) -> None:
        for chunk in self._layout().touched_by(item):
            self.fresh.forget(ChunkIndex(chunk))

    def _sink(self, command: cmd.FetchRange, part: PartFile) -> PartSink:
        layout = None if self._work.transfer.length is None else self._layout()
        return PartSink(part, layout, self.fresh, partial(self._arrived, command))

    def _arrived(self, command: cmd.FetchRange, item: ByteRange) -> None:
        """What comes from near comes in small ranges: the last bytes of one are told with its end."""
        if item.stop == command.item.stop and kind_of(command.source) is SourceKind.PEER:
            return
        self._context.post(ev.RangeArrived(file=self._work.file, request=command.request, item=item))

    def _layout(self) -> ChunkLayout:
        return ChunkLayout.for_length(self._work.transfer.length or 0)
