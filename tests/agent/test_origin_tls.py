"""The origin over TLS: bodies both ways, certificates that are refused, and never a step down."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.facts import OriginFacts
from agent.origin import OriginClient, OriginRequest, OriginSettings
from agent.origin_options import OriginOptions
from peer.core.failure import Failure, FailureKind, Persistence
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import IMPATIENT, MemorySink, facts_of, fetch, origin_client, until
from tests.support.origin_faults import Fault
from tests.support.origin_tls import Authority, ServerCertificate
from validation.ranges import ByteRange

BIG = random.Random(3).randbytes(8_000_000)
SMALL = BIG[:100_000]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def settings(authority: Authority) -> OriginSettings:
    return OriginSettings(ca_file=authority.ca_file, limits=IMPATIENT, answer_timeout_s=2.0, connect_timeout_s=5.0)


@pytest.fixture
async def origin(authority: Authority) -> AsyncIterator[Origin]:
    async with Origin(tls=authority.good()) as running:
        running.add("/big", BIG)
        running.add("/small", SMALL)
        yield running


@pytest.fixture
async def client(settings: OriginSettings) -> AsyncIterator[OriginClient]:
    async with origin_client(settings) as running:
        yield running


def is_failure(outcome: object, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome
    return outcome


@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_the_whole_content(origin: Origin, client: OriginClient, path: str) -> None:
    content = BIG if path == "/big" else SMALL
    facts = await facts_of(client, origin.url(path))
    outcome, sink = await fetch(client, origin.url(path), facts)
    assert outcome == Fetched(item=ByteRange(0, len(content)))
    assert sink.holds(content, ByteRange(0, len(content)))


async def test_random_ranges_side_by_side(origin: Origin, authority: Authority) -> None:
    rng = random.Random(11)
    settings = OriginSettings(ca_file=authority.ca_file, takeover_bytes=100_000)
    async with origin_client(settings) as client:
        facts = await facts_of(client, origin.url("/big"))

        async def one() -> None:
            start = rng.randrange(len(BIG))
            item = ByteRange(start, rng.randrange(start, min(len(BIG), start + rng.choice([10**5, 10**6]))) + 1)
            outcome, sink = await fetch(client, origin.url("/big"), facts, item)
            assert outcome == Fetched(item=item)
            assert sink.holds(BIG, item)

        for _ in range(5):
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(one())


@pytest.mark.parametrize("length", [65536, 1_500_000])
async def test_ranges_keep_their_connection(origin: Origin, client: OriginClient, length: int) -> None:
    facts = await facts_of(client, origin.url("/big"))
    for number in range(5):
        item = ByteRange(number * length, (number + 1) * length)
        outcome, sink = await fetch(client, origin.url("/big"), facts, item)
        assert isinstance(outcome, Fetched)
        assert sink.holds(BIG, item)
    assert origin.accepted == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("cut-half", FailureKind.CONNECTION_CLOSED),
        ("reset", FailureKind.CONNECTION_CLOSED),
        ("silent", FailureKind.STALLED),
        ("cut-every:count=70000", FailureKind.CONNECTION_CLOSED),
        ("chunked-cut", FailureKind.CONNECTION_CLOSED),
        ("chunked", None),
        ("no-length", None),
        ("early-hints", None),
    ],
)
@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_faults(
    origin: Origin, client: OriginClient, fault: str, kind: FailureKind | None, path: str
) -> None:
    content = BIG if path == "/big" else SMALL
    resource = origin.add(path, content)
    facts = await facts_of(client, origin.url(path))
    resource.faults = [Fault.parse(fault)]
    outcome, sink = await fetch(client, origin.url(path), facts)
    if kind is None:
        assert outcome == Fetched(item=ByteRange(0, len(content)))
    else:
        is_failure(outcome, kind)
    assert sink.holds_prefix(content)
    if fault == "cut-half":
        assert sink.reported.total == len(content) // 2


async def test_the_end_of_the_connection_right_after_the_body(origin: Origin, client: OriginClient) -> None:
    """`Connection: close`: the closing comes while the last buffers are being written."""
    resource = origin.add("/last", BIG)
    facts = await facts_of(client, origin.url("/last"))
    resource.faults = [Fault("header", value="Connection: close"), Fault("cut-every", count=len(BIG) - 1)]
    for start in (0, 1):
        outcome, sink = await fetch(client, origin.url("/last"), facts, ByteRange(start, len(BIG)))
        if start == 0:
            is_failure(outcome, FailureKind.CONNECTION_CLOSED)
            assert sink.reported.total == len(BIG) - 1
        else:
            assert isinstance(outcome, Fetched)
            assert sink.holds(BIG, ByteRange(1, len(BIG)))


async def test_cancelling_closes_the_connection(origin: Origin, client: OriginClient) -> None:
    origin.add("/slow", BIG, faults=["drip:count=20000"])
    facts = await facts_of(client, origin.url("/slow"))
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(fetch(client, origin.url("/slow"), facts))
        await origin.wait_for(lambda: origin.sent("/slow") > 4_000)
        fetching.cancel()
    assert fetching.cancelled()
    await origin.wait_for(lambda: origin.connections == 0, timeout_s=3)


async def test_cancelling_does_not_wait_for_a_silent_origin(authority: Authority, client: OriginClient) -> None:
    """A polite end of TLS would wait for the other side's, for half a minute; this one never says anything more."""
    context = authority.good().context()

    def serve(listener: socket.socket) -> str:
        plain, _ = listener.accept()
        plain.settimeout(5)
        with context.wrap_socket(plain, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(1_500_000))
            with socket.socket(fileno=os.dup(secure.fileno())) as below:
                below.settimeout(2)
                try:
                    while below.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
                except TimeoutError:
                    return "left open"
                return "closed"

    sink = MemorySink()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/x"
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(asyncio.to_thread(serve, listener))
            request = OriginRequest(url=url, item=ByteRange(0, 3_000_000), facts=OriginFacts(length=3_000_000))
            fetching = group.create_task(client.fetch(request, sink))
            await until(lambda: sink.reported.total == 1_500_000)
            fetching.cancel()
    assert serving.result() == "closed"


