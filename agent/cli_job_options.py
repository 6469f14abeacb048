"""The properties of a job as options: one table for `job create`, `job transfer` and `job set`.

Texts become the fields of NewJob, HttpSettings, JobChange and HttpChange. What the values mean the agent decides;
here is only refused what cannot be read. Never knows: the client.
Sources: bits-reference 1.4, 1.6 (SetProxySettings), 2.1.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent.cli_options import Given
from agent.cli_parse import absolute, flags_of, headers_of, is_off, seconds_of, size_of
from agent.errors import UsageError
from agent.schema import (
    CertificateFiles,
    HttpChange,
    HttpSettings,
    JobChange,
    JobType,
    NewJob,
    OriginUse,
    Priority,
    ProxySettings,
    ProxyUsage,
    RedirectPolicy,
    SecurityFlag,
)

TIME = "TIME|default"
SIZE = "SIZE|off"
NONE = "none"

PROPERTIES: dict[str, Any] = {
    "description": Annotated[str | None, typer.Option(metavar="TEXT", help="A text for people.")],
    "priority": Annotated[Priority | None, typer.Option(help="Whose turn comes first. Default: normal.")],
    "minimum_retry_delay": Annotated[
        str | None,
        typer.Option(metavar=TIME, help="Longest time between tries after an error: seconds, or 10m, 2h, 14d."),
    ],
    "no_progress_timeout": Annotated[
        str | None, typer.Option(metavar=TIME, help="Time without progress until ERROR. 0: no second try.")
    ],
    "maximum_download_time": Annotated[
        str | None, typer.Option(metavar=TIME, help="Time that it may connect and transfer.")
    ],
    "maximum_bytes": Annotated[str | None, typer.Option(metavar=SIZE, help="Most bytes of each file.")],
    "rate_limit": Annotated[str | None, typer.Option(metavar=SIZE, help="Bytes per second from origins.")],
    "origin_use": Annotated[
        OriginUse | None, typer.Option(help="What to save while peers have the content. Default: least-origin.")
    ],
    "origin_floor": Annotated[
        str | None,
        typer.Option(metavar=SIZE, help="Bytes per second from peers below which the origin helps."),
    ],
    "notify_flags": Annotated[
        str | None,
        typer.Option(
            metavar="FLAGS",
            help="A number, none, or words with commas: job-transferred (1), job-error (2), disable (4), "
            "job-modification (8), file-transferred (16), file-ranges-transferred (32). Default: 3.",
        ),
    ],
    "notify_command": Annotated[
        str | None,
        typer.Option(metavar="PROGRAM|off", help="Absolute path of what runs when the job is done or in ERROR."),
    ],
    "notify_arg": Annotated[
        list[str] | None,
        typer.Option(metavar="ARG", help="Argument for --notify-command. May be repeated; no shell reads it."),
    ],
    "peer_fetch": Annotated[
        bool | None,
        typer.Option("--peer-fetch/--no-peer-fetch", help="Whether peers may supply its files. Default: yes."),
    ],
    "peer_serve": Annotated[
        bool | None,
        typer.Option("--peer-serve/--no-peer-serve", help="Whether peers may get its files. Default: yes."),
    ],
    "header": Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'", help="Sent to the origins. May be repeated; replaces what was there."
        ),
    ],
    "headers_write_only": Annotated[
        bool | None,
        typer.Option("--headers-write-only", help="Never show the headers again. Cannot be taken back."),
    ],
    "method": Annotated[str | None, typer.Option(metavar="WORD", help="HTTP method. Default: GET.")],
    "redirects": Annotated[RedirectPolicy | None, typer.Option(help="Default: allow.")],
    "https_to_http": Annotated[
        bool | None,
        typer.Option("--https-to-http/--no-https-to-http", help="Whether a redirect may leave TLS. Default: no."),
    ],
    "security": Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLAG", help=f"May be repeated: {', '.join(SecurityFlag)}; or {NONE}, to check as usual."
        ),
    ],
    "proxy": Annotated[ProxyUsage | None, typer.Option(help="Where the proxy comes from.")],
    "proxy_url": Annotated[
        str | None, typer.Option(metavar="URL", help="http://HOST:PORT; means --proxy override.")
    ],
    "proxy_bypass": Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Asked without the proxy: a name, *.example.org, <local>. Repeat."),
    ],
    "client_certificate": Annotated[
        str | None, typer.Option(metavar="FILE|off", help="PEM file for origins that ask for a certificate.")
    ],
    "client_key": Annotated[str | None, typer.Option(metavar="FILE", help="Its key, when in another file.")],
}
"""Everything that can also be changed while a job lives."""

CREATION: dict[str, Any] = {
    "type": Annotated[JobType | None, typer.Option(help="Only downloads exist here.")],
    **PROPERTIES,
    "on_demand": Annotated[
        bool | None, typer.Option("--on-demand", help="Random access: `job ranges` says what is wanted.")
    ],
    "key": Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Idempotency key: repeated with the same key, the same job is meant."),
    ],
}

CHANGES: dict[str, Any] = {
    "name": Annotated[str | None, typer.Option(metavar="TEXT", help="Another name.")],
    **PROPERTIES,
    "no_headers": Annotated[bool | None, typer.Option("--no-headers", help="Take all headers away.")],
}

_TIMES = ("minimum_retry_delay", "no_progress_timeout", "maximum_download_time")
_AS_THEY_ARE = ("name", "type", "description", "priority", "peer_fetch", "peer_serve", "on_demand", "origin_use")


def new_job(name: str, given: Given) -> NewJob:
    """The job that is asked for, without files. Raises UsageError."""
    return NewJob(name=name, http=HttpSettings(**_http(given)), **_fields(given))


def job_change(given: Given) -> JobChange:
    """What is to be changed. Raises UsageError, also when that is nothing."""
    fields, http = _fields(given), _http(given)
    if not fields and not http:
        raise UsageError("nothing to change: name an option, such as --priority low")
    if http:
        fields["http"] = HttpChange(**http)
    return JobChange(**fields)


def _fields(given: Given) -> dict[str, Any]:
    fields = {name: given[name] for name in _AS_THEY_ARE if given.get(name) is not None}
    for name in _TIMES:
        text = given[name]
        if text is not None:
            usual = text.strip().lower() == "default"
            fields[f"{name}_s"] = None if usual else _read(name, seconds_of, text)
    for name in ("maximum_bytes", "rate_limit", "origin_floor"):
        text = given[name]
        if text is not None:
            fields[name] = None if is_off(text) else _read(name, size_of, text)
    if given["notify_flags"] is not None:
        fields["notify_flags"] = _read("notify_flags", flags_of, given["notify_flags"])
    fields |= _command(given["notify_command"], given["notify_arg"] or [])
    return fields


def _command(program: str | None, arguments: list[str]) -> dict[str, Any]:
    if program is None or is_off(program):
        if arguments:
            raise UsageError("--notify-arg needs a --notify-command")
        return {} if program is None else {"notify_command": None}
    return {"notify_command": [program, *arguments]}


def _http(given: Given) -> dict[str, Any]:
    http: dict[str, Any] = {}
    if given["header"]:
        if given.get("no_headers"):
            raise UsageError("--header and --no-headers contradict each other")
        http["headers"] = headers_of(given["header"])
    elif given.get("no_headers"):
        http["headers"] = {}
    for name, field in (
        ("headers_write_only", "headers_write_only"),
        ("method", "method"),
        ("redirects", "redirects"),
        ("https_to_http", "allow_https_to_http"),
    ):
        if given[name] is not None:
            http[field] = given[name]
    if given["security"]:
        http["security"] = _security(given["security"])
    http |= _proxy(given["proxy"], given["proxy_url"], given["proxy_bypass"] or [])
    return http | _certificate(given["client_certificate"], given["client_key"])


def _security(words: list[str]) -> list[SecurityFlag]:
    flags = [word.strip().lower() for text in words for word in text.split(",")]
    if flags == [NONE]:
        return []
    unknown = [word for word in flags if word not in tuple(SecurityFlag)]
    if unknown:
        raise UsageError(f"--security {unknown[0]!r}: there are {', '.join(SecurityFlag)}, and {NONE}")
    return [SecurityFlag(word) for word in dict.fromkeys(flags)]


def _proxy(usage: ProxyUsage | None, url: str | None, bypass: list[str]) -> dict[str, Any]:
    if usage is None and url is None and not bypass:
        return {}
    if usage is None:
        usage = ProxyUsage.OVERRIDE
    if usage is ProxyUsage.OVERRIDE and url is None:
        raise UsageError("a proxy of the job's own needs --proxy-url http://HOST:PORT")
    return {"proxy": ProxySettings(usage=usage, url=url, bypass=bypass)}


def _certificate(certificate: str | None, key: str | None) -> dict[str, Any]:
    if certificate is None or is_off(certificate):
        if key is not None:
            raise UsageError("--client-key needs a --client-certificate")
        return {} if certificate is None else {"client_certificate": None}
    files = CertificateFiles(
        certificate_file=absolute(certificate), key_file=None if key is None else absolute(key)
    )
    return {"client_certificate": files}


def _read(name: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from error
