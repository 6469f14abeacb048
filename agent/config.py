"""The configuration: the file `config.toml` in the home, the environment `NEARFETCH_*`, and flags, read once.

The three spell the same names: `cache_max_bytes`, `NEARFETCH_CACHE_MAX_BYTES`, `--cache-max-bytes`. Flags win over
the environment, that over the file, that over the defaults. "Off" is None, never a number; in text `off`.
Never knows: what the settings do.

Sources: TOML 1.0; XDG base directories through platformdirs.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.client import default_home, socket_path
from agent.core.integrity import Integrity
from agent.errors import ConfigError

__all__ = ["Config", "Integrity", "LogLevel", "default_home", "parse_size", "socket_path"]

CONFIG_FILE = "config.toml"
GROUP_KEY_FILE = "group.key"
ENVIRONMENT_PREFIX = "NEARFETCH_"
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
    """Text of the group's key, also from the file `group.key` in the home. Its form is checked when it is used."""
    group_ca_file: Path | None = None
    group_certificate_file: Path | None = None
    group_key_file: Path | None = None
    """The three go together and replace `group_key`: a group whose authority an administrator runs."""
    name: str | None = None
    """For people; None: the host's name."""
    interface: tuple[str, ...] = ()
    """Names or addresses to find peers on; empty: all but loopback."""
    listen_host: str | None = None
    """None: every address."""
    listen_port: int = 0
    """For peers. 0: chosen by the system."""
    peer: tuple[str, ...] = ()
    """Peers known by `host:port`, where multicast does not reach."""
    cache_max_bytes: int | None = None
    """None: `cache_max_share` decides."""
    cache_max_share: float = 0.1
    """Of the disk that the home is on."""
    cache_max_age_s: float = 90 * DAY_S
    integrity: Integrity = Integrity.VOUCHED
    background_jobs: int = 4
    minimum_retry_delay_s: float = 600.0
    no_progress_timeout_s: float = 14 * DAY_S
    upload_limit: int | None = None
    """Bytes per second given to all peers together."""
    ca_file: Path | None = None
    """PEM, further authorities for origins."""
    log_level: LogLevel = LogLevel.INFO

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
        return cls(home=place, **values)  # type: ignore[arg-type]  # _PARSERS gives each field its type


def parse_size(text: str) -> int:
    """Bytes of `1048576`, `10GiB`, `1.5 MB`. Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"must be a size such as 500MB or 10GiB, not {text!r}")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}

Parser = Callable[[object, Path], object]
"""Value and the directory that relative paths start from -> the field's value. Raises ValueError."""


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
        near = difflib.get_close_matches(key.lower().replace("-", "_"), _PARSERS, n=1)
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
        if name.startswith(ENVIRONMENT_PREFIX) and name != "NEARFETCH_HOME" and value
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


def _text(value: object, base: Path) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"must be a line of text, not {value!r}")
    return value.strip()


def _secret(value: object, base: Path) -> str:
    """As _text, without repeating the value in the message; keys are pasted with line breaks."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value.strip()


def _path(value: object, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"must be a path, not {value!r}")
    return base / Path(value).expanduser()


def _texts(value: object, base: Path) -> tuple[str, ...]:
    """A list; in the environment, separated by commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list of texts, not {value!r}")
    return tuple(_text(item, base) for item in items)


def _peers(value: object, base: Path) -> tuple[str, ...]:
    found = _texts(value, base)
    for item in found:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/\s]+):([0-9]{1,5})", item)
        if match is None or not 0 < int(match[2]) < 65_536:
            raise ValueError(f"must be HOST:PORT, not {item!r}")
    return found


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number, not {value!r}")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"must be a number, not {value!r}")
    return number


def _whole(low: int, high: int) -> Parser:
    def parse(value: object, base: Path) -> int:
        number = _number(value)
        if number != int(number) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {value}")
        return int(number)

    return parse


def _above_zero(high: float) -> Parser:
    def parse(value: object, base: Path) -> float:
        number = _number(value)
        if not 0 < number <= high:
            raise ValueError(f"must be above 0 and at most {high:g}, not {value}")
        return number

    return parse


def _size(value: object, base: Path) -> int | None:
    if value == "off":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be a size such as 500MB or 10GiB, not {value!r}")
    size = parse_size(value) if isinstance(value, str) else value
    if size <= 0:
        raise ValueError("must be above 0 bytes (or off)")
    return size


def _choice(kind: type[StrEnum]) -> Parser:
    def parse(value: object, base: Path) -> StrEnum:
        if isinstance(value, str) and value.lower() in tuple(kind):
            return kind(value.lower())
        raise ValueError(f"must be one of {', '.join(kind)}, not {value!r}")

    return parse


_YEARS_S = 100 * 365 * DAY_S
_PARSERS: dict[str, Parser] = {
    "group_key": _secret,
    "group_ca_file": _path,
    "group_certificate_file": _path,
    "group_key_file": _path,
    "name": _text,
    "interface": _texts,
    "listen_host": _text,
    "listen_port": _whole(0, 65_535),
    "peer": _peers,
    "cache_max_bytes": _size,
    "cache_max_share": _above_zero(1.0),
    "cache_max_age_s": _above_zero(_YEARS_S),
    "integrity": _choice(Integrity),
    "background_jobs": _whole(1, 1000),
    "minimum_retry_delay_s": _above_zero(_YEARS_S),
    "no_progress_timeout_s": _above_zero(_YEARS_S),
    "upload_limit": _size,
    "ca_file": _path,
    "log_level": _choice(LogLevel),
}


def settings() -> tuple[tuple[str, Any], ...]:
    """Names and defaults of all settings, in the order of the documentation."""
    return tuple((item.name, item.default) for item in fields(Config) if item.name != "home")
