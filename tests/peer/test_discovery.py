"""Real multicast DNS on 127.0.0.1: who hears whom, how soon, and what a hostile announcement can do."""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from peer.core.roster import Sighted, Sighting
from peer.core.voucher import PeerId
from peer.discovery import SERVICE, Announcement, Discovery, DiscoveryListener, Foreign
from peer.errors import DiscoveryError

LOOPBACK = ("127.0.0.1",)
WAIT_S = 5.0
T = TypeVar("T")


@dataclass
class Heard:
    """What a listener was told, as queues to wait on."""

    found: queue.Queue[Sighting] = field(default_factory=queue.Queue)
    lost: queue.Queue[PeerId] = field(default_factory=queue.Queue)
    foreign: queue.Queue[Foreign] = field(default_factory=queue.Queue)

    def listener(self) -> DiscoveryListener:
        return DiscoveryListener(on_found=self.found.put, on_lost=self.lost.put, on_foreign=self.foreign.put)


def some_id() -> PeerId:
    return PeerId(secrets.token_hex(32))


def wait_for(source: queue.Queue[T], wanted: Callable[[T], bool]) -> T:
    """The first item of that kind; others (of tests that run beside this one) are skipped."""
    end = time.monotonic() + WAIT_S
    while True:
        item = source.get(timeout=max(0.0, end - time.monotonic()))
        if wanted(item):
            return item


def of(peer_id: PeerId) -> Callable[[Sighting], bool]:
    return lambda sighting: sighting.peer_id == peer_id


@pytest.fixture
def tag() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def port() -> int:
    """A number nobody else announces: tests that run beside this one are on the same network."""
    return 10_000 + secrets.randbelow(50_000)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def start(stack: ExitStack, tag: str, peer_id: PeerId, port: int = 4000) -> tuple[Discovery, Heard]:
    heard = Heard()
    announcement = Announcement(peer_id=peer_id, group_tag=tag, port=port)
    discovery = Discovery(announcement, LOOPBACK, heard.listener())
    stack.callback(discovery.close)
    discovery.open()
    return discovery, heard


def test_both_hear_of_each_other_within_a_second(stack: ExitStack, tag: str) -> None:
    ann, ben = some_id(), some_id()
    _, at_ann = start(stack, tag, ann, 4001)
    began = time.monotonic()
    _, at_ben = start(stack, tag, ben, 4002)
    assert wait_for(at_ann.found, of(ben)) == Sighting(
        host="127.0.0.1", port=4002, peer_id=ben, how=Sighted.ANNOUNCED
    )
    assert wait_for(at_ben.found, of(ann)).port == 4001
    assert time.monotonic() - began < 1.0


def test_a_goodbye_is_heard_at_once(stack: ExitStack, tag: str) -> None:
    ann, ben = some_id(), some_id()
    _, at_ann = start(stack, tag, ann)
    leaving, _ = start(stack, tag, ben)
    wait_for(at_ann.found, of(ben))
    began = time.monotonic()
    leaving.close()
    assert time.monotonic() - began < 1.0
    assert wait_for(at_ann.lost, lambda peer: peer == ben) == ben
    assert time.monotonic() - began < 1.0


def test_closing_leaves_no_thread_and_no_later_call(stack: ExitStack, tag: str) -> None:
    before = set(threading.enumerate())
    discovery, heard = start(stack, tag, some_id())
    assert set(threading.enumerate()) > before
    began = time.monotonic()
    discovery.close()  # in the middle of the first announcements
    assert time.monotonic() - began < 1.0
    assert set(threading.enumerate()) == before
    discovery.close()
    start(stack, tag, some_id())
    assert heard.found.empty()


def test_we_do_not_hear_ourselves(stack: ExitStack, tag: str) -> None:
    ann, ben = some_id(), some_id()
    _, at_ann = start(stack, tag, ann)
    start(stack, tag, ben)
    heard = [wait_for(at_ann.found, lambda sighting: True).peer_id]
    while not at_ann.found.empty():
        heard.append(at_ann.found.get_nowait().peer_id)
    assert ann not in heard
    assert ben in heard


def test_another_group_is_told_apart(stack: ExitStack, tag: str, port: int) -> None:
    _, at_ann = start(stack, tag, some_id())
    start(stack, "f" * 16, some_id(), port)
    foreign = wait_for(at_ann.foreign, lambda item: item.port == port)
    assert foreign == Foreign(host="127.0.0.1", port=port, reason="announces another group")
    assert at_ann.found.empty()


def test_a_second_agent_may_change_its_port(stack: ExitStack, tag: str) -> None:
    ann, ben = some_id(), some_id()
    _, at_ann = start(stack, tag, ann)
    first, _ = start(stack, tag, ben, 4001)
    wait_for(at_ann.found, of(ben))
    first.close()
    wait_for(at_ann.lost, lambda peer: peer == ben)
    start(stack, tag, ben, 4002)
    assert wait_for(at_ann.found, lambda sighting: sighting.peer_id == ben).port == 4002


def test_an_agent_that_was_killed_is_heard_of_at_its_new_port(stack: ExitStack, tag: str) -> None:
    """No goodbye: to whoever listened, the same name has another port all of a sudden."""
    ann, ben = some_id(), some_id()
    _, at_ann = start(stack, tag, ann)
    for port in (4001, 4002, 4003):
        discovery, _ = start(stack, tag, ben, port)
        assert wait_for(at_ann.found, of(ben)).port == port
        kill(discovery)
    assert at_ann.lost.empty()


