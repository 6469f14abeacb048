"""How the origin of a job is asked: headers, credentials, proxy, certificates, redirects. Values only.

Never knows: sockets, aiohttp, jobs. Sources: bits-reference 1.6, 1.10.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Headers = tuple[tuple[str, str], ...]


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
    NONE = "none"
    OVERRIDE = "override"
    AUTODETECT = "autodetect"


class RedirectPolicy(StrEnum):
    """What a redirect of the origin does."""

    ALLOW = "allow"
    REPORT = "report"
    DISALLOW = "disallow"


class SecurityFlag(StrEnum):
    """What of TLS is checked less, or more."""

    CHECK_REVOCATION = "check-revocation"
    IGNORE_NAME = "ignore-name"
    IGNORE_DATE = "ignore-date"
    IGNORE_UNKNOWN_AUTHORITY = "ignore-unknown-authority"
    IGNORE_USAGE = "ignore-usage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One set of credentials. Bearer: the token is the password, the user is empty."""

    target: CredentialTarget
    scheme: CredentialScheme
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Which proxy is asked."""

    usage: ProxyUsage = ProxyUsage.PRECONFIGURED
    url: str | None = None
    bypass: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """PEM files."""

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
