"""What went wrong on the way to the origin: the exceptions of aiohttp, ssl and the system as `Failure` values.

Every message is one sentence with the host in it and never a query string, user information or bytes that the other
side chose freely. Never knows: retries, jobs, ranges.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import replace

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from agent.addresses import AddressRefusedError
from agent.origin_answer import retry_after
from peer.core.failure import Failure, FailureKind, Persistence, failure_of_status

_LOCAL_KINDS = frozenset(
    {
        FailureKind.DISK_FULL,
        FailureKind.PERMISSION_DENIED,
        FailureKind.DESTINATION_MISSING,
        FailureKind.IO_ERROR,
        FailureKind.ABORTED,
    }
)
_MAX_SHOWN = 200
_CERTIFICATE_ALERTS = frozenset(
    [
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    ]
)


def shown(url: URL) -> str:
    """A URL as messages may show it: no user information, no query, no fragment, at most 200 characters."""
    bare = url.with_query(None).with_fragment(None)
    if bare.absolute and bare.raw_host is not None:
        bare = bare.with_user(None)
    text = str(bare) + ("?…" if url.raw_query_string else "")
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


def about(host: str, failure: Failure) -> Failure:
    """The same failure with the host named; failures of the local disk stay as they are."""
    if failure.kind in _LOCAL_KINDS:
        return failure
    return replace(failure, message=f"{host}: {failure.message}")


def failure_of_exception(error: BaseException, url: URL, proxy: URL | None = None) -> Failure:
    """The failure that an exception of a request to `url`, by way of `proxy`, stands for.

    For `aiohttp.ClientError`, `OSError`, `TimeoutError` and `ValueError`; anything else is a bug and raised again.
    """
    host = url.host or "the origin"
    if proxy is None:
        kind, what = _judge(error, url)
        return Failure(kind=kind, message=f"{host}: {what}")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _judge_tunnel(error, f"{host}: the proxy {proxy.host}")
    at_proxy = isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientConnectorDNSError)
    kind, what = _judge(error, proxy if at_proxy else url)
    return Failure(kind=kind, message=f"{host}: the proxy {proxy.host}: {what}" if at_proxy else f"{host}: {what}")


def _judge_tunnel(error: aiohttp.ClientHttpProxyError, who: str) -> Failure:
    """A proxy that did not open a tunnel. What passes by itself on other answers does so here."""
    status = error.status
    words = {407: "asks for credentials", 403: "forbids it", 429: "asks us to come back later"}
    what = words.get(status, "opens no tunnel")
    headers = error.headers
    stay_away = retry_after(CIMultiDictProxy(CIMultiDict(headers or {})))
    failure = failure_of_status(status, f"{who} {what} (HTTP status {status})", stay_away)
    if failure.kind in (FailureKind.AUTH_REQUIRED, FailureKind.FORBIDDEN):
        return failure if status != 401 else replace(failure, kind=FailureKind.PROXY_INVALID)
    if status >= 300 and failure.persistence is Persistence.TRANSIENT:
        return failure
    return replace(failure, kind=FailureKind.PROXY_INVALID)


def _judge(error: BaseException, url: URL) -> tuple[FailureKind, str]:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return FailureKind.TLS_CERTIFICATE, f"the certificate was refused: {_certificate_reason(error)}"
        case _ if _wants_certificate(error):
            return FailureKind.TLS_CERTIFICATE, "it asks for a client certificate that it accepts"
        case aiohttp.ClientConnectorError():
            return _judge_connect(error, error.os_error, url)
        case aiohttp.ConnectionTimeoutError():
            return FailureKind.CONNECT_TIMEOUT, "no connection within the time allowed"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return FailureKind.BAD_RESPONSE, "the address cannot be used"
        case aiohttp.ClientResponseError():
            return FailureKind.BAD_RESPONSE, "the answer is not valid HTTP"
        case aiohttp.ClientPayloadError():
            return FailureKind.CONNECTION_CLOSED, "the connection ended before the body did"
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return FailureKind.STALLED, "no answer within the time allowed"
        case aiohttp.ClientConnectionError():
            return FailureKind.CONNECTION_CLOSED, "the connection was closed before the answer was complete"
        case OSError():
            return _judge_connect(error, error, url)
        case aiohttp.ClientError() | asyncio.IncompleteReadError() | ValueError():
            return FailureKind.BAD_RESPONSE, "the answer cannot be understood"
        case _:
            raise error


def _judge_connect(error: BaseException, cause: OSError, url: URL) -> tuple[FailureKind, str]:
    match cause:
        case AddressRefusedError():
            return FailureKind.ADDRESS_REFUSED, "it leads to an address that is not allowed here"
        case socket.gaierror():
            return FailureKind.NAME_NOT_RESOLVED, "the name cannot be resolved"
        case ssl.SSLError():
            return FailureKind.TLS_FAILED, f"TLS could not be spoken ({cause.reason or 'handshake failed'})"
        case ConnectionResetError() | ConnectionAbortedError() if url.scheme == "https":
            return FailureKind.TLS_FAILED, "the connection was closed during the TLS handshake"
        case _ if isinstance(error, aiohttp.ClientConnectorDNSError):
            return FailureKind.NAME_NOT_RESOLVED, "the name cannot be resolved"
        case TimeoutError():
            return FailureKind.CONNECT_TIMEOUT, "no connection within the time allowed"
        case _:
            reason = os.strerror(cause.errno) if cause.errno else type(cause).__name__
            return FailureKind.CONNECT_FAILED, f"no connection ({reason})"


def _wants_certificate(error: BaseException) -> bool:
    """True for the alerts by which a server refuses what the client showed, or did not show (RFC 8446 §6.2)."""
    cause = error.__cause__
    return isinstance(cause, ssl.SSLError) and cause.reason in _CERTIFICATE_ALERTS


def _certificate_reason(error: aiohttp.ClientConnectorCertificateError) -> str:
    inner = error.certificate_error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return str(inner.verify_message).rstrip(".")
    return "it cannot be verified"
