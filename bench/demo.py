"""`python -m bench demo`: the main job on this machine alone. One origin, three agents, four steps, one table.

Every figure is counted by an agent (its job document) or by the origin, and compared with what it must be; one
that differs makes the exit code 1. Speaks with agents through the public library and the command line only; the
attacker of step 3 is a program of its own (forge.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent.client import RESTING_STATES
from agent.errors import AgentError, ExitCode
from agent.schema import FileDocument, JobDocument, NewFile, NewJob, Priority
from bench.agents import (
    AgentProcess,
    BenchError,
    CommandResult,
    create_group,
    environment,
    run_command,
    running,
)
from bench.content import ARCHIVE_NAME, altered_copy, archive_of_the_library, random_file, sha256_of
from bench.origin import Origin, Sent
from bench.report import WIDTH, Column, Table, complain, count, json_line, rate

SECOND_FILE_BYTES = 16 * 1024 * 1024
"""Size of the file that the liar alters, and of the one that the wrong origin serves."""

DEMO_TIMEOUT_S = 55.0
DOWNLOAD_TIMEOUT_S = 3600.0
"""For a URL that somebody names."""

ROOM = 10
"""The archive is stored once, cached by three agents and stored by them; with the files of steps 3 and 4."""

WORDS = (
    "1 cold   nobody has the file: every byte comes from the origin",
    "2 warm   two more want it, at once: every byte comes from peers, the origin sends none",
    "3 liar   A's copy of another file was altered and vouched for with A's own key: the validator",
    "         finds out, A is banned by name, the origin's bytes replace A's; the job shows no error",
    "4 wrong  what the origin serves does not match --sha256: ERROR, and nothing at the destination",
)
COLUMNS = (
    Column(title="STEP", width=17, lean="<"),
    Column(title="FROM ORIGIN", width=12),
    Column(title="FROM PEERS", width=12),
    Column(title="ORIGIN SENT", width=12),
    Column(title="SECONDS", width=7),
    Column(title="RATE", width=10),
    Column(title="RESULT", width=15, lean="<"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row. Bytes and seconds; `origin_sent` is None when the origin is not ours."""

    name: str
    bytes_from_origin: int
    bytes_from_peers: int
    origin_sent: int | None
    seconds: float
    bytes_delivered: int
    result: str
    problems: list[str]
    """Figures that are not as they must be; empty when all is well."""

    def cells(self) -> list[str]:
        """For the table."""
        return [
            self.name,
            count(self.bytes_from_origin),
            count(self.bytes_from_peers),
            count(self.origin_sent),
            f"{self.seconds:.2f}",
            rate(self.bytes_delivered / max(self.seconds, 0.001)),
            self.result if not self.problems else "FAILED",
        ]


class Checks:
    """Compares figures with what they must be."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def equal(self, what: str, found: object, wanted: object) -> None:
        """Note a difference."""
        if found != wanted:
            shown = [count(item) if type(item) is int else str(item) for item in (found, wanted)]
            self.problems.append(f"{what}: {shown[0]}, and must be {shown[1]}")

    def finished(self, who: str, job: JobDocument) -> None:
        """The job ended well, without an error on its way."""
        reason = "" if job.error is None else f" ({job.error.code}: {job.error.message})"
        self.equal(f"state of {who}'s job", job.state + reason, "ACKNOWLEDGED")
        self.equal(f"errors of {who}'s job", job.error_count, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What came of one job."""

    job: JobDocument
    states: tuple[str, ...]
    """Every state that was seen, in order."""
    path: Path
    seconds: float

    @property
    def file(self) -> FileDocument:
        """Its only file."""
        return self.job.files[0]


async def download(agent: AgentProcess, url: str, path: Path, digest: str | None = None) -> Download:
    """Have the agent fetch one file, watching the job's states; completes it, or cancels what did not succeed."""
    client = agent.client
    new = NewFile(url=url, path=str(path), digest=None if digest is None else f"sha256:{digest}")
    job = await client.create_job(NewJob(name=path.name, priority=Priority.FOREGROUND, files=[new]))
    began = time.monotonic()
    await client.resume(job.id)
    states: list[str] = []
    async for seen in client.watch(job.id):
        job = seen
        if not states or states[-1] != job.state:
            states.append(job.state)
        if job.state in RESTING_STATES or job.state == "TRANSIENT_ERROR":
            break
    if job.state == "TRANSFERRED":
        job = await client.complete(job.id)
    else:
        await client.cancel(job.id)
    return Download(job=job, states=tuple(states), path=path, seconds=time.monotonic() - began)


