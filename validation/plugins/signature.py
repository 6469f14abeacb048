"""Validator `ed25519`: a detached Ed25519 signature (RFC 8032 §5.1) over the file. ARG: `PUBLICKEY,SIGNATURE`.

Each of the two is an absolute path or the value itself. Keys: 32 raw bytes (files only), hexadecimal, base64, or
PEM (SubjectPublicKeyInfo, RFC 8410). Signatures: 64 raw bytes (files only), hexadecimal, base64. Both are read when
the validator is made. The variant is pure Ed25519, not Ed25519ph: what `openssl pkeyutl -sign -rawin` makes.
It must never know: who the key belongs to, jobs.
"""

from __future__ import annotations

import base64
import binascii
import os
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from validation.errors import ValidatorArgumentError
from validation.plugins import verify_ed25519
from validation.plugins.process import Command, run
from validation.plugins.reading import blocks, opened
from validation.validator import Candidate, Patience, Validator, Verdict, one_line

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_MAX_FILE_BYTES = 16 * 1024
"""Of a key or signature file: PEM with headers is below 1 KiB."""

_IN_MEMORY_BYTES = 4 * 1024 * 1024
"""Smaller files are read; larger ones are mapped by a child process, which takes 0.2 s to start."""
_TIMEOUT_S = 60.0
_SLOWEST_BYTES_PER_S = 10e6
"""A child may take a minute, and longer for files that a slow disk cannot read in that time."""


class Ed25519Signature:
    """Accepts the file that the holder of the key signed."""

    def __init__(self, key: bytes, signature: bytes) -> None:
        self._key = key
        self._signature = signature

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        """Verify the signature over the whole file. Raises OSError and ValidationStopped."""
        with opened(candidate.path) as fd:
            length = os.fstat(fd).st_size
        if length > _IN_MEMORY_BYTES:
            return self._ask_child(candidate.path, length, patience)
        message = b"".join(bytes(block) for block in blocks(candidate.path, patience))
        try:
            Ed25519PublicKey.from_public_bytes(self._key).verify(self._signature, message)
        except InvalidSignature:
            return _NO
        return _YES

    def _ask_child(self, path: Path, length: int, patience: Patience) -> Verdict:
        script = os.path.abspath(verify_ed25519.__file__)
        command = Command(
            # -P: the script's directory is no place to import from
            arguments=(sys.executable, "-P", script, self._key.hex(), self._signature.hex(), os.fspath(path)),
            stdin=b"",
            environment=dict(os.environ),
            timeout_s=_TIMEOUT_S + length / _SLOWEST_BYTES_PER_S,
        )
        ended = run(command, patience)
        if ended.code == verify_ed25519.YES:
            return _YES
        if ended.code == verify_ed25519.NO:
            return _NO
        said = one_line(ended.output.decode("utf-8", "replace"), 200)
        return Verdict.failed(
            f"the signature could not be verified (status {ended.code}): {said or 'no reason given'}"
        )


_YES = Verdict.accepted("its Ed25519 signature is valid")
_NO = Verdict.rejected("its Ed25519 signature is not valid for this key")


def ed25519(argument: str | None) -> Validator:
    """A public key and a detached signature. Raises ValidatorArgumentError; reads the files that are named."""
    parts = (argument or "").split(",")
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ValidatorArgumentError("ed25519 needs a key and a signature: ed25519:PUBLICKEY,SIGNATURE")
    return Ed25519Signature(_key(parts[0].strip()), _signature(parts[1].strip()))


def _key(text: str) -> bytes:
    value = _pem(text) or _decoded(text, KEY_BYTES)
    if value is None:
        content = _file(text, "public key")
        value = _pem(content.decode("latin-1")) or _value(content, KEY_BYTES)
    if value is None:
        raise ValidatorArgumentError(
            f"{text!r} holds no Ed25519 public key ({KEY_BYTES} raw bytes, hexadecimal, base64, or PEM)"
        )
    return value


def _signature(text: str) -> bytes:
    value = _decoded(text, SIGNATURE_BYTES) or _value(_file(text, "signature"), SIGNATURE_BYTES)
    if value is None:
        raise ValidatorArgumentError(
            f"{text!r} holds no Ed25519 signature ({SIGNATURE_BYTES} raw bytes, hexadecimal, or base64)"
        )
    return value


def _pem(text: str) -> bytes | None:
    """The raw key in a PEM block, None when there is no block."""
    if "-----BEGIN" not in text:
        return None
    if "PRIVATE KEY-----" in text:
        raise ValidatorArgumentError("this is a private key; ed25519 needs the public one")
    try:
        key = load_pem_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValidatorArgumentError("the PEM block is no public key that can be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValidatorArgumentError("the PEM block is a public key of another kind, not Ed25519")
    return key.public_bytes_raw()


def _value(content: bytes, length: int) -> bytes | None:
    """A file's content as `length` bytes: raw when it has exactly that size, else encoded."""
    return content if len(content) == length else _decoded(content.decode("latin-1"), length)


def _decoded(text: str, length: int) -> bytes | None:
    """Hexadecimal or base64 (also in several lines) of exactly `length` bytes, else None."""
    packed = "".join(text.split())
    try:
        if len(packed) == length * 2:
            return bytes.fromhex(packed)
        value = base64.b64decode(packed, validate=True)
    except (ValueError, binascii.Error):
        return None
    return value if len(value) == length else None


def _file(text: str, what: str) -> bytes:
    path = os.path.expanduser(text)
    if not os.path.isabs(path):
        raise ValidatorArgumentError(f"{text!r} is neither an Ed25519 {what} nor the absolute path of one")
    try:
        with opened(Path(os.path.realpath(path))) as fd:
            content = os.read(fd, _MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValidatorArgumentError(f"the {what} {path!r} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise ValidatorArgumentError(f"{path!r} is too large for an Ed25519 {what}")
    return content
