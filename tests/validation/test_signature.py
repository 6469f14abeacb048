"""Validator ed25519: keys and signatures in every spelling, small files and large ones, and what can go wrong."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.candidates import candidate, verdict_on
from validation.conformance import Examples, check
from validation.errors import ValidatorArgumentError
from validation.plugins.signature import Ed25519Signature, ed25519
from validation.validator import Decision, Patience, judge

# RFC 8032 §7.1, test 3
KEY = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
MESSAGE = bytes.fromhex("af82")
SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
LARGE = 5 * 1024 * 1024 + 3
PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def pem(key: bytes) -> str:
    loaded = serialization.load_der_public_key(bytes.fromhex("302a300506032b6570032100") + key)
    return loaded.public_bytes(PEM, SPKI).decode()


def spellings(value: bytes) -> list[bytes]:
    encoded = base64.b64encode(value)
    return [value.hex().encode(), value.hex().upper().encode(), encoded]


KEYS = [*spellings(KEY), pem(KEY).encode()]
SIGNATURES = spellings(SIGNATURE)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("signature", SIGNATURES)
def test_inline(key: bytes, signature: bytes, tmp_path: Path) -> None:
    validator = ed25519(f"{key.decode()},{signature.decode()}")
    assert verdict_on(validator, tmp_path / "file", MESSAGE).decision is Decision.ACCEPTED
    assert verdict_on(validator, tmp_path / "file", MESSAGE + b"\0").decision is Decision.REJECTED


@pytest.mark.parametrize("key", [KEY, *KEYS, b"  " + KEYS[0] + b"\n", b"A comment.\n" + KEYS[-1]])
@pytest.mark.parametrize(
    "signature", [SIGNATURE, *SIGNATURES, SIGNATURES[2][:64] + b"\n" + SIGNATURES[2][64:] + b"\r\n"]
)
def test_files(key: bytes, signature: bytes, tmp_path: Path) -> None:
    key_file, signature_file = tmp_path / "key é.pub", tmp_path / "file.sig"
    key_file.write_bytes(key)
    signature_file.write_bytes(signature)
    validator = ed25519(f"{key_file}, {signature_file}")
    key_file.unlink()
    signature_file.unlink()
    assert verdict_on(validator, tmp_path / "file", MESSAGE).decision is Decision.ACCEPTED
    assert verdict_on(validator, tmp_path / "file", b"").decision is Decision.REJECTED


@pytest.mark.parametrize("length", [0, 1, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1, LARGE])
def test_conformance(length: int, tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(os.urandom(length))
    bad.write_bytes(good.read_bytes()[:-1] + b"?!")
    key, signature = private.public_key().public_bytes_raw(), private.sign(good.read_bytes())
    check(Examples(make=lambda: Ed25519Signature(key, signature), good=good, bad=bad))


def test_a_large_file_is_rejected_with_the_same_words(tmp_path: Path) -> None:
    validator = ed25519(f"{KEY.hex()},{SIGNATURE.hex()}")
    small = verdict_on(validator, tmp_path / "small", b"x")
    assert verdict_on(validator, tmp_path / "large", bytes(LARGE)) == small
    assert small.decision is Decision.REJECTED


def test_a_large_file_can_be_given_up(tmp_path: Path) -> None:
    """Withdrawn while the child works: it is killed. 8 GiB of nothing take it many seconds."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    given, patience = candidate(path), Patience.endless()
    timer = threading.Timer(0.2, patience.withdraw)
    timer.start()
    verdict = judge(ed25519(f"{KEY.hex()},{SIGNATURE.hex()}"), given, patience)
    timer.join()
    assert verdict.decision is Decision.FAILED
    assert verdict.reason == "the validation was stopped"


def test_a_file_cut_short_meanwhile_does_not_kill_us(tmp_path: Path) -> None:
    """The mapped pages vanish under the child, which gets SIGBUS; we live, and nothing is said about the file."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    given = candidate(path)
    timer = threading.Timer(0.7, lambda: os.truncate(path, 0))
    timer.start()
    verdict = judge(ed25519(f"{KEY.hex()},{SIGNATURE.hex()}"), given, Patience.endless())
    timer.join()
    assert verdict.decision is Decision.FAILED
    assert "could not be verified" in verdict.reason


def other_pem() -> str:
    return generate_private_key(SECP256R1()).public_key().public_bytes(PEM, SPKI).decode()


def private_pem() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (None, "PUBLICKEY,SIGNATURE"),
        ("", "PUBLICKEY,SIGNATURE"),
        (KEY.hex(), "PUBLICKEY,SIGNATURE"),
        (f"{KEY.hex()},", "PUBLICKEY,SIGNATURE"),
        (f"{KEY.hex()},{SIGNATURE.hex()},x", "PUBLICKEY,SIGNATURE"),
        (f"{KEY.hex()[2:]},{SIGNATURE.hex()}", "neither an Ed25519 public key nor"),
        (f"{KEY.hex()},{SIGNATURE.hex()[2:]}", "neither an Ed25519 signature nor"),
        (f"{SIGNATURE.hex()},{KEY.hex()}", "neither an Ed25519 public key nor"),
        (f"key.pub,{SIGNATURE.hex()}", "neither an Ed25519 public key nor the absolute path"),
        (f"/nonexistent/key.pub,{SIGNATURE.hex()}", "cannot be read: No such file"),
        (f"{KEY.hex()},/nonexistent/file.sig", "the signature '/nonexistent/file.sig' cannot be read"),
        (f"/dev/zero,{SIGNATURE.hex()}", "cannot be read: not a regular file"),
        (f"{other_pem()},{SIGNATURE.hex()}", "of another kind"),
        (f"{private_pem()},{SIGNATURE.hex()}", "this is a private key"),
        (f"-----BEGIN PUBLIC KEY-----\nx\n,{SIGNATURE.hex()}", "no public key that can be read"),
    ],
)
def test_bad_arguments(argument: str | None, words: str) -> None:
    with pytest.raises(ValidatorArgumentError, match=words):
        ed25519(argument)


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(31), bytes(33), b"zz" * 32, "é".encode() * 16 + b"x", b"A" * 9000]
)
def test_files_that_hold_no_key(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ValidatorArgumentError, match="holds no Ed25519 public key"):
        ed25519(f"{path},{SIGNATURE.hex()}")


def test_a_huge_file_is_not_read_as_a_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(1_000_000))
    with pytest.raises(ValidatorArgumentError, match="too large"):
        ed25519(f"{path},{SIGNATURE.hex()}")


def test_a_key_that_is_no_point_rejects(tmp_path: Path) -> None:
    validator = ed25519(f"{'ff' * 32},{SIGNATURE.hex()}")
    assert verdict_on(validator, tmp_path / "small", MESSAGE).decision is Decision.REJECTED
    assert verdict_on(validator, tmp_path / "large", bytes(LARGE)).decision is Decision.REJECTED
