"""What users ask for, as the core and the origin client want it: specs, settings, options, limits.

Reads documents, makes values. Never knows: SQLite, sockets, what is done with the values.
Sources: bits-reference 1.4 (limits), 1.6, 1.7, 1.10; reliability 1.5 (what is not shared).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from agent.config import RETRY_FLOOR_S, Config
from agent.context import Switches
from agent.core.jobs import JobSettings
from agent.core.notices import NoticeSettings, NotifyFlags
from agent.core.patience import PatienceSettings
from agent.core.queue import Rank
from agent.core.ranges_map import RangesError, check_asked
from agent.core.sources import FileId
from agent.core.spec import AskedRange, NearUse, OriginUse, ServeUse, TransferSpec
from agent.errors import LimitError, UsageError
from agent.notify_command import check_command
from agent.origin_options import ClientCertificate, Credential, OriginOptions, Proxy, check_options
from agent.schema import (
    DESCRIPTION_CHARACTERS,
    NAME_CHARACTERS,
    URL_CHARACTERS,
    CredentialChange,
    HttpSettings,
    JobType,
    NewFile,
    NewJob,
    PeerUse,
    Priority,
)
from validation.digest import Digest
from validation.errors import DigestFormatError

RANKS = {
    Priority.FOREGROUND: Rank.FOREGROUND,
    Priority.HIGH: Rank.HIGH,
    Priority.NORMAL: Rank.NORMAL,
    Priority.LOW: Rank.LOW,
}

_HARMLESS = frozenset({"accept", "accept-language", "cache-control", "pragma", "referer", "user-agent"})
"""Headers of a job that give nobody access to anything."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def settings_of(new: NewJob, config: Config) -> JobSettings:
    """A job's settings, with the agent's where the job has none."""
    delay = retry_delay_s(new, config)
    once = is_asked_once(new)
    return JobSettings(
        rank=Rank.FOREGROUND if once else RANKS[new.priority],
        patience=PatienceSettings(
            minimum_retry_delay_s=delay,
            no_progress_timeout_s=0.0 if once else _or(new.no_progress_timeout_s, config.no_progress_timeout_s),
            maximum_download_time_s=_or(new.maximum_download_time_s, config.maximum_download_time_s),
            inactivity_timeout_s=config.job_inactivity_timeout_s,
        ),
        notices=NoticeSettings(
            flags=NotifyFlags(new.notify_flags),
            has_command=new.notify_command is not None and config.notify_commands,
            minimum_retry_delay_s=delay,
        ),
    )


def is_asked_once(new: NewJob) -> bool:
    """Another method than GET: such a job runs at once, and the first error is final (bits-reference 1.10)."""
    return new.http.method != "GET"


def retry_delay_s(new: NewJob, config: Config) -> float:
    """The job's minimum retry delay; a smaller one than BITS' floor is raised silently (bits-reference 1.4)."""
    return max(RETRY_FLOOR_S, _or(new.minimum_retry_delay_s, config.minimum_retry_delay_s))


def spec_of(file: FileId, wished: tuple[NewFile, NewJob], config: Config, switches: Switches) -> TransferSpec:
    """What the core is told about a file of a job. Raises UsageError for a digest or ranges that make no sense."""
    new, job = wished
    try:
        digest = Digest.parse(new.digest) if new.digest is not None else None
    except DigestFormatError as error:
        raise UsageError(str(error)) from error
    ranges = tuple(AskedRange(offset=item.offset, length=item.length) for item in new.ranges)
    try:
        check_asked(ranges)
    except RangesError as error:
        raise UsageError(str(error), code=error.code) from error
    shared = new.peers is not PeerUse.NEVER and not _is_private(new, job.http)
    return TransferSpec(
        file=file,
        url=new.url,
        near=NearUse.PREFERRED if shared and job.peer_fetch and switches.fetch else NearUse.NEVER,
        serve=ServeUse.ALLOWED if shared and job.peer_serve and switches.serve else ServeUse.NEVER,
        integrity=config.integrity,
        digest=digest,
        longest_retry_s=retry_delay_s(job, config),
        ranges=ranges,
        on_demand=job.on_demand,
        maximum_bytes=job.maximum_bytes,
        origin_use=OriginUse(job.origin_use.value),
        origin_floor=job.origin_floor,
    )


def _is_private(new: NewFile, http: HttpSettings) -> bool:
    """What the request carries may be what opens the door: such content is not shared (reliability 1.5).
    Credentials are known to the origin client alone, which says so in what it finds out."""
    if new.headers or http.client_certificate is not None:
        return True
    authority = re.split(r"[/?#]", new.url.partition("://")[2], maxsplit=1)[0]
    return "@" in authority or any(name.lower() not in _HARMLESS for name in http.headers)


