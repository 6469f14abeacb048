"""The peer protocol as bytes: what is read, what is refused, and that nothing but WireError ever comes out."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peer.core import voucherwire, wire
from peer.core.voucher import PeerId, Voucher
from peer.core.wire import BytesRequest, CertificateRequest, HelloRequest, OfferRequest, WireError
from validation.content import Bitfield, ChunkIndex, ChunkLayout, ContentId, bitfield
from validation.ranges import ByteRange

CONTENT = ContentId("0123456789abcdef" * 4)
MEMBER = PeerId("fedcba9876543210" * 4)
LAYOUT = ChunkLayout(length=1_000_000, chunk_bytes=262_144)


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode("latin-1")


def refused(data: bytes) -> int:
    with pytest.raises(WireError) as caught:
        wire.parse_request_head(data)
    return caught.value.status


@pytest.mark.parametrize(
    ("target", "item", "request_"),
    [
        (wire.hello_target(), None, HelloRequest()),
        (wire.offer_target(CONTENT), None, OfferRequest(CONTENT)),
        (wire.bytes_target(CONTENT), ByteRange(7, 8), BytesRequest(CONTENT, ByteRange(7, 8))),
        (wire.certificate_target(MEMBER), None, CertificateRequest(MEMBER)),
    ],
)
@pytest.mark.parametrize("port", [None, 1, 65_535])
def test_what_we_ask_is_what_is_read(
    target: str, item: ByteRange | None, request_: wire.Request, port: int | None
) -> None:
    parsed = wire.parse_request_head(wire.format_request(target, port, item))
    assert (parsed.request, parsed.port, parsed.keep_alive) == (request_, port, True)


@given(st.integers(0, 10**16 - 2), st.integers(0, 10**16 - 2), st.none() | st.integers(0, 10**6))
def test_the_usual_request_reads_the_same_by_the_long_way(first: int, last: int, port: int | None) -> None:
    """The fast pattern is an optimisation: one more header takes the general path, to the same value."""
    lines = [f"GET {wire.bytes_target(CONTENT)} HTTP/1.1", "Host: nearfetch", f"Range: bytes={first}-{last}"]
    lines += [] if port is None else [f"Nearfetch-Port: {port}"]
    fast = "\r\n".join([*lines, "", ""]).encode()
    slow = "\r\n".join([*lines, "Accept: */*", "", ""]).encode()
    outcomes: list[object] = []
    for data in (fast, slow):
        try:
            outcomes.append(wire.parse_request_head(data))
        except WireError as error:
            outcomes.append((str(error), error.status))
    assert outcomes[0] == outcomes[1]


def test_curl_can_speak_it() -> None:
    data = head(
        f"GET /nearfetch/1/content/{CONTENT}/bytes HTTP/1.1",
        "range:bytes=0-99 ",
        "User-Agent: curl/7.88.1",
        "Accept: */*",
    )
    assert wire.parse_request_head(data).request == BytesRequest(CONTENT, ByteRange(0, 100))


@pytest.mark.parametrize(
    "value",
    ["bytes=0-1,2-3", "bytes=0-1,0-1,0-1", "bytes=" + ",".join(f"{n}-{n}" for n in range(1000)), "bytes=5-4"],
)
def test_ranges_that_cannot_be_satisfied(value: str) -> None:
    assert refused(head(f"GET {wire.bytes_target(CONTENT)} HTTP/1.1", f"Range: {value}")) == 416


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes=",
        "bytes=-5",
        "bytes=5-",
        "bytes=a-b",
        "bytes= 0-1",
        "bytes=0 -1",
        "bytes=+0-1",
        "items=0-1",
        "0-1",
        "bytes=0-99999999999999999",
        "bytes=\xb2-\xb3",
        "bytes=\u0660-\u0661".encode().decode("latin-1"),
        "bytes=0-1;",
    ],
)
def test_ranges_that_are_none(value: str) -> None:
    assert refused(head(f"GET {wire.bytes_target(CONTENT)} HTTP/1.1", f"Range: {value}")) == 400


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../" * 8,
        "%2e%2e%2f",
        CONTENT[:-1],
        CONTENT + "0",
        CONTENT.upper(),
        "g" * 64,
        CONTENT + "/",
        CONTENT + "/../x",
        CONTENT + "/bytes/",
        CONTENT + "%00",
        "\u00e9" * 64,
        "\uff11".encode().decode("latin-1") * 64,
    ],
)
def test_tricks_in_the_id_are_refused_by_pattern(name: str) -> None:
    assert refused(head(f"GET /nearfetch/1/content/{name} HTTP/1.1")) == 400


@pytest.mark.parametrize(
    "target", ["/", "/etc/passwd", "/nearfetch/2/hello", "/nearfetch/1/", "http://x/nearfetch/1/hello", "*"]
)
def test_other_places_do_not_exist(target: str) -> None:
    assert refused(head(f"GET {target} HTTP/1.1")) == 404


HELLO = f"GET {wire.hello_target()} HTTP/1.1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        f"{HELLO}\r\n\r\n".encode(),  # no Host
        head(HELLO.replace("1.1", "1.0")),
        head(HELLO.replace("1.1", "2")),
        head(HELLO.replace(" ", "  ", 1)),
        head(HELLO.replace(" ", "\t", 1)),
        head(HELLO.replace("GET", "get")),
        head(HELLO, "A: b\rc"),
        head(HELLO, "A: b\nc"),
        head(HELLO, "A: b\0c"),
        head(HELLO, "A : b"),
        head(HELLO, " folded"),
        head(HELLO, "no colon"),
        head(HELLO, ": no name"),
        head(HELLO, "\xe4: b"),
        head(HELLO, "Host: y"),
        head(HELLO, "Content-Length: 0", "Content-Length: 0"),
        head(HELLO, "Content-Length: 1"),
        head(HELLO, "Content-Length: -0"),
        head(HELLO, "Transfer-Encoding: chunked"),
        head(HELLO, "Nearfetch-Port: 0"),
        head(HELLO, "Nearfetch-Port: 65536"),
        head(HELLO, "Nearfetch-Port: x"),
        head(HELLO, *(f"A{n}: b" for n in range(wire.HEADERS_LIMIT))),
        head(HELLO, "A: " + "b" * wire.HEAD_LIMIT),
        head(HELLO) + b"x",
        head(f"GET {wire.bytes_target(CONTENT)} HTTP/1.1"),  # no Range
    ],
)
def test_malformed_requests(data: bytes) -> None:
    assert refused(data) == 400


def test_other_methods() -> None:
    assert refused(head(HELLO.replace("GET", "POST"))) == 405


def test_a_caller_may_ask_to_close() -> None:
    assert not wire.parse_request_head(head(HELLO, "Connection: close")).keep_alive


def test_a_range_response_is_read_back() -> None:
    data = wire.format_range_head(ByteRange(10, 30), 1000, "v")
    parsed = wire.parse_response_head(data)
    assert (parsed.status, parsed.length, parsed.keep_alive) == (206, 20, True)
    assert parsed.content_range == wire.ContentRange(ByteRange(10, 30), 1000)
    assert parsed.headers["nearfetch-vouchers"] == "v"


def test_busy_says_when_to_come_back() -> None:
    parsed = wire.parse_response_head(wire.format_response(503, headers=[("Retry-After", "7")]))
    assert (parsed.status, parsed.retry_after_s) == (503, 7.0)
    far = wire.parse_response_head(wire.format_response(503, headers=[("Retry-After", "9999999")]))
    assert far.retry_after_s == wire.MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: ٣\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 206 x\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/*\r\n\r\n",
        b"HTTP/1.1 206 x\r\nContent-Length: 3\r\nContent-Range: bytes 2-1/9\r\n\r\n",
        b"HTTP/1.1 206 x\r\nContent-Length: 3\r\nContent-Range: bytes 0-9/9\r\n\r\n",
    ],
)
def test_malformed_responses(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_response_head(data)


def test_documents_are_read_back() -> None:
    hello = wire.Hello(peer_id=MEMBER, name="böx", version="1.0")
    assert wire.parse_hello(wire.format_document(hello)) == hello
    offer = wire.offer_of(LAYOUT, bitfield([0, 3]), bitfield([1]))
    read = wire.parse_offer(wire.format_document(offer))
    assert (read.layout, read.have_chunks, read.claimed_chunks) == (LAYOUT, bitfield([0, 3]), bitfield([1]))
    assert not read.wants
    told = wire.offer_of(LAYOUT, bitfield([0, 3]), bitfield([1]), wants=True)
    assert told == msgspec.structs.replace(offer, wants=True)
    assert wire.parse_offer(wire.format_document(told)) == told


def test_an_offer_of_an_older_agent_is_read() -> None:
    read = wire.parse_offer(b'{"length":10,"chunk_bytes":262144,"have":"AQ==","claimed":"AA==","version":7}')
    assert (read.have_chunks, read.wants) == (1, False)


@pytest.mark.parametrize(
    ("wait_s", "expected"), [(None, wire.USUAL_WAIT_S), (1, 1), (wire.MAX_WAIT_S, wire.MAX_WAIT_S)]
)
@pytest.mark.parametrize("count", [1, 8])
def test_questions_for_news(wait_s: int | None, expected: int, count: int) -> None:
    ids = tuple(ContentId(f"{number:064x}") for number in range(count))
    head = wire.parse_request_head(wire.format_request(wire.news_target(ids), 7, wait_s=wait_s))
    assert (head.request, head.port) == (wire.NewsRequest(ids, expected), 7)
    more = (*ids, CONTENT) if count == 8 else ids
    assert wire.news_target(more) == wire.news_target(ids), "not more than may be asked for"


@pytest.mark.parametrize("wait", ["0", "31", "-1", "1.5", "1e1", "x", "", "٣", "9" * 17])
def test_impossible_waits(wait: str) -> None:
    text = f"GET {wire.news_target([CONTENT])} HTTP/1.1\r\nHost: a\r\nNearfetch-Wait: {wait}\r\n\r\n"
    with pytest.raises(WireError) as error:
        wire.parse_request_head(text.encode())
    assert error.value.status == 400


def distrusts(*numbers: int, lied: bool = True) -> tuple[wire.Distrust, ...]:
    return tuple(wire.Distrust(PeerId(f"{number:064x}"), lied) for number in numbers)


@pytest.mark.parametrize("count", [0, 1, 8])
@pytest.mark.parametrize(
    ("target", "wait_s"), [(wire.news_target([CONTENT]), 9), (wire.offer_target(CONTENT), None)]
)
def test_questions_name_whom_the_asker_distrusts(target: str, wait_s: int | None, count: int) -> None:
    named = distrusts(*range(count - 1)) + distrusts(*range(99, 99 + min(count, 1)), lied=False)
    data = wire.format_request(target, 7, wait_s=wait_s, distrusts=named)
    request = wire.parse_request_head(data).request
    assert isinstance(request, wire.OfferRequest | wire.NewsRequest)
    assert request.distrusts == named
    assert request.distrusted == frozenset(item.peer_id for item in named)
    assert request.denounced == tuple(item.peer_id for item in named if item.lied)


def test_no_more_are_named_than_may_be() -> None:
    request = wire.parse_request_head(
        wire.format_request(wire.offer_target(CONTENT), distrusts=distrusts(*range(9)))
    )
    assert request.request == wire.OfferRequest(CONTENT, distrusts=distrusts(*range(8)))


ONE = f"{1:064x}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        ONE[1:],
        ONE + "0",
        ONE.replace("0", "G"),
        "A" + ONE[1:],
        "٣" + ONE[1:],
        f"{ONE};",
        f"{ONE};Lied",
        f"{ONE};lied;lied",
        f"{ONE},{'2' * 64}",
        f"{ONE},  {'2' * 64}",
        f"{ONE}, ",
        f", {ONE}",
        f"{ONE}, {ONE}",
        f"{ONE}, {ONE};lied",
        ", ".join(f"{number:064x}" for number in range(9)),
    ],
)
@pytest.mark.parametrize("target", [wire.news_target([CONTENT]), wire.offer_target(CONTENT)])
def test_impossible_distrust(target: str, value: str) -> None:
    assert refused(f"GET {target} HTTP/1.1\r\nHost: a\r\nNearfetch-Distrusts: {value}\r\n\r\n".encode()) == 400


@pytest.mark.parametrize(
    "query",
    ["", "?", "?of", "?of=", "?of=" + "a" * 63, f"?of={CONTENT},", f"?of={CONTENT},{CONTENT}", f"?of={CONTENT}&x"],
)
def test_impossible_questions(query: str) -> None:
    with pytest.raises(WireError) as error:
        wire.parse_request_head(f"GET /nearfetch/1/news{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert error.value.status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"length":-1,"chunk_bytes":262144,"have":"","claimed":""}',
        b'{"length":10,"chunk_bytes":3,"have":"AA==","claimed":"AA=="}',
        b'{"length":10,"chunk_bytes":262144,"have":"Ag==","claimed":"AA=="}',  # chunk 1 of 1
        b'{"length":10,"chunk_bytes":262144,"have":"AAAA","claimed":"AA=="}',
        b'{"length":1e99,"chunk_bytes":262144,"have":"","claimed":""}',
        b'{"length":1125899906842624,"chunk_bytes":1,"have":"AA==","claimed":"AA=="}',
        b'{"length":10,"chunk_bytes":262144,"have":"!","claimed":"AA=="}',
        b'{"length":10,"chunk_bytes":262144,"have":"AA==","claimed":"AA==","wants":1}',
        b" " * (wire.DOCUMENT_LIMIT + 1),
    ],
)
def test_impossible_offers(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse_offer(data)


@pytest.mark.parametrize(
    "change", [{"peer_id": "x"}, {"name": "n" * 129}, {"name": "a\nb"}, {"version": "\x1b[2J"}]
)
def test_impossible_hellos(change: dict[str, str]) -> None:
    data = msgspec.json.encode({"peer_id": MEMBER, "name": "n", "version": "v", "protocol": 1} | change)
    with pytest.raises(WireError):
        wire.parse_hello(data)


def voucher(chunk: int) -> Voucher:
    return Voucher(
        content_id=CONTENT,
        chunk=ChunkIndex(chunk),
        digest=bytes([chunk % 256]) * 32,
        signer=MEMBER,
        signature=b"\xff" * 64,
    )


def test_vouchers_are_read_back_and_fit_a_head() -> None:
    vouchers = tuple(
        voucher(chunk) for chunk in range(1_000_000_000, 1_000_000_000 + voucherwire.VOUCHERS_A_REQUEST)
    )
    text = voucherwire.format_vouchers(vouchers)
    assert voucherwire.parse_vouchers(text, CONTENT) == vouchers
    assert len(wire.format_range_head(ByteRange(0, 10**15), 10**15, text)) < wire.HEAD_LIMIT
    assert voucherwire.parse_vouchers("", CONTENT) == ()
    with pytest.raises(WireError):
        voucherwire.parse_vouchers(voucherwire.format_vouchers((*vouchers, voucher(1))), CONTENT)


@pytest.mark.parametrize(
    "break_it",
    [lambda text: text + ",", lambda text: text[:-1], lambda text: "x" + text, lambda text: text.replace(";", ",")],
)
def test_broken_vouchers(break_it: object) -> None:
    assert callable(break_it)
    with pytest.raises(WireError):
        voucherwire.parse_vouchers(break_it(voucherwire.format_vouchers([voucher(1)])), CONTENT)


PIECES = st.sampled_from(
    [
        b"GET ",
        wire.bytes_target(CONTENT).encode(),
        b" HTTP/1.1",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host: a\r\n",
        b"Range: bytes=",
        b"0-",
        b"9" * 17,
        b"Content-Length: ",
        b"HTTP/1.1 206 x\r\n",
        b"Content-Range: bytes 0-0/1\r\n",
        b"\0",
        b"\xff",
        b": ",
        b"Retry-After: 9\r\n",
        b"Nearfetch-Vouchers: ",
        b"Content-Length: 1\r\n",
        b"Nearfetch-Port: 1\r\n",
        b"Nearfetch-Wait: 1\r\n",
        b"Nearfetch-Distrusts: ",
        b"c" * 64,
        b";lied",
        wire.news_target([CONTENT]).encode(),
    ]
)
SOUP = st.lists(PIECES | st.binary(max_size=20), max_size=14).map(b"".join)


@given(SOUP | st.binary(max_size=400))
@example(b"HTTP/1.1 206 x\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/1\r\n\r\n")
def test_parsers_raise_nothing_but_wire_errors(data: bytes) -> None:
    for parse in (wire.parse_request_head, wire.parse_response_head, wire.parse_hello, wire.parse_offer):
        with contextlib.suppress(WireError):
            parse(data)
    text = data.decode("latin-1")
    with contextlib.suppress(WireError):
        voucherwire.parse_vouchers(text, CONTENT)
    for parse_text in (wire.parse_range, wire.parse_content_range):
        with contextlib.suppress(WireError):
            parse_text(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "length": JSON,
            "chunk_bytes": JSON,
            "have": JSON,
            "claimed": JSON,
            "wants": JSON,
            "version": JSON,
            "peer_id": JSON,
            "name": JSON,
        },
    )
)
def test_documents_of_any_shape_raise_nothing_but_wire_errors(document: dict[str, object]) -> None:
    try:
        data = msgspec.json.encode(document)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError):
        return
    for parse in (wire.parse_hello, wire.parse_offer):
        with contextlib.suppress(WireError):
            parse(data)


@given(st.integers(0, 40 * 262_144), st.data())
def test_offers_of_any_layout_are_read_back(length: int, data: st.DataObject) -> None:
    layout = ChunkLayout(length=length, chunk_bytes=262_144)
    have, claimed = (Bitfield(data.draw(st.integers(0, layout.everything))) for _ in range(2))
    read = wire.parse_offer(wire.format_document(wire.offer_of(layout, have, claimed)))
    assert (read.have_chunks, read.claimed_chunks) == (have, claimed)
