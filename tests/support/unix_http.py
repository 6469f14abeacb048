"""requests over a unix socket, for tools that know HTTP by that library only.

Never knows: anything of the product.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

BASE_URL = "http://agent"


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("agent")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        assert isinstance(self.timeout, int | float)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("agent", maxsize=1)
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path)


class UnixAdapter(HTTPAdapter):
    """Everything goes to one socket. Of a stream of events only the beginning is read."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__()
        self._pool = _Pool(path)
        self._timeout_s = timeout_s

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(request, stream=True, timeout=self._timeout_s)
        if response.headers.get("Content-Type", "").startswith("text/event-stream"):
            response._content = next(response.iter_content(None))
            response._content_consumed = True
            response.raw.close()
        return response

    def close(self) -> None:
        self._pool.close()
        super().close()


def unix_session(path: Path, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None) -> requests.Session:
    """A session whose `http://agent/…` is the socket."""
    session = requests.Session()
    session.trust_env = False
    session.headers.update(headers or {})
    session.mount(BASE_URL, UnixAdapter(path, timeout_s))
    return session
