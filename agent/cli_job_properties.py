"""What `job get` can print: the words for a job's and a file's properties, and where they are in the documents.

Never knows: how they are printed. Sources: bits-reference 7.1 (get).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.cli_job_text import range_text
from agent.errors import NotFoundError, UsageError
from agent.schema import FileDocument, JobDocument

OfJob = Callable[[JobDocument], Any]
OfFile = Callable[[FileDocument], Any]

JOB_PROPERTIES: dict[str, OfJob] = {
    "id": lambda job: job.id,
    "name": lambda job: job.name,
    "description": lambda job: job.description,
    "type": lambda job: job.type,
    "owner": lambda job: job.owner,
    "state": lambda job: job.state,
    "priority": lambda job: job.priority,
    "created-at": lambda job: job.created_at,
    "modified-at": lambda job: job.modified_at,
    "completed-at": lambda job: job.completed_at,
    "error": lambda job: None if job.error is None else job.error.code,
    "error-message": lambda job: None if job.error is None else job.error.message,
    "error-context": lambda job: None if job.error is None else job.error.context,
    "error-file": lambda job: None if job.error is None else job.error.file,
    "error-count": lambda job: job.error_count,
    "retry-in": lambda job: job.retry_in_s,
    "bytes-total": lambda job: job.bytes_total,
    "bytes-transferred": lambda job: job.bytes_transferred,
    "bytes-from-origin": lambda job: job.bytes_from_origin,
    "bytes-from-peers": lambda job: job.bytes_from_peers,
    "bytes-from-cache": lambda job: job.bytes_from_cache,
    "files-total": lambda job: job.files_total,
    "files-transferred": lambda job: job.files_transferred,
    "partial": lambda job: job.partial,
    "minimum-retry-delay": lambda job: job.minimum_retry_delay_s,
    "no-progress-timeout": lambda job: job.no_progress_timeout_s,
    "maximum-download-time": lambda job: job.maximum_download_time_s,
    "maximum-bytes": lambda job: job.maximum_bytes,
    "rate-limit": lambda job: job.rate_limit,
    "origin-use": lambda job: job.origin_use,
    "origin-floor": lambda job: job.origin_floor,
    "notify-flags": lambda job: job.notify_flags,
    "notify-command": lambda job: job.notify_command,
    "on-demand": lambda job: job.on_demand,
    "peer-fetch": lambda job: job.peer_fetch,
    "peer-serve": lambda job: job.peer_serve,
    "headers": lambda job: [f"{name}: {value}" for name, value in job.http.headers.items()],
    "headers-write-only": lambda job: job.http.headers_write_only,
    "method": lambda job: job.http.method,
    "redirects": lambda job: job.http.redirects,
    "https-to-http": lambda job: job.http.allow_https_to_http,
    "security": lambda job: job.http.security,
    "proxy": lambda job: job.http.proxy.usage,
    "proxy-url": lambda job: job.http.proxy.url,
    "proxy-bypass": lambda job: job.http.proxy.bypass,
    "client-certificate": lambda job: (
        None if job.http.client_certificate is None else job.http.client_certificate.certificate_file
    ),
    "credentials": lambda job: [f"{item.scheme} {item.target}" for item in job.credentials],
    "sequence": lambda job: job.sequence,
}

FILE_PROPERTIES: dict[str, OfFile] = {
    "url": lambda file: file.url,
    "path": lambda file: file.path,
    "temporary-path": lambda file: file.temporary_path,
    "state": lambda file: file.state,
    "validation": lambda file: file.validation,
    "error": lambda file: None if file.error is None else file.error.code,
    "bytes-total": lambda file: file.bytes_total,
    "bytes-transferred": lambda file: file.bytes_transferred,
    "bytes-from-origin": lambda file: file.bytes_from_origin,
    "bytes-from-peers": lambda file: file.bytes_from_peers,
    "bytes-from-cache": lambda file: file.bytes_from_cache,
    "bytes-discarded": lambda file: file.bytes_discarded,
    "from-peer": lambda file: file.from_peer,
    "integrity": lambda file: file.integrity,
    "ranges": lambda file: [range_text(item) for item in file.ranges],
    "response-headers": lambda file: [f"{name}: {value}" for name, value in file.response_headers.items()],
}


def property_of(job: JobDocument, word: str, index: int | None) -> Any:
    """The value of a job's property, or of one of its file `index`. Raises UsageError, NotFoundError."""
    known = JOB_PROPERTIES if index is None else FILE_PROPERTIES
    name = word.lower().replace("_", "-")
    if name not in known:
        raise UsageError(_unknown(word, name, index))
    if index is None:
        return JOB_PROPERTIES[name](job)
    if index >= len(job.files):
        raise NotFoundError(f"job {job.id} has no file {index}")
    return FILE_PROPERTIES[name](job.files[index])


def bare(value: Any) -> str:
    """The value as text: a line each for what is many, nothing for what is not known."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return "\n".join(map(str, value))
        case _:
            return str(value)


def _unknown(word: str, name: str, index: int | None) -> str:
    if index is None and name in FILE_PROPERTIES:
        return f"{word} is a property of a file: name its INDEX too"
    if index is not None and name in JOB_PROPERTIES:
        return f"{word} is a property of the job: leave the INDEX out"
    import difflib

    known = JOB_PROPERTIES if index is None else FILE_PROPERTIES
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"there is no property {word!r}; {hint}"
