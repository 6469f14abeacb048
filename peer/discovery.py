"""Multicast DNS: announce ourselves, report who is found and who says goodbye.

A rumour, never an instruction: only an id, an address on a chosen network, a port and a group's tag are taken from
it, and all of them are claims. Zeroconf runs in a thread and event loop of its own, so that a flood of messages
does not stall transfers.
Never knows: content, jobs, trust, what becomes of a sighting.

Sources: RFC 6762 (mDNS), RFC 6763 §6 (TXT); data-path notes point 7 (instance names are unique by construction, so
registration needs no probing, which takes 1.65 s); reliability notes 1.4 for the caps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from peer.core.roster import Sighted, Sighting
from peer.core.voucher import PeerId
from peer.errors import DiscoveryError
from peer.interfaces import choose_interfaces, on_link, with_multicast

if TYPE_CHECKING:  # slow to import, and not everybody who imports this package looks for peers
    from zeroconf import ServiceInfo, ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser

SERVICE = "_nearfetch._tcp.local."
TXT_VERSION = b"1"
MAX_TXT_BYTES = 400
MAX_ADDRESSES = 4
"""Addresses taken from one announcement."""
MAX_NAMES = 1024
MAX_RESOLVING = 8
"""Announcements that came in parts and are asked about at the same time."""
REPORTS_AT_ONCE = 256
REPORTS_PER_S = 50.0
"""What a flood of announcements may cost whoever listens to us."""

START_TIMEOUT_S = 5.0
RESOLVE_TIMEOUT_S = 1.5

_NAME = re.compile(r"([0-9a-f]{32})\._nearfetch\._tcp\.local\.", re.ASCII)
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What we say about ourselves."""

    peer_id: PeerId
    group_tag: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Somebody announced itself and is not one of ours. `reason` is for people."""

    host: str
    port: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryListener:
    """Who is told. All are called in zeroconf's thread, never after `close` has returned, and must not block.

    `on_found` is called once for each new address of an announcement, and once more after `ask_again`; at most 50
    times a second in a flood.
    """

    on_found: Callable[[Sighting], None]
    on_lost: Callable[[PeerId], None]
    on_foreign: Callable[[Foreign], None]


class Discovery:
    """One announcement and one browser. Use once: `open`, then `close`; both block and belong in a thread."""

    def __init__(self, ours: Announcement, interfaces: tuple[str, ...], listener: DiscoveryListener) -> None:
        self._ours, self._wanted, self._listener = ours, interfaces, listener
        self._chosen: tuple[IPv4Interface, ...] = ()
        self._zeroconf: Zeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._names: dict[str, PeerId] = {}
        self._resolving: set[Future[None]] = set()
        self._reports, self._reports_at = float(REPORTS_AT_ONCE), time.monotonic()
        self._closing = False
        self._lock = threading.Lock()
        """Held by `open` and `close`: closing what is just being opened waits for it."""

    @property
    def interfaces(self) -> tuple[IPv4Interface, ...]:
        """The addresses in use, with their networks; empty before `open`."""
        return self._chosen

    def open(self) -> None:
        """Announce and browse (about 20 ms, plus 0.2 s for the first import). Raises DiscoveryError."""
        with self._lock:
            if not self._closing:
                self._open()

    def ask_again(self) -> None:
        """Ask who is there, and report everybody who is, also those that were reported before. Blocks for a few
        milliseconds. Raises DiscoveryError."""
        with self._lock:
            zeroconf = self._zeroconf
            if self._closing or zeroconf is None:
                return
            loop = zeroconf.loop
            assert loop is not None
            try:
                asyncio.run_coroutine_threadsafe(self._browse(), loop).result(START_TIMEOUT_S)
            except TimeoutError as error:
                raise DiscoveryError("mDNS does not answer: its thread is overloaded") from error

    def close(self) -> None:
        """Say goodbye and end the thread (about 0.3 s). Harmless when repeated or when `open` failed."""
        self._closing = True
        with self._lock:
            self._close()

    def _open(self) -> None:
        from zeroconf import Error, IPVersion, Zeroconf

        self._chosen = with_multicast(choose_interfaces(self._wanted))
        try:
            self._zeroconf = Zeroconf(
                interfaces=[str(item.ip) for item in self._chosen], ip_version=IPVersion.V4Only, use_asyncio=False
            )
            loop = self._zeroconf.loop
            assert loop is not None
            asyncio.run_coroutine_threadsafe(self._begin(), loop).result(START_TIMEOUT_S)
        except (OSError, Error, TimeoutError) as error:
            self._close()
            raise DiscoveryError(f"peers cannot be found by mDNS: {str(error) or type(error).__name__}") from error

    def _close(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is None:
            return
        from zeroconf import Error

        loop = zeroconf.loop
        assert loop is not None
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(START_TIMEOUT_S)
        try:
            zeroconf.close()
        except (Error, OSError, TimeoutError) as error:
            _log.warning("mDNS did not close in time: %s", type(error).__name__)

    # in zeroconf's thread from here on

    async def _begin(self) -> None:
        from zeroconf import ServiceInfo

        zeroconf = self._zeroconf
        assert zeroconf is not None
        await zeroconf.async_wait_for_start()
        if not zeroconf.engine.senders:
            raise OSError("no socket for any of the interfaces")
        info = ServiceInfo(
            SERVICE,
            f"{self._ours.peer_id[:32]}.{SERVICE}",
            port=self._ours.port,
            properties={b"v": TXT_VERSION, b"id": self._ours.peer_id, b"g": self._ours.group_tag},
            parsed_addresses=[str(item.ip) for item in self._chosen],
        )
        await self._browse()
        await zeroconf.async_register_service(info, cooperating_responders=True)

    async def _browse(self) -> None:
        """Ask now; a new browser also reports what is known already."""
        from zeroconf import DNSQuestionType
        from zeroconf.asyncio import AsyncServiceBrowser

        zeroconf, before = self._zeroconf, self._browser
        assert zeroconf is not None
        if before is not None:
            await before.async_cancel()
        # Multicast questions: unicast answers go to only one of several agents that share port 5353 on a host.
        self._browser = AsyncServiceBrowser(
            zeroconf, SERVICE, handlers=[self._changed], question_type=DNSQuestionType.QM
        )

    async def _end(self) -> None:
        for future in tuple(self._resolving):
            future.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Nothing may be raised from here: zeroconf would drop the rest of the message."""
        from zeroconf import ServiceStateChange
        from zeroconf.asyncio import AsyncServiceInfo

        match = _NAME.fullmatch(name.lower())
        if self._closing or match is None or match[1] == self._ours.peer_id[:32]:
            return
        if state_change is ServiceStateChange.Removed:
            if (peer_id := self._names.pop(match[1], None)) is not None:
                self._listener.on_lost(peer_id)
            return
        info = AsyncServiceInfo(service_type, name)
        if info.load_from_cache(zeroconf):
            self._read(match[1], info)
        elif len(self._resolving) < MAX_RESOLVING and zeroconf.loop is not None:
            future = asyncio.run_coroutine_threadsafe(self._resolve(zeroconf, match[1], info), zeroconf.loop)
            self._resolving.add(future)
            future.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, instance: str, info: ServiceInfo) -> None:
        if await info.async_request(zeroconf, RESOLVE_TIMEOUT_S * 1000) and not self._closing:
            self._read(instance, info)

    def _read(self, instance: str, info: ServiceInfo) -> None:
        """Take a claim apart. Every field is hostile until it has its exact form."""
        claimed = (IPv4Address(data) for data in info.addresses)
        hosts = [str(address) for address in claimed if on_link(address, self._chosen)]
        port = info.port or 0
        if not hosts or not 0 < port < 65536 or not self._may_report():
            return
        reason, peer_id = self._judge(instance, info)
        if reason is not None:
            self._listener.on_foreign(Foreign(host=hosts[0], port=port, reason=reason))
            return
        self._names.pop(instance, None)
        self._names[instance] = peer_id
        if len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]
        for host in hosts[:MAX_ADDRESSES]:
            self._listener.on_found(Sighting(host=host, port=port, peer_id=peer_id, how=Sighted.ANNOUNCED))

    def _judge(self, instance: str, info: ServiceInfo) -> tuple[str | None, PeerId]:
        """Why the announcement is not one of ours (None when it may be), and the id it claims."""
        nobody = PeerId("")
        if len(info.text) > MAX_TXT_BYTES:
            return f"announces more than {MAX_TXT_BYTES} bytes of text", nobody
        fields = info.properties
        if fields.get(b"v") != TXT_VERSION:
            return "announces another version of the peer protocol", nobody
        if fields.get(b"g") != self._ours.group_tag.encode():
            return "announces another group", nobody
        claimed = (fields.get(b"id") or b"").decode("ascii", "replace")
        if not _ID.fullmatch(claimed) or not claimed.startswith(instance):
            return "announces an id that does not fit its name", nobody
        return None, PeerId(claimed)

    def _may_report(self) -> bool:
        now = time.monotonic()
        gained = (now - self._reports_at) * REPORTS_PER_S
        self._reports, self._reports_at = min(float(REPORTS_AT_ONCE), self._reports + gained), now
        if self._reports < 1.0:
            return False
        self._reports -= 1.0
        return True
