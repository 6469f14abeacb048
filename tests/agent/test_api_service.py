"""The control interface of a whole agent: what is promised to those who repeat, come back, or come together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.service import Service
from tests.support.origin import Origin
from tests.support.rest import Answered, ask, listening

CONTENT = b"near before far\n" * 64


@contextlib.asynccontextmanager
async def agent(home: Path, **settings: Any) -> AsyncIterator[Callable[..., Any]]:
    """An agent without a group; yields how to ask it."""
    async with Service(Config(home=home, **settings)) as service:

        async def request(method: str, target: str, body: object = None, **headers: str) -> Answered:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await ask(service.socket_path, method, f"/v1{target}", body, named)

        yield request


@pytest.fixture(name="origin")
async def serving() -> AsyncIterator[Origin]:
    async with Origin() as origin:
        origin.add("/file", CONTENT)
        yield origin


async def test_the_same_key_at_the_same_time_makes_one_job(tmp_path: Path) -> None:
    async with agent(tmp_path) as request:
        first = await asyncio.gather(
            *(request("POST", "/jobs", {"name": "j"}, Idempotency_Key="k") for _ in range(8))
        )
        assert sorted(answer.status for answer in first) == [200] * 7 + [201]
        assert len({answer.document["id"] for answer in first}) == 1
        other = await request("POST", "/jobs", {"name": "other"}, Idempotency_Key="k")
        assert (other.status, other.document["code"]) == (409, "IDEMPOTENCY_CONFLICT")
        assert (await request("GET", "/jobs")).document["total"] == 1


async def test_a_key_is_known_after_a_restart(tmp_path: Path) -> None:
    async with agent(tmp_path) as request:
        made = await request("POST", "/jobs", {"name": "j"}, Idempotency_Key="k")
    async with agent(tmp_path) as request:
        again = await request("POST", "/jobs", {"name": "j"}, Idempotency_Key="k")
        assert (again.status, again.document["id"]) == (200, made.document["id"])


async def test_jobs_made_at_the_same_time_keep_the_limit(tmp_path: Path) -> None:
    async with agent(tmp_path, max_jobs_per_user=3) as request:
        answers = await asyncio.gather(*(request("POST", "/jobs", {"name": "j"}) for _ in range(8)))
        assert sorted(answer.status for answer in answers) == [201] * 3 + [409] * 5
        refused = next(answer.document for answer in answers if answer.status == 409)
        assert (refused["code"], "max_jobs_per_user" in refused["detail"]) == ("TOO_MANY_JOBS_PER_USER", True)


async def test_files_added_at_the_same_time_keep_the_limit(tmp_path: Path) -> None:
    async with agent(tmp_path / "home", max_files_per_job=3) as request:
        job = (await request("POST", "/jobs", {"name": "j"})).document["id"]
        answers = await asyncio.gather(
            *(
                request(
                    "POST",
                    f"/jobs/{job}/files",
                    {"files": [{"url": "http://origin.example/x", "path": str(tmp_path / str(number))}]},
                )
                for number in range(8)
            )
        )
        assert sorted(answer.status for answer in answers) == [200] * 3 + [409] * 5


async def test_a_listener_that_comes_back_after_a_restart_misses_nothing(tmp_path: Path) -> None:
    async with agent(tmp_path) as request:
        job = (await request("POST", "/jobs", {"name": "one"})).document["id"]
        async with listening(tmp_path / "agent.sock", "/v1/events?after=0") as stream:
            last, kind, document = await stream.event()
            assert (kind, document["job"]) == ("created", job)
        await request("POST", f"/jobs/{job}/cancel")
    async with agent(tmp_path) as request:
        assert last is not None
        async with listening(tmp_path / "agent.sock", "/v1/events", {"Last-Event-ID": last}) as stream:
            seen = [(await stream.event())[1]]
            while seen[-1] != "cancelled":
                seen.append((await stream.event())[1])
            await request("POST", "/jobs", {"name": "two"})
            assert (await stream.event())[1] == "created"


async def test_a_delivery_comes_again_until_it_is_answered_well(tmp_path: Path, origin: Origin) -> None:
    files = [{"url": origin.url("/file"), "path": str(tmp_path / "file")}]
    async with agent(tmp_path / "home") as request:
        job = (await request("POST", "/jobs", {"name": "j", "files": files})).document["id"]
        async with listening(tmp_path / "home" / "agent.sock", f"/v1/deliveries?job={job}") as stream:
            await request("POST", f"/jobs/{job}/resume")
            _, kind, delivery = await stream.event()
            assert (kind, delivery["notice"], delivery["job"]["state"]) == (
                "delivery",
                "job-transferred",
                "TRANSFERRED",
            )
        async with listening(tmp_path / "home" / "agent.sock", "/v1/deliveries") as stream:
            _, _, again = await stream.event()
            assert again["notice"] == "job-transferred"
            target = f"/deliveries/{again['delivery']}"
            assert (await request("POST", target, {"ok": True})).document["changed"] is True
            assert (await request("POST", target, {"ok": True})).status == 404
        assert (await request("POST", f"/jobs/{job}/complete")).document["state"] == "ACKNOWLEDGED"
    assert (tmp_path / "file").read_bytes() == CONTENT
