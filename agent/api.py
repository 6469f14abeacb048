"""REST over the unix socket: document in, call of `Control`, document out.

The routes are under `/v1` and are one table: `TABLE`. Whoever connects must be the same user as we are (root is
nobody special); bodies are JSON with known fields only; every refusal is a Problem document (RFC 9457).
Never knows: the core, SQLite, peers, how a request is carried out.

Sources: RFC 9110 §15 (statuses), RFC 9457 (problem documents), unix(7).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, assert_never

from aiohttp import web

from agent.api_http import answer, our_user_only, problems, read_body, read_path, read_query, refuse_body
from agent.api_jobs import ALL_JOBS, ITS_FILES, LISTENING, ONE_JOB
from agent.api_near import ABOUT, CACHE, PEERS
from agent.api_socket import LIMITS, serving
from agent.api_stream import Lasting, Limits
from agent.api_table import MAX_BODY_BYTES, Answer, AnyRoute, Ask, Gives, Reply, Route, Stream, Takes
from agent.errors import AgentUnavailableError, UsageError
from agent.openapi import describe
from agent.schema import API_VERSION, Nothing

if TYPE_CHECKING:
    from agent.api_http import Handler
    from agent.control import Control

__all__ = ["MAX_BODY_BYTES", "TABLE", "Limits", "make_app", "openapi", "serving"]

DEFAULT_LIMITS = Limits()


@functools.cache
def openapi() -> dict[str, Any]:
    """The description of this interface; takes a fifth of a second the first time."""
    return describe(TABLE)


_OPENAPI = Route(
    "GET",
    "/openapi.json",
    "getOpenApi",
    "This description",
    Takes(Nothing, Nothing, Nothing),
    Gives(dict[str, Any]),
    lambda control, ask: asyncio.to_thread(openapi),
    at_once=True,
)

TABLE: tuple[AnyRoute, ...] = (
    *ABOUT,
    _OPENAPI,
    *ALL_JOBS,
    *ONE_JOB,
    *ITS_FILES,
    *LISTENING,
    *PEERS,
    *CACHE,
)
"""Every route, in the order of the description."""


class _Doors:
    """One aiohttp handler for each row of the table."""

    def __init__(self, control: Control, limits: Limits) -> None:
        self._control = control
        self._limits = limits
        self.lasting = Lasting(limits)

    def handler(self, route: AnyRoute) -> Handler:
        """What aiohttp calls."""

        async def handle(request: web.Request) -> web.StreamResponse:
            ask = await self._understand(request, route.takes)
            if not (isinstance(route, Route) and route.at_once):
                await self._control.ready()
            match route:
                case Stream():
                    return await self.lasting.stream(request, route.call(self._control, ask))
                case Route():
                    return await self._answer(route, ask)
                case _:
                    assert_never(route)

        return handle

    async def _understand(self, request: web.Request, takes: Takes[Any, Any, Any]) -> Ask[Any, Any, Any]:
        path, query = read_path(request, takes.path), read_query(request, takes.query)
        headers = {}
        for header in takes.headers:
            if header.name in request.headers:
                value = ",".join(request.headers.getall(header.name))
                if not re.fullmatch(header.pattern, value):
                    raise UsageError(f"the header {header.name} must match {header.pattern}")
                headers[header.name] = value
        if takes.body is Nothing:
            refuse_body(request)
            body = Nothing()
        else:
            body = await read_body(request, takes.body, takes.most, self._limits.body_timeout_s)
        return Ask(path=path, query=query, body=body, headers=headers)

    async def _answer(self, route: Route[Any, Any, Any], ask: Ask[Any, Any, Any]) -> web.Response:
        if not route.waits:
            found = await _called(route.call, self._control, ask)
        else:
            try:
                async with self.lasting.scope():
                    found = await _called(route.call, self._control, ask)
            except TimeoutError:
                raise AgentUnavailableError("the agent is stopping") from None
        if isinstance(found, Reply):
            return answer(found.document, found.status)
        return answer(found, HTTPStatus.OK)


async def _called(call: Callable[..., Any], control: Control, ask: Ask[Any, Any, Any]) -> Answer:
    """Some calls have nothing to wait for."""
    found = call(control, ask)
    result: Answer = await found if inspect.isawaitable(found) else found
    return result


def make_app(control: Control, limits: Limits = DEFAULT_LIMITS) -> web.Application:
    """The control interface as an aiohttp application; to be served on a unix socket only (`serving`)."""
    doors = _Doors(control, limits)
    app = web.Application(middlewares=[problems, our_user_only])
    app[LIMITS] = limits
    for route in TABLE:  # not `add_routes`: that would answer HEAD wherever there is GET, streams included
        app.router.add_route(route.method, f"/{API_VERSION}{route.path}", doors.handler(route))
    app.on_shutdown.append(doors.lasting.end)
    return app
