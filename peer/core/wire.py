"""The peer protocol: what goes over the wire, as bytes and as values.

HTTP/1.1 (RFC 9110, RFC 9112) in a strict subset, spoken inside mutual TLS 1.3: GET only, no request bodies, every
response with Content-Length (streams: chunked), no header twice, one range a request. curl with a client
certificate can speak it.

    GET /nearfetch/1/hello                     200 Hello
    GET /nearfetch/1/content/{id}              200 Offer | 404
    GET /nearfetch/1/news?of={id},...          200, a stream of what changes (newswire.py), silent for at most
                                               Nearfetch-Wait seconds
                                               Both: Nearfetch-Distrusts, whose word counts nothing to who asks
    GET /nearfetch/1/content/{id}/bytes        206 + Nearfetch-Vouchers | 400 | 404 | 416 | 503 + Retry-After
    GET /nearfetch/1/certificates/{peer id}    200 DER | 404

Every parser here raises `WireError` and nothing else, whatever it is given. Never knows: sockets, files, who asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, TypeVar

import msgspec

from peer.core.voucher import PeerId
from validation.content import Bitfield, ChunkLayout, ContentId, decode_bitfield, encode_bitfield
from validation.ranges import ByteRange

PROTOCOL = 1
HEAD_LIMIT = 16 * 1024
"""Bytes of a request or response head, the empty line included."""
HEADERS_LIMIT = 64
DOCUMENT_LIMIT = 1024 * 1024
"""Bytes of a JSON document or certificate (reliability 3.2, 61)."""
CHUNKS_A_REQUEST = 16
MAX_RETRY_AFTER_S = 86_400.0
DISTRUSTS_A_REQUEST = 8
CONTENTS_A_STREAM = 8
"""Ids under which one content is asked for."""
MAX_WAIT_S = 30
"""Seconds of silence in a stream: shorter than what routers and firewalls take for a dead connection."""
USUAL_WAIT_S = 20

_PREFIX = "/nearfetch/1/"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    416: "Range Not Satisfiable",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 §5.6.2
_VALUE = rb"[\t\x20-\x7e\x80-\xff]"  # no CR, LF, NUL or other control
_FIELDS = rb"((?:%b++:%b*+\r\n)*+)\r\n" % (_TOKEN, _VALUE)
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,1024}) HTTP/1\.1\r\n" + _FIELDS)
_USUAL_REQUEST = re.compile(
    rb"GET /nearfetch/1/content/([0-9a-f]{64})/bytes HTTP/1\.1\r\nHost: nearfetch\r\n"
    rb"Range: bytes=([0-9]{1,16})-([0-9]{1,16})\r\n(?:Nearfetch-Port: ([0-9]{1,16})\r\n)?\r\n"
)
"""Exactly what `format_request` makes for a range: read three times faster, to the same values."""

_RESPONSE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) %b{0,128}\r\n" % _VALUE + _FIELDS)
_CONTENT = re.compile(r"/nearfetch/1/content/([0-9a-f]{64})(/bytes)?", re.ASCII)
_NEWS = re.compile(r"/nearfetch/1/news\?of=([0-9a-f]{64}(?:,[0-9a-f]{64}){0,7})", re.ASCII)
_CERTIFICATE = re.compile(r"/nearfetch/1/certificates/([0-9a-f]{64})", re.ASCII)
_RANGE = re.compile(r"bytes=([0-9]{1,16})-([0-9]{1,16})", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)
_DISTRUST = re.compile(r"([0-9a-f]{64})(;lied)?", re.ASCII)

NOBODY: frozenset[PeerId] = frozenset()

T = TypeVar("T")
Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=128)]


class WireError(ValueError):
    """Bytes that are not our protocol. `status` is what a server answers; the text is one sentence."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who an agent says it is. Only the id is proven, by the certificate."""

    peer_id: Hex64
    name: Text
    version: Text
    protocol: int = PROTOCOL


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has of a content, and what it is fetching from the origin (encoded bitfields)."""

    length: int
    chunk_bytes: int
    have: bytes
    claimed: bytes
    wants: bool = False
    """It is fetching this content itself now."""

    @property
    def layout(self) -> ChunkLayout:
        """How the content is cut; `parse_offer` has checked that this works."""
        return ChunkLayout(length=self.length, chunk_bytes=self.chunk_bytes)

    @property
    def have_chunks(self) -> Bitfield:
        """Chunks that may be fetched."""
        return decode_bitfield(self.have, self.layout.count)

    @property
    def claimed_chunks(self) -> Bitfield:
        """Chunks that are on their way from the origin."""
        return decode_bitfield(self.claimed, self.layout.count)


class HelloRequest(msgspec.Struct, frozen=True):
    """Ask who you are."""


class Distrust(msgspec.Struct, frozen=True):
    """What this member signed counts nothing to who says so. `lied`: because it found it lying itself."""

    peer_id: PeerId
    lied: bool


class _Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A question about content, and whom the asker does not believe."""

    distrusts: tuple[Distrust, ...] = ()
    """What is held on the word of these alone is of no use to who asks."""

    @property
    def distrusted(self) -> frozenset[PeerId]:
        """The same, without the reason."""
        return frozenset(item.peer_id for item in self.distrusts) if self.distrusts else NOBODY

    @property
    def denounced(self) -> tuple[PeerId, ...]:
        """Whom the asker found lying."""
        return tuple(item.peer_id for item in self.distrusts if item.lied)


