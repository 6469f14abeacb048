"""The control interface on a real unix socket, spoken to byte by byte, without the library."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api import MAX_BODY_BYTES, Limits, make_app, serving
from agent.api_table import MAX_FILES_BODY_BYTES
from agent.client import AgentClient, socket_path
from agent.errors import AgentUnavailableError, ConfigError
from tests.support import rest
from tests.support.memory_engine import MemoryEngine, memory_agent

JSON = "application/json"
FILE = {"url": "http://origin.example/file", "path": "/tmp/file"}


@pytest.fixture(name="engine")
async def running(tmp_path: Path) -> AsyncIterator[MemoryEngine]:
    async with memory_agent(tmp_path / "home") as engine:
        yield engine


async def ask(
    engine: MemoryEngine, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    answered = await rest.ask(socket_path(engine.home), method, path, body, headers)
    return answered.status, answered.document


async def exchange(
    engine: MemoryEngine, method: str, path: str, content: bytes, headers: dict[str, str]
) -> rest.Answered:
    """A body that says nothing of its length."""
    reader, writer = await asyncio.open_unix_connection(socket_path(engine.home))
    writer.write(rest.request_head(method, path, None, headers) + content)
    try:
        return await rest.answer_from(reader)
    finally:
        writer.transport.abort()


async def create(engine: MemoryEngine, url: str = "http://origin.example/file") -> str:
    body = json.dumps({"name": "j", "files": [{**FILE, "url": url}]}).encode()
    status, document = await ask(engine, "POST", "/v1/jobs", body)
    assert status == 201
    return str(document["id"])


async def test_a_job_from_beginning_to_end(engine: MemoryEngine, tmp_path: Path) -> None:
    target = tmp_path / "file"
    status, job = await ask(engine, "POST", "/v1/jobs", b'{"name":"j","priority":"high"}')
    assert (status, job["state"], job["priority"]) == (201, "SUSPENDED", "high")
    path = f"/v1/jobs/{job['id']}"
    files = json.dumps({"files": [{**FILE, "path": str(target)}]}).encode()
    assert (await ask(engine, "POST", f"{path}/files", files))[0] == 200
    assert (await ask(engine, "POST", f"{path}/suspend"))[1]["state"] == "SUSPENDED"
    assert (await ask(engine, "POST", f"{path}/resume"))[1]["state"] == "TRANSFERRED"
    assert (await ask(engine, "GET", "/v1/jobs"))[1]["jobs"][0]["id"] == job["id"]
    assert (await ask(engine, "POST", f"{path}/complete"))[1]["state"] == "ACKNOWLEDGED"
    assert target.exists()
    assert (await ask(engine, "GET", path))[1]["state"] == "ACKNOWLEDGED"
    assert (await ask(engine, "GET", "/v1/jobs"))[1]["jobs"] == []


async def test_validation_and_cancel(engine: MemoryEngine) -> None:
    job = await create(engine, "http://origin.example/decide")
    await ask(engine, "POST", f"/v1/jobs/{job}/resume")
    status, document = await ask(engine, "PUT", f"/v1/jobs/{job}/files/0/validation", b'{"valid":false}')
    assert (status, document["files"][0]["validation"]) == (200, "invalid")
    assert (await ask(engine, "PUT", f"/v1/jobs/{job}/files/7/validation", b'{"valid":true}'))[0] == 404
    assert (await ask(engine, "POST", f"/v1/jobs/{job}/cancel"))[1]["state"] == "CANCELLED"


async def test_about_peers_and_cache(engine: MemoryEngine) -> None:
    assert (await ask(engine, "GET", "/v1/agent"))[1]["pid"] == os.getpid()
    assert (await ask(engine, "GET", "/v1/peers"))[1]["peers"][0]["name"] == "neighbour"
    assert (await ask(engine, "GET", "/v1/cache"))[1]["limit_bytes"] == 1000
    assert (await ask(engine, "DELETE", "/v1/cache"))[1] == {"records": 3}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "Expected `object`"),
        (b"{}", "name"),
        (b'{"name":5}', "$.name"),
        (b'{"name":"j","nmae":1}', "`nmae`"),
        (b'{"name":"j","priority":"urgent"}', "$.priority"),
        (b'{"name":"j","files":[{"url":"u","path":"/p","sha":"x"}]}', "`sha`"),
        (b'{"name":"j","minimum_retry_delay_s":NaN}', "malformed"),
        (b'{"name":"j","minimum_retry_delay_s":1e999}', "out of range"),
        (b'{"name":"j","maximum_bytes":9223372036854775808}', "$.maximum_bytes"),
        (b'{"name":"j","maximum_bytes":-1}', "$.maximum_bytes"),
        (b'{"name":"j","name":"k"}', "`name` is given twice"),
        (b'{"name":"j","http":{"headers":{"a":"1","a":"2"}}}', "`a` is given twice"),
        (b'{"name":"j","files":' + b"[" * 100_000, "$.files"),
        (b'{"name":"j","http":{"headers":' + b'{"a":' * 100_000, "$.http.headers"),
        (b'{"name":"\\ud800"}', "the request cannot be understood"),
    ],
)
async def test_what_cannot_be_understood_names_the_field(engine: MemoryEngine, body: bytes, named: str) -> None:
    status, problem = await ask(engine, "POST", "/v1/jobs", body)
    assert (status, problem["code"]) == (400, "USAGE")
    assert named in problem["detail"]
    assert engine.known == {}


async def test_bodies_that_are_refused(engine: MemoryEngine) -> None:
    small = b'{"name":"j"}'
    assert (await ask(engine, "POST", "/v1/jobs", small, {"Content-Type": "text/plain"}))[0] == 415
    assert (await ask(engine, "POST", "/v1/jobs", small, {"Content-Encoding": "gzip"}))[0] == 415
    long = b'{"name":"' + b"x" * MAX_BODY_BYTES + b'"}'
    job = await create(engine)
    status, problem = await ask(engine, "PATCH", f"/v1/jobs/{job}", long)
    assert (status, problem["code"]) == (413, "USAGE")
    assert str(MAX_BODY_BYTES) in problem["detail"]
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(long), long)
    coding = {"Transfer-Encoding": "chunked", "Content-Type": JSON}
    assert (await exchange(engine, "PATCH", f"/v1/jobs/{job}", chunked, coding)).status == 413
    for broken in (b"zz\r\n", b"1\r\n{\r\nzz\r\n"):
        assert (await exchange(engine, "PATCH", f"/v1/jobs/{job}", broken, coding)).status == 400
    for method, path in (("GET", "/v1/agent"), ("POST", f"/v1/jobs/{job}/resume"), ("DELETE", "/v1/cache")):
        status, problem = await ask(engine, method, path, small)
        assert (status, problem["detail"]) == (400, f"{method} {path} takes no body")
    assert engine.job(job).state == "SUSPENDED"


async def test_what_is_not_http_is_refused_like_everything_else(
    engine: MemoryEngine, caplog: pytest.LogCaptureFixture
) -> None:
    for garbage in (b"\x16\x03\x01 hello\r\n\r\n", b"GET /v1/agent HTTP/1.1\r\nbad header\r\n\r\n"):
        reader, writer = await asyncio.open_unix_connection(socket_path(engine.home))
        writer.write(garbage)
        assert (await rest.answer_from(reader)).document["code"] == "USAGE"
        writer.close()
    long = await rest.ask(socket_path(engine.home), "GET", f"/v1/cache/{'x' * 10_000}")
    assert long.status == 400
    assert "Traceback" not in caplog.text


async def test_a_request_that_brings_files_may_be_longer(engine: MemoryEngine) -> None:
    files = [
        {"url": f"http://origin.example/{'x' * 1000}/{number}", "path": f"/tmp/{number}"} for number in range(2000)
    ]
    content = json.dumps({"name": "j", "files": files}).encode()
    assert MAX_BODY_BYTES < len(content) < MAX_FILES_BODY_BYTES
    status, job = await ask(engine, "POST", "/v1/jobs", content)
    assert (status, job["files_total"]) == (201, 2000)
    doubled = content[:-1] + b',"name":"k"}'
    status, problem = await ask(engine, "POST", "/v1/jobs", doubled)
    assert (status, "`name` is given twice" in problem["detail"]) == (400, True)
    endless = {"Content-Length": str(MAX_FILES_BODY_BYTES + 1)}
    assert (await ask(engine, "POST", "/v1/jobs", b"{", endless))[0] == 413


async def test_a_body_that_drips_is_given_up(tmp_path: Path) -> None:
    engine = MemoryEngine(tmp_path)
    async with serving(make_app(engine, Limits(body_timeout_s=0.05, linger_s=0.05)), tmp_path / "agent.sock"):
        answer = await rest.ask(tmp_path / "agent.sock", "POST", "/v1/jobs", b"{", headers={"Content-Length": "20"})
    assert (answer.status, answer.document["detail"]) == (408, "the body came too slowly")


async def test_errors_of_the_engine_keep_their_code(engine: MemoryEngine) -> None:
    status, problem = await ask(engine, "GET", "/v1/jobs/ff")
    assert (status, problem["code"], problem["status"]) == (404, "JOB_NOT_FOUND", 404)
    job = await create(engine)
    assert (await ask(engine, "POST", f"/v1/jobs/{job}/complete"))[0] == 409
    bad = json.dumps({"name": "j", "files": [{**FILE, "validators": ["shasum:1"]}]}).encode()
    assert (await ask(engine, "POST", "/v1/jobs", bad))[1]["code"] == "UNKNOWN_VALIDATOR"


async def test_a_bug_is_logged_and_not_told(engine: MemoryEngine, caplog: pytest.LogCaptureFixture) -> None:
    engine.broken = True
    status, problem = await ask(engine, "GET", "/v1/jobs/ff")
    assert (status, problem["code"]) == (500, "UNEXPECTED")
    assert "secret" not in json.dumps(problem)
    assert "RuntimeError: secret detail" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/jobs", 404),
        ("POST", "/v1/jobs/a/explode", 404),
        ("PATCH", "/v1/jobs", 405),
        ("GET", "/v1/jobs/a?sequence=1", 400),
        ("GET", "/v1/jobs/a?after=-1", 400),
        ("GET", "/v1/jobs/a?after=1&timeout_s=inf", 400),
        ("GET", "/v1/jobs/a?after=1&timeout_s=1e9", 400),
        ("GET", "/v1/jobs/a?after=1&after=2", 400),
        ("GET", "/v1/agent?x=1", 400),
        ("POST", "/v1/jobs?name=j", 400),
        ("GET", "/v1/jobs?limit=0", 400),
        ("GET", "/v1/jobs?limit=1001", 400),
        ("GET", "/v1/jobs?brief=perhaps", 400),
        ("GET", "/v1/jobs/a/files/-1/filled", 400),
        ("GET", "/v1/jobs/a/files/2147483648/filled", 400),
        ("DELETE", "/v1/jobs/a/credentials/server/kerberos", 400),
    ],
)
async def test_paths_that_do_not_exist(engine: MemoryEngine, method: str, path: str, status: int) -> None:
    got, problem = await ask(engine, method, path)
    assert (got, problem["code"]) == (status, "USAGE")


async def test_a_method_that_is_not_there_names_those_that_are(engine: MemoryEngine) -> None:
    answer = await rest.ask(socket_path(engine.home), "PUT", "/v1/jobs")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


async def test_the_same_key_makes_one_job(engine: MemoryEngine) -> None:
    body = b'{"name":"j"}'
    status, first = await ask(engine, "POST", "/v1/jobs", body, {"Idempotency-Key": "k" * 255})
    assert status == 201
    status, again = await ask(engine, "POST", "/v1/jobs", body, {"Idempotency-Key": "k" * 255})
    assert (status, again["id"]) == (200, first["id"])
    for key in ("", "k" * 256, "two words", "ü"):
        status, problem = await ask(engine, "POST", "/v1/jobs", body, {"Idempotency-Key": key})
        assert (status, "Idempotency-Key" in problem["detail"]) == (400, True)
    assert len(engine.known) == 1


async def test_long_lists_come_in_pages(engine: MemoryEngine) -> None:
    ids = [await create(engine) for _ in range(3)]
    _, page = await ask(engine, "GET", "/v1/jobs?limit=2&brief=true")
    assert ([job["id"] for job in page["jobs"]], page["total"], page["next"]) == (ids[:2], 3, ids[1])
    assert [job["files"] for job in page["jobs"]] == [[], []]
    _, page = await ask(engine, "GET", f"/v1/jobs?limit=2&after={ids[1]}")
    assert ([job["id"] for job in page["jobs"]], page["next"]) == (ids[2:], None)
    assert len(page["jobs"][0]["files"]) == 1


async def test_a_web_page_may_not_ask(engine: MemoryEngine) -> None:
    for origin in ("null", "http://evil.example"):
        answer = await rest.ask(
            socket_path(engine.home), "POST", "/v1/jobs", {"name": "j"}, headers={"Origin": origin}
        )
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
    assert engine.known == {}


async def test_a_flood_of_connections_is_turned_away(tmp_path: Path) -> None:
    """They say nothing: those beyond the limit are told so at once, the others go after their time."""
    place, limits = tmp_path / "agent.sock", Limits(connections=8, idle_s=0.5)
    async with serving(make_app(MemoryEngine(tmp_path), limits), place):
        silent = [await asyncio.open_unix_connection(place) for _ in range(200)]
        answer = await rest.ask(place, "GET", "/v1/agent")
        assert (answer.status, answer.document["code"]) == (503, "AGENT_UNAVAILABLE")
        async with asyncio.timeout(10):
            while (await rest.ask(place, "GET", "/v1/agent")).status != 200:
                pass
        for _, writer in silent:
            writer.transport.abort()


async def test_a_long_poll_answers_with_the_change(engine: MemoryEngine) -> None:
    job = await create(engine)
    now = engine.job(job).sequence
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        poll = group.create_task(ask(engine, "GET", f"/v1/jobs/{job}?after={now}&timeout_s=30"))
        await asyncio.sleep(0)
        engine.change(job, state="QUEUED")
    assert poll.result()[1]["state"] == "QUEUED"
    assert (await ask(engine, "GET", f"/v1/jobs/{job}?after=0"))[1]["state"] == "QUEUED"
    later = engine.job(job).sequence
    assert (await ask(engine, "GET", f"/v1/jobs/{job}?after={later}&timeout_s=0.05"))[0] == 200


async def test_long_polls_end_when_the_agent_stops(tmp_path: Path) -> None:
    async with asyncio.timeout(4), asyncio.TaskGroup() as group, memory_agent(tmp_path / "home") as engine:
        job = await create(engine)
        poll = group.create_task(ask(engine, "GET", f"/v1/jobs/{job}?after=99&timeout_s=30"))
        while not engine.waiting:
            await asyncio.sleep(0.01)
    status, problem = poll.result()
    assert (status, problem["code"]) == (503, "AGENT_UNAVAILABLE")


async def test_the_socket_is_private_and_goes_away(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    async with memory_agent(home) as engine:
        path = socket_path(engine.home)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not path.exists()


async def test_a_socket_left_over_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(make_app(MemoryEngine(tmp_path)), path):
        assert (await AgentClient(path).about()).pid == os.getpid()


async def test_something_else_in_its_place_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="in the way"):
        async with serving(make_app(MemoryEngine(tmp_path)), path):
            pass
    assert path.read_text() == "precious"


async def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="must be a directory of this user"):
        async with serving(make_app(MemoryEngine(tmp_path)), tmp_path / "link" / "agent.sock"):
            pass


async def test_a_home_with_a_long_name_is_served_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    async with memory_agent(home):
        assert not socket_path(home).is_relative_to(home)
        assert (await AgentClient.connect(home).about()).home == str(home)


SPEAK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
s.connect(sys.argv[1])
s.sendall(b"GET /v1/agent HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
print(s.recv(100000).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_refused() -> None:
    place = Path(tempfile.mkdtemp())
    try:
        async with serving(make_app(MemoryEngine(place)), place / "agent.sock"):
            place.chmod(0o755)
            (place / "agent.sock").chmod(0o666)
            command = [shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable, "-c", SPEAK]
            result = await asyncio.to_thread(
                subprocess.run,
                [*command, str(place / "agent.sock")],
                user=65534,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
            assert "403 Forbidden" in result.stdout, result.stderr
            assert "belongs to another user" in result.stdout
            (place / "agent.sock").chmod(0o600)
            place.chmod(0o777)
            with pytest.raises(AgentUnavailableError, match="nobody else can write"):
                await AgentClient(place / "agent.sock").about()
    finally:
        shutil.rmtree(place)
