"""What each status means, and that a host which asks us to stay away is left alone, by every job.

The table is bits-reference 6.3 with the improvements named there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from yarl import URL

from agent.origin import OriginClient, OriginSettings
from agent.origin_holds import REMEMBERED, Holds
from peer.core.failure import Failure, FailureKind, Persistence, failure_of_status
from tests.support.origin import Origin
from tests.support.origin_client import described, facts_of, fetch, origin_client
from tests.support.origin_faults import Fault
from tests.support.origin_tls import Authority
from validation.ranges import ByteRange

SMALL = bytes(range(256)) * 40
FATAL, TRANSIENT = Persistence.FATAL, Persistence.TRANSIENT
K = FailureKind

NAMED = {
    401: (K.AUTH_REQUIRED, FATAL),
    403: (K.FORBIDDEN, FATAL),
    404: (K.NOT_FOUND, FATAL),
    407: (K.AUTH_REQUIRED, FATAL),
    408: (K.HTTP_TRANSIENT, TRANSIENT),
    409: (K.HTTP_TRANSIENT, TRANSIENT),
    410: (K.GONE, FATAL),
    412: (K.CHANGED, TRANSIENT),
    425: (K.HTTP_TRANSIENT, TRANSIENT),
    429: (K.BUSY, TRANSIENT),
    501: (K.HTTP_FATAL, FATAL),
    503: (K.BUSY, TRANSIENT),
    505: (K.HTTP_FATAL, FATAL),
}
OTHERS_FATAL = (300, 301, 302, 303, 304, 305, 307, 400, 402, 405, 406, 411, 413, 414, 415, 417, 418, 422, 451, 499)
OTHERS_TRANSIENT = (306, 308, 309, 399, 500, 502, 504, 506, 507, 511, 599, 600, 999)
UNEXPECTED = (201, 203, 204, 206, 226)


def table() -> Iterator[tuple[int, FailureKind, Persistence]]:
    for status, (kind, persistence) in NAMED.items():
        yield status, kind, persistence
    for status in OTHERS_FATAL:
        yield status, K.HTTP_FATAL, FATAL
    for status in OTHERS_TRANSIENT:
        yield status, K.HTTP_TRANSIENT, TRANSIENT
    for status in UNEXPECTED:
        yield status, K.BAD_RESPONSE, TRANSIENT


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[OriginClient]:
    async with origin_client() as running:
        yield running


def is_busy(outcome: object) -> Failure:
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind is K.BUSY, outcome
    return outcome


@pytest.mark.parametrize(("status", "kind", "persistence"), list(table()))
async def test_trap_15_which_statuses_are_fatal_and_which_pass(
    origin: Origin, client: OriginClient, status: int, kind: FailureKind, persistence: Persistence
) -> None:
    """For a probe and for a range of what was there a moment before."""
    resource = origin.add("/x", SMALL)
    facts = await facts_of(client, origin.url("/x"))
    resource.faults = [Fault("status", count=status)]
    outcomes = [
        await client.probe(origin.url("/x?secret=1")),
        (await fetch(client, origin.url("/x?secret=1"), facts, ByteRange(5, 50)))[0],
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Failure), outcome
        assert (outcome.kind, outcome.persistence) == (kind, persistence)
        assert outcome.http_status == status
        assert outcome.message.startswith("127.0.0.1: ")
        assert "secret" not in outcome.message


def test_no_status_is_without_a_meaning() -> None:
    """Those that the table does not name go by their class; the delay is kept."""
    listed = {row[0]: row[2] for row in table()}
    for status in range(300, 1000):
        failure = failure_of_status(status, "x", 3.0)
        expected = listed.get(status, FATAL if 400 <= status < 500 else TRANSIENT)
        assert failure.persistence is expected, status
        assert failure.retry_after_s == 3.0


# --- stay away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_holds_for_the_host_and_every_job(status: int) -> None:
    """41: at once the same answer with the time that is left, for other files, for probes and for fetches; another
    port is another host; afterwards it is asked again, and it never saw us early."""
    async with Origin() as origin, Origin() as other, origin_client() as client:
        origin.add("/busy", SMALL, faults=[Fault("status", count=status, value="1", times=1)])
        origin.add("/fine", SMALL)
        other.add("/fine", SMALL)
        facts = await facts_of(client, origin.url("/fine"))
        first = is_busy(await client.probe(origin.url("/busy")))
        assert first.retry_after_s == 1.0
        asked = len(origin.log)
        probed = is_busy(await client.probe(origin.url("/fine")))
        fetched = is_busy((await fetch(client, origin.url("/fine"), facts, ByteRange(1, 9)))[0])
        for later in (probed, fetched):
            assert later.retry_after_s is not None
            assert 0 < later.retry_after_s < 1
            assert (later.http_status, later.message) == (status, first.message)
        assert len(origin.log) == asked
        await described(client, other.url("/fine"))
        async with asyncio.timeout(5):
            while isinstance(outcome := await client.probe(origin.url("/fine")), Failure):
                assert outcome.retry_after_s is not None
                await asyncio.sleep(outcome.retry_after_s)
        await described(client, origin.url("/busy"))
        assert len(origin.log) == asked + 2
        assert not any(entry.early for entry in origin.log)


async def test_a_redirect_to_a_host_that_is_held(client: OriginClient) -> None:
    """Not even connected to."""
    async with Origin() as origin, Origin() as busy:
        faults = [Fault("status", count=429, value="60", times=1), Fault("header", value="Connection: close")]
        busy.add("/x", SMALL, faults=faults)
        is_busy(await client.probe(busy.url("/x")))
        origin.add("/from", b"", faults=[Fault("redirect", value=busy.url("/x"))])
        is_busy(await client.probe(origin.url("/from")))
        assert (len(busy.log), busy.accepted) == (1, 1)


async def test_without_a_time_nothing_is_held(origin: Origin, client: OriginClient) -> None:
    """How long to wait is then the job's own business. A status that is not busy holds nothing either."""
    for status, value in [(503, ""), (503, "0"), (429, "soon"), (500, "60"), (404, "60")]:
        origin.add("/x", SMALL, faults=[Fault("status", count=status, value=value)])
        asked = len(origin.log)
        assert isinstance(await client.probe(origin.url("/x")), Failure)
        assert isinstance(await client.probe(origin.url("/x")), Failure)
        assert len(origin.log) >= asked + 2


