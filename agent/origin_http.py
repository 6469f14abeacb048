"""Sends one request to an origin and follows its redirects, through aiohttp.

What is done here and nowhere else: sessions (one for each address rule, without cookies, proxies, netrc or
decompression), timeouts, limits of the head, the chain of redirects, and the memory of which names are public.

Never knows: ranges, validators, bodies, retries. Sources: the installed aiohttp 3.14.5 (client.py, connector.py).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from agent.addresses import AddressClass, AddressPolicy, AddressRules, PolicyResolver, socket_factory
from agent.origin_answer import Head, check
from agent.origin_errors import failure_of_exception
from agent.redirects import REDIRECTS, Hop, next_hop
from peer.body import ORIGIN_LIMITS, BodyLimits
from peer.core.failure import Failure, FailureKind

_MAX_LINE_BYTES = 8190
_MAX_HEADERS = 128
"""What common servers themselves allow a client in a line and in a head."""


def version() -> str:
    """The installed version of nearfetch; "0" when it runs without being installed."""
    try:
        return metadata.version("nearfetch")
    except metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSettings:
    """How origins are asked."""

    connect_timeout_s: float = 10.0
    """For the name, the connection and the TLS handshake together."""
    answer_timeout_s: float = 30.0
    """From the request to the end of the head of its answer."""
    limits: BodyLimits = ORIGIN_LIMITS
    """When a body counts as stalled."""
    ca_file: Path | None = None
    """PEM file of authorities to trust beside the system's (`ssl` honours SSL_CERT_FILE for those)."""
    max_redirects: int = 10
    takeover_bytes: int = 1024 * 1024
    """Bodies of at least so many bytes are read past aiohttp (data path 2)."""
    address_exceptions: tuple[tuple[str, AddressClass], ...] = ()
    """Networks (CIDR) whose class differs from the registries': see `AddressRules`."""
    user_agent: str = field(default_factory=lambda: f"nearfetch/{version()}")


class OriginResponse(aiohttp.ClientResponse):
    """Remembers the address it came from: the connection may be back in the pool when we look."""

    address: str = ""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        self.address = str(peer[0]) if peer else ""
        return await super().start(connection)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose head passed the checks that every answer has to pass. Whoever gets it calls `hang_up`."""

    response: OriginResponse
    head: Head
    url: URL
    """Where it came from, after redirects."""

    def hang_up(self) -> None:
        """Close the connection unless the body was read to its end. At once: a polite end of TLS would wait for the
        other side. Harmless when repeated."""
        connection = self.response.connection
        transport = connection.transport if connection is not None else None
        if transport is not None:
            transport.abort()
        self.response.close()


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


_CLOSED = Failure(kind=FailureKind.ABORTED, message="the client is closed")


class Messenger:
    """Sends requests. Make it in a running loop; `close` it."""

    def __init__(self, settings: OriginSettings) -> None:
        """Raises OSError or ssl.SSLError when `ca_file` cannot be read, ValueError for a wrong network."""
        self._settings = settings
        self._tls = None if settings.ca_file is None else _tls_context(settings.ca_file)
        self._sessions: dict[AddressPolicy, aiohttp.ClientSession] = {}
        self._rules = AddressRules(settings.address_exceptions)
        self._making_tls = asyncio.Lock()
        self._closed = False

    async def close(self) -> None:
        """Close every connection; requests that are under way end with a failure. Harmless when repeated."""
        self._closed = True
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()
        await asyncio.sleep(0)  # transports tell that they are closed in the loop's next round

    async def ask(self, method: str, hop: Hop, extra: tuple[tuple[str, str], ...]) -> Answer | Failure:
        """Send the request, follow redirects, return the first other answer; its body is not read.

        `extra` headers go to every hop. At most `connect_timeout_s` and `answer_timeout_s` for each hop.
        """
        for _ in range(self._settings.max_redirects + 1):
            answer = await self._send(method, hop, extra)
            if isinstance(answer, Failure):
                return answer
            if answer.head.status not in REDIRECTS:
                return answer
            answer.hang_up()
            seen = self._rules.classify(answer.response.address)
            following = next_hop(hop, answer.head.headers.get("Location"), seen)
            if isinstance(following, Failure):
                return following
            hop = following
        message = f"{hop.url.host}: more than {self._settings.max_redirects} redirects"
        return Failure(kind=FailureKind.TOO_MANY_REDIRECTS, message=message)

    async def _send(self, method: str, hop: Hop, extra: tuple[tuple[str, str], ...]) -> Answer | Failure:
        """One request, one answer. No `await` lies between the answer's arrival and the caller."""
        if self._closed:
            return _CLOSED
        host = hop.url.host or ""
        headers = [("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", self._settings.user_agent)]
        mine = {name.lower() for name, _ in hop.headers}
        headers = [item for item in headers if item[0].lower() not in mine] + list(hop.headers) + list(extra)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + self._settings.answer_timeout_s):
                tls = await self._tls_for(hop.url)
                session = self._session(hop.policy)
                response = await session.request(method, hop.url, headers=headers, ssl=tls, allow_redirects=False)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            return failure_of_exception(error, hop.url) if self._sessions else _CLOSED
        assert isinstance(response, OriginResponse)
        answer = Answer(response, Head(host, response.status, response.headers), hop.url)
        refused = check(answer.head, response.raw_headers)
        if refused is not None:
            answer.hang_up()
            return refused
        return answer

    async def _tls_for(self, url: URL) -> ssl.SSLContext | bool:
        """The context for https, made at the first need: reading the system's authorities takes its time."""
        if url.scheme != "https":
            return True
        async with self._making_tls:
            if self._tls is None:
                self._tls = await asyncio.to_thread(_tls_context, None)
        return self._tls

    def _session(self, policy: AddressPolicy) -> aiohttp.ClientSession:
        session = self._sessions.get(policy)
        if session is None:
            session = self._sessions[policy] = self._make_session(policy)
        return session

    def _make_session(self, policy: AddressPolicy) -> aiohttp.ClientSession:
        settings = self._settings
        connector = aiohttp.TCPConnector(
            resolver=PolicyResolver(policy, self._rules),
            socket_factory=socket_factory(policy, self._rules),
            limit=0,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=OriginResponse,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=settings.connect_timeout_s,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.answer_timeout_s,
            ),
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
        )
