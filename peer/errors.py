"""What can go wrong in this package before any transfer (a source's failures are values: `core/failure.py`).

PeerError                       base: catch this to catch all of them
├── GroupKeyError               text that is no group key; the message says what is wrong with it
├── IdentityError               key, certificate or authority cannot be used (carries the file)
├── DiscoveryError              mDNS cannot run here (carries the interfaces that exist)
├── ListenError                 the peer port cannot be opened
├── LedgerError                 the record of bans was written by a newer nearfetch
└── DatabaseError               in database.py, with its own branches: in use, too new, disk full
"""

from __future__ import annotations

from pathlib import Path


class PeerError(Exception):
    """Base of this package's errors. `str(error)` is one sentence meant for the user."""


class GroupKeyError(PeerError, ValueError):
    """Text that is not a group key, or one with a typing mistake."""


class IdentityError(PeerError):
    """The agent cannot prove who it is. `file` is the file to look at, None when no single file is at fault."""

    def __init__(self, message: str, file: Path | None = None) -> None:
        super().__init__(message)
        self.file = file


class DiscoveryError(PeerError):
    """Peers cannot be found by mDNS; everything else works. `existing` names the interfaces of this machine."""

    def __init__(self, message: str, existing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.existing = existing


class ListenError(PeerError, OSError):
    """The address or port for peers cannot be opened."""


class LedgerError(PeerError):
    """The record of bans cannot be read and must not be replaced. `file` is its path."""

    def __init__(self, message: str, file: Path) -> None:
        super().__init__(message)
        self.file = file
