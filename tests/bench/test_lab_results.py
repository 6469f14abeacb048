"""What runs come to: figures by hand, medians, tables, the picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.baselines.curl import Curl
from bench.baselines.system import Progress, Usage
from bench.bounds import bound_of
from bench.lab_picture import picture_of
from bench.lab_results import FIGURES, figures_of, run_document, show, summary_of
from bench.lab_run import Outcome, Plan, RunResult, Sample
from bench.scenarios import MIB, SCENARIOS, Kill, Scenario

SCENARIO = SCENARIOS["cold"].changed(agents=3, size=10 * MIB)
F = 10 * MIB
T = bound_of(SCENARIO).t_min_s


def outcome(finished: float | None, **values: object) -> Outcome:
    usage = Usage(cpu_s=2.0, peak_memory=50 * MIB, discarded=MIB)
    return Outcome(**{"finished_s": finished, "right": True, "sent": F, "usage": usage, **values})  # type: ignore[arg-type]


def result(*outcomes: Outcome, scenario: Scenario = SCENARIO, payload: int = F, number: int = 1) -> RunResult:
    plan = Plan(
        scenario=scenario,
        system=Curl,
        round=number,
        files=(),
        digests=(),
        place=Path("/nowhere"),
        guest=False,
    )
    half = Progress(from_origin=F // 2, from_peers=F // 2)
    samples = tuple(Sample(at_s=second * T, progress=(half,) * 3, busy=0.25 * second) for second in (1, 2, 3))
    return RunResult(
        plan=plan,
        outcomes=outcomes,
        origin_payload=payload,
        origin_interface=round_up(payload),
        samples=samples,
        notes={"all_found_s": 1.5},
    )


def round_up(payload: int) -> int:
    return payload * 11 // 10


def test_figures_by_hand() -> None:
    found = figures_of(
        result(outcome(T), outcome(2 * T, sent=2 * F), outcome(3 * T, sent=0), payload=F + F // 5)
    ).values

    assert list(found) == list(FIGURES)
    assert found["origin_copies"] == pytest.approx(1.2)
    assert found["origin_excess"] == pytest.approx(0.2)
    assert found["origin_copies_interface"] == pytest.approx(1.32)
    assert found["makespan_s"] == pytest.approx(3 * T)
    assert found["makespan_bound"] == found["worst_bound"] == pytest.approx(3)
    assert found["mean_bound"] == pytest.approx(2)
    assert found["worst_mean"] == pytest.approx(1.5)
    assert found["discarded"] == pytest.approx(0.1)
    assert found["upload_skew"] == pytest.approx(2)
    assert (found["cpu_s"], found["peak_memory_mib"]) == (2.0, 50.0)
    assert (found["busy"], found["busy_peak"]) == (0.5, 0.75)


def test_an_agent_that_starts_later_is_measured_from_its_own_start() -> None:
    late = Outcome(started_s=T, finished_s=2 * T, right=True)

    found = figures_of(result(outcome(T), outcome(T), late)).values

    assert found["makespan_bound"] == pytest.approx(2)
    assert found["worst_bound"] == found["worst_mean"] == pytest.approx(1)


def test_who_is_killed_counts_neither_for_times_nor_for_costs() -> None:
    scenario = dataclasses.replace(SCENARIO, happenings=(Kill(agent=1, at=0.5),))
    killed = Outcome(killed=True, sent=100 * F)

    found = figures_of(result(outcome(T), killed, outcome(T), scenario=scenario))

    assert found.values["upload_skew"] == pytest.approx(1)
    assert (found.finished, found.awaited, found.good) == (2, 2, True)


def test_wrong_files_and_failures_are_not_good() -> None:
    wrong = figures_of(result(outcome(T), outcome(T), outcome(T, right=False)))
    failed = figures_of(result(outcome(T), outcome(T), outcome(None, failed="a2: no room", right=None)))

    assert (wrong.good, wrong.wrong, wrong.finished) == (False, 1, 3)
    assert (failed.good, failed.problems, failed.finished) == (False, ("a2: no room",), 2)
    assert failed.values["makespan_bound"] == pytest.approx(1)


def test_nobody_finished_has_no_times() -> None:
    found = figures_of(result(*[Outcome(failed="x") for _ in range(3)]))

    assert found.values["makespan_s"] is None
    assert found.values["cpu_s"] is None
    assert found.values["origin_copies"] == 1


def test_medians_over_rounds() -> None:
    rounds = [result(*[outcome(T * number)] * 3, number=number) for number in (1, 2, 6)]

    found = summary_of(rounds)

    assert found.spreads["makespan_bound"].text(1) == "2.0 [1.0-6.0]"
    assert found.notes["all_found_s"].median == 1.5
    assert (found.finished, found.awaited, found.rounds) == (9, 9, 3)
    document = found.document()
    assert document["summary"] == "curl"
    assert set(document["figures"]) == set(FIGURES)  # type: ignore[call-overload]


def test_the_tables_fit_and_name_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Usage(cpu_s=1.0, peak_memory=MIB, discarded=None)

    show([summary_of([result(*[outcome(16 * T, usage=silent)] * 3, payload=16 * F)])])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split()[:4] == ["curl", "16.00", "[16.00-16.00]", "17.60"]
    assert lines[-2].split() == ["curl", "1.00", "-", "1.00", "1.00", "1", "50", "3", "of", "3"]


def test_the_document_of_a_run_has_every_agent() -> None:
    one = result(outcome(T), outcome(T), Outcome(killed=True))

    found = run_document(one, figures_of(one))

    assert (found["run"], found["scenario"], found["round"]) == ("curl", "cold", 1)
    agents = found["agents"]
    assert isinstance(agents, list)
    assert [agent["killed"] for agent in agents] == [False, False, True]
    assert agents[0]["usage"]["peak_memory"] == 50 * MIB


def test_the_picture_shows_the_median_round_of_each_system() -> None:
    rounds = [result(*[outcome(T * number)] * 3, number=number, payload=number * F) for number in (1, 2, 3)]

    root = ET.fromstring(picture_of(SCENARIO, [rounds, rounds[:1]]).svg())

    texts = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"curl: {2 * T:.1f} s, 2.00 copies" in texts
    assert f"curl: {T:.1f} s, 1.00 copies" in texts
    assert "cold: 3 agents, 10 MiB, origin 80, agents 80 Mbit/s" in texts
