"""Values said plainly are the same values."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

import pytest

from bench.plain import has_keywords, plain

HEAD = """
from __future__ import annotations
from dataclasses import dataclass, field
import msgspec

NOTHING = 7
"""

STRUCTS = """
class Base(msgspec.Struct, frozen=True, kw_only=True):
    file: str

class Came(Base, frozen=True, kw_only=True):
    \"\"\"Something came.\"\"\"
    count: int = NOTHING
    \"\"\"So much.\"\"\"
    who: tuple[str, ...] = ()

    @property
    def twice(self) -> int:
        return 2 * self.count

class Went(Base, frozen=True, kw_only=True):
    pass

class Late(Base, frozen=True):
    count: int

class Span(msgspec.Struct, frozen=True, order=True):
    start: int
    stop: int = 9

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise ValueError("backwards")

@dataclass(slots=True)
class Entry:
    name: str
    shunned: int = field(default=NOTHING)
"""


def loaded(source: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = ModuleType("made_up")
    monkeypatch.setitem(sys.modules, "made_up", module)
    exec(compile(source, "made_up", "exec"), module.__dict__)
    return module.__dict__


@pytest.fixture(params=["as it is", "plain"])
def space(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return loaded(HEAD + STRUCTS if request.param == "as it is" else plain(HEAD + STRUCTS), monkeypatch)


def test_nothing_is_left_for_a_metaclass_or_a_decorator(monkeypatch: pytest.MonkeyPatch) -> None:
    said = plain(HEAD + STRUCTS)
    assert has_keywords(HEAD + STRUCTS)
    assert not has_keywords(said)
    assert "@dataclass" not in said
    assert "@property" in said
    assert not hasattr(loaded(said, monkeypatch)["Came"], "__struct_config__")


def test_they_are_made_alike(space: dict[str, Any]) -> None:
    came = space["Came"](file="f", who=("a",))
    assert (came.file, came.count, came.who, came.twice) == ("f", 7, ("a",), 14)
    assert space["Came"].__struct_fields__ == ("file", "count", "who")
    assert space["Went"](file="g").file == "g"
    assert isinstance(came, space["Base"])
    assert (space["Late"](3, file="f").count, space["Late"](3, file="f").file) == (3, "f")
    assert (space["Span"](1).start, space["Span"](1).stop) == (1, 9)
    assert (space["Entry"]("n").shunned, space["Entry"]("n", shunned=3).shunned) == (7, 3)


def test_what_cannot_be_made_cannot_be_made(space: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        space["Came"]("f")
    with pytest.raises(TypeError):
        space["Went"]()
    with pytest.raises(TypeError):
        space["Went"](file="f", count=1)
    with pytest.raises(ValueError, match="backwards"):
        space["Span"](3, 2)


def test_they_are_equal_when_all_is_equal_and_the_kind_too(space: dict[str, Any]) -> None:
    came, went, span, entry = (space[name] for name in ("Came", "Went", "Span", "Entry"))
    assert came(file="f") == came(file="f", count=7)
    assert came(file="f") != came(file="f", count=8)
    assert came(file="f") != went(file="f")
    assert len({came(file="f"), came(file="f"), went(file="f")}) == 2
    assert entry("a") == entry("a") != entry("b")
    with pytest.raises(TypeError, match="unhashable"):
        hash(entry("a"))
    spans = [span(start, stop) for start, stop in itertools.product(range(3), (4, 3))]
    assert [(each.start, each.stop) for each in sorted(spans)] == sorted((each.start, each.stop) for each in spans)


@pytest.mark.parametrize(
    "source",
    [
        "class Tagged(msgspec.Struct, frozen=True, tag='t'):\n    a: int\n",
        "class Loose(msgspec.Struct, frozen=False):\n    a: int\n",
        "class Filled(msgspec.Struct, frozen=True):\n    a: list[int] = field(default_factory=list)\n",
        "@dataclass(frozen=True, slots=True)\nclass Frozen:\n    a: int\n",
        "@dataclass(slots=True)\nclass Filled:\n    a: list[int] = field(default_factory=list)\n",
        "class Sent(msgspec.Struct):\n    a: int\n\ndecode = msgspec.json.Decoder(Sent).decode\n",
        "class Else(Exception):\n    a: int\n",
    ],
)
def test_what_is_written_otherwise_stays(source: str) -> None:
    assert plain(HEAD + source) == HEAD + source
