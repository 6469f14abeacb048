"""Certificates of other members, kept so that what they vouched for can be checked when they are gone.

One file a member, `<peer id>.der`. Nothing here is believed because it was stored: a certificate is judged when it
comes in, when it is read back, and when it is asked for. Losing the files loses no trust, only answers.
Never knows: sockets, vouchers, who is online.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

from peer import durable
from peer.core.voucher import PeerId
from peer.identity import MAX_CERTIFICATE_BYTES, Identity, end_of_certificate

MAX_CERTIFICATES = 1024
"""Members whose certificates are kept; beyond it no new one is (a bad member could make up as many as it likes)."""

TRUSTED_S = 600.0
"""How long a certificate that was good is given out without another look at its dates."""

_FILE = re.compile(r"([0-9a-f]{64})\.der", re.ASCII)


class CertificateBook:
    """Certificates by member. In memory; `save` writes new ones. `clock` gives seconds since 1970."""

    def __init__(self, directory: Path, identity: Identity, clock: Callable[[], float]) -> None:
        self._directory, self._identity, self._clock = directory, identity, clock
        self._known: dict[PeerId, bytes] = {}
        self._unsaved: set[PeerId] = set()
        self._looked_at: dict[PeerId, float] = {}
        """When a certificate was found good."""

    def load(self) -> None:
        """Read what is stored (blocking). What is no certificate of the group now is skipped. Raises OSError."""
        durable.make_private_directory(self._directory)
        for path in sorted(self._directory.iterdir()):
            if _FILE.fullmatch(path.name) and path.stat().st_size <= MAX_CERTIFICATE_BYTES:
                with contextlib.suppress(OSError):
                    self.add(path.read_bytes())
        self._unsaved.clear()

    def add(self, der: bytes) -> PeerId | None:
        """Keep a certificate of the group, the one that lasts longest for each member. None when it is refused."""
        peer_id = self._identity.check_certificate(der, self._clock())
        if peer_id is None or peer_id == self._identity.peer_id:
            return peer_id
        known = self._known.get(peer_id)
        if known == der or (known is None and len(self._known) >= MAX_CERTIFICATES):
            return peer_id
        if known is None or end_of_certificate(known) < end_of_certificate(der):
            self._known[peer_id] = der
            self._unsaved.add(peer_id)
            self._looked_at.pop(peer_id, None)
        return peer_id

    def find(self, peer_id: PeerId) -> bytes | None:
        """The member's certificate (DER), when we have one that is still good."""
        der, now = self._known.get(peer_id), self._clock()
        looked_at = self._looked_at.get(peer_id)
        if der is None or (looked_at is not None and 0.0 <= now - looked_at < TRUSTED_S):
            return der
        if self._identity.check_certificate(der, now) != peer_id:
            return None
        self._looked_at[peer_id] = now
        return der

    def has_shown(self, peer_id: PeerId) -> bool:
        """We have seen a certificate of it that was good then."""
        return peer_id in self._known

    def take_unsaved(self) -> dict[PeerId, bytes]:
        """What `write` should store; in the thread that adds."""
        items = {peer_id: self._known[peer_id] for peer_id in sorted(self._unsaved)}
        self._unsaved.clear()
        return items

    def write(self, items: dict[PeerId, bytes]) -> None:
        """Store certificates (blocking, in any thread). Raises OSError."""
        for peer_id, der in items.items():
            durable.write_atomically(self._directory / f"{peer_id}.der", der, 0o600)
