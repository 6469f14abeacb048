"""What `import agent` promises: the names it documents, and that it costs next to nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import agent


def test_all_names_are_documented_and_documented_names_are_there() -> None:
    assert agent.__doc__ is not None
    table = agent.__doc__.split("\n\n")[1]
    words = re.findall(r"\b([A-Z][A-Za-z]+|[A-Z]+_[A-Z]+|default_home)\b", table)
    assert sorted(words) == sorted(agent.__all__)


@pytest.mark.parametrize("name", agent.__all__)
def test_each_can_be_imported(name: str) -> None:
    assert getattr(agent, name) is not None
    assert name in dir(agent)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="Engine"):
        _ = agent.Engine  # type: ignore[attr-defined]


def loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_costs_nothing() -> None:
    assert not loaded("import agent") & {"asyncio", "msgspec", "agent.client"}


def test_the_client_starts_neither_mdns_nor_a_database() -> None:
    heavy = {"zeroconf", "sqlite3", "aiohttp", "typer", "rich", "cryptography"}
    assert not loaded("from agent import AgentClient, NewJob") & heavy


def test_a_plain_get_does_not_wait_for_typer() -> None:
    code = "from agent.cli import invoke; invoke(['get', 'x://y'])"
    assert not loaded(code) & {"typer", "pydantic", "rich", "zeroconf", "sqlite3", "aiohttp"}
