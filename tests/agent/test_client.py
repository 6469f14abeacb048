"""The Python library against something that answers like an agent: which request each call is, what comes back."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent import (
    AgentClient,
    AgentUnavailableError,
    ByteSpan,
    CacheChange,
    CredentialChange,
    CredentialScheme,
    CredentialTarget,
    HttpChange,
    JobChange,
    JobDocument,
    NewFile,
    NewJob,
    NotFoundError,
    RangeRequest,
    UsageError,
    default_home,
)
from agent.client import socket_path
from tests.support.wire import (
    WireAgent,
    closing,
    job_document,
    raw,
    reply,
    silence,
    streaming,
)

LIMIT_S = 10.0
DONE: dict[str, object] = {"changed": True, "count": 2}
PEERS: dict[str, object] = {"peers": [], "refused": [], "problems": []}
RECORD: dict[str, object] = {
    "id": "cd",
    "length": 9,
    "chunks_held": 1,
    "chunks_total": 1,
    "bytes": 9,
    "created_at": 1.0,
    "last_access_at": 2.0,
}
CACHE: dict[str, object] = {"records": [RECORD], "bytes": 9, "limit_bytes": 99, "problems": []}
STATISTICS: dict[str, object] = {
    "bytes_from_origin": 1,
    "bytes_from_peers": 2,
    "bytes_from_cache": 3,
    "bytes_discarded": 4,
    "bytes_given": 5,
    "by_peer": {"ab": [6, 7]},
    "jobs_completed": 8,
    "files_completed": 9,
    "since": 1.0,
}
ABOUT: dict[str, object] = {
    "version": "0.1.0",
    "pid": 1,
    "home": "/h",
    "peer_id": None,
    "peer_name": None,
    "peer_port": None,
    "group_tag": None,
    "interfaces": [],
    "jobs": 0,
    "problems": [],
}
JOB = job_document()
EXPLANATION: dict[str, object] = {
    "job": "j1",
    "name": "",
    "state": "TRANSFERRED",
    "bytes_total": None,
    "bytes_from_origin": 1,
    "bytes_from_peers": 2,
    "bytes_from_cache": 3,
    "bytes_discarded": 4,
    "files": [],
    "reasons": {},
}


@pytest.fixture(name="there")
async def answering(tmp_path: Path) -> AsyncIterator[WireAgent]:
    async with WireAgent(tmp_path) as there:
        yield there


@pytest.fixture(name="client")
def speaking(tmp_path: Path) -> AgentClient:
    return AgentClient.connect(tmp_path, timeout_s=5)


# --- one request each ----------------------------------------------------------------------------------------

Call = Callable[[AgentClient], Coroutine[Any, Any, object]]
BEARER = CredentialChange(scheme=CredentialScheme.BEARER, password="t")

CALLS: list[tuple[str, Call, str, object, object]] = [
    ("create_job", lambda c: c.create_job(NewJob(name="n"), key="k"), "POST /jobs", {"name": "n"}, JOB),
    (
        "add_files",
        lambda c: c.add_files("j1", (NewFile(url="http://o/x", path="/x"),)),
        "POST /jobs/j1/files",
        {"files": [{"url": "http://o/x", "path": "/x"}]},
        JOB,
    ),
    ("change_job", lambda c: c.change_job("j1", JobChange(name="m")), "PATCH /jobs/j1", {"name": "m"}, JOB),
    (
        "change_file",
        lambda c: c.change_file("j1", 2, "http://o/y"),
        "PATCH /jobs/j1/files/2",
        {"url": "http://o/y"},
        JOB,
    ),
    (
        "replace_prefix",
        lambda c: c.replace_prefix("j1", "http://a/", "http://b/"),
        "POST /jobs/j1/prefix",
        {"old": "http://a/", "new": "http://b/"},
        {"files_changed": 3, "job": JOB},
    ),
    (
        "set_credentials",
        lambda c: c.set_credentials("j1", BEARER),
        "PUT /jobs/j1/credentials",
        {"scheme": "bearer", "password": "t"},
        JOB,
    ),
    (
        "remove_credentials",
        lambda c: c.remove_credentials("j1", CredentialTarget.PROXY, CredentialScheme.BASIC),
        "DELETE /jobs/j1/credentials/proxy/basic",
        None,
        JOB,
    ),
    ("resume", lambda c: c.resume("j1"), "POST /jobs/j1/resume", None, JOB),
    ("suspend", lambda c: c.suspend("j1"), "POST /jobs/j1/suspend", None, JOB),
    ("cancel", lambda c: c.cancel("j1"), "POST /jobs/j1/cancel", None, JOB),
    ("complete", lambda c: c.complete("j1"), "POST /jobs/j1/complete", None, JOB),
    (
        "set_validation",
        lambda c: c.set_validation("j1", 0, valid=False),
        "PUT /jobs/j1/files/0/validation",
        {"valid": False},
        JOB,
    ),
    (
        "want_ranges",
        lambda c: c.want_ranges("j1", 0, [RangeRequest(offset=5, length=6), RangeRequest(offset=9)]),
        "POST /jobs/j1/files/0/ranges",
        {"ranges": [{"offset": 5, "length": 6}, {"offset": 9}]},
        JOB,
    ),
    (
        "filled_ranges",
        lambda c: c.filled_ranges("j1", 0),
        "GET /jobs/j1/files/0/filled",
        None,
        {"ranges": [{"offset": 5, "length": 6}]},
    ),
    ("set_position", lambda c: c.set_position("j1", 0, 7), "PUT /jobs/j1/files/0/position", {"offset": 7}, JOB),
    ("job", lambda c: c.job("j1"), "GET /jobs/j1", None, JOB),
    ("job_page", lambda c: c.job_page(), "GET /jobs?limit=1000", None, {"jobs": []}),
    (
        "job_page",
        lambda c: c.job_page("j1", 5, brief=True),
        "GET /jobs?limit=5&after=j1&brief=true",
        None,
        {"jobs": [], "next": "j6"},
    ),
    ("jobs", lambda c: c.jobs(brief=True), "GET /jobs?limit=1000&brief=true", None, {"jobs": []}),
    ("wait_change", lambda c: c.wait_change("j1", 7), "GET /jobs/j1?after=7&timeout_s=25.000", None, JOB),
    ("wait", lambda c: c.wait("j1", {"SUSPENDED"}), "GET /jobs/j1", None, JOB),
    ("peers", lambda c: c.peers(), "GET /peers", None, PEERS),
    ("ban_peer", lambda c: c.ban_peer("ab"), "PUT /peers/ab/ban", {"duration_s": 30 * 86_400}, DONE),
    (
        "ban_peer",
        lambda c: c.ban_peer("ab", reason="lies", duration_s=5),
        "PUT /peers/ab/ban",
        {"reason": "lies", "duration_s": 5},
        DONE,
    ),
    ("unban_peer", lambda c: c.unban_peer("ab"), "DELETE /peers/ab/ban", None, DONE),
    ("forget_peer", lambda c: c.forget_peer("ab"), "DELETE /peers/ab", None, DONE),
    ("forget_peers", lambda c: c.forget_peers(), "DELETE /peers", None, DONE),
    ("discover_peers", lambda c: c.discover_peers(), "POST /peers/discover", None, DONE),
    ("cache", lambda c: c.cache(), "GET /cache", None, CACHE),
    (
        "change_cache",
        lambda c: c.change_cache(CacheChange(peer_serve=False)),
        "PATCH /cache",
        {"peer_serve": False},
        CACHE,
    ),
    ("cache_record", lambda c: c.cache_record("cd"), "GET /cache/cd", None, RECORD),
    ("delete_record", lambda c: c.delete_record("cd"), "DELETE /cache/cd", None, DONE),
    (
        "delete_url",
        lambda c: c.delete_url("http://o/a b?x=1&y=é#z"),
        "DELETE /cache?url=http%3A%2F%2Fo%2Fa+b%3Fx%3D1%26y%3D%C3%A9%23z",
        None,
        DONE,
    ),
    ("clear_cache", lambda c: c.clear_cache(), "DELETE /cache", None, {"records": 3}),
    ("explain", lambda c: c.explain("j1"), "GET /jobs/j1/explain", None, EXPLANATION),
    ("statistics", lambda c: c.statistics(), "GET /statistics", None, STATISTICS),
    ("about", lambda c: c.about(), "GET /agent", None, ABOUT),
    ("openapi", lambda c: c.openapi(), "GET /openapi.json", None, {"openapi": "3.1.0"}),
]


@pytest.mark.parametrize(("name", "call", "line", "body", "answer"), CALLS)
async def test_each_call_is_one_request(
    there: WireAgent, client: AgentClient, name: str, call: Call, line: str, body: object, answer: object
) -> None:
    there.answers.append(reply(answer))
    assert await call(client) is not None
    (seen,) = there.seen
    method, _, target = line.partition(" ")
    assert (seen.method, seen.target) == (method, f"/v1{target}")
    assert (seen.headers["host"], seen.headers["connection"]) == ("nearfetch", "close")
    if body is None:
        assert "content-length" not in seen.headers
    else:
        assert seen.headers["content-type"] == "application/json"
        assert says(seen.document, body)


def says(document: object, body: object) -> bool:
    """All of this is in the document; the rest is what leaving it out means."""
    if isinstance(body, dict):
        return isinstance(document, dict) and all(says(document.get(name), item) for name, item in body.items())
    if isinstance(body, list):
        return isinstance(document, list) and all(map(says, document, body)) and len(document) == len(body)
    return document == body


async def test_a_change_names_nothing_else(there: WireAgent, client: AgentClient) -> None:
    there.answers += [reply(JOB), reply(CACHE)]
    await client.change_job("j1", JobChange(http=HttpChange(method="HEAD"), rate_limit=None))
    await client.change_cache(CacheChange(peer_serve=False))
    assert [seen.document for seen in there.seen] == [
        {"http": {"method": "HEAD"}, "rate_limit": None},
        {"peer_serve": False},
    ]


async def test_every_call_is_in_that_table(there: WireAgent, client: AgentClient) -> None:
    others = {"connect", "events", "listen", "watch", "temporary_path"}
    public = {name for name, _ in inspect.getmembers(AgentClient, callable) if not name.startswith("_")}
    assert {name for name, *_ in CALLS} == public - others


async def test_what_comes_back(there: WireAgent, client: AgentClient) -> None:
    there.answers += [
        reply({"ranges": [{"offset": 5, "length": 6}]}),
        reply({"files_changed": 3, "job": JOB}),
        reply({"records": 3, "of a newer agent": 7}),
        reply(STATISTICS),
        reply({"openapi": "3.1.0"}),
    ]
    assert await client.filled_ranges("j1", 0) == [ByteSpan(offset=5, length=6)]
    assert (await client.replace_prefix("j1", "a", "b")).files_changed == 3
    assert await client.clear_cache() == 3
    assert (await client.statistics()).by_peer == {"ab": (6, 7)}
    assert await client.openapi() == {"openapi": "3.1.0"}


@pytest.mark.parametrize("text", ["", "../agent", "a/b", "a?b", "a#b", "é", "a b", "a%2fb", "a\r\nb", "a\n"])
@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("JOB_NOT_FOUND", AgentClient.job),
        ("JOB_NOT_FOUND", lambda client, text: client.set_position(text, 0, 0)),
        ("PEER_NOT_FOUND", AgentClient.unban_peer),
        ("RECORD_NOT_FOUND", AgentClient.delete_record),
    ],
)
async def test_ids_that_are_none_never_leave(
    there: WireAgent, client: AgentClient, text: str, code: str, call: Callable[..., Coroutine[Any, Any, object]]
) -> None:
    with pytest.raises(NotFoundError) as caught:
        await call(client, text)
    assert caught.value.code == code
    assert there.seen == []


async def test_what_would_mean_something_else_never_leaves(there: WireAgent, client: AgentClient) -> None:
    with pytest.raises(UsageError, match="no URL"):
        await client.delete_url("")
    with pytest.raises(UsageError, match="not UTF-8"):
        await client.delete_url("http://o/\udcff")
    with pytest.raises(NotFoundError, match="no file -1"):
        await client.filled_ranges("j1", -1)
    with pytest.raises(ValueError, match="sheep"):
        await client.remove_credentials("j1", "sheep", CredentialScheme.BASIC)  # type: ignore[arg-type]
    assert there.seen == []


# --- the client itself ---------------------------------------------------------------------------------------


async def test_a_call_may_be_cancelled(there: WireAgent, client: AgentClient) -> None:
    there.answers += [silence, reply(JOB)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.job("j1")
    await there.seen[0].left()
    assert (await client.job("j1")).id == "j1"


async def test_any_number_of_calls_at_once(there: WireAgent, client: AgentClient) -> None:
    there.answers.append(reply(JOB))
    jobs: list[JobDocument] = await asyncio.gather(*(client.job("j1") for _ in range(200)))
    assert len(jobs) == len(there.seen) == 200


async def test_entering_asks_who_is_there(there: WireAgent, tmp_path: Path) -> None:
    there.answers.append(reply(ABOUT))
    async with AgentClient.connect(tmp_path) as client:
        assert client.socket == there.path
    assert [seen.target for seen in there.seen] == ["/v1/agent"]
    with pytest.raises(AgentUnavailableError, match="nearfetch run"):
        async with AgentClient.connect(tmp_path / "elsewhere"):
            pytest.fail("there is nobody")


async def test_settings_reach_the_wire(there: WireAgent) -> None:
    there.answers += [silence, streaming(then=closing), raw(b"")]
    client = AgentClient(there.path, timeout_s=0.1, patience_s=0.1)
    with pytest.raises(AgentUnavailableError, match=r"within 0\.1 s"):
        await client.about()
    with pytest.raises(AgentUnavailableError, match="stopped"):
        async with asyncio.timeout(LIMIT_S):
            await client.listen(print)


def test_a_home_with_a_long_name_has_its_socket_elsewhere(tmp_path: Path) -> None:
    near, far = tmp_path / "h", tmp_path / ("h" * 100)
    assert socket_path(near) == near / "agent.sock"
    assert socket_path(far).parent.parent == Path("/tmp")
    assert socket_path(far) != socket_path(tmp_path / ("i" * 100))
    with socket.socket(socket.AF_UNIX) as there, pytest.raises(FileNotFoundError):
        there.connect(str(socket_path(far)))  # short enough to be asked for


def test_the_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEARFETCH_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv("NEARFETCH_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_home().name == "nearfetch"
