"""Disks for tests: one that is full, and writers that are killed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FULL_DISK_BYTES = 2 * 1024 * 1024


def full_disk_command(mount_point: Path, command: list[str], size: int = FULL_DISK_BYTES) -> list[str] | None:
    """`command` with a tmpfs of `size` bytes on `mount_point`, whose path is its last argument.

    In a mount namespace of its own, which goes with the process. None where we may not mount.
    """
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return None
    script = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@" "$0"'
    wrapped = ["unshare", "--mount", "sh", "-c", script, str(mount_point)]
    tried = subprocess.run([*wrapped, "true"], capture_output=True, timeout=30, check=False)
    return [*wrapped, *command] if tried.returncode == 0 else None
