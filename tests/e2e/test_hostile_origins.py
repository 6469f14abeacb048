"""The catalogue of faults of the test origin, each through a job of a real agent: the right bytes, or a documented
error within bounded time; never wrong bytes with success. Prints a table of outcomes with -s.

Sources: reliability 3.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import CODES
from tests.support.agents import Agent, Fleet, Outcome, download, leftovers
from tests.support.origin import Fault, Origin
from tests.support.origin_faults import FAULTS
from tests.support.places import small_disk

SIZE = 700_000
GIVE_UP_S = 8.0
"""How long jobs try here (`no_progress_timeout_s`)."""

BOUND_S = 30.0
AT_ONCE = 12
RIGHT = "right"
SENDS_AWAY = ("status:count=429", "status:count=503", "busy-above")
"""Faults after which every job stays away from the host for a while (Retry-After)."""

ALWAYS = {
    # the body ends badly
    "cut-half:times=5": RIGHT,
    "cut-every:count=100000": RIGHT,
    "reset:times=3": RIGHT,
    "silent:times=1": RIGHT,
    "drip:times=1": RIGHT,
    # lengths
    "promise-more": "LENGTH_MISMATCH",
    "head-lies": RIGHT,
    "head-no-length": RIGHT,
    "head-missing": RIGHT,
    "head-status": RIGHT,
    "head-status:count=403": RIGHT,
    "huge-length": "TOO_LARGE DISK_FULL",
    "bad-content-length": "BAD_RESPONSE",
    "two-content-lengths": "BAD_RESPONSE",
    "length-and-chunked": "BAD_RESPONSE",
    "no-length": RIGHT,
    "chunked": RIGHT,
    "chunked-cut:times=1": RIGHT,
    "chunked-garbage:times=1": RIGHT,
    # ranges
    "no-ranges": RIGHT,
    "promise-ranges": RIGHT,
    "range-416": RIGHT,
    "wrong-range:times=1": RIGHT,
    "shifted": "VALIDATION_FAILED",
    "no-content-range:times=1": RIGHT,
    "bad-content-range:times=1": RIGHT,
    "too-long": RIGHT,
    "too-long-chunked:times=1": RIGHT,
    "too-long-declared:times=1": RIGHT,
    "multipart:times=1": RIGHT,
    # validators
    "weak-etag": RIGHT,
    "no-validators": RIGHT,
    "bad-byte:count=1000": "VALIDATION_FAILED",
    # encodings, and what is said about the content
    "gzip": "UNEXPECTED_ENCODING",
    "gzip-bomb": "UNEXPECTED_ENCODING",
    "disposition": RIGHT,
    "login-page:times=1": RIGHT,
    # statuses
    "status:count=400": "HTTP_FATAL",
    "status:count=401": "AUTH_REQUIRED",
    "status:count=403": "FORBIDDEN",
    "status:count=404": "NOT_FOUND",
    "status:count=410": "GONE",
    "status:count=408,times=2": RIGHT,
    "status:count=425,times=2": RIGHT,
    "status:count=429,times=1,value=1": RIGHT,
    "status:count=500,times=2": RIGHT,
    "status:count=502,times=2": RIGHT,
    "status:count=503,times=1,value=1": RIGHT,
    "status:count=504": "HTTP_TRANSIENT",
    "busy-above:count=1": RIGHT,
    "auth:value=x": "AUTH_REQUIRED",
    # redirects
    "redirect-chain": RIGHT,
    "redirect-chain:count=30": "TOO_MANY_REDIRECTS",
    "redirect-loop": "TOO_MANY_REDIRECTS",
    "redirect-nowhere": "HTTP_FATAL",
    "redirect:value=file///etc/passwd": "REDIRECT_REFUSED",
    # no HTTP at all
    "closes": "CONNECTION_CLOSED",
    "not-http": "BAD_RESPONSE",
    "http09": "BAD_RESPONSE",
    "huge-header": "BAD_RESPONSE",
    "many-headers": "BAD_RESPONSE",
    "wide-headers": "BAD_RESPONSE",
    "nul-header": "BAD_RESPONSE",
    "cr-header": "BAD_RESPONSE",
    "early-hints": RIGHT,
    # the content changes: the digest names the first version
    "changes-once": "VALIDATION_FAILED CHANGED right",
    "etag-flip": "VALIDATION_FAILED CHANGED right",
    "etag-flip-206": "VALIDATION_FAILED CHANGED right",
    "silent-flip": "VALIDATION_FAILED right",
    "size-flip": "VALIDATION_FAILED CHANGED LENGTH_MISMATCH right",
}
"""Fault -> what must come of it: `right`, or one of the codes. Each is at work for ever unless it says `times`."""

ELSEWHERE = {"endless-chunked", "header", "never-answers", "status"}
"""Faults that need a setting of their own (below), or half a minute (tests/agent)."""

ANYTHING = " ".join((RIGHT, *CODES))


def catalogue() -> dict[str, str]:
    """All of the above, and whatever else the origin can do: that, too, must end right or in a documented error."""
    named = {text.partition(":")[0] for text in ALWAYS}
    return ALWAYS | {name: ANYTHING for name in sorted(FAULTS) if name not in named | ELSEWHERE}


def test_every_expected_code_is_documented() -> None:
    codes = {code for outcome in ALWAYS.values() for code in outcome.split()}
    assert codes - {RIGHT} <= set(CODES)


@dataclass(frozen=True)
class Row:
    """One fault and what came of it."""

    fault: str
    wanted: str
    outcome: Outcome | None
    right: bool
    requests: int
    sent: int

    @property
    def found(self) -> str:
        if self.outcome is None:
            return "did not end"
        if self.outcome.job.state == "ACKNOWLEDGED":
            return RIGHT if self.right else "WRONG BYTES"
        return self.outcome.error or self.outcome.job.state

    def __str__(self) -> str:
        seconds = 0.0 if self.outcome is None else self.outcome.seconds
        mark = " " if self.found in self.wanted.split() else "!"
        counted = f"{self.requests:4} requests {self.sent:>10,} bytes"
        return f"{mark} {self.fault:36} {self.found:22} {seconds:5.1f} s {counted}"


async def test_right_bytes_or_a_documented_error(tmp_path: Path, origin: Origin) -> None:
    place = tmp_path / "place"
    place.mkdir()
    limit = asyncio.Semaphore(AT_ONCE)
    with Fleet(tmp_path / "fleet") as fleet:
        config = f"background_jobs = 100\nno_progress_timeout_s = {GIVE_UP_S}\n"
        agent = await asyncio.to_thread(fleet.start, "agent", group=False, config=config)

        async def run(index: int, fault: str, wanted: str) -> Row:
            async with limit:
                return await one(agent, origin, (f"/{index}", place / str(index)), (fault, wanted))

        rows = await asyncio.gather(*(run(index, *item) for index, item in enumerate(catalogue().items())))
        for row in rows:
            print(row)
        assert [str(row) for row in rows if row.found not in row.wanted.split()] == []
        assert all(row.requests < 200 for row in rows), "a storm of requests"
        assert leftovers(place) == sorted(str(index) for index, row in enumerate(rows) if row.found == RIGHT)
        assert "Traceback" not in agent.log
        assert "canary" not in agent.log


async def one(agent: Agent, origin: Origin, where: tuple[str, Path], what: tuple[str, str]) -> Row:
    """A job with a digest against one fault; cancelled at the end when it did not succeed."""
    fault = what[0]
    if not fault.startswith(SENDS_AWAY):
        return await one_at(agent, origin, where, what)
    async with Origin() as apart:  # what one job is told holds for the host: others must not be told it here
        return await one_at(agent, apart, where, what)


async def one_at(agent: Agent, origin: Origin, where: tuple[str, Path], what: tuple[str, str]) -> Row:
    """The same at one origin."""
    (name, path), (fault, wanted) = where, what
    data = os.urandom(SIZE)
    origin.add(name, data, faults=[fault.replace("file///", "file:///")])
    settings = {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    outcome = None
    with contextlib.suppress(TimeoutError):
        outcome = await download(agent, origin.url(name), path, timeout_s=BOUND_S, settings=settings)
    if outcome is not None and outcome.job.state == "ERROR":
        assert not path.exists()
        await agent.client.cancel(outcome.job.id)
    right = path.exists() and path.read_bytes() == data
    return Row(fault, wanted, outcome, right, len(origin.requests(name)), origin.sent(name))


async def test_content_without_end_ends(tmp_path: Path, origin: Origin, place: Path) -> None:
    """On a disk of its own, so that a failure fills nothing else."""
    origin.add("/endless.bin", b"x", faults=["endless-chunked"])
    with small_disk(place, 48 << 20), Fleet(tmp_path / "fleet") as fleet:
        config = f"no_progress_timeout_s = {GIVE_UP_S}\n"
        agent = await asyncio.to_thread(fleet.start, "agent", group=False, config=config)
        got = await download(agent, origin.url("/endless.bin"), place / "f", timeout_s=BOUND_S)
        assert got.job.state == "ERROR"
        assert got.error in ("TOO_LARGE", "DISK_FULL")
        await agent.client.cancel(got.job.id)
        assert leftovers(place) == []
        assert origin.sent("/endless.bin") < 500 << 20


async def test_secrets_stay_where_they_belong(tmp_path: Path, place: Path) -> None:
    """Another port is another origin: headers of the job do not follow a redirect there."""
    data = os.urandom(300_000)
    async with Origin() as first, Origin() as second:
        second.add("/there.bin", data)
        fault = Fault("redirect", value=second.url("/there.bin"))
        first.add("/here.bin", data, faults=[fault])
        with Fleet(tmp_path / "fleet") as fleet:
            agent = await asyncio.to_thread(fleet.start, "agent", group=False)
            settings = {"headers": {"Authorization": "Bearer canary", "Cookie": "a=canary", "X-Token": "canary"}}
            got = await download(agent, first.url("/here.bin?key=canary"), place / "f", settings=settings)
            assert got.job.state == "ACKNOWLEDGED", got.job.error
            assert (place / "f").read_bytes() == data
            assert all(request.headers.get("authorization") == "Bearer canary" for request in first.log)
            assert second.log
            assert [request.headers for request in second.log if "canary" in str(request.headers)] == []
            assert "canary" not in agent.log
            assert "canary" not in str(got.job)


async def test_a_mix_of_two_versions_is_never_shown(tmp_path: Path, origin: Origin, place: Path) -> None:
    """Without a digest: content that changes under the transfer ends as one version or as an error."""
    with Fleet(tmp_path / "fleet") as fleet:
        config = f"background_jobs = 100\nno_progress_timeout_s = {GIVE_UP_S}\n"
        agent = await asyncio.to_thread(fleet.start, "agent", group=False, config=config)

        async def run(fault: str) -> None:
            old, new = os.urandom(SIZE), os.urandom(SIZE)
            name, path = f"/{fault}", place / fault
            origin.add(name, old, other=new, faults=["cut-every:count=200000", fault])
            got = await download(agent, origin.url(name), path, timeout_s=BOUND_S)
            if got.job.state == "ACKNOWLEDGED":
                assert path.read_bytes() in (old, new), f"{fault}: a mix"
            else:
                assert got.error in ("CHANGED", "LENGTH_MISMATCH", "NO_RANGES"), (fault, got.job.error)

        await asyncio.gather(*(run(fault) for fault in ("changes-once", "etag-flip", "etag-flip-206", "size-flip")))


@pytest.mark.parametrize("fault", ["weak-etag", "no-validators"])
async def test_parts_without_a_strong_validator_are_not_joined(
    tmp_path: Path, origin: Origin, place: Path, fault: str
) -> None:
    """Cut once and changed meanwhile: fetched from the start again, never joined."""
    old, new = os.urandom(SIZE), os.urandom(SIZE)
    cut = Fault("cut-half", times=1)
    origin.add("/f", old, other=new, faults=[cut, "changes-once", fault])
    with Fleet(tmp_path / "fleet") as fleet:
        agent = await asyncio.to_thread(fleet.start, "agent", group=False)
        got = await download(agent, origin.url("/f"), place / "f", timeout_s=BOUND_S)
        assert got.job.state == "ACKNOWLEDGED", got.job.error
        assert (place / "f").read_bytes() in (old, new)
