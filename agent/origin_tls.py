"""TLS contexts for origins: one for each set of security flags and client certificate, made at the first need.

Never knows: URLs, jobs, HTTP. Sources: `ssl` and OpenSSL's X509_VERIFY_PARAM_set_flags(3); bits-reference 1.10;
RFC 9525 §6 (names), RFC 5280 §4.2.1.12 (usage).

Where the authority is ignored, OpenSSL verifies nothing at all. What the job did not ask to ignore is then looked
at here, right after the handshake and before a byte of the request: an SSLObject of our own (`sslobject_class`)
refuses the certificate as OpenSSL would have.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections import OrderedDict
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.origin_options import ClientCertificate, SecurityFlag
from peer.core.failure import Failure, FailureKind

REMEMBERED = 64
"""Contexts that are kept at most, the latest ones: each holds all of the system's authorities, about 1 MB."""

_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h); `ssl` has no name for it."""

_Stamp = tuple[tuple[str, int, int], ...]
_Key = tuple[frozenset[SecurityFlag], _Stamp]


class TlsContexts:
    """Makes contexts and keeps them. A client certificate whose files changed is read again."""

    def __init__(self, ca_file: Path | None) -> None:
        """Raises OSError or ssl.SSLError when `ca_file` cannot be read."""
        self._ca_file = ca_file
        self._made: OrderedDict[_Key, ssl.SSLContext] = OrderedDict()
        self._making = asyncio.Lock()
        if ca_file is not None:
            self._made[frozenset(), ()] = _make(ca_file, frozenset(), None)

    async def get(
        self, security: frozenset[SecurityFlag], certificate: ClientCertificate | None
    ) -> ssl.SSLContext | Failure:
        """The context for these flags. Reading files takes its time: in a thread, one at a time."""
        ready = self._made.get((security, ())) if certificate is None else None
        if ready is not None:
            self._made.move_to_end((security, ()))
            return ready
        async with self._making:
            try:
                stamp = () if certificate is None else await asyncio.to_thread(_stamp, certificate)
                key = (security, stamp)
                if key not in self._made:
                    self._made[key] = await asyncio.to_thread(_make, self._ca_file, security, certificate)
            except (OSError, ValueError) as error:
                what = "the client certificate" if certificate is not None else "the list of authorities"
                message = f"{what} cannot be used ({_reason(error)})"
                return Failure(kind=FailureKind.TLS_CERTIFICATE, message=message)
            self._made.move_to_end(key)
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
            return self._made[key]


def _stamp(certificate: ClientCertificate) -> _Stamp:
    """Names the files and what is in them now."""
    paths = (certificate.certificate_file, certificate.key_file or certificate.certificate_file)
    facts = [(path, path.stat()) for path in paths]
    return tuple((str(path), found.st_mtime_ns, found.st_ino) for path, found in facts)


def _make(
    ca_file: Path | None, security: frozenset[SecurityFlag], certificate: ClientCertificate | None
) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if certificate is not None:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate.certificate_file, certificate.key_file, password=b"")
    if SecurityFlag.CHECK_REVOCATION in security:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if SecurityFlag.IGNORE_NAME in security:
        context.check_hostname = False
    if SecurityFlag.IGNORE_DATE in security:
        context.verify_flags |= _NO_CHECK_TIME
    if SecurityFlag.IGNORE_UNKNOWN_AUTHORITY in security:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.sslobject_class = type("JudgedTls", (_JudgedTls,), {"security": security})
    return context


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM file with a key that fits"
    return getattr(error, "strerror", None) or "it is no PEM file with a key that fits"


class _JudgedTls(ssl.SSLObject):
    """Judges the server's certificate where OpenSSL was told not to."""

    security: frozenset[SecurityFlag] = frozenset()

    def do_handshake(self) -> None:
        super().do_handshake()
        objection = _objection(self.getpeercert(True), self.server_hostname or "", self.security)
        if objection is not None:
            error = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, f"certificate verify failed: {objection}")
            error.verify_message = objection
            raise error


def _objection(encoded: bytes | None, host: str, security: frozenset[SecurityFlag]) -> str | None:
    """Why the certificate is refused, in OpenSSL's words, or None."""
    try:
        certificate = x509.load_der_x509_certificate(encoded or b"")
        now = dt.datetime.now(dt.UTC)
        if SecurityFlag.IGNORE_DATE not in security:
            if now > certificate.not_valid_after_utc:
                return "certificate has expired"
            if now < certificate.not_valid_before_utc:
                return "certificate is not yet valid"
        if SecurityFlag.IGNORE_USAGE not in security and not _for_servers(certificate):
            return "unsuitable certificate purpose"
        if SecurityFlag.IGNORE_NAME not in security and not _names(certificate, host):
            return f"Hostname mismatch, certificate is not valid for '{host}'"
    except ValueError:
        return "the certificate cannot be understood"
    return None


def _for_servers(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _names(certificate: x509.Certificate, host: str) -> bool:
    """RFC 9525 §6.3: the subject's alternative names alone; a `*` stands for the whole first label."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    wanted = host.lower().rstrip(".")
    _, _, parent = wanted.partition(".")
    patterns = {name.lower().rstrip(".") for name in names.get_values_for_type(x509.DNSName)}
    return wanted in patterns or ("." in parent and f"*.{parent}" in patterns)
