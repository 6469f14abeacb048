"""Redirects over real sockets: followed or refused, what goes along, and who may lead where.

127.0.0.2 plays a public host (`address_exceptions`), 127.0.0.1 is a local one.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.addresses import AddressClass
from agent.core.facts import OriginFacts
from agent.origin import OriginClient, OriginSettings
from agent.origin_options import OriginOptions
from peer.core.failure import Failure, FailureKind
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from validation.ranges import ByteRange

CONTENT = bytes(range(256)) * 400
SECRETS = (
    ("Authorization", "Bearer canary"),
    ("Cookie", "session=canary"),
    ("X-Api-Key", "canary"),
    ("Accept-Language", "de"),
)
SECRETIVE = OriginOptions(headers=SECRETS)
PLAYS_PUBLIC = OriginSettings(address_exceptions=(("127.0.0.2/32", AddressClass.PUBLIC),))
needs_more_loopback = pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/target", CONTENT)
        yield running


@pytest.fixture
async def other() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/target", CONTENT)
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    async with origin_client() as running:
        yield running


def redirect(origin: Origin, path: str, to: str, status: int = 302) -> str:
    origin.add(path, b"", faults=[Fault("redirect", value=to, count=status)])
    return origin.url(path)


def is_failure(outcome: object, kind: FailureKind) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is kind, outcome
    assert "canary" not in outcome.message
    return outcome


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "to", ["/target", "target", "?x/../target", "//{authority}/target", "http://{authority}/target"]
)
async def test_a_redirect_is_followed(origin: Origin, client: OriginClient, to: str, status: int) -> None:
    """33, for HEAD and for a range."""
    if to.startswith("?"):
        to = "/./x/../target#part"
    url = redirect(origin, "/from", to.format(authority=f"127.0.0.1:{origin.port}"), status)
    facts = await facts_of(client, url)
    assert facts.length == len(CONTENT)
    outcome, sink = await fetch(client, url, facts, ByteRange(5, 500))
    assert outcome == Fetched(item=ByteRange(5, 500))
    assert sink.holds(CONTENT, ByteRange(5, 500))
    assert [entry.method for entry in origin.log] == ["HEAD", "HEAD", "GET", "GET"]
    assert "range" in origin.log[-1].headers


async def test_ten_redirects_and_no_more(origin: Origin, client: OriginClient) -> None:
    origin.add("/ten", CONTENT, faults=["redirect-chain:count=10"])
    origin.add("/eleven", CONTENT, faults=["redirect-chain:count=11"])
    await facts_of(client, origin.url("/ten"))
    is_failure(await client.probe(origin.url("/eleven")), FailureKind.TOO_MANY_REDIRECTS)


async def test_a_loop_ends(origin: Origin, client: OriginClient) -> None:
    origin.add("/loop", CONTENT, faults=["redirect-loop"])
    is_failure(await client.probe(origin.url("/loop")), FailureKind.TOO_MANY_REDIRECTS)
    assert len(origin.log) == 11


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("file:///etc/passwd", FailureKind.REDIRECT_REFUSED),
        ("ftp://127.0.0.1/canary", FailureKind.REDIRECT_REFUSED),
        ("gopher://127.0.0.1/", FailureKind.REDIRECT_REFUSED),
        ("javascript:alert(1)", FailureKind.REDIRECT_REFUSED),
        ("http://h:99999/", FailureKind.BAD_RESPONSE),
        ("http://[::1/", FailureKind.BAD_RESPONSE),
        ("http://a b/", FailureKind.BAD_RESPONSE),
        ("http://127.0.0.1\\@x/", FailureKind.BAD_RESPONSE),
        ("", FailureKind.BAD_RESPONSE),
    ],
)
async def test_other_protocols_and_nonsense(
    origin: Origin, client: OriginClient, to: str, kind: FailureKind
) -> None:
    """35"""
    is_failure(await client.probe(redirect(origin, "/from", to)), kind)
    assert len(origin.log) == 1 or kind is FailureKind.BAD_RESPONSE


async def test_secrets_stay_with_their_origin(origin: Origin, other: Origin, client: OriginClient) -> None:
    """34: another port is another origin. Harmless headers and our own go along."""
    url = redirect(origin, "/from", other.url("/target"))
    await facts_of(client, url, SECRETIVE)
    first, second = origin.log[0].headers, other.log[0].headers
    assert all(first[name.lower()] == value for name, value in SECRETS)
    assert "canary" not in str(second)
    assert second["accept-language"] == "de"
    assert second["user-agent"].startswith("nearfetch/")


async def test_secrets_are_not_given_back_on_the_way(origin: Origin, other: Origin, client: OriginClient) -> None:
    """A -> B -> A: what was dropped stays dropped; B may have chosen the path on A."""
    there = redirect(other, "/back", origin.url("/target"))
    url = redirect(origin, "/from", there)
    await facts_of(client, url, SECRETIVE)
    assert [entry.path for entry in origin.log] == ["/from", "/target"]
    assert "canary" not in str(origin.log[1].headers)


async def test_secrets_go_along_within_an_origin(origin: Origin, client: OriginClient) -> None:
    await facts_of(client, redirect(origin, "/from", "/target"), SECRETIVE)
    assert origin.log[1].headers["authorization"] == "Bearer canary"


async def test_another_name_for_the_same_address_is_another_origin(origin: Origin, client: OriginClient) -> None:
    url = redirect(origin, "/from", origin.url("/target", host="localhost"))
    await facts_of(client, url, SECRETIVE)
    assert "canary" not in str(origin.log[1].headers)


async def test_user_information_does_not_cross(origin: Origin, other: Origin, client: OriginClient) -> None:
    url = redirect(origin, "/from", other.url("/target").replace("http://", "http://spy:canary@"))
    await facts_of(client, url.replace("http://", "http://me:canary@"))
    assert "authorization" in origin.log[0].headers
    assert "authorization" not in other.log[0].headers


async def test_cookies_are_not_kept(origin: Origin, client: OriginClient) -> None:
    """51"""
    origin.add("/set", CONTENT, faults=["header:value=Set-Cookie: a=canary"])
    await facts_of(client, origin.url("/set"))
    await facts_of(client, origin.url("/target"))
    assert "cookie" not in origin.log[1].headers


async def test_the_environment_names_no_proxy(
    origin: Origin, client: OriginClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    await facts_of(client, origin.url("/target"))


# --- who may lead where ---------------------------------------------------------------------------------------


async def test_local_to_local_is_allowed(origin: Origin, other: Origin, client: OriginClient) -> None:
    await facts_of(client, redirect(origin, "/from", other.url("/target")))


@needs_more_loopback
async def test_public_to_local_is_refused_without_a_connection(origin: Origin) -> None:
    """37, for a literal address and for a name."""
    async with Origin(host="127.0.0.2") as public, origin_client(PLAYS_PUBLIC) as client:
        for host in (None, "localhost"):
            url = redirect(public, "/from", origin.url("/target", host=host))
            failure = is_failure(await client.probe(url), FailureKind.ADDRESS_REFUSED)
            assert "not allowed" in failure.message
            outcome, _ = await fetch(client, url, OriginFacts(length=len(CONTENT)))
            is_failure(outcome, FailureKind.ADDRESS_REFUSED)
        assert origin.accepted == 0


@needs_more_loopback
async def test_public_to_public_is_allowed_and_stays_public(origin: Origin) -> None:
    async with Origin(host="127.0.0.2") as public, origin_client(PLAYS_PUBLIC) as client:
        public.add("/target", CONTENT)
        await facts_of(client, redirect(public, "/from", public.url("/target")))
        inside = redirect(public, "/second", origin.url("/target"))
        is_failure(await client.probe(redirect(public, "/first", inside)), FailureKind.ADDRESS_REFUSED)
        assert origin.accepted == 0


@needs_more_loopback
async def test_local_to_public_to_local_is_refused(origin: Origin) -> None:
    async with Origin(host="127.0.0.2") as public, origin_client(PLAYS_PUBLIC) as client:
        there = redirect(public, "/there", origin.url("/target"))
        is_failure(await client.probe(redirect(origin, "/from", there)), FailureKind.ADDRESS_REFUSED)
        assert [entry.path for entry in origin.log] == ["/from"]


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
        "[::ffff:169.254.1.1]",
    ],
)
async def test_forbidden_for_everybody(origin: Origin, client: OriginClient, host: str) -> None:
    url = f"http://{host}:{origin.port}/target"
    is_failure(await client.probe(url), FailureKind.ADDRESS_REFUSED)
    is_failure(await client.probe(redirect(origin, "/from", url)), FailureKind.ADDRESS_REFUSED)
    assert [entry.path for entry in origin.log] == ["/from"]


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1"])
async def test_odd_spellings_of_an_address(origin: Origin, client: OriginClient, host: str) -> None:
    outcome = await client.probe(f"http://{host}:{origin.port}/target")
    assert isinstance(outcome, Failure)
    assert origin.accepted == 0


class Names:
    """Stands in for the DNS: what `getaddrinfo` answers for one name, which a test may change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
        self.addresses = addresses
        real = socket.getaddrinfo

        def answer(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != name:
                return real(host, port, *args, **kwargs)
            if not self.addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, (address, port)) for address in self.addresses]

        monkeypatch.setattr(socket, "getaddrinfo", answer)


