"""What keeps jobs from running, beside themselves: no network, and a bandwidth of zero at this hour.

These are conditions, not errors: they set no timer, do not count as errors, and cost no patience; when one clears,
all the jobs that it held go on at once (bits-reference 1.5, trap 11). Never knows: jobs, files, what time it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.queue import Rank
from peer.core.failure import FailureKind

_HERE = ("localhost", "127.", "[::1]")
"""Hosts that need no network."""

_UNREACHABLE = frozenset(
    {
        FailureKind.NAME_NOT_RESOLVED,
        FailureKind.CONNECT_FAILED,
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.CONNECTION_CLOSED,
        FailureKind.STALLED,
    }
)
"""What a missing network looks like from inside."""

EXPLANATIONS = {
    FailureKind.BLOCKED_BY_POLICY: (
        "policy",
        "the bandwidth policy gives nothing to this priority at this hour; it goes on when that ends",
    ),
    FailureKind.NETWORK_DISCONNECTED: ("network", "this machine has no network; it goes on when there is one"),
}
"""Context and sentence for the user, by obstacle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What forbids jobs to run."""

    connected: bool = True
    """This machine has a network."""
    arrivals: int = 0
    """How often an address has come: what could not be reached before may be reached now."""
    forbidden: frozenset[Rank] = frozenset()
    """Priorities whose bandwidth is zero at this hour."""

    def obstacle(self, rank: Rank, host: str) -> FailureKind | None:
        """What forbids a job of this priority to fetch from this host; empty: it has nothing to fetch."""
        if rank in self.forbidden:
            return FailureKind.BLOCKED_BY_POLICY
        return FailureKind.NETWORK_DISCONNECTED if host and self._cut_off(host) else None

    def explains(self, kind: FailureKind, host: str) -> bool:
        """The failure is only what a missing network looks like from inside."""
        return kind in _UNREACHABLE and self._cut_off(host)

    def _cut_off(self, host: str) -> bool:
        return not self.connected and not host.startswith(_HERE)
