"""What a server does for Digest authentication (RFC 7616 §3), written without a look at the client.

    origin.add("/x", data, guard=DigestGuard("user", "password", algorithm="SHA-256-sess"))

Never knows: the product.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

from tests.support.origin_plan import Request
from tests.support.origin_reply import Reply

_HASHES: dict[str, Callable[[bytes], Any]] = {
    "MD5": hashlib.md5,
    "SHA-256": hashlib.sha256,
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
}


class DigestGuard:
    """Lets a request pass whose Authorization is right, with a nonce of ours and a count that was not there before.

    `uses` is how often a nonce is good; then a new one is offered as `stale`. `others` are challenges that stand
    before our own, each in a header field of its own.
    """

    def __init__(
        self,
        user: str,
        password: str,
        *,
        algorithm: str | None = "MD5",
        qop: str | None = "auth",
        uses: int | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        self._user, self._password = user, password
        self._algorithm, self._qop, self._uses, self._others = algorithm, qop, uses, others
        self._numbers = itertools.count()
        self._seen: dict[str, set[str]] = {}
        self.renewals = 0
        """Answers with `stale`."""

    def __call__(self, request: Request) -> Reply | None:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme != "Digest":
            return self._challenge()
        given = parse_keqv_list(parse_http_list(text))
        seen = self._seen.get(given["nonce"])
        if seen is None or (self._uses is not None and len(seen) >= self._uses):
            return self._challenge(stale=True)
        count = given.get("nc", str(len(seen)))
        if count in seen or not self._right(given, request):
            return self._challenge()
        seen.add(count)
        return None

    def forget(self) -> None:
        """As a restarted server: no nonce is known any more, and it does not say why."""
        self._seen.clear()

    def _challenge(self, *, stale: bool = False) -> Reply:
        self.renewals += stale
        nonce = f"nonce{next(self._numbers)}"
        self._seen[nonce] = set()
        parts = ['realm="the \\"inner\\" realm, here"', f'nonce="{nonce}"', 'opaque="o,p=q"']
        if self._algorithm is not None:
            parts.append(f"algorithm={self._algorithm}")
        if self._qop is not None:
            parts.append(f'qop="{self._qop}"')
        if stale:
            parts.append("stale=true")
        reply = Reply(status=401, total=0, body=b"")
        reply.headers = [("WWW-Authenticate", text) for text in (*self._others, "Digest " + ", ".join(parts))]
        return reply

    def _right(self, given: dict[str, str], request: Request) -> bool:
        name = (self._algorithm or "MD5").removesuffix("-sess")

        def digest(*parts: str) -> str:
            return str(_HASHES[name](":".join(parts).encode()).hexdigest())

        secret = digest(self._user, 'the "inner" realm, here', self._password)
        if (self._algorithm or "").endswith("-sess"):
            secret = digest(secret, given["nonce"], given["cnonce"])
        wanted = digest(request.method, request.target)
        if self._qop is None:
            expected = digest(secret, given["nonce"], wanted)
        else:
            expected = digest(secret, given["nonce"], given["nc"], given["cnonce"], given["qop"], wanted)
        same = given["uri"] == request.target and given["username"] == self._user and given["opaque"] == "o,p=q"
        return same and given.get("algorithm") == self._algorithm and given["response"] == expected