class OfferRequest(_Asking, frozen=True):
    """Ask what you have of a content."""

    content_id: ContentId


class NewsRequest(_Asking, frozen=True):
    """Ask to be told from now on what you have of a content: of the first of these ids under which you know it."""

    content_ids: tuple[ContentId, ...]
    wait_s: int = USUAL_WAIT_S
    """Longest silence."""


class BytesRequest(msgspec.Struct, frozen=True):
    """Ask for the bytes of one range; `stop` may lie beyond the end of the content."""

    content_id: ContentId
    item: ByteRange


class CertificateRequest(msgspec.Struct, frozen=True):
    """Ask for the certificate of a group member."""

    peer_id: PeerId


Request = HelloRequest | OfferRequest | NewsRequest | BytesRequest | CertificateRequest


class RequestHead(msgspec.Struct, frozen=True):
    """A request, parsed."""

    request: Request
    keep_alive: bool
    port: int | None
    """The caller's own listening port (`Nearfetch-Port`)."""


class ContentRange(msgspec.Struct, frozen=True):
    """Which bytes of a content of `total` bytes a 206 carries."""

    item: ByteRange
    total: int


class ResponseHead(msgspec.Struct, frozen=True):
    """A response, parsed. `length` bytes of body follow; None: a stream (chunked)."""

    status: int
    headers: dict[str, str]
    length: int | None
    keep_alive: bool
    content_range: ContentRange | None
    retry_after_s: float | None


def parse_request_head(data: bytes) -> RequestHead:
    """Read a request head, its empty line included. Raises WireError with the status to answer."""
    match = _USUAL_REQUEST.fullmatch(data)
    if match is not None:
        return _usual_request(match)
    match = _REQUEST.fullmatch(data) if len(data) <= HEAD_LIMIT else None
    if match is None:
        raise WireError("not a request head of this protocol")
    method, target, fields = match.groups()
    headers = _headers(fields)
    if "host" not in headers or "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise WireError("a request has a Host and no body")
    if method != b"GET":
        raise WireError("only GET is spoken here", 405)
    return RequestHead(
        request=_request(target.decode("ascii"), headers),
        keep_alive=_keep_alive(headers),
        port=_port(headers),
    )


def parse_response_head(data: bytes) -> ResponseHead:
    """Read a response head, its empty line included. Raises WireError."""
    match = _RESPONSE.fullmatch(data) if len(data) <= HEAD_LIMIT else None
    if match is None:
        raise WireError("not a response head of this protocol")
    headers = _headers(match[2])
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if (length is None) is (coding is None) or coding not in (None, "chunked"):
        raise WireError("a response has a Content-Length, or is chunked")
    if length is not None and not _NUMBER.fullmatch(length):
        raise WireError("an impossible Content-Length")
    if headers.get("content-encoding", "identity") != "identity":
        raise WireError("peers do not compress")
    retry_after = headers.get("retry-after", "")
    ranged = headers.get("content-range")
    return ResponseHead(
        status=int(match[1]),
        headers=headers,
        length=None if length is None else int(length),
        keep_alive=_keep_alive(headers),
        content_range=None if ranged is None else parse_content_range(ranged),
        retry_after_s=min(float(retry_after), MAX_RETRY_AFTER_S) if _NUMBER.fullmatch(retry_after) else None,
    )


