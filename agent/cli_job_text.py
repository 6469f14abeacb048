"""Jobs as text: the table of `job list`, the page of `job show`.

Never knows: where documents come from. Every text from outside passes `out`, which makes it harmless.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from agent.cli_parse import NOTIFY_FLAGS
from agent.cli_support import out, table
from agent.progress import size_text
from agent.schema import ErrorDocument, FileDocument, HttpSettings, JobDocument, OriginUse, ProxyUsage, RangeRequest

LABEL_WIDTH = 10


def print_jobs(jobs: Iterable[JobDocument]) -> None:
    """One line a job."""
    table(("ID", "STATE", "FILES", "BYTES", "NAME"), map(_row, jobs))


def print_files(job: JobDocument) -> None:
    """One line a file."""
    rows = ((str(file.index), file.state, bytes_text(file), file.url, file.path) for file in job.files)
    table(("INDEX", "STATE", "BYTES", "URL", "PATH"), rows)


def print_job(job: JobDocument) -> None:
    """Everything about a job."""
    out(f"{job.id}  {job.name}")
    for label, text in _facts(job):
        out(f"{label:<{LABEL_WIDTH}}{text}")
    for file in job.files:
        for line in _file_lines(file):
            out(line)
    for line in job.log:
        out(f"  {line}")


def bytes_text(item: JobDocument | FileDocument) -> str:
    """`1.0 MiB of 2.0 MiB`."""
    total = "?" if item.bytes_total is None else size_text(item.bytes_total)
    return f"{size_text(item.bytes_transferred)} of {total}"


def date_text(at: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def flags_text(flags: int) -> str:
    """`3 (job-transferred, job-error)`."""
    words = ", ".join(word for word, bit in NOTIFY_FLAGS.items() if flags & bit)
    return f"{flags} ({words or 'none'})"


def range_text(item: RangeRequest) -> str:
    """As it is written on the command line."""
    return f"{item.offset}:{'eof' if item.length is None else item.length}"


def error_text(error: ErrorDocument) -> str:
    """The sentence, the code, and where it happened."""
    where = error.context if error.file is None else f"{error.context}, file {error.file}"
    return f"{error.message} ({error.code}, {where})"


def span_text(seconds: float) -> str:
    """Seconds in the largest unit that keeps them whole."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g} s"


def _row(job: JobDocument) -> tuple[str, ...]:
    return (job.id, job.state, f"{job.files_transferred}/{job.files_total}", bytes_text(job), job.name)


def _facts(job: JobDocument) -> Iterator[tuple[str, str]]:
    if job.description:
        yield "about", job.description
    partial = ", only a part of the files" if job.partial else ""
    yield "state", f"{job.state}, priority {job.priority}, {bytes_text(job)}{partial}"
    if job.error is not None:
        yield "error", error_text(job.error)
    if job.error_count:
        yield "errors", str(job.error_count)
    if job.retry_in_s is not None:
        yield "next try", f"in {job.retry_in_s:.0f} s"
    ended = "" if job.completed_at is None else f", transferred {date_text(job.completed_at)}"
    yield "times", f"created {date_text(job.created_at)}, modified {date_text(job.modified_at)}{ended}"
    if job.owner:
        yield "owner", job.owner
    yield "from", " ".join(_from(job))
    yield "patience", _patience(job)
    if job.maximum_bytes is not None or job.rate_limit is not None:
        yield "limits", " ".join(_limits(job))
    command = "" if job.notify_command is None else f", command {' '.join(job.notify_command)}"
    yield "notify", flags_text(job.notify_flags) + command
    yield "peers", f"fetch {_on(job.peer_fetch)}, serve {_on(job.peer_serve)}"
    if job.origin_floor is not None or job.origin_use is not OriginUse.LEAST_ORIGIN:
        floor = "" if job.origin_floor is None else f", helps below {size_text(job.origin_floor)}/s from peers"
        yield "origin", f"{job.origin_use}{floor}"
    if job.on_demand:
        yield "mode", "on demand"
    yield from _http_facts(job.http)
    for item in job.credentials:
        yield "login", f"{item.scheme} for the {item.target}"


def _patience(job: JobDocument) -> str:
    times = (
        ("between tries", job.minimum_retry_delay_s),
        ("without progress", job.no_progress_timeout_s),
        ("transferring", job.maximum_download_time_s),
    )
    return ", ".join(f"{label} {span_text(seconds)}" for label, seconds in times)


def _from(job: JobDocument) -> Iterator[str]:
    yield f"origin {size_text(job.bytes_from_origin)},"
    yield f"peers {size_text(job.bytes_from_peers)},"
    yield f"cache {size_text(job.bytes_from_cache)}"


def _limits(job: JobDocument) -> Iterator[str]:
    if job.maximum_bytes is not None:
        yield f"{size_text(job.maximum_bytes)} a file"
    if job.rate_limit is not None:
        yield f"{size_text(job.rate_limit)}/s from origins"


def _http_facts(http: HttpSettings) -> Iterator[tuple[str, str]]:
    for name, value in http.headers.items():
        yield "header", f"{name}: {value}"
    if http.headers_write_only:
        yield "header", "write-only"
    words = [] if http.method == "GET" else [f"method {http.method}"]
    words += [] if http.redirects == "allow" else [f"redirects {http.redirects}"]
    words += ["https to http allowed"] if http.allow_https_to_http else []
    words += [f"security {flag}" for flag in http.security]
    if words:
        yield "http", ", ".join(words)
    if http.proxy.usage is not ProxyUsage.PRECONFIGURED:
        bypass = f", not for {' '.join(http.proxy.bypass)}" if http.proxy.bypass else ""
        yield "proxy", f"{http.proxy.usage} {http.proxy.url or ''}".rstrip() + bypass
    if http.client_certificate is not None:
        yield "identity", http.client_certificate.certificate_file


def _file_lines(file: FileDocument) -> Iterator[str]:
    indent = " " * LABEL_WIDTH
    yield f"{f'file {file.index}':<{LABEL_WIDTH}}{file.url}"
    yield f"{indent}{file.path}: {file.state}, {file.validation}, {bytes_text(file)}"
    if file.ranges:
        yield f"{indent}ranges {' '.join(map(range_text, file.ranges))}"
    if file.temporary_path is not None:
        yield f"{indent}temporary: {file.temporary_path}"
    yield (
        f"{indent}from origin {size_text(file.bytes_from_origin)}, peers {size_text(file.bytes_from_peers)}, "
        f"cache {size_text(file.bytes_from_cache)}, thrown away {size_text(file.bytes_discarded)}"
    )
    if file.error is not None:
        yield f"{indent}error {file.error.message} ({file.error.code})"


def _on(value: bool) -> str:
    return "on" if value else "off"
