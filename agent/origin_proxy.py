"""Which proxy a request goes through: none, the environment's, or the job's with its bypass list.

Decides only. The environment is read at each request: who changes it need not restart anything that runs inside.

Never knows: sockets, origins' answers. Sources: bits-reference 1.6 (SetProxySettings: wildcards only leftmost,
`<local>`); curl's manual and `urllib.request` for the variables; RFC 6761 §6.3 (localhost).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import assert_never
from urllib.request import getproxies_environment

from yarl import URL

from agent.addresses import leads_here
from agent.origin_auth import basic_value
from agent.origin_options import LOCAL_BYPASS, CredentialTarget, OriginOptions, Proxy, ProxyUsage, proxy_objection
from peer.core.failure import Failure, FailureKind


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a host: through `proxy`, or directly."""

    proxy: URL | None = None
    authorization: str | None = field(default=None, repr=False)
    """The value of Proxy-Authorization."""


DIRECT = Route()


def route(url: URL, options: OriginOptions) -> Route | Failure:
    """The way to `url`. PROXY_INVALID for a proxy that cannot be used."""
    match options.proxy.usage:
        case ProxyUsage.NONE:
            named = None
        case ProxyUsage.OVERRIDE:
            named = None if bypassed(url, options.proxy) else options.proxy.url or ""
        case ProxyUsage.PRECONFIGURED | ProxyUsage.AUTODETECT:
            named = _from_environment(url)
        case _:
            assert_never(options.proxy.usage)
    return DIRECT if named is None else _through(named, options)


def bypassed(url: URL, proxy: Proxy) -> bool:
    """True when the job's bypass list names the host of `url`."""
    return any(_matches(item.lower(), url) for item in proxy.bypass)


def _from_environment(url: URL) -> str | None:
    """What http_proxy and its siblings say; None: go directly."""
    host = url.host or ""
    if leads_here(host):
        return None
    proxies = getproxies_environment()
    named = proxies.get(url.scheme) or proxies.get("all")
    exceptions = [item.strip().lower() for item in proxies.get("no", "").split(",")]
    direct = any(_matches(item, url) or _within(item, url) for item in exceptions if item)
    return None if direct or not named else named


def _through(named: str, options: OriginOptions) -> Route | Failure:
    text = named if "://" in named else f"http://{named}"
    objection = proxy_objection(text)
    if objection is not None:
        whose = "the job's" if options.proxy.usage is ProxyUsage.OVERRIDE else "the environment's"
        message = f"the URL of {whose} proxy {objection}"
        return Failure(kind=FailureKind.PROXY_INVALID, message=message)
    url = URL(text)
    authorization = None if url.user is None else basic_value(url.user, url.password or "")
    for item in options.credentials:
        if item.target is CredentialTarget.PROXY:
            authorization = basic_value(item.user, item.password)
    return Route(url.with_user(None).with_path("/"), authorization)


def _matches(item: str, url: URL) -> bool:
    """One entry of a list: a name, an address, a network, `*suffix` or `<local>`; `:port` narrows the first two."""
    host = (url.host or "").lower().rstrip(".")
    if item == LOCAL_BYPASS:
        return "." not in host and ":" not in host
    if item.startswith("*"):
        return host.endswith(item[1:])
    address = _address(host)
    if "/" in item:
        return address is not None and _contains(item, address)
    name, port = _split(item)
    if port is not None and port != str(url.port):
        return False
    return name == host or (address is not None and _address(name) == address)


def _within(item: str, url: URL) -> bool:
    """An entry of no_proxy stands for the hosts below it too, with or without a dot in front."""
    name, port = _split(item)
    host = (url.host or "").lower().rstrip(".")
    return port in (None, str(url.port)) and f".{host}".endswith("." + name.lstrip("."))


def _split(item: str) -> tuple[str, str | None]:
    """Name and port; IPv6 addresses may stand in brackets, with a port they must."""
    if item.startswith("["):
        name, _, rest = item[1:].partition("]")
        return name, rest.removeprefix(":") or None
    name, colon, port = item.partition(":")
    return (name, port) if colon and port.isdecimal() and ":" not in port else (item, None)


def _contains(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