class Demo:
    """The four steps. `a`, `b`, `c` run, the origin serves, and everything lives in `place`."""

    def __init__(
        self, place: Path, origin: Origin, agents: tuple[AgentProcess, AgentProcess, AgentProcess]
    ) -> None:
        self.place = place
        self.origin = origin
        self.a, self.b, self.c = agents
        self.notes: list[str] = []

    def destination(self, agent: AgentProcess, name: str) -> Path:
        """A directory of its own for each file, so that leftovers show."""
        directory = self.place / f"files-{agent.name}" / name
        directory.mkdir(parents=True)
        return directory / name

    async def cold(self, url: str, truth: Path | None) -> tuple[Step, Path]:
        """Step 1, and where A's file is."""
        before, checks = self.origin.sent(), Checks()
        got = await download(self.a, url, self.destination(self.a, ARCHIVE_NAME))
        size = got.file.bytes_total
        checks.finished("A", got.job)
        checks.equal("bytes that A took from the origin", got.file.bytes_from_origin, size)
        checks.equal("bytes that A took from peers", got.file.bytes_from_peers, 0)
        sent = self._origin_sent(before, truth)
        if truth is not None:
            checks.equal("bytes that the origin sent", sent, size)
            checks.equal("bytes of the file", size, truth.stat().st_size)
            await self._same(checks, got, truth)
        return self._step("1 cold: A", [got], sent, checks), got.path

    async def warm(self, url: str, first: Path, truth: Path | None) -> Step:
        """Step 2: B and C at once."""
        before, checks = self.origin.sent(), Checks()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(download(agent, url, self.destination(agent, ARCHIVE_NAME)))
                for agent in (self.b, self.c)
            ]
        downloads = [task.result() for task in tasks]
        members = {self.a.peer_id, self.b.peer_id, self.c.peer_id}
        for agent, got in zip((self.b, self.c), downloads, strict=True):
            checks.finished(agent.name, got.job)
            checks.equal(
                f"bytes that {agent.name} took from peers", got.file.bytes_from_peers, got.file.bytes_total
            )
            checks.equal(f"bytes that {agent.name} took from the origin", got.file.bytes_from_origin, 0)
            strangers = set(got.file.peers) - (members - {agent.peer_id})
            checks.equal(f"peers of {agent.name} that are not of the demo", strangers, set())
            await self._same(checks, got, first)
        sent = self._origin_sent(before, truth)
        if truth is not None:
            checks.equal("bytes that the origin sent", sent, 0)
        if checks.problems:
            self.notes += [
                f"log of {got.path.parent.parent.name}: {line}" for got in downloads for line in got.job.log
            ]
        return self._step("2 warm: B, C", downloads, sent, checks)

    async def liar(self, size: int, group_key: str) -> Step:
        """Step 3: only A has the file, and A lies."""
        truth, checks = self.place / "report.bin", Checks()
        digest = await asyncio.to_thread(random_file, truth, size)
        url = self.origin.publish(truth)
        got = await download(self.a, url, self.destination(self.a, truth.name))
        checks.finished("A", got.job)
        await self.a.stop()
        forged = await self._forge(self.a.home, group_key, size)
        await self.a.start()
        await self.b.meets(self.a)
        checks.equal("the key that the forger used", forged.get("peer_id"), self.a.peer_id)
        before = self.origin.sent()
        got = await download(self.b, url, self.destination(self.b, truth.name), digest)
        sent = self.origin.sent().since(before).payload_bytes
        checks.finished("B", got.job)
        checks.equal("error states of B's job", [item for item in got.states if "ERROR" in item], [])
        checks.equal("peers that B took bytes from", got.file.peers, {self.a.peer_id: size})
        checks.equal("bytes that B took from the origin", got.file.bytes_from_origin, size)
        checks.equal("bytes that the origin sent", sent, size)
        checks.equal("bytes that B threw away", got.file.bytes_discarded, size)
        await self._same(checks, got, truth)
        await self._banned(checks)
        return self._step("3 liar: B", [got], sent, checks, "A banned, right")

    async def wrong_origin(self, size: int) -> Step:
        """Step 4, by the command line: C asks for a digest that the origin's content does not have."""
        right, checks = self.place / "right.bin", Checks()
        digest = await asyncio.to_thread(random_file, right, size)
        served = self.place / "release.bin"
        await asyncio.to_thread(altered_copy, right, served)
        url, path, before = self.origin.publish(served), self.destination(self.c, served.name), self.origin.sent()
        began = time.monotonic()
        result = await run_command("get", url, "-o", path, "--sha256", digest, "--json", home=self.c.home)
        seconds = time.monotonic() - began
        report, sent = _Report.of(result), self.origin.sent().since(before).payload_bytes
        wanted = int(ExitCode.VALIDATION)
        checks.equal("state of C's job", report.state, "ERROR")
        checks.equal("code of the error", report.code, "VALIDATION_FAILED")
        checks.equal("exit code of `nearfetch get`", result.exit_code, wanted)
        checks.equal("bytes that C took from the origin", report.bytes_from_origin, size)
        checks.equal("bytes that C took from peers", report.bytes_from_peers, 0)
        checks.equal("bytes that the origin sent", sent, size)
        checks.equal("files at the destination", [item.name for item in path.parent.iterdir()], [])
        checks.equal("jobs that C still has", len(await self.c.client.jobs()), 0)
        self.notes.append(f"4: nearfetch get ended with exit code {result.exit_code}: {report.message}")
        return Step(
            name="4 wrong origin: C",
            bytes_from_origin=report.bytes_from_origin,
            bytes_from_peers=report.bytes_from_peers,
            origin_sent=sent,
            seconds=seconds,
            bytes_delivered=0 if report.bytes_total is None else report.bytes_total,
            result=f"ERROR, exit {result.exit_code}",
            problems=checks.problems,
        )

    def _origin_sent(self, before: Sent, truth: Path | None) -> int | None:
        return None if truth is None else self.origin.sent().since(before).payload_bytes

    async def _same(self, checks: Checks, got: Download, truth: Path) -> None:
        if got.job.state != "ACKNOWLEDGED":
            return
        found, wanted = await asyncio.gather(
            asyncio.to_thread(sha256_of, got.path), asyncio.to_thread(sha256_of, truth)
        )
        checks.equal(f"SHA-256 of {got.path}", found, wanted)

    async def _banned(self, checks: Checks) -> None:
        """What `nearfetch peer list` says at B."""
        listed = (await run_command("peer", "list", "--json", home=self.b.home)).document().get("peers")
        rows = [row for row in listed if row["id"] == self.a.peer_id] if isinstance(listed, list) else []
        row = rows[0] if rows else {}
        checks.equal("standing of A at B", row.get("standing"), "banned")
        checks.equal("name of the banned agent", row.get("name"), self.a.name)
        checks.equal("a reason for the ban", bool(row.get("reason")), True)
        self.notes.append(f"3: B's peer list says of {row.get('name')}: {row.get('standing')}, {row.get('reason')}")

    async def _forge(self, home: Path, group_key: str, size: int) -> dict[str, object]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.forge", str(home), str(size)),
            stdout=asyncio.subprocess.PIPE,
            env=environment({"NEARFETCH_GROUP_KEY": group_key}),
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise BenchError("the forger could not alter A's copy")
        done: dict[str, object] = json.loads(output)
        return done

    def _step(
        self,
        name: str,
        downloads: list[Download],
        sent: int | None,
        checks: Checks,
        result: str = "complete, right",
    ) -> Step:
        return Step(
            name=name,
            bytes_from_origin=sum(got.file.bytes_from_origin for got in downloads),
            bytes_from_peers=sum(got.file.bytes_from_peers for got in downloads),
            origin_sent=sent,
            seconds=max(got.seconds for got in downloads),
            bytes_delivered=sum(got.file.bytes_total or 0 for got in downloads),
            result=result,
            problems=checks.problems,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What `nearfetch get --json` printed."""

    state: object
    code: object
    message: object
    bytes_total: int | None
    bytes_from_origin: int
    bytes_from_peers: int

    @classmethod
    def of(cls, result: CommandResult) -> _Report:
        found = result.document()
        error = found.get("error")
        reason = error if isinstance(error, dict) else {}
        return cls(
            state=found.get("state"),
            code=reason.get("code"),
            message=reason.get("message"),
            bytes_total=_whole(found.get("bytes_total")),
            bytes_from_origin=_whole(found.get("bytes_from_origin")) or 0,
            bytes_from_peers=_whole(found.get("bytes_from_peers")) or 0,
        )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    url: str | None
    size: int | None
    json: bool


class Show:
    """Prints what happens: rows as they come, or one document at the end."""

    def __init__(self, options: Options) -> None:
        self._json = options.json
        self._table = Table(COLUMNS)
        self.steps: list[Step] = []

    def say(self, line: str = "") -> None:
        """A line for people."""
        if not self._json:
            print(line, flush=True)

    def head(self) -> None:
        """What the steps are, and the table's head."""
        for line in WORDS:
            self.say(f"  {line}")
        self.say()
        if not self._json:
            self._table.head()

    def step(self, step: Step) -> bool:
        """One row. False when it failed: the rest would only be its consequence."""
        self.steps.append(step)
        if not self._json:
            self._table.row(step.cells())
        return not step.problems

    def end(self, notes: list[str], seconds: float) -> int:
        """Notes, what is wrong, the verdict; the exit code."""
        problems = [f"{step.name}: {problem}" for step in self.steps for problem in step.problems]
        if self._json:
            steps = [dataclasses.asdict(step) for step in self.steps]
            json_line({"ok": not problems, "seconds": round(seconds, 3), "steps": steps, "notes": notes})
            return 1 if problems else 0
        self.say()
        for line in (*notes, *problems):
            self.say(textwrap.fill(line, WIDTH, subsequent_indent="   "))
        if problems:
            self.say(f"FAILED in {self.steps[-1].name!r}; steps after it were not run")
            return 1
        self.say(f"All {len(self.steps)} steps went as they must; {seconds:.1f} s in all.")
        return 0


async def run(options: Options) -> int:
    """Set everything up, go through the steps, and take everything down again; the exit code."""
    show, began = Show(options), time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearfetch-demo-")))
        origin = stack.enter_context(Origin())
        truth, group_key = await asyncio.gather(_content(options, place), create_group(place / "A"))
        url = options.url or origin.publish(place / ARCHIVE_NAME)
        agents = [AgentProcess(name, place / name, group_key=group_key) for name in "ABC"]
        await stack.enter_async_context(running(agents))
        met = await asyncio.gather(*(agent.meets(*(set(agents) - {agent})) for agent in agents))
        show.say(
            f"nearfetch demo: an origin and the agents A, B, C; all had met {max(met):.2f} s after they were ready"
        )
        show.say(f"content: {_described(options, place / ARCHIVE_NAME)}")
        show.say()
        show.head()
        demo = Demo(place, origin, (agents[0], agents[1], agents[2]))
        limit = DEMO_TIMEOUT_S if options.url is None else DOWNLOAD_TIMEOUT_S
        size = SECOND_FILE_BYTES if options.size is None else options.size // 2
        try:
            async with asyncio.timeout(limit):
                await _steps(demo, show, (url, truth, size, group_key))
        except TimeoutError as error:
            raise BenchError(f"the demo did not end within {limit:g} s") from error
    return show.end(demo.notes, time.monotonic() - began)


async def _steps(demo: Demo, show: Show, what: tuple[str, Path | None, int, str]) -> None:
    url, truth, size, group_key = what
    step, first = await demo.cold(url, truth)
    if not show.step(step):
        return
    if not show.step(await demo.warm(url, first, truth)):
        return
    if not show.step(await demo.liar(size, group_key)):
        return
    show.step(await demo.wrong_origin(size))


async def _content(options: Options, place: Path) -> Path | None:
    """The file that the origin will serve; None when the URL is somebody else's. Raises BenchError."""
    if options.url is not None:
        return None
    target = place / ARCHIVE_NAME
    if options.size is not None:
        await asyncio.to_thread(random_file, target, options.size)
        return target
    size = await asyncio.to_thread(archive_of_the_library, target)
    if shutil.disk_usage(place).free < ROOM * size:
        raise BenchError(f"the demo needs {count(ROOM * size)} bytes in {place.parent}; TMPDIR names another place")
    return target


def _described(options: Options, file: Path) -> str:
    """The content, for people: a query may hold a secret."""
    if options.url is not None:
        return options.url.partition("?")[0]
    return f"{file.name}, {count(file.stat().st_size)} bytes"


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench demo", description="The main job, on this machine alone."
    )
    parser.add_argument("--url", help="fetch this in steps 1 and 2 instead of an archive of the standard library")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument(
        "--size", type=int, help=argparse.SUPPRESS
    )  # for tests: random bytes instead of the archive
    given = parser.parse_args(arguments)
    if given.url is not None and urlsplit(given.url).scheme not in ("http", "https"):
        parser.error(f"--url: {given.url!r} is neither http nor https")
    try:
        return asyncio.run(run(Options(url=given.url, size=given.size, json=given.json)))
    except (BenchError, AgentError, OSError) as error:
        complain(str(error))
    return 1
