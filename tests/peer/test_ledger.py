"""The record of bans and bytes, and what happens to it when the file or the clock is wrong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from peer.core.standing import BAN_S, Offence
from peer.core.voucher import PeerId
from peer.errors import LedgerError
from peer.ledger import MAX_PEERS, Ban, Ledger, Traffic

EVE, ANN = PeerId("e" * 64), PeerId("a" * 64)
NOW = 1_800_000_000.0
BAN = Ban(peer_id=EVE, offence=Offence.CORRUPT_BYTES, detail="chunk 3 of …", since=NOW, until=NOW + BAN_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers.json"


def saved(path: Path) -> Ledger:
    ledger = Ledger.load(path, NOW)
    ledger.ban(BAN)
    ledger.count(ANN, given=10, taken=2)
    ledger.count(ANN, given=1)
    ledger.met(ANN, "ann's laptop", NOW)
    ledger.save()
    return ledger


def test_bans_and_bytes_survive_a_restart(path: Path) -> None:
    saved(path)
    again = Ledger.load(path, NOW + 60)
    assert again.bans(NOW + 60) == [BAN]
    assert again.traffic(ANN) == Traffic(given=11, taken=2)
    assert (again.name_of(ANN), again.seen(ANN)) == ("ann's laptop", NOW)
    assert again.peers() == [ANN, EVE]
    assert again.problems == []


def test_the_file_is_private(path: Path) -> None:
    saved(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_ban_ends(path: Path) -> None:
    ledger = saved(path)
    assert ledger.ban_of(EVE, NOW + BAN_S - 1) == BAN
    assert ledger.ban_of(EVE, NOW + BAN_S) is None
    assert ledger.bans(NOW + BAN_S) == []
    assert ledger.ban_of(ANN, NOW) is None


def test_a_ban_can_be_lifted_for_good(path: Path) -> None:
    ledger = saved(path)
    assert ledger.unban(EVE)
    assert not ledger.unban(EVE)
    assert not ledger.unban(PeerId("0" * 64))
    ledger.save()
    assert Ledger.load(path, NOW).bans(NOW) == []


def test_a_clock_that_was_wrong_makes_no_ban_longer(path: Path) -> None:
    saved(path)
    years_ago = NOW - 10 * 365 * 86400
    ban = Ledger.load(path, years_ago).ban_of(EVE, years_ago)
    assert ban is not None
    assert ban.until == years_ago + BAN_S
    assert ban.since == years_ago


def test_nothing_is_written_without_a_change(path: Path) -> None:
    ledger = saved(path)
    before = path.stat().st_ino
    ledger.count(ANN)
    ledger.save()
    assert path.stat().st_ino == before
    ledger.count(ANN, taken=1)
    ledger.save()
    assert path.stat().st_ino != before


def test_a_failed_write_is_not_forgotten(tmp_path: Path) -> None:
    ledger = Ledger.load(tmp_path / "missing" / "peers.json", NOW)
    ledger.ban(BAN)
    with pytest.raises(OSError, match="No such file"):
        ledger.save()
    (tmp_path / "missing").mkdir()
    ledger.save()
    assert Ledger.load(tmp_path / "missing" / "peers.json", NOW).bans(NOW) == [BAN]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"version":1}', b'{"version":1,"peers":{"x":{"given":"much"}}}', b"[" * 9000],
)
def test_a_damaged_file_is_set_aside_loudly(path: Path, damage: bytes) -> None:
    for number in (1, 2):
        path.write_bytes(damage)
        ledger = Ledger.load(path, NOW)
        kept = path.with_name(f"peers.json.damaged-{number}")
        assert kept.read_bytes() == damage
        assert len(ledger.problems) == 1
        assert str(kept.name) in ledger.problems[0]
        assert not path.exists()
    ledger.ban(BAN)
    ledger.save()
    assert Ledger.load(path, NOW).bans(NOW) == [BAN]


def test_a_newer_file_is_left_alone(path: Path) -> None:
    newer = b'{"version":2,"peers":[],"more":true}'
    path.write_bytes(newer)
    with pytest.raises(LedgerError, match="written by a newer nearfetch"):
        Ledger.load(path, NOW)
    assert path.read_bytes() == newer


def test_an_offence_of_a_later_version_still_bans(path: Path) -> None:
    saved(path)
    path.write_bytes(path.read_bytes().replace(b"CORRUPT_BYTES", b"SOMETHING_NEW"))
    assert Ledger.load(path, NOW).ban_of(EVE, NOW) is not None


def test_it_cannot_grow_without_end_and_keeps_bans(path: Path) -> None:
    ledger = Ledger.load(path, NOW)
    ledger.ban(BAN)
    for number in range(MAX_PEERS + 5):
        ledger.met(PeerId(f"{number:064x}"), "", NOW + number)
    assert len(ledger.peers()) == MAX_PEERS
    assert ledger.ban_of(EVE, NOW) == BAN
    assert PeerId(f"{0:064x}") not in ledger.peers()


def test_a_long_detail_is_cut(path: Path) -> None:
    ledger = Ledger.load(path, NOW)
    ledger.ban(Ban(peer_id=EVE, offence=Offence.STALLED, detail="x" * 10_000, since=NOW, until=NOW + 5))
    ban = ledger.ban_of(EVE, NOW)
    assert ban is not None
    assert len(ban.detail) == 500
