"""How credentials are shown to an origin: Basic and bearer at once, Digest when it asks.

Digest is ours and not aiohttp's middleware (3.14.5). That one looks at the first challenge of an answer only, so
that it fails where a server offers Basic or an algorithm it does not know first; prefers `auth-int`; believes a
server that names other origins as its protection space; and leaves the answer with the challenge open.

Never knows: sockets, redirects (a `Hop` without secrets shows nothing). Sources: RFC 9110 §11, RFC 7617, RFC 6750
§2.1, RFC 7616 (Digest).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from agent.origin_options import Credential, CredentialScheme
from agent.redirects import Hop
from peer.core.failure import Failure, FailureKind

REMEMBERED = 256
"""Challenges that are remembered at most, the latest ones: remote strings must not fill the memory."""

_MAX_PARAMETER = 4096
"""Characters of a nonce or another parameter that is sent back."""

_HASHES: dict[str, Callable[[bytes], hashlib._Hash]] = {
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
    "SHA-256": hashlib.sha256,
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
}
"""By RFC 7616 §6.1, the better ones first; each also with `-sess`."""

_PART = re.compile(
    r"\s*,?\s*(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    r'(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))|(?P<scheme>(?=\s|,|$)))'
)


@dataclass(slots=True)
class _Session:
    """A challenge that is being answered, again and again until the server makes another."""

    realm: str
    nonce: str
    algorithm: str
    """As the server spelled it; empty where it did not."""
    opaque: str | None
    qop: bool
    stale: bool
    """The server says that only the nonce was wrong."""
    count: int = 0
    client_nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    """The same for the whole session: with `-sess` it is part of the session's key (RFC 7616 §3.4.2)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The value of an Authorization header, and what it answers."""

    value: str = field(repr=False)
    nonce: str | None = None
    fresh: bool = False
    """The challenge came in this very exchange: a refusal means the credentials, unless it says `stale`."""


class Authorizer:
    """What the Authorization header of each request is. Remembers the last challenge of each origin and user."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[tuple[str, Credential], _Session] = OrderedDict()

    def first(self, hop: Hop) -> Shown | None:
        """What is shown before anybody asks. None: nothing, or the job's headers say it themselves."""
        if _says_itself(hop):
            return None
        digest = _of(hop, CredentialScheme.DIGEST)
        if bearer := _of(hop, CredentialScheme.BEARER):
            return Shown(f"Bearer {bearer.password}")
        if digest is not None:
            session = self._sessions.get(_key(hop, digest))
            return None if session is None else Shown(_answer(hop, digest, session), session.nonce)
        basic = _of(hop, CredentialScheme.BASIC)
        return None if basic is None else Shown(basic_value(basic.user, basic.password))

    def again(self, hop: Hop, challenges: Sequence[str], shown: Shown | None) -> Shown | None:
        """What to show after a 401 with these WWW-Authenticate headers. None: there is no more that would help.

        `shown`: what the refused request carried. A nonce that the server does not know any more is one more try.
        """
        if _says_itself(hop) or (shown is not None and shown.nonce is None):
            return None
        offered = list(parse_challenges(challenges))
        if digest := _of(hop, CredentialScheme.DIGEST):
            session = self._renew(_key(hop, digest), _choose(offered), shown)
            if session is not None:
                return Shown(_answer(hop, digest, session), session.nonce, fresh=True)
        basic = _of(hop, CredentialScheme.BASIC)
        if basic is not None and shown is None and any(scheme == "basic" for scheme, _ in offered):
            return Shown(basic_value(basic.user, basic.password))
        return None

    def _renew(self, key: tuple[str, Credential], session: _Session | None, shown: Shown | None) -> _Session | None:
        """Remember the new challenge in place of the old one, when it is worth an answer."""
        self._sessions.pop(key, None)
        if session is None:
            return None
        if shown is not None and (shown.nonce == session.nonce or (shown.fresh and not session.stale)):
            return None
        self._sessions[key] = session
        if len(self._sessions) > REMEMBERED:
            self._sessions.popitem(last=False)
        return session


