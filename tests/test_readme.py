"""The README's tables are made from the code; `python tests/test_readme.py [NAME]...` writes them again."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def states_table() -> str:
    from agent.core.job import TRANSITIONS

    lines = ["| state | input → next |", "|---|---|"]
    for state, inputs in TRANSITIONS.items():
        moves = [f"{given.value} → {after.value}" for given, after in inputs.items()]
        lines.append(f"| {state.value} | {' · '.join(moves) or 'nothing (final)'} |")
    arrows = [
        f"    {state.value} --> {after.value}: {given.value}"
        for state, inputs in TRANSITIONS.items()
        for given, after in inputs.items()
        if after is not state and given.value not in ("cancel", "suspend", "untouched for the inactivity time")
    ]
    diagram = ["```mermaid", "stateDiagram-v2", "    [*] --> SUSPENDED", *arrows, "```"]
    note = "Left out of the picture: every live state also takes cancel, suspend and the inactivity time."
    return "\n".join([*lines, "", *diagram, "", note])


def exit_codes_table() -> str:
    from agent.errors import CODES, ExitCode

    lines = ["| code | name | error codes |", "|---|---|---|"]
    for code in ExitCode:
        errors = ", ".join(f"`{name}`" for name, found in CODES.items() if found.exit_code is code)
        lines.append(f"| {code.value} | {code.name} | {errors or '–'} |")
    return "\n".join(lines)


def error_codes_table() -> str:
    from agent.errors import CODES

    lines = ["| code | exit | HTTP | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {found.exit_code.value} | {found.status} | {found.meaning} |"
        for name, found in CODES.items()
    ]
    return "\n".join(lines)


def meanings(source: str) -> dict[str, str]:
    """The docstring after each field of the class Config."""
    (config,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Config"
    )
    found = {}
    for item, after in pairwise(config.body):
        match item, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def shown(default: object) -> str:
    """A default as one would write it in the file; – for none."""
    from agent.core.pacing import NEVER, NO_LIMITS

    match getattr(default, "value", default):
        case None | ():
            return "–"
        case bool(value):
            return str(value).lower()
        case float(value) if value.is_integer():
            return str(int(value))
        case value:
            return "off" if value in (NEVER, NO_LIMITS) else str(value)


def settings_table() -> str:
    from agent.config import settings

    found = meanings((ROOT / "agent" / "config.py").read_text(encoding="utf-8"))
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {shown(default)} | {found[name]} |" for name, default in settings()]
    return "\n".join(lines)


def reasons_table() -> str:
    from agent.core.provenance import Reason

    lines = ["| reason | in words |", "|---|---|"]
    lines += [f"| `{reason.value}` | {reason.meaning} |" for reason in Reason]
    return "\n".join(lines)


def rest_table() -> str:
    from agent.api import TABLE
    from agent.schema import API_VERSION

    lines = ["| method and path | what |", "|---|---|"]
    lines += [f"| `{route.method} /{API_VERSION}{route.path}` | {route.summary} |" for route in TABLE]
    return "\n".join(lines)


TABLES = {
    "rest": rest_table,
    "reasons": reasons_table,
    "states": states_table,
    "exit-codes": exit_codes_table,
    "error-codes": error_codes_table,
    "settings": settings_table,
}


def between(text: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found, f"the README has no section {name}"
    return found[1].strip()


@pytest.mark.parametrize("name", TABLES)
def test_table_is_what_the_code_says(name: str) -> None:
    assert between(README.read_text(encoding="utf-8"), name) == TABLES[name]().strip(), (
        f"{name}: run `python tests/test_readme.py` to write it again"
    )


def test_every_failure_has_an_error_code() -> None:
    from agent.errors import CODES
    from peer.core.failure import FailureKind

    assert {kind.value for kind in FailureKind} <= set(CODES)


def test_every_setting_has_a_meaning_of_its_own() -> None:
    from agent.config import settings

    found = meanings((ROOT / "agent" / "config.py").read_text(encoding="utf-8"))
    said = [found.get(name, "") for name, _ in settings()]
    assert all(len(text) > 10 for text in said), "a field of Config without a docstring"
    assert len(set(said)) == len(said)


def test_a_meaning_is_the_text_behind_its_own_field() -> None:
    source = '''
class Config:
    """The class."""
    first: int = 1
    second: int = 2
    """Of the
    second."""

    def load(self) -> None:
        """Of the method."""
'''
    assert meanings(source) == {"second": "Of the second."}


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", README.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def command_lines() -> list[str]:
    """Every `nearfetch …` in a console block or in a code span, cut where the shell's own signs begin."""
    text = README.read_text(encoding="utf-8")
    found = re.findall(r"^\$ (nearfetch [^#\n]*)", text, re.MULTILINE)
    return found + re.findall(r"`(nearfetch [^`]*)`", text)


@pytest.mark.parametrize("line", command_lines())
def test_commands_of_the_readme_exist_with_their_options(line: str) -> None:
    from typer.main import get_command

    from agent.cli_app import app

    command: Any = get_command(app)
    words = [word for word in line.split()[1:] if word != "COMMAND"]
    while words and hasattr(command, "commands"):
        word = words.pop(0).partition("|")[0]
        if word.startswith("-") or word in ("…", "DIR"):
            continue
        assert word in command.commands, f"{line}: there is no {word}"
        command = command.commands[word]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help", "-h"}
    used = {word.strip("[]…,") for word in words if word.startswith("-")}
    assert used <= known, f"{line}: there is no {sorted(used - known)}"


def write(names: Collection[str]) -> None:
    """Write these tables again; all when none is named."""
    text = README.read_text(encoding="utf-8")
    for name in names or TABLES:
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}{opening}{TABLES[name]()}\n{closing}{after}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write(sys.argv[1:])
