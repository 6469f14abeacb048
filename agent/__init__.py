"""Top layer: jobs. The public library of nearfetch.

AgentClient, default_home                           speak with an agent
NewJob, NewFile, Priority, PeerUse, Overwrite       what you send
JobDocument, FileDocument, FileState, Validation, ErrorDocument, AgentDocument, PeerList, PeerDocument,
CacheList, CacheRecordDocument                      what you get
AgentError, UsageError, ConfigError, NotFoundError, StateError, DestinationError, AgentUnavailableError,
HomeInUseError, DatabaseNewerError, JobFailedError, ExitCode      what can go wrong
FINAL_STATES, RESTING_STATES                        sets of job states

Names are loaded at first use, so that `import agent` costs nothing. Everything else in this package is internal.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.client import FINAL_STATES, RESTING_STATES, AgentClient, default_home
    from agent.errors import (
        AgentError,
        AgentUnavailableError,
        ConfigError,
        DatabaseNewerError,
        DestinationError,
        ExitCode,
        HomeInUseError,
        JobFailedError,
        NotFoundError,
        StateError,
        UsageError,
    )
    from agent.schema import (
        AgentDocument,
        CacheList,
        CacheRecordDocument,
        ErrorDocument,
        FileDocument,
        FileState,
        JobDocument,
        NewFile,
        NewJob,
        Overwrite,
        PeerDocument,
        PeerList,
        PeerUse,
        Priority,
        Validation,
    )

__all__ = [
    "FINAL_STATES",
    "RESTING_STATES",
    "AgentClient",
    "AgentDocument",
    "AgentError",
    "AgentUnavailableError",
    "CacheList",
    "CacheRecordDocument",
    "ConfigError",
    "DatabaseNewerError",
    "DestinationError",
    "ErrorDocument",
    "ExitCode",
    "FileDocument",
    "FileState",
    "HomeInUseError",
    "JobDocument",
    "JobFailedError",
    "NewFile",
    "NewJob",
    "NotFoundError",
    "Overwrite",
    "PeerDocument",
    "PeerList",
    "PeerUse",
    "Priority",
    "StateError",
    "UsageError",
    "Validation",
    "default_home",
]

_HOMES = ("agent.errors", "agent.schema", "agent.client")
"""Where the names are defined, lightest first."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in _HOMES:
            module = import_module(home)
            if name in vars(module):
                found: object = vars(module)[name]
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
