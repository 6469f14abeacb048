"""The second process of a huge swarm: it has the cores of most agents, the first one all of the world.

What happens to an agent in a tick is sent to its core at the end of the tick; what that commands happens a few
ticks later, whenever it is ready: so the two work at the same time, and a run comes to the same in every byte
however fast each of them is. Never decides anything. Never knows: links, requests, the scenario.
"""

from __future__ import annotations

import marshal
import multiprocessing
import resource
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core import events as ev
from agent.core.rendezvous import foremost, scores
from agent.core.transfer import FileTransfer
from bench.sim.coding import Coded, Coding
from bench.sim.pipe import Pipe, PipeError
from validation.content import Bitfield

if TYPE_CHECKING:
    from bench.sim.swarm import Swarm
    from bench.sim.transfer import Transfer

SHARE, OF = 15, 20
"""So many of so many agents have their core in the second process; the others' and the world are as much work."""
AHEAD = 3
"""Ticks (of 4 ms) after which what was commanded happens. Neither process waits for the other as long as it is not
so far ahead: with 1, each waited a fifth of the time, for some ticks have more work than others."""
TOGETHER = 128
"""Turns that are told at once, not at the end of the tick: in the first tick of all, both have seconds of work."""
ANSWERS_WITHIN_S = 600.0
"""A process that is stopped for longer counts as dead."""

Turn = tuple[int, list[int], Coded]
"""Of a transfer: whose offers it hears, and what else has happened."""
Said = tuple[Bitfield, Bitfield, bool] | None
"""What is had, claimed and wanted; None: nothing any more."""
Offer = tuple[int, Said]
"""Of a transfer."""
Answer = tuple[int, float | None, int, int, int, Coded]
"""A transfer: when it is to be looked at again, how far it is (as in `Progress`), what it commands."""


class HelperError(Exception):
    """The other process failed; str() says how."""


@dataclass(slots=True)
class Progress:
    """What results are made of."""

    held: int
    from_peers: int
    discarded: int


def progress_of(core: FileTransfer) -> Progress:
    """Of one whose core is here."""
    return Progress(core.held_bytes, core.tally.from_peers, core.tally.discarded)


class Helper:
    """The other process, as the first one sees it."""

    def __init__(self, swarm: Swarm) -> None:
        """Takes the cores of its share away."""
        self.cpu_s = self.peak_mib = 0.0
        """What it took; known when it has ended."""
        self._swarm = swarm
        self._coding = Coding(swarm)
        self._numbered = _numbered(swarm)
        self._number = {transfer: number for number, transfer in enumerate(self._numbered)}
        self._offers: dict[Transfer, None] = {}
        self._turns: list[Turn] = []
        self._due: deque[int] = deque()
        """The ticks at whose ends answers are heard that were asked for."""
        for content in swarm.contents:  # both would have to find out
            for host in swarm.hosts:
                scores(content.content_id, content.layout.count, host.peer)
            for chunk in range(content.layout.count):
                foremost(content.content_id, chunk, swarm.group)
        context = multiprocessing.get_context("fork")
        self._pipe, there = Pipe.pair()
        self._process = context.Process(target=_work, args=(there, swarm, self._pipe), daemon=True)
        self._process.start()
        there.close()
        for transfer in self._numbered:
            if _is_away(transfer):
                transfer.core, transfer.away = None, self

    def offered(self, transfer: Transfer) -> None:
        """It has told others something else than before."""
        self._offers[transfer] = None

    def turn(self, transfer: Transfer, heard: Iterable[Transfer], events: list[ev.FileEvent]) -> None:
        """This has happened to it."""
        number = self._number
        self._turns.append((number[transfer], [number[other] for other in heard], self._coding.events(events)))
        if len(self._turns) >= TOGETHER:
            self._tell()

    def exchange(self) -> None:
        """At the end of a tick: what was commanded a while ago happens, what has happened is told."""
        clock, answers = self._swarm.clock, list[Answer]()
        while self._due and self._due[0] <= clock.tick:
            self._due.popleft()
            answers += self._receive()
        if self._turns:
            self._tell()
        for number, due_at, held, from_peers, discarded, coded in answers:
            transfer = self._numbered[number]
            transfer.progress = Progress(held, from_peers, discarded)
            transfer.commanded(self._coding.commands_of(coded, transfer), due_at)

    def _tell(self) -> None:
        clock = self._swarm.clock
        offers = [(self._number[each], _said(each.offer)) for each in self._offers]
        self._send((clock.now, offers, self._turns))
        self._offers, self._turns = {}, []
        self._due.append(clock.tick + AHEAD)
        clock.at_tick(clock.tick + AHEAD, _nothing, None)

    def end(self) -> None:
        """It is not needed any more."""
        self._send(None)
        for _ in self._due:
            self._receive()
        self.cpu_s, self.peak_mib = self._receive()
        self._process.join(ANSWERS_WITHIN_S)

    def close(self) -> None:
        """Whatever it does, it ends now."""
        self._process.kill()
        self._process.join(ANSWERS_WITHIN_S)
        self._pipe.close()

    def _send(self, message: tuple[float, list[Offer], list[Turn]] | None) -> None:
        try:
            self._pipe.send(marshal.dumps(message))
        except PipeError as error:
            raise HelperError(f"the second process {error}") from error

    def _receive(self) -> Any:
        try:
            return marshal.loads(self._pipe.receive(ANSWERS_WITHIN_S))
        except PipeError as error:
            raise HelperError(f"the second process {error}") from error