def options_of(http: HttpSettings, file: NewFile, credentials: Iterable[CredentialChange]) -> OriginOptions:
    """How the origin of a file is asked. Raises UsageError for what cannot be meant."""
    headers = {name.lower(): (name, value) for name, value in (*http.headers.items(), *file.headers.items())}
    certificate = http.client_certificate
    options = OriginOptions(
        headers=tuple(headers.values()),
        method=http.method,
        credentials=tuple(
            Credential(target=item.target, scheme=item.scheme, user=item.user, password=item.password)
            for item in credentials
        ),
        proxy=Proxy(usage=http.proxy.usage, url=http.proxy.url, bypass=tuple(http.proxy.bypass)),
        client_certificate=None
        if certificate is None
        else ClientCertificate(
            certificate_file=Path(certificate.certificate_file),
            key_file=None if certificate.key_file is None else Path(certificate.key_file),
        ),
        redirects=http.redirects,
        allow_https_to_http=http.allow_https_to_http,
        security=frozenset(http.security),
    )
    check_options(options)
    return options


def check_job(new: NewJob, config: Config, before: NewJob | None = None) -> None:
    """Refuse texts that are too long, types that do not exist here, and commands that cannot run.

    `before`: the job as it was; its notify command is not looked at again. Raises UsageError, LimitError."""
    if new.type is not JobType.DOWNLOAD:
        raise UsageError(
            f"jobs of type {new.type.value} do not exist here: nearfetch downloads", code="UPLOAD_UNSUPPORTED"
        )
    if not new.name.strip():
        raise UsageError("a job needs a name")
    check_length("the job's name", new.name, NAME_CHARACTERS)
    check_length("the job's description", new.description, DESCRIPTION_CHARACTERS)
    if is_asked_once(new) and new.on_demand:
        raise UsageError(f"an on-demand job asks many times: it cannot use the method {new.http.method}")
    if new.rate_limit == 0:
        raise UsageError("a job's rate_limit is above 0 bytes per second, or null for none")
    if new.origin_floor == 0:
        raise UsageError("a job's origin_floor is above 0 bytes per second, or null for none")
    if new.notify_command is not None and (before is None or new.notify_command != before.notify_command):
        if not config.notify_commands:
            raise LimitError(
                "this agent runs no notify commands (notify_commands is off)", code="NOTIFY_COMMANDS_OFF"
            )
        check_command(new.notify_command)
    options_of(new.http, NewFile(url="http://check.example/", path="/"), ())


def check_url(url: str) -> None:
    """Refuse a URL that cannot be fetched. Raises UsageError."""
    check_length("the URL", url, URL_CHARACTERS)
    if _CONTROL.search(url):  # urlsplit would drop some of them without a word
        raise UsageError("the URL holds a line break or another control character")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"not a URL ({error}): {url}") from error
    if parts.scheme.lower() not in ("http", "https"):
        raise UsageError(
            f"cannot fetch {parts.scheme or 'a URL without scheme'}: give a URL that begins with http:// or https://",
            code="UNSUPPORTED_SCHEME",
        )
    if not host:
        raise UsageError(f"the URL names no host: {url}")


def check_length(what: str, text: str, limit: int) -> None:
    """Refuse a text that is too long. Raises UsageError that names the limit."""
    if len(text) > limit:
        raise UsageError(f"{what} has {len(text)} characters, at most {limit} are allowed", code="STRING_TOO_LONG")


def check_counts(files: Sequence[NewFile], already: int, config: Config) -> None:
    """Refuse too many files in a job, or ranges in a file. Raises LimitError that names the setting."""
    limit = config.max_files_per_job
    if limit is not None and already + len(files) > limit:
        raise LimitError(
            f"the job would have {already + len(files)} files, at most {limit} are allowed (max_files_per_job)",
            code="TOO_MANY_FILES",
        )
    most = config.max_ranges_per_file
    for file in files:
        if most is not None and len(file.ranges) > most:
            raise LimitError(
                f"the file has {len(file.ranges)} ranges, at most {most} are allowed (max_ranges_per_file)",
                code="TOO_MANY_RANGES",
            )


def changed(new: NewJob, change: msgspec.Struct) -> NewJob:
    """The job's properties with those of a JobChange in their places."""
    values = {
        name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not msgspec.UNSET
    }
    http = values.pop("http", None)
    if http is not None:
        new = msgspec.structs.replace(new, http=_changed_http(new.http, http))
    return msgspec.structs.replace(new, **values)


def _changed_http(http: HttpSettings, change: msgspec.Struct) -> HttpSettings:
    values = {
        name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not msgspec.UNSET
    }
    if http.headers_write_only and values.get("headers_write_only") is False:
        raise UsageError("the headers were made write-only: that cannot be taken back")
    return msgspec.structs.replace(http, **values)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
