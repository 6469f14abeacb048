"""What the origin told us about the content. Values only.

Never knows: sockets, jobs, peers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RangeSupport(Enum):
    """What is known about ranged requests at this origin."""

    PROMISED = "promised"
    """`Accept-Ranges: bytes`, or a 206 was seen."""
    UNKNOWN = "unknown"
    NONE = "none"
    """`Accept-Ranges: none`, or a range was answered by the whole."""


class Sharing(Enum):
    """Whether the origin's answer may go to other agents (reliability: default deny)."""

    ALLOWED = "allowed"
    NO_STORE = "no-store"
    PRIVATE = "private"
    VARIES = "varies"
    """`Vary` names something other than Accept-Encoding."""
    CREDENTIALS = "credentials"
    """The request carried credentials, a cookie, or user information in the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginFacts:
    """The origin's description of the content, from a HEAD or from the head of a GET."""

    length: int | None
    """Bytes; None when the origin does not say."""
    etag: str | None = None
    """The ETag as sent, quotes included and `W/` kept (RFC 9110 §8.8.3)."""
    last_modified: str | None = None
    """The Last-Modified header as sent."""
    modified_at: float | None = None
    """The same as seconds since 1970, None when it does not parse."""
    ranges: RangeSupport = RangeSupport.UNKNOWN
    sharing: Sharing = Sharing.ALLOWED

    @property
    def strong_validator(self) -> str | None:
        """ETag if it is strong, else Last-Modified if there is no ETag, else None.

        A weak ETag says that bytes may differ, so neither it nor the date beside it is used.
        """
        if self.etag is not None:
            return None if self.etag.startswith("W/") else self.etag
        return self.last_modified

    def same_content(self, other: OriginFacts) -> bool:
        """False when a later answer cannot be about the same bytes. Unknown fields do not contradict."""
        if self.length is not None and other.length is not None and self.length != other.length:
            return False
        if self.etag is not None and other.etag is not None:
            return self.etag == other.etag
        if self.last_modified is not None and other.last_modified is not None:
            return self.last_modified == other.last_modified
        return True
