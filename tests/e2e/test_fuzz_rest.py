"""A real agent, fuzzed from the description that it serves: whatever is asked, the answer is one that is described.

Examples are derived from the description alone (`derandomize`), so that a run can be repeated. Half of them are
wrong on purpose. Those that are right are led to jobs that exist: without that, nearly all would end at 404.
Nothing here leads away from this machine: destinations are in a temporary directory, origins on loopback, and the
agent runs no notify commands.
"""

from __future__ import annotations

import itertools
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from agent.api import TABLE, openapi
from agent.client import socket_path
from agent.schema import CredentialPath, DeliveryPath, FilePath, Nothing
from tests.support.agents import ROOT, Agent, Fleet
from tests.support.unix_http import BASE_URL, unix_session

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
]
CONFIG = """
notify_commands = false
max_jobs_per_machine = "off"
max_jobs_per_user = "off"
"""
CLOSED = "http://127.0.0.1:1"
PEER_ID = "ab" * 32
FINAL = ("ACKNOWLEDGED", "CANCELLED")

EXAMPLES = 15
"""For each operation, right ones and wrong ones each."""
LABELS = [pytest.param((route.method, f"/v1{route.path}"), id=route.operation) for route in TABLE]
CAN_BE_WRONG = [
    label
    for label, route in zip(LABELS, TABLE, strict=True)
    if route.takes.path in (FilePath, CredentialPath, DeliveryPath)
    or {route.takes.query, route.takes.body} != {Nothing}
]
"""Of an id alone nobody can say that it is wrong."""


class Material:
    """Jobs of several kinds, each replaced when it has ended."""

    def __init__(self, session: requests.Session, origin: str, directory: Path) -> None:
        self.session = session
        self._origin = origin
        self._directory = directory
        self._numbers = itertools.count()
        self._kinds = itertools.cycle([self._fresh, self._transferred, self._failing, self._on_demand])
        self._urls = itertools.cycle([f"{origin}/small", f"{CLOSED}/x"])
        self._turns = itertools.cycle([True, False])
        self._jobs: dict[str, str] = {}

    def job(self, *, on_demand: bool = False) -> str:
        """The id of a job that lives."""
        kind = self._on_demand if on_demand else next(self._kinds)
        known = self._jobs.get(kind.__name__)
        if known is not None:
            found = self.session.get(f"{BASE_URL}/v1/jobs/{known}")
            if found.status_code == 200 and found.json()["state"] not in FINAL:
                return known
        self._jobs[kind.__name__] = kind()
        return self._jobs[kind.__name__]

    def turn(self) -> bool:
        """True every second time."""
        return next(self._turns)

    def path(self) -> str:
        """A destination that nobody else has."""
        return str(self._directory / f"file-{next(self._numbers)}")

    def url(self) -> str:
        """Of a file that is there, or of none."""
        return next(self._urls)

    def _create(self, base: str, **properties: Any) -> str:
        files = [{"url": f"{base}/{name}", "path": self.path()} for name in ("small", "large")]
        answer = self.session.post(f"{BASE_URL}/v1/jobs", json={"name": "fuzzed", "files": files, **properties})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def _fresh(self) -> str:
        return self._create(self._origin)

    def _on_demand(self) -> str:
        return self._resumed(self._create(self._origin, on_demand=True))

    def _failing(self) -> str:
        return self._resumed(self._create(CLOSED))

    def _resumed(self, job: str) -> str:
        assert self.session.post(f"{BASE_URL}/v1/jobs/{job}/resume").status_code == 200
        return job

    def _transferred(self) -> str:
        job = self._resumed(self._create(self._origin, priority="foreground"))
        after = 0
        for _ in range(100):
            found = self.session.get(f"{BASE_URL}/v1/jobs/{job}?after={after}&timeout_s=5").json()
            if found["state"] == "TRANSFERRED":
                return job
            after = found["sequence"]
        raise AssertionError(found)


