"""Many transfers of one content in virtual time: an origin, links that are shared fairly, offers that come late.

A host has an up and a down capacity; a request is a flow whose rate is what max-min fairness over its two ends
gives it. Offers travel like the agents': coalesced, a moment late. Only what the core commands happens; whether it
keeps its promises is asserted while it runs. Nothing real moves: bytes are counted, digests are true but for liars.
Who wants to see what the cores are told and what they command adds an observer (swarm_diary.py is one).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core import commands as cmd
from agent.core import events as ev
from agent.core.facts import OriginFacts, RangeSupport
from agent.core.sources import ORIGIN, FileId, peer_of, peer_source
from agent.core.spec import TransferSpec
from agent.core.transfer import FileTransfer
from agent.core.tuning import Tuning
from peer.core.failure import Failure, FailureKind
from peer.core.standing import BANNING, Offence
from peer.core.voucher import PeerId, Voucher
from validation.content import MIN_CHUNK_BYTES, NO_CHUNKS, Bitfield, ChunkIndex, ChunkLayout
from validation.digest import ChunkDigest
from validation.ranges import ByteRange

CHUNK = MIN_CHUNK_BYTES
COALESCE_S = 0.15
"""Between two news of one agent to another."""
DELAY_S = 0.005
"""One way, of news and of requests."""
LOST_S = 2.0
"""After so long, others know that an agent is gone."""
STALL_S = 10.0
"""After so long without a byte, a request fails."""
RENEW_S = 0.25
"""After a ban, others are asked in other words, and hear of it."""
PIECE_S = 0.25
"""Arrived bytes are told at least this often."""


def digest_of(chunk: int, flavour: str = "true") -> ChunkDigest:
    """Any injection will do."""
    return hashlib.sha256(f"{flavour} {chunk}".encode()).digest()


@dataclass(kw_only=True)
class Host:
    """One agent's machine."""

    up: float = 1e7
    """Bytes per second."""
    down: float = 1e7
    starts_at: float = 0.0
    dies_at: float | None = None
    """It vanishes: connections hang or break, news of its loss take two seconds."""
    origin_down_at: float | None = None
    """From then on nothing comes from the origin to it."""
    lies: float = 0.0
    """Part of its chunks that it sends as noise under true vouchers."""
    forges: bool = False
    """It vouches for that noise, with its own key."""
    leaves: bool = False
    """It says goodbye as soon as it has everything."""
    stalls: bool = False
    """It takes requests and sends nothing."""
    has_all: bool = False
    slots: int = 16
    spec: dict[str, object] = field(default_factory=dict)


@dataclass(eq=False)
class Flow:
    """A request under way."""

    agent: Agent
    command: cmd.FetchRange
    giver: Agent | None
    """None: the origin."""
    left: float
    told: int
    rate: float = 0.0
    quiet_since: float = 0.0
    frozen: bool = False

    @property
    def done(self) -> int:
        """Offset up to which all has come."""
        return min(self.command.item.stop, int(self.command.item.stop - self.left + 1e-6))


Observer = Callable[["Agent", ev.FileEvent, list[cmd.Command]], None]
"""Called for every event that a core was given, with what it commanded; the world has done nothing of that yet."""


