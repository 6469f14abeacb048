"""Carries out the commands for one file: its part file, its requests, its digests, its validators.

Each method does one piece of I/O and reports one event; none decides. Order matters only where the disk is
concerned: preparing and forgetting exclude everything else, saves follow one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, assert_never

from agent.context import Context
from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts
from agent.core.sources import FileId
from agent.core.transfer import FileTransfer, Phase
from agent.destination import destination_error
from agent.errors import DestinationError
from agent.fetches import Fetches, OriginWishes
from agent.journal import FileKey
from agent.near import NearWatch
from agent.partfile import PartFile, PartFileLost
from agent.records import destination_of
from agent.schema import NewFile
from agent.verdicts import Judge
from peer.body import failure_of_oserror
from peer.cache import NewChunk
from peer.core.failure import Failure, FailureKind
from peer.core.standing import Offence
from peer.core.voucher import PeerId
from peer.database import DatabaseError
from validation.digest import ChunkDigest
from validation.rangeset import RangeSet

_RESTING = (Phase.IDLE, Phase.FAILED, Phase.DECIDING, Phase.DONE)
_PART_ERRORS = (DestinationError, PartFileLost, OSError, ValueError)
"""What using a part file may end in; ValueError: it was closed."""

PUBLISHERS = 64
"""Chunks of one file on their way into the cache at once: being copied, or waiting for their row in its index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """When a withdrawal may begin, and how those that come after it learn that it is over."""

    after: frozenset[int]
    """Publications that were under way."""
    withdrawn: asyncio.Event | None
    """The withdrawal before this one."""
    done: asyncio.Event


