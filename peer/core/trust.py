"""Is this certificate one of ours? The decision, from facts that somebody else has read.

Never knows: TLS, keys, DER, files, bans (who is trusted in principle and who misbehaved are two questions).
Sources: RFC 5280 §4.1.2.5 (validity), §4.2.1.9 (a member's certificate is no authority); 5 minutes of clock
difference are the reliability notes' 1.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from peer.core.voucher import PeerId

CLOCK_SKEW_S = 300.0
"""Machines of one group may differ by this much before a certificate counts as expired or not yet valid."""


class Refusal(StrEnum):
    """Why a certificate is not one of ours. The values are for people."""

    UNREADABLE = "not a readable certificate"
    OTHER_GROUP = "issued by another group"
    NOT_A_MEMBER = "an authority's certificate, not a member's"
    WRONG_KEY = "its key is not Ed25519"
    NOT_YET_VALID = "not valid yet (is a clock wrong?)"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a certificate says, and whether its issuer's signature verified. Times in seconds since 1970."""

    issued_by_group: bool
    """The signature verified with a key of our group's authority."""
    is_authority: bool
    peer_id: PeerId | None
    """None when the key is no Ed25519 key."""
    not_before: float
    not_after: float


def judge(facts: CertificateFacts, now: float) -> PeerId | Refusal:
    """The member this certificate stands for, or why it stands for none.

    The group comes first: a stranger learns (and a log shows) nothing about the rest.
    """
    if not facts.issued_by_group:
        return Refusal.OTHER_GROUP
    if facts.is_authority:
        return Refusal.NOT_A_MEMBER
    if facts.peer_id is None:
        return Refusal.WRONG_KEY
    if now < facts.not_before - CLOCK_SKEW_S:
        return Refusal.NOT_YET_VALID
    if now > facts.not_after + CLOCK_SKEW_S:
        return Refusal.EXPIRED
    return facts.peer_id
