"""Which addresses may be connected to."""

from __future__ import annotations

import socket

import pytest

from agent.addresses import (
    AddressClass,
    AddressPolicy,
    AddressRefusedError,
    AddressRules,
    PolicyResolver,
    leads_here,
    socket_factory,
)

PUBLIC, LOCAL, FORBIDDEN = AddressClass.PUBLIC, AddressClass.LOCAL, AddressClass.FORBIDDEN


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("93.184.216.34", PUBLIC),
        ("2606:2800:220:1::1", PUBLIC),
        ("192.88.99.1", PUBLIC),
        ("127.0.0.1", LOCAL),
        ("127.255.255.254", LOCAL),
        ("::1", LOCAL),
        ("10.1.2.3", LOCAL),
        ("172.16.0.1", LOCAL),
        ("172.32.0.1", PUBLIC),
        ("192.168.1.1", LOCAL),
        ("100.64.0.1", LOCAL),
        ("100.128.0.1", PUBLIC),
        ("fd12:3456::1", LOCAL),
        ("fec0::1", LOCAL),
        ("169.254.169.254", FORBIDDEN),
        ("169.254.0.1", FORBIDDEN),
        ("fe80::1", FORBIDDEN),
        ("fe80::1%eth0", FORBIDDEN),
        ("100.100.100.200", FORBIDDEN),
        ("168.63.129.16", FORBIDDEN),
        ("fd00:ec2::254", FORBIDDEN),
        ("0.0.0.0", FORBIDDEN),
        ("0.1.2.3", FORBIDDEN),
        ("::", FORBIDDEN),
        ("224.0.0.251", FORBIDDEN),
        ("239.1.2.3", FORBIDDEN),
        ("ff02::fb", FORBIDDEN),
        ("255.255.255.255", FORBIDDEN),
        ("240.0.0.1", FORBIDDEN),
        # IPv4 in disguise
        ("::ffff:127.0.0.1", LOCAL),
        ("::ffff:169.254.169.254", FORBIDDEN),
        ("::ffff:93.184.216.34", PUBLIC),
        ("64:ff9b::7f00:1", LOCAL),
        ("64:ff9b::a9fe:a9fe", FORBIDDEN),
        ("2002:7f00:1::", LOCAL),
        ("2002:a9fe:a9fe::1", FORBIDDEN),
        ("", FORBIDDEN),
        ("localhost", FORBIDDEN),
    ],
)
def test_class(address: str, kind: AddressClass) -> None:
    assert AddressRules().classify(address) is kind


@pytest.mark.parametrize(
    ("host", "kind", "here"),
    [
        ("example.org", PUBLIC, False),
        ("intranet", PUBLIC, False),
        ("localhost", LOCAL, True),
        ("LOCALHOST.", LOCAL, True),
        ("a.localhost", LOCAL, True),
        ("notlocalhost", PUBLIC, False),
        ("127.0.0.1", LOCAL, True),
        ("::1", LOCAL, True),
        ("::ffff:127.0.0.1", LOCAL, True),
        ("10.0.0.1", LOCAL, False),
        ("127.1", LOCAL, False),
        ("0x7f000001", LOCAL, False),
        ("2852039166", FORBIDDEN, False),
        ("169.254.169.254", FORBIDDEN, False),
        ("fe80::1%eth0", FORBIDDEN, False),
        ("0", FORBIDDEN, False),
        ("8.8.8.8", PUBLIC, False),
    ],
)
def test_a_host_that_somebody_else_resolves(host: str, kind: AddressClass, *, here: bool) -> None:
    assert AddressRules().classify_unresolved(host) is kind
    assert leads_here(host) is here


def test_policies() -> None:
    assert [AddressPolicy.LOCAL_ALLOWED.admits(kind) for kind in (PUBLIC, LOCAL, FORBIDDEN)] == [True, True, False]
    assert [AddressPolicy.PUBLIC_ONLY.admits(kind) for kind in (PUBLIC, LOCAL, FORBIDDEN)] == [True, False, False]


def test_exceptions_come_first() -> None:
    rules = AddressRules((("9.9.0.0/16", LOCAL), ("9.0.0.0/8", FORBIDDEN), ("127.0.0.2/32", PUBLIC)))
    assert [rules.classify(text) for text in ("9.9.1.1", "9.8.1.1", "127.0.0.2", "127.0.0.1")] == [
        LOCAL,
        FORBIDDEN,
        PUBLIC,
        LOCAL,
    ]
    assert rules.classify("::ffff:127.0.0.2") is PUBLIC
    with pytest.raises(ValueError, match="nonsense"):
        AddressRules((("nonsense", LOCAL),))


def test_the_memory_of_public_names_is_bounded() -> None:
    rules = AddressRules()
    for number in range(3000):
        rules.narrowed(f"h{number}", [PUBLIC], AddressPolicy.LOCAL_ALLOWED)
    assert rules.narrowed("h0", [LOCAL], AddressPolicy.LOCAL_ALLOWED) is AddressPolicy.LOCAL_ALLOWED
    assert rules.narrowed("h2999", [LOCAL], AddressPolicy.LOCAL_ALLOWED) is AddressPolicy.PUBLIC_ONLY


async def test_the_resolver_leaves_out_what_is_not_allowed() -> None:
    rules = AddressRules()
    allowed = PolicyResolver(AddressPolicy.LOCAL_ALLOWED, rules)
    assert {rules.classify(entry["host"]) for entry in await allowed.resolve("localhost", 80)} == {LOCAL}
    with pytest.raises(AddressRefusedError):
        await PolicyResolver(AddressPolicy.PUBLIC_ONLY, rules).resolve("localhost", 80)


def test_no_socket_for_an_address_that_is_not_allowed() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))
    socket_factory(AddressPolicy.LOCAL_ALLOWED, AddressRules())(info).close()
    with pytest.raises(AddressRefusedError):
        socket_factory(AddressPolicy.PUBLIC_ONLY, AddressRules())(info)
