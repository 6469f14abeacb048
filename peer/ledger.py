"""What is remembered of peers when the agent stops: who is banned and why, and the bytes given and taken.

One small JSON document, replaced as a whole. A damaged one is set aside, never overwritten in silence, because
losing it lifts bans. Times are seconds since 1970; a clock that jumped can shorten no ban while the agent runs and
lengthen none beyond its own length.
Never knows: sockets, who is online, what an offence leads to.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peer import durable
from peer.core.standing import Offence
from peer.core.voucher import PeerId
from peer.errors import LedgerError

VERSION = 2
"""1 knew no totals of forgotten peers and no bans by people."""
MAX_PEERS = 4096
"""Peers remembered; beyond it those without a ban and longest not seen are forgotten."""
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_DETAIL_CHARACTERS = 500
ABSENCE_S = 90 * 86400.0
"""A peer that was not met this long is forgotten (BITS: "long absence"; as long as an unused record lives)."""

_BY_PEOPLE = "ADMINISTRATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """A member that is not listened to. `since` and `until` in seconds since 1970."""

    peer_id: PeerId
    offence: Offence | None
    """None: somebody decided it."""
    detail: str
    since: float
    until: float

    @property
    def reason(self) -> str:
        """Why, for people."""
        return ": ".join(filter(None, (self.offence, self.detail))) or "banned by an administrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes over the lifetime of this agent."""

    given: int = 0
    taken: int = 0