def parse_range(value: str) -> ByteRange:
    """Read `bytes=a-b`: one range, both ends, ASCII digits (HTTP's inclusive ends end here). Raises WireError."""
    match = _RANGE.fullmatch(value)
    if match is None:
        raise WireError("exactly one range with both ends is served", 416 if "," in value else 400)
    return _byte_range(int(match[1]), int(match[2]))


def parse_content_range(value: str) -> ContentRange:
    """Read `bytes a-b/total`. Raises WireError."""
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise WireError("not a Content-Range")
    first, last, total = int(match[1]), int(match[2]), int(match[3])
    if not first <= last < total:
        raise WireError("a Content-Range outside its content")
    return ContentRange(ByteRange(first, last + 1), total)


def format_request(
    target: str,
    port: int | None = None,
    item: ByteRange | None = None,
    wait_s: int | None = None,
    distrusts: Sequence[Distrust] = (),
) -> bytes:
    """A request head for `target` (from `hello_target` and its sisters); `wait_s` goes with a `news_target`, the
    first eight `distrusts` with an `offer_target` too."""
    lines = [f"GET {target} HTTP/1.1", "Host: nearfetch"]
    if item is not None:
        lines.append(f"Range: bytes={item.start}-{item.stop - 1}")
    if port is not None:
        lines.append(f"Nearfetch-Port: {port}")
    if wait_s is not None:
        lines.append(f"Nearfetch-Wait: {wait_s}")
    if distrusts:
        named = (item.peer_id + (";lied" if item.lied else "") for item in distrusts[:DISTRUSTS_A_REQUEST])
        lines.append(f"Nearfetch-Distrusts: {', '.join(named)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def format_response(status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole response: head and `body`."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body


def format_range_head(item: ByteRange, total: int, vouchers: str) -> bytes:
    """The head of a 206 for `item` of a content of `total` bytes; `vouchers`: see `peer.core.voucherwire`."""
    said = f"Nearfetch-Vouchers: {vouchers}\r\n" if vouchers else ""
    return (
        "HTTP/1.1 206 Partial Content\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: bytes {item.start}-{item.stop - 1}/{total}\r\n"
        f"Content-Length: {item.length}\r\n{said}\r\n"
    ).encode("ascii")


def hello_target() -> str:
    """Where an agent says who it is."""
    return _PREFIX + "hello"


def offer_target(content_id: ContentId) -> str:
    """Where an agent says what it has of a content."""
    return f"{_PREFIX}content/{content_id}"


def news_target(content_ids: Sequence[ContentId]) -> str:
    """Where an agent tells what changes of a content, known by the first of one to eight ids."""
    return f"{_PREFIX}news?of={','.join(content_ids[:CONTENTS_A_STREAM])}"


def bytes_target(content_id: ContentId) -> str:
    """Where the bytes of a content are."""
    return f"{_PREFIX}content/{content_id}/bytes"


def certificate_target(peer_id: PeerId) -> str:
    """Where a member's certificate is."""
    return f"{_PREFIX}certificates/{peer_id}"


def offer_of(layout: ChunkLayout, have: Bitfield, claimed: Bitfield, *, wants: bool = False) -> Offer:
    """The offer that says this."""
    return Offer(
        length=layout.length,
        chunk_bytes=layout.chunk_bytes,
        have=encode_bitfield(have, layout.count),
        claimed=encode_bitfield(claimed, layout.count),
        wants=wants,
    )


def format_document(document: Hello | Offer) -> bytes:
    """A document as JSON; bitfields in base64."""
    return msgspec.json.encode(document)


def parse_hello(data: bytes) -> Hello:
    """Read a Hello. Raises WireError."""
    hello = _parse(_decode_hello, data)
    if not (hello.name.isprintable() and hello.version.isprintable()):
        raise WireError("a Hello with unprintable text")
    return hello


def parse_offer(data: bytes) -> Offer:
    """Read an Offer whose layout is possible and whose bitfields fit it. Raises WireError."""
    return check_offer(_parse(_decode_offer, data))


def check_offer(offer: Offer) -> Offer:
    """The same offer. Raises WireError when its layout is impossible, or its bitfields do not fit it."""
    try:
        _ = offer.have_chunks, offer.claimed_chunks
    except ValueError as error:
        raise WireError(f"an impossible offer: {error}") from error
    return offer


def _usual_request(match: re.Match[bytes]) -> RequestHead:
    content_id, first, last, port = match.groups()
    item = _byte_range(int(first), int(last))
    return RequestHead(
        BytesRequest(ContentId(content_id.decode("ascii")), item),
        True,
        None if port is None else _checked_port(int(port)),
    )


def _byte_range(first: int, last: int) -> ByteRange:
    if last < first:
        raise WireError("the range ends before it starts", 416)
    return ByteRange(first, last + 1)


def _checked_port(port: int) -> int:
    if not 1 <= port <= 65_535:
        raise WireError("not a port")
    return port


def _headers(fields: bytes) -> dict[str, str]:
    lines = fields.decode("latin-1").split("\r\n")
    lines.pop()
    if len(lines) > HEADERS_LIMIT:
        raise WireError("too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    if len(headers) != len(lines):
        raise WireError("a header that comes twice")
    return headers


def _keep_alive(headers: dict[str, str]) -> bool:
    return "close" not in headers.get("connection", "").lower()


def _port(headers: dict[str, str]) -> int | None:
    value = headers.get("nearfetch-port")
    if value is None:
        return None
    return _checked_port(int(value) if _NUMBER.fullmatch(value) else 0)


def _wait_s(headers: dict[str, str]) -> int:
    value = headers.get("nearfetch-wait", str(USUAL_WAIT_S))
    seconds = int(value) if _NUMBER.fullmatch(value) else 0
    if not 1 <= seconds <= MAX_WAIT_S:
        raise WireError(f"a stream is silent for 1 to {MAX_WAIT_S} seconds")
    return seconds


def _distrusts(headers: dict[str, str]) -> tuple[Distrust, ...]:
    value = headers.get("nearfetch-distrusts")
    if value is None:
        return ()
    matches = [_DISTRUST.fullmatch(item) for item in value.split(", ", DISTRUSTS_A_REQUEST)]
    found = tuple(Distrust(PeerId(match[1]), match[2] is not None) for match in matches if match)
    if len(matches) > DISTRUSTS_A_REQUEST or len({item.peer_id for item in found}) < len(matches):
        raise WireError(f"distrust names 1 to {DISTRUSTS_A_REQUEST} members, each once")
    return found


def _request(target: str, headers: dict[str, str]) -> Request:
    match = _CONTENT.fullmatch(target)
    if match is not None:
        content_id = ContentId(match[1])
        if match[2] is None:
            return OfferRequest(content_id, distrusts=_distrusts(headers))
        if "range" not in headers:
            raise WireError("bytes are served by range only")
        return BytesRequest(content_id, parse_range(headers["range"]))
    if target == _PREFIX + "hello":
        return HelloRequest()
    match = _NEWS.fullmatch(target)
    if match is not None:
        content_ids = tuple(map(ContentId, match[1].split(",")))
        if len(set(content_ids)) < len(content_ids):
            raise WireError("a content is named once")
        return NewsRequest(content_ids, _wait_s(headers), distrusts=_distrusts(headers))
    match = _CERTIFICATE.fullmatch(target)
    if match is not None:
        return CertificateRequest(PeerId(match[1]))
    known = target.startswith((_PREFIX + "content/", _PREFIX + "certificates/", _PREFIX + "news"))
    raise WireError("no such place", 400 if known else 404)


def _parse(decode: Callable[[bytes], T], data: bytes) -> T:
    if len(data) > DOCUMENT_LIMIT:
        raise WireError("a document above the limit")
    try:
        return decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise WireError(f"not the document that was asked for: {type(error).__name__}") from error


_decode_hello = msgspec.json.Decoder(Hello).decode
_decode_offer = msgspec.json.Decoder(Offer).decode
