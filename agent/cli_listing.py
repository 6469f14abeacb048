"""`nearfetch job list`: ten thousand jobs within a second.

So without typer (cli_fast.py reads the command line when it is plain), briefly, without files, and without a
library that draws tables. Never knows: how the command line is parsed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agent.cli_job_text import print_job, print_jobs
from agent.cli_support import ask, emit, out
from agent.client import AgentClient
from agent.errors import UsageError
from agent.schema import JobDocument, JobList

STATES = (
    "SUSPENDED",
    "QUEUED",
    "CONNECTING",
    "TRANSFERRING",
    "VALIDATING",
    "TRANSFERRED",
    "TRANSIENT_ERROR",
    "ERROR",
    "ACKNOWLEDGED",
    "CANCELLED",
)
"""A job's states, in the order of its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """The command line of `job list`."""

    states: tuple[str, ...] = ()
    name: str | None = None
    """A pattern of the shell."""
    long: bool = False
    json: bool = False


def list_jobs(options: ListOptions, home: Path | None) -> None:
    """Print the jobs that are wanted. Raises AgentError."""
    states = states_of(options.states)
    client = AgentClient.connect(home)
    brief = not (options.long or options.json)
    found = ask(lambda: client.jobs(brief=brief))
    jobs = [job for job in found if _wanted(job, states, options.name)]
    if options.json:
        emit(JobList(jobs=jobs, total=len(jobs)))
    elif options.long:
        for number, job in enumerate(jobs):
            if number:
                out("")
            print_job(job)
    elif jobs:
        print_jobs(jobs)


def states_of(words: Collection[str]) -> frozenset[str]:
    """States as they are spelled in documents. Raises UsageError."""
    found = {word.upper().replace("-", "_") for word in words}
    unknown = found.difference(STATES)
    if unknown:
        raise UsageError(f"there is no state {min(unknown)}; there are {', '.join(STATES)}")
    return frozenset(found)


def _wanted(job: JobDocument, states: Collection[str], name: str | None) -> bool:
    return (not states or job.state in states) and (name is None or fnmatch.fnmatchcase(job.name, name))
