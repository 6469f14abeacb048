"""The composition root: builds every part of an agent, starts it, stops it. Nothing else constructs.

One agent per home, by a lock that the system drops when the process ends, however it ends (flock(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from agent.api import make_app, serving
from agent.cache_settings import CacheSettings, limits_of
from agent.claims import ClaimBoard
from agent.client import socket_path
from agent.config import Config
from agent.context import Parts, Switches
from agent.control import Control
from agent.engine import Engine
from agent.errors import ConfigError, DatabaseNewerError, HomeInUseError
from agent.housekeeping import keep_house
from agent.journal import Journal
from agent.origin import OriginClient
from agent.origin_http import OriginSettings
from agent.surroundings import SurroundingsWatch
from agent.throttle import Throttles
from agent.totals import Totals
from peer import durable
from peer.cache import PeerCache
from peer.core.voucher import PeerId
from peer.database import DatabaseError, DatabaseInUse, DatabaseTooNew
from peer.errors import PeerError
from peer.workers import Workers

if TYPE_CHECKING:
    from peer.core.roster import KnownPeer
    from peer.network import PeerNetwork
    from peer.settings import NetworkSettings

log = logging.getLogger(__name__)

LOCK_FILE = "lock"
WORKER_THREADS = 4
VALIDATOR_THREADS = 2


class _Listener:
    """News of peers for an engine that may not be there yet."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def peer_up(self, peer: KnownPeer) -> None:
        """Somebody can be asked."""
        if self.engine is not None:
            self.engine.peer_up()

    def peer_down(self, peer_id: PeerId) -> None:
        """Somebody cannot be asked any more."""
        if self.engine is not None:
            self.engine.peer_down(peer_id)


class Service:
    """A whole agent, alive as long as the `async with` block.

    Raises HomeInUseError, ConfigError (also for a group key or identity that cannot be used), DatabaseNewerError.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.socket_path = socket_path(config.home)
        self._stack = contextlib.AsyncExitStack()
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Service:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def run_until_stopped(self) -> None:
        """Until SIGTERM or SIGINT; a second SIGINT ends the process at once, which loses nothing."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_once, number)
        try:
            await self._stop.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop_once(self, number: signal.Signals) -> None:
        if self._stop.is_set() and number is signal.SIGINT:
            os._exit(128 + number)
        self._stop.set()

    async def _start(self) -> None:
        config, stack = self.config, self._stack
        await asyncio.to_thread(_prepare_home, config.home)
        lock = await asyncio.to_thread(_lock, config.home)
        stack.callback(os.close, lock)
        workers = Workers(WORKER_THREADS)
        stack.callback(workers.close)
        validators = Workers(VALIDATOR_THREADS)
        stack.callback(validators.close)
        journal = await _open_journal(config.home)
        stack.push_async_callback(journal.close)
        stack.push_async_callback(journal.snapshot)
        totals = await Totals.load(journal)
        set_here = await CacheSettings.load(journal)
        cache = await _open_cache(config, set_here, workers)
        stack.push_async_callback(cache.close)
        origin = OriginClient(workers, OriginSettings(ca_file=config.ca_file))
        stack.push_async_callback(origin.close)
        listener = _Listener()
        claims = ClaimBoard()
        network = await _open_network(config, cache, workers, listener, claims)
        if network is not None:
            claims.changed = network.changed
            stack.push_async_callback(network.close)
        parts = Parts(
            config=config,
            journal=journal,
            workers=workers,
            validators=validators,
            origin=origin,
            cache=cache,
            network=network,
            claims=claims,
            throttles=Throttles(),
            switches=_switches(config, set_here),
            problems=[],
            socket=self.socket_path,
        )
        if network is not None:
            network.set_fetching(parts.switches.fetch)
            network.set_serving(parts.switches.serve)
        for problem in (*journal.problems, *cache.problems):
            log.warning("%s", problem)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        engine = Engine(parts, group, totals)
        listener.engine = engine
        stack.push_async_callback(engine.stop)
        around = SurroundingsWatch(
            config, parts.throttles, engine.surround, lambda: None if network is None else network.network_changed()
        )
        around.look()
        rest = (lambda: keep_house(cache, journal, engine.keeper), around.run)
        stack.push_async_callback(_end, group.create_task(_come_up(engine, rest)))
        await stack.enter_async_context(serving(make_app(Control(engine, totals)), self.socket_path))