def basic_value(user: str, password: str) -> str:
    """The value of a header with Basic credentials, in UTF-8 (RFC 7617 §2.1)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def refused(hop: Hop, shown: Shown | None) -> Failure:
    """The failure for a 401 that nothing more can be done about."""
    what = "does not accept the credentials" if shown or _says_itself(hop) else "asks for credentials"
    message = f"{hop.url.host}: {what} (HTTP status 401)"
    return Failure(kind=FailureKind.AUTH_REQUIRED, message=message, http_status=401)


def parse_challenges(values: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Scheme and parameters, both in lower case, of each challenge in these headers (RFC 9110 §11.6.1).

    What cannot be understood ends its header; what came before it counts. Never raises.
    """
    for value in values:
        scheme, parameters, at = "", dict[str, str](), 0
        while match := _PART.match(value, at):
            at = match.end()
            name = match["name"].lower()
            if match["scheme"] is None:
                text = match["plain"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
                parameters.setdefault(name, text)
                continue
            if scheme:
                yield scheme, parameters
            scheme, parameters = name, {}
        if scheme:
            yield scheme, parameters


def _says_itself(hop: Hop) -> bool:
    return any(name.lower() == "authorization" for name, _ in hop.headers)


def _of(hop: Hop, scheme: CredentialScheme) -> Credential | None:
    return next((item for item in hop.secrets.credentials if item.scheme is scheme), None)


def _key(hop: Hop, credential: Credential) -> tuple[str, Credential]:
    return str(hop.url.origin()), credential


def _choose(offered: Sequence[tuple[str, dict[str, str]]]) -> _Session | None:
    """The best challenge that we can answer: with `auth` or without any qop, by a hash of ours."""
    found: list[tuple[int, _Session]] = []
    for scheme, parameters in offered:
        algorithm = parameters.get("algorithm", "")
        plain = (algorithm or "MD5").upper().removesuffix("-SESS")
        qops = {item.strip().lower() for item in parameters.get("qop", "").split(",")} - {""}
        sound = all(len(text) <= _MAX_PARAMETER and _sendable(text) for text in parameters.values())
        sess = algorithm.upper().endswith("-SESS")  # needs the client's nonce, which goes out with a qop only
        answerable = bool(parameters.get("nonce")) and "realm" in parameters
        answerable = answerable and ("auth" in qops or not (qops or sess))
        if scheme == "digest" and plain in _HASHES and sound and answerable:
            session = _Session(
                realm=parameters["realm"],
                nonce=parameters["nonce"],
                algorithm=algorithm,
                opaque=parameters.get("opaque"),
                qop=bool(qops),
                stale=parameters.get("stale", "").lower() == "true",
            )
            found.append((list(_HASHES).index(plain), session))
    return min(found, key=lambda item: item[0])[1] if found else None


def _answer(hop: Hop, credential: Credential, session: _Session) -> str:
    """The next answer of a session (RFC 7616 §3.4)."""
    session.count += 1
    name = (session.algorithm or "MD5").upper()
    make = _HASHES[name.removesuffix("-SESS")]

    def digest(*parts: str) -> str:
        return make(":".join(parts).encode()).hexdigest()

    target = hop.url.raw_path_qs
    secret = digest(credential.user, session.realm, credential.password)
    if name.endswith("-SESS"):
        secret = digest(secret, session.nonce, session.client_nonce)
    request = digest(hop.method, target)
    quoted = {"username": credential.user, "realm": session.realm, "nonce": session.nonce, "uri": target}
    bare = {"algorithm": session.algorithm} if session.algorithm else {}
    if session.qop:
        count = f"{session.count:08x}"
        quoted["response"] = digest(secret, session.nonce, count, session.client_nonce, "auth", request)
        quoted["cnonce"] = session.client_nonce
        bare |= {"qop": "auth", "nc": count}
    else:
        quoted["response"] = digest(secret, session.nonce, request)
    if session.opaque is not None:
        quoted["opaque"] = session.opaque
    parts = [f'{key}="{_escaped(text)}"' for key, text in quoted.items()]
    parts += [f"{key}={text}" for key, text in bare.items()]
    return "Digest " + ", ".join(parts)


def _sendable(text: str) -> bool:
    """False for bytes that were no UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
