"""What a job may change about TLS: what is checked less or more, and the certificate that it shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.core.facts import Sharing
from agent.origin import OriginClient, OriginSettings
from agent.origin_options import ClientCertificate, OriginOptions, RedirectPolicy, SecurityFlag
from agent.origin_tls import REMEMBERED, TlsContexts
from peer.core.failure import Failure, FailureKind, Persistence
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import described, facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from tests.support.origin_tls import Authority, ServerCertificate
from validation.ranges import ByteRange

SMALL = bytes(range(256)) * 40
NAME, DATE = SecurityFlag.IGNORE_NAME, SecurityFlag.IGNORE_DATE
AUTHORITY, USAGE = SecurityFlag.IGNORE_UNKNOWN_AUTHORITY, SecurityFlag.IGNORE_USAGE
REVOCATION = SecurityFlag.CHECK_REVOCATION


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "nobody knows it")


@pytest.fixture
async def client(authority: Authority) -> AsyncIterator[OriginClient]:
    async with origin_client(OriginSettings(ca_file=authority.ca_file)) as running:
        yield running


def certificate(kind: str, authority: Authority, stranger: Authority) -> ServerCertificate:
    client_auth = ExtendedKeyUsageOID.CLIENT_AUTH
    match kind.split():
        case ["good"]:
            return authority.good()
        case ["expired"]:
            return authority.expired()
        case ["named-otherwise"]:
            return authority.wrong_name()
        case ["for-clients"]:
            return authority.issue("for-clients", usage=client_auth)
        case ["unknown"]:
            return stranger.good()
        case ["unknown", "expired"]:
            return stranger.expired()
        case ["unknown", "named-otherwise"]:
            return stranger.wrong_name()
        case ["unknown", "for-clients"]:
            return stranger.issue("for-clients", usage=client_auth)
        case _:
            raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "flags", "words"),
    [
        ("good", {NAME, DATE}, None),
        ("good", {AUTHORITY}, None),
        ("expired", {NAME}, "certificate has expired"),
        ("expired", {DATE}, None),
        ("named-otherwise", {DATE}, "IP address mismatch"),
        ("named-otherwise", {NAME}, None),
        ("for-clients", {NAME, DATE}, "unsuitable certificate purpose"),
        ("unknown", {NAME, DATE}, "unable to get local issuer certificate"),
        ("unknown", {AUTHORITY}, None),
        ("unknown expired", {AUTHORITY}, "certificate has expired"),
        ("unknown expired", {AUTHORITY, DATE}, None),
        ("unknown named-otherwise", {AUTHORITY}, "Hostname mismatch, certificate is not valid for '127.0.0.1'"),
        ("unknown named-otherwise", {AUTHORITY, NAME}, None),
        ("unknown for-clients", {AUTHORITY}, "unsuitable certificate purpose"),
        ("unknown for-clients", {AUTHORITY, USAGE}, None),
        ("unknown for-clients", {AUTHORITY, NAME, DATE}, "unsuitable certificate purpose"),
    ],
)
async def test_each_flag_ignores_one_thing(
    authority: Authority,
    stranger: Authority,
    client: OriginClient,
    kind: str,
    flags: set[SecurityFlag],
    words: str | None,
) -> None:
    options = OriginOptions(security=frozenset(flags), headers=(("Authorization", "Bearer canary"),))
    async with Origin(tls=certificate(kind, authority, stranger)) as origin:
        origin.add("/x", SMALL)
        outcome = await client.probe(origin.url("/x"), options)
        if words is None:
            assert not isinstance(outcome, Failure), outcome
            return
        assert origin.log == [], "not a byte of the request went out"
    assert isinstance(outcome, Failure), outcome
    assert (outcome.kind, outcome.persistence) == (FailureKind.TLS_CERTIFICATE, Persistence.FATAL)
    assert outcome.message.startswith("127.0.0.1: the certificate was refused: ")
    assert words in outcome.message


@pytest.mark.parametrize(
    ("names", "host", "fits"),
    [
        (("localhost",), "localhost", True),
        (("LOCALHOST",), "localhost", True),
        (("*.localhost",), "localhost", False),
        (("*",), "localhost", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("127.0.0.2",), "127.0.0.1", False),
        (("*.0.0.1",), "127.0.0.1", False),
        (("*.hosts.test",), "a.hosts.test", True),
        (("*.hosts.test",), "a.b.hosts.test", False),
        (("a*.hosts.test",), "ab.hosts.test", False),
        (("*.test",), "hosts.test", False),
    ],
)
async def test_names_are_compared_without_an_authority(
    stranger: Authority,
    client: OriginClient,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    host: str,
    *,
    fits: bool,
) -> None:
    resolve_to_loopback(monkeypatch)
    options = OriginOptions(security=frozenset({AUTHORITY}))
    async with Origin(tls=stranger.issue("named", names=names)) as origin:
        origin.add("/x", SMALL)
        outcome = await client.probe(origin.url("/x", host=host), options)
    if fits:
        assert not isinstance(outcome, Failure), outcome
    else:
        assert isinstance(outcome, Failure), outcome
        assert outcome.kind is FailureKind.TLS_CERTIFICATE, outcome


def resolve_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def answer(host: object, *args: object, **kwargs: object) -> object:
        return real("127.0.0.1" if str(host).endswith(".test") else host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


async def test_what_one_job_ignores_another_does_not(stranger: Authority, client: OriginClient) -> None:
    """Neither by a context that is shared nor by a connection that is still open."""
    async with Origin(tls=stranger.good()) as origin:
        origin.add("/x", SMALL)
        await described(client, origin.url("/x"), OriginOptions(security=frozenset({AUTHORITY})))
        assert isinstance(await client.probe(origin.url("/x")), Failure)
        assert len(origin.log) == 1


async def test_a_whole_file_without_an_authority(stranger: Authority, client: OriginClient) -> None:
    content = SMALL * 300
    options = OriginOptions(security=frozenset({AUTHORITY}))
    async with Origin(tls=stranger.good()) as origin:
        origin.add("/x", content)
        facts = await facts_of(client, origin.url("/x"), options)
        for _ in range(2):
            outcome, sink = await fetch(client, origin.url("/x"), facts, options=options)
            assert outcome == Fetched(item=ByteRange(0, len(content)))
            assert sink.holds(content, ByteRange(0, len(content)))
        assert origin.accepted == 1


@pytest.mark.parametrize(
    ("revoked", "listed", "words"),
    [
        (False, True, None),
        (True, True, "certificate revoked"),
        (False, False, "unable to get certificate CRL"),
    ],
)
async def test_revocation(tmp_path: Path, *, revoked: bool, listed: bool, words: str | None) -> None:
    authority = Authority(tmp_path)
    shown = authority.good()
    file = authority.with_revocations(*((shown,) if revoked else ())) if listed else authority.ca_file
    async with Origin(tls=shown) as origin, origin_client(OriginSettings(ca_file=file)) as client:
        origin.add("/x", SMALL)
        await described(client, origin.url("/x"))
        origin.log.clear()
        outcome = await client.probe(origin.url("/x"), OriginOptions(security=frozenset({REVOCATION})))
        if words is None:
            assert not isinstance(outcome, Failure)
            return
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.TLS_CERTIFICATE
        assert words in outcome.message
        assert origin.log == []


# --- the client's certificate ---------------------------------------------------------------------------------


def showing(shown: ServerCertificate, *, together: bool = False) -> OriginOptions:
    if together:
        both = shown.certificate_file.with_suffix(".both")
        both.write_bytes(shown.certificate_file.read_bytes() + shown.key_file.read_bytes())
        return OriginOptions(client_certificate=ClientCertificate(certificate_file=both))
    return OriginOptions(
        client_certificate=ClientCertificate(certificate_file=shown.certificate_file, key_file=shown.key_file)
    )


@pytest.mark.parametrize("together", [False, True])
async def test_a_client_certificate(authority: Authority, client: OriginClient, *, together: bool) -> None:
    options = showing(authority.client(), together=together)
    async with Origin(tls=authority.good(), client_ca=authority.ca_file) as origin:
        origin.add("/x", SMALL)
        facts = await facts_of(client, origin.url("/x"), options)
        assert facts.sharing is Sharing.CREDENTIALS
        outcome, sink = await fetch(client, origin.url("/x"), facts, options=options)
        assert isinstance(outcome, Fetched)
        assert sink.holds(SMALL, ByteRange(0, len(SMALL)))


async def test_none_or_a_wrong_client_certificate(
    authority: Authority, stranger: Authority, client: OriginClient
) -> None:
    async with Origin(tls=authority.good(), client_ca=authority.ca_file) as origin:
        origin.add("/x", SMALL)
        for options in (OriginOptions(), showing(stranger.client())):
            outcome = await client.probe(origin.url("/x"), options)
            assert isinstance(outcome, Failure)
            assert outcome.kind in (FailureKind.TLS_CERTIFICATE, FailureKind.CONNECTION_CLOSED), outcome
            assert origin.log == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_says_why_it_closes(
    authority: Authority, stranger: Authority, client: OriginClient, version: ssl.TLSVersion
) -> None:
    """By an alert, which asyncio's own server does not send: that is fatal and not a lost connection."""
    context = authority.good().context(authority.ca_file)
    context.minimum_version = context.maximum_version = version

    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                refuse(listener.accept()[0])

    def refuse(plain: socket.socket) -> None:
        plain.settimeout(5)
        with socket.socket(fileno=os.dup(plain.fileno())) as below:
            below.settimeout(5)
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_side=True)
            with contextlib.suppress(ConnectionResetError):
                while below.recv(65536):  # an RST of ours would overtake the alert
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/x"
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(serve, listener))
            outcome = await client.probe(url, showing(stranger.client()))
            over.set()
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TLS_CERTIFICATE
    assert outcome.message == "127.0.0.1: it asks for a client certificate that it accepts"


