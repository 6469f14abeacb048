"""What a word on the command line means: a job, a peer, or a record of the cache.

A job and a peer are named by id, by the first characters of it, or by a name that only one has; a record by id or
its first characters. A word that may mean several is refused in one sentence that lists them.
Never knows: what is done with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.client import AgentClient
from agent.errors import NotFoundError, UsageError
from agent.schema import JobDocument

SHORTEST_ID = 4
"""Characters of an id that may stand for all of it."""

MOST_LISTED = 5
SHOWN_CHARACTERS = 12
PEER_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Something with an id, and how it is told from others."""

    id: str
    name: str | None
    note: str = ""


async def find_job(client: AgentClient, word: str) -> JobDocument:
    """The job, with everything. Raises NotFoundError, UsageError."""
    (found,) = await find_ids(client, [word])
    return await client.job(found)


async def find_ids(client: AgentClient, words: Sequence[str]) -> list[str]:
    """The jobs' ids; the list of jobs is asked for once at most. Raises NotFoundError, UsageError."""
    found: list[str] = []
    living: list[Named] | None = None
    for word in words:
        known = await _by_id(client, word)
        if known is None:
            if living is None:
                living = [_named(job) for job in await client.jobs(brief=True)]
            known = one_of(living, word, "job")
        if known not in found:
            found.append(known)
    return found


async def find_peer(client: AgentClient, word: str) -> str:
    """A peer's id; a whole id may also be of one that was never met. Raises NotFoundError, UsageError."""
    if PEER_ID.fullmatch(word):
        return word
    peers = (await client.peers()).peers
    return one_of([Named(id=peer.id, name=peer.name, note=peer.address) for peer in peers], word, "peer")


async def find_record(client: AgentClient, word: str) -> str:
    """The id of a record of the cache. Raises NotFoundError, UsageError."""
    records = (await client.cache()).records
    return one_of([Named(id=record.id, name=None, note=record.url or "") for record in records], word, "record")


def one_of(items: Iterable[Named], word: str, kind: str) -> str:
    """The id of the only one that the word means. Raises NotFoundError, UsageError."""
    found = []
    for item in items:
        if item.id == word:
            return item.id
        if item.name == word or (len(word) >= SHORTEST_ID and item.id.startswith(word)):
            found.append(item)
    if len(found) == 1:
        return found[0].id
    if not found:
        code = {"job": "JOB_NOT_FOUND", "peer": "PEER_NOT_FOUND"}.get(kind, "RECORD_NOT_FOUND")
        words = "id" if kind == "record" else "id or name"
        raise NotFoundError(f"no {kind} has the {words} {word!r}", code=code)
    listed = ", ".join(_shown(item, found) for item in found[:MOST_LISTED])
    more = f", and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    raise UsageError(f"{word!r} may mean {len(found)} {kind}s: {listed}{more}; give more of the id")


async def _by_id(client: AgentClient, word: str) -> str | None:
    """By the whole id also jobs that have ended are found, while they are remembered."""
    try:
        return (await client.job(word)).id
    except NotFoundError:
        return None


def _named(job: JobDocument) -> Named:
    return Named(id=job.id, name=job.name, note=job.state)


def _shown(item: Named, among: Sequence[Named]) -> str:
    """As much of the id as tells it from the others."""
    length = SHOWN_CHARACTERS
    while length < len(item.id) and sum(other.id[:length] == item.id[:length] for other in among) > 1:
        length += 4
    details = ", ".join(text for text in (item.name, item.note) if text)
    return f"{item.id[:length]} ({details})"
