"""The configuration: the file `config.toml` in the home, the environment `NEARFETCH_*`, and flags, read once.

The three spell the same names: `cache_max_bytes`, `NEARFETCH_CACHE_MAX_BYTES`, `--cache-max-bytes`. Flags win over
the environment, that over the file, that over the defaults. "Off" is None, never a number; in text `off`. What
values may look like is in config_parsers.py. Never knows: what the settings do.

Sources: TOML 1.0; XDG base directories through platformdirs.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent import config_parsers as kinds
from agent.client import default_home, socket_path
from agent.core.integrity import Integrity
from agent.core.pacing import NEVER, NO_LIMITS, Allowance, Policy, Windows
from agent.core.sizes import parse_size
from agent.errors import ConfigError

__all__ = ["Config", "Integrity", "LogLevel", "default_home", "parse_size", "socket_path"]

CONFIG_FILE = "config.toml"
GROUP_KEY_FILE = "group.key"
ENVIRONMENT_PREFIX = "NEARFETCH_"
NO_SETTINGS = frozenset(ENVIRONMENT_PREFIX + name for name in ("HOME", "JOB", "STATE", "EVENT", "SERIAL"))
"""Variables that are no settings: where the agent is, and what a notify command is told, which may call us."""
DAY_S = 86_400.0


class LogLevel(StrEnum):
    """How much the agent says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting, checked. Times are seconds, sizes bytes, rates bytes per second."""

    home: Path
    """Absolute. Holds all state; several agents on one machine have one each."""
    group_key: str | None = field(default=None, repr=False)
    """The group's key as text; also read from the file `group.key` in the home. Its form is checked when it is
    used."""
    group_ca_file: Path | None = None
    """PEM of the authority of a group that an administrator runs. It and the next two go together and replace
    `group_key`."""
    group_certificate_file: Path | None = None
    """PEM of this agent's certificate in such a group."""
    group_key_file: Path | None = None
    """PEM of that certificate's private key."""
    name: str | None = None
    """This agent's name, for people; by default the host's name."""
    interface: tuple[str, ...] = ()
    """Names or addresses to find peers on; by default all but loopback."""
    listen_host: str | None = None
    """The address for peers; by default every one."""
    listen_port: int = 0
    """The port for peers; 0: chosen by the system."""
    peer: tuple[str, ...] = ()
    """Peers known by `host:port`, where multicast does not reach."""
    peer_fetch: bool = True
    """Whether jobs may use peers. A job has this switch too, and both must be on."""
    peer_serve: bool = True
    """Whether peers may be given what jobs fetched. A job has this switch too, and both must be on."""
    cache_max_bytes: int | None = None
    """Most bytes in the peer cache; by default `cache_max_share` decides."""
    cache_max_share: float = 0.1
    """The peer cache's share of the disk that the home is on, from 0 to 1."""
    cache_max_age_s: float = 90 * DAY_S
    """Seconds after which what nobody asked for leaves the peer cache (90 days)."""
    integrity: Integrity = Integrity.VOUCHED
    """What a chunk from a peer must rest on: `vouched` (the word of the member that fetched it), `anchored` (a
    digest from the job or its publisher), or `whole` (as vouched, and offered only after the whole file was
    accepted)."""
    background_jobs: int = 4
    """Background jobs that transfer at once; FOREGROUND jobs are not counted."""
    connections_per_host: int = 4
    """Background jobs that fetch from one host at once."""
    time_slice_s: float = 300.0
    """Seconds after which a job makes room for one of the same priority that waits."""
    minimum_retry_delay_s: float = 600.0
    """Longest seconds between two tries after a transient error, where the job does not say. Less than 5 is raised
    to 5."""
    no_progress_timeout_s: float = 14 * DAY_S
    """Seconds without any progress, from the first transient error on, after which a job is in ERROR (14 days). 0:
    the first error is final."""
    maximum_download_time_s: float = 90 * DAY_S
    """Seconds that a job may spend connecting and transferring (90 days); then it is in ERROR."""
    job_inactivity_timeout_s: float = 90 * DAY_S
    """Seconds without a change or progress after which a job is cancelled and its files are removed (90 days)."""
    max_jobs_per_machine: int | None = 300
    """Most jobs at once. `off`: any number."""
    max_jobs_per_user: int | None = 60
    """Most jobs of one user at once, not above `max_jobs_per_machine` (by default lowered to it). `off`: as many as
    the machine may have."""
    max_files_per_job: int | None = 200
    """Most files in a job. `off`: any number."""
    max_ranges_per_file: int | None = 500
    """Most ranges of one file. `off`: any number."""
    bandwidth_limit: Allowance = NO_LIMITS
    """Bytes per second that background jobs may read from origins outside `work_hours` and `maintenance_hours`:
    `2MB` for each priority, or `high=off,normal=1MB,low=0`. `off`: no limit; 0: they wait. Peers and FOREGROUND
    jobs are never limited by it."""
    work_hours: Windows = NEVER
    """When `work_limit` holds, in local time: `mon-fri 08:00-17:00, sat 09:00-12:00`. `off`: never."""
    work_limit: Allowance = NO_LIMITS
    """As `bandwidth_limit`, during `work_hours`."""
    maintenance_hours: Windows = NEVER
    """When `maintenance_limit` holds, whatever else is said: `daily 22:00-06:00`. `off`: never."""
    maintenance_limit: Allowance = NO_LIMITS
    """As `bandwidth_limit`, during `maintenance_hours`."""
    upload_limit: int | None = None
    """Bytes per second given to all peers together. `off`: no limit."""
    notify_commands: bool = True
    """Whether jobs may have a notify command."""
    ca_file: Path | None = None
    """PEM with further authorities for origins."""
    log_level: LogLevel = LogLevel.INFO
    """How much the agent says: `debug`, `info`, `warning` or `error`."""

    @classmethod
    def load(cls, home: Path | None, flags: Mapping[str, object], environ: Mapping[str, str]) -> Config:
        """Read the configuration. Flags that are None or () count as not given, and so do empty variables.

        Raises ConfigError: one sentence that names the place, the key, and the near name of an unknown one.
        """
        place = _home_of(home, environ)
        values: dict[str, object] = {}
        for layer in (_from_file(place / CONFIG_FILE), _from_environment(environ), _from_flags(flags)):
            values.update(layer.checked())
        _check_group(values, place)
        config = cls(home=place, **values)  # type: ignore[arg-type]  # _PARSERS gives each field its type
        if config.per_user_above_machine and "max_jobs_per_user" not in values:
            config = replace(config, max_jobs_per_user=config.max_jobs_per_machine)
        if config.per_user_above_machine:
            raise ConfigError(
                f"max_jobs_per_user ({config.max_jobs_per_user}) is above max_jobs_per_machine"
                f" ({config.max_jobs_per_machine}): a user cannot have more jobs than the machine"
            )
        return config

    @property
    def per_user_above_machine(self) -> bool:
        """True when one user may have more jobs than the machine: `load` refuses that (bits-reference 7.3)."""
        machine, user = self.max_jobs_per_machine, self.max_jobs_per_user
        return machine is not None and user is not None and user > machine

    def policy(self) -> Policy:
        """The bandwidth of the hours of the week."""
        return Policy(
            work=self.work_hours,
            work_limit=self.work_limit,
            other_limit=self.bandwidth_limit,
            maintenance=self.maintenance_hours,
            maintenance_limit=self.maintenance_limit,
        )


