"""Sends one request to an origin and follows its redirects, through aiohttp.

What is done here and nowhere else: sessions (one for each address rule, without cookies, netrc or decompression),
timeouts, limits of the head, the chain of redirects, the memory of which names are public and of which hosts asked
us to stay away.

Never knows: ranges, validators, bodies, retries. Sources: the installed aiohttp 3.14.5 (client.py, connector.py):
it sends `proxy_headers` only with CONNECT, and RFC 9110 §11.7.2 wants Proxy-Authorization with plain requests too.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from agent.addresses import AddressClass, AddressPolicy, AddressRules, PolicyResolver, socket_factory
from agent.origin_answer import Head, check, failure_of_answer
from agent.origin_auth import Authorizer, refused
from agent.origin_errors import failure_of_exception
from agent.origin_holds import Holds
from agent.origin_options import Headers, OriginOptions
from agent.origin_proxy import DIRECT, Route, route
from agent.origin_tls import TlsContexts
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
    way: Route = DIRECT

    def hang_up(self) -> None:
        """Close the connection unless the body was read to its end. At once: a polite end of TLS would wait for the
        other side. Harmless when repeated."""
        connection = self.response.connection
        transport = connection.transport if connection is not None else None
        if transport is not None:
            transport.abort()
        self.response.close()


_CLOSED = Failure(kind=FailureKind.ABORTED, message="the client is closed")

_SHOWINGS = 3
"""Requests for one hop at most: one by a remembered challenge, the answer to a new one, and to a stale one."""


class _HeldError(aiohttp.ClientError):
    """Another request's answer said meanwhile that the host must not be asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Connector(aiohttp.TCPConnector):
    """Looks at the holds once more when the connection is there, right before the request goes out."""

    def __init__(self, policy: AddressPolicy, rules: AddressRules, holds: Holds) -> None:
        super().__init__(
            resolver=PolicyResolver(policy, rules), socket_factory=socket_factory(policy, rules), limit=0
        )
        self._holds = holds

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        held = self._holds.standing(req.url)
        if held is not None:
            connection.release()
            raise _HeldError(held)
        return connection


