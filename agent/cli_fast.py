"""A short cut for the commands whose time is measured: a plain `get` (against curl's), `job list`, and `run`.

Typer (with what it loads) takes longer to start than a small download takes. So a command line that holds nothing
but one of these with its documented options is read here; anything else, every mistake and every request for help
goes the long way. A test compares the tables of options.
Never knows: what the options mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.cli_get import GetOptions
    from agent.cli_listing import ListOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The options of a command: option -> name."""

    command: tuple[str, ...]
    one: Mapping[str, str]
    many: Mapping[str, str]
    flags: Mapping[str, str]


GET = Table(
    command=("get",),
    one={
        "--output": "output",
        "-o": "output",
        "--sha256": "sha256",
        "--sha512": "sha512",
        "--peers": "peers",
        "--timeout": "timeout",
        "--priority": "priority",
    },
    many={"--validator": "validator", "--interface": "interface"},
    flags={"--json": "as_json"},
)
LIST = Table(
    command=("job", "list"),
    one={"--name": "name"},
    many={"--state": "state"},
    flags={"--long": "long", "-l": "long", "--json": "as_json"},
)

RUN_TEXTS = (
    "bandwidth_limit",
    "background_jobs",
    "ca_file",
    "cache_max_age_s",
    "cache_max_bytes",
    "cache_max_share",
    "connections_per_host",
    "group_ca_file",
    "group_certificate_file",
    "group_key_file",
    "integrity",
    "job_inactivity_timeout_s",
    "listen_host",
    "log_level",
    "maintenance_hours",
    "maintenance_limit",
    "max_files_per_job",
    "max_jobs_per_machine",
    "max_jobs_per_user",
    "max_ranges_per_file",
    "maximum_download_time_s",
    "minimum_retry_delay_s",
    "name",
    "no_progress_timeout_s",
    "time_slice_s",
    "upload_limit",
    "work_hours",
    "work_limit",
)
RUN = Table(
    command=("run",),
    one={f"--{name.replace('_', '-')}": name for name in RUN_TEXTS},
    many={"--interface": "interface", "--peer": "peer"},
    flags={"--json": "as_json"},
)
"""All but the few that are no text: those go the long way."""

MIN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainGet:
    """A `get` that was understood."""

    options: GetOptions
    home: Path | None
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainList:
    """A `job list` that was understood."""

    options: ListOptions
    home: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRun:
    """A `run` that was understood."""

    flags: dict[str, object]
    home: Path | None
    json: bool


@dataclass(slots=True)
class _Words:
    """What stood on the command line."""

    home: str | None = None
    rest: list[str] = field(default_factory=list)
    one: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)


def plain_get(arguments: list[str]) -> PlainGet | None:
    """The `get` that the arguments spell, None when in any doubt."""
    from agent.cli_get import PATIENCE_S, GetOptions
    from agent.schema import PeerUse, Priority

    try:
        words = _read(iter(arguments), GET)
        (url,) = words.rest
        options = GetOptions(
            url=url,
            output=words.one.get("output"),
            sha256=words.one.get("sha256"),
            sha512=words.one.get("sha512"),
            validators=tuple(words.many.get("validator", ())),
            peers=PeerUse(words.one.get("peers", PeerUse.PREFER)),
            priority=Priority(words.one.get("priority", Priority.FOREGROUND)),
            patience_s=float(words.one.get("timeout", PATIENCE_S)),
            json="as_json" in words.flags,
        )
    except (ValueError, StopIteration):
        return None
    if not options.patience_s >= MIN_TIMEOUT_S:
        return None
    home = None if words.home is None else Path(words.home)
    return PlainGet(options=options, home=home, interfaces=tuple(words.many.get("interface", ())))


def plain_list(arguments: list[str]) -> PlainList | None:
    """The `job list` that the arguments spell, None when in any doubt."""
    try:
        words = _read(iter(arguments), LIST)
    except (ValueError, StopIteration):
        return None
    if words.rest:
        return None
    from agent.cli_listing import ListOptions

    options = ListOptions(
        states=tuple(words.many.get("state", ())),
        name=words.one.get("name"),
        long="long" in words.flags,
        json="as_json" in words.flags,
    )
    return PlainList(options=options, home=None if words.home is None else Path(words.home))


def plain_run(arguments: list[str]) -> PlainRun | None:
    """The `run` that the arguments spell, None when in any doubt."""
    try:
        words = _read(iter(arguments), RUN)
    except (ValueError, StopIteration):
        return None
    if words.rest:
        return None
    return PlainRun(
        flags={**words.one, **words.many},
        home=None if words.home is None else Path(words.home),
        json="as_json" in words.flags,
    )


def _read(rest: Iterator[str], table: Table) -> _Words:
    """Raises ValueError or StopIteration for whatever is not plain."""
    words = _Words()
    word = next(rest)
    if word == "--home":
        words.home, word = next(rest), next(rest)
    for wanted in table.command[:-1]:
        if word != wanted:
            raise ValueError(word)
        word = next(rest)
    if word != table.command[-1]:
        raise ValueError(word)
    for word in rest:
        if not word.startswith("-"):
            words.rest.append(word)
        elif word in table.one:
            words.one[table.one[word]] = next(rest)
        elif word in table.many:
            words.many.setdefault(table.many[word], []).append(next(rest))
        elif word in table.flags:
            words.flags.add(table.flags[word])
        else:
            raise ValueError(word)
    return words
