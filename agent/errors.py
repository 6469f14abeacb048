"""What the agent's users meet when something goes wrong, with exit codes and HTTP statuses in one table.

AgentError                      base: `code` and `context` say what and where; str() is one sentence
├── UsageError                  the request cannot be understood or makes no sense
│   └── ConfigError             the same, found in the configuration
├── LimitError                  a policy of this agent forbids it
├── NotFoundError               no such job, file, or record
├── StateError                  the job's state does not allow it
├── DestinationError            the destination cannot be used
├── AgentUnavailableError       no agent answers for this home
├── HomeInUseError              another agent holds this home
├── DatabaseNewerError          the database was written by a newer version
└── JobFailedError              the job ended in ERROR; carries the error document
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ExitCode(int, Enum):
    """Exit codes of the command line; one for each class of failure. Unknown codes must be read as failure."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    STATE = 4
    NETWORK = 10
    HTTP = 11
    TLS = 12
    RESPONSE = 13
    VALIDATION = 20
    VALIDATOR = 21
    LOCAL_FILE = 30
    DISK_FULL = 31
    UNAVAILABLE = 69
    HOME_IN_USE = 75
    CONFIG = 78
    INTERRUPTED = 130


class Class(NamedTuple):
    """What one error code means outside."""

    exit_code: ExitCode
    status: int
    meaning: str


CODES: dict[str, Class] = {
    "USAGE": Class(ExitCode.USAGE, 400, "the request or command line makes no sense"),
    "UNKNOWN_VALIDATOR": Class(ExitCode.USAGE, 400, "no validator of that name, or a wrong argument for it"),
    "UNSUPPORTED_SCHEME": Class(ExitCode.USAGE, 400, "the URL is neither http nor https"),
    "UPLOAD_UNSUPPORTED": Class(ExitCode.USAGE, 400, "uploads do not exist here; jobs are downloads"),
    "TOO_MANY_JOBS": Class(ExitCode.STATE, 409, "above `max_jobs_per_machine`"),
    "TOO_MANY_JOBS_PER_USER": Class(ExitCode.STATE, 409, "above `max_jobs_per_user`"),
    "TOO_MANY_FILES": Class(ExitCode.STATE, 409, "above `max_files_per_job`"),
    "TOO_MANY_RANGES": Class(ExitCode.STATE, 409, "above `max_ranges_per_file`"),
    "STRING_TOO_LONG": Class(ExitCode.USAGE, 400, "a text above its limit, which the message names"),
    "IDEMPOTENCY_CONFLICT": Class(ExitCode.STATE, 409, "the idempotency key was used for another request"),
    "NOTIFY_COMMANDS_OFF": Class(ExitCode.STATE, 403, "the administrator allows no notify commands"),
    "RECORD_NOT_FOUND": Class(ExitCode.NOT_FOUND, 404, "no such record in the peer cache"),
    "PEER_NOT_FOUND": Class(ExitCode.NOT_FOUND, 404, "no such peer"),
    "NO_GROUP": Class(ExitCode.STATE, 409, "this agent has no group"),
    "DELIVERY_NOT_FOUND": Class(
        ExitCode.NOT_FOUND, 404, "no such delivery: another listener has it, or it is over"
    ),
    "JOB_NOT_FOUND": Class(ExitCode.NOT_FOUND, 404, "no such job or file"),
    "INVALID_STATE": Class(ExitCode.STATE, 409, "the job's state does not allow it"),
    "NAME_NOT_RESOLVED": Class(ExitCode.NETWORK, 502, "the host's name has no address"),
    "CONNECT_FAILED": Class(ExitCode.NETWORK, 502, "refused, unreachable, or reset while connecting"),
    "CONNECT_TIMEOUT": Class(ExitCode.NETWORK, 504, "no answer to the connection attempt"),
    "CONNECTION_CLOSED": Class(ExitCode.NETWORK, 502, "closed in the middle of the transfer"),
    "STALLED": Class(ExitCode.NETWORK, 504, "nothing came for the stall time"),
    "ADDRESS_REFUSED": Class(ExitCode.NETWORK, 502, "our own rule forbids that address"),
    "TLS_CERTIFICATE": Class(
        ExitCode.TLS, 502, "certificate expired, for another name, or of an unknown authority"
    ),
    "TLS_FAILED": Class(ExitCode.TLS, 502, "no TLS could be spoken"),
    "AUTH_REQUIRED": Class(ExitCode.HTTP, 502, "401 or 407"),
    "FORBIDDEN": Class(ExitCode.HTTP, 502, "403"),
    "NOT_FOUND": Class(ExitCode.HTTP, 502, "404"),
    "GONE": Class(ExitCode.HTTP, 502, "410"),
    "HTTP_FATAL": Class(ExitCode.HTTP, 502, "another status that does not pass by itself"),
    "HTTP_TRANSIENT": Class(ExitCode.HTTP, 502, "408, 409, 425 or 5xx, until patience ended"),
    "BUSY": Class(ExitCode.HTTP, 503, "429 or 503, until patience ended"),
    "TOO_MANY_REDIRECTS": Class(ExitCode.HTTP, 502, "more than ten"),
    "REDIRECT_REFUSED": Class(ExitCode.HTTP, 502, "from https to http, or to another protocol"),
    "BAD_RESPONSE": Class(ExitCode.RESPONSE, 502, "the answer is not HTTP, or contradicts itself"),
    "UNEXPECTED_ENCODING": Class(ExitCode.RESPONSE, 502, "compressed though not asked for"),
    "NO_RANGES": Class(ExitCode.RESPONSE, 502, "the origin cannot serve ranges"),
    "CHANGED": Class(ExitCode.RESPONSE, 502, "the content kept changing under the transfer"),
    "LENGTH_MISMATCH": Class(ExitCode.RESPONSE, 502, "the origin has fewer or more bytes than it said"),
    "TOO_LARGE": Class(ExitCode.RESPONSE, 502, "larger than can be meant"),
    "INVALID_RANGE": Class(ExitCode.USAGE, 400, "an empty or impossible range, or one beyond the end of the file"),
    "OVERLAPPING_RANGES": Class(ExitCode.USAGE, 400, "two ranges of one file overlap"),
    "RANGES_REQUIRED": Class(ExitCode.RESPONSE, 502, "the job asks for ranges and the origin cannot serve them"),
    "RANDOM_ACCESS_UNSUPPORTED": Class(ExitCode.RESPONSE, 502, "an on-demand job, and an origin that cannot seek"),
    "INVALID_SERVER_RESPONSE": Class(ExitCode.RESPONSE, 502, "the origin merged or reordered the ranges"),
    "MAX_SIZE_REACHED": Class(ExitCode.RESPONSE, 502, "more bytes than the job allows"),
    "MAX_DOWNLOAD_TIME": Class(ExitCode.NETWORK, 504, "the job transferred for longer than it may"),
    "PROXY_INVALID": Class(ExitCode.NETWORK, 502, "the proxy cannot be used"),
    "NETWORK_DISCONNECTED": Class(ExitCode.NETWORK, 503, "this machine has no network; waits until it has one"),
    "BLOCKED_BY_POLICY": Class(ExitCode.NETWORK, 503, "the bandwidth policy gives nothing now; waits for its end"),
    "NOT_TRUSTED": Class(ExitCode.NETWORK, 502, "a peer that is not of the group, or banned"),
    "NO_VOUCHER": Class(ExitCode.NETWORK, 502, "a peer's bytes came without a valid voucher"),
    "CORRUPT": Class(ExitCode.NETWORK, 502, "a peer's bytes did not match their digest"),
    "ABORTED": Class(ExitCode.UNEXPECTED, 500, "ended by the agent itself"),
    "VALIDATION_FAILED": Class(ExitCode.VALIDATION, 422, "a validator rejected the origin's content"),
    "VALIDATOR_FAILED": Class(ExitCode.VALIDATOR, 500, "a validator crashed, timed out, or could not be started"),
    "DESTINATION_MISSING": Class(ExitCode.LOCAL_FILE, 400, "the destination's directory does not exist"),
    "DESTINATION_INVALID": Class(
        ExitCode.LOCAL_FILE, 400, "the destination is a directory, or its name cannot be used"
    ),
    "DESTINATION_EXISTS": Class(ExitCode.LOCAL_FILE, 409, "the destination exists and is to be kept"),
    "PERMISSION_DENIED": Class(ExitCode.LOCAL_FILE, 403, "no permission to write there"),
    "IO_ERROR": Class(ExitCode.LOCAL_FILE, 500, "the disk failed"),
    "DISK_FULL": Class(ExitCode.DISK_FULL, 507, "no space left, or over quota"),
    "AGENT_UNAVAILABLE": Class(ExitCode.UNAVAILABLE, 503, "no agent answers for this home"),
    "HOME_IN_USE": Class(ExitCode.HOME_IN_USE, 409, "another agent holds this home"),
    "CONFIG": Class(ExitCode.CONFIG, 400, "configuration, group key, or identity cannot be used"),
    "DATABASE_NEWER": Class(ExitCode.CONFIG, 500, "the database was written by a newer version"),
    "UNEXPECTED": Class(ExitCode.UNEXPECTED, 500, "a bug: please report it"),
}
"""Every error code: exit code, HTTP status, meaning. The README's table is compared with this."""


