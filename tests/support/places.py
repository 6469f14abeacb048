"""Directories in which nothing can be written: read-only even for root, or full. Tests are skipped where the system
does not let us make one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Nobody may write there, not even root."""
    if os.geteuid() != 0:
        directory.chmod(0o555)
        yield
        directory.chmod(0o755)
        return
    chattr = shutil.which("chattr") or "/usr/bin/chattr"
    try:
        subprocess.run([chattr, "+i", directory], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root writes everywhere, and chattr +i does not work here: {error}")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", directory], check=True)


@contextlib.contextmanager
def small_disk(directory: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `directory`."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount a small file system")
    words = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([umount, directory], check=True)
