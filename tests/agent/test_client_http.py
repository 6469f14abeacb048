"""Requests and answers of the control interface against a real socket, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import client_http
from agent.client_http import BrokenOffError, Pieces, Request, Unchunker, Wire, error_of
from agent.errors import (
    CODES,
    AgentError,
    AgentUnavailableError,
    DestinationError,
    ExitCode,
    LimitError,
    NotFoundError,
    StateError,
    UsageError,
)
from agent.schema import Cleared, NewJob
from tests.support.wire import (
    STREAM_HEAD,
    Seen,
    WireAgent,
    chunk,
    closing,
    problem,
    raw,
    reply,
    silence,
    streaming,
    whole,
)

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: Chunked\r\n\r\n"
GET = Request(method="GET", target="/x")
CONTENT = b'{"records":3}'


@pytest.fixture(name="there")
async def answering(tmp_path: Path) -> AsyncIterator[WireAgent]:
    async with WireAgent(tmp_path) as there:
        yield there


@pytest.fixture(name="wire")
def speaking(there: WireAgent) -> Wire:
    return Wire(socket=there.path, timeout_s=5)


# --- chunks --------------------------------------------------------------------------------------------------

CODED = b"4\r\nnear\r\nA;name=value\r\n before fa\r\n01\r\nr\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("size", range(1, len(CODED) + 1))
def test_chunks_are_taken_off_however_they_are_cut(size: int) -> None:
    decoder = Unchunker()
    pieces = [decoder.feed(CODED[start : start + size]) for start in range(0, len(CODED), size)]
    assert b"".join(pieces) == b"near before far"
    assert decoder.ended


@pytest.mark.parametrize("length", range(len(CODED.partition(b"0\r\nT")[0]) + 3))
def test_chunks_that_are_cut_off_have_not_ended(length: int) -> None:
    decoder = Unchunker()
    assert b"near before far".startswith(decoder.feed(CODED[:length]))
    assert not decoder.ended


@pytest.mark.parametrize(
    "coded",
    [
        b"{}\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b"1_0\r\n",
        b"f" * 20 + b"\r\n",
        b"1\r\nxy\r\n",
        b"1\r\nx\n",
        b"1;" + b"a" * 2000,
    ],
)
def test_what_is_no_chunk_is_refused(coded: bytes) -> None:
    with pytest.raises(AgentError, match="not coded in chunks"):
        Unchunker().feed(coded)


# --- whole answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "coded", [whole({"records": 3}), CHUNKED + chunk(CONTENT[:5]) + chunk(CONTENT[5:]) + chunk(b"")]
)
async def test_an_answer_byte_by_byte(there: WireAgent, wire: Wire, coded: bytes) -> None:
    there.answers.append(raw(*(bytes([byte]) for byte in coded)))
    assert await wire.call(GET, Cleared) == Cleared(records=3)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (b"", BrokenOffError, "stopped"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", BrokenOffError, "in the middle"),
        (HEAD + b"Content-Length: 9\r\n\r\n{}", BrokenOffError, "in the middle"),
        (CHUNKED + chunk(CONTENT[:5]), BrokenOffError, "in the middle"),
        (CHUNKED + chunk(CONTENT), BrokenOffError, "in the middle"),
        (CHUNKED + CONTENT + b"\r\n", AgentError, "not coded in chunks"),
        (b"SSH-2.0-x\r\n", AgentError, "no nearfetch agent"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", AgentError, "no nearfetch agent"),
        (b"HTTP/1.1 2000 OK\r\n\r\n{}", AgentError, "no nearfetch agent"),
        (b"\x16\x03\x01\x02\x00", AgentError, "no nearfetch agent"),
        (HEAD + b"Content-Length: 2\r\n\r\n{}", AgentError, "cannot be understood"),
        (HEAD + b"Content-Length: 2\r\n\r\n{]", AgentError, "cannot be understood"),
        (HEAD + b"Content-Length: 2\r\n\r\n\xff\xff", AgentError, "cannot be understood"),
        (b"HTTP/1.1 404 No\r\n\r\n<html>", AgentError, r"status 404\) cannot be understood"),
    ],
)
async def test_answers_that_are_none(
    there: WireAgent, wire: Wire, answer: bytes, kind: type[AgentError], said: str
) -> None:
    there.answers.append(raw(answer))
    with pytest.raises(kind, match=said) as caught:
        await wire.call(GET, Cleared)
    assert type(caught.value) is kind


async def test_an_answer_without_a_length_ends_with_the_connection(there: WireAgent, wire: Wire) -> None:
    there.answers.append(raw(HEAD + b"\r\n" + CONTENT))
    assert await wire.fetch(GET) == CONTENT


async def test_an_endless_answer_is_refused(there: WireAgent, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_http, "MAX_ANSWER_BYTES", 1_000_000)

    async def pour(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        while not seen.gone.is_set():
            writer.write(bytes(65536))
            await writer.drain()

    there.answers.append(pour)
    with pytest.raises(AgentError, match="longer than 1000000 bytes"):
        await wire.fetch(GET)
    await there.seen[0].left()


async def test_a_large_answer_comes_whole(there: WireAgent, wire: Wire) -> None:
    there.answers.append(reply({"records": 3, "more": "x" * 5_000_000}))
    assert len(await wire.fetch(GET)) > 5_000_000


async def test_nobody_answers_in_time(there: WireAgent) -> None:
    there.answers.append(silence)
    with pytest.raises(AgentUnavailableError, match=r"within 0\.1 s") as caught:
        await Wire(socket=there.path, timeout_s=0.1).fetch(GET)
    assert not isinstance(caught.value, BrokenOffError)
    await there.seen[0].left()


async def test_an_answer_that_trickles_has_no_longer(there: WireAgent) -> None:
    async def trickle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"\r\n")
        while not seen.gone.is_set():
            writer.write(b" ")
            await asyncio.sleep(0.01)

    there.answers.append(trickle)
    with pytest.raises(AgentUnavailableError, match=r"within 0\.2 s"):
        await Wire(socket=there.path, timeout_s=5).fetch(GET, timeout_s=0.2)


async def test_a_connection_that_is_reset(there: WireAgent, wire: Wire) -> None:
    """Unread bytes at close: the kernel says ECONNRESET and not the end."""
    there.answers.append(closing)
    with pytest.raises(BrokenOffError):
        await wire.fetch(Request(method="POST", target="/x", body=NewJob(name="x" * 1_000_000)))


async def test_a_problem_is_raised_as_itself(there: WireAgent, wire: Wire) -> None:
    there.answers.append(problem("RECORD_NOT_FOUND", "no record ff", 404, "policy"))
    with pytest.raises(NotFoundError, match="no record ff") as caught:
        await wire.fetch(GET)
    assert (caught.value.code, caught.value.context) == ("RECORD_NOT_FOUND", "policy")


# --- streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_a_stream_comes_as_it_is_sent(there: WireAgent, wire: Wire, size: int) -> None:
    coded = STREAM_HEAD + chunk(b"near ") + chunk(b"before far")
    pieces = [coded[start : start + size] for start in range(0, len(coded), size)]
    there.answers.append(raw(*pieces))
    content = b""
    with contextlib.closing(await wire.open(GET)) as stream:
        assert stream.content_type == b"text/event-stream"
        while len(content) < len(b"near before far"):
            content += await stream.read()
        with pytest.raises(BrokenOffError, match="stopped"):
            await _rest(stream)
    assert content == b"near before far"


async def _rest(stream: Pieces) -> None:
    while True:
        assert await stream.read() == b""


async def test_a_stream_that_is_ended_in_order_is_over_too(there: WireAgent, wire: Wire) -> None:
    there.answers.append(streaming(b"x", b""))
    with contextlib.closing(await wire.open(GET)) as stream:
        assert await stream.read() == b"x"
        with pytest.raises(BrokenOffError, match="ended its answer"):
            await stream.read()


async def test_leaving_a_stream_closes_it(there: WireAgent, wire: Wire) -> None:
    there.answers.append(streaming(b"x"))
    with contextlib.closing(await wire.open(GET)) as stream:
        assert await stream.read() == b"x"
        assert not there.seen[0].gone.is_set()
    await there.seen[0].left()


async def test_silence_ends_a_stream(there: WireAgent, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_http, "SILENCE_S", 0.1)
    there.answers.append(streaming(b"x"))
    with contextlib.closing(await wire.open(GET)) as stream:
        assert await stream.read() == b"x"
        with pytest.raises(BrokenOffError, match="fell silent"):
            await stream.read()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (problem("JOB_NOT_FOUND", "no job ff", 404), NotFoundError, "no job ff"),
        (raw(b""), BrokenOffError, "stopped"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-"), BrokenOffError, "in the middle"),
        (raw(b"SSH-2.0-x\r\n"), AgentError, "no nearfetch agent"),
        (raw(HEAD + b"X: " + b"x" * 70_000), AgentError, "no nearfetch agent"),
    ],
)
async def test_a_stream_that_is_refused(
    there: WireAgent, wire: Wire, answer: object, kind: type[AgentError], said: str
) -> None:
    there.answers.append(answer)  # type: ignore[arg-type]
    with pytest.raises(kind, match=said):
        await wire.open(GET)


async def test_a_stream_that_does_not_begin(there: WireAgent) -> None:
    there.answers.append(silence)
    with pytest.raises(AgentUnavailableError, match=r"within 0\.1 s"):
        await Wire(socket=there.path, timeout_s=0.1).open(GET)
    await there.seen[0].left()


# --- connections ---------------------------------------------------------------------------------------------


async def test_no_agent(tmp_path: Path) -> None:
    wire = Wire(socket=tmp_path / "agent.sock", timeout_s=5)
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        await wire.fetch(GET)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(wire.socket))
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        await wire.fetch(GET)


async def test_a_directory_that_others_may_write_to(there: WireAgent, wire: Wire, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AgentUnavailableError, match="nobody else can write"):
        await wire.fetch(GET)
    assert there.seen == []


async def test_more_callers_than_the_queue_holds(tmp_path: Path) -> None:
    """Linux refuses with EAGAIN then; asyncio alone would take that for a connection."""
    there = WireAgent(tmp_path)
    there.answers.append(reply({"records": 3}))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(there.path))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first, pytest.raises(BlockingIOError):  # noqa: PT012
            first.setblocking(False)
            first.connect(str(there.path))
            with socket.socket(socket.AF_UNIX) as second:
                second.setblocking(False)
                second.connect(str(there.path))
        with pytest.raises(AgentUnavailableError, match=r"did not answer within 0\.2 s"):
            await Wire(socket=there.path, timeout_s=0.2).fetch(GET)
        server = await asyncio.start_unix_server(there._serve, sock=listener)
        results = await asyncio.gather(*(Wire(socket=there.path, timeout_s=5).fetch(GET) for _ in range(50)))
        server.close()
    assert set(results) == {b'{"records": 3}'}


# --- requests ------------------------------------------------------------------------------------------------


def test_a_request_on_the_wire() -> None:
    request = Request(method="POST", target="/jobs", body=Cleared(records=3), headers=(("Idempotency-Key", "k!"),))
    assert request.encode() == (
        b"POST /v1/jobs HTTP/1.1\r\nHost: nearfetch\r\nConnection: close\r\nIdempotency-Key: k!\r\n"
        b'Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{"records":3}'
    )


@pytest.mark.parametrize("value", ["", "a b", "a\r\nX: y", "a\n", "é", "\udcff"])
def test_no_header_can_end_its_line(value: str) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        Request(method="POST", target="/jobs", headers=(("Idempotency-Key", value),)).encode()


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        Request(method="POST", target="/jobs", body=NewJob(name="\udcff")).encode()


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*CODES, "OF_A_NEWER_AGENT"])
def test_every_code_keeps_itself(code: str) -> None:
    error = error_of(code, "one sentence", "policy")
    assert (error.code, str(error), error.context) == (code, "one sentence", "policy")
    assert error.exit_code is (CODES[code].exit_code if code in CODES else ExitCode.UNEXPECTED)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("STRING_TOO_LONG", UsageError),
        ("INVALID_RANGE", UsageError),
        ("TOO_MANY_FILES", LimitError),
        ("IDEMPOTENCY_CONFLICT", LimitError),
        ("NOTIFY_COMMANDS_OFF", LimitError),
        ("PEER_NOT_FOUND", NotFoundError),
        ("DELIVERY_NOT_FOUND", NotFoundError),
        ("NO_GROUP", StateError),
        ("DISK_FULL", DestinationError),
        ("PERMISSION_DENIED", DestinationError),
        ("AGENT_UNAVAILABLE", AgentUnavailableError),
        ("STALLED", AgentError),
        ("OF_A_NEWER_AGENT", AgentError),
    ],
)
def test_codes_have_their_classes(code: str, kind: type[AgentError]) -> None:
    assert type(error_of(code, "", "")) is kind


def test_the_class_of_each_error_knows_its_own_code() -> None:
    """What the agent raises comes back as the same class."""
    kinds = [kind for kind in _below(AgentError) if kind.__module__ == "agent.errors" and kind.code != "UNEXPECTED"]
    assert len(kinds) > 7
    for kind in kinds:
        assert type(error_of(kind.code, "", "")) is kind


def _below(kind: type[AgentError]) -> list[type[AgentError]]:
    return [found for child in kind.__subclasses__() for found in (child, *_below(child))]
