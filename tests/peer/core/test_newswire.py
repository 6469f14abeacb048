"""News as bytes: whoever reads them knows what was said, however they are cut, and nothing else gets through."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core import wire
from peer.core.newswire import STREAM_END, STREAM_HEAD, NewsReader, format_news
from peer.core.state import State
from peer.core.wire import WireError
from validation.content import MIN_CHUNK_BYTES, Bitfield, ChunkLayout, bitfield

COUNT = 40
LAYOUT = ChunkLayout(length=COUNT * MIN_CHUNK_BYTES, chunk_bytes=MIN_CHUNK_BYTES)
HUGE = ChunkLayout(length=16384 * MIN_CHUNK_BYTES, chunk_bytes=MIN_CHUNK_BYTES)


def state(have: int = 0, claimed: int = 0, *, wants: bool = True, layout: ChunkLayout = LAYOUT) -> State:
    return State(layout=layout, have=Bitfield(have), claimed=Bitfield(claimed), wants=wants)


fields = st.integers(min_value=0, max_value=(1 << COUNT) - 1)
states = st.none() | st.builds(
    state,
    fields | st.just(0),
    st.sets(st.integers(0, COUNT - 1), max_size=3).map(bitfield),
    wants=st.booleans(),
    layout=st.just(LAYOUT),
)


@given(told=st.lists(states, max_size=12), cuts=st.integers(1, 64))
def test_who_reads_them_knows_what_was_said(told: list[State | None], cuts: int) -> None:
    reader, last = NewsReader(1), None
    for number, now in enumerate(told):
        message = format_news(last, now, 0, first=not number)
        said = [reader.feed(message[place : place + cuts]) for place in range(0, len(message), cuts)]
        assert said == [False] * (len(said) - 1) + [True], "one message, when all of it is there"
        assert reader.state == now
        last = now
    assert not reader.ended
    assert not reader.feed(STREAM_END)
    assert (reader.ended, reader.surplus) == (True, False)


def test_several_messages_at_once_come_to_the_last_one() -> None:
    one, two, three = state(1), state(0b11, 0b100), state(0b111)
    data = format_news(None, one, 0) + format_news(one, two, 0) + format_news(two, three, 0)
    reader = NewsReader(1)
    assert reader.feed(data)
    assert reader.state == three
    assert reader.feed(format_news(three, three, 0) + STREAM_END + b"x")
    assert (reader.state, reader.ended, reader.surplus) == (three, True, True)


def test_what_is_new_is_all_that_is_told() -> None:
    """A chunk more of a content of 4 GiB is not worth 5 KiB."""
    have = (1 << 9000) - 1
    before = state(have, 1 << 9000, layout=HUGE)
    after = state(have | 1 << 9000, 1 << 9001, layout=HUGE)
    assert len(format_news(None, before, 0)) > 4000
    assert len(format_news(before, after, 0)) < 80
    assert b'"more":[9000],"claimed":[9001]' in format_news(before, after, 0)


@pytest.mark.parametrize(
    ("told", "now", "first"),
    [
        (None, state(1), False),
        (state(1), state(1), True),
        (state(0b11), state(0b01), False),
        (state(1), state(1, layout=HUGE), False),
        (state(0), state((1 << 30) - 1), False),
    ],
    ids=["the first", "by another id", "has less", "another content", "much at once"],
)
def test_sometimes_everything_is_told(told: State | None, now: State, first: bool) -> None:
    assert b'"say":"offer"' in format_news(told, now, 0, first=first)


def test_silence_is_broken_without_news() -> None:
    assert b"still" in format_news(state(1), state(1), 0)
    assert b"still" in format_news(None, None, 0)
    assert b"nothing" in format_news(None, None, 0, first=True)
    assert b"nothing" in format_news(state(1), None, 0)


def test_by_which_id_it_is_known() -> None:
    reader = NewsReader(2)
    reader.feed(format_news(None, state(1), 1))
    assert reader.of == 1
    reader.feed(format_news(state(1), state(1), 0, first=True))
    assert reader.of == 0


def test_its_head_is_a_response() -> None:
    head = wire.parse_response_head(STREAM_HEAD)
    assert (head.status, head.length, head.keep_alive) == (200, None, True)


def message(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text.encode())


OFFER = format_news(None, state(1), 0)


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"5;a=b\r\nabcde\r\n",
        b"-1\r\n",
        b" 5\r\nabcde\r\n",
        b"ffffff\r\n",
        b"0000000000000000",
        b"2\r\n{}XY",
        message("{}"),
        message("null"),
        message("[" * 5000),
        message('{"say":"more","more":[1],"claimed":[],"wants":true}'),
        message('{"say":"offer","of":1,"offer":{"length":1,"chunk_bytes":262144,"have":"AQ==","claimed":"AA=="}}'),
        message('{"say":"offer","of":0,"offer":{"length":-1,"chunk_bytes":262144,"have":"AQ==","claimed":"AA=="}}'),
        message('{"say":"offer","of":0,"offer":{"length":1,"chunk_bytes":262144,"have":"/w==","claimed":"AA=="}}'),
        message('{"say":"offer","of":0,"offer":{"length":1,"chunk_bytes":0,"have":"AQ==","claimed":"AA=="}}'),
        OFFER + message('{"say":"more","more":[40],"claimed":[],"wants":true}'),
        OFFER + message('{"say":"more","more":[-1],"claimed":[],"wants":true}'),
        OFFER + message('{"say":"more","more":[],"claimed":[99999999999],"wants":true}'),
        OFFER + message('{"say":"more","more":[' + ",".join("1" * 41) + '],"claimed":[],"wants":true}'),
        OFFER + message('{"say":"more","more":[1.5],"claimed":[],"wants":true}'),
        OFFER + message('{"say":"more","more":[1],"claimed":[]}'),
        OFFER + message('{"say":"what"}'),
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        NewsReader(1).feed(data)


@given(data=st.binary(max_size=200), head=st.sampled_from([b"", b"2\r\n", b"10\r\n", OFFER]))
def test_whatever_comes_is_read_or_refused(data: bytes, head: bytes) -> None:
    reader = NewsReader(1)
    with contextlib.suppress(WireError):
        reader.feed(head + data)
    assert reader.state is None or reader.state.layout.count > 0
