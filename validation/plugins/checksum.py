"""Validators `sha256`, `sha512`, `blake2b`: the file has this digest. ARG: the digest in hexadecimal digits.

They must never know: chunks, jobs, where the digest was published.
"""

from __future__ import annotations

from validation.digest import Algorithm, Digest, hasher
from validation.errors import DigestFormatError, ValidatorArgumentError
from validation.plugins.reading import blocks
from validation.validator import Candidate, Patience, Validator, Verdict


class Checksum:
    """Accepts the file with this digest and no other."""

    def __init__(self, wanted: Digest) -> None:
        self._wanted = wanted

    def validate(self, candidate: Candidate, patience: Patience) -> Verdict:
        """Read the whole file once. Raises OSError and ValidationStopped."""
        state = hasher(self._wanted.algorithm)
        for block in blocks(candidate.path, patience):
            state.update(block)
        found = state.digest()
        if self._wanted.matches(found):
            return Verdict.accepted(f"its digest is {self._wanted}")
        return Verdict.rejected(f"its {self._wanted.algorithm} is {found.hex()}, not {self._wanted.value.hex()}")


def sha256(argument: str | None) -> Validator:
    """SHA-256 (FIPS 180-4): 64 hexadecimal digits. Raises ValidatorArgumentError."""
    return _checksum(Algorithm.SHA256, argument)


def sha512(argument: str | None) -> Validator:
    """SHA-512 (FIPS 180-4): 128 hexadecimal digits. Raises ValidatorArgumentError."""
    return _checksum(Algorithm.SHA512, argument)


def blake2b(argument: str | None) -> Validator:
    """BLAKE2b of full length (RFC 7693): 128 hexadecimal digits, as b2sum prints. Raises ValidatorArgumentError."""
    return _checksum(Algorithm.BLAKE2B, argument)


def _checksum(algorithm: Algorithm, argument: str | None) -> Validator:
    if not argument:
        raise ValidatorArgumentError(f"{algorithm} needs the digest: {algorithm}:HEX")
    try:
        return Checksum(Digest.from_hex(algorithm, argument))
    except DigestFormatError as error:
        raise ValidatorArgumentError(str(error)) from error
