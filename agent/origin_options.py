"""How the origin of a job is asked: headers, credentials, proxy, certificates, redirects. Values, and their check.

Never knows: sockets, aiohttp, jobs, files. Sources: bits-reference 1.4 (limits), 1.6, 1.10; RFC 9110 §5.1, §5.5,
§9.1 (names, values, methods), RFC 6750 §2.1 (bearer), RFC 7617 §2 (Basic), RFC 7616 §3.4 (Digest).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from agent.errors import UsageError

Headers = tuple[tuple[str, str], ...]

HEADER_CHARACTERS = 16_384
USER_CHARACTERS = 300
PASSWORD_CHARACTERS = 65_536
PROXY_CHARACTERS = 32_768
"""Limits of texts as in BITS (bits-reference 1.4; where its sources differ, the larger one: section 9)."""

LOCAL_BYPASS = "<local>"
"""In a bypass list: every host whose name has no dot."""

OURS = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers that a job cannot set: they belong to the connection, or to how we ask for ranges."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_BODILESS = frozenset({"HEAD", "CONNECT", "TRACE", "OPTIONS"})


class CredentialTarget(StrEnum):
    """Who asks for the credentials."""

    SERVER = "server"
    PROXY = "proxy"


class CredentialScheme(StrEnum):
    """How they are shown."""

    BASIC = "basic"
    DIGEST = "digest"
    BEARER = "bearer"


class ProxyUsage(StrEnum):
    """Where the proxy comes from. BITS' four values."""

    PRECONFIGURED = "preconfigured"
    """The agent's environment: http_proxy, https_proxy, all_proxy, no_proxy, read at each request. Hosts on this
    machine itself are asked directly."""
    NONE = "none"
    OVERRIDE = "override"
    """The job names it."""
    AUTODETECT = "autodetect"
    """The same as PRECONFIGURED: there is no WPAD here."""


class RedirectPolicy(StrEnum):
    """What a redirect of the origin does."""

    ALLOW = "allow"
    REPORT = "report"
    """Followed too; `Described.url` says where it led, for the caller to use from then on."""
    DISALLOW = "disallow"


