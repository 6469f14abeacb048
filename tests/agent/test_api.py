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

from agent.api import MAX_BODY_BYTES, make_app, serving
from agent.client import AgentClient, socket_path
from agent.errors import AgentUnavailableError, ConfigError
from tests.support.memory_engine import MemoryEngine, memory_agent

JSON = "application/json"
FILE = {"url": "http://origin.example/file", "path": "/tmp/file"}


@pytest.fixture(name="engine")
async def running(tmp_path: Path) -> AsyncIterator[MemoryEngine]:
    async with memory_agent(tmp_path / "home") as engine:
        yield engine


async def ask(
    engine: MemoryEngine, method: str, path: str, body: bytes | None = None, headers: str = ""
) -> tuple[int, Any]:
    reader, writer = await asyncio.open_unix_connection(socket_path(engine.home))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}"
    if body is not None:
        head += f"Content-Length: {len(body)}\r\n"
        if "Content-Type" not in headers:
            head += f"Content-Type: {JSON}\r\n"
    writer.write(head.encode() + b"\r\n" + (body or b""))
    async with asyncio.timeout(10):
        raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    answer_head, _, content = raw.partition(b"\r\n\r\n")
    status = int(answer_head.split()[1])
    kind = b"application/problem+json" if status >= 400 else b"application/json"
    assert b"Content-Type: " + kind in answer_head
    return status, json.loads(content)


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
    ],
)
async def test_what_cannot_be_understood_names_the_field(engine: MemoryEngine, body: bytes, named: str) -> None:
    status, problem = await ask(engine, "POST", "/v1/jobs", body)
    assert (status, problem["code"]) == (400, "USAGE")
    assert named in problem["detail"]
    assert engine.known == {}


async def test_bodies_that_are_refused(engine: MemoryEngine) -> None:
    small = b'{"name":"j"}'
    assert (await ask(engine, "POST", "/v1/jobs", small, "Content-Type: text/plain\r\n"))[0] == 415
    assert (await ask(engine, "POST", "/v1/jobs", small, "Content-Encoding: gzip\r\n"))[0] in {400, 415}
    status, problem = await ask(engine, "POST", "/v1/jobs", b'{"name":"' + b"x" * MAX_BODY_BYTES + b'"}')
    assert (status, problem["code"]) == (413, "USAGE")


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
    ],
)
async def test_paths_that_do_not_exist(engine: MemoryEngine, method: str, path: str, status: int) -> None:
    got, problem = await ask(engine, method, path)
    assert (got, problem["code"]) == (status, "USAGE")


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
