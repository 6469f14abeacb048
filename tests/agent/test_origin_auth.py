"""Credentials: shown where they belong, in the way that is asked for, and nowhere else."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from agent.core.facts import Sharing
from agent.origin import OriginClient
from agent.origin_auth import REMEMBERED, Authorizer, parse_challenges
from agent.origin_options import Credential, CredentialScheme, CredentialTarget, OriginOptions
from agent.redirects import Hop, Secrets
from peer.core.failure import Failure, FailureKind, Persistence
from peer.sink import Fetched
from tests.support.origin import Origin
from tests.support.origin_client import described, facts_of, fetch, origin_client
from tests.support.origin_digest import DigestGuard
from tests.support.origin_faults import Fault
from validation.ranges import ByteRange

CONTENT = bytes(range(256)) * 400


def server(scheme: CredentialScheme, user: str = "", password: str = "pa:ss canary") -> Credential:
    return Credential(target=CredentialTarget.SERVER, scheme=scheme, user=user, password=password)


BASIC = server(CredentialScheme.BASIC, "Jörg")
BEARER = server(CredentialScheme.BEARER, password="canary.token")
DIGEST = server(CredentialScheme.DIGEST, "Mufasa")
BASIC_SHOWN = "Basic SsO2cmc6cGE6c3MgY2FuYXJ5"


def wanting(*credentials: Credential, headers: tuple[tuple[str, str], ...] = ()) -> OriginOptions:
    return OriginOptions(credentials=credentials, headers=headers)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        running.add("/x", CONTENT)
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    async with origin_client() as running:
        yield running


def is_refused(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is FailureKind.AUTH_REQUIRED, outcome
    assert outcome.persistence is Persistence.FATAL
    assert "canary" not in repr(outcome)
    return outcome


# --- at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("credential", "shown"), [(BASIC, BASIC_SHOWN), (BEARER, "Bearer canary.token")])
async def test_shown_before_anybody_asks(
    origin: Origin, client: OriginClient, credential: Credential, shown: str
) -> None:
    origin.add("/x", CONTENT, faults=[Fault("auth", value=shown)])
    options = wanting(credential)
    facts = await facts_of(client, origin.url("/x"), options)
    outcome, sink = await fetch(client, origin.url("/x"), facts, ByteRange(5, 500), options=options)
    assert outcome == Fetched(item=ByteRange(5, 500))
    assert sink.holds(CONTENT, ByteRange(5, 500))
    assert [entry.status for entry in origin.log] == [200, 206]
    assert facts.sharing is Sharing.CREDENTIALS


async def test_bearer_comes_before_basic(origin: Origin, client: OriginClient) -> None:
    await described(client, origin.url("/x"), wanting(BASIC, BEARER))
    assert origin.log[0].headers["authorization"] == "Bearer canary.token"


async def test_the_jobs_own_header_comes_before_all(origin: Origin, client: OriginClient) -> None:
    own = (("authorization", "Own canary"),)
    await described(client, origin.url("/x"), wanting(BASIC, DIGEST, headers=own))
    assert origin.log[0].headers["authorization"] == "Own canary"
    origin.add("/digest", CONTENT, guard=DigestGuard("Mufasa", "pa:ss canary"))
    refused = is_refused(await client.probe(origin.url("/digest"), wanting(DIGEST, headers=own)))
    assert refused.message == "127.0.0.1: does not accept the credentials (HTTP status 401)"
    assert len(origin.requests("/digest")) == 1


async def test_the_jobs_credentials_come_before_user_information(origin: Origin, client: OriginClient) -> None:
    url = origin.url("/x").replace("http://", "http://other:canary@")
    await described(client, url, wanting(BASIC))
    assert origin.log[0].headers["authorization"] == BASIC_SHOWN


async def test_credentials_for_a_proxy_are_none_for_the_server(origin: Origin, client: OriginClient) -> None:
    proxy = Credential(target=CredentialTarget.PROXY, scheme=CredentialScheme.BASIC, user="u", password="canary")
    await described(client, origin.url("/x"), wanting(proxy))
    assert "canary" not in str(origin.log[0].headers)
    assert "authorization" not in origin.log[0].headers


async def test_nothing_to_show(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", CONTENT, faults=["auth:value=Basic abc"])
    failure = is_refused(await client.probe(origin.url("/x")))
    assert failure.message == "127.0.0.1: asks for credentials (HTTP status 401)"
    assert len(origin.log) == 1


async def test_what_is_refused_is_not_shown_again(origin: Origin, client: OriginClient) -> None:
    """38: no storm of tries that would lock an account."""
    origin.add("/x", CONTENT, faults=["auth:value=Basic abc"])
    failure = is_refused(await client.probe(origin.url("/x"), wanting(BASIC)))
    assert failure.message == "127.0.0.1: does not accept the credentials (HTTP status 401)"
    assert len(origin.log) == 1


# --- never elsewhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", [BASIC, BEARER, DIGEST], ids=lambda item: item.scheme)
@pytest.mark.parametrize("host", [None, "localhost"])
async def test_never_across_origins(
    origin: Origin, client: OriginClient, credential: Credential, host: str | None
) -> None:
    """Another port, or another name of the same address; also where that origin asks for exactly this."""
    async with Origin() as other:
        there, port = (origin, origin.port) if host else (other, other.port)
        guard = DigestGuard("Mufasa", "pa:ss canary")
        there.add("/inner", CONTENT, guard=guard)
        origin.add("/from", b"", faults=[Fault("redirect", value=f"http://{host or '127.0.0.1'}:{port}/inner")])
        is_refused(await client.probe(origin.url("/from"), wanting(credential)))
        asked = there.requests("/inner")
        assert len(asked) == 1
        assert "authorization" not in asked[0].headers


async def test_user_information_in_a_redirect_is_not_used(origin: Origin, client: OriginClient) -> None:
    to = origin.url("/x").replace("http://", "http://them:canary@")
    origin.add("/from", b"", faults=[Fault("redirect", value=to)])
    await described(client, origin.url("/from"))
    assert "authorization" not in origin.log[-1].headers


async def test_secrets_are_for_the_home_of_the_job(origin: Origin, client: OriginClient) -> None:
    """A reported redirect is asked directly from then on: what was dropped on the way stays dropped."""
    async with Origin() as other:
        other.add("/x", CONTENT)
        options = wanting(BASIC, headers=(("X-Key", "canary"), ("Accept-Language", "de")))
        facts = await facts_of(client, other.url("/x"))
        for home, secret in [(origin.url("/from"), False), (other.url("/else"), True), ("nonsense", False)]:
            outcome, _ = await fetch(client, other.url("/x"), facts, options=options, home=home)
            assert isinstance(outcome, Fetched)
            sent = other.log[-1].headers
            assert ("authorization" in sent, "x-key" in sent) == (secret, secret)
            assert sent["accept-language"] == "de"


def test_no_secret_in_what_is_shown() -> None:
    options = wanting(BASIC, BEARER, DIGEST)
    hop = Hop(url=URL("http://h/"), headers=(("X", "canary"),), secrets=Secrets(credentials=options.credentials))
    assert "canary" not in repr(options) + repr(hop) + repr(Authorizer().first(hop))
    assert "Mufasa" not in repr(options) + repr(hop)


# --- Digest ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "qop"),
    [
        (None, None),
        ("MD5", None),
        ("SHA-256", None),
        (None, "auth"),
        ("MD5", "auth"),
        ("MD5-sess", "auth"),
        ("SHA-256", "auth-int,auth"),
        ("SHA-256-sess", "auth"),
        ("SHA-512-256", "auth"),
    ],
)
async def test_digest(origin: Origin, client: OriginClient, algorithm: str | None, qop: str | None) -> None:
    guard = DigestGuard("Mufasa", "pa:ss canary", algorithm=algorithm, qop=qop)
    origin.add("/a b", CONTENT, guard=guard)
    options, url = wanting(DIGEST), origin.url("/a%20b?x=%2F")
    facts = await facts_of(client, url, options)
    assert facts.sharing is Sharing.CREDENTIALS
    for item in (ByteRange(5, 500), ByteRange(0, len(CONTENT))):
        outcome, sink = await fetch(client, url, facts, item, options=options)
        assert outcome == Fetched(item=item)
        assert sink.holds(CONTENT, item)
    assert [entry.status for entry in origin.log] == [401, 200, 206, 200], "one challenge is enough"
    assert "canary" not in str([entry.headers for entry in origin.log])


@pytest.mark.parametrize(
    "others",
    [
        ('Basic realm="x"',),
        ("Negotiate", "NTLM"),
        ("Negotiate YWJj=", 'Digest realm="x", nonce="n", algorithm=UNHEARD-OF'),
        ('Basic realm="a, Digest b", Bearer error="x"',),
        ('Digest realm="x", nonce="n", qop="auth-int", algorithm=SHA-256',),
        ('Digest realm="x", algorithm=SHA-256', "!!! ="),
    ],
)
async def test_digest_beside_others(origin: Origin, client: OriginClient, others: tuple[str, ...]) -> None:
    origin.add("/x", CONTENT, guard=DigestGuard("Mufasa", "pa:ss canary", others=others))
    await described(client, origin.url("/x"), wanting(DIGEST, BASIC))
    assert [entry.status for entry in origin.log] == [401, 200]


async def test_the_better_hash_is_chosen(origin: Origin, client: OriginClient) -> None:
    weaker = 'Digest realm="x", nonce="n", qop="auth", algorithm=MD5'
    guard = DigestGuard("Mufasa", "pa:ss canary", algorithm="SHA-256", others=(weaker,))
    origin.add("/x", CONTENT, guard=guard)
    await described(client, origin.url("/x"), wanting(DIGEST))
    assert "algorithm=SHA-256" in origin.log[-1].headers["authorization"]


@pytest.mark.parametrize(
    "challenge",
    [
        "Negotiate",
        'Basic realm="x"',
        'Digest realm="x", nonce="n", algorithm=SHA-1',
        'Digest realm="x", nonce="n", qop="auth-int"',
        'Digest realm="x", nonce="n", algorithm=MD5-sess',
        'Digest realm="x"',
        'Digest nonce="n"',
        'Digest realm="\udcff", nonce="n"',
        f'Digest realm="x", nonce="{"n" * 5000}"',
        'Digest realm="unfinished',
        "",
    ],
)
async def test_digest_that_cannot_be_answered(origin: Origin, client: OriginClient, challenge: str) -> None:
    origin.add("/x", CONTENT, faults=["status:count=401", Fault("header", value=f"WWW-Authenticate:{challenge}")])
    is_refused(await client.probe(origin.url("/x"), wanting(DIGEST)))
    assert len(origin.log) == 1


async def test_basic_waits_while_digest_may_come(origin: Origin, client: OriginClient) -> None:
    """With both, the password goes out readable only when nothing better is offered."""
    origin.add("/x", CONTENT, faults=[Fault("auth", value=BASIC_SHOWN)])
    await described(client, origin.url("/x"), wanting(BASIC, DIGEST))
    assert "authorization" not in origin.log[0].headers
    assert [entry.status for entry in origin.log] == [401, 200]


async def test_a_stale_nonce_is_renewed(origin: Origin, client: OriginClient) -> None:
    guard = DigestGuard("Mufasa", "pa:ss canary", uses=2)
    origin.add("/x", CONTENT, guard=guard)
    options = wanting(DIGEST)
    facts = await facts_of(client, origin.url("/x"), options)
    for _ in range(4):
        outcome, _ = await fetch(client, origin.url("/x"), facts, ByteRange(1, 9), options=options)
        assert isinstance(outcome, Fetched)
    assert [entry.status for entry in origin.log] == [401, 200, 206, 401, 206, 206, 401, 206]
    assert guard.renewals == 2


async def test_a_nonce_that_is_not_known_any_more(origin: Origin, client: OriginClient) -> None:
    """As after the server's restart: once more with the new one, though it does not say `stale`."""
    guard = DigestGuard("Mufasa", "pa:ss canary")
    origin.add("/x", CONTENT, guard=guard)
    await described(client, origin.url("/x"), wanting(DIGEST))
    guard.forget()
    await described(client, origin.url("/x"), wanting(DIGEST))
    assert [entry.status for entry in origin.log] == [401, 200, 401, 200]


