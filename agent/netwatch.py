"""Notices when the networks of this machine come and go.

On Linux the kernel says when an interface or an address changed; elsewhere, and where that is not permitted, we
look every two seconds. Either way the truth is what the system lists: a message only says that it is time to look.
Never knows: peers, jobs, whether the internet can be reached.

Sources: rtnetlink(7), netlink(7), netdevice(7); BSD and macOS `sys/sockio.h`, `net/if.h`.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import ifaddr

DEBOUNCE_S = 0.2
"""An interface that comes up says so several times: link, address, IPv6 address."""
POLL_S = 2.0
RECHECK_S = 30.0
"""Where the kernel tells us, we look by ourselves so often: a message may be lost."""

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40
_SIOCGIFFLAGS = 0x8913 if sys.platform == "linux" else 0xC0206911
_IFREQ = struct.Struct("16sH22x")
"""Name and flags; as long as Linux has it, longer than the others."""
_MESSAGE_BYTES = 65_536
_MOST_MESSAGES = 1000
"""Read at one go; the rest wakes us again."""


class Means(Enum):
    """How changes are noticed."""

    KERNEL = "kernel"
    """Told by the kernel, or, where that does not exist or is not permitted, as POLLING."""
    POLLING = "polling"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkState:
    """What this machine can be reached at."""

    addresses: frozenset[str]
    """Of interfaces that are up and have a carrier, without loopback; link-local IPv6 ones with `%interface`."""

    @property
    def connected(self) -> bool:
        """True with any address, also when it is only link-local."""
        return bool(self.addresses)


OnChange = Callable[[NetworkState, NetworkState], None]
"""Before, after."""


class NetworkWatch:
    """Tells when the usable networks change. `state` is what was seen last: to begin with, at construction."""

    def __init__(self, means: Means = Means.KERNEL) -> None:
        self._means = means
        self.state = current_state()

    async def run(self, on_change: OnChange) -> None:
        """Call `on_change` on the event loop after each change since `state`, until cancelled.

        Several changes within 0.2 s are one. Raises what `on_change` raises.
        """
        channel = _subscribe() if self._means is Means.KERNEL else None
        try:
            while True:
                self._look(on_change)
                if channel is None:
                    await asyncio.sleep(POLL_S)
                elif await _told(channel):
                    await asyncio.sleep(DEBOUNCE_S)
                    _drain(channel)
        finally:
            if channel is not None:
                channel.close()

    def _look(self, on_change: OnChange) -> None:
        before = self.state
        try:
            self.state = current_state()
        except OSError:
            return  # no descriptor or memory free: what was seen last holds until the next look
        if before != self.state:
            on_change(before, self.state)


def current_state() -> NetworkState:
    """What the system lists now; a fraction of a millisecond for a few interfaces. Raises OSError."""
    found: set[str] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for adapter in ifaddr.get_adapters():
            if _usable(asking, adapter.name):
                found.update(_text(adapter.name, item) for item in adapter.ips)
    return NetworkState(addresses=frozenset(found))


def _usable(asking: socket.socket, interface: str) -> bool:
    """Up, with a carrier, and not loopback. One that went away meanwhile is not."""
    try:
        answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, _IFREQ.pack(interface.encode(), 0))
    except OSError:
        return False
    flags: int = _IFREQ.unpack(answer)[1]
    return flags & (_IFF_UP | _IFF_RUNNING | _IFF_LOOPBACK) == _IFF_UP | _IFF_RUNNING


def _text(interface: str, item: ifaddr.IP) -> str:
    if isinstance(item.ip, str):
        return item.ip
    address, _, scope = item.ip
    return f"{address}%{interface}" if scope else address


def _subscribe() -> socket.socket | None:
    """A socket on which the kernel tells of changes; None where there is no such thing, or not for us."""
    if sys.platform != "linux":
        return None
    try:
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError:
        return None
    try:
        channel.setblocking(False)
        channel.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    except OSError:
        channel.close()
        return None
    return channel


async def _told(channel: socket.socket) -> bool:
    """True when the kernel has said something; False when it said nothing for long."""
    try:
        async with asyncio.timeout(RECHECK_S):
            await asyncio.get_running_loop().sock_recv(channel, _MESSAGE_BYTES)
    except TimeoutError:
        return False
    except OSError:
        return True  # ENOBUFS: there was more than the socket holds, so something has changed
    return True


def _drain(channel: socket.socket) -> None:
    """Forget what the kernel has said: one look answers it all."""
    for _ in range(_MOST_MESSAGES):
        try:
            channel.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS, as above
