"""The main job, by real agents: near before far, validated before visible, liars found out, a wrong origin said."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.errors import ExitCode
from agent.schema import NewFile, NewJob
from tests.support.agents import ROOT, Agent, Fleet, download, environment, leftovers
from tests.support.origin import Fault, Origin

MIB = 1024 * 1024
Three = tuple[Agent, Agent, Agent]


@pytest.fixture(scope="module", name="three")
def run_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """Three agents of one group, each of which has met the others. Tests use contents of their own."""
    with Fleet(tmp_path_factory.mktemp("three")) as fleet:
        a, b, c = asyncio.run(fleet.start_together("a", "b", "c"))
        yield a, b, c


def noise(size: int) -> bytes:
    """Bytes that no other test has."""
    return os.urandom(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- near before far ---------------------------------------------------------------------------------------------


async def test_first_agent_takes_the_origin_and_the_next_takes_peers(
    three: Three, origin: Origin, place: Path
) -> None:
    a, b, _ = three
    data = noise(5 * MIB + 12_345)
    origin.add("/warm.bin", data)
    cold = await a.get(origin.url("/warm.bin"), place / "cold")
    assert (cold.exit_code, cold.err) == (0, "")
    assert cold.document["state"] == "ACKNOWLEDGED"
    assert cold.document["bytes_from_origin"] == origin.sent("/warm.bin") == len(data)
    assert cold.document["bytes_from_peers"] == 0
    warm = await b.get(origin.url("/warm.bin"), place / "warm", "--sha256", sha256(data))
    assert (warm.exit_code, warm.err) == (0, "")
    assert warm.document["peers"] == {a.peer_id: len(data)}
    assert warm.document["bytes_from_origin"] == 0
    assert warm.document["bytes_discarded"] == 0
    assert origin.sent("/warm.bin") == len(data), "the origin sent payload for the second download"
    assert (place / "cold").read_bytes() == (place / "warm").read_bytes() == data
    assert leftovers(place) == ["cold", "warm"]


async def test_two_peers_share_the_load(three: Three, origin: Origin, place: Path) -> None:
    a, b, c = three
    data = noise(24 * MIB)
    origin.add("/shared.bin", data)
    for agent in (a, b):
        assert (await download(agent, origin.url("/shared.bin"), place / agent.name)).job.state == "ACKNOWLEDGED"
    sent = origin.sent("/shared.bin")
    got = await c.get(origin.url("/shared.bin"), place / "c")
    assert got.exit_code == 0
    assert origin.sent("/shared.bin") == sent
    assert set(got.document["peers"]) == {a.peer_id, b.peer_id}
    assert sum(got.document["peers"].values()) == len(data)
    assert min(got.document["peers"].values()) > len(data) // 8
    assert (place / "c").read_bytes() == data


async def test_mirrors_meet_by_the_digest(three: Three, origin: Origin, place: Path) -> None:
    a, b, _ = three
    data = noise(MIB)
    origin.add("/mirror-1.bin", data)
    origin.add("/mirror-2.bin", data, etag='"another"', modified=1)
    wishes = {"digest": f"sha256:{sha256(data)}"}
    await download(a, origin.url("/mirror-1.bin"), place / "1", settings=wishes)
    second = await download(b, origin.url("/mirror-2.bin"), place / "2", settings=wishes)
    assert second.file.peers == {a.peer_id: len(data)}
    assert origin.sent("/mirror-2.bin") == 0


async def test_two_gets_of_one_url_by_one_agent_fetch_it_once(three: Three, origin: Origin, place: Path) -> None:
    a, _, _ = three
    data = noise(6 * MIB)
    origin.rate = 6 * MIB
    origin.add("/once.bin", data)
    url = origin.url("/once.bin")
    both = await asyncio.gather(a.get(url, place / "one"), a.get(url, place / "two"))
    assert [got.exit_code for got in both] == [0, 0]
    assert (place / "one").read_bytes() == (place / "two").read_bytes() == data
    assert origin.sent("/once.bin") == len(data)
    assert sum(got.document["bytes_from_origin"] for got in both) == len(data)
    assert sum(got.document["bytes_from_cache"] for got in both) == len(data)


# --- what is not shared ------------------------------------------------------------------------------------------

NOT_SHARED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no validator at all": ({"etag": None, "modified": None}, {}),
    "weak ETag, no date": ({"etag": 'W/"1"', "modified": None}, {}),
    "no-store": ({"headers": (("Cache-Control", "max-age=60, No-Store"),)}, {}),
    "private": ({"headers": (("Cache-Control", "private"),)}, {}),
    "varies": ({"headers": (("Vary", "Accept-Encoding, User-Agent"),)}, {}),
    "header of the job's own": ({}, {"headers": {"Authorization": "Bearer canary"}}),
    "peers never": ({}, {"peers": "never"}),
    "credentials in the URL": ({}, {}),
}


@pytest.mark.parametrize("why", NOT_SHARED)
async def test_what_is_not_meant_for_others_is_not_shared(
    three: Three, origin: Origin, place: Path, why: str
) -> None:
    a, b, _ = three
    data = noise(600_000)
    served, wishes = NOT_SHARED[why]
    origin.add("/mine.bin", data, **served)
    url = origin.url("/mine.bin")
    if why == "credentials in the URL":
        url = url.replace("http://", "http://user:canary@")
    records = len((await a.client.cache()).records)
    for agent in (a, b):
        got = await download(agent, url, place / agent.name, settings=wishes)
        assert got.job.state == "ACKNOWLEDGED", got.job.error
        assert (got.file.bytes_from_peers, got.file.bytes_from_cache) == (0, 0)
        assert (place / agent.name).read_bytes() == data
    assert origin.sent("/mine.bin") == 2 * len(data)
    assert len((await a.client.cache()).records) == records
    assert "canary" not in a.log + b.log


async def test_vary_by_encoding_alone_is_shared(three: Three, origin: Origin, place: Path) -> None:
    a, b, _ = three
    data = noise(600_000)
    origin.add("/vary.bin", data, headers=(("Vary", "Accept-Encoding"), ("Cache-Control", "public")))
    await download(a, origin.url("/vary.bin"), place / "a")
    got = await download(b, origin.url("/vary.bin"), place / "b")
    assert got.file.peers == {a.peer_id: len(data)}


# --- a validator decides -----------------------------------------------------------------------------------------


async def test_a_liar_is_found_by_the_validator_and_banned(tmp_path: Path, origin: Origin, place: Path) -> None:
    data = noise(4 * MIB)
    origin.add("/liar.bin", data)
    url = origin.url("/liar.bin")
    with Fleet(tmp_path / "fleet") as fleet:
        a, b = await fleet.start_together("a", "b")
        assert (await download(a, url, place / "a")).job.state == "ACKNOWLEDGED"
        a.stop()
        forged = await asyncio.to_thread(forge, a, len(data))
        assert forged["peer_id"] == a.peer_id
        await asyncio.to_thread(a.start)
        await b.met(a)
        got = await download(b, url, place / "b", settings={"digest": f"sha256:{sha256(data)}"})
        assert got.job.state == "ACKNOWLEDGED", got.job
        assert [state for state in got.states if "ERROR" in state] == []
        assert got.job.error_count == 0
        assert (place / "b").read_bytes() == data
        assert got.file.peers == {a.peer_id: len(data)}
        assert got.file.bytes_from_origin == got.file.bytes_discarded == len(data)
        assert origin.sent("/liar.bin") == 2 * len(data)
        row = await banned_row(b, a)
        assert (row["name"], row["standing"]) == ("a", "banned")
        assert row["reason"]
        assert any("banned" in line and "a (" in line for line in got.job.log), got.job.log
        again = await download(b, url, place / "again")
        assert again.file.bytes_from_cache == len(data), "what the origin said is now shared"
        assert (place / "again").read_bytes() == data


def forge(agent: Agent, length: int) -> dict[str, Any]:
    """Alter two chunks of a stopped agent's cached copy, and vouch for them with its own key."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.forge", str(agent.home), str(length)],
        capture_output=True,
        env=environment(agent.extra),
        cwd=ROOT,
        timeout=30,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["chunks"]
    return found