async def test_a_client_certificate_stays_with_its_origin(authority: Authority, client: OriginClient) -> None:
    """The other origin would take it too."""
    async with (
        Origin(tls=authority.good(), client_ca=authority.ca_file) as origin,
        Origin(tls=authority.good(), client_ca=authority.ca_file) as other,
    ):
        other.add("/x", SMALL)
        origin.add("/from", b"", faults=[Fault("redirect", value=other.url("/x"))])
        origin.add("/within", b"", faults=[Fault("redirect", value="/x")])
        origin.add("/x", SMALL)
        options = showing(authority.client())
        await described(client, other.url("/x"), options)
        other.log.clear()
        assert isinstance(await client.probe(origin.url("/from"), options), Failure)
        assert other.log == [], "without a certificate it lets nobody in"
        await described(client, origin.url("/within"), options)


async def test_a_renewed_certificate_is_read_again(
    authority: Authority, stranger: Authority, client: OriginClient, tmp_path: Path
) -> None:
    """The files' names stay, as with every tool that renews."""
    shown = ServerCertificate(tmp_path / "c.crt", tmp_path / "c.key")

    def put(source: ServerCertificate) -> None:
        for old, new in zip(
            (source.certificate_file, source.key_file), (shown.certificate_file, shown.key_file), strict=True
        ):
            fresh = new.with_suffix(".new")
            fresh.write_bytes(old.read_bytes())
            fresh.replace(new)

    put(stranger.client("renewed"))
    async with Origin(tls=authority.good(), client_ca=authority.ca_file) as origin:
        origin.add("/x", SMALL)
        assert isinstance(await client.probe(origin.url("/x"), showing(shown)), Failure)
        put(authority.client("renewed"))
        await described(client, origin.url("/x"), showing(shown))