async def _come_up(engine: Engine, rest: Sequence[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Bring all jobs back, while requests are accepted already and wait for that; then go on with the rest."""
    async with asyncio.TaskGroup() as group:
        await engine.start()
        for begin in rest:
            group.create_task(begin())


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _switches(config: Config, set_here: CacheSettings) -> Switches:
    fetch, serve = set_here.peer_fetch, set_here.peer_serve
    return Switches(
        fetch=config.peer_fetch if fetch is None else fetch, serve=config.peer_serve if serve is None else serve
    )


def _prepare_home(home: Path) -> None:
    try:
        durable.make_private_directory(home)
    except OSError as error:
        raise ConfigError(f"the home {home} cannot be used: {error.strerror or error}") from error


def _lock(home: Path) -> int:
    directory = durable.open_directory(home)
    try:
        lock = durable.open_or_create_file(directory, LOCK_FILE)
    except OSError as error:
        raise ConfigError(f"the home {home} cannot be used: {error.strerror or error}") from error
    finally:
        os.close(directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise HomeInUseError(
            f"another agent already runs for {home}: use it, or name another home with --home"
        ) from error
    return lock


async def _open_journal(home: Path) -> Journal:
    path = home / "journal.sqlite"
    try:
        return await Journal.open(path)
    except DatabaseTooNew as error:
        raise DatabaseNewerError(str(error)) from error
    except DatabaseInUse as error:
        raise HomeInUseError(str(error)) from error
    except (DatabaseError, OSError) as error:
        raise ConfigError(f"the journal {path} cannot be opened: {error}") from error


async def _open_cache(config: Config, set_here: CacheSettings, workers: Workers) -> PeerCache:
    limits = limits_of(config, set_here)
    path = config.home / "cache"
    try:
        return await PeerCache.open(path, limits, workers, time.time)
    except (DatabaseError, OSError) as error:
        raise ConfigError(f"the peer cache {path} cannot be opened: {error}") from error


async def _open_network(
    config: Config, cache: PeerCache, workers: Workers, listener: _Listener, claims: ClaimBoard
) -> PeerNetwork | None:
    """The group's network, or None without a group: zeroconf and cryptography are not even imported then."""
    if config.group_key is None and config.group_ca_file is None:
        return None
    from peer.network import PeerNetwork

    try:
        return await PeerNetwork.open(_network_settings(config), cache, workers, listener, claims=claims.find)
    except PeerError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"peers cannot be served: {error.strerror or error}") from error


def _network_settings(config: Config) -> NetworkSettings:
    from peer.core.admission import AdmissionLimits
    from peer.group import AdminGroup, GroupKey
    from peer.settings import NetworkSettings

    if config.group_ca_file is not None:
        assert config.group_certificate_file is not None
        assert config.group_key_file is not None
        group: AdminGroup | GroupKey = AdminGroup(
            ca_file=config.group_ca_file,
            certificate_file=config.group_certificate_file,
            key_file=config.group_key_file,
        )
    else:
        group = GroupKey.parse(config.group_key or "")
    return NetworkSettings(
        home=config.home,
        group=group,
        name=config.name,
        host=config.listen_host,
        port=config.listen_port,
        interfaces=config.interface,
        static_peers=tuple(_host_and_port(peer) for peer in config.peer),
        admission=AdmissionLimits(upload_rate=config.upload_limit),
    )


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"not a peer: {text!r} (write HOST:PORT)")
    return host.strip("[]"), int(port)
