"""Requests and answers of the control interface as HTTP has them: bodies, parameters, problems, who may ask.

Every refusal is a Problem document; what cannot be understood names the field. Never knows: which routes there are,
what is asked for.

Sources: RFC 9110 §15 (statuses), RFC 9457 (problem documents), RFC 8259 §4 (names within an object ought to be
unique), unix(7).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from agent.client_socket import peer_uid
from agent.errors import AgentError, UsageError
from agent.schema import Problem

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
BESIDE_LOOP_BYTES = 64 * 1024
"""Longer bodies are searched for doubled names in a thread: Python reads about 50 MB a second."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedRequest(UsageError):
    """A request that HTTP has a status of its own for."""

    def __init__(self, message: str, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self._status = status
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The status given."""
        return self._status


# --- requests ------------------------------------------------------------------------------------------------


async def read_body(request: web.Request, kind: type[T], most: int, timeout_s: float) -> T:
    """The request's document. Raises UsageError with the field named, RefusedRequest."""
    if request.content_type != JSON:
        raise RefusedRequest(f"the body must be {JSON}", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if "Content-Encoding" in request.headers:
        raise RefusedRequest("the body must not be compressed", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    try:
        async with asyncio.timeout(timeout_s):
            body = await _collect(request, most)
    except TimeoutError:
        raise RefusedRequest("the body came too slowly", HTTPStatus.REQUEST_TIMEOUT) from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise UsageError("the body ended early, or its coding is broken") from error
    try:
        document = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"the request cannot be understood: {error}") from error
    if len(body) > BESIDE_LOOP_BYTES:
        await asyncio.to_thread(_refuse_doubled_names, body)
    else:
        _refuse_doubled_names(body)
    return document


async def _collect(request: web.Request, most: int) -> bytes:
    body = bytearray()
    if (request.content_length or 0) <= most:
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > most:
                break
        else:
            return bytes(body)
    raise RefusedRequest(f"the body is longer than {most} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _refuse_doubled_names(body: bytes) -> None:
    """msgspec takes the last of several values without a word. The body is known to be shallow: it was decoded."""
    json.loads(body, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        doubled = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the request cannot be understood: `{doubled}` is given twice in one object")


def refuse_body(request: web.Request) -> None:
    """Raises UsageError when something came that would be left unread."""
    if request.can_read_body:
        raise UsageError(f"{request.method} {request.path} takes no body")


def read_query(request: web.Request, kind: type[T]) -> T:
    """The query's parameters. Raises UsageError with the parameter named."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for name in request.query:
        if name not in known:
            there_are = f"there are {', '.join(known)}" if known else "there are none here"
            raise UsageError(f"unknown query parameter {name!r}: {there_are}")
        if len(request.query.getall(name)) > 1:
            raise UsageError(f"the query parameter {name} is given twice")
    return _convert(dict(request.query), kind, "the query cannot be understood")


def read_path(request: web.Request, kind: type[T]) -> T:
    """What stands in the path. Raises UsageError with the part named."""
    return _convert(dict(request.match_info), kind, "the path cannot be understood")


def _convert(texts: dict[str, str], kind: type[T], complaint: str) -> T:
    try:
        return msgspec.convert(texts, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{complaint}: {error}") from error


# --- answers -------------------------------------------------------------------------------------------------


def answer(document: object, status: int = HTTPStatus.OK) -> web.Response:
    """A document as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(document), content_type=JSON)


def problem_of(error: AgentError) -> Problem:
    """The document for an error."""
    return Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=str(error),
        code=error.code,
        context=error.context,
    )


def refusal(error: AgentError) -> web.Response:
    """The answer for an error."""
    headers = error.headers if isinstance(error, RefusedRequest) else {}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {**headers, "Retry-After": "1"}
    content = msgspec.json.encode(problem_of(error))
    return web.Response(status=error.status, body=content, content_type=PROBLEM_JSON, headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a Problem document."""
    try:
        return await handler(request)
    except AgentError as error:
        return refusal(error)
    except web.HTTPException as error:
        return refusal(_of_http(request, error))
    except Exception:  # the top of the request's task: whatever it is, the client gets a sentence
        log.exception("%s %s failed", request.method, request.raw_path)
        return refusal(AgentError("the agent met an error of its own: see its log"))


@web.middleware
async def our_user_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The kernel says who is at the other end; root is nobody special. A browser names the page it asks for, and no
    page has any business here, however its request got through."""
    connected = None if request.transport is None else request.transport.get_extra_info("socket")
    if connected is None or connected.family != socket.AF_UNIX or peer_uid(connected) != os.geteuid():
        log.warning("a request of another user was refused")
        raise RefusedRequest("this agent belongs to another user", HTTPStatus.FORBIDDEN)
    if "Origin" in request.headers:
        raise RefusedRequest("web pages may not use this interface", HTTPStatus.FORBIDDEN)
    return await handler(request)


def _of_http(request: web.Request, error: web.HTTPException) -> AgentError:
    """What aiohttp itself refuses: unknown paths and methods."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.path} has no method {request.method}: there are {allowed}"
        return RefusedRequest(message, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": allowed})
    if error.status == HTTPStatus.NOT_FOUND:
        return RefusedRequest(f"there is no {request.path}", HTTPStatus.NOT_FOUND)
    return RefusedRequest(error.reason, HTTPStatus(error.status))
