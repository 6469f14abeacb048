"""The layers of the design, and the size of the rooms, read from the source with `ast`.

Who may import whom, what the pure part may not touch, and that no file or function outgrows its reader.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("agent", "peer", "validation", "bench", "tests")
IMPURE = frozenset(
    [
        "asyncio",
        "time",
        "socket",
        "ssl",
        "os",
        "threading",
        "logging",
        "subprocess",
        "secrets",
        "aiohttp",
        "zeroconf",
        "sqlite3",
        "concurrent",
        "select",
    ]
)
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

# The longest matching prefix decides. A module may import the layers named, and itself.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "validation": frozenset({"validation"}),
    "validation.plugins": frozenset({"validation", "validation.plugins"}),
    "peer.core": frozenset({"peer.core", "validation"}),
    "peer": frozenset({"peer", "peer.core", "validation"}),
    "agent.core": frozenset({"agent.core", "peer.core", "validation"}),
    "agent": frozenset({"agent", "agent.core", "peer", "peer.core", "validation"}),
    # The bench speaks to agents as a user does; the forger is the attacker of the demo and holds a stolen key.
    "bench": frozenset({"bench", "agent"}),
    "bench.forge": frozenset({"bench", "peer", "peer.core", "validation"}),
    "bench.liar": frozenset({"bench", "peer", "peer.core", "validation"}),
    # The simulator plays the core itself: what decides in an agent, and nothing that has sockets or files.
    "bench.sim": frozenset({"bench", "bench.sim", "agent.core", "peer.core", "validation"}),
    "bench.micro": frozenset({"bench", "peer", "peer.core", "validation"}),
}
PURE = ("validation", "peer.core", "agent.core")
NOT_PURE = ("validation.plugins", "validation.registry", "validation.conformance")
PUBLIC_FOR_BENCH = frozenset({"agent", "agent.client", "agent.schema", "agent.errors"})
LIGHT = "agent.client"
"""The library: this module, and those whose names begin so."""
LIGHT_MAY_IMPORT = frozenset({"agent.schema", "agent.errors", "agent.core.backoff", "peer.core.failure"})


def modules() -> Iterator[tuple[str, Path]]:
    for top in ("agent", "peer", "validation", "bench"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


ALL = list(modules())


def imports(path: Path) -> Iterator[str]:
    """Every module named by an import anywhere in the file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                below = ROOT.joinpath(*node.module.split("."), alias.name).with_suffix(".py")
                yield f"{node.module}.{alias.name}" if below.exists() else node.module


def layer_of(module: str) -> str:
    return max((layer for layer in MAY_IMPORT if (module + ".").startswith(layer + ".")), key=len)


def is_pure(module: str) -> bool:
    inside = any((module + ".").startswith(layer + ".") for layer in PURE)
    return inside and not any((module + ".").startswith(layer + ".") for layer in NOT_PURE)


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_imports_only_go_down(module: str, path: Path) -> None:
    allowed = MAY_IMPORT[layer_of(module)]
    for imported in imports(path):
        if imported.split(".")[0] in OURS:
            assert layer_of(imported) in allowed, f"{module} imports {imported}"
        plays_the_core = layer_of(module) == "bench.sim"
        if module.startswith("bench") and imported.split(".")[0] == "agent" and not plays_the_core:
            assert imported in PUBLIC_FOR_BENCH, f"{module} reaches behind the public library: {imported}"


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_the_core_is_pure(module: str, path: Path) -> None:
    if is_pure(module):
        touched = {name for name in imports(path) if name.split(".")[0] in IMPURE}
        assert not touched, f"{module} is pure and imports {sorted(touched)}"


def test_the_client_is_light() -> None:
    """`import agent` in a user's script starts neither zeroconf nor SQLite."""
    library = [(module, path) for module, path in ALL if module.startswith(LIGHT)]
    assert len(library) > 1
    for module, path in library:
        ours = {name for name in imports(path) if name.split(".")[0] in OURS and not name.startswith(LIGHT)}
        assert ours <= LIGHT_MAY_IMPORT, f"{module} imports {sorted(ours - LIGHT_MAY_IMPORT)}"


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_rooms_keep_their_size(module: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE_LINES, f"{module}: a second file wants out"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{module}.{node.name} has {lines} lines"


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_every_file_says_what_it_is(module: str, path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{module} has no docstring"


def test_no_package_under_tests() -> None:
    """An `__init__.py` there would hide the real packages."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