class SecurityFlag(StrEnum):
    """What of TLS is checked less, or more."""

    CHECK_REVOCATION = "check-revocation"
    """The agent's `ca_file` must hold the authorities' revocation lists (CRL) beside their certificates."""
    IGNORE_NAME = "ignore-name"
    IGNORE_DATE = "ignore-date"
    IGNORE_UNKNOWN_AUTHORITY = "ignore-unknown-authority"
    """The chain is not verified; name, dates and usage of the server's own certificate still are."""
    IGNORE_USAGE = "ignore-usage"
    """Only together with IGNORE_UNKNOWN_AUTHORITY: OpenSSL does not verify a chain without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One set of credentials. Bearer: the token is the password, the user is empty."""

    target: CredentialTarget
    scheme: CredentialScheme
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Which proxy is asked."""

    usage: ProxyUsage = ProxyUsage.PRECONFIGURED
    url: str | None = None
    """`http://HOST:PORT`; with OVERRIDE only."""
    bypass: tuple[str, ...] = ()
    """With OVERRIDE only, hosts that are asked directly: names, `*.example.org`, addresses, networks, `<local>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """PEM files, by absolute paths. Without `key_file` the key is in the certificate's file."""

    certificate_file: Path
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginOptions:
    """Everything that may differ from job to job."""

    headers: Headers = ()
    method: str = "GET"
    credentials: tuple[Credential, ...] = ()
    proxy: Proxy = Proxy()
    client_certificate: ClientCertificate | None = None
    redirects: RedirectPolicy = RedirectPolicy.ALLOW
    allow_https_to_http: bool = False
    security: frozenset[SecurityFlag] = frozenset()


PLAIN = OriginOptions()
"""Of a job that wants nothing special."""


def check_options(options: OriginOptions) -> None:
    """Refuse what cannot be meant. Raises UsageError with one sentence; its code is STRING_TOO_LONG where a limit
    is the reason."""
    _check_headers(options.headers)
    _check_method(options.method)
    _check_credentials(options.credentials)
    _check_proxy(options.proxy)
    _check_certificate(options.client_certificate)
    objection = security_objection(options.security)
    if objection is not None:
        raise UsageError(objection)


def security_objection(security: frozenset[SecurityFlag]) -> str | None:
    """Why these flags cannot be had together, or None."""
    unknown = SecurityFlag.IGNORE_UNKNOWN_AUTHORITY in security
    if SecurityFlag.IGNORE_USAGE in security and not unknown:
        return "ignore-usage can only be had together with ignore-unknown-authority"
    if SecurityFlag.CHECK_REVOCATION in security and unknown:
        return "check-revocation and ignore-unknown-authority contradict each other"
    return None


def _check_headers(headers: Headers) -> None:
    for name, value in headers:
        shown = _shown(name)
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"{shown} cannot be the name of a header")
        if name.lower() in OURS:
            raise UsageError(f"the header {shown} cannot be set: it belongs to the agent")
        if name.lower() == "proxy-authorization":
            raise UsageError(f"the header {shown} cannot be set: give credentials for the proxy instead")
        if _CONTROL.search(value.replace("\t", " ")):
            raise UsageError(f"the value of the header {shown} holds a line break or another control character")
    total = sum(len(name) + len(value) + len(": \r\n") for name, value in headers)
    _check_length("the headers", total, HEADER_CHARACTERS)


def _check_method(method: str) -> None:
    if not _METHOD.fullmatch(method):
        raise UsageError(f"{_shown(method)} is no HTTP method: it is a word in capital letters such as GET or POST")
    if method in _BODILESS:
        raise UsageError(f"nothing can be downloaded with the method {method}")


def _check_credentials(credentials: tuple[Credential, ...]) -> None:
    seen = set()
    for item in credentials:
        _check_length("the user name", len(item.user), USER_CHARACTERS)
        _check_length("the password", len(item.password), PASSWORD_CHARACTERS)
        if (item.target, item.scheme) in seen:
            raise UsageError(f"there are two {item.scheme} credentials for the {item.target}")
        seen.add((item.target, item.scheme))
        if item.target is CredentialTarget.PROXY and item.scheme is not CredentialScheme.BASIC:
            raise UsageError(f"a proxy can be given basic credentials only, not {item.scheme}")
        if _CONTROL.search(item.user) or _CONTROL.search(item.password):
            raise UsageError("a user name or password cannot hold control characters")
        if item.scheme is CredentialScheme.BEARER:
            if item.user:
                raise UsageError("bearer credentials have no user name: the token is the password")
            if not _BEARER.fullmatch(item.password):
                raise UsageError("the bearer token holds characters that no such token has")
        elif not item.user:
            raise UsageError(f"{item.scheme} credentials need a user name")
        elif ":" in item.user:
            raise UsageError(f"a user name for {item.scheme} credentials cannot hold a colon")


def _check_proxy(proxy: Proxy) -> None:
    if proxy.usage is not ProxyUsage.OVERRIDE:
        if proxy.url is not None or proxy.bypass:
            raise UsageError(f"a proxy or a bypass list can only be given with override, not with {proxy.usage}")
        return
    if not proxy.url:
        raise UsageError("override needs the URL of a proxy")
    _check_length("the proxy's URL", len(proxy.url), PROXY_CHARACTERS)
    _check_length("the bypass list", sum(len(item) + 1 for item in proxy.bypass), PROXY_CHARACTERS)
    objection = proxy_objection(proxy.url)
    if objection is not None:
        raise UsageError(f"the proxy's URL {objection}")
    if "@" in proxy.url:
        raise UsageError("the proxy's URL cannot hold a user or password: give credentials for the proxy instead")
    for item in proxy.bypass:
        _check_bypass(item)


def proxy_objection(url: str) -> str | None:
    """What is wrong with a proxy's URL, to be put behind "the proxy's URL", or None."""
    if _CONTROL.search(url) or " " in url:
        return "holds a space or a control character"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "cannot be understood"
    if parts.scheme != "http":
        return "does not begin with http://, and no other kind of proxy is supported"
    if not host or port == 0:
        return "names no host and port that can be asked"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "holds more than a host and a port"
    return None


def _check_bypass(item: str) -> None:
    if item == LOCAL_BYPASS:
        return
    if not item or _CONTROL.search(item) or any(char in item for char in " ,;<>@?#"):
        raise UsageError(f"{_shown(item)} cannot be an entry of a bypass list")
    if "*" in item[1:]:
        raise UsageError(f"{_shown(item)} cannot be in a bypass list: a * can only come first")
    if "/" in item:
        try:
            ipaddress.ip_network(item, strict=False)
        except ValueError as error:
            raise UsageError(f"{_shown(item)} cannot be in a bypass list: it is no network") from error


def _check_certificate(certificate: ClientCertificate | None) -> None:
    if certificate is None:
        return
    for path in (certificate.certificate_file, certificate.key_file):
        if path is not None and (not path.is_absolute() or _CONTROL.search(str(path))):
            raise UsageError("the client certificate's files must be named by absolute paths")


def _check_length(what: str, count: int, limit: int) -> None:
    if count > limit:
        message = f"{what} together have" if what.endswith("headers") else f"{what} has"
        raise UsageError(f"{message} {count} characters, at most {limit} are allowed", code="STRING_TOO_LONG")


def _shown(text: str) -> str:
    """What a user wrote, short and printable."""
    return repr(text[:40]) + ("…" if len(text) > 40 else "")