async def test_a_wrong_password_is_tried_once(origin: Origin, client: OriginClient) -> None:
    """38, though every refusal brings a nonce that was never answered."""
    origin.add("/x", CONTENT, guard=DigestGuard("Mufasa", "another", others=('Basic realm="x"',)))
    for _ in range(2):
        failure = is_refused(await client.probe(origin.url("/x"), wanting(DIGEST, BASIC)))
        assert "does not accept the credentials" in failure.message
    assert [entry.status for entry in origin.log] == [401, 401] * 2
    assert not any(entry.headers.get("authorization", "").startswith("Basic") for entry in origin.log)


async def test_whoever_calls_everything_stale_is_left(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", CONTENT, guard=DigestGuard("Mufasa", "pa:ss canary", uses=0))
    is_refused(await client.probe(origin.url("/x"), wanting(DIGEST)))
    assert len(origin.log) == 3


async def test_digest_after_a_redirect_within_the_origin(origin: Origin, client: OriginClient) -> None:
    origin.add("/inner", CONTENT, guard=DigestGuard("Mufasa", "pa:ss canary"))
    origin.add("/from", b"", faults=[Fault("redirect", value="/inner")])
    await described(client, origin.url("/from"), wanting(DIGEST))
    assert [(entry.path, entry.status) for entry in origin.log] == [
        ("/from", 302),
        ("/inner", 401),
        ("/inner", 200),
    ]


async def test_users_do_not_share_a_session(origin: Origin, client: OriginClient) -> None:
    origin.add("/x", CONTENT, guard=DigestGuard("Mufasa", "pa:ss canary"))
    await described(client, origin.url("/x"), wanting(DIGEST))
    is_refused(await client.probe(origin.url("/x"), wanting(server(CredentialScheme.DIGEST, "Scar"))))
    await described(client, origin.url("/x"), wanting(DIGEST))
    assert [entry.status for entry in origin.log] == [401, 200, 401, 401, 200]


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_the_rfc(monkeypatch: pytest.MonkeyPatch, algorithm: str, response: str) -> None:
    """RFC 7616 §3.9.1."""
    chosen = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr(secrets, "token_hex", lambda count: chosen)
    credential = server(CredentialScheme.DIGEST, "Mufasa", "Circle of Life")
    hop = Hop(url=URL("http://www.example.org/dir/index.html"), secrets=Secrets(credentials=(credential,)))
    challenge = (
        f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    shown = Authorizer().again(hop, [challenge], None)
    assert shown is not None
    assert f'response="{response}"' in shown.value
    assert "nc=00000001" in shown.value


def test_challenges_that_nobody_can_read_end_quietly() -> None:
    odd = ["", ",,,", "=x", 'A b="', 'A "b"', "A b=c, D", "\udcff", 'A b="\\', "x" * 100_000, "a=b," * 20_000]
    found = [list(parse_challenges([text])) for text in odd]
    assert found[5] == [("a", {"b": "c"}), ("d", {})]
    assert found[0] == found[2] == found[6] == []


def test_the_memory_of_challenges_is_bounded() -> None:
    authorizer = Authorizer()
    hops = [
        Hop(url=URL(f"http://h{number}/"), secrets=Secrets(credentials=(DIGEST,)))
        for number in range(REMEMBERED + 1)
    ]
    for hop in hops:
        authorizer.again(hop, ['Digest realm="r", nonce="n", qop="auth"'], None)
    assert authorizer.first(hops[0]) is None
    assert authorizer.first(hops[-1]) is not None


async def test_a_fetch_answers_a_challenge_too(origin: Origin, client: OriginClient) -> None:
    guard = DigestGuard("Mufasa", "pa:ss canary")
    origin.add("/x", CONTENT, guard=guard)
    facts = await facts_of(client, origin.url("/x"), wanting(DIGEST))
    async with origin_client() as fresh:
        item = ByteRange(3, 9)
        outcome, sink = await fetch(
            fresh, origin.url("/x"), facts, item, options=wanting(DIGEST), home=origin.url("/y")
        )
        assert isinstance(outcome, Fetched)
        assert sink.holds(CONTENT, item)
