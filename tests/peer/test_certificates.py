"""Certificates of other members: kept across restarts, never believed because they were stored."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from peer import certificates
from peer.certificates import CertificateBook
from peer.identity import MEMBER_DAYS, GroupKey, Identity

GROUP = GroupKey.create()
DAY = 86400.0


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def member(tmp_path: Path, name: str, group: GroupKey = GROUP, days_ago: float = 0.0) -> Identity:
    return Identity.load_or_create(tmp_path / name, group, time.time() - days_ago * DAY, name)


@pytest.fixture
def ours(tmp_path: Path) -> Identity:
    return member(tmp_path, "ours")


def opened(tmp_path: Path, ours: Identity, clock: Clock) -> CertificateBook:
    book = CertificateBook(tmp_path / "book", ours, clock)
    book.load()
    return book


def test_what_was_written_is_there_after_a_restart(tmp_path: Path, ours: Identity, clock: Clock) -> None:
    ann, book = member(tmp_path, "ann"), opened(tmp_path, ours, clock)
    assert book.find(ann.peer_id) is None
    assert book.add(ann.certificate_der) == ann.peer_id
    assert book.find(ann.peer_id) == ann.certificate_der
    book.write(book.take_unsaved())
    assert book.take_unsaved() == {}
    again = opened(tmp_path, ours, clock)
    assert again.find(ann.peer_id) == ann.certificate_der
    assert again.take_unsaved() == {}


def test_strangers_do_not_get_in(tmp_path: Path, ours: Identity, clock: Clock) -> None:
    eve, book = member(tmp_path, "eve", GroupKey.create()), opened(tmp_path, ours, clock)
    assert book.add(eve.certificate_der) is None
    assert book.add(b"noise") is None
    assert book.find(eve.peer_id) is None
    assert book.take_unsaved() == {}


def test_what_somebody_put_on_the_disk_is_judged(tmp_path: Path, ours: Identity, clock: Clock) -> None:
    eve, ann = member(tmp_path, "eve", GroupKey.create()), member(tmp_path, "ann")
    opened(tmp_path, ours, clock)
    (tmp_path / "book" / f"{ann.peer_id}.der").write_bytes(eve.certificate_der)
    (tmp_path / "book" / f"{eve.peer_id}.der").write_bytes(b"")
    (tmp_path / "book" / "notes.txt").write_bytes(b"hello")
    (tmp_path / "book" / ("f" * 64 + ".der")).mkdir()
    book = opened(tmp_path, ours, clock)
    assert book.find(ann.peer_id) is book.find(eve.peer_id) is None


def test_a_certificate_that_ended_is_no_answer(tmp_path: Path, ours: Identity, clock: Clock) -> None:
    ann, book = member(tmp_path, "ann"), opened(tmp_path, ours, clock)
    book.add(ann.certificate_der)
    clock.now += MEMBER_DAYS * DAY
    assert book.find(ann.peer_id) is None


def test_the_one_that_lasts_longest_is_kept(tmp_path: Path, ours: Identity, clock: Clock) -> None:
    older = member(tmp_path, "ann", days_ago=MEMBER_DAYS / 2 + 1)
    newer = member(tmp_path, "ann")
    assert older.certificate_der != newer.certificate_der
    book = opened(tmp_path, ours, clock)
    for der in (older.certificate_der, newer.certificate_der, older.certificate_der):
        assert book.add(der) == newer.peer_id
    assert book.find(newer.peer_id) == newer.certificate_der


def test_our_own_is_not_kept(tmp_path: Path, ours: Identity, clock: Clock) -> None:
    book = opened(tmp_path, ours, clock)
    assert book.add(ours.certificate_der) == ours.peer_id
    assert book.take_unsaved() == {}


def test_the_book_has_an_end(tmp_path: Path, ours: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_CERTIFICATES", 2)
    book = opened(tmp_path, ours, clock)
    known = [member(tmp_path, name) for name in ("ann", "ben", "cid")]
    for item in known:
        book.add(item.certificate_der)
    assert [book.find(item.peer_id) is not None for item in known] == [True, True, False]
