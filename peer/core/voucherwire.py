"""Vouchers as they travel beside the bytes that they are for: the header `Nearfetch-Vouchers`.

Never knows: whether a signature is right, whose it may be. Reading raises `WireError` and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from peer.core.voucher import PeerId, Voucher
from peer.core.wire import CHUNKS_A_REQUEST, WireError
from validation.content import ChunkIndex, ContentId

VOUCHERS_A_CHUNK = 3
"""So that 16 chunks' vouchers (226 bytes each) stay below the limit of a head."""
VOUCHERS_A_REQUEST = CHUNKS_A_REQUEST * VOUCHERS_A_CHUNK

_VOUCHER = re.compile(r"([0-9]{1,10});([0-9a-f]{64});([0-9a-f]{64});([A-Za-z0-9_-]{86})", re.ASCII)


def format_vouchers(vouchers: Iterable[Voucher]) -> str:
    """The value of `Nearfetch-Vouchers`: `chunk;digest;signer;signature, …` (hex, hex, base64url unpadded)."""
    return ", ".join(
        f"{voucher.chunk};{voucher.digest.hex()};{voucher.signer};"
        f"{base64.urlsafe_b64encode(voucher.signature).rstrip(b'=').decode('ascii')}"
        for voucher in vouchers
    )


def parse_vouchers(value: str, content_id: ContentId) -> tuple[Voucher, ...]:
    """Read `Nearfetch-Vouchers`; signatures are not checked here. Raises WireError."""
    if not value:
        return ()
    items = value.split(", ", VOUCHERS_A_REQUEST)
    if len(items) > VOUCHERS_A_REQUEST:
        raise WireError("too many vouchers")
    return tuple(_voucher(item, content_id) for item in items)


def _voucher(text: str, content_id: ContentId) -> Voucher:
    match = _VOUCHER.fullmatch(text)
    if match is None:
        raise WireError("not a voucher")
    chunk, digest, signer, signature = match.groups()
    try:
        raw = base64.urlsafe_b64decode(signature + "==")
    except binascii.Error as error:
        raise WireError("a signature that is not base64url") from error
    return Voucher(
        content_id=content_id,
        chunk=ChunkIndex(int(chunk)),
        digest=bytes.fromhex(digest),
        signer=PeerId(signer),
        signature=raw,
    )
