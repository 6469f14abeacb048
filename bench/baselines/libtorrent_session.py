"""A libtorrent session on one host, as helper: `ready`; after `go`: `done` or `failed`; for `usage`, what it cost.

`python -m bench.baselines.libtorrent_session ADDRESS DIRECTORY TORRENT...`. Ends with its standard input; Ctrl-C is
for the bench. Source: libtorrent.org/reference-Settings.html.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from typing import Any

from bench import machine
from bench.node import LOOK_S, Wishes, say

SETTINGS: dict[str, object] = {
    "enable_lsd": True,
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": False,
    "unchoke_slots_limit": 4,
    "urlseed_max_request_bytes": 1024 * 1024,
    "urlseed_pipeline_size": 2,
}
_ERROR_CATEGORY = 1
"""alert.category_t.error_notification: what stops a torrent."""


class Session:
    """The session and its torrents."""

    def __init__(self, address: str, directory: str, torrents: list[str]) -> None:
        self._lt: Any = importlib.import_module("libtorrent")
        settings = {**SETTINGS, "listen_interfaces": f"{address}:6881", "alert_mask": _ERROR_CATEGORY}
        self._session = self._lt.session(settings)
        self._directory, self._torrents = directory, torrents
        self._handles: list[Any] = []
        self._cpu_s = 0.0

    def go(self) -> None:
        """Begin."""
        self._cpu_s = machine.cpu_seconds(os.getpid())
        for path in self._torrents:
            wanted = self._lt.add_torrent_params()
            wanted.ti = self._lt.torrent_info(path)
            wanted.save_path = self._directory
            wanted.storage_mode = self._lt.storage_mode_t.storage_mode_sparse
            wanted.flags &= ~(self._lt.torrent_flags.paused | self._lt.torrent_flags.auto_managed)
            self._handles.append(self._session.add_torrent(wanted))

    def end(self) -> dict[str, object] | None:
        """How it ended; None: it goes on."""
        for handle in self._handles:
            status = handle.status()
            if status.errc.value() != 0:
                return {"failed": f"libtorrent: {status.errc.message()}"}
        if all(handle.status().is_seeding for handle in self._handles):
            return {"done": time.monotonic()}
        return None

    def usage(self) -> dict[str, object]:
        """What it cost since `go`."""
        states = [handle.status() for handle in self._handles]
        return {
            "cpu_s": machine.cpu_seconds(os.getpid()) - self._cpu_s,
            "peak_memory": machine.peak_memory(os.getpid()),
            "discarded": sum(state.total_redundant_bytes + state.total_failed_bytes for state in states),
        }


def main(arguments: list[str]) -> int:
    """The exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    address, directory, *torrents = arguments
    session, wishes, reported = Session(address, directory, torrents), Wishes(), False
    say({"ready": True})
    if wishes.next(None) != "go":
        return 0
    session.go()
    while not wishes.ended:
        if not reported and (end := session.end()) is not None:
            reported = True
            say(end)
        if wishes.next(None if reported else LOOK_S) == "usage":
            say(session.usage())
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)  # the session's own end waits for trackers
