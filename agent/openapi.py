"""The control interface's own description, made from the table of routes and from the documents' types.

What a field means is read from the text below it, in the source of its class: there it stands for the reader of the
code, and nowhere else. Never knows: aiohttp, how a request is carried out.

Sources: OpenAPI Specification 3.1.0; JSON Schema 2020-12; RFC 9457.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from agent.api_http import JSON, PROBLEM_JSON
from agent.api_stream import EVENT_STREAM
from agent.api_table import EVERYWHERE, AnyRoute, Gives, Route, Stream
from agent.errors import CODES
from agent.origin_http import version
from agent.schema import API_VERSION, Document, Nothing, Problem, Request

Json = dict[str, Any]

_NONE = re.compile(r"\bNone\b")

REF = "#/components/schemas/{name}"
BODY_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT: "the body came too slowly",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is longer than {most} bytes",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: f"the body is not {JSON}, or compressed",
}
STRANGERS = "the agent belongs to another user, or a web page asks"
AWAY = "`AGENT_UNAVAILABLE`: the agent is stopping, or has as many connections open as it bears"


def describe(routes: Iterable[AnyRoute]) -> Json:
    """The OpenAPI document."""
    routes = list(routes)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(f"/{API_VERSION}{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nearfetch agent",
            "version": version(),
            "description": "The control interface of one agent, on a unix socket that only its user can open. "
            "Times are seconds since 1970, sizes bytes, rates bytes per second. Unknown fields and query "
            "parameters are refused; readers must ignore fields that they do not know.",
        },
        "servers": [{"url": "/", "description": "over the unix socket `agent.sock` in the agent's home"}],
        "paths": paths,
        "components": {"schemas": _schemas(routes)},
    }


# --- operations ----------------------------------------------------------------------------------------------


def _operation(route: AnyRoute) -> Json:
    described: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": [
            *_parameters(route.takes.path, "path"),
            *_parameters(route.takes.query, "query"),
            *(
                {
                    "name": header.name,
                    "in": "header",
                    "description": header.meaning,
                    "schema": {"type": "string", "pattern": f"^{header.pattern}$"},
                }
                for header in route.takes.headers
            ),
        ],
        "responses": _responses(route),
    }
    if route.takes.body is not Nothing:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(route.takes.body)}}}
    return described


def _parameters(kind: type[msgspec.Struct], place: str) -> list[Json]:
    _, definitions = msgspec.json.schema_components([kind], ref_template=REF)
    described = definitions.get(kind.__name__, {})
    meanings = _meanings(kind)
    return [
        {
            "name": name,
            "in": place,
            "required": place == "path",
            **({"description": meanings[name]} if name in meanings else {}),
            "schema": _without_null(schema),
        }
        for name, schema in described.get("properties", {}).items()
    ]


def _without_null(schema: Json) -> Json:
    """Text that stands in a query is never null: it is left out instead."""
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    kept = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    return {**options[0], **kept}


def _responses(route: AnyRoute) -> dict[str, Json]:
    described: dict[str, Json] = {}
    match route:
        case Stream():
            content = {"schema": {"type": "string"}, "x-event-data": _ref(route.gives.document)}
            meaning = "events, each with its kind and its document, until the agent stops"
            described["200"] = {"description": meaning, "content": {EVENT_STREAM: content}}
        case Route():
            for status, meaning in route.gives.statuses:
                described[str(int(status))] = {
                    "description": meaning,
                    "content": {JSON: {"schema": _answer(route.gives)}},
                }
    for refusal, meanings in sorted(_refusals(route).items()):
        described[str(refusal)] = {
            "description": "; ".join(meanings),
            "content": {PROBLEM_JSON: {"schema": _ref(Problem)}},
        }
    return described


def _answer(gives: Gives) -> Json:
    if not _is_struct(gives.document):
        return {"type": "object"}
    return _ref(gives.document) if gives.also is None else {"anyOf": [_ref(gives.document), _ref(gives.also)]}


def _refusals(route: AnyRoute) -> dict[int, list[str]]:
    meanings: dict[int, list[str]] = {
        int(HTTPStatus.FORBIDDEN): [STRANGERS],
        int(HTTPStatus.SERVICE_UNAVAILABLE): [AWAY],
    }
    for code in dict.fromkeys((*EVERYWHERE, *route.gives.codes)):
        meanings.setdefault(CODES[code].status, []).append(f"`{code}`: {CODES[code].meaning}")
    if route.takes.body is not Nothing:
        for refusal, meaning in BODY_STATUSES.items():
            meanings.setdefault(int(refusal), []).append(meaning.format(most=route.takes.most))
    return meanings


def _ref(kind: type) -> Json:
    return {"$ref": REF.format(name=kind.__name__)}


# --- documents -----------------------------------------------------------------------------------------------


def _is_struct(kind: type) -> bool:
    return issubclass(kind, msgspec.Struct)


def _schemas(routes: list[AnyRoute]) -> Json:
    kinds: dict[type, None] = {Problem: None}
    for route in routes:
        for kind in (route.takes.body, route.gives.document, route.gives.also):
            if kind is not None and kind is not Nothing and _is_struct(kind):
                kinds[kind] = None
    _, components = msgspec.json.schema_components(list(kinds), ref_template=REF)
    schemas = {name: _plain_pairs(schema) for name, schema in components.items()}
    for kind in _documents():
        if kind.__name__ in schemas:
            properties = schemas[kind.__name__].get("properties", {})
            for name, meaning in _meanings(kind).items():
                properties[name] = {**properties[name], "description": meaning}
    return schemas


def _plain_pairs(schema: Any) -> Any:
    """Tuples of one type as arrays of that length: the same, in words that every generator of clients knows."""
    match schema:
        case {"prefixItems": [first, *others], **rest} if all(other == first for other in others):
            return {**rest, "items": first}
        case dict():
            return {name: _plain_pairs(value) for name, value in schema.items()}
        case list():
            return [_plain_pairs(value) for value in schema]
        case _:
            return schema


def _documents() -> list[type[msgspec.Struct]]:
    return [*Document.__subclasses__(), *Request.__subclasses__()]


def _meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each field, where there is one. Empty when the source is not at hand."""
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if (
            isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = _NONE.sub("null", " ".join(below.value.value.split()))
    return found
