"""With how many others an agent keeps company for one content.

Never knows: who they are, what they have.
"""

from __future__ import annotations

ALL = 24
"""So many others are listened to, every one of them: then all know who else wants it, and nobody asks the origin
for what another brings."""

SOME = 16
"""Of more than these, so many. Each costs a connection and up to 16 KiB/s on both sides. Among N agents that each
choose so many at random, all are connected as long as it is well above ln N (Erdős and Rényi 1959), which is 9 for
10,000. More of them make nothing faster: in simulation (32 MiB, cold) 34 agents took 1.41 of the bound with 32
neighbours and 1.36 with 16, 150 took 1.75 and 1.63, 1,000 took 2.13 and 2.11, with as many copies from the origin
or fewer; but 18 agents took 1.28 when they knew each other and 1.33 with 16, 22 took 1.32 and 1.34."""


def neighbours_among(others: int) -> int:
    """How many of so many others to listen to, at most."""
    return ALL if others <= ALL else SOME