@pytest.mark.parametrize("what", ["missing", "empty", "other key", "locked key"])
async def test_a_certificate_that_cannot_be_used(
    authority: Authority, client: OriginClient, tmp_path: Path, what: str
) -> None:
    """One sentence, no question at the terminal for a password, and nobody is asked."""
    good, file = authority.client("usable"), tmp_path / "c.pem"
    key = authority.client("other").key_file if what == "other key" else good.key_file
    if what == "empty":
        file.write_bytes(b"")
    elif what != "missing":
        file.write_bytes(good.certificate_file.read_bytes())
    if what == "locked key":
        locked = tmp_path / "locked.key"
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        locked.write_bytes(
            loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"canary"),
            )
        )
        key = locked
    async with Origin(tls=authority.good()) as origin:
        outcome = await client.probe(origin.url("/x"), showing(ServerCertificate(file, key)))
        assert origin.accepted == 0
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TLS_CERTIFICATE
    assert outcome.message.startswith("the client certificate cannot be used (")
    assert str(tmp_path) not in outcome.message


# --- contexts are kept ----------------------------------------------------------------------------------------


async def test_contexts_are_made_once(authority: Authority) -> None:
    contexts = TlsContexts(authority.ca_file)
    flags = frozenset({NAME})
    plain = await contexts.get(frozenset(), None)
    named = await contexts.get(flags, None)
    assert plain is await contexts.get(frozenset(), None)
    assert named is await contexts.get(flags, None)
    assert plain is not named


async def test_the_memory_of_contexts_is_bounded(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none.pem").write_bytes(b"")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    contexts = TlsContexts(authority.ca_file)
    shown = authority.client("many")
    first = await contexts.get(frozenset({DATE}), None)
    for number in range(REMEMBERED):
        file = tmp_path / f"{number}.crt"
        file.write_bytes(shown.certificate_file.read_bytes())
        one = ClientCertificate(certificate_file=file, key_file=shown.key_file)
        assert not isinstance(await contexts.get(frozenset(), one), Failure)
    assert await contexts.get(frozenset({DATE}), None) is not first


# --- down to plain HTTP ---------------------------------------------------------------------------------------


async def test_https_to_http_by_permission(authority: Authority, client: OriginClient) -> None:
    """Without the secrets: another scheme is another origin."""
    headers = (("Authorization", "Bearer canary"),)
    async with Origin(tls=authority.good()) as origin, Origin() as plain:
        plain.add("/x", SMALL)
        origin.add("/down", b"", faults=[Fault("redirect", value=plain.url("/x"))])
        await described(client, origin.url("/down"), OriginOptions(headers=headers, allow_https_to_http=True))
        assert origin.log[0].headers["authorization"] == "Bearer canary"
        assert "authorization" not in plain.log[0].headers
        forbidden = OriginOptions(allow_https_to_http=True, redirects=RedirectPolicy.DISALLOW)
        outcome = await client.probe(origin.url("/down"), forbidden)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.REDIRECT_REFUSED
