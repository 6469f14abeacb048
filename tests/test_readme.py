"""The README's tables are made from the code; `python tests/test_readme.py` writes them again."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

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


def settings_table() -> str:
    from agent.config import Config

    source = (ROOT / "agent" / "config.py").read_text(encoding="utf-8")
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for item in fields(Config):
        if item.name == "home":
            continue
        found = re.search(rf'^    {item.name}: .*\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
        meaning = " ".join(found[1].split()) if found else "–"
        default = getattr(item.default, "value", item.default)
        shown = "–" if default in (None, ()) else f"{default:g}" if isinstance(default, float) else str(default)
        lines.append(f"| `{item.name}` | {shown} | {meaning} |")
    return "\n".join(lines)


TABLES = {
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


def test_every_setting_says_what_it_means() -> None:
    assert "| – |\n" not in settings_table() + "\n"


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", README.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_commands_of_the_readme_exist() -> None:
    """Every `nearfetch WORD` in a console block or in the table of commands is a command."""
    from typer.main import get_command

    from agent.cli_app import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]  # a group, by construction
    text = README.read_text(encoding="utf-8")
    used = set(re.findall(r"^\$ nearfetch (\w+)", text, re.MULTILINE))
    assert used
    assert used <= known


def write() -> None:
    text = README.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        text = text.replace(
            f"<!-- {name} -->\n{re.search(rf'<!-- {name} -->' + chr(10) + r'(.*?)<!-- /', text, re.DOTALL)[1]}",  # type: ignore[index]
            f"<!-- {name} -->\n{table()}\n",
        )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write()