class Agent:
    """One transfer and what surrounds it."""

    def __init__(self, swarm: Swarm, number: int, host: Host) -> None:
        self.swarm, self.number, self.host = swarm, number, host
        self.peer = PeerId(hashlib.sha256(f"agent {swarm.seed} {number}".encode()).hexdigest())
        self.file = FileId(f"job{number}/0")
        spec = TransferSpec(file=self.file, url="http://origin.example/file", **host.spec)  # type: ignore[arg-type]
        rng = random.Random(swarm.seed * 1000 + number)
        self.transfer = FileTransfer(spec, swarm.tuning, rng, own=self.peer)
        self.have = NO_CHUNKS
        self.said: cmd.PublishClaim | None = None
        self.asks = False
        self.news_at: dict[Agent, float] = {}
        self.vouchers: dict[int, Voucher] = {}
        self.noise: dict[int, None] = {}
        """Chunks of its part file that are not what they should be."""
        self.flows: dict[ev.RequestId, Flow] = {}
        self.sending: dict[ev.RequestId, None] = {}
        """Requests that have not arrived where they go."""
        self.banned: set[Agent] = set()
        self.heard: dict[Agent, set[Agent]] = {}
        """Who told it of whom that he lies."""
        self.known_to: set[Agent] = set()
        self.shrank = False
        """It has less to offer than before."""
        self.alive = False
        self.gone = False
        self.finished_at: float | None = None
        self.uploaded = 0.0
        self.armed: float | None = None
        self.idle_since: float | None = None

    def leaves_alone(self, other: Agent) -> bool:
        """Two say of it that it lies."""
        return len(self.heard.get(other, ())) >= 2

    def avoids(self, other: Agent) -> bool:
        """It does not ask it for anything."""
        return other in self.banned or self.leaves_alone(other)

    def handle(self, event: ev.FileEvent) -> None:
        if self.gone:
            return
        commands = self.transfer.handle(event, self.swarm.now)
        for observe in self.swarm.observers:
            observe(self, event, commands)
        for command in commands:
            self.swarm.perform(self, command)
        at = self.transfer.deadline()
        if at is not None and at != self.armed:
            self.armed = at
            self.swarm.at(at, lambda: self._tick(at))

    def _tick(self, at: float) -> None:
        if self.armed == at:
            self.armed = None
            self.handle(ev.Ticked(file=self.file))