@pytest.fixture(name="origin", scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an origin with two files."""
    directory = tmp_path_factory.mktemp("origin")
    (directory / "small").write_bytes(b"near before far\n")
    (directory / "large").write_bytes(bytes(range(256)) * 4096)
    command = [sys.executable, "-m", "tests.support.origin", "--directory", str(directory), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 20)[0], "the origin did not start"
            word, url = process.stdout.readline().split()
            assert word == "ready"
            yield url
        finally:
            process.terminate()


@pytest.fixture(name="agent", scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with a group, alone in it."""
    with Fleet(tmp_path_factory.mktemp("fuzz")) as fleet:
        yield fleet.start("fuzzed", config=CONFIG)


@pytest.fixture(name="material", scope="module")
def speaking(agent: Agent, origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """A session with the agent, and jobs in it."""
    with unix_session(socket_path(agent.home), timeout_s=30) as session:
        yield Material(session, origin.rstrip("/"), tmp_path_factory.mktemp("place"))


TAME: dict[str, Any] = {
    "name": "fuzzed",
    "type": "download",
    "description": "",
    "rate_limit": None,
    "notify_command": None,
    "http": {},
    "user": "u",
    "password": "p",
    "scheme": "basic",
    "ranges": [{"offset": 0, "length": 4}],
}
TAME_FILE: dict[str, Any] = {"digest": None, "validators": [], "headers": {}, "ranges": []}


@pytest.fixture(name="api", scope="module")
def described(material: Material) -> Any:
    """The description that the agent serves."""
    load_all_checks()
    api = schemathesis.openapi.from_dict(material.session.get(f"{BASE_URL}/v1/openapi.json").json())
    api.config.base_url = BASE_URL
    return api


def lead(case: schemathesis.Case, material: Material) -> None:
    """Where the request is right: to things that exist, and nowhere else. Every second one also keeps the rules
    that no schema can tell."""
    tame = material.turn()
    if "job" in case.path_parameters:
        case.path_parameters["job"] = material.job(on_demand=case.operation.label.endswith("/ranges"))
    if "index" in case.path_parameters:
        case.path_parameters["index"] = int(case.path_parameters["index"]) % 2
    if "peer" in case.path_parameters and tame:
        case.path_parameters["peer"] = PEER_ID
    if case.operation.label == "GET /v1/jobs/{job}":
        case.query["timeout_s"] = 0.02
    if "Idempotency-Key" in case.headers and tame:
        case.headers["Idempotency-Key"] = f"key{material.path()}"
    if isinstance(case.body, dict):
        body = case.body
        for file in body.get("files", []):
            file.update({"url": material.url(), "path": material.path()} | (TAME_FILE if tame else {}))
        if "url" in body:
            body["url"] = material.url()
        if "old" in body:
            body |= {"old": CLOSED, "new": material.url()}
        if tame:
            body |= {name: value for name, value in TAME.items() if name in body}


@pytest.mark.parametrize("label", LABELS)
def test_what_is_right_is_answered_as_described(api: Any, material: Material, label: tuple[str, str]) -> None:
    fuzz(api[label[1]][label[0]], GenerationMode.POSITIVE, material)


@pytest.mark.parametrize("label", CAN_BE_WRONG)
def test_what_is_wrong_is_refused_as_described(api: Any, material: Material, label: tuple[str, str]) -> None:
    fuzz(api[label[1]][label[0]], GenerationMode.NEGATIVE, material)


def fuzz(operation: schemathesis.APIOperation, mode: GenerationMode, material: Material) -> None:
    """Some requests for one operation."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def once(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            lead(case, material)
        response = case.call(session=material.session)
        case.validate_response(response, checks=CHECKS)

    once()


def test_the_agent_met_no_error_of_its_own(agent: Agent, api: Any) -> None:
    """After all of the above."""
    assert api.raw_schema == openapi()
    assert "Traceback" not in agent.log