async def test_a_request_that_was_connecting_meanwhile_is_not_sent(authority: Authority) -> None:
    """Asked for before the host said so, connected after: it would come too early."""
    async with Origin(tls=authority.good()) as origin:
        origin.add("/x", SMALL, faults=[Fault("status", count=429, value="60", times=1)])
        arrived, opened = asyncio.Event(), asyncio.Event()
        numbers = iter(range(10))
        tasks = []

        async def gate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """The second connection to come gets through when `opened`."""
            current = asyncio.current_task()
            assert current is not None
            tasks.append(current)
            if next(numbers) == 1:
                arrived.set()
                await opened.wait()
            there, back = await asyncio.open_connection("127.0.0.1", origin.port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(pour(reader, back))
                    group.create_task(pour(there, writer))
            finally:
                back.transport.abort()
                writer.transport.abort()

        server = await asyncio.start_server(gate, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        async with server, origin_client(OriginSettings(ca_file=authority.ca_file)) as client:
            first, second = await connecting(client, url, arrived, opened)
            assert (first.retry_after_s, len(origin.log)) == (60.0, 1)
            assert second.retry_after_s is not None
            assert 50 < second.retry_after_s < 60
            await client.close()
            await asyncio.wait(tasks, timeout=5)


async def connecting(
    client: OriginClient, url: str, arrived: asyncio.Event, opened: asyncio.Event
) -> tuple[Failure, Failure]:
    """A request that is answered while another one to the same host is still shaking hands."""
    async with asyncio.TaskGroup() as group:
        leading = group.create_task(client.probe(url))
        waiting = group.create_task(client.probe(url))
        await asyncio.wait_for(arrived.wait(), 5)
        done, _ = await asyncio.wait((leading, waiting), timeout=5, return_when=asyncio.FIRST_COMPLETED)
        opened.set()
    early = done.pop()
    late = waiting if early is leading else leading
    return is_busy(early.result()), is_busy(late.result())


async def pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_the_later_of_two_times_counts() -> None:
    now = 100.0
    holds = Holds(lambda: now)
    url = URL("http://h.test:81/x")
    for seconds in (5.0, 9.0, 2.0):
        holds.note(url, Failure(kind=K.BUSY, message="h", retry_after_s=seconds))
    assert holds.standing(URL("http://h.test/x")) is None
    assert holds.standing(URL("https://h.test:81/x")) is None
    found = holds.standing(URL("http://h.test:81/other"))
    assert found is not None
    assert found.retry_after_s == 9.0
    now += 9.0
    assert holds.standing(url) is None


def test_the_memory_of_holds_is_bounded() -> None:
    holds = Holds(lambda: 0.0)
    busy = Failure(kind=K.BUSY, message="h", retry_after_s=60.0)
    for number in range(REMEMBERED + 1):
        holds.note(URL(f"http://h{number}/"), busy)
    assert holds.standing(URL("http://h0/")) is None
    assert holds.standing(URL("http://h1/")) is not None
