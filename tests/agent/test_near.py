"""Who is asked near, how often, and what is made of the answers: real agents and their networks on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from agent import near as near_module
from agent.claims import ClaimBoard
from agent.context import Context, Parts
from agent.core.commands import AskNear
from agent.core.events import CrowdSized, FileEvent, NearAnswered, SourceLost, SourceOffered
from agent.core.sources import CACHE, FileId, SourceId, peer_source
from agent.near import NearWatch
from peer.call import HEAD_TIMEOUT_S
from peer.core.voucher import PeerId
from peer.network import Claim
from tests.support.hostile_peer import HostilePeer, Mischief
from tests.support.networks import CONTENT, DATA, LAYOUT, Agent, Lan, publish, until
from validation.content import NO_CHUNKS, ChunkLayout, ContentId, bitfield

FILE = FileId("job/0")
OTHER = ContentId("d" * 64)
LIMIT_S = 10.0
ALL = LAYOUT.everything


@pytest.fixture
async def lan(tmp_path: Path) -> AsyncIterator[Lan]:
    async with Lan(tmp_path) as opened:
        yield opened


@dataclass
class Asking:
    """A running `NearWatch` and what it has reported."""

    watch: NearWatch = field(init=False)
    posted: list[FileEvent] = field(default_factory=list)
    sources: dict[SourceId, SourceOffered] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def post(self, event: FileEvent) -> None:
        self.posted.append(event)
        match event:
            case SourceOffered(source=source):
                self.sources[source] = event
            case SourceLost(source=source):
                del self.sources[source]  # KeyError: it was not offered
            case NearAnswered():
                assert self.posted.count(event) == 1
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def answered(self) -> None:
        await self.until(lambda: NearAnswered(file=FILE) in self.posted)

    async def offered(
        self, peer: Agent | PeerId, *have: int, claimed: tuple[int, ...] = (), wants: bool = False
    ) -> None:
        """Exactly this is what that peer says."""
        source = peer_source(peer.id if isinstance(peer, Agent) else peer)
        expected = SourceOffered(
            file=FILE, source=source, have=bitfield(have), claimed=bitfield(claimed), wants=wants
        )
        await self.until(lambda: self.sources.get(source) == expected)

    async def lost(self, peer: Agent | PeerId) -> None:
        source = peer_source(peer.id if isinstance(peer, Agent) else peer)
        await self.until(lambda: source not in self.sources)


@asynccontextmanager
async def asking(
    agent: Agent,
    *content_ids: ContentId,
    alone: bool = False,
    layout: ChunkLayout = LAYOUT,
    callers: Sequence[PeerId] = (),
) -> AsyncIterator[Asking]:
    """`agent` looks for the content until the end of the block."""
    absent = cast("Any", None)
    parts = Parts(
        claims=ClaimBoard(),
        config=absent,
        journal=absent,
        workers=absent,
        validators=absent,
        origin=absent,
        cache=agent.cache,
        network=None if alone else agent.network,
        throttles=absent,
        switches=absent,
        problems=[],
        socket=absent,
    )
    found = Asking()
    context = Context(
        parts=parts,
        post=found.post,
        spawn=absent,
        log=absent,
        save_file=absent,
        work_of=absent,
    )
    command = AskNear(file=FILE, content_ids=content_ids or (CONTENT,), layout=layout)
    found.watch = NearWatch(context, command)
    for caller in callers:
        found.watch._called(caller)
    agent.watch.on_up.append(found.watch.peer_up)
    agent.watch.on_down.append(found.watch.peer_down)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(found.watch.run())
        try:
            yield found
        finally:
            found.watch.stop()
            async with asyncio.timeout(LIMIT_S):
                await asyncio.wait([running])


def held(agent: Agent) -> int:
    """Who listens for news of this agent."""
    return agent.network._server.listening


class Claims(dict[ContentId, Claim]):
    """What an agent is fetching."""

    def say(self, agent: Agent, *chunks: int, wants: bool = True, content: ContentId = CONTENT) -> None:
        self[content] = Claim(layout=LAYOUT, chunks=bitfield(chunks), wants=wants)
        agent.network.changed(content)


# the first answer


async def test_without_a_network_the_cache_is_all_there_is(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    await publish(ann, tmp_path)
    async with asking(ann, alone=True) as asked:
        await asked.answered()
    cached = SourceOffered(file=FILE, source=CACHE, have=ALL, claimed=NO_CHUNKS)
    assert asked.posted == [cached, NearAnswered(file=FILE)]


async def test_with_nobody_there_the_answer_comes_at_once(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    async with asking(ann) as asked:
        await asked.answered()
    assert asked.posted == [NearAnswered(file=FILE)]


async def test_who_has_it_all_is_known_before_the_answer_and_not_watched(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    cid = await lan.start_beside("cid", ann)
    await publish(ben, tmp_path)
    async with asking(ann) as asked:
        await asked.answered()
        assert list(asked.sources) == [peer_source(ben.id)]
        await asked.offered(ben, 0, 1)
        await until(lambda: held(cid) == 1, "who has nothing is watched")
        await until(lambda: held(ben) == 0, "who has it all is not")
    assert asked.posted[-1] == NearAnswered(file=FILE)
    await until(lambda: held(cid) == 0, "nobody is asked any more")


async def test_content_cut_in_another_way_is_nothing(lan: Lan, tmp_path: Path) -> None:
    ann = await lan.start_beside("ann")
    ben = await lan.start_beside("ben", ann)
    await publish(ben, tmp_path)
    async with asking(ann, layout=ChunkLayout(length=len(DATA) + 1, chunk_bytes=LAYOUT.chunk_bytes)) as asked:
        await asked.answered()
        await until(lambda: held(ben) == 1, "it may change")
        assert asked.posted == [NearAnswered(file=FILE)]


# what changes


async def test_every_change_is_heard_of_while_it_happens(lan: Lan, tmp_path: Path) -> None:
    ann, claims = await lan.start_beside("ann"), Claims()
    ben = await lan.start_beside("ben", ann, claims=claims.get)
    async with asking(ann) as asked:
        await until(lambda: held(ben) == 1, "she waits for him")
        began = time.monotonic()
        claims.say(ben)
        await asked.offered(ben, wants=True)
        claims.say(ben, 1)
        await asked.offered(ben, claimed=(1,), wants=True)
        await publish(ben, tmp_path)
        claims.say(ben, 0)
        await asked.offered(ben, 0, 1, claimed=(0,), wants=True)
        await until(lambda: held(ben) == 1, "it has everything and is not done")
        await ben.cache.withdraw_chunks(CONTENT, bitfield([0]))
        await asked.offered(ben, 1, claimed=(0,), wants=True)
        claims.clear()
        await ben.cache.withdraw(CONTENT)
        await asked.lost(ben)
        assert time.monotonic() - began < LIMIT_S / 2, "nobody waited for the end of a held question"
        await publish(ben, tmp_path)
        await asked.offered(ben, 0, 1)
        await until(lambda: held(ben) == 0, "there is nothing more to learn")
    assert len(asked.posted) < 12, "the same is not said twice"


async def test_who_comes_later_is_watched_at_once_and_who_leaves_is_lost(lan: Lan) -> None:
    ann, claims = await lan.start_beside("ann"), Claims()
    async with asking(ann) as asked:
        await asked.answered()
        for _ in range(2):
            ben = await lan.start_beside("ben", ann, claims=claims.get)
            claims.say(ben, 1)
            await asked.offered(ben, claimed=(1,), wants=True)
            await until(lambda ben=ben: held(ben) == 1, "he is watched")  # type: ignore[misc]
            await ben.close()
            await asked.lost(ben)


async def test_two_agents_that_look_for_the_same_hear_of_each_other(lan: Lan) -> None:
    claims = {"ann": Claims(), "ben": Claims()}
    ann = await lan.start_beside("ann", claims=claims["ann"].get)
    ben = await lan.start_beside("ben", ann, claims=claims["ben"].get)
    claims["ann"].say(ann, 0)
    async with asking(ann) as by_ann:
        await by_ann.answered()
        claims["ben"].say(ben, 1)
        async with asking(ben) as by_ben:
            await by_ann.offered(ben, claimed=(1,), wants=True)
            await by_ben.offered(ann, claimed=(0,), wants=True)


@pytest.mark.parametrize("ids", [(OTHER, CONTENT), (CONTENT, OTHER)])
async def test_any_of_the_ids_will_do(lan: Lan, ids: tuple[ContentId, ...]) -> None:
    """One that is known from the start, and one that comes up while both are asked for in turn."""
    ann, claims, late = await lan.start_beside("ann"), Claims(), Claims()
    ben = await lan.start_beside("ben", ann, claims=claims.get)
    cid = await lan.start_beside("cid", ann, claims=late.get)
    claims.say(ben, 1)
    async with asking(ann, *ids) as asked:
        await asked.answered()
        await asked.offered(ben, claimed=(1,), wants=True)
        late.say(cid, 0)
        await asked.offered(cid, claimed=(0,), wants=True)
        assert asked.watch.id_for(ben.id) == asked.watch.id_for(cid.id) == CONTENT
        claims.say(ben, 0)
        await asked.offered(ben, claimed=(0,), wants=True)
        assert asked.watch.id_for(PeerId("0" * 64)) == ids[0]


# those that do not do as they should


@asynccontextmanager
async def member(lan: Lan, agent: Agent, mischief: Mischief) -> AsyncIterator[HostilePeer]:
    """One more peer of this agent's group, which agent knows."""
    key = str(lan.group)
    async with HostilePeer(lan.directory / "bad", key, DATA, mischief) as peer:
        await peer.introduce(agent.id, agent.network.port)
        await agent.watch.until(PeerId(peer.peer_id))
        peer.requests.clear()
        yield peer


