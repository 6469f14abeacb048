"""The simulator and the core that it plays as machine code, for runs that take minutes without.

mypyc, which comes with mypy, translates the same modules to C (`plain.py` makes it easy for it): a run comes to
the same in every byte, in less than half of the time. It is done once for each state of the sources, in the user's
cache, and needs a C compiler.

Never knows: what the modules do.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import platformdirs

from bench.plain import has_keywords, plain

ROOT = Path(__file__).resolve().parent.parent
BEGINNING = ROOT / "bench" / "__main__.py"
TOPS = ("agent", "peer", "validation", "bench")
FAST = ("agent.core.", "peer.core.", "validation.", "bench.sim.")
"""What is translated: modules whose names begin so,"""
SLOW_ENOUGH = frozenset({"bench.sim.options", "bench.sim.results"})
"""but not these: each is gone through once a run."""
BUILD_WITHIN_S = 1800.0
KEPT = 3
"""So many states of the sources keep their machine code; the oldest go."""
MARK = "complete"
"""A file that is there when everything else is."""
SETUP = """\
import os
from concurrent.futures import ThreadPoolExecutor

from mypyc.build import mypycify
from setuptools import setup
from distutils.ccompiler import CCompiler  # that of setuptools

modules = {modules!r}
one_after_the_other = CCompiler.compile


def side_by_side(self, sources, *given, **named):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda source: one_after_the_other(self, [source], *given, **named), sources)
        return [path for paths in made for path in paths]


CCompiler.compile = side_by_side
options = ["--config-file={none}", "--ignore-missing-imports"]
how = dict(opt_level="1", debug_level="0", multi_file=True)
setup(name="compiled", packages=[], ext_modules=mypycify([*options, *modules], **how))
"""


class CompileError(Exception):
    """There is no machine code; str() is one sentence that says why."""


def is_running() -> bool:
    """This process runs the machine code."""
    return (Path(__file__).parent.parent / MARK).exists()


def run(place: Path, command: list[str]) -> NoReturn:
    """`python -m bench COMMAND` from there, in place of this process."""
    sys.stdout.flush()
    path = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
    given = [sys.executable, "-P", "-m", "bench", *command]
    os.execve(sys.executable, given, os.environ | {"PYTHONPATH": path})  # our own interpreter


def place_of(modules: Mapping[str, ModuleType], cache: Path | None = None) -> Path:
    """Where the machine code of these modules is, or will be: named after all that it is made of."""
    state = hashlib.sha256(f"1 {sys.version} {platform.machine()} {SETUP}".encode())
    for path in sources_of(modules):
        state.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    home = cache or platformdirs.user_cache_path("nearfetch-bench")
    return home / state.hexdigest()[:24]


def sources_of(modules: Mapping[str, ModuleType]) -> list[Path]:
    """The files of those of the modules that are ours, and what begins them."""
    ours = (each for name, each in modules.items() if name.partition(".")[0] in TOPS)
    named = {Path(each.__file__).resolve() for each in ours if each.__file__ is not None} | {BEGINNING}
    return sorted(path for path in named if path.suffix == ".py" and path.is_relative_to(ROOT))


def translated(sources: Iterable[Path]) -> list[str]:
    """Those of the sources that become machine code, as paths below the root. Not where classes with keywords are
    left when all is said plainly: mypyc does not hand keywords to the metaclass."""
    found = []
    for path in sources:
        relative = path.relative_to(ROOT).as_posix()
        name = relative.removesuffix(".py").replace("/", ".")
        if not name.startswith(FAST) or name.endswith(".__init__") or name in SLOW_ENOUGH:
            continue
        if not has_keywords(plain(path.read_text(encoding="utf-8"))):
            found.append(relative)
    return found


def is_there(place: Path) -> bool:
    """It was made, all of it."""
    return (place / MARK).exists()


def build(place: Path, sources: list[Path], modules: list[str]) -> None:
    """Make it. Nothing is there until all is. Raises CompileError."""
    check_tools()
    try:
        _build(place, sources, modules)
    except OSError as error:
        raise CompileError(f"the machine code cannot be written: {error}") from error


def _build(place: Path, sources: list[Path], modules: list[str]) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=place.parent) as name:
        work = Path(name)
        for path in sources:
            copy = work / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            source = path.read_text(encoding="utf-8")
            said_plainly = path.relative_to(ROOT).as_posix() in modules
            copy.write_text(plain(source) if said_plainly else source, encoding="utf-8")
        (work / "setup.py").write_text(SETUP.format(modules=modules, none=os.devnull), encoding="utf-8")
        _run_setup(work)
        for waste in ("build", ".mypy_cache"):
            shutil.rmtree(work / waste, ignore_errors=True)
        (work / MARK).touch()
        with contextlib.suppress(OSError):  # somebody else was faster
            work.rename(place)
            work.mkdir()  # for who removes it
    if not is_there(place):
        raise CompileError(f"{place} cannot be written")
    _forget_old(place.parent)


def check_tools() -> None:
    """Raises CompileError that says what to install."""
    for module in ("mypyc", "setuptools"):
        if importlib.util.find_spec(module) is None:
            raise CompileError(f"{module} is missing: pip install 'mypy' 'setuptools'")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CompileError(f"there is no C compiler {compiler!r}: install one, or name it in CC")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise CompileError("Python.h is missing: install the headers of this Python (python3-dev)")


def _run_setup(work: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, timeout=BUILD_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"compiling took longer than {BUILD_WITHIN_S:.0f} s") from error
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line.lower()]
        raise CompileError(f"compiling failed: {(said or ['nobody says why'])[0][:300]}")


def _forget_old(home: Path) -> None:
    places = [path for path in home.iterdir() if is_there(path)]
    for path in sorted(places, key=lambda path: (path / MARK).stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
