from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Interface

import pytest

from peer.errors import DiscoveryError
from peer.interfaces import MDNS_PORT, choose_interfaces, on_link, with_multicast

LAN, LOOPBACK = IPv4Interface("192.168.7.20/24"), IPv4Interface("127.0.0.1/8")


def test_loopback_is_found_by_address() -> None:
    assert choose_interfaces(("127.0.0.1",)) == (LOOPBACK,)


def test_loopback_is_found_by_name() -> None:
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    assert LOOPBACK in choose_interfaces((names[0],))


def test_without_a_wish_loopback_is_the_last_resort() -> None:
    chosen = choose_interfaces(())
    assert chosen
    assert all(item.is_loopback for item in chosen) or not any(item.is_loopback for item in chosen)


@pytest.mark.parametrize("token", ["nosuch0", "198.51.100.77", "", "::1"])
def test_an_unknown_interface_says_which_exist(token: str) -> None:
    with pytest.raises(DiscoveryError, match=r"no IPv4 interface .* this machine has .*\(127\.0\.0\.1\)") as caught:
        choose_interfaces(("127.0.0.1", token))
    assert any("127.0.0.1" in item for item in caught.value.existing)


@pytest.mark.parametrize(
    ("address", "believed"),
    [
        ("192.168.7.21", True),
        ("192.168.7.20", True),  # another agent on this machine
        ("192.168.8.21", False),
        ("8.8.8.8", False),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("192.168.7.255", False),
        ("0.0.0.0", False),
        ("224.0.0.251", False),
        ("169.254.169.254", False),
    ],
)
def test_only_addresses_of_our_networks_are_believed(address: str, believed: bool) -> None:
    assert on_link(IPv4Address(address), [LAN]) is believed


def test_loopback_is_believed_only_where_loopback_was_chosen() -> None:
    assert on_link(IPv4Address("127.0.0.1"), [LOOPBACK, LAN])
    assert not on_link(IPv4Address("192.168.7.21"), [LOOPBACK])
    assert not on_link(IPv4Address("127.0.0.1"), [IPv4Interface("0.0.0.0/0")])


def test_loopback_can_multicast() -> None:
    assert with_multicast([LOOPBACK]) == (LOOPBACK,)


def test_an_interface_that_cannot_is_left_out() -> None:
    nowhere = IPv4Interface("198.51.100.77/24")
    assert with_multicast([nowhere, LOOPBACK]) == (LOOPBACK,)
    with pytest.raises(DiscoveryError, match=r"198\.51\.100\.77 has no multicast"):
        with_multicast([nowhere])


def test_a_port_that_somebody_keeps_for_himself() -> None:
    """Where others share the port already, there is nothing to test."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
        try:
            greedy.bind(("", MDNS_PORT))
        except OSError:
            pytest.skip("port 5353 is in use on this machine")
        with pytest.raises(DiscoveryError, match="UDP port 5353 cannot be shared"):
            with_multicast([LOOPBACK])
