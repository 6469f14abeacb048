"""What an answer of the test origin is planned to be, and the form of a fault that bends the plan.

Never knows: sockets, what the faults do (`origin_faults`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

HEADERS = list[tuple[str, str]]


class Framing(Enum):
    """How the end of a body is told."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class Ending(Enum):
    """What happens after the last byte that is sent."""

    NORMAL = "normal"
    CLOSE = "close"
    RESET = "reset"
    SILENT = "silent"
    """Nothing more comes, the connection stays open."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `name` is from `FAULTS`; the rest is its measure, where it has one.

    `times` limits it to the first n requests that it would have bent, `skip` leaves out the first n.
    """

    name: str
    times: int | None = None
    skip: int = 0
    value: str = ""
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """`name[:key=value,...]`, as the command line gives it. Raises ValueError for an unknown name."""
        name, _, rest = text.partition(":")
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}")
        given = dict(item.split("=", 1) for item in rest.split(",") if item)
        return cls(
            name,
            times=int(given["times"]) if "times" in given else None,
            skip=int(given.get("skip", 0)),
            value=given.get("value", ""),
            count=int(given.get("count", 0)),
        )


@dataclass(slots=True)
class Reply:
    """A plan of one answer. `start`/`stop` are the bytes of the content that go out."""

    status: int
    total: int
    start: int = 0
    stop: int = 0
    headers: HEADERS = field(default_factory=list)
    framing: Framing = Framing.LENGTH
    content_length: str | None = None
    """Says this in place of the true number."""
    body: bytes | None = None
    """Goes out in place of the content."""
    shift: int = 0
    """Bytes are taken from so much further on."""
    bad_byte: int | None = None
    """Offset of one byte that goes out inverted."""
    surplus: bytes = b""
    """Follows the announced bytes."""
    cut: int | None = None
    """At most so many bytes of payload."""
    ending: Ending = Ending.NORMAL
    pace: float | None = None
    """Bytes a second for this reply alone."""
    endless: bool = False
    bad_chunk: bool = False
    """After the payload, a chunk header that is none."""
    raw: bytes | None = None
    """Goes out in place of the whole answer, head included."""
    informational: int = 0
    """So many `103` replies come first."""
    close: bool = False

    @property
    def length(self) -> int:
        """Bytes of payload that the plan holds."""
        return len(self.body) if self.body is not None else self.stop - self.start

    def set(self, name: str, value: str | None) -> None:
        """Replace a header; None removes it."""
        self.headers = [item for item in self.headers if item[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a fault may look at."""

    method: str
    path: str
    url: str
    headers: dict[str, str]
    hop: int
    """From `?hop=n` in the URL, for redirect chains; -1 when there is none."""
    busy: int
    """Requests for this path that are being answered, this one included."""

    @property
    def ranged(self) -> bool:
        return "range" in self.headers


Bend = Callable[[Reply, Fault, Asked], None]
FAULTS: dict[str, tuple[frozenset[str], Bend]] = {}
"""Name -> the methods it concerns, and what it does."""

GET = frozenset({"GET"})
HEAD = frozenset({"HEAD"})
BOTH = frozenset({"GET", "HEAD"})


def fault_named(name: str, methods: frozenset[str] = GET) -> Callable[[Bend], Bend]:
    def keep(bend: Bend) -> Bend:
        FAULTS[name] = (methods, bend)
        return bend

    return keep


def bend(reply: Reply, faults: Iterator[Fault], asked: Asked) -> None:
    """Apply the faults that concern this method (whether it is their turn is the caller's business)."""
    for fault in faults:
        FAULTS[fault.name][1](reply, fault, asked)
