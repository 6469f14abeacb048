"""What one file is fetched with for its whole life, whatever its content turns out to be. Values only."""

from __future__ import annotations

import random
from dataclasses import dataclass

from agent.core.demand import Demand
from agent.core.publishing import Publishing
from agent.core.requests import Requests
from agent.core.spec import Tally
from agent.core.tuning import Tuning
from peer.core.voucher import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What one file is fetched with."""

    tuning: Tuning
    rng: random.Random
    tally: Tally
    requests: Requests
    demand: Demand
    publishing: Publishing
    own: PeerId | None = None
    """This agent, as its group knows it; None without a group."""
