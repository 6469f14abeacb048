"""The bound, with numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from bench.bounds import Part, Peer, bound, bound_of, goodput, unit_of
from bench.scenarios import MBIT, MIB, SCENARIOS, Kill, Late, Scenario, Slow

ONE = 8_364_641
"""bit/s of frames whose payload is one million bytes a second: 8,000,000 x 1514 / 1448."""
F = 10_000_000


def peers(number: int, up: int = ONE, down: int = ONE) -> list[Peer]:
    return [Peer(up=up, down=down)] * number


def test_goodput_is_the_payload_of_full_frames() -> None:
    assert goodput(80 * MBIT) == pytest.approx(9_564_068.69, abs=0.01)
    assert goodput(ONE) == pytest.approx(1_000_000, abs=1)


def test_the_origin_is_the_limit() -> None:
    found = bound(F, ONE, peers(4, up=10 * ONE, down=10 * ONE))

    assert found.t_min_s == pytest.approx(10)
    assert (found.source_s, found.download_s) == (pytest.approx(10), pytest.approx(1))
    assert found.spread_s == pytest.approx(40 / 41)


def test_the_slowest_download_is_the_limit() -> None:
    slow = Peer(up=ONE, down=ONE // 2)

    assert bound(F, 4 * ONE, [*peers(3), slow]).t_min_s == pytest.approx(20)


def test_all_uploads_together_are_the_limit() -> None:
    found = bound(F, ONE, peers(8, up=ONE // 8, down=10 * ONE))

    assert found.t_min_s == pytest.approx(8 * 10 / (1 + 8 / 8)) == found.spread_s


def test_a_seed_sends_and_needs_nothing() -> None:
    seed = Peer(up=ONE, down=1, part=Part.SEED)

    found = bound(F, ONE, [seed, *peers(2, up=ONE // 2, down=5 * ONE)])

    assert found.source_s == pytest.approx(5)
    assert found.download_s == pytest.approx(2)
    assert found.spread_s == pytest.approx(20 / (1 + 1 + 0.5 + 0.5)) == found.t_min_s


def test_who_starts_later_sends_and_receives_from_then_on() -> None:
    late = Peer(up=ONE, down=ONE, start_s=15.0)

    found = bound(F, ONE, [*peers(1), late])

    assert found.source_s == pytest.approx(10)
    assert found.download_s == pytest.approx(25) == found.t_min_s
    assert found.spread_s == pytest.approx((20 + 15) / 3)


def test_who_is_not_awaited_sends_and_is_not_waited_for() -> None:
    killed = Peer(up=ONE, down=1, part=Part.HELPS)

    assert bound(F, ONE, [*peers(1), killed]).t_min_s == pytest.approx(10)


@pytest.mark.parametrize(
    ("name", "agents", "seconds"),
    [
        ("cold", 8, 134_217_728 / 9_564_068.69),
        ("cold", 16, 134_217_728 / 9_564_068.69),
        ("wan", 8, 67_108_864 / 2_391_017.17),
        ("warm", 8, 134_217_728 / 9_564_068.69),
        ("fast-origin", 8, 134_217_728 / 9_564_068.69),
        ("two-files", 8, 134_217_728 / 9_564_068.69),
        ("staggered", 8, 7 + 134_217_728 / 9_564_068.69),
        ("slow-peer", 8, 134_217_728 / 9_564_068.69),
    ],
)
def test_the_scenarios(name: str, agents: int, seconds: float) -> None:
    assert bound_of(SCENARIOS[name].changed(agents=agents)).t_min_s == pytest.approx(seconds, rel=1e-6)


def test_shares_of_t_min_are_of_the_bound_without_late_starts() -> None:
    cold = SCENARIOS["cold"]
    late = dataclasses.replace(cold, happenings=(Late(agent=2, at=0.5), Kill(agent=1, at=0.5)))

    assert unit_of(late) == pytest.approx(unit_of(cold)) == pytest.approx(14.03, abs=0.01)
    assert bound_of(late).t_min_s == pytest.approx(1.5 * unit_of(cold))
    assert late.starts(unit_of(late))[2] == pytest.approx(0.5 * unit_of(cold))


def test_a_slow_agent_sends_little() -> None:
    scenario = SCENARIOS["cold"].changed(agents=2, size=MIB)
    slow = dataclasses.replace(scenario, happenings=(Slow(agent=1, share=0.01),))

    assert bound_of(slow).spread_s == pytest.approx(MIB / (goodput(80 * MBIT) * 2.01))
    assert isinstance(slow, Scenario)
    assert slow.awaited == (0,)
