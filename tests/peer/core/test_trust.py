from __future__ import annotations

from dataclasses import replace

import pytest

from peer.core.trust import CLOCK_SKEW_S, CertificateFacts, Refusal, judge
from peer.core.voucher import PeerId

ALICE = PeerId("a" * 64)
GOOD = CertificateFacts(
    issued_by_group=True, is_authority=False, peer_id=ALICE, not_before=1000.0, not_after=2000.0
)


def test_a_members_certificate_is_accepted() -> None:
    assert judge(GOOD, 1500.0) == ALICE


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (1000.0 - CLOCK_SKEW_S - 1, Refusal.NOT_YET_VALID),
        (1000.0 - CLOCK_SKEW_S, ALICE),
        (2000.0 + CLOCK_SKEW_S, ALICE),
        (2000.0 + CLOCK_SKEW_S + 1, Refusal.EXPIRED),
    ],
)
def test_clocks_may_differ_by_five_minutes(now: float, verdict: object) -> None:
    assert judge(GOOD, now) == verdict


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (replace(GOOD, issued_by_group=False), Refusal.OTHER_GROUP),
        (replace(GOOD, is_authority=True), Refusal.NOT_A_MEMBER),
        (replace(GOOD, peer_id=None), Refusal.WRONG_KEY),
        (replace(GOOD, issued_by_group=False, peer_id=None, not_after=0.0), Refusal.OTHER_GROUP),
    ],
)
def test_everything_else_is_refused_with_its_reason(facts: CertificateFacts, verdict: Refusal) -> None:
    assert judge(facts, 1500.0) is verdict
