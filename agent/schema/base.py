"""The words that every document uses: enumerations, limits, and the two base types.

Never knows: the core, SQLite, peers.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

API_VERSION = "v1"

NAME_CHARACTERS = 256
DESCRIPTION_CHARACTERS = 1024
URL_CHARACTERS = 2200
"""Limits of texts as in BITS (bits-reference 1.4)."""


class JobType(StrEnum):
    """BITS' three types. Only downloads exist here; the others are refused with `UPLOAD_UNSUPPORTED`."""

    DOWNLOAD = "download"
    UPLOAD = "upload"
    UPLOAD_REPLY = "upload-reply"


class PeerUse(StrEnum):
    """Whether peers (and the cache) may supply a file, and whether it may be offered to them."""

    PREFER = "prefer"
    NEVER = "never"


class Overwrite(StrEnum):
    """What `complete` does when the destination exists."""

    REPLACE = "replace"
    KEEP = "keep"
    """Leave it, and report `DESTINATION_EXISTS` for that file."""


class OriginUse(StrEnum):
    """What is saved while peers have, or want, the same content."""

    LEAST_ORIGIN = "least-origin"
    """The origin sends only what no working peer has. The default."""
    LEAST_TIME = "least-time"
    """… and whatever the peers cannot deliver in time."""


class Priority(StrEnum):
    """BITS' four priorities."""

    FOREGROUND = "foreground"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Validation(StrEnum):
    """What has been decided about a file's content. BITS shows two values; there are three."""

    UNDECIDED = "undecided"
    VALID = "valid"
    INVALID = "invalid"


class FileState(StrEnum):
    """What one file of a job is doing."""

    WAITING = "waiting"
    PROBING = "probing"
    """The origin is asked what the content is."""
    GATHERING = "gathering"
    """Peers are asked what they have."""
    FETCHING = "fetching"
    VALIDATING = "validating"
    DECIDING = "deciding"
    """Every byte is there and the application has to set the validation state."""
    TRANSFERRED = "transferred"
    FAILED = "failed"
    COMPLETED = "completed"
    """At its destination."""


class Request(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Base of what clients send."""


class Document(msgspec.Struct, kw_only=True, frozen=True):
    """Base of what the agent answers."""
