"""A network of one's own for a test: a namespace that only the calling thread is in, gone when it ends.

Nothing outside sees its interfaces. Skipped where that is not permitted, and where `ip` is missing.
Source: unshare(2), network_namespaces(7): a namespace belongs to a thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest

_CLONE_NEWNET = 0x40000000
LIMIT_S = 20.0


def alone(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function on a loop of its own, in a network with nothing but a loopback that is down."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces are Linux', and `ip` is needed to use them")
    raised: list[BaseException] = []

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()

    def body() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
                pytest.skip(f"no network namespace can be made here: {os.strerror(ctypes.get_errno())}")
            asyncio.run(limited())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def ip(*lines: str) -> None:
    """Each line is one `ip` command, all carried out at once; in the namespace of the calling thread."""
    done = subprocess.run(
        [shutil.which("ip") or "ip", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if "not supported" in done.stderr or "Unknown device type" in done.stderr:
        pytest.skip(f"this kernel lacks what the test needs: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def plug_in(name: str, *addresses: str) -> None:
    """An interface that is up, leads somewhere (to `NAME-far`), and has exactly these addresses."""
    ip(
        f"link add {name} type veth peer name {name}-far",
        f"link set {name} addrgenmode none",
        f"link set {name}-far addrgenmode none",
        f"link set {name}-far up",
        f"link set {name} up",
        *(f"addr add {address} dev {name} nodad" for address in addresses),
    )
