"""A short cut for the one command whose start is measured against curl's: a plain `get`.

Typer (with what it loads) takes longer to start than a small download takes. So a command line that holds nothing
but `get` with its documented options is read here; anything else, every mistake and every request for help goes
the long way. A test compares the two tables of options.
Never knows: what the options mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.cli_get import PATIENCE_S, GetOptions
from agent.schema import PeerUse, Priority

ONE = {
    "--output": "output",
    "-o": "output",
    "--sha256": "sha256",
    "--sha512": "sha512",
    "--peers": "peers",
    "--timeout": "timeout",
    "--priority": "priority",
}
MANY = {"--validator": "validator", "--interface": "interface"}
FLAGS = {"--json": "json"}

MIN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainGet:
    """A `get` that was understood."""

    options: GetOptions
    home: Path | None
    interfaces: tuple[str, ...]


@dataclass(slots=True)
class _Words:
    """What stood on the command line."""

    home: str | None = None
    urls: list[str] = field(default_factory=list)
    one: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)


def plain_get(arguments: list[str]) -> PlainGet | None:
    """The `get` that the arguments spell, None when in any doubt."""
    try:
        words = _read(iter(arguments))
        (url,) = words.urls
        options = GetOptions(
            url=url,
            output=words.one.get("output"),
            sha256=words.one.get("sha256"),
            sha512=words.one.get("sha512"),
            validators=tuple(words.many.get("validator", ())),
            peers=PeerUse(words.one.get("peers", PeerUse.PREFER)),
            priority=Priority(words.one.get("priority", Priority.FOREGROUND)),
            patience_s=float(words.one.get("timeout", PATIENCE_S)),
            json="json" in words.flags,
        )
    except (ValueError, StopIteration):
        return None
    if not options.patience_s >= MIN_TIMEOUT_S:
        return None
    home = None if words.home is None else Path(words.home)
    return PlainGet(options=options, home=home, interfaces=tuple(words.many.get("interface", ())))


def _read(rest: Iterator[str]) -> _Words:
    """Raises ValueError or StopIteration for whatever is not plain."""
    words = _Words()
    word = next(rest)
    if word == "--home":
        words.home, word = next(rest), next(rest)
    if word != "get":
        raise ValueError(word)
    for word in rest:
        if not word.startswith("-"):
            words.urls.append(word)
        elif word in ONE:
            words.one[ONE[word]] = next(rest)
        elif word in MANY:
            words.many.setdefault(MANY[word], []).append(next(rest))
        elif word in FLAGS:
            words.flags.add(FLAGS[word])
        else:
            raise ValueError(word)
    return words
