"""What a system under measurement has to offer the laboratory, and the ground that it is given.

Never knows: how anything is measured, which system it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.agents import BenchError
from bench.netns import Host, Network
from bench.scenarios import FullDisk, Lie, Scenario

BLOCK_BYTES = 512
"""What `st_blocks` counts in (stat(2))."""


class SeatError(BenchError):
    """One agent could not finish; str() is one sentence. The others go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What everybody fetches."""

    urls: tuple[str, ...]
    originals: tuple[Path, ...]
    digests: tuple[str, ...]
    """SHA-256 of each, in hexadecimal."""

    @property
    def total_bytes(self) -> int:
        """F."""
        return sum(file.stat().st_size for file in self.originals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One agent's place: its host, and a directory of its own."""

    number: int
    host: Host
    place: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"a{self.number}"

    def destination(self, original: Path) -> Path:
        """Where this agent's copy of a file goes."""
        return self.place / "files" / original.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Everything that a system is given before the start shot."""

    scenario: Scenario
    seats: tuple[Seat, ...]
    guest: Seat | None
    """A host that takes no part in the swarm, for a newcomer."""
    work: Work
    network: Network
    place: Path
    """A directory for what belongs to no seat."""

    @property
    def seeds(self) -> tuple[Seat, ...]:
        """Those that must have everything before the start shot."""
        return self.seats[: self.scenario.seeds]

    def wrapped(self, seat: Seat, command: Sequence[str]) -> list[str]:
        """The command as it is carried out on the seat's host, with a small disk where the scenario says so.

        The small disk is a file system that only this command and its children see, and ends with them.
        """
        for item in self.scenario.happenings:
            if isinstance(item, FullDisk) and item.agent == seat.number:
                files = seat.place / "files"
                size = max(65_536, round(item.share * self.scenario.total_bytes))
                script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
                return seat.host.command("sh", "-c", script, "sh", str(size), str(files), *command)
        return seat.host.command(*command)

    def lie_of(self, seat: Seat) -> Lie | None:
        """How this agent lies."""
        found = (item for item in self.scenario.happenings if isinstance(item, Lie) and item.agent == seat.number)
        return next(found, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What one agent has so far, in bytes, by where it came from."""

    from_origin: int = 0
    from_peers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one agent cost between the start shot and the end."""

    cpu_s: float
    peak_memory: int
    discarded: int | None
    """Bytes received that were of no use; None: the system does not say."""


class System(ABC):
    """One system in one run. `async with` prepares everything up to the start shot, and ends everything."""

    name: ClassVar[str]
    options: ClassVar[str]
    """What it was told, in one line."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.notes: dict[str, float] = {}
        """Further figures, name -> value."""

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be used here, in one sentence."""
        return None

    @classmethod
    def cannot(cls, scenario: Scenario) -> str | None:
        """Why it cannot play this scenario, in one sentence."""
        if any(isinstance(item, Lie) for item in scenario.happenings):
            return f"{cls.name} has no agent that lies"
        return None

    @abstractmethod
    async def open(self) -> None:
        """Everything before the start shot; seeds have everything afterwards. Raises BenchError."""

    @abstractmethod
    async def close(self) -> None:
        """End everything, also after half an `open`."""

    async def shot(self) -> None:  # noqa: B027  # not everybody has something to note
        """Called right before the start shot: note what the counters say."""

    @abstractmethod
    async def fetch(self, seat: Seat) -> None:
        """Give the agent its work now, and wait until it has everything. Raises SeatError."""

    @abstractmethod
    async def kill(self, seat: Seat) -> None:
        """Kill the agent, without a word."""

    @abstractmethod
    async def usage(self, seat: Seat) -> Usage:
        """What it cost so far; the agent lives. Raises BenchError."""

    async def progress(self, seat: Seat, by_client: Mapping[str, int]) -> Progress:
        """What it has; `by_client`: the origin's log. By default: what the disk holds, the origin's part first."""
        held = 0
        for original in self.ground.work.originals:
            try:
                held += seat.destination(original).stat().st_blocks * BLOCK_BYTES
            except OSError:
                continue
        held = min(held, self.ground.work.total_bytes)
        from_origin = min(held, by_client.get(seat.host.address, 0))
        return Progress(from_origin=from_origin, from_peers=held - from_origin)

    async def deliver(self, seat: Seat) -> None:  # noqa: B027  # most have nothing to do
        """Put the files at their destinations, when they are not there already. Raises SeatError."""

    async def __aenter__(self) -> System:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
