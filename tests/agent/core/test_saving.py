"""When progress is recorded."""

from __future__ import annotations

from agent.core.commands import Durability
from agent.core.saving import SaveClock
from agent.core.tuning import Tuning

TUNING = Tuning(note_bytes=1000, note_s=1.0, checkpoint_s=5.0)


def test_nothing_new_is_never_due() -> None:
    clock = SaveClock(TUNING)
    assert clock.due(1e9) is None
    assert clock.deadline() is None


def test_after_enough_bytes() -> None:
    clock = SaveClock(TUNING)
    clock.arrived(999, 0.0)
    assert clock.due(0.0) is None
    clock.arrived(1, 0.0)
    assert clock.due(0.0) is Durability.PROCESS


def test_after_a_while_and_again_only_for_new_bytes() -> None:
    clock = SaveClock(TUNING)
    clock.arrived(1, 10.0)
    assert clock.deadline() == 11.0
    assert clock.due(10.9) is None
    assert clock.due(11.0) is Durability.PROCESS
    clock.saved(Durability.PROCESS, 11.0)
    assert clock.due(14.0) is None
    assert clock.deadline() == 15.0  # what is noted is not safe yet


def test_power_loss_is_provided_for_every_few_seconds() -> None:
    clock = SaveClock(TUNING)
    clock.arrived(1, 10.0)
    clock.saved(Durability.PROCESS, 11.0)
    assert clock.due(15.0) is Durability.POWER
    clock.saved(Durability.POWER, 15.0)
    assert clock.deadline() is None
    clock.arrived(1, 30.0)
    assert clock.due(30.0) is Durability.POWER, "long quiet: the first new byte is made safe at once"
