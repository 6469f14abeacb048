"""The Python library: speaks with the agent of a home over its unix socket.

    async with AgentClient.connect() as client:
        job = await client.create_job(NewJob(name="images", files=[NewFile(url=url, path="/data/disk.img")]))
        await client.resume(job.id)
        job = await client.wait(job.id)
        if job.state == "TRANSFERRED":
            await client.complete(job.id)

Without a loop of your own: `SyncClient` (client_sync.py). Imports only the documents, the errors, msgspec and the
standard library, so that it starts in a few hundredths of a second.
Never knows: SQLite, mDNS, TLS, how a job is carried out.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import msgspec

from agent.client_http import Request, Wire, error_of
from agent.client_jobs import FINAL_STATES, POLL_S, RESTING_STATES, JobCalls, checked_job
from agent.client_listen import Callback, Listening
from agent.client_near import NearCalls
from agent.client_socket import check_socket_directory, default_home, peer_uid, socket_path
from agent.client_stream import Feed
from agent.errors import AgentError
from agent.schema import EventDocument, EventKind

__all__ = [
    "ANSWER_TIMEOUT_S",
    "FINAL_STATES",
    "PATIENCE_S",
    "POLL_S",
    "RESTING_STATES",
    "AgentClient",
    "Callback",
    "check_socket_directory",
    "default_home",
    "error_of",
    "peer_uid",
    "socket_path",
]

ANSWER_TIMEOUT_S = 30.0
"""The longest a request may take, long polls excepted."""

PATIENCE_S = 600.0
"""How long `events` and `listen` look for an agent that has stopped."""

_KINDS = frozenset(EventKind)


class AgentClient(JobCalls, NearCalls):
    """A client of one agent. Opens one connection for each call, so it may be shared by any number of tasks and
    every call may be cancelled at any time (the agent may have carried it out all the same).

    Every method raises AgentUnavailableError when no agent answers or it stops meanwhile, and otherwise what the
    agent raised: the same subclass of AgentError, `code` and `context` included.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        """`socket`: path of the agent's socket; `timeout_s`: seconds one call may take, long polls excepted;
        `patience_s`: seconds that `events` and `listen` wait for an agent that has stopped, None: for ever."""
        self.socket = Path(socket)
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self._wire = Wire(socket=self.socket, timeout_s=timeout_s)

    @classmethod
    def connect(
        cls,
        home: str | os.PathLike[str] | None = None,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float | None = PATIENCE_S,
    ) -> Self:
        """The client of the agent that lives in `home` (None: `default_home()`). Entering it, with
        `async with`, checks that the agent answers."""
        path = socket_path(default_home() if home is None else home)
        return cls(path, timeout_s=timeout_s, patience_s=patience_s)

    async def __aenter__(self) -> Self:
        await self.about()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def events(
        self, after: int | None = None, job_id: str | None = None
    ) -> AsyncGenerator[EventDocument, None]:
        """Every event with a sequence number above `after` (None: from now on), then each as it happens; of one job
        or of all (None). Ends when the loop is left.

        When the agent stops, the next one is looked for after 0.1 s, then after longer pauses of up to 5 s, for
        `patience_s` altogether, and asked for what came after the last number: nothing is missed. An event of kind
        `lost` says that this was not possible: look at the jobs themselves then. Raises AgentUnavailableError when
        there is no agent at the beginning, or none comes back.
        """
        feed = Feed(self._wire, _event_request(after, job_id), patience_s=self.patience_s)
        try:
            while True:
                event = await feed.next()
                if event is None:
                    if feed.connection > 1 and after is None and not feed.last_id:
                        yield EventDocument(sequence=None, at=time.time(), kind=EventKind.LOST, job="")
                elif event.kind in _KINDS:  # a newer agent may know more
                    yield _event(event.data)
        finally:
            feed.close()

    async def listen(self, callback: Callback, job_id: str | None = None) -> None:
        """Call `callback(delivery)` for what the notify flags ask for, of one job or of all (None). Runs until
        it is cancelled.

        The callback may be plain (keep it short, it holds up the loop) or return an awaitable. It has taken the
        notice well unless it raises or returns False: then it is logged, and called again later. It may come twice
        for one notice, also after a restart of the agent, and has to look at the job itself. At most four run at
        once, those of one job one after the other; `complete` and `cancel` of the job may be called inside.

        When the agent stops, the next one is looked for as `events` does. Raises AgentUnavailableError when there
        is no agent at the beginning, or none comes back; NotFoundError when the job is gone.
        """
        await Listening(self._wire, delivery_target(job_id), callback, patience_s=self.patience_s).run()


def delivery_target(job_id: str | None) -> str:
    """Where the deliveries of one job, or of all, come from. Raises NotFoundError for what is no id."""
    return "/deliveries" if job_id is None else f"/deliveries?job={checked_job(job_id)}"


def _event_request(after: int | None, job_id: str | None) -> Callable[[str], Request]:
    """What to ask for, given the number of the last event that came ("": none)."""
    fixed = {} if job_id is None else {"job": checked_job(job_id)}

    def request(last_id: str) -> Request:
        number = last_id or (None if after is None else str(after))
        query = urlencode(fixed if number is None else {**fixed, "after": number})
        return Request(method="GET", target=f"/events?{query}" if query else "/events")

    return request


def _event(data: str) -> EventDocument:
    try:
        return msgspec.json.decode(data, type=EventDocument)
    except msgspec.DecodeError as error:
        raise AgentError(f"the agent's event cannot be understood: {error}") from error
