"""Why a source did not deliver: values, not exceptions.

One vocabulary for the origin and for peers. `FAILURES` is the only place that says which failures pass by
themselves; it follows the table of BITS (bits-reference 6.3) with 429 made transient, as RFC 6585 §4 means it.
Never knows: jobs, retries, who is asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Persistence(Enum):
    """Whether trying again can help."""

    TRANSIENT = "transient"
    """It may pass by itself: try again after a delay."""
    FATAL = "fatal"
    """It stays until somebody changes something."""


class FailureKind(StrEnum):
    """Every way in which a source or the local disk can fail. The values are the public error codes."""

    # reaching the source
    NAME_NOT_RESOLVED = "NAME_NOT_RESOLVED"
    CONNECT_FAILED = "CONNECT_FAILED"
    CONNECT_TIMEOUT = "CONNECT_TIMEOUT"
    ADDRESS_REFUSED = "ADDRESS_REFUSED"
    """Our own rule forbids the address (for example a redirect from a public host to a private one)."""
    TLS_CERTIFICATE = "TLS_CERTIFICATE"
    """Expired, wrong name, unknown authority."""
    TLS_FAILED = "TLS_FAILED"
    """No TLS could be spoken at all."""
    # what the source said
    UNSUPPORTED_SCHEME = "UNSUPPORTED_SCHEME"
    TOO_MANY_REDIRECTS = "TOO_MANY_REDIRECTS"
    REDIRECT_REFUSED = "REDIRECT_REFUSED"
    BAD_RESPONSE = "BAD_RESPONSE"
    UNEXPECTED_ENCODING = "UNEXPECTED_ENCODING"
    AUTH_REQUIRED = "AUTH_REQUIRED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    GONE = "GONE"
    HTTP_FATAL = "HTTP_FATAL"
    HTTP_TRANSIENT = "HTTP_TRANSIENT"
    BUSY = "BUSY"
    """429 or 503, or a peer above its upload slots; `retry_after_s` says when to come back."""
    # the transfer itself
    CONNECTION_CLOSED = "CONNECTION_CLOSED"
    STALLED = "STALLED"
    """Nothing (or less than the minimum rate) came for the stall time."""
    NO_RANGES = "NO_RANGES"
    """A range was asked for and the whole came (200 for a range that does not start at 0)."""
    CHANGED = "CHANGED"
    """The origin's content is another than the one we began with."""
    LENGTH_MISMATCH = "LENGTH_MISMATCH"
    TOO_LARGE = "TOO_LARGE"
    # peers
    NOT_TRUSTED = "NOT_TRUSTED"
    """Certificate missing, of another group, expired, or the peer is banned."""
    NO_VOUCHER = "NO_VOUCHER"
    """The peer sent bytes without a voucher that verifies."""
    CORRUPT = "CORRUPT"
    """The bytes do not match the digest they came with."""
    INVALID_RANGE = "INVALID_RANGE"
    """The job asked for bytes beyond the end of the content."""
    RANGES_REQUIRED = "RANGES_REQUIRED"
    """The job asked for ranges, and the origin serves none or does not tell its length (BITS:
    INSUFFICIENT_RANGE_SUPPORT)."""
    RANDOM_ACCESS_UNSUPPORTED = "RANDOM_ACCESS_UNSUPPORTED"
    """An on-demand job, and an origin that cannot seek."""
    INVALID_SERVER_RESPONSE = "INVALID_SERVER_RESPONSE"
    """The origin merged, reordered or shortened the ranges that the job asked for."""
    MAX_SIZE_REACHED = "MAX_SIZE_REACHED"
    """More bytes than the job allows."""
    PROXY_INVALID = "PROXY_INVALID"
    """The proxy that the job names cannot be used."""
    NETWORK_DISCONNECTED = "NETWORK_DISCONNECTED"
    """This machine has no network: event-driven, it is no fault of the origin."""
    BLOCKED_BY_POLICY = "BLOCKED_BY_POLICY"
    """The bandwidth policy gives this priority nothing at this hour."""
    # here
    ABORTED = "ABORTED"
    """We ended the request ourselves."""
    DISK_FULL = "DISK_FULL"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    DESTINATION_MISSING = "DESTINATION_MISSING"
    DESTINATION_INVALID = "DESTINATION_INVALID"
    IO_ERROR = "IO_ERROR"


_TRANSIENT = frozenset(
    {
        FailureKind.NAME_NOT_RESOLVED,
        FailureKind.CONNECT_FAILED,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.TLS_FAILED,
        FailureKind.BAD_RESPONSE,
        FailureKind.HTTP_TRANSIENT,
        FailureKind.BUSY,
        FailureKind.CONNECTION_CLOSED,
        FailureKind.STALLED,
        FailureKind.NO_RANGES,
        FailureKind.CHANGED,
        FailureKind.LENGTH_MISMATCH,
        FailureKind.NO_VOUCHER,
        FailureKind.CORRUPT,
        FailureKind.NETWORK_DISCONNECTED,
        FailureKind.BLOCKED_BY_POLICY,
        FailureKind.ABORTED,
        FailureKind.DISK_FULL,
    }
)

LOCAL = frozenset(
    {
        FailureKind.DISK_FULL,
        FailureKind.PERMISSION_DENIED,
        FailureKind.DESTINATION_MISSING,
        FailureKind.DESTINATION_INVALID,
        FailureKind.IO_ERROR,
    }
)
"""Nobody else's fault."""

EVENT_DRIVEN = frozenset({FailureKind.NETWORK_DISCONNECTED, FailureKind.BLOCKED_BY_POLICY})
"""These wait for a condition to clear, not for a delay, and do not count as errors (bits-reference 1.5)."""

PERSISTENCE: dict[FailureKind, Persistence] = {
    kind: Persistence.TRANSIENT if kind in _TRANSIENT else Persistence.FATAL for kind in FailureKind
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failure. `message` is one sentence for the user, without credentials or query strings."""

    kind: FailureKind
    message: str
    retry_after_s: float | None = None
    """Seconds the source asked us to stay away (Retry-After, RFC 9110 §10.2.3), already bounded to one day."""
    http_status: int | None = None

    @property
    def persistence(self) -> Persistence:
        """Transient or fatal, by kind alone."""
        return PERSISTENCE[self.kind]


_PASSING_4XX = frozenset({408, 409, 425, 429})
_FATAL_STATUSES = frozenset({300, 301, 302, 303, 304, 305, 307, *range(400, 500), 501, 505}) - _PASSING_4XX


def failure_of_status(status: int, message: str, retry_after_s: float | None = None) -> Failure:
    """The failure an HTTP status of 300 or above stands for (redirects that are followed never get here).

    The table of bits-reference 6.3, with 425 and 429 made transient (RFC 8470 §5.2, RFC 6585 §4) and 412 read as
    what it says.
    """
    fixed = {
        401: FailureKind.AUTH_REQUIRED,
        407: FailureKind.AUTH_REQUIRED,
        403: FailureKind.FORBIDDEN,
        404: FailureKind.NOT_FOUND,
        410: FailureKind.GONE,
        429: FailureKind.BUSY,
        503: FailureKind.BUSY,
        412: FailureKind.CHANGED,
    }
    default = FailureKind.HTTP_FATAL if status in _FATAL_STATUSES else FailureKind.HTTP_TRANSIENT
    return Failure(
        kind=fixed.get(status, default), message=message, retry_after_s=retry_after_s, http_status=status
    )