class Swarm:
    """The world. `run` until every transfer that lives has ended."""

    def __init__(
        self,
        hosts: list[Host],
        *,
        chunks: int = 64,
        origin_up: float = 1e7,
        seed: int = 1,
        tuning: Tuning | None = None,
    ) -> None:
        self.seed, self.origin_up = seed, origin_up
        self.tuning = tuning or Tuning()
        self.rng = random.Random(seed)
        self.layout = ChunkLayout(length=chunks * CHUNK, chunk_bytes=CHUNK)
        assert ChunkLayout.for_length(chunks * CHUNK) == self.layout
        self.now = 0.0
        self.origin_bytes = 0.0
        self.asked_of_origin: Counter[int] = Counter()
        self.wrong = 0
        self.observers: list[Observer] = []
        self.agents = [Agent(self, number, host) for number, host in enumerate(hosts)]
        self.by_peer = {agent.peer: agent for agent in self.agents}
        self._flows: list[Flow] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        for agent in self.agents:
            self.at(agent.host.starts_at, lambda agent=agent: self._start(agent))  # type: ignore[misc]
            if agent.host.dies_at is not None:
                self.at(agent.host.dies_at, lambda agent=agent: self._die(agent))  # type: ignore[misc]
            if agent.host.origin_down_at is not None:
                self.at(agent.host.origin_down_at, self._share)

    # --- results ---------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return self.layout.length

    @property
    def copies(self) -> float:
        """How often the origin sent the whole."""
        return self.origin_bytes / self.length

    @property
    def makespan(self) -> float:
        """From the first start to the last end."""
        return max(agent.finished_at or 0.0 for agent in self.agents) - min(h.host.starts_at for h in self.agents)

    @property
    def skew(self) -> float:
        """What the busiest agent sent, over the mean."""
        sent = [agent.uploaded for agent in self.agents]
        return max(sent) * len(sent) / max(1.0, sum(sent))

    def bound(self) -> float:
        """No way of distributing it is faster (Kumar and Ross 2006)."""
        downs = [agent.host.down for agent in self.agents]
        ups = sum(agent.host.up for agent in self.agents)
        length, count = self.length, len(self.agents)
        return max(length / self.origin_up, length / min(downs), count * length / (self.origin_up + ups))

    # --- time ------------------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do this then."""
        heapq.heappush(self._events, (max(when, self.now), next(self._count), what))

    def run(self, longest_s: float = 600.0, without: frozenset[int] = frozenset()) -> Swarm:
        """Until all (but those) have ended. Fails when that takes too long, or when somebody waits for nothing."""
        waited_for = [a for a in self.agents if not a.host.has_all and a.number not in without]
        while any(not a.gone and a.finished_at is None for a in waited_for):
            assert self._events or self._flows, "nothing will ever happen again"
            at = self._events[0][0] if self._events else float("inf")
            at = min(at, self._next_piece())
            self._advance(at)
            if self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._deliver()
            assert self.now < longest_s, f"not done after {longest_s} s: {self._progress()}"
        return self

    def _progress(self) -> list[tuple[int, int]]:
        return [(a.number, a.transfer.held_bytes // CHUNK) for a in self.agents if a.finished_at is None]

    def _next_piece(self) -> float:
        """When some flow has something to tell, or has been quiet for too long."""
        best = float("inf")
        for flow in self._flows:
            if flow.rate <= 0.0:
                best = min(best, flow.quiet_since + STALL_S)
                continue
            untold = flow.done - flow.told
            piece = min(flow.left, max(1.0, min(CHUNK - flow.told % CHUNK, PIECE_S * flow.rate) - untold))
            best = min(best, self.now + piece / flow.rate)
        return best

    def _advance(self, to: float) -> None:
        passed = to - self.now
        for flow in self._flows:
            moved = min(flow.left, flow.rate * passed)
            flow.left -= moved
            if flow.giver is None:
                self.origin_bytes += moved
            else:
                flow.giver.uploaded += moved
        self.now = to

    def _deliver(self) -> None:
        for flow in list(self._flows):
            if flow not in self._flows:
                continue
            file, request = flow.agent.file, flow.command.request
            if flow.rate <= 0.0 and self.now >= flow.quiet_since + STALL_S - 1e-9:
                self._end(flow)
                self._fail(flow, FailureKind.STALLED)
                continue
            done = flow.done if flow.left > 0.5 else flow.command.item.stop
            crossed = done // CHUNK > flow.told // CHUNK or done - flow.told >= max(1.0, PIECE_S * flow.rate * 0.99)
            if done == flow.told or not (crossed or flow.left <= 0.5):
                continue
            item = ByteRange(flow.told, done)
            flow.told, flow.quiet_since = done, self.now
            for chunk in self.layout.touched_by(item):
                flow.agent.noise.pop(chunk, None)
            flow.agent.handle(ev.RangeArrived(file=file, request=request, item=item))
            if flow.left <= 0.5 and flow in self._flows:
                self._end(flow)
                vouchers = self._vouchers(flow)
                flow.agent.handle(
                    ev.RangeReceived(file=file, request=request, item=flow.command.item, vouchers=vouchers)
                )

    def _fail(self, flow: Flow, kind: FailureKind, **more: object) -> None:
        why = Failure(kind=kind, message=kind.value.lower(), **more)  # type: ignore[arg-type]
        flow.agent.handle(ev.RangeFailed(file=flow.agent.file, request=flow.command.request, failure=why))

    def _end(self, flow: Flow) -> None:
        self._flows.remove(flow)
        flow.agent.flows.pop(flow.command.request, None)
        self._share()

    # --- links -----------------------------------------------------------------------------------------------

    def _share(self) -> None:
        """Max-min fair rates: the narrowest link is shared out first."""
        room: dict[object, float] = {"origin": self.origin_up}
        users: dict[object, list[Flow]] = {}
        for flow in self._flows:
            was, flow.rate = flow.rate, 0.0
            if flow.frozen or self._is_cut(flow):
                flow.quiet_since = self.now if was > 0.0 else flow.quiet_since
                continue
            giver: object = "origin" if flow.giver is None else ("up", flow.giver.number)
            taker = ("down", flow.agent.number)
            if flow.giver is not None:
                room[giver] = flow.giver.host.up
            room[taker] = flow.agent.host.down
            users.setdefault(giver, []).append(flow)
            users.setdefault(taker, []).append(flow)
        links: dict[Flow, list[object]] = {}
        for link, flows in users.items():
            for flow in flows:
                links.setdefault(flow, []).append(link)
        count = {link: len(flows) for link, flows in users.items()}
        settled: set[int] = set()
        while count:
            link = min(count, key=lambda each: room[each] / count[each])
            rate = room[link] / count[link]
            for flow in users[link]:
                if id(flow) in settled:
                    continue
                settled.add(id(flow))
                flow.rate = rate
                for other in links[flow]:
                    room[other] = max(0.0, room[other] - rate)
                    count[other] -= 1
                    if not count[other]:
                        del count[other]

    def _is_cut(self, flow: Flow) -> bool:
        down_at = flow.agent.host.origin_down_at
        if flow.giver is None:
            return down_at is not None and self.now >= down_at
        return flow.giver.gone or flow.giver.host.stalls

    # --- commands --------------------------------------------------------------------------------------------

    def perform(self, agent: Agent, command: cmd.Command) -> None:  # noqa: C901
        match command:
            case cmd.ProbeOrigin(probe=probe):
                facts = OriginFacts(length=self.length, etag='"v1"', ranges=RangeSupport.PROMISED)
                self.at(
                    self.now + 2 * DELAY_S,
                    lambda: agent.handle(ev.OriginProbed(file=agent.file, facts=facts, probe=probe)),
                )
            case cmd.PublishClaim():
                agent.said = command if command.content_ids else None
                self._news(agent)
            case cmd.AskNear():
                agent.asks = True
                for other in self.agents:
                    self._tell(other, agent)
                self.at(self.now + 3 * DELAY_S, lambda: agent.handle(ev.NearAnswered(file=agent.file)))
            case cmd.StopAsking():
                agent.asks = False
            case cmd.FetchRange(request=request):
                agent.sending[request] = None
                self.at(self.now + DELAY_S, lambda: self._fetch(agent, command))
            case cmd.AbortFetch(request=request):
                self.at(self.now, lambda: self._abort(agent, request))
            case cmd.DigestChunk(chunk=chunk, token=token):
                flavour = "noise" if chunk in agent.noise else "true"
                digest = digest_of(chunk, flavour)
                self.at(
                    self.now + 0.002,
                    lambda: agent.handle(
                        ev.ChunkDigested(file=agent.file, chunk=chunk, digest=digest, token=token)
                    ),
                )
            case cmd.PublishChunk():
                self._publish(agent, command)
            case cmd.ReportPeer(peer=peer, offence=offence):
                liar = self.by_peer[peer]
                assert liar.host.lies, f"an honest peer was reported: {offence}"
                assert (offence is Offence.FALSE_VOUCHER) is liar.host.forges, f"for the wrong thing: {offence}"
                if offence in BANNING:
                    self._ban(agent, liar)
                    self.at(
                        self.now, lambda: agent.handle(ev.SourceLost(file=agent.file, source=peer_source(peer)))
                    )
            case cmd.ValidateContent(attempt=attempt):
                self.at(self.now, lambda: self._validate(agent, attempt))
            case cmd.Refetching():
                self.at(self.now, lambda: agent.handle(ev.Begun(file=agent.file)))
            case cmd.WithdrawContent():
                self._withdraw(agent, self.layout.everything)
            case cmd.WithdrawChunks(chunks=chunks):
                self._withdraw(agent, chunks)
            case cmd.Finished():
                self.wrong += len(agent.noise)
                agent.finished_at = self.now
                if agent.host.leaves:
                    self.at(self.now, lambda: self._leave(agent))
            case cmd.Troubled(retry_at=retry_at):
                self.at(retry_at, lambda: agent.handle(ev.Begun(file=agent.file)))
            case cmd.Failed(message=message):
                raise AssertionError(f"agent {agent.number} failed: {message}")
            case _:
                pass

    def _validate(self, agent: Agent, attempt: int) -> None:
        """A validator sees all noise."""
        right = ev.ContentAccepted(file=agent.file, attempt=attempt)
        wrong = ev.ContentRejected(file=agent.file, attempt=attempt, reason="noise")
        agent.handle(wrong if agent.noise else right)

    def _withdraw(self, agent: Agent, chunks: Bitfield) -> None:
        """Nobody gets these any more, not even who is getting them."""
        agent.have, agent.shrank = Bitfield(agent.have & ~chunks), True
        for chunk in [chunk for chunk in agent.vouchers if chunks >> chunk & 1]:
            del agent.vouchers[chunk]
        for flow in [each for each in self._flows if each.giver is agent]:
            if any(chunks >> chunk & 1 for chunk in self.layout.touched_by(flow.command.item)):
                self._end(flow)
                self.at(self.now + DELAY_S, lambda flow=flow: self._fail(flow, FailureKind.CONNECTION_CLOSED))  # type: ignore[misc]
        self._news(agent)

    def _ban(self, agent: Agent, liar: Agent) -> None:
        """What rests on its word is not offered any more."""
        agent.banned.add(liar)
        for chunk, voucher in list(agent.vouchers.items()):
            if voucher.signer == liar.peer:
                del agent.vouchers[chunk]
                agent.have, agent.shrank = Bitfield(agent.have & ~(1 << chunk)), True
        self._news(agent)
        for other in self.agents:
            if other not in (agent, liar):
                self.at(self.now + RENEW_S, lambda other=other: self._denounce(agent, liar, other))  # type: ignore[misc]

    def _denounce(self, agent: Agent, liar: Agent, to: Agent) -> None:
        """It asks another again what that has, and says of whom it knows that he lies."""
        if agent.gone or to.gone or agent in to.banned:
            return
        self._tell(to, agent)
        before = to.leaves_alone(liar)
        to.heard.setdefault(liar, set()).add(agent)
        if to.leaves_alone(liar) and not before and liar not in to.banned:
            to.handle(ev.SourceLost(file=to.file, source=peer_source(liar.peer)))

    def _start(self, agent: Agent) -> None:
        agent.alive = True
        if agent.host.has_all:
            agent.have = self.layout.everything
            self._news(agent)
        else:
            agent.handle(ev.Begun(file=agent.file))

    def _die(self, agent: Agent) -> None:
        self._go(agent)
        for other in self.agents:
            self.at(self.now + LOST_S, lambda other=other: self._lose(other, agent))  # type: ignore[misc]

    def _leave(self, agent: Agent) -> None:
        """With a goodbye: connections are closed."""
        self._go(agent)
        for flow in [each for each in self._flows if each.giver is agent]:
            self._end(flow)
            self.at(self.now + DELAY_S, lambda flow=flow: self._fail(flow, FailureKind.CONNECTION_CLOSED))  # type: ignore[misc]
        for other in self.agents:
            self.at(self.now + DELAY_S, lambda other=other: self._lose(other, agent))  # type: ignore[misc]

    def _go(self, agent: Agent) -> None:
        agent.gone = True
        agent.alive = False
        for flow in list(agent.flows.values()):
            self._flows.remove(flow)
        agent.flows.clear()
        self._share()

    def _lose(self, agent: Agent, gone: Agent) -> None:
        if agent.alive:
            agent.handle(ev.SourceLost(file=agent.file, source=peer_source(gone.peer)))

    def _fetch(self, agent: Agent, command: cmd.FetchRange) -> None:
        if agent.gone or command.request not in agent.sending:
            return
        del agent.sending[command.request]
        who = peer_of(command.source)
        giver = None if who is None else self.by_peer[who]
        flow = Flow(
            agent=agent,
            command=command,
            giver=giver,
            left=command.item.length,
            told=command.item.start,
            quiet_since=self.now,
        )
        chunks = self.layout.touched_by(command.item)
        if command.source == ORIGIN:
            self.asked_of_origin.update(chunks)
        else:
            assert giver is not None
            if giver.gone and giver.host.dies_at is None:  # its host is there, and says that nobody listens
                self.at(self.now + DELAY_S, lambda: self._fail(flow, FailureKind.CONNECT_FAILED))
                return
            if not all(giver.have >> chunk & 1 for chunk in chunks):
                assert giver.shrank, "asked for what it never had"
                self.at(self.now + DELAY_S, lambda: self._fail(flow, FailureKind.LENGTH_MISMATCH))
                return
            taken = sum(each.giver is giver for each in self._flows)
            if taken >= giver.host.slots:
                self.at(self.now + DELAY_S, lambda: self._fail(flow, FailureKind.BUSY, retry_after_s=1.0))
                return
            if giver in agent.banned:
                self.at(self.now, lambda: self._fail(flow, FailureKind.NOT_TRUSTED))
                return
        agent.flows[command.request] = flow
        self._flows.append(flow)
        self._share()

    def _abort(self, agent: Agent, request: ev.RequestId) -> None:
        flow = agent.flows.get(request)
        if flow is not None:
            self._end(flow)
        elif request in agent.sending:
            del agent.sending[request]
        else:
            return  # it is over
        why = Failure(kind=FailureKind.ABORTED, message="aborted")
        agent.handle(ev.RangeFailed(file=agent.file, request=request, failure=why))

    def _vouchers(self, flow: Flow) -> tuple[Voucher, ...]:
        if flow.giver is None:
            return ()
        given = []
        for chunk in self.layout.touched_by(flow.command.item):
            noise, giver = flow.agent.noise, flow.giver
            noise.pop(chunk, None)
            lies = random.Random(f"{giver.number} {chunk}").random() < giver.host.lies
            if lies or chunk in giver.noise:
                noise[chunk] = None
            forged = self._sign(giver, chunk, "noise") if lies and giver.host.forges else None
            given.append(forged or giver.vouchers.get(chunk) or self._sign(giver, chunk))
        liars = {liar.peer for liar in flow.agent.banned}
        return tuple(voucher for voucher in given if voucher.signer not in liars)

    def _sign(self, agent: Agent, chunk: int, flavour: str = "true") -> Voucher:
        content_id = next(a for a in self.agents if a.transfer.content_ids).transfer.content_ids[0]
        return Voucher(
            content_id=content_id,
            chunk=ChunkIndex(chunk),
            digest=digest_of(chunk, flavour),
            signer=agent.peer,
            signature=b"",
        )

    def _publish(self, agent: Agent, command: cmd.PublishChunk) -> None:
        forged = any(each.digest == command.digest for each in command.vouchers)
        assert command.chunk not in agent.noise or forged, "noise is offered that nobody vouched for"
        agent.have = Bitfield(agent.have | 1 << command.chunk)
        agent.vouchers[command.chunk] = (
            command.vouchers[0] if command.vouchers else self._sign(agent, command.chunk)
        )
        self._news(agent)

    # --- offers ----------------------------------------------------------------------------------------------

    def _news(self, agent: Agent) -> None:
        for other in self.agents:
            if other.asks:
                self._tell(agent, other)

    def _tell(self, of: Agent, to: Agent) -> None:
        """`to` hears what `of` has, soon; not more often than agents do."""
        if of is to or of.gone or of in to.banned or of.news_at.get(to, -1.0) > self.now:
            return
        at = max(self.now, of.news_at.get(to, -1.0) + COALESCE_S) + DELAY_S
        if of.news_at.get(to, -1.0) + COALESCE_S > self.now:
            of.news_at[to] = at - DELAY_S
            self.at(at - DELAY_S, lambda: self._say(of, to))
        else:
            of.news_at[to] = self.now
            self.at(self.now, lambda: self._say(of, to))

    def _say(self, of: Agent, to: Agent) -> None:
        claimed = NO_CHUNKS if of.said is None else of.said.chunks
        wants = of.said is not None and of.said.wants
        if of.gone or of in to.banned or not to.asks:
            return
        if wants and of.avoids(to):
            claimed = Bitfield(self.layout.everything & ~of.have)
        source = peer_source(of.peer)
        event: ev.FileEvent = ev.SourceLost(file=to.file, source=source)
        if of.have or claimed or wants:
            of.known_to.add(to)
            event = ev.SourceOffered(file=to.file, source=source, have=of.have, claimed=claimed, wants=wants)
        elif to not in of.known_to:
            return
        self.at(self.now + DELAY_S, lambda: to.handle(event) if of not in to.banned and to.asks else None)
