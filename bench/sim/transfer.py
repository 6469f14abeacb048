"""A transfer of the simulation: the agents' own `FileTransfer`, and what surrounds it in an agent.

Events go in, commands come out and happen here: requests over links, offers that are held together for a while,
digests, bans. Never decides which chunk comes from where, never knows the scenario.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.sources import FileId, SourceId, peer_of
from agent.core.spec import TransferSpec
from agent.core.transfer import FileTransfer
from bench.sim import offers, stock
from bench.sim.helper import Helper, Progress, progress_of
from bench.sim.request import Request
from bench.sim.trust import ASK_ANEW_S
from peer.core.failure import Failure, FailureKind
from peer.core.news import Pace
from peer.core.standing import BANNING
from peer.core.voucher import Voucher
from validation.content import NO_CHUNKS, Bitfield, chunks_in

if TYPE_CHECKING:
    from bench.sim.host import Host
    from bench.sim.swarm import Content

LOOK_S = 5.0
"""How often an agent in a large group estimates how many want the same (`agent/near.py`)."""
PROBE_S = 0.1
"""From the start of a job to the origin's answer."""
DIGEST_BYTES_PER_S = 400e6
"""A digest is made by a thread that others wait for as well."""


class Transfer:
    """One content on one host."""

    __slots__ = (
        "armed",
        "asks",
        "awake",
        "away",
        "claimed",
        "content",
        "core",
        "crowd",
        "digested",
        "done",
        "due_at",
        "file",
        "have",
        "host",
        "idle_since",
        "inbox",
        "met",
        "neighbours",
        "news_due",
        "noise",
        "offer",
        "pace",
        "progress",
        "requests",
        "swarm",
        "unheard",
        "vouchers",
        "wants",
    )

    def __init__(self, host: Host, content: Content, spec: TransferSpec | None) -> None:
        """Without a spec it has everything."""
        swarm = self.swarm = host.swarm
        self.host = host
        self.content = content
        self.file = self.file_of(content.number)
        self.core: FileTransfer | None = None
        self.away: Helper | None = None
        """Where its core is, when it is not here."""
        self.progress = Progress(0, 0, 0)
        """Of one that is away."""
        self.due_at: float | None = None
        """When its core wants to be asked again."""
        self.have = NO_CHUNKS
        """What others may be given."""
        self.claimed = NO_CHUNKS
        self.wants = False
        self.neighbours: list[Transfer] = []
        self.met = False
        """They were asked for the first time, and have answered: what happened until then is heard at once."""
        self.crowd = 0
        """About so many want it, if there are more than can be asked."""
        self.asks = False
        self.offer: ev.SourceOffered | None = None
        """What the others were told last; None: nothing."""
        self.pace: Pace | None = None
        """When all who listen may hear more; they began together."""
        self.news_due = 0
        self.unheard: dict[Transfer, None] = {}
        self.inbox: list[ev.FileEvent] = []
        self.digested: list[ev.FileEvent] = []
        """Digests that are known within the turn in which they were asked for."""
        self.awake = False
        """It has a turn soon."""
        self.vouchers: dict[int, Voucher] = {}
        self.noise: set[int] = set()
        """Chunks of its part file that are not what they should be."""
        self.requests: dict[ev.RequestId, Request] = {}
        self.armed = 0
        self.idle_since: float | None = None
        """Since when it has had no request under way."""
        self.done = spec is None
        if spec is None:
            self.have = content.layout.everything
            self.offer = offers.offer_of(self)
        else:
            rng = random.Random(f"{swarm.seed} {host.number} {content.number}")
            self.core = FileTransfer(spec, swarm.tuning, rng, own=host.peer)

    @staticmethod
    def file_of(number: int) -> FileId:
        """The same for everybody, so that one event tells many what somebody offers."""
        return FileId(f"job/{number}")

    def waits_for(self) -> str:
        """The state of one that is not done, for people."""
        if self.host.trouble is not None and not self.requests:
            return f"is in trouble ({self.host.trouble})"
        if self.away is not None:
            return f"has {self.brought.held} bytes of file {self.content.number}"
        chunks = None if self.core is None else self.core.chunks
        if chunks is None:
            return "has not begun"
        first = next(chunks_in(Bitfield(chunks.layout.everything & ~chunks.proven)), 0)
        asked = {"the origin" if each.giver is None else each.giver.host.name for each in self.requests.values()}
        of_whom = f"has asked {', '.join(sorted(asked))}" if asked else "has asked nobody"
        left = chunks.layout.count - chunks.proven.bit_count()
        return f"waits for {left} chunks of file {self.content.number}, the first is {first}, and {of_whom}"

    @property
    def brought(self) -> Progress:
        """How far it is."""
        return self.progress if self.core is None else progress_of(self.core)

    # --- events ----------------------------------------------------------------------------------------------

    def post(self, event: ev.FileEvent) -> None:
        """The core is to hear it, together with what else happens in this turn of the agent's loop."""
        self.inbox.append(event)
        if not self.awake:
            self.wake()

    def wake(self) -> None:
        """It has a turn soon."""
        self.awake = True
        clock, ticks = self.swarm.clock, self.swarm.turn_ticks
        if ticks and self.met:
            clock.at_tick(clock.tick + 1 + (self.host.number - clock.tick - 1) % ticks, _take_turn, self)
        else:
            clock.at(clock.now, _take_turn, self)

    def _turn(self) -> None:
        """The core hears what has happened, and what it commands happens."""
        self.awake = False
        if not self.host.alive:
            return
        events, self.inbox = self.inbox, []
        unheard, self.unheard = self.unheard, {}
        if self.away is not None:
            self.away.turn(self, [other for other in unheard if other.host.alive], events)
            return
        core = self.core
        if core is None:
            return
        if unheard:
            events[:0] = offers.news_of(unheard, self)
        while events:
            self._perform(core.handle_all(events, self.swarm.clock.now))
            events, self.digested = self.digested, []
        self.due_at = core.deadline()
        self._arm()

    def told(self, core: FileTransfer, events: list[ev.FileEvent], now: float) -> list[cmd.Command]:
        """What its core, which is away, commands when it hears this. Digests are known at once."""
        found = list[cmd.Command]()
        while events:
            commands, events = core.handle_all(events, now), []
            for command in commands:
                if isinstance(command, cmd.DigestChunk):
                    events.append(self.digest_of(command))
                elif self.heeds(command):
                    found.append(command)
        return found

    @staticmethod
    def heeds(command: cmd.Command) -> bool:
        """It leads to anything here."""
        return type(command) in _PERFORM

    def _perform(self, commands: Iterable[cmd.Command]) -> None:
        for command in commands:
            perform = _PERFORM.get(type(command))
            if perform is not None:
                perform(self, command)

    def commanded(self, commands: Iterable[cmd.Command], due_at: float | None) -> None:
        """What its core, which is away, has commanded."""
        if self.host.alive:
            self._perform(commands)
            self.due_at = due_at
            self._arm()

    def _arm(self) -> None:
        at = self.due_at
        if at is None:
            return
        clock = self.swarm.clock
        tick = max(clock.tick + 1, clock.tick_of(at))
        if not self.armed or tick < self.armed:
            self.armed = tick
            clock.at_tick(tick, _look, self)

    def look(self) -> None:
        """Something may be due. Too early does no harm."""
        clock = self.swarm.clock
        if self.armed != clock.tick or not self.host.alive:
            return
        self.armed = 0
        at = self.due_at
        if at is not None and at <= clock.now + clock.tick_s:
            self.post(ev.Ticked(file=self.file))
        else:
            self._arm()

    def soon(self, event: ev.FileEvent, after_s: float = 0.0) -> None:
        self.swarm.clock.at(self.swarm.clock.now + after_s, self.post, event)

    # --- requests --------------------------------------------------------------------------------------------

    def _probe(self, command: cmd.ProbeOrigin) -> None:
        if self.swarm.origin_is_down:
            why = Failure(kind=FailureKind.CONNECT_FAILED, message="the origin cannot be reached")
            self.soon(ev.ProbeFailed(file=self.file, failure=why, probe=command.probe), PROBE_S)
        else:
            event = ev.OriginProbed(file=self.file, facts=self.content.facts, probe=command.probe)
            self.soon(event, PROBE_S)

    def _prepare(self, command: cmd.PrepareFile) -> None:
        host = self.host
        if host.room is not None and host.room < self.content.layout.length * len(host.transfers):
            why = Failure(kind=FailureKind.DISK_FULL, message="the disk is full")
            self.soon(ev.StorageFailed(file=self.file, failure=why))

    def _fetch(self, command: cmd.FetchRange) -> None:
        swarm = self.swarm
        giver = self._giver(command.source)
        request = Request(self, command, giver)
        self.requests[command.request] = request
        if self.idle_since is not None:
            swarm.idled(swarm.clock.now - self.idle_since)
            self.idle_since = None
        swarm.clock.at(swarm.clock.now + swarm.ask_s, Request.open, request)

    def _giver(self, source: SourceId) -> Transfer | None:
        peer = peer_of(source)
        return None if peer is None else self.swarm.by_peer[peer].transfers[self.content.number]

    def _abort(self, command: cmd.AbortFetch) -> None:
        request = self.requests.get(command.request)
        if request is not None:
            request.fail(FailureKind.ABORTED)

    def ended(self, request: Request) -> None:
        """It is over."""
        del self.requests[request.number]
        if not self.requests and not self.done and self.host.alive:
            self.idle_since = self.swarm.clock.now

    def _digest(self, command: cmd.DigestChunk) -> None:
        clock = self.swarm.clock
        if self.swarm.turn_ticks:
            self.digested.append(self.digest_of(command))
        else:
            clock.at(clock.now + command.item.length / DIGEST_BYTES_PER_S, self._digested, command)

    def _digested(self, command: cmd.DigestChunk) -> None:
        self.post(self.digest_of(command))

    def digest_of(self, command: cmd.DigestChunk) -> ev.ChunkDigested:
        """The answer."""
        chunk = command.chunk
        digests = self.content.noise if chunk in self.noise else self.content.digests
        return ev.ChunkDigested(file=self.file, chunk=chunk, digest=digests[chunk], token=command.token)

    # --- offers ----------------------------------------------------------------------------------------------

    def _claim(self, command: cmd.PublishClaim) -> None:
        said = bool(command.content_ids)
        self.claimed = command.chunks if said else NO_CHUNKS
        self.wants = said and command.wants
        self.tell()

    def _ask_near(self, command: cmd.AskNear) -> None:
        self.asks = True
        self.swarm.clock.at(self.swarm.clock.now + self.swarm.meet_s, Transfer._near_answered, self)

    def _near_answered(self) -> None:
        news = [each for each in self.neighbours if each.offer is not None and each.host.alive]
        self.unheard.update(dict.fromkeys(news))
        self._size_up()
        self.post(ev.NearAnswered(file=self.file))
        self.met = True

    def _size_up(self) -> None:
        """Of the neighbours a share wants it; of all others about as many, in proportion, will do."""
        others = len(self.swarm.hosts) - 1
        if others <= len(self.neighbours) or not self.asks:
            return
        self.swarm.clock.at(self.swarm.clock.now + LOOK_S, Transfer._size_up, self)
        wanting = sum(each.offer is not None and each.offer.wants for each in self.neighbours)
        size = 1 + round(others * wanting / len(self.neighbours))
        if abs(size - self.crowd) > self.crowd // 4:
            self.crowd = size
            self.post(ev.CrowdSized(file=self.file, size=size, group=self.swarm.group))

    def _stop_asking(self, command: cmd.StopAsking) -> None:
        self.asks = False
        self.unheard.clear()

    def tell(self) -> None:
        """The others hear what is new when an agent would tell them."""
        offers.tell(self)

    # --- ends ------------------------------------------------------------------------------------------------

    def die(self) -> None:
        """Its host died."""
        for request in tuple(self.requests.values()):
            request.drop()
        lost = ev.SourceLost(file=self.file, source=self.host.source)
        for other in self.neighbours:
            other.soon(lost, self.swarm.latency_s)

    def _report(self, command: cmd.ReportPeer) -> None:
        liar = self.swarm.by_peer[command.peer]
        if not liar.lies:
            raise self.swarm.broken(f"{self.host.name} reports {liar.name}, which is honest: {command.offence}")
        if command.offence in BANNING:
            self.host.trust.ban(liar)
            for transfer in self.host.transfers:
                transfer.forget(liar)
                clock = self.swarm.clock
                clock.at(clock.now + ASK_ANEW_S, Transfer._denounce, (transfer, liar))

    def forget(self, liar: Host) -> None:
        """What rests on its word is not offered any more."""
        for chunk in [chunk for chunk, voucher in self.vouchers.items() if voucher.signer == liar.peer]:
            del self.vouchers[chunk]
            self.have = Bitfield(self.have & ~(1 << chunk))
        self.tell()
        self.soon(ev.SourceLost(file=self.file, source=liar.source))

    @staticmethod
    def _denounce(told: tuple[Transfer, Host]) -> None:
        """Everybody is asked anew what it has, and hears of whom it is known that it lies."""
        self, liar = told
        for other in self.neighbours:
            if not other.host.alive or other.host is liar:
                continue
            if other.offer is not None:
                self.unheard[other] = None
            if other.host.trust.hears(self.host, liar):
                for each in other.host.transfers:
                    each.soon(ev.SourceLost(file=each.file, source=liar.source))
        if self.asks and not self.awake:
            self.wake()

    def _refetch(self, command: cmd.Refetching) -> None:
        self.soon(ev.Begun(file=self.file))

    def _finished(self, command: cmd.Finished) -> None:
        self.idle_since = None
        self.swarm.finished(self)

    def _troubled(self, command: cmd.Troubled) -> None:
        self.host.trouble = command.failure.message
        self.idle_since = None
        self.swarm.clock.at(command.retry_at, self.post, ev.Begun(file=self.file))

    def _failed(self, command: cmd.Failed) -> None:
        self.host.trouble = command.message
        self.idle_since = None


_take_turn, _look = Transfer._turn, Transfer.look
_PERFORM: dict[type, Callable[[Transfer, Any], None]] = {
    cmd.ProbeOrigin: Transfer._probe,
    cmd.PrepareFile: Transfer._prepare,
    cmd.AskNear: Transfer._ask_near,
    cmd.StopAsking: Transfer._stop_asking,
    cmd.PublishClaim: Transfer._claim,
    cmd.PublishChunk: stock.publish,
    cmd.WithdrawChunks: stock.withdraw,
    cmd.WithdrawContent: stock.withdraw,
    cmd.FetchRange: Transfer._fetch,
    cmd.AbortFetch: Transfer._abort,
    cmd.DigestChunk: Transfer._digest,
    cmd.ReportPeer: Transfer._report,
    cmd.ValidateContent: stock.validate,
    cmd.Refetching: Transfer._refetch,
    cmd.Finished: Transfer._finished,
    cmd.Troubled: Transfer._troubled,
    cmd.Failed: Transfer._failed,
}
"""What is owed; nothing happens for the others: there is no journal, and nobody reads a log."""