async def banned_row(agent: Agent, other: Agent) -> dict[str, Any]:
    """What `nearfetch peer list` says of the other."""
    listed = (await agent.call("peer", "list", "--json")).document["peers"]
    (row,) = [row for row in listed if row["id"] == other.peer_id]
    assert isinstance(row, dict)
    return row


async def test_a_wrong_origin_ends_in_error_and_nothing_is_visible(
    three: Three, origin: Origin, place: Path
) -> None:
    a, b, _ = three
    data = noise(MIB)
    origin.add("/wrong.bin", data)
    got = await a.get(origin.url("/wrong.bin"), place / "wrong", "--sha256", sha256(b"other"))
    assert got.exit_code == ExitCode.VALIDATION
    assert got.document["state"] == "ERROR"
    assert got.error_code == "VALIDATION_FAILED"
    assert got.document["bytes_from_origin"] == origin.sent("/wrong.bin") == len(data)
    assert leftovers(place) == []
    assert await a.client.jobs() == []
    other = await download(b, origin.url("/wrong.bin"), place / "b")
    assert other.file.peers == {}, "rejected content was offered to others"


async def test_a_job_with_rejected_content_stays_with_progress_zero(
    three: Three, origin: Origin, place: Path
) -> None:
    a, _, _ = three
    data = noise(MIB)
    origin.add("/progress.bin", data, faults=[Fault("bad-byte", count=1000, times=1)])
    digest = {"digest": f"sha256:{sha256(data)}"}
    got = await download(a, origin.url("/progress.bin"), place / "file", settings=digest)
    assert (got.job.state, got.error, got.job.bytes_transferred) == ("ERROR", "VALIDATION_FAILED", 0)
    assert not (place / "file").exists()
    job = await a.client.resume(got.job.id)  # the origin has been mended meanwhile
    job = await a.client.wait(job.id, {"TRANSFERRED", "ERROR"}, timeout_s=20)
    assert job.state == "TRANSFERRED", job.error
    await a.client.complete(job.id)
    assert (place / "file").read_bytes() == data
    assert leftovers(place) == ["file"]


