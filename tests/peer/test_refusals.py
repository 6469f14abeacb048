from __future__ import annotations

from peer.refusals import REFUSALS_KEPT, Refusal, Refusals, Refused


def refusal(host: str = "10.0.0.1", reason: str = "expired", at: float = 1.0, count: int = 1) -> Refusal:
    return Refusal(what=Refused.CALL, host=host, port=None, reason=reason, last_at=at, count=count)


def test_the_same_again_is_counted() -> None:
    kept = Refusals()
    kept.add(refusal(at=1.0))
    kept.add(refusal(at=2.0, count=2))
    assert kept.newest_first() == [refusal(at=2.0, count=3)]


def test_the_newest_comes_first() -> None:
    kept = Refusals()
    for at, reason in ((2.0, "b"), (3.0, "c"), (1.0, "a")):
        kept.add(refusal(reason=reason, at=at))
    assert [item.reason for item in kept.newest_first()] == ["c", "b", "a"]


def test_a_flood_is_bounded_and_the_oldest_goes() -> None:
    kept = Refusals()
    for number in range(REFUSALS_KEPT + 1):
        kept.add(refusal(host=f"10.0.0.{number}", at=float(number)))
    hosts = [item.host for item in kept.newest_first()]
    assert len(hosts) == REFUSALS_KEPT
    assert "10.0.0.0" not in hosts
