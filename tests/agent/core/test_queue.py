"""Who gets a slot, and who loses one (bits-reference 1.3)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.queue import JobId, Queue, QueueLimits, Rank, Wish


def wish(name: str, rank: Rank = Rank.NORMAL, host: str = "h") -> Wish:
    return Wish(job=JobId(name), rank=rank, host=host)


def queue(slots: int = 2, per_host: int = 9, slice_s: float = 300.0) -> Queue:
    return Queue(QueueLimits(background_jobs=slots, per_host=per_host, slice_s=slice_s))


def start(which: Queue, now: float = 0.0, known: dict[str, Wish] | None = None) -> tuple[str, ...]:
    """Carry out what the queue decides, once; the granted jobs."""
    changes = which.decide(now)
    for job in changes.granted:
        which.engage((known or {}).get(job) or wish(job), now, fixed=False)
    return changes.granted


def test_oldest_first_within_a_priority() -> None:
    waiting = queue()
    for name in ("a", "b", "c"):
        waiting.wait(wish(name))
    assert start(waiting) == ("a", "b")
    assert start(waiting) == ()


def test_a_lower_priority_gets_nothing_before_the_higher_one_is_through() -> None:
    waiting = queue(slots=4)
    waiting.wait(wish("low", Rank.LOW))
    waiting.wait(wish("high", Rank.HIGH))
    assert waiting.decide(0.0).granted == ("high",)
    waiting.engage(wish("high", Rank.HIGH), 0.0, fixed=False)
    assert waiting.decide(0.0).granted == ()
    waiting.leave(JobId("high"))
    assert waiting.decide(0.0).granted == ("low",)


def test_a_higher_priority_takes_the_slots_of_a_lower_one() -> None:
    waiting = queue(slots=1)
    waiting.engage(wish("low", Rank.LOW), 0.0, fixed=False)
    waiting.wait(wish("high", Rank.HIGH))
    changes = waiting.decide(1.0)
    assert (changes.revoked, changes.granted) == (("low",), ("high",))


def test_what_is_being_validated_keeps_its_slot() -> None:
    waiting = queue(slots=1)
    waiting.engage(wish("low", Rank.LOW), 0.0, fixed=True)
    waiting.wait(wish("high", Rank.HIGH))
    changes = waiting.decide(1000.0)
    assert (changes.revoked, changes.granted) == ((), ())


def test_foreground_needs_no_slot_and_takes_none() -> None:
    waiting = queue(slots=1)
    waiting.engage(wish("runs", Rank.FOREGROUND), 0.0, fixed=False)
    waiting.wait(wish("now", Rank.FOREGROUND))
    waiting.wait(wish("a"))
    assert waiting.decide(0.0).granted == ("now", "a")


def test_a_slice_ends_when_an_equal_waits_and_not_before() -> None:
    waiting = queue(slots=1, slice_s=10.0)
    waiting.engage(wish("a"), 0.0, fixed=False)
    assert waiting.deadline() is None
    waiting.wait(wish("b"))
    assert waiting.deadline() == 10.0
    assert waiting.decide(9.9).revoked == ()
    assert waiting.decide(10.0).revoked == ("a",)
    waiting.leave(JobId("a"))
    waiting.wait(wish("a"))
    assert start(waiting, 10.0) == ("b",)
    assert waiting.decide(20.0).revoked == ("b",)


def test_one_host_cannot_hold_every_slot() -> None:
    waiting = queue(slots=4, per_host=2)
    known = {}
    for number, host in enumerate(("slow", "slow", "slow", "fast")):
        known[str(number)] = wish(str(number), host=host)
        waiting.wait(known[str(number)])
    assert start(waiting, 0.0, known) == ("0", "1", "3")
    assert waiting.deadline() == 300.0


def test_a_slice_is_not_ended_for_somebody_who_could_not_run_anyway() -> None:
    waiting = queue(slots=2, per_host=1, slice_s=10.0)
    waiting.engage(wish("a", host="x"), 0.0, fixed=False)
    waiting.engage(wish("b", host="y"), 0.0, fixed=False)
    waiting.wait(wish("c", host="x"))
    assert waiting.decide(20.0).revoked == ("a",)


def test_a_new_rank_moves_a_waiting_job() -> None:
    waiting = queue(slots=1)
    waiting.wait(wish("a"))
    waiting.wait(wish("b"))
    waiting.wait(wish("b", Rank.HIGH))
    assert waiting.decide(0.0).granted == ("b",)
    waiting.wait(wish("a"))
    waiting.wait(wish("b", Rank.NORMAL))
    assert waiting.decide(0.0).granted == ("a",)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(list(Rank)), st.sampled_from("xyz"), st.booleans()),
        max_size=60,
    )
)
def test_never_more_than_the_limits_and_never_idle_for_nothing(steps: list[tuple[str, Rank, str, bool]]) -> None:
    limits = QueueLimits(background_jobs=2, per_host=1, slice_s=5.0)
    waiting, known, running = Queue(limits), {}, set()
    for now, (name, rank, host, ends) in enumerate(steps):
        if ends:
            waiting.leave(JobId(name))
            running.discard(name)
            known.pop(name, None)
        elif name not in running:
            known[name] = wish(name, rank, host)
            waiting.wait(known[name])
        for _ in range(10):
            changes = waiting.decide(float(now))
            for job in changes.revoked:
                running.discard(job)
                waiting.leave(job)
                waiting.wait(known[job])
            for job in changes.granted:
                running.add(job)
                waiting.engage(known[job], float(now), fixed=False)
            if not (changes.revoked or changes.granted):
                break
        else:
            raise AssertionError("it never settles")
        background = [known[job] for job in running if known[job].rank is not Rank.FOREGROUND]
        assert len(background) <= limits.background_jobs
        assert len({each.host for each in background}) == len(background)
        assert len({each.rank for each in background}) <= 1
        assert {job for job, each in known.items() if each.rank is Rank.FOREGROUND} <= running
        assert bool(background) == any(each.rank is not Rank.FOREGROUND for each in known.values())


def test_who_runs_beyond_the_limits_makes_room() -> None:
    """Its priority or its host is another one than when it got its slot: the last one who came goes."""
    waiting = queue(slots=1, per_host=1)
    waiting.engage(wish("a"), 0.0, fixed=False)
    waiting.engage(wish("b", Rank.FOREGROUND), 1.0, fixed=False)
    assert waiting.decide(1.0).revoked == ()
    waiting.engage(wish("b"), 2.0, fixed=False)
    assert waiting.decide(2.0).revoked == ("b",)
    waiting.leave(JobId("b"))
    wider = queue(slots=3, per_host=1)
    wider.engage(wish("a", host="x"), 0.0, fixed=False)
    wider.engage(wish("b", host="y"), 1.0, fixed=False)
    wider.engage(wish("a", host="y"), 2.0, fixed=False)
    assert wider.decide(2.0).revoked == ("b",)
    wider.engage(wish("b", host="y"), 2.0, fixed=True)
    assert wider.decide(2.0).revoked == ("a",)


def test_a_job_that_becomes_foreground_gives_its_slot_away_and_goes_on() -> None:
    waiting = queue(slots=1)
    waiting.engage(wish("a"), 0.0, fixed=False)
    waiting.wait(wish("b"))
    waiting.engage(wish("a", Rank.FOREGROUND), 1.0, fixed=False)
    assert waiting.holds(JobId("a"))
    assert start(waiting, 1.0) == ("b",)


def test_the_oldest_first_over_all_hosts() -> None:
    waiting = queue(slots=5, per_host=2)
    for number, host in enumerate("xxxyyzx"):
        waiting.wait(wish(str(number), host=host))
    assert waiting.decide(0.0).granted == ("0", "1", "3", "4", "5")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "engage", "fix", "leave", "decide"]),
            st.sampled_from("abcdefgh"),
            st.sampled_from(list(Rank)),
            st.sampled_from("wxyz"),
        ),
        max_size=80,
    ),
    st.integers(0, 4),
    st.integers(1, 3),
)
def test_it_decides_as_somebody_who_looks_at_every_job(
    steps: list[tuple[str, str, Rank, str]], slots: int, per_host: int
) -> None:
    """The lines and their heads are only there for speed."""
    waiting = queue(slots, per_host, slice_s=1e9)
    queued: list[Wish] = []
    held: dict[str, tuple[Wish, bool]] = {}
    for now, (what, name, rank, host) in enumerate(steps):
        each = wish(name, rank, host)
        if what in ("wait", "leave"):
            getattr(waiting, what)(each if what == "wait" else JobId(name))
            if what == "leave" or each not in queued:
                held.pop(name, None)
                queued = [one for one in queued if one.job != name] + [each] * (what == "wait")
        elif what in ("engage", "fix"):
            waiting.engage(each, float(now), fixed=what == "fix")
            queued = [one for one in queued if one.job != name]
            held[name] = (each, what == "fix")
        granted = waiting.decide(float(now)).granted
        assert all(waiting.holds(JobId(one)) == (one in held) for one in "abcdefgh")
        assert set(granted) <= {one.job for one in queued}
        urgent = [one.job for one in queued if one.rank is Rank.FOREGROUND]
        assert list(granted[: len(urgent)]) == urgent
        revoked = set(waiting.decide(float(now)).revoked)
        running = {job: one for job, (one, _) in held.items() if one.rank is not Rank.FOREGROUND}
        staying = [one for job, one in running.items() if job not in revoked]
        level = min(
            (one.rank for one in (*queued, *running.values()) if one.rank is not Rank.FOREGROUND), default=None
        )
        assert list(granted[len(urgent) :]) == by_hand(queued, staying, level, (slots, per_host))


def by_hand(queued: list[Wish], staying: list[Wish], level: Rank | None, limits: tuple[int, int]) -> list[str]:
    """Who would be granted: one look at each queued job, oldest first. `level`: the highest priority that wants
    something, also of one that loses its slot now: it goes on wanting it."""
    slots, per_host = limits
    hosts = [one.host for one in staying]
    found = []
    for one in queued:
        if one.rank is level and len(hosts) < slots and hosts.count(one.host) < per_host:
            hosts.append(one.host)
            found.append(one.job)
    return found
