"""The whole tree of commands: what is there, how each explains itself, and what a shell can complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.cli import invoke
from agent.cli_agent import Shell
from agent.cli_app import app
from agent.cli_listing import STATES
from agent.cli_options import ending
from agent.cli_run_options import SETTINGS
from agent.config import settings
from agent.core.job import JobState
from agent.errors import CODES, ExitCode

ROOT = Path(__file__).resolve().parents[2]

DOCUMENTED = {
    "": "get run doctor stats audit completion",
    "agent": "show",
    "group": "create join show",
    "peer": "list show forget clear discover ban unban",
    "cache": "list show delete delete-url clear limit age switch",
    "job": "create add add-set transfer resume suspend cancel complete reset validate list show get explain log "
    "wait watch events set set-url replace-prefix ranges filled position",
    "job credentials": "set remove",
}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield (*path, name), inner
        yield from walk(inner, (*path, name))


TREE = dict(walk(typer.main.get_command(app)))


def test_the_commands_are_those_documented() -> None:
    leaves = {" ".join(path) for path, command in TREE.items() if not hasattr(command, "commands")}
    assert leaves == {f"{group} {name}".strip() for group, names in DOCUMENTED.items() for name in names.split()}


@pytest.mark.parametrize("path", list(TREE), ids=" ".join)
def test_every_help_ends_with_an_example_and_exit_codes(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*path, "--help"]) == 0
    out = capsys.readouterr().out
    line = " ".join(path)
    assert f"nearfetch {line}" in out.partition("Example:\n")[2].partition("Exit codes:")[0]
    assert "Exit codes:\n      0  done\n" in out
    assert out.count("\n      2  the command line makes no sense\n") == 1


def test_every_command_has_json() -> None:
    for path, command in TREE.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options or hasattr(command, "commands"), path


def test_every_option_says_what_it_is() -> None:
    for path, command in TREE.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} has no help"


def test_every_code_has_an_exit_code_that_help_explains() -> None:
    text = ending("x", ExitCode)
    for code in CODES.values():
        assert f"{int(code.exit_code):3}  " in text


def test_every_setting_is_a_flag_of_run() -> None:
    assert SETTINGS.keys() | {"group_key"} == {name for name, _ in settings()}
    flags = {option for parameter in TREE["run",].params for option in parameter.opts}
    assert {f"--{name.replace('_', '-')}" for name in SETTINGS} <= flags


def test_the_states_are_those_of_the_core() -> None:
    assert set(STATES) == {state.value for state in JobState}


# Completion


@pytest.mark.parametrize("shell", Shell)
def test_a_completion_script(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["completion", shell.value]) == 0
    script = capsys.readouterr().out
    assert "_NEARFETCH_COMPLETE=complete_" + shell.value in script
    program = shutil.which(shell.value)
    if program is not None:
        done = subprocess.run(
            [program, "-n"], input=script, text=True, capture_output=True, timeout=20, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module", name="path_with_nearfetch")
def make_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which `nearfetch` is this checkout's."""
    directory = tmp_path_factory.mktemp("bin")
    program = directory / "nearfetch"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m agent.cli "$@"\n')
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


WANTED = {
    "jo": "job",
    "job res": "resume reset",
    "job create x --no-pro": "--no-progress-timeout",
    "job show x": "",  # no agent runs: nothing, and no complaint
}
COMPLETE = """
eval "$(nearfetch completion bash)"
for words in {lines}; do
    COMP_WORDS=(nearfetch $words)
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    COMPREPLY=()
    _nearfetch_completion nearfetch
    echo "$words: ${{COMPREPLY[*]}}"
done
"""


def test_bash_completes(path_with_nearfetch: str, tmp_path: Path) -> None:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("there is no bash")
    script = COMPLETE.format(lines=" ".join(f"'{line}'" for line in WANTED))
    done = subprocess.run(
        [program, "--norc", "-c", script],
        env={"PATH": path_with_nearfetch, "NEARFETCH_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert found == WANTED
