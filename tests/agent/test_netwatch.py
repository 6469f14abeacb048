"""Interfaces and addresses that come and go, in a network that nobody else sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from agent import netwatch
from agent.netwatch import Means, NetworkState, NetworkWatch, current_state
from tests.support.netns import alone, ip, plug_in

ADDRESS, OTHER = "192.0.2.1", "198.51.100.1"


@dataclass
class Heard:
    """What a watch has told."""

    watch: NetworkWatch
    changes: list[tuple[frozenset[str], frozenset[str]]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, before: NetworkState, after: NetworkState) -> None:
        assert after is self.watch.state
        self.changes.append((before.addresses, after.addresses))
        self.news.set()

    async def until(self, *addresses: str) -> None:
        """Exactly these are there. The test's own limit ends this."""
        while self.watch.state.addresses != set(addresses):
            self.news.clear()
            await self.news.wait()


@contextlib.asynccontextmanager
async def watching(means: Means = Means.KERNEL) -> AsyncIterator[Heard]:
    heard = Heard(NetworkWatch(means))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(heard.watch.run(heard.changed))
        await asyncio.sleep(0)  # it listens
        yield heard
        task.cancel()


def test_loopback_is_no_network() -> None:
    async def test() -> None:
        ip("link set lo up", "addr add 192.0.2.7/24 dev lo")
        assert current_state() == NetworkState(addresses=frozenset())
        assert not current_state().connected

    alone(test)


@pytest.mark.parametrize("means", Means)
def test_an_interface_comes_and_goes(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netwatch, "POLL_S", 0.05)

    async def test() -> None:
        async with watching(means) as heard:
            assert not heard.watch.state.connected
            plug_in("test0", f"{ADDRESS}/24")
            await heard.until(ADDRESS)
            assert heard.watch.state.connected
            ip("link set test0 down")
            await heard.until()
            assert not heard.watch.state.connected
            ip("link set test0 up")
            await heard.until(ADDRESS)
            ip("link del test0")
            await heard.until()

    alone(test)


def test_the_kernel_tells_us_at_once() -> None:
    async def test() -> None:
        async with watching() as heard:
            began = time.monotonic()
            plug_in("test0", f"{ADDRESS}/24")
            await heard.until(ADDRESS)
            assert time.monotonic() - began < netwatch.POLL_S

    alone(test)


def test_another_address_is_a_change_and_both_sides_of_it_are_told() -> None:
    async def test() -> None:
        plug_in("test0", f"{ADDRESS}/24")
        async with watching() as heard:
            ip(f"addr add {OTHER}/24 dev test0", f"addr del {ADDRESS}/24 dev test0")
            await heard.until(OTHER)
            assert heard.changes == [(frozenset({ADDRESS}), frozenset({OTHER}))]

    alone(test)


def test_a_flood_of_changes_is_told_as_one_and_ends_with_what_is_there() -> None:
    async def test() -> None:
        plug_in("test0")
        addresses = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(2000)]
        async with watching() as heard:
            ip(*(f"addr add {address}/32 dev test0" for address in addresses))
            await heard.until(*addresses)
            assert len(heard.changes) <= 5

    alone(test)


def test_a_cable_that_leads_nowhere_is_no_network() -> None:
    async def test() -> None:
        plug_in("test0", f"{ADDRESS}/24")
        async with watching() as heard:
            ip("link set test0-far down")
            await heard.until()
            assert not heard.watch.state.connected
            ip("link set test0-far up")
            await heard.until(ADDRESS)

    alone(test)


def test_what_changed_before_it_ran_is_told() -> None:
    async def test() -> None:
        watch = NetworkWatch()
        plug_in("test0", f"{ADDRESS}/24")
        heard = Heard(watch)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.run(heard.changed))
            await heard.until(ADDRESS)
            task.cancel()
        assert heard.changes == [(frozenset(), frozenset({ADDRESS}))]

    alone(test)


def test_what_is_no_change_for_us_is_not_told() -> None:
    async def test() -> None:
        plug_in("test0", f"{ADDRESS}/24")
        async with watching() as heard:
            ip("link set lo up", "link set test0 mtu 1300", "link add test1 type veth peer name test2")
            await asyncio.sleep(2 * netwatch.DEBOUNCE_S)  # it has looked meanwhile
            assert heard.changes == []
            ip(f"addr add {OTHER}/24 dev test0")
            await heard.until(ADDRESS, OTHER)
            assert len(heard.changes) == 1

    alone(test)


def test_link_local_addresses_of_ipv6_carry_their_interface() -> None:
    async def test() -> None:
        plug_in("test0", "fe80::5/64", "2001:db8::5/64")
        found = current_state()
        assert found.addresses == {"fe80::5%test0", "2001:db8::5"}
        assert found.connected

    alone(test)


def test_a_failing_listener_ends_the_watch() -> None:
    async def test() -> None:
        watch = NetworkWatch()
        plug_in("test0", f"{ADDRESS}/24")

        def fail(before: NetworkState, after: NetworkState) -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await watch.run(fail)

    alone(test)


def test_nothing_stays_open() -> None:
    async def test() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for means in Means:
            async with watching(means):
                await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before

    alone(test)


def test_here_as_well_loopback_does_not_count() -> None:
    """Without a namespace: whatever this machine has."""
    assert not {"127.0.0.1", "::1"} & current_state().addresses