# --- certificates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("expired", "certificate has expired"),
        ("wrong_name", "IP address mismatch"),
        ("unknown", "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_refused(
    authority: Authority, client: OriginClient, tmp_path: Path, which: str, words: str
) -> None:
    """53: fatal, nothing asked, one sentence."""
    certificate: ServerCertificate = (
        Authority(tmp_path / "other").good() if which == "unknown" else getattr(authority, which)()
    )
    async with Origin(tls=certificate) as origin:
        origin.add("/x", SMALL)
        failure = is_failure(await client.probe(origin.url("/x?secret=1")), FailureKind.TLS_CERTIFICATE)
        assert origin.log == []
    assert words in failure.message
    assert failure.message.startswith("127.0.0.1: the certificate was refused: ")
    assert "secret" not in failure.message
    assert failure.persistence is Persistence.FATAL


async def test_the_authority_must_be_named(origin: Origin) -> None:
    async with origin_client(OriginSettings()) as client:
        is_failure(await client.probe(origin.url("/small")), FailureKind.TLS_CERTIFICATE)


async def test_ssl_cert_file_is_honoured(
    origin: Origin, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    async with origin_client(OriginSettings()) as client:
        await facts_of(client, origin.url("/small"))


async def test_an_authority_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        async with origin_client(OriginSettings(ca_file=tmp_path / "none.pem")):
            pass


async def test_no_tls_where_tls_was_asked_for(client: OriginClient) -> None:
    """Plain HTTP on the port, as nginx answers it: no TLS, no step down."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        outcome = await client.probe(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    is_failure(outcome, FailureKind.TLS_FAILED)


async def test_a_handshake_that_is_cut_off(client: OriginClient) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        outcome = await client.probe(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    is_failure(outcome, FailureKind.TLS_FAILED)


async def test_a_handshake_that_never_comes(settings: OriginSettings) -> None:
    """45: a listener that says nothing; the time for the connection includes the handshake."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    short = OriginSettings(connect_timeout_s=0.5)
    async with server, origin_client(short) as client:
        outcome = await client.probe(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    is_failure(outcome, FailureKind.CONNECT_TIMEOUT)


# --- never down ------------------------------------------------------------------------------------------------


async def test_https_to_http_is_refused(origin: Origin, client: OriginClient) -> None:
    """35"""
    async with Origin() as plain:
        plain.add("/x", SMALL)
        origin.add("/down", b"", faults=[Fault("redirect", value=plain.url("/x?token=hunter2"))])
        failure = is_failure(await client.probe(origin.url("/down?key=hunter2")), FailureKind.REDIRECT_REFUSED)
        assert plain.accepted == 0
    assert "hunter2" not in failure.message
    assert "/down" in failure.message
    assert "/x" in failure.message


async def test_http_to_https_is_followed_without_secrets(origin: Origin, client: OriginClient) -> None:
    async with Origin() as plain:
        plain.add("/up", b"", faults=[Fault("redirect", value=origin.url("/small"))])
        await facts_of(client, plain.url("/up"), OriginOptions(headers=(("Authorization", "Bearer canary"),)))
        assert "authorization" in plain.log[0].headers
    assert "authorization" not in origin.log[0].headers
