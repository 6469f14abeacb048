"""Following redirects: where to, with what, under which address rule.

Decides only. We follow them ourselves because a library cannot know our rules: http and https only, and from https
to http only where the job allows it; nothing secret crosses an origin (scheme, host, port); nobody public leads
inside.

Never knows: sockets, ranges, how credentials are shown. Source: RFC 9110 §15.4; what went wrong elsewhere:
CVE-2018-1000007 and CVE-2022-27774 (credentials followed redirects to other hosts and ports), CVE-2009-0037 (a
redirect to file:).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from yarl import URL

from agent.addresses import AddressClass, AddressPolicy
from agent.origin_answer import Head, failure_of_answer
from agent.origin_errors import shown
from agent.origin_options import (
    OURS,
    ClientCertificate,
    Credential,
    CredentialScheme,
    CredentialTarget,
    Headers,
    OriginOptions,
    RedirectPolicy,
)
from peer.core.failure import Failure, FailureKind

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_PROXY_ONLY = "proxy-authorization"
_HARMLESS = frozenset({"accept", "accept-language", "cache-control", "pragma", "user-agent"})
"""Job headers that may go to another origin. Any other may carry a secret: nothing in a name tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What only the job's own origin is shown."""

    credentials: tuple[Credential, ...] = field(default=(), repr=False)
    certificate: ClientCertificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One request on the way: `url` without user information, and what may be sent there."""

    url: URL
    method: str = "GET"
    headers: Headers = field(default=(), repr=False)
    secrets: Secrets = Secrets()
    policy: AddressPolicy = AddressPolicy.LOCAL_ALLOWED


def first_hop(url: str, options: OriginOptions, home: str | None = None) -> Hop | Failure:
    """The request that the job asks for.

    `home` is the URL that the job names where `url` is another one: the job's secrets are for the origin of `home`.
    User information in `url` becomes Basic credentials, unless there are credentials for the server.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        named = scheme if scheme.isalnum() and len(scheme) <= 20 else "this"
        message = f"only http and https URLs can be fetched, not {named}"
        return Failure(kind=FailureKind.UNSUPPORTED_SCHEME, message=message)
    parsed = _parse(url)
    if parsed is None or not parsed.raw_host or parsed.port is None:
        return Failure(kind=FailureKind.UNSUPPORTED_SCHEME, message="the URL names no host that can be asked")
    headers = tuple(item for item in options.headers if item[0].lower() not in OURS | {_PROXY_ONLY})
    hop = Hop(
        url=_bare(parsed),
        method=options.method,
        headers=headers,
        secrets=Secrets(credentials=_for_the_server(options), certificate=options.client_certificate),
    )
    if home is not None and not _is_home(parsed, home):
        hop = replace(hop, headers=_harmless(headers), secrets=Secrets())
    if parsed.raw_user is None or hop.secrets.credentials:
        return hop
    own = Credential(
        target=CredentialTarget.SERVER,
        scheme=CredentialScheme.BASIC,
        user=parsed.user or "",
        password=parsed.password or "",
    )
    return replace(hop, secrets=replace(hop.secrets, credentials=(own,)))


def next_hop(hop: Hop, head: Head, seen: AddressClass, options: OriginOptions) -> Hop | Failure:
    """Where the redirect `head` leads; `seen` is the class of the address that sent it.

    REDIRECT_REFUSED where the job or our rules forbid it, BAD_RESPONSE for a target that is none. Without any
    target the status counts as it is.
    """
    location = head.headers.get("Location")
    if location is None:
        return failure_of_answer(head)
    target = _target(hop.url, location)
    if target is None:
        return head.failure(FailureKind.BAD_RESPONSE, "redirects without a usable target")
    refused = _refusal(hop.url, target, options)
    if refused is not None:
        return Failure(kind=FailureKind.REDIRECT_REFUSED, message=refused, http_status=head.status)
    policy = hop.policy if seen is AddressClass.LOCAL else AddressPolicy.PUBLIC_ONLY
    following = replace(hop, url=target, method=_method(head.status, hop.method), policy=policy)
    if _same_origin(target, hop.url):
        return following
    return replace(following, headers=_harmless(hop.headers), secrets=Secrets())


def carries_credentials(url: str, options: OriginOptions) -> bool:
    """True when what the job sends could make the answer its own: anything but harmless headers, credentials of any
    kind, a client certificate, or user information in the URL."""
    parsed = _parse(url)
    secret = any(name.lower() not in _HARMLESS | OURS for name, _ in options.headers)
    return (
        secret
        or bool(options.credentials)
        or options.client_certificate is not None
        or parsed is None
        or parsed.raw_user is not None
        or parsed.raw_password is not None
    )


def _refusal(source: URL, target: URL, options: OriginOptions) -> str | None:
    """Why this redirect is not followed, or None."""
    if options.redirects is RedirectPolicy.DISALLOW:
        return f"{shown(source)} redirects to {shown(target)}, and the job follows no redirects"
    if target.scheme not in ("http", "https"):
        return f"{shown(source)} redirects to another protocol ({target.scheme[:20]}), which is refused"
    if source.scheme == "https" and target.scheme == "http" and not options.allow_https_to_http:
        return f"{shown(source)} redirects to {shown(target)} without TLS, which is refused"
    return None


def _method(status: int, method: str) -> str:
    """RFC 9110 §15.4.2 to §15.4.4: 303 asks for another resource, by GET; what clients made of POST stays so."""
    if method == "HEAD":
        return method
    return "GET" if status == 303 or (status in (301, 302) and method == "POST") else method


def _is_home(url: URL, home: str) -> bool:
    named = _parse(home)
    return named is not None and _same_origin(named, url)


def _for_the_server(options: OriginOptions) -> tuple[Credential, ...]:
    return tuple(item for item in options.credentials if item.target is CredentialTarget.SERVER)


def _harmless(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name.lower() in _HARMLESS)


def _target(base: URL, location: str) -> URL | None:
    relative = _parse(location.strip())
    if relative is None:
        return None
    try:
        target = base.join(relative)
    except ValueError:
        return None
    if target.scheme not in ("http", "https"):
        return target if target.scheme else None
    return _bare(target) if target.raw_host and target.port is not None else None


def _parse(text: str) -> URL | None:
    """A URL as it was spelled: escapes stay as they are, because signatures cover them. None when it is none."""
    if not text or any(ord(char) < 0x21 or ord(char) == 0x7F for char in text):
        return None
    try:
        url = URL(text, encoded=text.isascii())
        if url.raw_host and url.raw_host != url.raw_host.lower():
            url = url.with_host(url.raw_host.lower())
    except ValueError:
        return None
    return url


def _same_origin(one: URL, other: URL) -> bool:
    """RFC 6454 §5: scheme, host and port."""
    return (one.scheme, one.raw_host, one.port) == (other.scheme, other.raw_host, other.port)


def _bare(url: URL) -> URL:
    return url.with_user(None).with_fragment(None)
