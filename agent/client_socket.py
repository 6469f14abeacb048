"""Where an agent's control socket is, and who is at its other end.

Standard library and errors only: this is part of what `import agent` loads in a user's script.
Never knows: what is said over the socket.

Sources: unix(7) for SO_PEERCRED and the length of a socket's name, unix(4) of macOS for LOCAL_PEERCRED.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from agent.errors import AgentUnavailableError

MAX_SOCKET_NAME_BYTES = 100
"""sun_path has 104 bytes on macOS and 108 on Linux, the closing NUL included."""

FULL_QUEUE_S = 0.01
"""Between two tries to connect while the agent has more callers than its queue holds."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def default_home() -> Path:
    """Where an agent lives when nobody says: `NEARFETCH_HOME`, else the user's state directory."""
    named = os.environ.get("NEARFETCH_HOME")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_state_path  # only needed here

    return user_state_path("nearfetch")


def socket_path(home: str | os.PathLike[str]) -> Path:
    """The socket of the agent that lives in `home`: there, or, when that name is too long for a socket, under
    /tmp in a directory of this user.

    Always /tmp and not $TMPDIR: the agent and its clients may be started with different environments.
    """
    real = os.path.realpath(Path(home).expanduser())
    path = Path(real, "agent.sock")
    if len(os.fsencode(path)) <= MAX_SOCKET_NAME_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:24]
    return Path(f"/tmp/nearfetch-{os.geteuid()}", f"{name}.sock")  # noqa: S108  # owner and mode are checked


def check_socket_directory(path: Path) -> None:
    """Refuse a socket in a directory that others own or may write to. Raises AgentUnavailableError.

    A missing directory is fine: there is no agent then.
    """
    try:
        found = path.parent.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise AgentUnavailableError(f"{path.parent} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise AgentUnavailableError(f"{path.parent} must be a directory of this user that nobody else can write to")


def peer_uid(connected: socket.socket) -> int:
    """The user at the other end of a unix socket, as the kernel knows it. Raises OSError."""
    if sys.platform == "darwin":
        # struct xucred of sys/ucred.h begins with cr_version and cr_uid.
        raw = connected.getsockopt(0, socket.LOCAL_PEERCRED, 76)
        return int(struct.unpack_from("=II", raw)[1])
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


async def connect(path: Path) -> Connection:
    """A connection with the agent of this user at `path`; the caller sets the time limit, and calls `drop` at the
    end. Raises AgentUnavailableError."""
    check_socket_directory(path)
    endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        endpoint.setblocking(False)
        await _connect(endpoint, path)
        if peer_uid(endpoint) != os.geteuid():
            raise AgentUnavailableError(f"the agent at {path} belongs to another user")
        return await asyncio.open_unix_connection(sock=endpoint)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        endpoint.close()
        raise AgentUnavailableError(f"no agent runs for {path.parent} (start one with: nearfetch run)") from error
    except OSError as error:
        endpoint.close()
        raise unreachable(path, error) from error
    except BaseException:
        endpoint.close()
        raise


def drop(writer: asyncio.StreamWriter) -> None:
    """End the connection. Not close(): that would wait for somebody who may read no more."""
    writer.transport.abort()


async def _connect(endpoint: socket.socket, path: Path) -> None:
    """Linux answers EAGAIN while the agent has a full queue of callers (unix(7)), and then tells nobody when there
    is room again: asyncio would take that for a connection."""
    while True:
        try:
            endpoint.connect(os.fspath(path))
        except BlockingIOError:
            await asyncio.sleep(FULL_QUEUE_S)
        else:
            return


def unreachable(path: Path, error: OSError) -> AgentUnavailableError:
    """What a failed call of the system means for the caller."""
    return AgentUnavailableError(f"the agent at {path} cannot be reached: {error.strerror or error}")
