"""Proxies: which one, what it is told and what not, and what its refusals mean."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from yarl import URL

from agent.addresses import AddressClass
from agent.core.facts import Sharing
from agent.origin import OriginClient, OriginSettings
from agent.origin_options import (
    PLAIN,
    Credential,
    CredentialScheme,
    CredentialTarget,
    OriginOptions,
    Proxy,
    ProxyUsage,
)
from agent.origin_proxy import Route, bypassed, route
from peer.core.failure import Failure, FailureKind, Persistence
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import IMPATIENT, described, facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from tests.support.origin_proxy import ForwardProxy
from tests.support.origin_tls import Authority
from validation.ranges import ByteRange

BIG = random.Random(5).randbytes(3_000_000)
SMALL = BIG[:100_000]
NAME = "origin.test"
SERVER = Credential(target=CredentialTarget.SERVER, scheme=CredentialScheme.BASIC, user="s", password="canary1")
FOR_PROXY = Credential(target=CredentialTarget.PROXY, scheme=CredentialScheme.BASIC, user="p", password="canary2")
SERVER_SHOWN, PROXY_SHOWN = "Basic czpjYW5hcnkx", "Basic cDpjYW5hcnky"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def proxy() -> AsyncIterator[ForwardProxy]:
    async with ForwardProxy() as running:
        yield running


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/big", BIG)
        running.add("/small", SMALL)
        yield running


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[Origin]:
    async with Origin(tls=authority.issue("proxied", names=(NAME,))) as running:
        running.add("/big", BIG)
        running.add("/small", SMALL)
        yield running


@pytest.fixture
async def client(authority: Authority) -> AsyncIterator[OriginClient]:
    settings = OriginSettings(ca_file=authority.ca_file, limits=IMPATIENT, answer_timeout_s=5, connect_timeout_s=5)
    async with origin_client(settings) as running:
        yield running


def through(proxy: ForwardProxy | str, *credentials: Credential, bypass: tuple[str, ...] = ()) -> OriginOptions:
    url = proxy if isinstance(proxy, str) else proxy.url
    return OriginOptions(proxy=Proxy(usage=ProxyUsage.OVERRIDE, url=url, bypass=bypass), credentials=credentials)


def is_failure(outcome: object, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome
    assert "canary" not in repr(outcome)
    return outcome


# --- a proxy that the job names -------------------------------------------------------------------------------


async def test_plain_http_goes_as_an_absolute_url(
    origin: Origin, client: OriginClient, proxy: ForwardProxy
) -> None:
    options = through(proxy, SERVER, FOR_PROXY)
    url = origin.url("/small?x=%2F", host=NAME)
    facts = await facts_of(client, url, options)
    outcome, sink = await fetch(client, url, facts, ByteRange(10, 900), options=options)
    assert outcome == Fetched(item=ByteRange(10, 900))
    assert sink.holds(SMALL, ByteRange(10, 900))
    assert [(entry.method, entry.target) for entry in proxy.log] == [("HEAD", url), ("GET", url)]
    for asked in proxy.log:
        assert asked.headers["proxy-authorization"] == PROXY_SHOWN
        assert asked.headers["host"] == f"{NAME}:{origin.port}"
    assert [entry.headers["authorization"] for entry in origin.log] == [SERVER_SHOWN] * 2
    assert facts.sharing is Sharing.CREDENTIALS


@pytest.mark.parametrize("path", ["/big", "/small"])
async def test_https_goes_through_a_tunnel(
    secure: Origin, client: OriginClient, proxy: ForwardProxy, path: str
) -> None:
    """Both ways of the body; the tunnel serves again; the server sees nothing of the proxy's credentials."""
    content = BIG if path == "/big" else SMALL
    options = through(proxy, SERVER, FOR_PROXY)
    url = secure.url(path, host=NAME)
    facts = await facts_of(client, url, options)
    for _ in range(2):
        outcome, sink = await fetch(client, url, facts, options=options)
        assert outcome == Fetched(item=ByteRange(0, len(content)))
        assert sink.holds(content, ByteRange(0, len(content)))
    assert [(entry.method, entry.target) for entry in proxy.log] == [("CONNECT", f"{NAME}:{secure.port}")]
    assert proxy.log[0].headers["proxy-authorization"] == PROXY_SHOWN
    assert "authorization" not in proxy.log[0].headers
    assert proxy.log[0].headers["user-agent"].startswith("nearfetch/")
    assert not any("proxy-authorization" in entry.headers for entry in secure.log)
    assert secure.accepted == 1