def _numbered(swarm: Swarm) -> list[Transfer]:
    return [transfer for host in swarm.hosts for transfer in host.transfers]


def _is_away(transfer: Transfer) -> bool:
    return transfer.core is not None and transfer.host.number % OF < SHARE


def _said(offer: ev.SourceOffered | None) -> Said:
    return None if offer is None else (offer.have, offer.claimed, offer.wants)


def _nothing(_: None) -> None:
    """The tick is to come even if nothing else happens in it."""


# --- in the other process ------------------------------------------------------------------------------------


def _work(pipe: Pipe, swarm: Swarm, theirs: Pipe) -> None:
    theirs.close()
    worker = _Worker(swarm)
    while True:
        try:
            message = marshal.loads(pipe.receive())
            if message is None:
                used = resource.getrusage(resource.RUSAGE_SELF)
                pipe.send(marshal.dumps((used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)))
                return
            pipe.send(marshal.dumps(worker.answer(*message)))
        except PipeError:
            return  # nobody is there any more


class _Worker:
    def __init__(self, swarm: Swarm) -> None:
        self._coding = Coding(swarm)
        self._numbered = _numbered(swarm)
        self._offers = [self._heard(each, _said(each.offer)) for each in self._numbered]
        for transfer in self._numbered:
            if not _is_away(transfer):
                transfer.core = None  # it is in the first process

    def _heard(self, transfer: Transfer, said: Said) -> ev.SourceOffered | ev.SourceLost:
        file, source = transfer.file, transfer.host.source
        if said is None:
            return ev.SourceLost(file=file, source=source)
        have, claimed, wants = said
        return ev.SourceOffered(file=file, source=source, have=have, claimed=claimed, wants=wants)

    def answer(self, now: float, offers: list[Offer], turns: list[Turn]) -> list[Answer]:
        """All turns of one tick."""
        for number, said in offers:
            self._offers[number] = self._heard(self._numbered[number], said)
        return [self._turn(now, *turn) for turn in turns]

    def _turn(self, now: float, number: int, heard: list[int], coded: Coded) -> Answer:
        transfer, coding = self._numbered[number], self._coding
        core = transfer.core
        assert core is not None
        events: list[ev.FileEvent] = [self._offers[other] for other in heard]
        events += coding.events_of(coded, transfer)
        commands: Coded = []
        for command in transfer.told(core, events, now):
            coding.command(command, commands)
        tally = core.tally
        return number, core.deadline(), core.held_bytes, tally.from_peers, tally.discarded, commands