class _Record(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    given: int = 0
    taken: int = 0
    seen: float = 0.0
    name: str = ""
    offence: str | None = None
    detail: str = ""
    since: float = 0.0
    until: float = 0.0


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    peers: dict[str, _Record]
    forgotten: _Record = msgspec.field(default_factory=_Record)
    """Bytes of those that are not remembered any more."""


class _Versioned(msgspec.Struct):
    version: int


class Ledger:
    """The record of peers, in memory; `save` writes it. Not safe to change from two threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._peers: dict[str, _Record] = {}
        self._forgotten = _Record()
        self._dirty = False
        self.problems: list[str] = []
        """Sentences about what was wrong with the file."""

    @classmethod
    def load(cls, path: Path, now: float) -> Ledger:
        """Read the file (blocking). One that is missing is empty; a damaged one is renamed and reported.

        Raises LedgerError when a newer version wrote it, OSError when it cannot be read.
        """
        ledger = cls(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
            data = path.read_bytes()
            if msgspec.json.decode(data, type=_Versioned).version > VERSION:
                raise LedgerError(
                    f"{path} was written by a newer nearfetch: update this one, or move it away", path
                )
            document = msgspec.json.decode(data, type=_Document)
        except FileNotFoundError:
            return ledger
        except ValueError as error:  # msgspec's errors are ValueErrors
            ledger._set_aside(error)
            return ledger
        for peer_id, record in document.peers.items():
            if record.offence is not None:
                length = max(0.0, record.until - record.since)
                record.since = min(record.since, now)
                record.until = min(record.until, now + length)
            ledger._peers[peer_id] = record
        ledger._forgotten = document.forgotten
        return ledger

    def save(self) -> None:
        """Write what changed since the last time, atomically and durably (blocking). Raises OSError."""
        data = self.take_changes()
        if data is not None:
            self.write(data)

    def take_changes(self) -> bytes | None:
        """The document to `write`, or None when nothing changed. Cheap; in the thread that changes the ledger."""
        if not self._dirty:
            return None
        self._dirty = False
        return msgspec.json.encode(_Document(version=VERSION, peers=self._peers, forgotten=self._forgotten))

    def write(self, data: bytes) -> None:
        """Replace the file (blocking; in any thread, one at a time). On OSError the change is still pending."""
        try:
            durable.write_atomically(self._path, data, 0o600)
        except OSError:
            self._dirty = True
            raise

    # bans

    def ban(self, ban: Ban) -> None:
        """Remember a ban; a newer one replaces an older one."""
        record = self._record(ban.peer_id)
        record.offence = _BY_PEOPLE if ban.offence is None else ban.offence.name
        record.detail = ban.detail[:MAX_DETAIL_CHARACTERS]
        record.since, record.until = ban.since, ban.until
        self._changed()

    def unban(self, peer_id: PeerId) -> bool:
        """Forget a ban. False when there was none."""
        record = self._peers.get(peer_id)
        if record is None or record.offence is None:
            return False
        record.offence, record.detail, record.since, record.until = None, "", 0.0, 0.0
        if record == _Record():  # nothing but the ban was known of it
            del self._peers[peer_id]
        self._changed()
        return True

    def bans(self, now: float) -> list[Ban]:
        """Bans that last, oldest first."""
        found = [ban for peer_id in self._peers if (ban := self.ban_of(PeerId(peer_id), now))]
        return sorted(found, key=lambda ban: (ban.since, ban.peer_id))

    def ban_of(self, peer_id: PeerId, now: float) -> Ban | None:
        """The ban of one peer, None when there is none or it is over."""
        record = self._peers.get(peer_id)
        if record is None or record.offence is None or now >= record.until:
            return None
        return Ban(
            peer_id=peer_id,
            offence=_offence(record.offence),
            detail=record.detail,
            since=record.since,
            until=record.until,
        )

    # traffic

    def count(self, peer_id: PeerId, *, given: int = 0, taken: int = 0) -> None:
        """Add bytes sent to a peer and received from it."""
        if given or taken:
            record = self._record(peer_id)
            record.given += given
            record.taken += taken
            self._dirty = True

    def traffic(self, peer_id: PeerId) -> Traffic:
        """Bytes so far."""
        record = self._peers.get(peer_id)
        return Traffic(given=record.given, taken=record.taken) if record else Traffic()

    def total(self) -> Traffic:
        """Bytes so far with everybody, also with those that were forgotten."""
        records = [self._forgotten, *self._peers.values()]
        return Traffic(given=sum(item.given for item in records), taken=sum(item.taken for item in records))

    def met(self, peer_id: PeerId, name: str, now: float) -> None:
        """A peer was met at `now` (seconds since 1970), under this name."""
        record = self._record(peer_id)
        record.seen, record.name = now, name
        self._changed()

    def name_of(self, peer_id: PeerId) -> str:
        """The name it had last, or the empty text."""
        record = self._peers.get(peer_id)
        return record.name if record else ""

    def seen(self, peer_id: PeerId) -> float | None:
        """When it was met last, in seconds since 1970."""
        record = self._peers.get(peer_id)
        return record.seen or None if record else None

    def peers(self) -> list[PeerId]:
        """Everybody who is remembered, by id."""
        return [PeerId(item) for item in sorted(self._peers)]

    def forget(self, peer_id: PeerId, now: float) -> bool:
        """Drop what is remembered of a peer; its ban stays, and its bytes stay in the total. False when nothing
        was."""
        record = self._peers.get(peer_id)
        if record is None or self.ban_of(peer_id, now) is not None:
            return False
        self._drop(peer_id)
        self._dirty = True
        return True

    def absent(self, now: float) -> list[PeerId]:
        """Those without a ban that were not met within `ABSENCE_S`, by id."""
        return [
            PeerId(peer_id)
            for peer_id in sorted(self._peers)
            if 0.0 < self._age(peer_id) < now - ABSENCE_S and self.ban_of(PeerId(peer_id), now) is None
        ]

    def _drop(self, peer_id: str) -> None:
        record = self._peers.pop(peer_id)
        self._forgotten.given += record.given
        self._forgotten.taken += record.taken

    def _record(self, peer_id: PeerId) -> _Record:
        return self._peers.setdefault(peer_id, _Record())

    def _changed(self) -> None:
        self._dirty = True
        while len(self._peers) > MAX_PEERS:
            self._drop(min(self._peers, key=lambda item: (self._peers[item].offence is not None, self._age(item))))

    def _age(self, peer_id: str) -> float:
        record = self._peers[peer_id]
        return max(record.seen, record.since)

    def _set_aside(self, error: ValueError) -> None:
        kept = _keep_damaged(self._path)
        self.problems.append(f"{self._path} was damaged ({error}): bans in it are lost, the file is kept as {kept}")


def _keep_damaged(path: Path) -> str:
    """Give the file another name, the first `.damaged-<n>` that is free."""
    directory = durable.open_directory(path.parent)
    try:
        number = 1
        while True:
            name = f"{path.name}.damaged-{number}"
            try:
                durable.link_new(directory, path.name, name)
                break
            except FileExistsError:
                number += 1
        durable.remove(directory, path.name)
        durable.sync_directory(directory)
    finally:
        os.close(directory)
    return name


def _offence(name: str) -> Offence | None:
    """An offence this version does not know is shown as the mildest ban."""
    if name == _BY_PEOPLE:
        return None
    return Offence.__members__.get(name, Offence.CORRUPT_BYTES)
