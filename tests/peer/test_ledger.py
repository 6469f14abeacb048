"""The record of bans and bytes, and what happens to it when the file or the clock is wrong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from peer.core.standing import BAN_S, Offence
from peer.core.voucher import PeerId
from peer.errors import LedgerError
from peer.ledger import ABSENCE_S, MAX_PEERS, Ban, Ledger, Traffic

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
    newer = b'{"version":3,"peers":[],"more":true}'
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


def test_a_ban_by_people_has_no_offence_and_its_own_length(path: Path) -> None:
    ledger = Ledger.load(path, NOW)
    years = 10 * 365 * 86400.0
    ban = Ban(peer_id=EVE, offence=None, detail="left the company", since=NOW, until=NOW + years)
    ledger.ban(ban)
    ledger.save()
    assert Ledger.load(path, NOW + 60).bans(NOW + 60) == [ban]


def test_what_version_1_wrote_is_read(path: Path) -> None:
    path.write_bytes(b'{"version":1,"peers":{"%s":{"given":5,"seen":7.0,"name":"ann"}}}' % ANN.encode())
    ledger = Ledger.load(path, NOW)
    assert (ledger.traffic(ANN), ledger.name_of(ANN), ledger.problems) == (Traffic(given=5), "ann", [])
    assert ledger.total() == Traffic(given=5)


def test_who_is_forgotten_leaves_its_bytes_in_the_total(path: Path) -> None:
    ledger = saved(path)
    assert ledger.forget(ANN, NOW)
    assert not ledger.forget(ANN, NOW)
    assert ledger.peers() == [EVE]
    ledger.count(ANN, given=4)
    ledger.save()
    again = Ledger.load(path, NOW)
    assert again.traffic(ANN) == Traffic(given=4)
    assert again.total() == Traffic(given=15, taken=2)


def test_a_ban_cannot_be_forgotten(path: Path) -> None:
    ledger = saved(path)
    assert not ledger.forget(EVE, NOW)
    assert ledger.ban_of(EVE, NOW) == BAN
    assert ledger.forget(EVE, NOW + BAN_S)


def test_nothing_stays_of_a_stranger_whose_ban_is_lifted(path: Path) -> None:
    ledger = saved(path)
    assert ledger.unban(EVE)
    assert ledger.peers() == [ANN]


def test_the_long_absent_can_be_told(path: Path) -> None:
    ledger = saved(path)
    ledger.count(PeerId("c" * 64), given=1)  # nobody knows since when
    assert ledger.absent(NOW + ABSENCE_S) == []
    assert ledger.absent(NOW + ABSENCE_S + 1) == [ANN, EVE]  # its ban is over by then
    assert ledger.absent(NOW - 10 * ABSENCE_S) == []