async def test_a_job_may_name_a_local_host(
    origin: Origin, client: OriginClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, "intranet.test", "127.0.0.1")
    await facts_of(client, origin.url("/target", host="intranet.test"))


@needs_more_loopback
async def test_a_name_that_was_public_cannot_become_local(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """52: the second answer of the DNS leads inside."""
    names = Names(monkeypatch, "rebound.test", "127.0.0.2")
    async with Origin(host="127.0.0.2") as public, origin_client(PLAYS_PUBLIC) as client:
        public.add("/target", CONTENT)
        await facts_of(client, public.url("/target", host="rebound.test"))
        names.addresses = ("127.0.0.1",)
        url = origin.url("/target", host="rebound.test")
        is_failure(await client.probe(url), FailureKind.ADDRESS_REFUSED)
        assert origin.accepted == 0


@needs_more_loopback
async def test_an_answer_with_both_kinds_is_public(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, "both.test", "127.0.0.1", "127.0.0.2")
    async with origin_client(PLAYS_PUBLIC) as client:
        # Nothing listens on 127.0.0.2 at this port; the local listener is not asked in its place.
        is_failure(await client.probe(origin.url("/target", host="both.test")), FailureKind.CONNECT_FAILED)
    assert origin.accepted == 0


async def test_a_name_that_does_not_resolve(client: OriginClient, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, "nowhere.test")
    failure = is_failure(await client.probe("http://nowhere.test/x"), FailureKind.NAME_NOT_RESOLVED)
    assert failure.message == "nowhere.test: the name cannot be resolved"


async def test_a_port_that_nobody_listens_on(client: OriginClient) -> None:
    async with Origin() as gone:
        url = gone.url("/x")
    failure = is_failure(await client.probe(url), FailureKind.CONNECT_FAILED)
    assert failure.message == "127.0.0.1: no connection (Connection refused)"


async def test_a_connection_that_is_never_accepted() -> None:
    """45: a full backlog drops the handshake; the attempt is bounded."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        try:
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                fillers.append(filler)
            async with origin_client(OriginSettings(connect_timeout_s=0.5, answer_timeout_s=0.5)) as client:
                outcome = await client.probe(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        finally:
            for filler in fillers:
                filler.close()
    assert isinstance(outcome, Failure)
    assert outcome.kind in (FailureKind.CONNECT_TIMEOUT, FailureKind.STALLED)