class Messenger:
    """Sends requests. Make it in a running loop; `close` it."""

    def __init__(self, settings: OriginSettings) -> None:
        """Raises OSError or ssl.SSLError when `ca_file` cannot be read, ValueError for a wrong network."""
        self._settings = settings
        self._contexts = TlsContexts(settings.ca_file)
        self._sessions: dict[AddressPolicy, aiohttp.ClientSession] = {}
        self._rules = AddressRules(settings.address_exceptions)
        self._authorizer = Authorizer()
        self._holds = Holds()
        self._closed = False

    async def close(self) -> None:
        """Close every connection; requests that are under way end with a failure. Harmless when repeated."""
        self._closed = True
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()
        await asyncio.sleep(0)  # transports tell that they are closed in the loop's next round

    async def ask(self, hop: Hop, extra: Headers, options: OriginOptions) -> Answer | Failure:
        """Send the request, follow redirects, return the first other answer; its body is not read.

        `extra` headers go to every hop. At most three requests for a hop, and `connect_timeout_s` and
        `answer_timeout_s` for each. A host that asked us to stay away is not asked: its answer comes again.
        """
        for _ in range(self._settings.max_redirects + 1):
            answer = await self._authorized(hop, extra, options)
            if isinstance(answer, Failure):
                return answer
            if answer.head.status not in REDIRECTS:
                if answer.head.status >= 400:
                    self._holds.note(hop.url, failure_of_answer(answer.head))
                return answer
            answer.hang_up()
            following = next_hop(hop, answer.head, self._seen(answer), options)
            if isinstance(following, Failure):
                return following
            hop = following
        message = f"{hop.url.host}: more than {self._settings.max_redirects} redirects"
        return Failure(kind=FailureKind.TOO_MANY_REDIRECTS, message=message)

    async def _authorized(self, hop: Hop, extra: Headers, options: OriginOptions) -> Answer | Failure:
        """One hop's answer, after the credentials were shown that the host asked for. Never a 401."""
        shown = carried = self._authorizer.first(hop)
        for _ in range(_SHOWINGS):
            headers = extra if shown is None else (*extra, ("Authorization", shown.value))
            answer = await self._send(hop, headers, options)
            if isinstance(answer, Failure) or answer.head.status != 401:
                return answer
            answer.hang_up()
            carried = shown
            shown = self._authorizer.again(hop, answer.head.headers.getall("WWW-Authenticate", ()), carried)
            if shown is None:
                break
        return refused(hop, carried)

    async def _send(self, hop: Hop, extra: Headers, options: OriginOptions) -> Answer | Failure:
        """One request, one answer. No `await` lies between the answer's arrival and the caller."""
        if self._closed:
            return _CLOSED
        way = route(hop.url, options)
        if isinstance(way, Failure):
            return way
        barred = self._holds.standing(hop.url) or self._barred(hop, way)
        if barred is not None:
            return barred
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + self._settings.answer_timeout_s):
                response = await self._request(hop, extra, way, options)
        except _HeldError as error:
            return error.failure
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            if not self._sessions:
                return _CLOSED
            failure = failure_of_exception(error, hop.url, way.proxy)
            self._holds.note(hop.url, failure)
            return failure
        if isinstance(response, Failure):
            return response
        answer = Answer(response, Head(hop.url.host or "", response.status, response.headers), hop.url, way)
        unsound = check(answer.head, response.raw_headers)
        if unsound is not None:
            answer.hang_up()
            return unsound
        return answer

    async def _request(
        self, hop: Hop, extra: Headers, way: Route, options: OriginOptions
    ) -> OriginResponse | Failure:
        tls: ssl.SSLContext | bool = True
        if hop.url.scheme == "https":
            context = await self._contexts.get(options.security, hop.secrets.certificate)
            if isinstance(context, Failure):
                return context
            if self._closed:
                return _CLOSED
            tls = context
        mine = {name.lower() for name, _ in hop.headers}
        always = (("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", self._settings.user_agent))
        headers = [item for item in always if item[0].lower() not in mine] + [*hop.headers, *extra]
        tunnel = {"User-Agent": self._settings.user_agent}
        if way.authorization is not None:
            if hop.url.scheme == "https":
                tunnel["Proxy-Authorization"] = way.authorization
            else:
                headers.append(("Proxy-Authorization", way.authorization))
        response = await self._session(hop.policy if way.proxy is None else AddressPolicy.LOCAL_ALLOWED).request(
            hop.method,
            hop.url,
            headers=headers,
            skip_auto_headers=("Content-Type",),
            ssl=tls,
            proxy=way.proxy,
            proxy_headers=tunnel,
            allow_redirects=False,
        )
        assert isinstance(response, OriginResponse)
        return response

    def _barred(self, hop: Hop, way: Route) -> Failure | None:
        """The address rule for a host whose address we do not see, because a proxy connects."""
        if way.proxy is None or hop.policy.admits(self._rules.classify_unresolved(hop.url.host or "")):
            return None
        message = f"{hop.url.host}: it leads to an address that is not allowed here"
        return Failure(kind=FailureKind.ADDRESS_REFUSED, message=message)

    def _seen(self, answer: Answer) -> AddressClass:
        """The class of the host that answered. What a proxy asked may be anywhere: it leads nobody inside."""
        if answer.way.proxy is not None:
            return self._rules.classify_unresolved(answer.url.host or "")
        return self._rules.classify(answer.response.address)

    def _session(self, policy: AddressPolicy) -> aiohttp.ClientSession:
        session = self._sessions.get(policy)
        if session is None:
            session = self._sessions[policy] = self._make_session(policy)
        return session

    def _make_session(self, policy: AddressPolicy) -> aiohttp.ClientSession:
        settings = self._settings
        return aiohttp.ClientSession(
            connector=_Connector(policy, self._rules, self._holds),
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
