"""What survives: `kill -9` at any moment, a clean stop, a second agent, a damaged database."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import AgentError, ExitCode, NotFoundError
from agent.schema import JobDocument, NewFile, NewJob
from tests.support.agents import Agent, Fleet, command_line, environment, leftovers, nearfetch
from tests.support.steady import SteadyOrigin, large_file

MIB = 1024 * 1024
LARGE = 500_000_000
SMALL = 40_000_000
ALLOWED_TWICE = 8 * MIB
"""What the issue allows to be fetched again after a `kill -9`."""

ON_THE_WAY = 4 * MIB
"""After a clean stop: what was in buffers, ours and the system's."""

JOURNAL = "journal.sqlite"


@pytest.fixture(scope="module", name="large")
def make_large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = large_file(tmp_path_factory.mktemp("large") / "large.bin", LARGE)
    yield file
    file.unlink()


@pytest.fixture(scope="module", name="small")
def make_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_file(tmp_path_factory.mktemp("small") / "small.bin", SMALL)


@pytest.fixture(name="agent")
def make_agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent without a group, which does not run yet."""
    with Fleet(tmp_path / "fleet") as fleet:
        yield fleet.agent("agent", group=False)


def same(one: Path, other: Path) -> bool:
    """Byte for byte."""
    return filecmp.cmp(one, other, shallow=False)


async def begin(agent: Agent, url: str, path: Path, *validators: str) -> str:
    """A job of one file that is under way; its id."""
    file = NewFile(url=url, path=str(path), validators=list(validators))
    job = await agent.client.create_job(NewJob(name="crash", files=[file], minimum_retry_delay_s=5))
    await agent.client.resume(job.id)
    return job.id


async def finish(agent: Agent, job: str, timeout_s: float = 30.0) -> JobDocument:
    """The job goes on by itself; complete it."""
    found = await agent.client.wait(job, timeout_s=timeout_s)
    assert found.state == "TRANSFERRED", found
    return await agent.client.complete(job)


# --- kill -9 -----------------------------------------------------------------------------------------------------


async def test_kill_in_the_middle_of_500_mb_costs_at_most_8_mib(agent: Agent, place: Path, large: Path) -> None:
    with SteadyOrigin(large, rate=200e6) as origin:
        agent.start()
        job = await begin(agent, origin.url(), place / "large.bin")
        await asyncio.to_thread(origin.wait_for, LARGE // 2)
        agent.kill()
        assert origin.payload < LARGE, "killed too late to prove anything"
        assert not (place / "large.bin").exists()
        agent.start()
        done = await finish(agent, job)
        twice = origin.payload - LARGE
    assert done.state == "ACKNOWLEDGED"
    assert done.error_count == 0
    assert await asyncio.to_thread(same, large, place / "large.bin")
    assert leftovers(place) == ["large.bin"]
    print(f"{twice / MIB:.1f} MiB were fetched again, in {origin.gets} requests")
    assert 0 <= twice <= ALLOWED_TWICE, f"{twice / MIB:.1f} MiB were fetched again"


async def test_a_killed_get_goes_on_when_it_is_repeated(agent: Agent, place: Path, small: Path) -> None:
    with SteadyOrigin(small, rate=40e6) as origin:
        words = ["--home", str(agent.home), "get", origin.url(), "-o", str(place / "f"), "--json"]
        for part in (0.3, 0.6):
            process = subprocess.Popen(
                [*command_line(), *words], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            await asyncio.to_thread(origin.wait_for, int(SMALL * part))
            process.kill()
            process.wait()
            assert [name for name in leftovers(place) if not name.startswith(".")] == []
        got = await agent.get(origin.url(), place / "f")
        assert got.exit_code == 0
        twice = origin.payload - SMALL
    assert same(small, place / "f")
    assert leftovers(place) == ["f"]
    assert 0 <= twice <= 2 * ALLOWED_TWICE, f"{twice / MIB:.1f} MiB were fetched again by two kills"


async def test_kill_at_many_points_of_a_transfer(agent: Agent, place: Path, small: Path) -> None:
    points = (64 * 1024, 5 * MIB, 21 * MIB, SMALL)
    with SteadyOrigin(small, rate=80e6) as origin:
        agent.start()
        job = await begin(agent, origin.url(), place / "f")
        for point in points:
            origin.hold(point + 1)
            await asyncio.to_thread(origin.wait_for, point)
            agent.kill()
            agent.start()
            assert [name for name in leftovers(place) if not name.startswith(".")] == []
        origin.go_on()
        done = await finish(agent, job)
    assert done.state == "ACKNOWLEDGED"
    assert same(small, place / "f")
    assert leftovers(place) == ["f"]


async def test_kill_during_validation_and_the_validator_runs_again(
    agent: Agent, place: Path, small: Path, tmp_path: Path
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    script = tmp_path / "slow.sh"
    script.write_text(f"#!/bin/sh\necho run >> {runs}\nuntil test -e {gate}; do sleep 0.02; done\nexit 0\n")
    script.chmod(0o755)
    with SteadyOrigin(small, rate=400e6) as origin:
        agent.start()
        job = await begin(agent, origin.url(), place / "f", f"command:{script}")
        await until(runs.exists)
        assert (await agent.client.job(job)).state == "VALIDATING"
        agent.kill()
        agent.start()
        await until(lambda: runs.read_text().count("run") == 2)
        gate.touch()
        done = await finish(agent, job)
        assert origin.payload == SMALL, "bytes that were all there were fetched again"
    assert done.state == "ACKNOWLEDGED"
    assert same(small, place / "f")


@pytest.mark.parametrize("delay_ms", [1, 3, 8])
async def test_kill_while_it_completes(agent: Agent, place: Path, small: Path, delay_ms: int) -> None:
    """Before, between and after the steps of `complete`: the file is there whole or not at all, and complete can be
    repeated (D1, D2, D4)."""
    names = [f"f{index}" for index in range(3)]
    with SteadyOrigin(small, rate=2e9) as origin:
        agent.start()
        files = [NewFile(url=origin.url(name), path=str(place / name), peers="never") for name in names]  # type: ignore[arg-type]
        job = (await agent.client.create_job(NewJob(name="three", files=files))).id
        await agent.client.resume(job)
        assert (await agent.client.wait(job, timeout_s=30)).state == "TRANSFERRED"
        answered = asyncio.Event()

        async def complete() -> None:
            with contextlib.suppress(AgentError):
                await agent.client.complete(job)
                answered.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(complete())
            await asyncio.sleep(delay_ms / 1000)  # a moment to hit, not a wait for anything
            agent.kill()
        for name in names:
            assert (not (place / name).exists() and not answered.is_set()) or same(small, place / name)
        agent.start()
        await complete_again(agent, job)
        assert origin.payload - len(names) * SMALL <= ALLOWED_TWICE
    for name in names:
        assert same(small, place / name)
    assert leftovers(place) == names


async def complete_again(agent: Agent, job: str) -> None:
    """Whatever the killed agent had done of it: repeating is safe, and what was answered has happened."""
    try:
        await agent.client.wait(job, timeout_s=20)  # it may have to be validated again
        done = await agent.client.complete(job)
    except NotFoundError:
        return  # it was completed, and the agent that remembered it was killed
    assert done.state == "ACKNOWLEDGED"


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """For what only the file system tells."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


