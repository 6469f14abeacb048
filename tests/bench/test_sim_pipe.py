"""Messages between the simulator's two processes: whole, in order, and never a deadlock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.sim.pipe import Pipe, PipeError


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    one, other = Pipe.pair()
    yield one, other
    one.close()
    other.close()


def test_messages_come_whole_and_in_order(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    sent = [b"", b"a", b"b" * 70_000, b"c"]
    for each in sent:
        one.send(each)
    assert [other.receive(5) for _ in sent] == sent
    other.send(b"back")
    assert one.receive(5) == b"back"


def test_both_send_more_than_the_system_holds_at_once(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    big = bytes(range(256)) * 20_000

    def send_then_receive(end: Pipe) -> list[bytes]:
        for _ in range(3):
            end.send(big)
        return [end.receive(20) for _ in range(3)]

    with ThreadPoolExecutor(2) as threads:
        results = [each.result(30) for each in [threads.submit(send_then_receive, end) for end in (one, other)]]
    assert results == [[big] * 3] * 2


def test_what_was_sent_before_the_end_still_comes(ends: tuple[Pipe, Pipe]) -> None:
    one, other = ends
    one.send(b"last")
    one.close()
    assert other.receive(5) == b"last"
    with pytest.raises(PipeError, match="ended early"):
        other.receive(5)
    with pytest.raises(PipeError, match="gone"):
        other.send(b"x" * 10_000_000)


def test_a_silent_end_and_a_closed_one(ends: tuple[Pipe, Pipe]) -> None:
    one, _other = ends
    with pytest.raises(PipeError, match="does not answer"):
        one.receive(0.01)
    one.close()
    with pytest.raises(PipeError, match="gone"):
        one.send(b"x")
