"""`nearfetch run`: the agent in the foreground.

Never knows: what the service is made of.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import msgspec

from agent.cli_support import emit, say
from agent.config import Config


class ReadyDocument(msgspec.Struct, kw_only=True, frozen=True):
    """What `run --json` prints once the agent is ready."""

    home: str
    socket: str
    pid: int


def run_agent(home: Path | None, flags: dict[str, object], *, as_json: bool) -> None:
    """Run until a signal says stop. Raises AgentError when it cannot start."""
    config = Config.load(home, flags, os.environ)
    logging.basicConfig(
        level=getattr(logging, config.log_level.upper()),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    asyncio.run(_serve(config, as_json=as_json))


async def _serve(config: Config, *, as_json: bool) -> None:
    from agent.service import Service  # brings aiohttp, zeroconf and SQLite

    async with Service(config) as service:
        if as_json:
            emit(ReadyDocument(home=str(config.home), socket=str(service.socket_path), pid=os.getpid()))
        else:
            say(f"nearfetch runs for {config.home}; Ctrl-C stops it")
        await service.run_until_stopped()
