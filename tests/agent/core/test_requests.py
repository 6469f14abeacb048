"""Requests in flight."""

from __future__ import annotations

from agent.core.requests import Requests
from agent.core.sources import CACHE, ORIGIN
from validation.content import Bitfield
from validation.ranges import ByteRange


def test_numbers_are_never_used_twice() -> None:
    requests = Requests()
    seen = [requests.open(ORIGIN, ByteRange(0, 1), Bitfield(1), 0.0).request]
    requests.close(seen[0])
    seen += [requests.number(), requests.open(CACHE, ByteRange(0, 1), Bitfield(1), 0.0).request]
    assert len(set(seen)) == 3
    assert requests.close(seen[0]) is None


def test_what_is_in_flight() -> None:
    requests = Requests()
    far = requests.open(ORIGIN, ByteRange(0, 20), Bitfield(0b0011), 0.0)
    near = requests.open(CACHE, ByteRange(30, 40), Bitfield(0b1000), 0.0)
    assert (len(requests), requests.chunks) == (2, 0b1011)
    assert requests.of_origin is far
    assert requests.near == (near,)
    far.cursor = 15
    assert far.received == 15


def test_disowned_requests_carry_nothing_and_only_end() -> None:
    requests = Requests()
    old = requests.open(ORIGIN, ByteRange(0, 20), Bitfield(0b11), 0.0)
    assert not requests.close_orphan(old.request)
    requests.disown()
    assert requests.orphans
    assert requests.chunks == 0
    new = requests.open(CACHE, ByteRange(0, 20), Bitfield(0b11), 0.0)
    assert not requests.close_orphan(new.request)
    assert requests.close_orphan(old.request)
    assert not requests.orphans
