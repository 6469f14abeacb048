"""The description of the control interface: complete, valid, and the one that the agent serves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from agent.api import TABLE, openapi
from agent.api_table import AnyRoute, Stream
from agent.client import socket_path
from agent.errors import CODES
from agent.schema import JobList, Nothing
from tests.support.memory_engine import memory_agent
from tests.support.rest import ask

CONTRACT = """
GET /agent
GET /openapi.json
GET /statistics
GET /jobs
POST /jobs
GET /jobs/{job}
GET /jobs/{job}/explain
PATCH /jobs/{job}
POST /jobs/{job}/files
POST /jobs/{job}/resume
POST /jobs/{job}/suspend
POST /jobs/{job}/cancel
POST /jobs/{job}/complete
POST /jobs/{job}/prefix
PUT /jobs/{job}/credentials
DELETE /jobs/{job}/credentials/{target}/{scheme}
PATCH /jobs/{job}/files/{index}
PUT /jobs/{job}/files/{index}/validation
POST /jobs/{job}/files/{index}/ranges
GET /jobs/{job}/files/{index}/filled
PUT /jobs/{job}/files/{index}/position
GET /events
GET /deliveries
POST /deliveries/{delivery}
GET /peers
DELETE /peers
POST /peers/discover
DELETE /peers/{peer}
PUT /peers/{peer}/ban
DELETE /peers/{peer}/ban
GET /cache
PATCH /cache
DELETE /cache
GET /cache/{record}
DELETE /cache/{record}
"""
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

each_route = pytest.mark.parametrize("route", TABLE, ids=[route.operation for route in TABLE])


def operation(route: AnyRoute) -> dict[str, Any]:
    found = openapi()["paths"][f"/v1{route.path}"][route.method.lower()]
    assert isinstance(found, dict)
    return found


def test_every_route_of_the_contract_is_described_and_no_other() -> None:
    described = {
        f"{method.upper()} {path.removeprefix('/v1')}"
        for path, methods in openapi()["paths"].items()
        for method in methods
    }
    assert described == set(CONTRACT.split("\n")) - {""}
    names = [route.operation for route in TABLE]
    assert len(names) == len(set(names)) == len(described)


def test_the_document_is_valid() -> None:
    OPENAPI_31_VALIDATOR.validate(openapi())
    for schema in openapi()["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def references(node: object) -> Iterator[str]:
    match node:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for value in node.values():
                yield from references(value)
        case list():
            for value in node:
                yield from references(value)


def test_every_reference_leads_to_a_schema_and_every_schema_is_used() -> None:
    used = set(references(openapi()))
    assert used == {f"#/components/schemas/{name}" for name in openapi()["components"]["schemas"]}


@each_route
def test_what_a_route_takes_is_described(route: AnyRoute) -> None:
    described = operation(route)
    places = {(parameter["in"], parameter["name"]) for parameter in described["parameters"]}
    assert {name for place, name in places if place == "path"} == set(re.findall(r"{(\w+)}", route.path))
    assert {name for place, name in places if place == "query"} == set(route.takes.query.__struct_fields__)
    assert {name for place, name in places if place == "header"} == {item.name for item in route.takes.headers}
    for parameter in described["parameters"]:
        assert parameter["description"]
        assert parameter["schema"]
    if route.takes.body is Nothing:
        assert "requestBody" not in described
    else:
        (schema,) = (content["schema"] for content in described["requestBody"]["content"].values())
        assert schema == {"$ref": f"#/components/schemas/{route.takes.body.__name__}"}


@each_route
def test_what_a_route_answers_is_described(route: AnyRoute) -> None:
    responses = operation(route)["responses"]
    successes = {status for status in responses if status < "400"}
    assert successes == ({"201", "200"} if route.operation == "createJob" else {"200"})
    for status in successes:
        kind = "text/event-stream" if isinstance(route, Stream) else "application/json"
        assert list(responses[status]["content"]) == [kind]
    for status in set(responses) - successes:
        assert responses[status]["content"] == PROBLEM
    for code in route.gives.codes:
        assert f"`{code}`" in responses[str(CODES[code].status)]["description"]
    assert {"400", "403", "500", "503"} <= set(responses)
    assert ({"408", "413", "415"} <= set(responses)) == (route.takes.body is not Nothing)


def test_fields_have_the_meaning_that_stands_below_them() -> None:
    schemas = openapi()["components"]["schemas"]
    assert schemas["JobDocument"]["properties"]["owner"]["description"] == "Name of the user whose agent this is."
    assert schemas["NewJob"]["properties"]["rate_limit"]["description"].endswith("null: no limit of its own.")
    assert schemas["NewJob"]["additionalProperties"] is False


async def test_the_agent_serves_it_and_its_answers_match(tmp_path: Path) -> None:
    async with memory_agent(tmp_path / "home") as engine:
        socket = socket_path(engine.home)
        served = (await ask(socket, "GET", "/v1/openapi.json")).document
        assert served == msgspec.json.decode(msgspec.json.encode(openapi()))
        await ask(socket, "POST", "/v1/jobs", {"name": "j", "files": [{"url": "http://h/x", "path": "/x"}]})
        listed = (await ask(socket, "GET", "/v1/jobs")).document
    schema = {"$ref": "#/components/schemas/JobList", "components": served["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    validator.validate(listed)
    assert msgspec.convert(listed, JobList).total == 1
    listed["jobs"][0]["priority"] = "urgent"
    assert not validator.is_valid(listed)
