"""Run as a script, in a process of its own: does this Ed25519 signature fit this large file?

Arguments: key (hex), signature (hex), path. Exit status YES or NO; anything else: could not be told. Imports
nothing of ours, and must never know where key and signature come from.

Ed25519 needs the whole message at once (RFC 8032 §5.1.7), so the file is mapped: memory stays bounded by the page
cache. A mapped file that somebody truncates meanwhile kills the reader with SIGBUS: hence the separate process,
which can also be killed when nobody waits for it any more.
"""

from __future__ import annotations

import mmap
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

YES = 0
NO = 10
"""Not 1: the interpreter itself exits with 1 after an unexpected exception."""


def main(key: str, signature: str, path: str) -> int:
    """YES or NO. Raises OSError, and ValueError for an empty file, which cannot be mapped."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as message,
    ):
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
        except InvalidSignature:
            return NO
    return YES


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
