"""What a job may ask for, and how it is told what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import UsageError
from agent.origin_options import (
    PLAIN,
    ClientCertificate,
    Credential,
    CredentialScheme,
    CredentialTarget,
    OriginOptions,
    Proxy,
    ProxyUsage,
    SecurityFlag,
    check_options,
)

SERVER, PROXY = CredentialTarget.SERVER, CredentialTarget.PROXY
BASIC, DIGEST, BEARER = CredentialScheme.BASIC, CredentialScheme.DIGEST, CredentialScheme.BEARER


def shown(
    target: CredentialTarget, scheme: CredentialScheme, user: str = "u", password: str = "p"
) -> OriginOptions:
    return OriginOptions(credentials=(Credential(target=target, scheme=scheme, user=user, password=password),))


def named(url: str | None, *bypass: str, usage: ProxyUsage = ProxyUsage.OVERRIDE) -> OriginOptions:
    return OriginOptions(proxy=Proxy(usage=usage, url=url, bypass=bypass))


def flags(*security: SecurityFlag) -> OriginOptions:
    return OriginOptions(security=frozenset(security))


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        OriginOptions(headers=(("X-Key", "a\tb \u00e4"), ("Cookie", "a=b"), ("Authorization", "Bearer x"))),
        OriginOptions(method="POST"),
        OriginOptions(method="M-SEARCH"),
        shown(SERVER, BASIC, "Jörg", "pa:ss"),
        shown(SERVER, DIGEST),
        shown(SERVER, BEARER, "", "abc.DEF-_~+/=="),
        shown(PROXY, BASIC),
        shown(SERVER, BASIC, "u" * 300, "p" * 65_536),
        named("http://proxy:3128"),
        named("http://[::1]:3128/", "<local>", "*.x.test", "*", "10.0.0.0/8", "host:81", "[::1]:80"),
        named(None, usage=ProxyUsage.NONE),
        flags(SecurityFlag.IGNORE_USAGE, SecurityFlag.IGNORE_UNKNOWN_AUTHORITY),
        OriginOptions(client_certificate=ClientCertificate(certificate_file=Path("/etc/c.pem"))),
    ],
)
def test_what_can_be_asked_for(options: OriginOptions) -> None:
    check_options(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (OriginOptions(headers=(("X Key", "a"),)), "cannot be the name of a header"),
        (OriginOptions(headers=(("", "a"),)), "cannot be the name of a header"),
        (OriginOptions(headers=(("X", "a\r\nY: b"),)), "line break"),
        (OriginOptions(headers=(("X", "a\0"),)), "control character"),
        (OriginOptions(headers=(("X", "\udcff"),)), "control character"),
        (OriginOptions(headers=(("rAnge", "bytes=0-1"),)), "belongs to the agent"),
        (OriginOptions(headers=(("Host", "h"),)), "belongs to the agent"),
        (OriginOptions(headers=(("Proxy-Authorization", "canary"),)), "credentials for the proxy instead"),
        (OriginOptions(method="get"), "no HTTP method"),
        (OriginOptions(method="G T"), "no HTTP method"),
        (OriginOptions(method="HEAD"), "nothing can be downloaded"),
        (OriginOptions(method="CONNECT"), "nothing can be downloaded"),
        (shown(SERVER, BASIC, "a:b"), "cannot hold a colon"),
        (shown(SERVER, DIGEST, "a:b"), "cannot hold a colon"),
        (shown(SERVER, DIGEST, ""), "need a user name"),
        (shown(SERVER, BASIC, "a\nb"), "control characters"),
        (shown(SERVER, BEARER, "u", "t"), "no user name"),
        (shown(SERVER, BEARER, "", "canary canary"), "characters that no such token has"),
        (shown(PROXY, DIGEST), "basic credentials only"),
        (OriginOptions(credentials=shown(SERVER, BASIC).credentials * 2), "two basic credentials for the server"),
        (named(None), "override needs"),
        (named("http://p", usage=ProxyUsage.NONE), "only be given with override"),
        (named("socks5://p:1"), "no other kind of proxy"),
        (named("http://u:canary@p:1"), "credentials for the proxy instead"),
        (named("http://p:1/x"), "more than a host and a port"),
        (named("http://p:99999"), "cannot be understood"),
        (named("http://p:1", "a.*.b"), "can only come first"),
        (named("http://p:1", "10.0.0.0/99"), "no network"),
        (named("http://p:1", "a b"), "cannot be an entry"),
        (flags(SecurityFlag.IGNORE_USAGE), "only be had together"),
        (
            flags(SecurityFlag.CHECK_REVOCATION, SecurityFlag.IGNORE_UNKNOWN_AUTHORITY),
            "contradict each other",
        ),
        (OriginOptions(client_certificate=ClientCertificate(certificate_file=Path("c.pem"))), "absolute paths"),
    ],
)
def test_what_cannot(options: OriginOptions, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_options(options)
    assert words in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        OriginOptions(headers=(("X", "a" * 16_384),)),
        shown(SERVER, BASIC, "u" * 301),
        shown(SERVER, BASIC, "u", "p" * 65_537),
        named("http://" + "p" * 32_768),
        named("http://p", *(["host.test"] * 4000)),
    ],
)
def test_what_is_too_long(options: OriginOptions) -> None:
    with pytest.raises(UsageError) as raised:
        check_options(options)
    assert raised.value.code == "STRING_TOO_LONG"
    assert "at most" in str(raised.value)