@dataclass(frozen=True, slots=True)
class _Layer:
    """Values of one origin, with the way it spells a key."""

    values: Mapping[str, object]
    base: Path
    spell: Callable[[str], str]

    def checked(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in self.values.items():
            parser = _PARSERS.get(key)
            if parser is None:
                raise ConfigError(f"{self.spell(key)}: {self._unknown(key)}")
            try:
                found[key] = parser(value, self.base)
            except ValueError as error:
                raise ConfigError(f"{self.spell(key)} {error}") from error
        return found

    def _unknown(self, key: str) -> str:
        word = key.lower().replace("-", "_")
        begun = [known for known in _PARSERS if known.startswith(word)]
        near = begun if len(begun) == 1 else difflib.get_close_matches(word, _PARSERS, n=1)
        return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"


def _home_of(home: Path | None, environ: Mapping[str, str]) -> Path:
    named = home if home is not None else environ.get("NEARFETCH_HOME") or None
    return default_home() if named is None else Path(named).expanduser().absolute()


def _from_file(path: Path) -> _Layer:
    values: dict[str, object] = {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return _Layer(values, path.parent, lambda key: f"{path}: {key}")


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    values = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NO_SETTINGS and value
    }
    return _Layer(values, Path.cwd(), lambda key: ENVIRONMENT_PREFIX + key.upper())


def _from_flags(flags: Mapping[str, object]) -> _Layer:
    values = {key: value for key, value in flags.items() if value is not None and value not in ((), [])}
    return _Layer(values, Path.cwd(), lambda key: "--" + key.replace("_", "-"))


def _check_group(values: dict[str, object], home: Path) -> None:
    """A group has one source; the file `group.key` counts only when nothing else is said."""
    files = [name for name in ("group_ca_file", "group_certificate_file", "group_key_file") if name in values]
    if files and "group_key" in values:
        raise ConfigError(f"group_key and {files[0]} are both given: a group has either a key or certificates")
    if files and len(files) < 3:
        raise ConfigError("group_ca_file, group_certificate_file and group_key_file go together")
    if files or "group_key" in values:
        return
    path = home / GROUP_KEY_FILE
    try:
        values["group_key"] = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a group key: it is not even text") from error


_YEARS_S = 100 * 365 * DAY_S
_MANY = 1_000_000_000
RETRY_FLOOR_S = 5.0
"""BITS raises a smaller minimum retry delay silently (bits-reference 1.4)."""

_PARSERS: dict[str, kinds.Parser] = {
    "group_key": kinds.secret,
    "group_ca_file": kinds.path,
    "group_certificate_file": kinds.path,
    "group_key_file": kinds.path,
    "name": kinds.text,
    "interface": kinds.texts,
    "listen_host": kinds.text,
    "listen_port": kinds.whole(0, 65_535),
    "peer": kinds.peers,
    "peer_fetch": kinds.switch,
    "peer_serve": kinds.switch,
    "cache_max_bytes": kinds.size,
    "cache_max_share": kinds.above_zero(1.0),
    "cache_max_age_s": kinds.above_zero(_YEARS_S),
    "integrity": kinds.choice(Integrity),
    "background_jobs": kinds.whole(1, 1000),
    "connections_per_host": kinds.whole(1, 1000),
    "time_slice_s": kinds.above_zero(_YEARS_S),
    "minimum_retry_delay_s": kinds.from_zero(_YEARS_S, floor=RETRY_FLOOR_S),
    "no_progress_timeout_s": kinds.from_zero(_YEARS_S),
    "maximum_download_time_s": kinds.above_zero(_YEARS_S),
    "job_inactivity_timeout_s": kinds.above_zero(_YEARS_S),
    "max_jobs_per_machine": kinds.limit(_MANY),
    "max_jobs_per_user": kinds.limit(_MANY),
    "max_files_per_job": kinds.limit(_MANY),
    "max_ranges_per_file": kinds.limit(_MANY),
    "bandwidth_limit": kinds.allowance,
    "work_hours": kinds.windows,
    "work_limit": kinds.allowance,
    "maintenance_hours": kinds.windows,
    "maintenance_limit": kinds.allowance,
    "upload_limit": kinds.size,
    "notify_commands": kinds.switch,
    "ca_file": kinds.path,
    "log_level": kinds.choice(LogLevel),
}


def settings() -> tuple[tuple[str, Any], ...]:
    """Names and defaults of all settings, in the order of the documentation."""
    return tuple((item.name, item.default) for item in fields(Config) if item.name != "home")