# --- a clean stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_clean_stop_and_on_it_goes(agent: Agent, place: Path, small: Path, number: signal.Signals) -> None:
    with SteadyOrigin(small, rate=60e6) as origin:
        agent.start()
        job = await begin(agent, origin.url(), place / "f")
        await asyncio.to_thread(origin.wait_for, SMALL // 3)
        began = time.monotonic()
        assert agent.process is not None
        agent.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(agent.process.wait, 10)
        assert (code, time.monotonic() - began < 5.0) == (0, True)
        assert "Traceback" not in agent.log
        agent.stop()
        assert origin.payload < SMALL, "stopped too late to prove anything"
        agent.start()
        done = await finish(agent, job)
        twice = origin.payload - SMALL
    assert done.state == "ACKNOWLEDGED"
    assert same(small, place / "f")
    assert twice <= ON_THE_WAY, f"{twice / MIB:.1f} MiB were fetched again after a clean stop"


async def test_an_interrupted_get_keeps_what_it_has(agent: Agent, place: Path, small: Path) -> None:
    with SteadyOrigin(small, rate=40e6) as origin:
        words = ["--home", str(agent.home), "get", origin.url(), "-o", str(place / "f")]
        process = subprocess.Popen(
            [*command_line(), *words], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        await asyncio.to_thread(origin.wait_for, SMALL // 3)
        process.send_signal(signal.SIGINT)
        _, said = await asyncio.to_thread(process.communicate, None, 10)
        assert process.returncode == ExitCode.INTERRUPTED
        assert b"kept" in said
        assert [name for name in leftovers(place) if not name.startswith(".")] == []
        got = await agent.get(origin.url(), place / "f")
        assert got.exit_code == 0
        assert origin.payload - SMALL <= ON_THE_WAY
    assert same(small, place / "f")
    assert leftovers(place) == ["f"]


# --- one agent a home --------------------------------------------------------------------------------------------


async def test_a_second_agent_on_the_same_home_leaves_at_once(agent: Agent) -> None:
    agent.start()
    before = state_of(agent.home)
    second = await agent.call("run", "--interface", "lo")
    assert second.exit_code == ExitCode.HOME_IN_USE
    assert second.line.startswith("nearfetch: ")
    assert "HOME_IN_USE" in second.line
    assert second.seconds < 5.0
    as_json = await agent.call("run", "--interface", "lo", "--json")
    assert (as_json.exit_code, as_json.error_code) == (ExitCode.HOME_IN_USE, "HOME_IN_USE")
    assert state_of(agent.home) == before
    assert (await agent.client.about()).pid == agent.ready["pid"]


def state_of(home: Path) -> dict[str, tuple[int, int, int]]:
    """Every file with what a change would show."""
    found = {}
    for path in sorted(home.rglob("*")):
        facts = path.stat()
        found[str(path)] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


# --- a damaged database ------------------------------------------------------------------------------------------


async def half_done(agent: Agent, place: Path, small: Path) -> Path:
    """An agent that was stopped in the middle of a job; its part file."""
    with SteadyOrigin(small, rate=60e6) as origin:
        agent.start()
        await begin(agent, origin.url(), place / "f")
        await asyncio.to_thread(origin.wait_for, SMALL // 3)
        assert agent.stop() == 0
    (part,) = place.iterdir()
    return part


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def garble_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))


def empty(path: Path) -> None:
    os.truncate(path, 0)


async def test_a_damaged_journal_is_set_aside_and_said(agent: Agent, place: Path, small: Path) -> None:
    part = await half_done(agent, place, small)
    held = part.read_bytes()
    for damage in (truncate, garble, garble_a_page, empty):
        for path in (agent.home / JOURNAL, *agent.home.glob(f"{JOURNAL}.snapshot*")):
            damage(path)
        damaged, said = (agent.home / JOURNAL).read_bytes(), agent.log.count("set aside")
        agent.start()
        problems = (await agent.client.about()).problems
        assert any(JOURNAL in line and "set aside" in line for line in problems), (damage, problems)
        assert agent.log.count("set aside") == said + 1, (damage, "nothing on standard error")
        copies = [path.read_bytes() for path in agent.home.glob(f"{JOURNAL}.*")]
        assert damaged in copies, (damage, leftovers(agent.home))
        assert await agent.client.jobs() == []
        assert part.read_bytes() == held, (damage, "the part file was touched")
        if damage is truncate:
            doctor = await agent.call("doctor", "--interface", "lo")
            assert "set aside" in doctor.out
        assert agent.stop() == 0


async def test_a_get_with_a_damaged_journal_says_so(agent: Agent, place: Path, small: Path) -> None:
    await half_done(agent, place, small)
    for path in (agent.home / JOURNAL, *agent.home.glob(f"{JOURNAL}.snapshot*")):
        garble(path)
    with SteadyOrigin(small, rate=1e9) as origin:
        got = await asyncio.to_thread(nearfetch, "get", origin.url(), "-o", place / "g", home=agent.home)
    assert got.exit_code == 0
    assert "set aside" in got.err
    assert same(small, place / "g")


async def test_a_damaged_journal_comes_back_from_its_snapshot(agent: Agent, place: Path, small: Path) -> None:
    await half_done(agent, place, small)
    assert list(agent.home.glob(f"{JOURNAL}.snapshot*")), "a clean stop leaves a snapshot"
    garble(agent.home / JOURNAL)
    agent.start()
    (job,) = await agent.client.jobs()
    assert job.name == "crash"
    assert any("snapshot" in line for line in (await agent.client.about()).problems)


async def test_a_newer_journal_is_left_alone(agent: Agent, place: Path, small: Path) -> None:
    part = await half_done(agent, place, small)
    with sqlite3.connect(agent.home / JOURNAL) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before, held = (agent.home / JOURNAL).read_bytes(), part.read_bytes()
    for words in (["run", "--interface", "lo"], ["get", "http://127.0.0.1:9/x", "-o", str(place / "x")]):
        refused = await asyncio.to_thread(nearfetch, *words, "--json", home=agent.home)
        assert (refused.exit_code, refused.error_code) == (ExitCode.CONFIG, "DATABASE_NEWER"), words
        assert "newer version" in refused.document["error"]["message"]
    assert (agent.home / JOURNAL).read_bytes() == before
    assert part.read_bytes() == held


async def test_a_damaged_cache_index_is_said_too(agent: Agent, place: Path, small: Path) -> None:
    with SteadyOrigin(small, rate=1e9) as origin:
        agent.start()
        await finish(agent, await begin(agent, origin.url(), place / "f"))
        assert agent.stop() == 0
        (index,) = (agent.home / "cache").glob("*.sqlite")
        garble(index)
        agent.start()
        assert any("set aside" in line for line in (await agent.client.cache()).problems)
        await finish(agent, await begin(agent, origin.url(), place / "g"))
    assert same(small, place / "g")