def questions(peer: HostilePeer) -> int:
    """How often it was asked what it has."""
    return sum("/content/" in request or "/news?" in request for request in peer.requests)


async def test_a_peer_that_tells_no_news_is_asked_twice_a_second(lan: Lan) -> None:
    """It had nothing at first, and does not know what news are."""
    ann = await lan.start_beside("ann")
    async with member(lan, ann, Mischief.OLD) as peer:
        peer.has_it = False
        async with asking(ann) as asked:
            began = time.monotonic()
            await until(lambda: questions(peer) >= 6, "it is asked again")
            assert time.monotonic() - began > 1.2
            assert sum("/news?" in request for request in peer.requests) == 1
            peer.has_it = True
            await asked.offered(PeerId(peer.peer_id), 0, 1)
            peer.has_it = False
        assert ann.watch.up, "no worse for it"


async def test_a_peer_that_always_has_news_is_not_heard_all_the_time(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    async with member(lan, ann, Mischief.RESTLESS) as peer, asking(ann) as asked:
        await asked.answered()
        began, before = time.monotonic(), len(asked.posted)
        await until(lambda: peer.pushed > 1 << 20, "it says as much as it can")
        await until(lambda: time.monotonic() - began > 2.0, "two seconds go by")
        assert len(asked.posted) - before < 100


async def test_a_peer_that_fails_is_asked_less_and_less(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    async with member(lan, ann, Mischief.FAILS) as peer, asking(ann) as asked:
        await asked.answered()
        began = time.monotonic()
        await until(lambda: questions(peer) >= 3, "it is asked again")
        assert time.monotonic() - began > 0.9
        peer.mischief = Mischief.NONE
        await asked.offered(PeerId(peer.peer_id), 0, 1)
        assert len(asked.posted) == 2


async def test_a_peer_that_has_it_and_then_fails_is_lost(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    async with member(lan, ann, Mischief.RESTLESS) as peer, asking(ann) as asked:
        await until(lambda: bool(asked.sources), "it is offered")
        peer.mischief = Mischief.FAILS
        await asked.lost(PeerId(peer.peer_id))


# many


async def test_of_many_a_few_are_watched_and_who_has_something_is_found(
    lan: Lan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody is asked; places are kept for those that matter; one that is lost is replaced."""
    monkeypatch.setattr(near_module, "neighbours_among", lambda _: 2)
    ann, claims = await lan.start_beside("ann"), Claims()
    idle = [await lan.start_beside(name, ann) for name in ("ben", "cid", "dan")]
    eve = await lan.start_beside("eve", ann, claims=claims.get)
    claims.say(eve, 0)
    async with asking(ann) as asked:
        await asked.answered()
        await asked.offered(eve, claimed=(0,), wants=True)
        await until(lambda: held(eve) == 1 and sum(map(held, idle)) == 1, "two are watched")
        (other,) = [agent for agent in idle if held(agent)]
        await other.close()
        idle.remove(other)
        await until(lambda: held(eve) == 1 and sum(map(held, idle)) == 1, "another takes the place")
        fay = await lan.start_beside("fay", ann)
        await publish(fay, tmp_path)
        await asked.offered(fay, 0, 1)
        assert len(asked.watch._watches) <= 2


async def test_who_asks_us_is_watched_instead_of_one_that_has_nothing(
    lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: it cannot take the place again and again while it has nothing either."""
    monkeypatch.setattr(near_module, "neighbours_among", lambda _: 1)
    ann, claims = await lan.start_beside("ann"), {"ben": Claims(), "cid": Claims()}
    others = [await lan.start_beside(name, ann, claims=claims[name].get) for name in claims]
    async with asking(ann) as asked:
        await until(lambda: sorted(map(held, others)) == [0, 1] and len(asked.watch._spare) == 1, "one is watched")
        first, second = sorted(others, key=held, reverse=True)
        for caller, other in ((second, first), (first, second)):
            await caller.network.offer(ann.id, CONTENT)
            await until(lambda: (held(caller), held(other)) == (1, 0), "it takes the place")  # noqa: B023
        for _ in range(3):
            await second.network.offer(ann.id, CONTENT)
        assert list(asked.watch._watches) == [first.id]
        claims["ben" if first is others[0] else "cid"].say(first, 1)
        await asked.offered(first, claimed=(1,), wants=True)
        assert list(asked.watch._watches) == [first.id]


async def test_who_asked_us_is_asked_first(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_module, "neighbours_among", lambda _: 1)
    ann, claims = await lan.start_beside("ann"), Claims()
    for name in ("ben", "cid", "dan"):
        await lan.start_beside(name, ann)
    eve = await lan.start_beside("eve", ann, claims=claims.get)
    claims.say(eve, 1)
    async with asking(ann, callers=[eve.id]) as asked:
        await asked.answered()
        assert list(asked.sources) == [peer_source(eve.id)]


async def test_of_a_large_group_it_tells_who_is_there_and_how_many_want_it(
    lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that were asked a share wants it, and of the others about as many. A small group is told nothing."""
    ann, claims = await lan.start_beside("ann"), Claims()
    others = [await lan.start_beside(name, ann, claims=claims.get) for name in ("ben", "cid", "dan", "eve")]
    claims.say(others[0])
    async with asking(ann) as small:
        await small.answered()
        assert not any(isinstance(event, CrowdSized) for event in small.posted)
    monkeypatch.setattr(near_module, "neighbours_among", lambda _: 2)
    async with asking(ann) as large:
        await large.answered()
        (told,) = [event for event in large.posted if isinstance(event, CrowdSized)]
    assert told.size == 1 + len(others)
    assert sorted(told.group.members) == sorted(agent.id for agent in (ann, *others))


async def test_who_goes_away_before_it_answers_is_not_waited_for(lan: Lan) -> None:
    ann = await lan.start_beside("ann")
    async with member(lan, ann, Mischief.MUTE) as peer, asking(ann) as asked:
        await until(lambda: questions(peer) == 1, "it is asked")
        assert asked.posted == []
        began = time.monotonic()
        ann.network.ban(PeerId(peer.peer_id), "", 60.0)
        await asked.answered()
        assert time.monotonic() - began < HEAD_TIMEOUT_S - 1
