"""`bench sim` in small: every scenario ends, the same seed gives the same bytes, what it refuses, what it says."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import sim
from bench.scenarios import SCENARIOS
from tests.support.bench_command import ROOT, bench, command, environment

SMALL = ("--agents", "8", "--size", "8MiB", "--json")
Document = dict[str, object]


def documents(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def play(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    """The figures of a run that ends well."""
    assert sim.main([*arguments]) == 0
    run = documents(capsys.readouterr().out)[-1]
    assert run["finished"] == run["awaited"]
    figures = run["figures"]
    assert isinstance(figures, dict)
    return figures


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_ends(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = play(capsys, name, *SMALL)
    assert list(figures) == list(sim.FIGURES)
    assert figures["makespan_bound"] >= 1
    assert figures["origin_copies"] >= (0 if name == "warm" else 1)
    if name not in ("liar", "forger", "churn", "dead-owner", "fast-origin"):  # there, some is lost, or cheap
        assert figures["origin_copies"] < 1.2
        assert figures["discarded"] < 0.01


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_what_a_forger_altered_comes_again_and_not_the_rest(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody's copy is rejected; throwing away all that came from others would be seven copies."""
    figures = play(capsys, "forger", "--seed", seed, "--json")
    assert 1.1 < figures["origin_copies"] <= 1.5
    assert figures["makespan_bound"] <= 1.6


def test_a_liar_costs_little(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the time and the copies that it costs without one, which are both about 1.1."""
    honest, lied_to = play(capsys, "cold", "--json"), play(capsys, "liar", "--json")
    assert lied_to["makespan_s"] <= 1.15 * honest["makespan_s"]
    assert lied_to["origin_copies"] <= 1.2


def test_sixty_agents_load_one_copy_though_each_knows_half_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    figures = play(capsys, "cold", "--agents", "60", "--size", "8MiB", "--json")
    assert figures["origin_copies"] <= 1.1
    assert figures["idle_s"] < 30


def test_cold_in_the_size_of_the_laboratory(capsys: pytest.CaptureFixture[str]) -> None:
    figures = play(capsys, "cold", "--json")
    assert figures["origin_copies"] <= 1.03
    assert figures["makespan_bound"] <= 1.2
    assert figures["upload_skew"] <= 1.5
    assert figures["idle_s"] == 0


def test_more_agents_than_anybody_can_listen_to(capsys: pytest.CaptureFixture[str]) -> None:
    figures = play(capsys, "warm", "--agents", "40", "--size", "2MiB", "--json")
    assert figures["origin_copies"] < 2


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def bytes_of(seed: str, hash_seed: str) -> tuple[str, bytes]:
        output = tmp_path / f"{seed}-{hash_seed}.jsonl"
        files = ("--output", str(output), "--seed", seed)
        done = bench(tmp_path, "sim", "churn", *SMALL, *files, extra={"PYTHONHASHSEED": hash_seed})
        assert done.returncode == 0, done.stderr
        assert documents(output.read_text()) == documents(done.stdout)
        return done.stdout, output.read_bytes()

    first = bytes_of("3", "0")
    assert first == bytes_of("3", "12345")
    assert first != bytes_of("4", "0")


def test_what_it_took_is_said_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["wan", "--agents", "4", "--size", "1MiB"]) == 0
    said = capsys.readouterr()
    assert "4 of 4 finished" in said.out
    assert "T_min" in said.out
    assert "MiB" not in said.out
    assert said.err.startswith("bench: ")
    assert "s of processor time" in said.err


def test_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.svg"
    play(capsys, "staggered", *SMALL, "--picture", str(picture))
    drawn = "".join(ET.parse(picture).getroot().itertext())
    assert "staggered: 8 agents" in drawn
    assert "a7" in drawn


def test_a_site_s_way_out_is_a_link_like_others(capsys: pytest.CaptureFixture[str]) -> None:
    one = play(capsys, "warm", *SMALL)
    two = play(capsys, "warm", *SMALL, "--sites", "2", "--site-rate", "8")
    assert two["makespan_s"] > 2 * one["makespan_s"]


def test_latency_costs_time(capsys: pytest.CaptureFixture[str]) -> None:
    near = play(capsys, "cold", *SMALL, "--latency-ms", "0")
    far = play(capsys, "cold", *SMALL, "--latency-ms", "200")
    assert far["makespan_s"] > near["makespan_s"] + 0.4


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_a_full_disk_holds_up_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["cold", *SMALL, "--break", "full-disk"]) == 0
    run = documents(capsys.readouterr().out)[-1]
    assert (run["finished"], run["awaited"]) == (7, 7)
    assert run["problems"] == ["a1: the disk is full"]


def test_an_origin_that_dies_is_an_end_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.main(["cold", *SMALL, "--break", "origin-dies"]) == 1
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith("bench: cold, ")
    assert "a0 " in last
    assert "7 more are not done" in last
    failed = documents(said.out)[-1]
    assert failed == {"failed": "nearfetch", "why": last.removeprefix("bench: ")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "invalid choice: 'nothing'"),
        (["cold", "--agents", "0"], "agents must be 1 to 100000, not 0"),
        (["churn", "--agents", "4"], "it needs 5 agents or more, and there are 4"),
        (["cold", "--size", "big"], "'big' is not a size"),
        (["cold", "--size", "0"], "at least one byte"),
        (["cold", "--origin-rate", "0"], "a rate must be above 0"),
        (["cold", "--agent-rate", "nan"], "a rate must be above 0"),
        (["cold", "--agent-rate", "0.001"], "a link needs at least 10000 bit/s"),
        (["cold", "--latency-ms", "-1"], "--latency-ms must be 0 to 1000, not -1"),
        (["cold", "--latency-ms", "nan"], "--latency-ms must be 0 to 1000, not nan"),
        (["cold", "--sites", "9"], "--sites must be 1 to 8, the number of agents, not 9"),
        (["cold", "--sites", "2", "--site-rate", "-5"], "a rate must be above 0"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code: object = None
    try:
        code = sim.main(arguments)
    except SystemExit as end:  # argparse
        code = end.code
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert words in said.err.splitlines()[-1]


def test_a_file_that_cannot_be_written_is_said_before_anybody_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim.main(["cold", "--output", str(tmp_path / "no" / "file")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "No such file or directory" in said.err


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    arguments = command("sim", "cold", "--agents", "100")
    with subprocess.Popen(
        arguments, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("cold: ")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "bench: interrupted"
    assert "Traceback" not in errors
