"""Members of groups for tests: identities on disk, forged certificates, handshakes over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from peer.core.voucher import PeerId
from peer.identity import peer_id_of_certificate

HANDSHAKE_S = 5.0
Key = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaken:
    """How a handshake ended on both sides: the other's id, or the error."""

    at_client: PeerId | Exception
    at_server: PeerId | Exception

    @property
    def agreed(self) -> bool:
        """Both sides know whom they speak to."""
        return isinstance(self.at_client, str) and isinstance(self.at_server, str)


async def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> Shaken:
    """A real TLS connection on 127.0.0.1, one byte each way (TLS 1.3 reports refusal only at the first read)."""
    seen: asyncio.Future[PeerId | Exception] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        result = await _talk(reader, writer)
        if not seen.done():
            seen.set_result(result)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with _serving(accept, server) as port, asyncio.timeout(HANDSHAKE_S):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        except OSError as error:
            return Shaken(at_client=error, at_server=error)
        at_client = await _talk(reader, writer)
        at_server = at_client if isinstance(at_client, Exception) else await seen
    return Shaken(at_client=at_client, at_server=at_server)


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> PeerId | Exception:
    try:
        writer.write(b"x")
        await reader.readexactly(1)
        tls = writer.get_extra_info("ssl_object")
        return peer_id_of_certificate(tls.getpeercert(binary_form=True))
    except (OSError, EOFError) as error:
        return error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def _serving(accept: object, context: ssl.SSLContext) -> AsyncIterator[int]:
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forged:
    """A certificate made by a test, with its key, in PEM files."""

    certificate_file: Path
    key_file: Path
    der: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An authority of a test's own."""

    certificate: x509.Certificate
    key: Key


def forge_authority(name: str = "a test's authority") -> Issuer:
    """A self-signed authority."""
    key = Ed25519PrivateKey.generate()
    return Issuer(certificate=_sign(key, name, None, 10.0, authority=True), key=key)


def forge(
    directory: Path, issuer: Issuer | None, key: Key | None = None, days: float = 10.0, padding: int = 0
) -> Forged:
    """A member's certificate that ends `days` from now (negative: it is over), self-signed without an issuer, with
    an extension of `padding` bytes."""
    key = key or Ed25519PrivateKey.generate()
    certificate = _sign(key, "forged", issuer, days, authority=False, padding=padding)
    directory.mkdir(parents=True, exist_ok=True)
    files = Forged(
        certificate_file=directory / "certificate.pem",
        key_file=directory / "key.pem",
        der=certificate.public_bytes(serialization.Encoding.DER),
    )
    files.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    files.key_file.chmod(0o600)
    return files


def write_authority(path: Path, issuer: Issuer) -> Path:
    """The authority's certificate as a PEM file."""
    path.write_bytes(issuer.certificate.public_bytes(serialization.Encoding.PEM))
    return path


def context_of(forged: Forged, side: int) -> ssl.SSLContext:
    """A TLS context that shows this certificate and believes everybody."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(forged.certificate_file, forged.key_file)
    return context


def _sign(
    key: Key, name: str, issuer: Issuer | None, days: float, *, authority: bool, padding: int = 0
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    end = datetime.now(UTC) + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=20))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if padding:
        filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(padding))
        builder = builder.add_extension(filler, critical=False)
    return builder.sign(signer, None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256())
