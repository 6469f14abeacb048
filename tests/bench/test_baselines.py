"""The other systems' parts: torrents, the helper that starts commands, the liar's lies, what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.baselines.aria2 import Aria2
from bench.baselines.curl import Curl
from bench.baselines.libtorrent import Libtorrent
from bench.baselines.nearfetch import Nearfetch
from bench.baselines.torrent import PIECE_BYTES, bencode, torrent
from bench.content import seeded_file
from bench.liar import altered, become, forge, lies_about
from bench.scenarios import SCENARIOS
from peer.cache import CacheLimits, NewChunk, PeerCache
from peer.group import GroupKey
from peer.identity import Identity, verify_voucher
from peer.workers import Workers
from tests.support.bench_command import ROOT
from validation.content import MIN_CHUNK_BYTES, ChunkIndex, ChunkLayout, ContentId
from validation.digest import chunk_digest
from validation.ranges import ByteRange

TIMEOUT_S = 20.0


class Talk:
    """A helper, as the laboratory speaks with it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.node", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, object]:
        assert self.process.stdout is not None
        document: dict[str, object] = json.loads(self.process.stdout.readline())
        return document

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def started() -> Iterator[list[Talk]]:
    talks: list[Talk] = []
    yield talks
    for talk in talks:
        with talk.process as process:
            process.kill()


def test_bencoding() -> None:
    assert bencode({"b": 1, "a": [b"x", "yz"], "c": {}}) == b"d1:al1:x2:yze1:bi1e1:cdee"
    with pytest.raises(TypeError, match="float"):
        bencode(1.5)


