"""nginx as the origin of the measurements: one worker on loopback, plain and TLS 1.3, from a directory of its own.

Never knows: agents.

Sources: nginx.org/en/docs (ngx_core_module, ngx_http_core_module, ngx_http_ssl_module).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.agents import BenchError

CIPHER = "TLS_AES_256_GCM_SHA384"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02

_CONFIGURATION = """\
{user}daemon off;
master_process off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {place}/t1;
    proxy_temp_path {place}/t2;
    fastcgi_temp_path {place}/t3;
    uwsgi_temp_path {place}/t4;
    scgi_temp_path {place}/t5;
    default_type application/octet-stream;
    root {root};
    server {{ listen 127.0.0.1:{plain}; }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {place}/certificate.pem;
        ssl_certificate_key {place}/key.pem;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites {cipher};
    }}
}}
"""


class Nginx:
    """A running nginx, alive as long as the `async with` block. Raises BenchError when it does not start."""

    def __init__(self, program: str, place: Path, root: Path) -> None:
        """`place`: an empty directory for its files; `root`: what it serves."""
        self._program = program
        self._place = place
        self._root = root
        self._process: asyncio.subprocess.Process | None = None
        self.plain_port = _free_port()
        self.tls_port = _free_port()

    @property
    def ca_file(self) -> Path:
        """What a client must trust."""
        return self._place / "certificate.pem"

    @property
    def pid(self) -> int:
        """Of the one process that does everything."""
        assert self._process is not None
        return self._process.pid

    def url(self, scheme: str, name: str) -> str:
        """Of a file below the root; `scheme` is http or https."""
        return f"{scheme}://127.0.0.1:{self.plain_port if scheme == 'http' else self.tls_port}/{name}"

    async def __aenter__(self) -> Self:
        user = "user root;\n" if os.geteuid() == 0 else ""  # the worker must be able to read a private directory
        make_certificate(self._place)
        configuration = self._place / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                user=user,
                place=self._place,
                root=self._root,
                plain=self.plain_port,
                tls=self.tls_port,
                cipher=CIPHER,
            ),
            encoding="utf-8",
        )
        self._process = await asyncio.create_subprocess_exec(
            *(self._program, "-e", f"{self._place}/error.log", "-p", str(self._place), "-c", str(configuration)),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                for port in (self.plain_port, self.tls_port):
                    await self._answers(port)
        except TimeoutError as error:
            await self._stop()
            log = (self._place / "error.log").read_text(encoding="utf-8", errors="replace").strip()
            raise BenchError(f"nginx does not answer: {log[-500:] or 'it said nothing'}") from error
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _answers(self, port: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(POLL_S)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def make_certificate(place: Path) -> None:
    """`certificate.pem` and `key.pem` for 127.0.0.1, signed by itself, for a day (RFC 5280)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nearfetch bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (place / "key.pem").write_bytes(pem)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
