"""What a chunk's digest may rest on. A file of its own, so that reading the configuration costs next to nothing."""

from __future__ import annotations

from enum import StrEnum


class Integrity(StrEnum):
    """What a chunk's digest may rest on before the chunk is used from, or offered to, a peer."""

    ANCHORED = "anchored"
    """Only on digests from the job or its publisher's manifest."""
    VOUCHED = "vouched"
    """On the signed word of the group member that fetched the chunk from the origin. The default."""
    WHOLE = "whole"
    """Like vouched for fetching; offered only after the whole file was accepted."""
