"""`nearfetch get` in a process of its own, with a whole agent of its own, from a real origin."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent import AgentClient, ExitCode
from tests.support.origin import Origin

DATA = os.urandom(3 * 1024 * 1024 + 17)
TIME_LIMIT_S = 60.0


@pytest.fixture(name="origin")
async def make_origin() -> AsyncIterator[Origin]:
    async with Origin() as origin:
        origin.add("/file", DATA)
        yield origin


async def start(tmp_path: Path, *arguments: str) -> asyncio.subprocess.Process:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NEARFETCH_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent.cli", "--home", str(tmp_path / "home"), *arguments),
        cwd=tmp_path,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def outcome(process: asyncio.subprocess.Process) -> tuple[int, Any]:
    async with asyncio.timeout(TIME_LIMIT_S):
        out, err = await process.communicate()
    assert out.count(b"\n") == 1, err.decode()
    assert process.returncode is not None
    return process.returncode, json.loads(out)


async def get(tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    return await outcome(await start(tmp_path, "get", "--json", *arguments))


async def test_without_an_agent(tmp_path: Path, origin: Origin) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    code, document = await get(tmp_path, origin.url("/file"), "--sha256", digest)
    assert (code, document["state"], document["error"]) == (0, "ACKNOWLEDGED", None)
    assert (tmp_path / "file").read_bytes() == DATA
    assert document["bytes_from_origin"] == len(DATA) == origin.sent("/file")


async def test_a_wrong_digest_leaves_nothing(tmp_path: Path, origin: Origin) -> None:
    code, document = await get(tmp_path, origin.url("/file"), "--sha256", "0" * 64)
    assert code == ExitCode.VALIDATION
    assert document["error"]["code"] == "VALIDATION_FAILED"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("path", "arguments", "exit_code", "error"),
    [
        ("/none", (), ExitCode.HTTP, "NOT_FOUND"),
        ("/file", ("--validator", "shasum:1"), ExitCode.USAGE, "UNKNOWN_VALIDATOR"),
    ],
)
async def test_bad_input(
    tmp_path: Path, origin: Origin, path: str, arguments: tuple[str, ...], exit_code: ExitCode, error: str
) -> None:
    code, document = await get(tmp_path, origin.url(path), *arguments)
    assert (code, document["error"]["code"]) == (exit_code, error)
    assert [item.name for item in tmp_path.iterdir()] == ["home"]


async def test_a_malformed_group_key(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "group.key").write_text("nf1-nonsense")
    code, document = await get(tmp_path, origin.url("/file"))
    assert (code, document["error"]["code"]) == (ExitCode.CONFIG, "CONFIG")


async def test_interrupted_and_gone_on(tmp_path: Path) -> None:
    async with Origin(rate=2 * 1024 * 1024) as origin:
        origin.add("/file", DATA)
        first = await start(tmp_path, "get", origin.url("/file"), "--json")
        client = AgentClient.connect(tmp_path / "home")
        await _when(client, lambda jobs: jobs and jobs[0].bytes_transferred > 1_000_000)
        first.send_signal(signal.SIGINT)
        code, document = await outcome(first)
        assert (code, document["state"], document["error"]["code"]) == (130, "SUSPENDED", "INTERRUPTED")
        assert "the same command goes on from there" in document["error"]["message"]
        assert not (tmp_path / "file").exists()
        code, again = await get(tmp_path, origin.url("/file"))
        assert (code, again["job"]) == (0, document["job"])
        assert (tmp_path / "file").read_bytes() == DATA
        assert origin.sent("/file") < 2 * len(DATA)


async def test_two_at_once_without_an_agent(tmp_path: Path, origin: Origin) -> None:
    one = await start(tmp_path, "get", "--json", origin.url("/file"), "-o", "one")
    two = await start(tmp_path, "get", "--json", origin.url("/file"), "-o", "two")
    results = [await outcome(one), await outcome(two)]
    assert [code for code, _ in results] == [0, 0], results
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == DATA


async def test_a_running_agent_is_used(tmp_path: Path, origin: Origin) -> None:
    agent = await start(tmp_path, "run", "--json", "--interface", "127.0.0.1")
    try:
        assert agent.stdout is not None
        async with asyncio.timeout(TIME_LIMIT_S):
            ready = json.loads(await agent.stdout.readline())
        assert ready["pid"] == agent.pid
        code, document = await get(tmp_path, origin.url("/file"))
        assert (code, document["bytes_total"]) == (0, len(DATA))
        async with AgentClient(ready["socket"]) as client:
            assert (await client.job(document["job"])).state == "ACKNOWLEDGED"
        second = await start(tmp_path, "run", "--json")
        code, document = await outcome(second)
        assert (code, document["error"]["code"]) == (ExitCode.HOME_IN_USE, "HOME_IN_USE")
    finally:
        agent.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIME_LIMIT_S):
            await agent.communicate()
    assert agent.returncode == 0


async def _when(client: AgentClient, ready: Any) -> None:
    """Wait until the jobs are so, however long the agent takes to start."""
    from agent import AgentUnavailableError

    async with asyncio.timeout(TIME_LIMIT_S):
        while True:
            try:
                if ready(await client.jobs()):
                    return
            except AgentUnavailableError:
                pass
            await asyncio.sleep(0.02)