async def test_cancelling_closes_the_tunnel(secure: Origin, client: OriginClient, proxy: ForwardProxy) -> None:
    secure.add("/slow", BIG, faults=["drip:count=20000"])
    options, url = through(proxy), secure.url("/slow", host=NAME)
    facts = await facts_of(client, url, options)
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(fetch(client, url, facts, options=options))
        await secure.wait_for(lambda: secure.sent("/slow") > 4_000)
        fetching.cancel()
    await secure.wait_for(lambda: secure.connections == 0, timeout_s=3)


async def test_the_certificate_is_the_servers(secure: Origin, client: OriginClient, proxy: ForwardProxy) -> None:
    url = secure.url("/small", host="another.test")
    failure = is_failure(await client.probe(url, through(proxy)), FailureKind.TLS_CERTIFICATE)
    assert failure.message.startswith("another.test: the certificate was refused: Hostname mismatch")
    assert secure.log == []


async def test_a_job_without_its_credentials_does_not_share_its_connection(
    secure: Origin, client: OriginClient
) -> None:
    async with ForwardProxy(credentials="p:canary2") as proxy:
        url = secure.url("/small", host=NAME)
        await described(client, url, through(proxy, FOR_PROXY))
        is_failure(await client.probe(url, through(proxy)), FailureKind.AUTH_REQUIRED)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_proxy_that_wants_credentials(
    origin: Origin, secure: Origin, client: OriginClient, *, tls: bool
) -> None:
    """407: without any, and with wrong ones."""
    there = secure if tls else origin
    async with ForwardProxy(credentials="p:canary2") as proxy:
        url = there.url("/small", host=NAME)
        await described(client, url, through(proxy, FOR_PROXY))
        there.log.clear()
        wrong = Credential(
            target=CredentialTarget.PROXY, scheme=CredentialScheme.BASIC, user="q", password="canary"
        )
        for options in (through(proxy), through(proxy, wrong), through(proxy, SERVER)):
            asked = len(proxy.log)
            failure = is_failure(await client.probe(url, options), FailureKind.AUTH_REQUIRED)
            assert failure.http_status == 407
            assert "proxy" in failure.message
            assert len(proxy.log) == asked + 1
        assert there.log == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, FailureKind.FORBIDDEN),
        (502, FailureKind.HTTP_TRANSIENT),
        (504, FailureKind.HTTP_TRANSIENT),
        (503, FailureKind.BUSY),
        (404, FailureKind.PROXY_INVALID),
        (405, FailureKind.PROXY_INVALID),
        (401, FailureKind.PROXY_INVALID),
        (501, FailureKind.PROXY_INVALID),
        (302, FailureKind.PROXY_INVALID),
        (204, FailureKind.PROXY_INVALID),
    ],
)
async def test_no_tunnel(secure: Origin, client: OriginClient, status: int, kind: FailureKind) -> None:
    async with ForwardProxy(status=status) as proxy:
        failure = is_failure(await client.probe(secure.url("/small", host=NAME), through(proxy)), kind)
    assert failure.http_status == status
    assert failure.message.startswith(f"{NAME}: the proxy 127.0.0.1 ")
    assert secure.accepted == 0


async def test_a_busy_proxy_is_left_alone(secure: Origin, client: OriginClient) -> None:
    async with ForwardProxy(status=503, extra="Retry-After: 7") as proxy:
        for _ in range(2):
            outcome = await client.probe(secure.url("/small", host=NAME), through(proxy))
            failure = is_failure(outcome, FailureKind.BUSY)
            assert failure.retry_after_s is not None
            assert 6 < failure.retry_after_s <= 7
        assert len(proxy.log) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_nobody_runs(client: OriginClient, scheme: str) -> None:
    """It may be back in a moment: a laptop that left the office, a restart."""
    async with ForwardProxy() as gone:
        options = through(gone)
    failure = is_failure(await client.probe(f"{scheme}://{NAME}/x", options), FailureKind.CONNECT_FAILED)
    assert failure.message == f"{NAME}: the proxy 127.0.0.1: no connection (Connection refused)"
    assert failure.persistence is Persistence.TRANSIENT


