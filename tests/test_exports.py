"""What `import agent` promises: the names it documents, and that it costs next to nothing."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import agent
import agent.schema


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


HEAVY = {"zeroconf", "sqlite3", "aiohttp", "typer", "rich", "cryptography"}


def loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_costs_nothing() -> None:
    assert not loaded("import agent") & {"asyncio", "msgspec", "agent.client"}


def test_the_client_starts_neither_mdns_nor_a_database() -> None:
    found = loaded("from agent import AgentClient, NewJob")
    assert not found & HEAVY
    assert "agent.client_sync" not in found
    assert not loaded("from agent import NotifyFlags, SyncClient") & HEAVY


@pytest.mark.parametrize("name", sorted(set(agent.schema.__all__) - set(agent.__all__)))
def test_documents_that_nobody_outside_needs_are_internal(name: str) -> None:
    """Every document that a public call takes or returns is public too."""
    words = set()
    for _, call in inspect.getmembers(agent.AgentClient, inspect.isfunction):
        words |= set(re.findall(r"\w+", " ".join(map(str, inspect.get_annotations(call).values()))))
    assert name not in words


def test_a_plain_get_does_not_wait_for_typer() -> None:
    code = "from agent.cli import invoke; invoke(['get', 'x://y'])"
    assert not loaded(code) & {"typer", "pydantic", "rich", "zeroconf", "sqlite3", "aiohttp"}
