"""`nearfetch get`: what is asked for, checked; and what came of it, reported. Between them is getting.py.

Never knows: the core, SQLite, peers; how a job is followed.

Sources: RFC 3986 §3.3 (the last segment of a path), RFC 9110 §4.2 (http and https).
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from agent.cli_support import complain, emit, error_document, known_error, say
from agent.config import Config, LogLevel
from agent.destination import check_destination
from agent.errors import AgentError, DestinationError, UsageError
from agent.getting import Getting, Target
from agent.progress import Reporter, Silent, reporter_for, size_text, split_of
from agent.schema import ErrorDocument, JobDocument, NewFile, PeerUse, Priority
from validation.digest import Algorithm, Digest
from validation.errors import DigestFormatError

PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOptions:
    """The command line of `get`."""

    url: str
    output: str | None = None
    sha256: str | None = None
    sha512: str | None = None
    validators: tuple[str, ...] = ()
    peers: PeerUse = PeerUse.PREFER
    patience_s: float = PATIENCE_S
    """Seconds without progress after which it is given up."""
    priority: Priority = Priority.FOREGROUND
    json: bool = False


class GetReport(msgspec.Struct, kw_only=True, frozen=True):
    """What `get --json` prints, once, whatever happened. Bytes and seconds."""

    state: str | None = None
    """The job's state at the end; None when there was no job. Success is ACKNOWLEDGED."""
    url: str | None = None
    path: str | None = None
    """Absolute."""
    bytes_total: int | None = None
    bytes_from_origin: int = 0
    bytes_from_peers: int = 0
    bytes_from_cache: int = 0
    bytes_discarded: int = 0
    peers: dict[str, int] = {}
    error: ErrorDocument | None = None
    seconds: float = 0.0
    job: str | None = None


def get(options: GetOptions, home: Path | None, flags: dict[str, object]) -> int:
    """Do it, print what came of it, and return the exit code."""
    started = time.monotonic()
    reporter: Reporter = Silent() if options.json else reporter_for()
    getting: Getting | None = None
    target: Target | None = None
    error: AgentError | None = None
    try:
        target = target_of(options)
        config = Config.load(home, flags, os.environ)
        _quiet_logs(config.log_level)
        getting = Getting(config=config, target=target, reporter=reporter, patience_s=options.patience_s)
        getting.run()
    except Exception as found:  # the top of the command: in JSON a bug, too, ends in one document
        error = known_error(found)
        if error is None:
            if not options.json:
                raise
            logging.getLogger(__name__).exception("get failed")
            error = AgentError(f"a bug: {found!r}")
    finally:
        reporter.close()
    job = None if getting is None else getting.job
    report = report_of(options, target, job, error, time.monotonic() - started)
    if options.json:
        emit(report)
    elif error is not None:
        complain(error)
    elif job is not None:
        say(summary_of(report, job))
    return 0 if error is None else int(error.exit_code)


def target_of(options: GetOptions) -> Target:
    """The file to fetch. Raises UsageError or DestinationError."""
    scheme_of(options.url)
    path = destination_of(options.url, options.output)
    digests = _digests(options)
    file = NewFile(
        url=options.url,
        path=os.fspath(path),
        digest=digests[0] if digests else None,
        validators=[*digests[1:], *options.validators],
        peers=options.peers,
    )
    place = hashlib.sha256(f"{options.url}\0{path}".encode()).hexdigest()[:16]
    wishes = hashlib.sha256(msgspec.json.encode(file)).hexdigest()[:8]
    return Target(file=file, label=path.name, place=place, wishes=wishes, priority=options.priority)


def scheme_of(url: str) -> str:
    """`http` or `https`. Raises UsageError."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
    except ValueError as error:
        raise UsageError(f"{url!r} is not a URL: {error}") from error
    if not scheme or "://" not in url:
        raise UsageError(f"{url!r} is not a URL: it begins with neither http:// nor https://")
    if scheme not in {"http", "https"}:
        raise UsageError(f"{scheme}:// is not supported: only http and https are", code="UNSUPPORTED_SCHEME")
    if not host:
        raise UsageError(f"{url!r} names no host")
    return scheme


def destination_of(url: str, output: str | None) -> Path:
    """Absolute path of the file: `output`, else the URL's last segment in the current directory. What a server
    says about names is never followed. Raises UsageError or DestinationError."""
    text = name_in(url) if output is None else output
    try:
        os.fspath(text).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DestinationError("the name of the destination is not UTF-8") from error
    path = Path(os.path.abspath(text))
    if os.path.isdir(path) or text.endswith("/"):
        raise DestinationError(f"{path} is a directory: name a file in it with -o {path / 'NAME'}")
    check_destination(path)
    return path


def name_in(url: str) -> str:
    """The file name that a URL's path ends with. Raises UsageError when it has none that can be used."""
    segment = urlsplit(url).path.rpartition("/")[2]
    try:
        name = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        name = ""
    if name in {"", ".", ".."} or "/" in name or not name.isprintable():
        raise UsageError("the URL does not end in a usable file name: say where the file goes with -o PATH")
    return name


def report_of(
    options: GetOptions, target: Target | None, job: JobDocument | None, error: AgentError | None, seconds: float
) -> GetReport:
    """The document for `--json`."""
    report = GetReport(
        url=options.url,
        path=None if target is None else target.file.path,
        error=None if error is None else _error_of(job, error),
        seconds=round(seconds, 3),
    )
    if job is None or not job.files:
        return report
    file = job.files[0]
    return msgspec.structs.replace(
        report,
        state=job.state,
        job=job.id,
        bytes_total=file.bytes_total,
        bytes_from_origin=file.bytes_from_origin,
        bytes_from_peers=file.bytes_from_peers,
        bytes_from_cache=file.bytes_from_cache,
        bytes_discarded=file.bytes_discarded,
        peers=file.peers,
    )


def summary_of(report: GetReport, job: JobDocument) -> str:
    """The last line for a person."""
    size, seconds = report.bytes_total or 0, max(report.seconds, 0.001)
    split = split_of(job)
    rate = f"{size_text(size)} in {seconds:.1f} s, {size_text(size / seconds)}/s"
    return f"{report.path}: {rate}{f'; {split}' if split else ''}"


def _error_of(job: JobDocument | None, error: AgentError) -> ErrorDocument:
    """With the HTTP status when the job's own error is the reason."""
    document = error_document(error)
    if job is not None and job.error is not None and job.error.code == error.code:
        return msgspec.structs.replace(document, file=job.error.file, http_status=job.error.http_status)
    return document


def _digests(options: GetOptions) -> list[str]:
    given = ((Algorithm.SHA256, options.sha256), (Algorithm.SHA512, options.sha512))
    try:
        return [str(Digest.from_hex(algorithm, text)) for algorithm, text in given if text is not None]
    except DigestFormatError as error:
        raise UsageError(str(error)) from error


def _quiet_logs(level: LogLevel) -> None:
    """The agent inside `get` keeps its log to itself, so that the bar stays whole."""
    if level is LogLevel.DEBUG:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