class Validators:
    """Validators over one content: the right one, and one that must reject it."""

    def __init__(self, data: bytes, directory: Path) -> None:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        script = directory / "verdict.sh"
        script.write_text(f'#!/bin/sh\ntest "$(wc -c < "$2")" -eq {len(data)} && exit $1\n')
        script.chmod(0o755)
        self.good = {
            "sha256": f"sha256:{sha256(data)}",
            "sha512": f"sha512:{hashlib.sha512(data).hexdigest()}",
            "blake2b": f"blake2b:{hashlib.blake2b(data).hexdigest()}",
            "size": f"size:{len(data)}",
            "ed25519": f"ed25519:{public},{key.sign(data).hex()}",
            "command": f"command:{script} 0",
        }
        self.bad = {
            "sha256": f"sha256:{sha256(b'')}",
            "sha512": f"sha512:{hashlib.sha512(b'').hexdigest()}",
            "blake2b": f"blake2b:{hashlib.blake2b(b'').hexdigest()}",
            "size": f"size:{len(data) + 1}",
            "ed25519": f"ed25519:{public},{key.sign(b'').hex()}",
            "command": f"command:{script} 1",
        }


async def test_each_validator_accepts_and_rejects(
    three: Three, origin: Origin, place: Path, tmp_path: Path
) -> None:
    a, _, _ = three
    data = noise(300_000)
    origin.add("/v.bin", data)
    kinds = Validators(data, tmp_path)
    for name, spec in kinds.good.items():
        got = await download(a, origin.url("/v.bin"), place / name, settings={"validators": [spec]})
        assert got.job.state == "ACKNOWLEDGED", (name, got.job.error)
        assert (place / name).read_bytes() == data
    for name, spec in kinds.bad.items():
        got = await download(a, origin.url("/v.bin"), place / f"{name}-bad", settings={"validators": [spec]})
        assert (got.job.state, got.error) == ("ERROR", "VALIDATION_FAILED"), name
        assert got.job.error is not None
        assert got.job.error.message
        await a.client.cancel(got.job.id)
    assert leftovers(place) == sorted(kinds.good)


async def test_all_validators_must_accept(three: Three, origin: Origin, place: Path, tmp_path: Path) -> None:
    a, _, _ = three
    data = noise(300_000)
    origin.add("/all.bin", data)
    kinds = Validators(data, tmp_path)
    words = [word for spec in [kinds.good["size"], kinds.good["ed25519"]] for word in ("--validator", spec)]
    good = await a.get(origin.url("/all.bin"), place / "good", "--sha256", sha256(data), *words)
    assert good.exit_code == 0
    bad = await a.get(origin.url("/all.bin"), place / "bad", *words, "--validator", kinds.bad["command"])
    assert (bad.exit_code, bad.error_code) == (ExitCode.VALIDATION, "VALIDATION_FAILED")
    assert leftovers(place) == ["good"]


async def test_a_validator_that_dies_is_no_verdict(three: Three, origin: Origin, place: Path) -> None:
    a, _, _ = three
    data = noise(300_000)
    origin.add("/dies.bin", data)
    got = await a.get(origin.url("/dies.bin"), place / "dies", "--validator", "command:/bin/sh -c 'kill -9 $$'")
    assert (got.exit_code, got.error_code) == (ExitCode.VALIDATOR, "VALIDATOR_FAILED")
    assert origin.sent("/dies.bin") == len(data), "fetched again though nobody had judged it"
    assert leftovers(place) == []


