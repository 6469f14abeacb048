"""Group keys as text, and the authority that every agent derives from one."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from peer.errors import GroupKeyError
from peer.group import SECRET_BYTES, GroupKey

KEY = GroupKey(bytes(range(SECRET_BYTES)))
TEXT = "nf1-AAAQE-AYEAU-DAOCA-JBIFQ-YDIOB-4IBCE-QT7JG-TQJAB"
secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


def test_the_text_form_is_fixed() -> None:
    """A key that was written down must be readable by every later version."""
    assert str(KEY) == TEXT
    assert KEY.tag == "b59ca645b3aaccc5"
    der = KEY.authority.certificates[0].public_bytes(serialization.Encoding.DER)
    assert hashlib.sha256(der).hexdigest() == "67fcc3cede1d1aa0ed6a6df831d04b999eaa3784066328fa519d32dd177c555a"


@given(secrets)
def test_what_is_written_is_read(secret: bytes) -> None:
    key = GroupKey(secret)
    assert GroupKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "spoil",
    [
        str.lower,
        str.upper,
        lambda text: text.replace("-", ""),
        lambda text: text.replace("-", " "),
        lambda text: text.replace("-", "\u2011"),  # a word processor's hyphen
        lambda text: text.replace("-", "-\n   "),
        lambda text: f"\ufeff  {text}\r\n",
        lambda text: text.replace("-", "\u200b-"),
    ],
)
def test_copying_does_no_harm(spoil: object) -> None:
    assert GroupKey.parse(spoil(str(KEY))) == KEY  # type: ignore[operator]


@given(secrets, st.data())
def test_one_wrong_character_is_one_clear_sentence(secret: bytes, data: st.DataObject) -> None:
    text = str(GroupKey(secret))
    place = data.draw(st.integers(4, len(text) - 1).filter(lambda at: text[at] != "-"))
    wrong = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").filter(lambda item: item != text[place]))
    with pytest.raises(GroupKeyError, match=r"^the group key has a typing mistake: [^\n]*$"):
        GroupKey.parse(text[:place] + wrong + text[place + 1 :])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "this is not a group key: a group key begins with nf1-"),
        ("hello", "this is not a group key"),
        ("nf2-ABCDE", "of a format that this version does not know"),
        (str(KEY)[:-1], "incomplete: it has 39 of 40 characters"),
        (str(KEY) + "A", "too long: it has 41 of 40 characters"),
        (str(KEY)[:-1] + "1", "a character that no group key has: '1'"),
        (str(KEY)[:-1] + "\u0410", "a character that no group key has"),  # looks like A and is Cyrillic
    ],
)
def test_other_mistakes_are_named(text: str, sentence: str) -> None:
    with pytest.raises(GroupKeyError, match=sentence):
        GroupKey.parse(text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    with pytest.raises(GroupKeyError):
        GroupKey.parse("nf1-" + text)


def test_the_secret_shows_only_when_asked_for() -> None:
    assert str(KEY)[4:12] not in repr(KEY)
    assert KEY.tag in repr(KEY)


def test_new_keys_differ() -> None:
    assert GroupKey.create() != GroupKey.create()


def test_the_authority_is_the_same_everywhere() -> None:
    """Chains verify because every agent makes the same certificate, byte for byte."""
    first, second = (
        GroupKey(bytes(range(SECRET_BYTES))).authority.certificates[0].public_bytes(serialization.Encoding.DER)
        for _ in range(2)
    )
    assert first == second
    other = GroupKey(bytes(SECRET_BYTES)).authority.certificates[0]
    assert other.public_bytes(serialization.Encoding.DER) != first
    assert other.public_key() != KEY.authority.certificates[0].public_key()


def test_the_tag_tells_nothing_that_the_authority_is_made_of() -> None:
    assert KEY.authority.key is not None
    assert bytes.fromhex(KEY.tag) not in KEY.authority.key.private_bytes_raw()