@pytest.mark.parametrize("url", ["socks5://p:1080", "https://p", "http://", "http://p/path", "http://p:x", ""])
async def test_a_proxy_that_cannot_be_used(client: OriginClient, url: str) -> None:
    failure = is_failure(await client.probe(f"http://{NAME}/x", through(url)), FailureKind.PROXY_INVALID)
    assert failure.message.startswith("the URL of the job's proxy ")
    assert failure.persistence is Persistence.FATAL


# --- who may lead where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("other.test", True),
        ("93.184.216.34", True),
        ("127.0.0.1", False),
        ("localhost", False),
        ("a.localhost.", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f.1", False),
        ("10.1.2.3", False),
        ("[::1]", False),
        ("[::ffff:127.0.0.1]", False),
        ("169.254.169.254", False),
    ],
)
async def test_a_redirect_through_a_proxy_leads_nobody_inside(
    origin: Origin, client: OriginClient, proxy: ForwardProxy, host: str, *, allowed: bool
) -> None:
    origin.add("/from", b"", faults=[Fault("redirect", value=f"http://{host}:{origin.port}/small")])
    outcome = await client.probe(origin.url("/from", host=NAME), through(proxy))
    if not allowed:
        is_failure(outcome, FailureKind.ADDRESS_REFUSED)
    else:
        assert not isinstance(outcome, Failure)
    assert len(proxy.log) == (2 if allowed else 1)


async def test_a_redirect_past_the_proxy_leads_nobody_inside(
    origin: Origin, client: OriginClient, proxy: ForwardProxy
) -> None:
    origin.add("/from", b"", faults=[Fault("redirect", value=origin.url("/small"))])
    options = through(proxy, bypass=("127.0.0.1",))
    is_failure(await client.probe(origin.url("/from", host=NAME), options), FailureKind.ADDRESS_REFUSED)


async def test_a_job_may_name_a_local_host_behind_a_proxy(
    origin: Origin, client: OriginClient, proxy: ForwardProxy
) -> None:
    await described(client, origin.url("/small"), through(proxy))
    origin.add("/from", b"", faults=[Fault("redirect", value=origin.url("/small", host="localhost"))])
    await described(client, origin.url("/from"), through(proxy))
    assert len(proxy.log) == 3
    outcome = await client.probe(f"http://169.254.169.254:{origin.port}/", through(proxy))
    is_failure(outcome, FailureKind.ADDRESS_REFUSED)
    assert len(proxy.log) == 3


async def test_the_proxys_own_address_is_judged(origin: Origin, proxy: ForwardProxy) -> None:
    settings = OriginSettings(address_exceptions=(("127.0.0.1/32", AddressClass.FORBIDDEN),))
    async with origin_client(settings) as client:
        failure = is_failure(
            await client.probe(origin.url("/small", host=NAME), through(proxy)), FailureKind.ADDRESS_REFUSED
        )
    assert "the proxy 127.0.0.1" in failure.message
    assert proxy.log == []


# --- which one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "url", "direct"),
    [
        ("origin.test", "http://origin.test/", True),
        ("ORIGIN.test", "http://Origin.Test./", True),
        ("origin.test", "http://www.origin.test/", False),
        ("origin.test:8080", "http://origin.test:8080/", True),
        ("origin.test:8080", "http://origin.test/", False),
        ("*.origin.test", "http://www.origin.test/", True),
        ("*.origin.test", "http://origin.test/", False),
        ("*origin.test", "http://myorigin.test/", True),
        ("*", "http://anything/", True),
        ("<local>", "http://intranet/", True),
        ("<local>", "http://intranet.test/", False),
        ("<local>", "http://[::1]/", False),
        ("10.0.0.1", "http://10.0.0.1/", True),
        ("10.0.0.0/8", "http://10.200.0.1/", True),
        ("10.0.0.0/8", "http://11.0.0.1/", False),
        ("10.0.0.0/8", "http://ten.test/", False),
        ("fd00::/8", "http://[fd12::1]/", True),
        ("::1", "http://[::1]:99/", True),
        ("[0:0::1]:99", "http://[::1]:99/", True),
        ("[::1]:99", "http://[::1]/", False),
    ],
)
def test_the_bypass_list(entry: str, url: str, *, direct: bool) -> None:
    proxy = Proxy(usage=ProxyUsage.OVERRIDE, url="http://p:1", bypass=("nobody.test", entry))
    assert bypassed(URL(url), proxy) is direct
    way = route(URL(url), OriginOptions(proxy=proxy))
    assert way == Route(None if direct else URL("http://p:1/"))


