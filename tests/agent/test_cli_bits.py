"""The table for people who come from bitsadmin and BitsTransfer: nothing is missing, and what it names exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.cli_app import app
from agent.cli_job_properties import FILE_PROPERTIES, JOB_PROPERTIES
from tests.support.bits_words import BITS_TRANSFER, BITSADMIN, ROWS, commands_in, table

README = Path(__file__).resolve().parents[2] / "README.md"
ROOT_COMMAND: Any = typer.main.get_command(app)


def shown() -> str:
    """What the README shows, once it has the table."""
    found = re.search(
        r"<!-- bitsadmin -->\n(.*?)<!-- /bitsadmin -->", README.read_text(encoding="utf-8"), re.DOTALL
    )
    return table() if found is None else found[1].strip()


def test_the_readme_shows_this_table() -> None:
    assert shown() == table(), "write it again with `python -m tests.support.bits_words`"


def test_each_of_their_words_stands_once() -> None:
    words = Counter(word for theirs, _, _ in ROWS for word in theirs.split())
    assert words == Counter([*BITSADMIN, *BITS_TRANSFER])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_has_no_command_here_has_a_reason(row: tuple[str, str, str]) -> None:
    _, ours, note = row
    assert ours or len(note) > 10
    assert not ours or ours.startswith("nearfetch ")


def named() -> list[list[str]]:
    return [list(words) for words in sorted({tuple(words) for words in commands_in(shown())})]


@pytest.mark.parametrize("words", named(), ids=" ".join)
def test_every_command_named_exists(words: list[str]) -> None:
    """The command, its options, and how many arguments it takes."""
    command = ROOT_COMMAND
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    if words != ["--version"]:
        assert not hasattr(command, "commands"), f"nearfetch {' '.join(words)} is no command"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} <= options
    before = [word for word in _until_option(rest) if word]
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    assert len(before) <= len(arguments) or any(parameter.nargs == -1 for parameter in arguments)
    assert len(before) >= sum(parameter.required for parameter in arguments) or words == ["get"] or len(words) < 3


@pytest.mark.parametrize("words", [words for words in named() if words[:2] == ["job", "get"]], ids=" ".join)
def test_every_property_named_exists(words: list[str]) -> None:
    _, _, _, word, *index = words
    assert word == "PROPERTY" or word in (FILE_PROPERTIES if index else JOB_PROPERTIES)


def _until_option(words: list[str]) -> list[str]:
    found = []
    for word in words:
        if word.startswith("-"):
            break
        found.append(word)
    return found
