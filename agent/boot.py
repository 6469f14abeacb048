"""Which boot of the machine this is: pages written in an earlier one may never have reached the disk.

Sources: random(4) (boot_id); sysctl(3) of macOS (kern.bootsessionuuid).
"""

from __future__ import annotations

import ctypes
import secrets
import sys
from functools import cache


@cache
def boot_id() -> str:
    """An id that stays the same until the machine restarts.

    Where the system does not tell, one that is new for every process: then nothing unsynced is ever trusted.
    """
    found = _from_sysctl() if sys.platform == "darwin" else _from_proc()
    return found or "unknown-" + secrets.token_hex(16)


def _from_proc() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None


def _from_sysctl() -> str | None:
    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    failed = ctypes.CDLL(None).sysctlbyname(
        b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return None if failed else buffer.value.decode("ascii", "replace") or None
