"""Top layer: jobs. The public library of nearfetch.

AgentClient, SyncClient, default_home               speak with an agent, with `await` or without
NewJob, NewFile, RangeRequest, JobChange, HttpSettings, HttpChange, ProxySettings, CertificateFiles,
CredentialChange, CacheChange                       what you send
JobType, Priority, PeerUse, OriginUse, Overwrite, ProxyUsage, RedirectPolicy, SecurityFlag, CredentialTarget,
CredentialScheme, NotifyFlags                       words that stand in it
JobDocument, FileDocument, FileState, Validation, ErrorDocument, CredentialDocument, JobList, PrefixReplaced,
ByteSpan, AgentDocument, Statistics, PeerList, PeerDocument, CacheList, CacheRecordDocument, Done
                                                    what you get
Explanation, FileExplanation, ExplainedRange, SourceShare, SourceKind      where the bytes came from, and why
EventDocument, EventKind, DeliveryDocument          what listeners get
AgentError, UsageError, ConfigError, LimitError, NotFoundError, StateError, DestinationError,
AgentUnavailableError, HomeInUseError, DatabaseNewerError, JobFailedError, ExitCode      what can go wrong
FINAL_STATES, RESTING_STATES                        sets of job states

Names are loaded at first use, so that `import agent` costs nothing. Everything else in this package is internal.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.client import FINAL_STATES, RESTING_STATES, AgentClient, default_home
    from agent.client_sync import SyncClient
    from agent.core.notice_values import NotifyFlags
    from agent.errors import (
        AgentError,
        AgentUnavailableError,
        ConfigError,
        DatabaseNewerError,
        DestinationError,
        ExitCode,
        HomeInUseError,
        JobFailedError,
        LimitError,
        NotFoundError,
        StateError,
        UsageError,
    )
    from agent.schema import (
        AgentDocument,
        ByteSpan,
        CacheChange,
        CacheList,
        CacheRecordDocument,
        CertificateFiles,
        CredentialChange,
        CredentialDocument,
        CredentialScheme,
        CredentialTarget,
        DeliveryDocument,
        Done,
        ErrorDocument,
        EventDocument,
        EventKind,
        ExplainedRange,
        Explanation,
        FileDocument,
        FileExplanation,
        FileState,
        HttpChange,
        HttpSettings,
        JobChange,
        JobDocument,
        JobList,
        JobType,
        NewFile,
        NewJob,
        OriginUse,
        Overwrite,
        PeerDocument,
        PeerList,
        PeerUse,
        PrefixReplaced,
        Priority,
        ProxySettings,
        ProxyUsage,
        RangeRequest,
        RedirectPolicy,
        SecurityFlag,
        SourceKind,
        SourceShare,
        Statistics,
        Validation,
    )

__all__ = [
    "FINAL_STATES",
    "RESTING_STATES",
    "AgentClient",
    "AgentDocument",
    "AgentError",
    "AgentUnavailableError",
    "ByteSpan",
    "CacheChange",
    "CacheList",
    "CacheRecordDocument",
    "CertificateFiles",
    "ConfigError",
    "CredentialChange",
    "CredentialDocument",
    "CredentialScheme",
    "CredentialTarget",
    "DatabaseNewerError",
    "DeliveryDocument",
    "DestinationError",
    "Done",
    "ErrorDocument",
    "EventDocument",
    "EventKind",
    "ExitCode",
    "ExplainedRange",
    "Explanation",
    "FileDocument",
    "FileExplanation",
    "FileState",
    "HomeInUseError",
    "HttpChange",
    "HttpSettings",
    "JobChange",
    "JobDocument",
    "JobFailedError",
    "JobList",
    "JobType",
    "LimitError",
    "NewFile",
    "NewJob",
    "NotFoundError",
    "NotifyFlags",
    "OriginUse",
    "Overwrite",
    "PeerDocument",
    "PeerList",
    "PeerUse",
    "PrefixReplaced",
    "Priority",
    "ProxySettings",
    "ProxyUsage",
    "RangeRequest",
    "RedirectPolicy",
    "SecurityFlag",
    "SourceKind",
    "SourceShare",
    "StateError",
    "Statistics",
    "SyncClient",
    "UsageError",
    "Validation",
    "default_home",
]

_HOMES = ("agent.errors", "agent.schema", "agent.client", "agent.client_sync", "agent.core.notice_values")
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
