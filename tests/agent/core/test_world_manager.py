"""Several jobs in a random world, some with the same content: whatever happens, the manager keeps its promises.

Users do what they like; only the errors that are documented may come back, and only to them. What must hold is in
tests/support/story.py: legal states, slots within their limits and none idle, one file of a job at a time, at most
four notices at once and one of a job, none lost.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.facts import RangeSupport
from tests.support.story import Story
from tests.support.world_parts import Flags, Manner
from validation.content import MIN_CHUNK_BYTES


def play(seed: int, flags: Flags, shape: tuple[int, ...]) -> Story:
    story = Story(seed, flags, shape)
    try:
        story.run()
    except Exception as error:
        told = "\n".join(f"{at:.3f} {way} {what}" for at, way, what in story.world.trace[-150:])
        raise AssertionError(f"{error}\n{flags} {shape}\nseed {seed}\n{told}") from error
    return story


FLAGS = st.builds(
    Flags,
    manners=st.lists(st.sampled_from(list(Manner)), max_size=4).map(tuple),
    length=st.sampled_from([0, MIN_CHUNK_BYTES - 1, 5 * MIN_CHUNK_BYTES + 7]),
    ranges=st.sampled_from(list(RangeSupport)),
    etag=st.sampled_from([True, True, True, False]),
    says_length=st.sampled_from([True, True, True, False]),
    changes=st.booleans(),
    interferes=st.booleans(),
    fatal=st.booleans(),
    asks=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    flags=FLAGS,
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
)
def test_every_job_ends(seed: int, flags: Flags, shape: tuple[int, ...]) -> None:
    play(seed, flags, shape)
