"""What people write on a command line -> values: seconds, sizes, ranges, headers, flags, lists of files.

Every mistake is a UsageError of one sentence that repeats what was written. Never knows: options, the agent.
Sources: bits-reference 1.7 (`off:len`, `eof`), 2.1 (notify flags), 7.1 (lists of "url path").
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from agent.core.sizes import parse_size
from agent.errors import UsageError
from agent.schema import NewFile, RangeRequest

OFF = "off"
END = "eof"
STDIN = "-"
MAX_LIST_BYTES = 64 * 1024 * 1024

NOTIFY_FLAGS = {
    "job-transferred": 1,
    "job-error": 2,
    "disable": 4,
    "job-modification": 8,
    "file-transferred": 16,
    "file-ranges-transferred": 32,
}
"""BITS' flags by the words of our events."""

MAX_SECONDS = 100 * 365 * 86_400.0
MAX_SIZE = 2**62
MAX_SHARE = 0.8
"""Of the disk: BITS' limit for its cache."""

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(text: str) -> float:
    """Seconds of `90`, `1.5`, `10m`, `2h`, `14d`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip().lower())
    if match is None:
        raise UsageError(f"{text!r} is no time: write seconds, or 10m, 2h, 14d")
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if seconds > MAX_SECONDS:
        raise UsageError(f"{text} is longer than a hundred years")
    return seconds


def size_of(text: str) -> int:
    """Bytes of `1048576`, `10GiB`."""
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no size: write bytes, or 500MB, 10GiB") from error
    if size > MAX_SIZE:
        raise UsageError(f"{text} is larger than anything can be")
    return size


def is_off(text: str) -> bool:
    """True for the word that takes a setting away."""
    return text.strip().lower() == OFF


def share_of(text: str) -> float:
    """A part of a whole: `0.1` or `10%`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", text.strip())
    share = 0.0 if match is None else float(match[1]) / (100.0 if match[2] else 1.0)
    if not 0 < share <= MAX_SHARE:
        raise UsageError(f"{text!r} is no share: write 10% or 0.1; at most {MAX_SHARE:.0%}")
    return share


def ranges_of(texts: Iterable[str]) -> list[RangeRequest]:
    """`OFFSET:LENGTH` or `OFFSET:eof` each; several may stand in one text, with commas."""
    return [_range(part) for text in texts for part in text.split(",")]


def _range(text: str) -> RangeRequest:
    offset, colon, length = text.strip().partition(":")
    try:
        if not colon:
            raise ValueError(text)
        rest = None if length.lower() == END else size_of(length)
        found = RangeRequest(offset=size_of(offset), length=rest)
    except (ValueError, UsageError) as error:
        raise UsageError(
            f"{text!r} is no range: write OFFSET:LENGTH or OFFSET:eof", code="INVALID_RANGE"
        ) from error
    if found.length == 0:
        raise UsageError(f"the range {text} is empty", code="INVALID_RANGE")
    return found


def headers_of(texts: Iterable[str]) -> dict[str, str]:
    """`NAME: VALUE` each."""
    found: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        name = name.strip()
        if not colon or not name:
            raise UsageError(f"a header is written NAME: VALUE, not {text!r}")
        if name.lower() in {known.lower() for known in found}:
            raise UsageError(f"the header {name} is given twice: put both values into one, with a comma")
        found[name] = value.strip()
    return found


def flags_of(text: str) -> int:
    """BITS' notify flags: a number, or words with commas, or `none`."""
    if re.fullmatch(r"[0-9]{1,3}", text.strip()):
        number = int(text)
        if number <= sum(NOTIFY_FLAGS.values()):
            return number
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["none"]:
        return 0
    if not all(word in NOTIFY_FLAGS for word in words):
        known = ", ".join(NOTIFY_FLAGS)
        raise UsageError(f"{text!r} are no notify flags: write a number from 0 to 63, none, or some of {known}")
    return sum(NOTIFY_FLAGS[word] for word in set(words))


def absolute(path: str) -> str:
    """The path as the agent needs it: it may run in another directory."""
    if not path:
        raise UsageError("the path is empty")
    return os.path.abspath(path)


def check_url(url: str) -> str:
    """The URL, when it can be one at all."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(f"{url!r} is not a URL: {error}") from error
    if "://" not in url or not parts.scheme:
        raise UsageError(f"{url!r} is not a URL: it begins with neither http:// nor https://")
    if parts.scheme.lower() not in {"http", "https"}:
        raise UsageError(f"{parts.scheme}:// is not supported: only http and https are", code="UNSUPPORTED_SCHEME")
    if not host:
        raise UsageError(f"{url!r} names no host")
    return url


def pairs_of(words: Sequence[str]) -> list[NewFile]:
    """`URL PATH [URL PATH]...`."""
    if not words or len(words) % 2:
        raise UsageError("files are written URL PATH, one pair each: the last one has no PATH")
    pairs = zip(words[::2], words[1::2], strict=True)
    return [NewFile(url=check_url(url), path=absolute(path)) for url, path in pairs]


def listed_files(name: str) -> list[NewFile]:
    """The files of a list, one `URL PATH` a line; a path may hold spaces. Empty lines and lines that begin with #
    are left out. `-` reads standard input. A mistake names its line."""
    found = []
    for number, line in enumerate(text_of(name).splitlines(), 1):
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        try:
            found += pairs_of(words)
        except UsageError as error:
            reason = f"expected URL PATH, not {line.strip()!r}" if len(words) == 1 else str(error)
            raise UsageError(f"{_place(name)}, line {number}: {reason}", code=error.code) from error
    if not found:
        raise UsageError(f"{_place(name)} names no file")
    return found


def text_of(name: str) -> str:
    """What is in a file, or on standard input for `-`."""
    try:
        if name == STDIN:
            raw = sys.stdin.buffer.read(MAX_LIST_BYTES + 1)
        else:
            with Path(name).open("rb") as stream:
                raw = stream.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{_place(name)} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_LIST_BYTES:
        raise UsageError(f"{_place(name)} is longer than {MAX_LIST_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{_place(name)}, line {line}: not UTF-8") from error


def _place(name: str) -> str:
    return "standard input" if name == STDIN else name