def test_a_torrent_has_every_piece_and_the_web_seed(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    data = bytes(range(256)) * 1024 + b"rest"
    file.write_bytes(data)

    found = torrent(file, "http://10.77.0.2:80/x.bin")

    digests = b"".join(hashlib.sha1(piece).digest() for piece in (data[:PIECE_BYTES], data[PIECE_BYTES:]))
    assert found.startswith(b"d4:infod6:lengthi262148e4:name5:x.bin12:piece lengthi262144e6:pieces40:" + digests)
    assert found.endswith(b"e8:url-listl25:http://10.77.0.2:80/x.binee")


def test_the_seed_decides_the_content(tmp_path: Path) -> None:
    one, two, other = (seeded_file(tmp_path / name, 3_000_000, seed) for name, seed in ("aa", "ba", "cb"))

    assert one == two == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() != other
    assert (tmp_path / "a").stat().st_size == 3_000_000


def test_a_command_waits_for_go_and_says_what_it_cost(started: list[Talk], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    talk = Talk("run", "--", sys.executable, "-c", f"sum(range(10**7)); open({str(mark)!r}, 'x')")
    started.append(talk)

    assert talk.hear() == {"ready": True}
    assert not mark.exists()
    talk.tell("go")
    assert "done" in talk.hear()
    assert mark.exists()
    talk.tell("usage")
    cost = talk.hear()
    assert isinstance(cost["cpu_s"], float)
    assert isinstance(cost["peak_memory"], int)
    assert cost["cpu_s"] >= 0.02
    assert cost["peak_memory"] > 5_000_000
    assert talk.end() == 0


def test_a_command_that_fails_says_why(started: list[Talk]) -> None:
    talk = Talk("run", "--", "sh", "-c", "echo no room >&2; exit 3")
    started.append(talk)
    talk.hear()
    talk.tell("go")

    assert talk.hear() == {"failed": "sh ended with exit code 3: no room"}


def test_with_markers_it_is_done_when_all_are_there_and_runs_on(started: list[Talk], tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    script = f": > {one}; read line; : > {two}; exec sleep 1000"
    fifo = tmp_path / "fifo"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    markers = ("--marker", str(one), "--marker", str(two))
    talk = Talk("run", *markers, "--", "sh", "-c", f"{{ {script}; }} < {fifo}")
    started.append(talk)
    talk.hear()
    talk.tell("go")
    with fifo.open("w") as gate:  # opens when the script has; the second marker waits for the line
        talk.tell("usage")
        assert "cpu_s" in talk.hear()
        gate.write("now\n")
    assert "done" in talk.hear()
    assert talk.end() == 0


def test_the_origin_keeps_a_log_by_client(started: list[Talk], tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(100_000))
    talk = Talk("origin", "127.0.0.1", str(tmp_path / "x.bin"))
    started.append(talk)
    urls = talk.hear()["urls"]
    assert isinstance(urls, list)

    curl = f"import urllib.request; urllib.request.urlopen({urls[0]!r}).read()"
    subprocess.run([sys.executable, "-c", curl], check=True, timeout=TIMEOUT_S)

    talk.tell("settled")
    assert talk.hear() == {"sent": 100_000, "clients": {"127.0.0.1": 100_000}}
    assert talk.end() == 0


def test_the_liar_alters_a_byte_of_its_chunks_and_no_other() -> None:
    lies = [chunk for chunk in range(1000) if lies_about(chunk, 0.1)]
    assert 70 < len(lies) < 130
    assert not any(lies_about(chunk, 0.0) for chunk in range(1000))
    chunk, size = lies[0], 16
    truth = bytes(3 * size)

    item = ByteRange((chunk - 1) * size, (chunk + 2) * size)
    found = altered(truth, item, size, 0.1)

    places = [place for place in range(3 * size) if found[place]]
    assert size in places
    assert all(lies_about(chunk - 1 + place // size, 0.1) and place % size == 0 for place in places)
    inside = ByteRange(chunk * size + 1, chunk * size + 5)  # a piece that begins after the altered byte
    assert altered(bytes(4), inside, size, 0.1) == bytes(4)


async def test_the_forger_vouches_for_what_it_altered_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, name in ((PeerCache, "read"), (PeerCache, "vouchers"), (Identity, "load_or_create")):
        monkeypatch.setattr(kind, name, kind.__dict__[name])  # puts back what follows changes
    layout = ChunkLayout.for_length(12 * MIN_CHUNK_BYTES)
    share = 0.5
    lies = [chunk for chunk in range(layout.count) if lies_about(chunk, share)]
    assert 0 < len(lies) < layout.count
    become(share)
    forge(share)

    group = GroupKey.create()
    honest = Identity.load_or_create(tmp_path / "honest", group, time.time())
    forger = Identity.load_or_create(tmp_path / "forger", group, time.time())
    data, content_id = os.urandom(layout.length), ContentId("1" * 64)
    original = tmp_path / "original"
    original.write_bytes(data)
    with contextlib.closing(Workers(1)) as workers, open(original, "rb") as source:
        cache = await PeerCache.open(tmp_path / "cache", CacheLimits(), workers, time.time)
        for index in range(layout.count):
            chunk = ChunkIndex(index)
            digest = chunk_digest(data[layout.range_of(chunk).start : layout.range_of(chunk).stop])
            await cache.add_chunk(
                NewChunk(
                    content_ids=(content_id,),
                    layout=layout,
                    chunk=chunk,
                    digest=digest,
                    vouchers=(honest.vouch(content_id, chunk, digest),),
                    source_fd=source.fileno(),
                )
            )
        for index in range(layout.count):
            chunk = ChunkIndex(index)
            given = cache.read(content_id, layout.range_of(chunk))
            (voucher,) = cache.vouchers(content_id, chunk)
            assert voucher.digest == chunk_digest(given)
            signer = forger if index in lies else honest
            assert verify_voucher(voucher, signer.certificate_der)
        await cache.close()


def test_a_missing_competitor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert Curl.missing() == "curl is not installed"
    assert Aria2.missing() == "aria2c is not installed"
    assert str(Libtorrent.missing()).startswith("the Python package libtorrent is not installed")
    assert Nearfetch.missing() is None


def test_only_nearfetch_has_a_liar() -> None:
    assert Nearfetch.cannot(SCENARIOS["liar"]) is None
    assert Curl.cannot(SCENARIOS["liar"]) == "curl has no agent that lies"
    assert Curl.cannot(SCENARIOS["cold"]) is None


def test_each_states_its_options() -> None:
    assert "--bt-enable-lpd=true" in Aria2.options
    assert "enable_lsd True" in Libtorrent.options
    assert all(len(system.options) > 20 for system in (Nearfetch, Curl))