def kill(discovery: Discovery) -> None:
    """It says nothing any more, not even goodbye."""
    zeroconf = discovery._zeroconf
    assert zeroconf is not None
    zeroconf.async_send = lambda *_, **__: None  # type: ignore[method-assign]
    discovery.close()


def test_asking_again_reports_everybody_again(stack: ExitStack, tag: str) -> None:
    discovery, at_ann = start(stack, tag, some_id())
    ben, cid = some_id(), some_id()
    start(stack, tag, ben)
    leaving, _ = start(stack, tag, cid)
    wait_for(at_ann.found, of(ben))
    wait_for(at_ann.found, of(cid))
    leaving.close()
    wait_for(at_ann.lost, lambda peer: peer == cid)
    began = time.monotonic()
    discovery.ask_again()
    assert wait_for(at_ann.found, lambda item: item.peer_id in (ben, cid)).peer_id == ben
    assert time.monotonic() - began < 1.0
    dan = some_id()
    start(stack, tag, dan)  # and who comes later is heard of once, by the new browser
    wait_for(at_ann.found, of(dan))
    assert not [item for item in at_ann.found.queue if item.peer_id in (cid, dan)]


def test_asking_again_after_the_end_does_nothing(stack: ExitStack, tag: str) -> None:
    discovery, heard = start(stack, tag, some_id())
    discovery.close()
    discovery.ask_again()
    assert heard.found.empty()


# hostile announcements


@dataclass(frozen=True)
class Claim:
    """An announcement as anybody on the network can make it."""

    name: str
    port: int
    address: str = "127.0.0.1"
    text: dict[str, str] = field(default_factory=dict)


def announce(stack: ExitStack, *claims: Claim) -> None:
    """Say anything by mDNS until the test ends."""
    zeroconf = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    stack.callback(zeroconf.close)
    assert zeroconf.loop is not None
    for claim in claims:
        info = ServiceInfo(
            SERVICE,
            f"{claim.name}.{SERVICE}",
            port=claim.port,
            properties=claim.text,
            parsed_addresses=[claim.address],
        )
        announced = zeroconf.async_register_service(info, cooperating_responders=True)
        asyncio.run_coroutine_threadsafe(announced, zeroconf.loop).result(WAIT_S)  # type: ignore[arg-type]


def good_text(peer_id: PeerId, tag: str) -> dict[str, str]:
    return {"v": "1", "id": peer_id, "g": tag}


def test_the_hostile_announcer_can_be_believed(stack: ExitStack, tag: str, port: int) -> None:
    """The tool of the tests below works: with nothing wrong in it, an announcement is a sighting."""
    _, at_ann = start(stack, tag, some_id())
    eve = some_id()
    announce(stack, Claim(eve[:32], port, text=good_text(eve, tag)))
    assert wait_for(at_ann.found, of(eve)).port == port


NOT_OURS = [
    ({"v": "2"}, "another version"),
    ({"g": "0" * 16}, "another group"),
    ({"g": ""}, "another group"),
    ({"id": "e" * 64}, "does not fit its name"),
    ({"id": "\u00e4" * 64}, "does not fit its name"),
    ({"id": ""}, "does not fit its name"),
    ({"x": "x" * 200, "y": "y" * 200}, "more than 400 bytes"),
]


def test_announcements_that_are_not_ours(stack: ExitStack, tag: str, port: int) -> None:
    _, at_ann = start(stack, tag, some_id())
    claims = []
    for number, (changes, _) in enumerate(NOT_OURS):
        eve = some_id()
        claims.append(Claim(eve[:32], port + number, text={**good_text(eve, tag), **changes}))
    announce(stack, *claims)
    reasons: dict[int, str] = {}
    while len(reasons) < len(NOT_OURS):
        foreign = wait_for(at_ann.foreign, lambda item: port <= item.port < port + len(NOT_OURS))
        reasons[foreign.port] = foreign.reason
    for number, (_, reason) in enumerate(NOT_OURS):
        assert reason in reasons[port + number]
    assert at_ann.found.empty()


def test_announcements_that_lead_nowhere(stack: ExitStack, tag: str, port: int) -> None:
    _, at_ann = start(stack, tag, some_id())
    places = [
        (None, "93.184.215.14"),  # no reflection: a public address
        (None, "192.168.7.7"),  # not a network of a chosen interface
        (None, "224.0.0.251"),
        ("x" * 32, "127.0.0.1"),
        ("short", "127.0.0.1"),
        ("a.b", "127.0.0.1"),
        ("../../etc", "127.0.0.1"),
    ]
    claims = []
    for name, address in places:
        eve = some_id()
        claims.append(Claim(name or eve[:32], port, address, good_text(eve, tag)))
    announce(stack, *claims)
    ben = some_id()
    start(stack, tag, ben)  # comes later by the same way, so the others would have been heard
    assert wait_for(at_ann.found, lambda sighting: True).peer_id == ben
    while not at_ann.foreign.empty():
        assert at_ann.foreign.get_nowait().port != port


# where it cannot work


def test_an_unknown_interface_is_one_clear_error(tag: str) -> None:
    announcement = Announcement(peer_id=some_id(), group_tag=tag, port=4000)
    discovery = Discovery(announcement, ("nosuch0",), Heard().listener())
    with pytest.raises(DiscoveryError, match="'nosuch0'") as caught:
        discovery.open()
    assert caught.value.existing
    discovery.close()
