"""Names -> validators, with real entry points of real (small) installed distributions."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from validation import registry
from validation.errors import ValidatorArgumentError, ValidatorBroken, ValidatorNotFound
from validation.validator import ApplicationDecides

ROOT = Path(__file__).resolve().parents[2]
HEX = "ab" * 32


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(site: Path, distribution: str, validators: dict[str, str], source: str | None = None) -> None:
    """What pip leaves behind: metadata, entry points, and a module called like the distribution."""
    info = site / f"{distribution}-1.2.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    lines = [f"{name} = {value}" for name, value in validators.items()]
    info.joinpath("entry_points.txt").write_text("\n".join(["[nearfetch.validators]", *lines, ""]))
    if source is not None:
        site.joinpath(f"{distribution}.py").write_text(source)


WORKING = """
class V:
    def __init__(self, argument): self.argument = argument
    def validate(self, candidate, patience): raise NotImplementedError
make = V
def picky(argument): raise ValueError("only on\\nTuesdays")
def careless(argument): return {}["x"]
def empty(argument): return 5
number = 7
"""


def test_the_table_is_the_one_of_pyproject() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][registry.GROUP] == registry.BUILT_IN


def test_every_built_in_can_be_found() -> None:
    assert isinstance(registry.find("application"), ApplicationDecides)
    for name in registry.BUILT_IN:
        with pytest.raises(ValidatorArgumentError, match=name):
            registry.find(name)
    assert registry.find(f"sha256:{HEX}")
    assert set(registry.names()) >= {"application", *registry.BUILT_IN}
    assert list(registry.names()) == sorted(registry.names())


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("sha265", ("sha256",)),
        ("SHA256", ("sha256",)),
        ("sha25:" + HEX, ("sha256",)),
        ("aplication", ("application",)),
        ("comand:/bin/true", ("command",)),
        ("", ()),
        (":x", ()),
        ("zzzzzz", ()),
    ],
)
def test_unknown_names_come_with_near_ones(spec: str, near: tuple[str, ...]) -> None:
    with pytest.raises(ValidatorNotFound) as caught:
        registry.find(spec)
    assert caught.value.name == spec.partition(":")[0]
    assert set(near) <= set(caught.value.near)
    if near:
        assert f"did you mean {caught.value.near[0]}" in str(caught.value)
    else:
        assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["sha256", "sha256:", "sha256:xyz", "sha256:" + HEX + "00", "application:", "size:1-0"]
)
def test_bad_arguments_are_found_at_once(spec: str) -> None:
    with pytest.raises(ValidatorArgumentError):
        registry.find(spec)


def test_a_plug_in_gets_its_argument(site: Path) -> None:
    install(site, "nf_working", {"mine": "nf_working:make"}, WORKING)
    assert "mine" in registry.names()
    assert vars(registry.find("mine")) == {"argument": None}
    assert vars(registry.find("mine:")) == {"argument": ""}
    assert vars(registry.find("mine:a:b c")) == {"argument": "a:b c"}
    assert registry.problems() == ()
    with pytest.raises(ValidatorNotFound, match="did you mean mine"):
        registry.find("minee")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("nf_faulty:picky", ValidatorArgumentError, "validator 'it': only on Tuesdays"),
        ("nf_faulty:careless", ValidatorBroken, "validator 'it' crashed when it was made: KeyError: 'x'"),
        ("nf_faulty:empty", ValidatorBroken, "validator 'it' made a int, which has no validate method"),
        ("nf_faulty:number", ValidatorBroken, "validator 'it' of nf_faulty 1.2 is no factory"),
        ("nf_faulty:missing", ValidatorBroken, "validator 'it' of nf_faulty 1.2 cannot be loaded: AttributeError"),
        ("nf_absent:make", ValidatorBroken, "cannot be loaded: ModuleNotFoundError: No module named 'nf_absent'"),
    ],
)
def test_faulty_plug_ins_are_named(site: Path, value: str, error: type[Exception], words: str) -> None:
    install(site, "nf_faulty", {"it": value}, WORKING)
    with pytest.raises(error, match=words) as caught:
        registry.find("it:x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", ["raise RuntimeError('no\\nlicence')", "import sys; sys.exit(3)", "1 +"])
def test_a_crash_at_import_is_reported_with_the_package(site: Path, body: str) -> None:
    name = f"nf_crash_{len(body)}"
    install(site, name, {"crash": f"{name}:make"}, body)
    with pytest.raises(ValidatorBroken, match=f"validator 'crash' of {name} 1.2 cannot be loaded"):
        registry.find("crash")
    assert any("'crash'" in problem for problem in registry.problems())
    assert registry.find(f"sha256:{HEX}"), "the others go on working"


def test_nobody_takes_over_our_names(site: Path) -> None:
    taken = {"sha256": "nf_thief:make", "application": "nf_thief:make"}
    install(site, "nf_thief", taken, WORKING)
    assert type(registry.find(f"sha256:{HEX}")).__module__ == "validation.plugins.checksum"
    assert isinstance(registry.find("application"), ApplicationDecides)
    problems = registry.problems()
    assert len(problems) == 2
    assert all("of nf_thief 1.2 is ignored" in problem for problem in problems)


def test_two_packages_with_one_name_are_both_named(site: Path) -> None:
    install(site, "nf_one", {"twice": "nf_one:make"}, WORKING)
    install(site, "nf_two", {"twice": "nf_two:make"}, WORKING)
    with pytest.raises(ValidatorBroken, match=r"offered by nf_one 1\.2 and nf_two 1\.2: remove one"):
        registry.find("twice")
    assert len(registry.problems()) == 1


def test_a_source_tree_that_is_not_installed(tmp_path: Path) -> None:
    """Without any metadata of ours the built-in validators are there all the same."""
    libraries, source = tmp_path / "libraries", tmp_path / "source"
    libraries.mkdir()
    source.mkdir()
    source.joinpath("validation").symlink_to(ROOT / "validation")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "nearfetch" not in entry.name and entry.suffix != ".pth":
            libraries.joinpath(entry.name).symlink_to(entry)
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from importlib.metadata import entry_points\n"
        "from validation import registry\n"
        "assert not entry_points(group=registry.GROUP)\n"
        "assert set(registry.names()) == {'application', *registry.BUILT_IN}, registry.names()\n"
        "registry.find('size:5'); registry.find('sha256:' + 'ab' * 32); registry.find('command:/bin/sh')\n"
        "assert registry.problems() == ()\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program, os.fspath(source), os.fspath(libraries)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