async def test_what_is_bypassed_is_asked_directly(
    origin: Origin, client: OriginClient, proxy: ForwardProxy
) -> None:
    await described(client, origin.url("/small"), through(proxy, FOR_PROXY, bypass=("127.0.0.0/8",)))
    assert proxy.log == []
    assert "proxy-authorization" not in origin.log[0].headers


@pytest.mark.parametrize("usage", [ProxyUsage.PRECONFIGURED, ProxyUsage.AUTODETECT])
async def test_the_environment_is_read_at_each_request(
    origin: Origin, client: OriginClient, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch, usage: ProxyUsage
) -> None:
    options, url = OriginOptions(proxy=Proxy(usage=usage)), origin.url("/small", host=NAME)
    is_failure(await client.probe(url, options), FailureKind.NAME_NOT_RESOLVED)
    monkeypatch.setenv("http_proxy", proxy.url)
    await described(client, url, options)
    assert len(proxy.log) == 1
    monkeypatch.delenv("http_proxy")
    is_failure(await client.probe(url, options), FailureKind.NAME_NOT_RESOLVED)
    assert len(proxy.log) == 1


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({"http_proxy": "http://p:1"}, "http://origin.test/", "http://p:1/"),
        ({"HTTPS_PROXY": "http://p:1/"}, "https://origin.test/", "http://p:1/"),
        ({"http_proxy": "http://p:1"}, "https://origin.test/", None),
        ({"all_proxy": "p:1"}, "https://origin.test/", "http://p:1/"),
        ({"all_proxy": "http://a:1", "http_proxy": "http://p:1"}, "http://origin.test/", "http://p:1/"),
        ({"HTTP_PROXY": "http://a:1", "http_proxy": ""}, "http://origin.test/", None),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "http://origin.test/", None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "x, origin.test"}, "http://origin.test/", None),
        ({"http_proxy": "http://p:1", "no_proxy": ".origin.test"}, "http://www.origin.test/", None),
        ({"http_proxy": "http://p:1", "no_proxy": "origin.test"}, "http://www.origin.test/", None),
        ({"http_proxy": "http://p:1", "no_proxy": "origin.test"}, "http://myorigin.test/", "http://p:1/"),
        ({"http_proxy": "http://p:1", "no_proxy": "origin.test:81"}, "http://origin.test/", "http://p:1/"),
        ({"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8,*.x"}, "http://10.9.9.9/", None),
        ({"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8,,nonsense/99"}, "http://11.9.9.9/", "http://p:1/"),
        ({"http_proxy": "http://p:1"}, "http://127.0.0.1/", None),
        ({"http_proxy": "http://p:1"}, "http://[::1]/", None),
        ({"http_proxy": "http://p:1"}, "http://app.localhost/", None),
    ],
)
def test_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert route(URL(url), PLAIN) == Route(None if expected is None else URL(expected))
    none = OriginOptions(proxy=Proxy(usage=ProxyUsage.NONE))
    assert route(URL(url), none) == Route()


def test_credentials_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's own come before them."""
    monkeypatch.setenv("http_proxy", "http://e:canary2@p:1")
    way = route(URL("http://origin.test/"), PLAIN)
    assert way == Route(URL("http://p:1/"), "Basic ZTpjYW5hcnky")
    assert "canary" not in repr(way)
    assert "ZTpj" not in repr(way)
    own = route(URL("http://origin.test/"), OriginOptions(credentials=(FOR_PROXY,)))
    assert own == Route(URL("http://p:1/"), PROXY_SHOWN)


async def test_an_environment_that_cannot_be_used(client: OriginClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5h://user:canary@p:1080")
    failure = is_failure(await client.probe(f"http://{NAME}/"), FailureKind.PROXY_INVALID)
    assert failure.message.startswith("the URL of the environment's proxy does not begin with http://")


async def test_limits_hold_through_a_tunnel_too(secure: Origin, client: OriginClient, tmp_path: Path) -> None:
    """A proxy that takes the request and says nothing."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server, origin_client(OriginSettings(connect_timeout_s=0.5, answer_timeout_s=0.5)) as short:
        options = through(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for url, kind in [
            ("https://h.test/", FailureKind.CONNECT_TIMEOUT),
            ("http://h.test/", FailureKind.STALLED),
        ]:
            is_failure(await short.probe(url, options), kind)