class FileWork:
    """One file's worker. `part` is its temporary file once there is one."""

    def __init__(self, context: Context, transfer: FileTransfer, new: NewFile, key: FileKey) -> None:
        self.new = new
        self.key = key
        self.part: PartFile | None = None
        self.wishes = OriginWishes()
        self.fetches = Fetches(self, context)
        self._context = context
        self._transfer = transfer
        self._judge = Judge(context, new)
        self._watch: NearWatch | None = None
        self._prepare = asyncio.Lock()
        self._saves = asyncio.Lock()
        self._publishing = asyncio.Semaphore(PUBLISHERS)
        self._publications: set[int] = set()
        self._published = asyncio.Condition()
        self._withdrawn: asyncio.Event | None = None
        self._numbers = itertools.count()
        self._lost_once = False
        self._held = RangeSet()
        self.taken_back: asyncio.Event | None = None
        """Set once what is not held any more is recorded as such; no request that was made later writes before."""

    @property
    def file(self) -> FileId:
        """Its id."""
        return self._transfer.spec.file

    @property
    def transfer(self) -> FileTransfer:
        """What decides for this file."""
        return self._transfer

    @property
    def facts(self) -> OriginFacts:
        """The origin's description. Only asked for when there is one."""
        assert self._transfer.facts is not None
        return self._transfer.facts

    @property
    def remote_url(self) -> str:
        """Where the origin is asked: where a redirect that the job wants reported led, once there was one."""
        return self._transfer.final_url or self.new.url

    @property
    def watch(self) -> NearWatch | None:
        """Who is asked; None while nobody is."""
        return self._watch

    def perform(self, command: cmd.Action) -> None:
        """Start carrying out one command. Returns at once."""
        match command:
            case cmd.ProbeOrigin(probe=probe):
                self._spawn(self._probe(probe), "probe")
            case cmd.AskNear():
                self._stop_asking()
                self._watch = NearWatch(self._context, command)
                self._spawn(self._watch.run(), "ask near")
            case cmd.StopAsking():
                self._stop_asking()
            case cmd.PublishClaim():
                self._context.parts.claims.put(command)
            case cmd.PrepareFile(length=length):
                self._spawn(self._prepare_file(length), "prepare")
            case cmd.FetchRange():
                self.fetches.begin(command)
            case cmd.AbortFetch(request=request):
                self.fetches.abort(request)
            case cmd.DigestChunk():
                self._begin_digest(command)
            case cmd.ReportPeer(peer=peer, offence=offence, detail=detail):
                self._report(peer, offence, detail)
            case cmd.ValidateContent(attempt=attempt):
                self._spawn(self._validate(attempt), "validate")
            case cmd.LogLine(text=text):
                self._context.log(self.file, text)
            case _:
                self._perform_storage(command)

    def _perform_storage(
        self,
        command: cmd.PublishChunk
        | cmd.WithdrawContent
        | cmd.WithdrawChunks
        | cmd.SaveProgress
        | cmd.ForgetProgress,
    ) -> None:
        match command:
            case cmd.PublishChunk():
                number = next(self._numbers)
                self._publications.add(number)
                self._spawn(self._publish(command, number, self._withdrawn), "publish")
            case cmd.WithdrawContent() | cmd.WithdrawChunks():
                before, self._withdrawn = self._withdrawn, asyncio.Event()
                turn = _Turn(after=frozenset(self._publications), withdrawn=before, done=self._withdrawn)
                self._spawn(self._withdraw(command, turn), "withdraw")
            case cmd.SaveProgress():
                self._begin_save(command)
            case cmd.ForgetProgress():
                self._spawn(self._forget(), "forget")
            case _:
                assert_never(command)

    def equip(self, wishes: OriginWishes) -> None:
        """How the origin is to be asked from now on. What is under way in another way begins again."""
        before, self.wishes = self.wishes, wishes
        if not wishes.alike(before):
            self.fetches.renew_origin()

    async def settled(self) -> None:
        """Every chunk that was to go into the cache is there, and every save is done."""
        async with self._published:
            await self._published.wait_for(lambda: not self._publications)
        async with self._saves:
            pass

    async def close(self) -> None:
        """Stop asking and fetching, and close the part file; it stays on the disk."""
        self._stop_asking()
        self._context.parts.claims.forget(self.file)
        self._judge.withdraw()
        await self.fetches.end()
        await self.settled()
        if self.part is not None:
            await self._context.parts.workers.run(self.part.close)

    async def discard(self) -> None:
        """Remove the part file."""
        await self.fetches.end()
        await self.settled()
        if self.part is not None:
            with contextlib.suppress(PartFileLost, DestinationError):  # then there is nothing to remove
                await self._context.parts.workers.run(self.part.discard)

    async def ready(self) -> PartFile | None:
        """The part file once nothing is being prepared or forgotten; None when it could not be made."""
        async with self._prepare:
            return self.part

    # --- one piece of I/O each -------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        self._context.spawn(work, f"{what} {self.file}")

    def _stop_asking(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    async def _probe(self, probe: int) -> None:
        answer = await self._context.parts.origin.probe(self.new.url, self.wishes.options)
        if isinstance(answer, Failure):
            self._context.post(ev.ProbeFailed(file=self.file, failure=answer, probe=probe))
            return
        self._context.post(
            ev.OriginProbed(
                file=self.file,
                facts=answer.facts,
                notes=answer.notes,
                final_url=answer.url,
                headers=answer.headers,
                probe=probe,
            )
        )

    async def _prepare_file(self, length: int | None) -> None:
        run = self._context.parts.workers.run
        directory, base = destination_of(self.new)
        async with self._prepare:
            try:
                if self.part is None:
                    tag = self.key.job_id
                    self.part = await run(PartFile.create, directory, base, tag, length)
                    await self._context.save_file(self.file)
                elif length is not None:
                    await run(self.part.set_length, length)
            except DestinationError as error:
                self._storage_failed(_failure_of_destination(error))
            except PartFileLost:
                await self._lost(self.part)
            except OSError as error:
                self._storage_failed(_failure_of_destination(destination_error(error, directory / base)))
            except DatabaseError as error:
                self._storage_failed(Failure(kind=FailureKind.IO_ERROR, message=str(error)))

    def _begin_digest(self, command: cmd.DigestChunk) -> None:
        """What was hashed while it was written needs no task."""
        digest = None if self.part is None else self.fetches.fresh.take(command.chunk)
        if digest is None:
            self._spawn(self._digest(command), "digest")
        else:
            asyncio.get_running_loop().call_soon(self._digested, command, digest)

    async def _digest(self, command: cmd.DigestChunk) -> None:
        part = self.part
        if part is None:
            self._storage_failed(Failure(kind=FailureKind.IO_ERROR, message="there is no temporary file"))
            return
        try:
            digest = await self._context.parts.workers.run(part.digest_range, command.item)
        except _PART_ERRORS as error:
            self._storage_failed(_failure_of_error(error))
        else:
            self._digested(command, digest)

    def _digested(self, command: cmd.DigestChunk, digest: ChunkDigest) -> None:
        self._context.post(
            ev.ChunkDigested(file=self.file, chunk=command.chunk, digest=digest, token=command.token)
        )

    async def _publish(self, command: cmd.PublishChunk, number: int, withdrawn: asyncio.Event | None) -> None:
        """`withdrawn`: set once what was withdrawn before this is gone; else it would take this with it."""
        stored: asyncio.Future[None] | None = None
        try:
            try:
                if withdrawn is not None:
                    await withdrawn.wait()
                stored = await self._offer(command)
            finally:
                self._publications.discard(number)
                async with self._published:
                    self._published.notify_all()
            if stored is not None:
                await stored
        except (*_PART_ERRORS, DatabaseError) as error:
            self._context.log(self.file, f"not kept in the peer cache: {error}")

    async def _offer(self, command: cmd.PublishChunk) -> asyncio.Future[None] | None:
        """Copy the chunk into the cache; from then on others may have it."""
        parts, part = self._context.parts, self.part
        if part is None or parts.network is None:
            return None  # without a group there is nobody to give it to, and a copy is not for nothing
        vouch = parts.network.identity.vouch
        own = tuple(vouch(each, command.chunk, command.digest) for each in command.sign)
        async with self._publishing:
            with part.borrowed() as fd:
                return await parts.cache.take_chunk(
                    NewChunk(
                        content_ids=command.content_ids,
                        layout=command.layout,
                        chunk=command.chunk,
                        digest=command.digest,
                        vouchers=command.vouchers + own,
                        source_fd=fd,
                    )
                )

    async def _withdraw(self, command: cmd.WithdrawContent | cmd.WithdrawChunks, turn: _Turn) -> None:
        try:
            if turn.withdrawn is not None:
                await turn.withdrawn.wait()
            async with self._published:
                await self._published.wait_for(lambda: turn.after.isdisjoint(self._publications))
            for content_id in command.content_ids:
                if isinstance(command, cmd.WithdrawContent):
                    await self._context.parts.cache.withdraw(content_id)
                else:
                    await self._context.parts.cache.withdraw_chunks(content_id, command.chunks)
        finally:
            turn.done.set()

    def _report(self, peer: PeerId, offence: Offence, detail: str) -> None:
        network = self._context.parts.network
        if network is not None and peer != network.identity.peer_id:
            known = {status.peer_id: status.name for status in network.peers()}
            name = f"{known.get(peer) or 'unknown'} ({peer[:8]})"
            self._context.log(self.file, f"banned peer {name}: it {offence.value} ({detail})")
            network.report(peer, offence, detail)

    def _begin_save(self, command: cmd.SaveProgress) -> None:
        held = RangeSet(command.held)
        done = None
        if any(held.gaps(item) for item in self._held):  # less than before: recorded before anything is written
            done = self.taken_back = asyncio.Event()
        self._held = held
        self._spawn(self._save(command, held, done), "save")

    async def _save(self, command: cmd.SaveProgress, held: RangeSet, done: asyncio.Event | None) -> None:
        try:
            async with self._saves:
                await self._record(command, held)
        finally:
            if done is not None:
                done.set()
        await self._rest()

    async def _record(self, command: cmd.SaveProgress, held: RangeSet) -> None:
        journal, part = self._context.parts.journal, self.part
        if part is None:
            return
        try:
            if command.durability is cmd.Durability.PROCESS:
                await journal.note_progress(self.key, held)
            else:
                await self._context.parts.workers.run(part.sync)
                await journal.checkpoint_progress(self.key, held)
                await self._context.save_file(self.file)
        except KeyError:
            return  # the job is gone
        except PartFileLost:
            await self._lost(part)
        except _PART_ERRORS as error:
            await self._sync_failed(part, error)
        except DatabaseError as error:
            self._storage_failed(Failure(kind=FailureKind.DISK_FULL, message=str(error)))

    async def _sync_failed(self, part: PartFile, error: Exception) -> None:
        """What was written since the last good sync cannot be believed (reliability 2.3, r5): begin again, once."""
        if not part.suspect or self._lost_once:
            self._storage_failed(_failure_of_error(error))
            return
        self._lost_once = True
        await self._lost(part)

    async def _lost(self, part: PartFile | None) -> None:
        """What was written cannot be used any more: recorded first, then said."""
        await self._context.parts.journal.checkpoint_progress(self.key, RangeSet())
        if part is not None:
            await self._drop_part(part)
        self._context.post(ev.PartFileLost(file=self.file))

    async def _drop_part(self, part: PartFile) -> None:
        self.part = None
        with contextlib.suppress(PartFileLost, DestinationError):
            await self._context.parts.workers.run(part.discard)
        await self._context.parts.workers.run(part.close)

    async def _forget(self) -> None:
        async with self._prepare, self._saves:
            await self.fetches.end()
            await self._context.parts.journal.checkpoint_progress(self.key, RangeSet())
            if self.part is not None:
                await self._context.parts.workers.run(self.part.truncate)

    async def _validate(self, attempt: int) -> None:
        part = await self.ready()
        if part is None:
            return
        async with self._saves:
            pass  # a validator may take long: what is there must be recorded before it begins
        length = self._transfer.length
        if length is not None:
            try:
                await self._context.parts.workers.run(part.set_length, length)
            except PartFileLost:
                await self._lost(part)
                return
            except (DestinationError, OSError) as error:
                self._storage_failed(_failure_of_error(error))
                return
        self._context.post(await self._judge.answer(self._transfer, part.path, attempt))
        await self._rest()

    def _storage_failed(self, failure: Failure) -> None:
        self._context.post(ev.StorageFailed(file=self.file, failure=failure))

    def adopt(self, part: PartFile) -> None:
        """Take over the part file of an earlier process."""
        self.part = part

    async def _rest(self) -> None:
        """Nobody is about to use the part file."""
        if self.part is not None and self._transfer.phase in _RESTING:
            await self._context.parts.workers.run(self.part.rest)


def _failure_of_destination(error: DestinationError) -> Failure:
    kind = FailureKind(error.code) if error.code in FailureKind.__members__ else FailureKind.IO_ERROR
    return Failure(kind=kind, message=str(error))


def _failure_of_error(error: Exception) -> Failure:
    if isinstance(error, OSError):
        return failure_of_oserror(error)
    if isinstance(error, DestinationError):
        return _failure_of_destination(error)
    return Failure(kind=FailureKind.IO_ERROR, message=str(error))
