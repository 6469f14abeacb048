"""Which IPv4 interfaces multicast DNS uses: names or addresses -> addresses with their networks.

Never knows: mDNS messages, peers.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface

import ifaddr

from peer.errors import DiscoveryError

MDNS_GROUP = "224.0.0.251"
MDNS_PORT = 5353
"""RFC 6762 §3."""


def choose_interfaces(wanted: tuple[str, ...]) -> tuple[IPv4Interface, ...]:
    """The IPv4 addresses of the interfaces named (by name or by address), sorted.

    None named: all that are not loopback, or loopback when there is no other. Raises DiscoveryError for a name
    this machine does not have; the message says which there are.
    """
    found = _adapters()
    if not wanted:
        outward = {item for _, item in found if not item.is_loopback}
        return tuple(sorted(outward or {item for _, item in found}))
    chosen: set[IPv4Interface] = set()
    for token in wanted:
        matching = {item for name, item in found if token in (name, str(item.ip))}
        if not matching:
            existing = tuple(sorted({f"{name} ({item.ip})" for name, item in found}))
            listed = ", ".join(existing) or "none"
            raise DiscoveryError(
                f"no IPv4 interface {token!r} for finding peers; this machine has {listed}", existing
            )
        chosen |= matching
    return tuple(sorted(chosen))


def with_multicast(chosen: Iterable[IPv4Interface]) -> tuple[IPv4Interface, ...]:
    """Those of the interfaces that can take part in mDNS now. Raises DiscoveryError when none can.

    A trial on a socket of our own, because zeroconf only logs what it cannot join.
    """
    chosen = tuple(chosen)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            trial.bind(("", MDNS_PORT))
        except OSError as error:
            raise DiscoveryError(
                f"peers cannot be found by mDNS: UDP port {MDNS_PORT} cannot be shared ({error.strerror})"
            ) from error
        usable = tuple(item for item in chosen if _joins(trial, item.ip))
    if not usable:
        listed = ", ".join(str(item.ip) for item in chosen) or "no interface"
        raise DiscoveryError(f"peers cannot be found by mDNS: {listed} has no multicast")
    return usable


def on_link(address: IPv4Address, chosen: Iterable[IPv4Interface]) -> bool:
    """True for an address of a host on one of these networks: no other is believed when mDNS names it.

    Loopback belongs to it only when a loopback interface was chosen.
    """
    if address.is_multicast or address.is_unspecified:
        return False
    return any(
        address in item.network
        and (item.network.prefixlen >= 31 or address != item.network.broadcast_address)
        and address.is_loopback == item.is_loopback
        for item in chosen
    )


def _adapters() -> list[tuple[str, IPv4Interface]]:
    return [
        (adapter.name, IPv4Interface(f"{item.ip}/{item.network_prefix}"))
        for adapter in ifaddr.get_adapters()
        for item in adapter.ips
        if item.is_IPv4
    ]


def _joins(trial: socket.socket, address: IPv4Address) -> bool:
    membership = socket.inet_aton(MDNS_GROUP) + address.packed
    try:
        trial.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        trial.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, membership)
    except OSError:
        return False
    return True
