"""The demo's origin: what it answers, and that its counters count payload and nothing else."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.origin import Origin, Sent

DATA = os.urandom(300_000)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def ask(origin: Origin, tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    (tmp_path / "x.bin").write_bytes(DATA)
    url = urlsplit(origin.publish(tmp_path / "x.bin"))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
    yield connection
    connection.close()


def exchange(
    ask: http.client.HTTPConnection, method: str, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    ask.request(method, "/x.bin", headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = ask.getresponse()
    return answer, answer.read()


def test_the_whole_file(origin: Origin, ask: http.client.HTTPConnection) -> None:
    answer, body = exchange(ask, "GET")

    assert (answer.status, body) == (200, DATA)
    assert origin.sent() == Sent(payload_bytes=len(DATA), gets=1)


def test_a_head_is_no_payload(origin: Origin, ask: http.client.HTTPConnection) -> None:
    answer, body = exchange(ask, "HEAD")

    assert (answer.status, body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert not answer.headers["ETag"].startswith("W/")
    assert origin.sent() == Sent()


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-", 10, 300_000),
        ("bytes=-5", 299_995, 300_000),
        ("bytes=9-999999", 9, 300_000),
    ],
)
def test_one_range(origin: Origin, ask: http.client.HTTPConnection, asked: str, start: int, stop: int) -> None:
    answer, body = exchange(ask, "GET", Range=asked)

    assert (answer.status, body) == (206, DATA[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/300000"
    assert origin.sent().payload_bytes == stop - start


def test_a_range_beyond_the_end(origin: Origin, ask: http.client.HTTPConnection) -> None:
    answer, _ = exchange(ask, "GET", Range="bytes=300000-")

    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */300000"
    assert origin.sent().payload_bytes == 0


def test_if_range_with_another_etag_gets_the_whole(ask: http.client.HTTPConnection) -> None:
    etag = exchange(ask, "HEAD")[0].headers["ETag"]

    assert exchange(ask, "GET", Range="bytes=1-2", If_Range=etag)[0].status == 206
    assert exchange(ask, "GET", Range="bytes=1-2", If_Range='"other"')[0].status == 200


def test_what_is_not_published_is_not_found(ask: http.client.HTTPConnection) -> None:
    ask.request("GET", "/y.bin")

    assert ask.getresponse().status == 404