class AgentError(Exception):
    """Base. `str(error)` is one sentence meant for the user."""

    code = "UNEXPECTED"
    context = "agent"

    def __init__(self, message: str, *, code: str | None = None, context: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if context is not None:
            self.context = context

    @property
    def exit_code(self) -> ExitCode:
        """What the command line exits with."""
        return exit_code_of(self.code)

    @property
    def status(self) -> int:
        """What REST answers with."""
        return CODES[self.code].status if self.code in CODES else 500


class UsageError(AgentError):
    """The request cannot be understood or makes no sense."""

    code = "USAGE"


class LimitError(AgentError):
    """A policy of this agent forbids it; the message names the setting."""

    code = "TOO_MANY_JOBS"
    context = "policy"


class ConfigError(UsageError):
    """The configuration cannot be used."""

    code = "CONFIG"


class NotFoundError(AgentError):
    """No such job, file, or record."""

    code = "JOB_NOT_FOUND"


class StateError(AgentError):
    """The job's state does not allow it."""

    code = "INVALID_STATE"


class DestinationError(AgentError):
    """The destination cannot be used."""

    code = "DESTINATION_INVALID"
    context = "local file"


class AgentUnavailableError(AgentError):
    """No agent answers for this home."""

    code = "AGENT_UNAVAILABLE"


class HomeInUseError(AgentError):
    """Another agent holds this home."""

    code = "HOME_IN_USE"


class DatabaseNewerError(AgentError):
    """The database was written by a newer version; it is left untouched."""

    code = "DATABASE_NEWER"


class JobFailedError(AgentError):
    """A job ended in ERROR."""


def exit_code_of(code: str) -> ExitCode:
    """Exit code for an error code; unknown codes are failures."""
    return CODES[code].exit_code if code in CODES else ExitCode.UNEXPECTED