async def test_unknown_validator_suggests_the_near_one(three: Three, origin: Origin, place: Path) -> None:
    a, _, _ = three
    origin.add("/unknown.bin", b"x")
    got = await a.get(origin.url("/unknown.bin"), place / "f", "--validator", "sha265:00")
    assert (got.exit_code, got.error_code) == (ExitCode.USAGE, "UNKNOWN_VALIDATOR")
    assert "sha256" in got.document["error"]["message"]
    assert origin.requests("/unknown.bin") == []
    assert leftovers(place) == []


# --- the application decides -------------------------------------------------------------------------------------


async def deciding_job(agent: Agent, url: str, path: Path) -> str:
    """A job made on the command line, whose file waits for its application."""
    job = (await agent.call("job", "create", "decide", "--json")).document["id"]
    added = await agent.call("job", "add", job, url, path, "--validator", "application")
    assert (added.exit_code, added.err) == (0, "")
    assert (await agent.call("job", "resume", job)).exit_code == 0
    waited = await agent.client.wait(job, timeout_s=20)
    assert waited.state == "VALIDATING"
    return str(job)


async def test_the_application_says_valid(three: Three, origin: Origin, place: Path) -> None:
    a, _, _ = three
    data = noise(500_000)
    origin.add("/valid.bin", data)
    job = await deciding_job(a, origin.url("/valid.bin"), place / "file")
    shown = (await a.call("job", "show", job, "--json")).document["files"][0]
    assert (shown["state"], shown["validation"]) == ("deciding", "undecided")
    temporary = Path(shown["temporary_path"])
    assert temporary.read_bytes() == data
    assert temporary.parent == place
    assert not (place / "file").exists()
    said = await a.call("job", "validate", job, "0", "valid", "--json")
    assert said.exit_code == 0
    assert (await a.client.wait(job, timeout_s=10)).state == "TRANSFERRED"
    assert (await a.call("job", "complete", job)).exit_code == 0
    assert (place / "file").read_bytes() == data
    assert leftovers(place) == ["file"]


async def test_the_application_says_invalid_about_the_origin(three: Three, origin: Origin, place: Path) -> None:
    a, b, _ = three
    data = noise(500_000)
    origin.add("/invalid.bin", data)
    job = await deciding_job(a, origin.url("/invalid.bin"), place / "file")
    said = await a.call("job", "validate", job, "0", "invalid", "--json")
    assert said.exit_code == 0
    found = await a.client.wait(job, timeout_s=10)
    assert found.state == "ERROR"
    assert found.error is not None
    assert found.error.code == "VALIDATION_FAILED"
    assert not (place / "file").exists()
    other = await download(b, origin.url("/invalid.bin"), place / "b")
    assert other.file.peers == {}, "content that was called invalid is offered no more"
    await a.client.cancel(job)
    assert leftovers(place) == ["b"]


async def test_the_application_says_invalid_about_a_peer(three: Three, origin: Origin, place: Path) -> None:
    a, b, _ = three
    data = noise(500_000)
    origin.add("/again.bin", data)
    await download(a, origin.url("/again.bin"), place / "a")
    job = await deciding_job(b, origin.url("/again.bin"), place / "b")
    assert origin.sent("/again.bin") == len(data)
    assert (await b.call("job", "validate", job, "0", "invalid", "--json")).exit_code == 0
    found = await b.client.wait(job, timeout_s=20)  # refetched from the origin; the application is asked again
    assert (found.state, found.files[0].state) == ("VALIDATING", "deciding")
    assert found.error is None
    assert origin.sent("/again.bin") == 2 * len(data)
    assert (await b.call("job", "validate", job, "0", "valid", "--json")).exit_code == 0
    assert (await b.client.wait(job, timeout_s=10)).state == "TRANSFERRED"
    await b.client.complete(job)
    assert (place / "b").read_bytes() == data
    await b.sees(lambda peers: all(peer.standing == "good" for peer in peers), "an honest peer in good standing")


async def test_set_validation_after_transfer_without_a_validator(three: Three, origin: Origin, place: Path) -> None:
    a, _, _ = three
    data = noise(300_000)
    origin.add("/late.bin", data)
    new = NewFile(url=origin.url("/late.bin"), path=str(place / "late"))
    job = await a.client.create_job(NewJob(name="late", files=[new]))
    await a.client.resume(job.id)
    assert (await a.client.wait(job.id, timeout_s=10)).state == "TRANSFERRED"
    await a.client.set_validation(job.id, 0, valid=False)
    found = await a.client.wait(job.id, {"ERROR"}, timeout_s=10)
    assert found.error is not None
    assert found.error.code == "VALIDATION_FAILED"
    assert not (place / "late").exists()
    await a.client.cancel(job.id)
    assert leftovers(place) == []
