"""Following redirects: where to, with which headers, under which address rule.

Decides only. We follow them ourselves because a library cannot know our three rules: http and https only and never
from https to http; nothing secret crosses an origin (scheme, host, port); nobody public leads inside.

Never knows: sockets, ranges. Source: RFC 9110 §15.4; what went wrong elsewhere: CVE-2018-1000007 and CVE-2022-27774
(credentials followed redirects to other hosts and ports), CVE-2009-0037 (a redirect to file:).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, replace

from yarl import URL

from agent.addresses import AddressClass, AddressPolicy
from agent.origin_errors import shown
from peer.core.failure import Failure, FailureKind

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_OURS = frozenset(
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

_HARMLESS = frozenset({"accept", "accept-language", "cache-control", "pragma", "user-agent"})
"""Job headers that may go to another origin. Any other may carry a secret: nothing in a name tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One request on the way: `url` without user information, and what may be sent there."""

    url: URL
    headers: tuple[tuple[str, str], ...]
    policy: AddressPolicy = AddressPolicy.LOCAL_ALLOWED


def first_hop(url: str, headers: tuple[tuple[str, str], ...]) -> Hop | Failure:
    """The request that the job asks for. User information in the URL becomes an Authorization header."""
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        named = scheme if scheme.isalnum() and len(scheme) <= 20 else "this"
        message = f"only http and https URLs can be fetched, not {named}"
        return Failure(kind=FailureKind.UNSUPPORTED_SCHEME, message=message)
    parsed = _parse(url)
    if parsed is None or not parsed.raw_host or parsed.port is None:
        return Failure(kind=FailureKind.UNSUPPORTED_SCHEME, message="the URL names no host that can be asked")
    kept = [(name, value) for name, value in headers if name.lower() not in _OURS]
    if parsed.raw_user is not None and not any(name.lower() == "authorization" for name, _ in kept):
        credentials = b64encode(f"{parsed.user}:{parsed.password or ''}".encode()).decode("ascii")
        kept.append(("Authorization", f"Basic {credentials}"))
    return Hop(url=_bare(parsed), headers=tuple(kept))


def next_hop(hop: Hop, location: str | None, seen: AddressClass) -> Hop | Failure:
    """Where a redirect leads; `seen` is the class of the address that sent it.

    REDIRECT_REFUSED for another protocol or a step down to http, BAD_RESPONSE for a target that is none.
    """
    host = hop.url.host or "the origin"
    target = _target(hop.url, location)
    if target is None:
        return Failure(kind=FailureKind.BAD_RESPONSE, message=f"{host}: redirects without a usable target")
    if target.scheme not in ("http", "https"):
        message = f"{shown(hop.url)} redirects to another protocol ({target.scheme[:20]}), which is refused"
        return Failure(kind=FailureKind.REDIRECT_REFUSED, message=message)
    if hop.url.scheme == "https" and target.scheme == "http":
        message = f"{shown(hop.url)} redirects to {shown(target)} without TLS, which is refused"
        return Failure(kind=FailureKind.REDIRECT_REFUSED, message=message)
    policy = hop.policy if seen is AddressClass.LOCAL else AddressPolicy.PUBLIC_ONLY
    if _same_origin(target, hop.url):
        return replace(hop, url=target, policy=policy)
    harmless = tuple((name, value) for name, value in hop.headers if name.lower() in _HARMLESS)
    return Hop(url=target, headers=harmless, policy=policy)


def carries_credentials(url: str, headers: tuple[tuple[str, str], ...]) -> bool:
    """True when what the job sends could make the answer its own: anything but harmless headers, or user
    information in the URL."""
    parsed = _parse(url)
    secret = any(name.lower() not in _HARMLESS | _OURS for name, _ in headers)
    return secret or parsed is None or parsed.raw_user is not None or parsed.raw_password is not None


def _target(base: URL, location: str | None) -> URL | None:
    relative = _parse(location.strip()) if location else None
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
