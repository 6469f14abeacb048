"""Values said in the plainest way, for mypyc: as a class with an `__init__` where the sources have a msgspec
struct, or a dataclass.

mypyc does not hand class keywords to a metaclass, and leaves a dataclass' `__init__` to the interpreter; of a plain
class it makes a C struct. Only what is written so is rewritten: `class X(msgspec.Struct, frozen=True, kw_only=True,
order=True)`, each keyword or none, its subclasses in the same module, and `@dataclass(slots=True)`. The rest stays,
and modules that use msgspec for anything else.
Never knows: what the values mean.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

STRUCT = "msgspec.Struct"
KEYWORDS = frozenset({"frozen", "kw_only", "order"})
DATACLASS = "dataclass(slots=True)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    annotation: ast.expr
    default: ast.expr | None
    kw_only: bool


def plain(source: str) -> str:
    """The same module, with plain classes."""
    tree = ast.parse(source)
    if _needs_msgspec(tree):
        return source
    structs: dict[str, tuple[_Field, ...]] = {STRUCT: ()}
    found = False
    for place, node in enumerate(tree.body):
        if not isinstance(node, ast.ClassDef) or not _fits(node, structs):
            continue
        base = ast.unparse(node.bases[0]) if node.bases else STRUCT
        fields = (*structs[base], *_fields_of(node))
        if not node.decorator_list:
            structs[node.name] = fields
        tree.body[place] = _plain(node, fields, base)
        found = True
    if not found:
        return source
    first = next(place for place, node in enumerate(tree.body) if isinstance(node, ast.ImportFrom))
    tree.body.insert(first + 1, ast.parse("from typing import ClassVar as _ClassVar").body[0])
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def has_keywords(source: str) -> bool:
    """Some class has keywords."""
    return any(isinstance(node, ast.ClassDef) and node.keywords for node in ast.walk(ast.parse(source)))


def _needs_msgspec(tree: ast.Module) -> bool:
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return any(each.startswith("msgspec.") and each != STRUCT for each in used)


def _fits(node: ast.ClassDef, structs: dict[str, tuple[_Field, ...]]) -> bool:
    """It is written in one of the two ways, and has no default that is made anew for each."""
    factories = any(
        isinstance(each, ast.AnnAssign)
        and isinstance(each.value, ast.Call)
        and ast.unparse(each.value.func) == "field"
        and [keyword.arg for keyword in each.value.keywords] != ["default"]
        for each in node.body
    )
    if factories:
        return False
    if node.decorator_list:
        return not node.bases and [ast.unparse(each) for each in node.decorator_list] == [DATACLASS]
    return (
        len(node.bases) == 1
        and ast.unparse(node.bases[0]) in structs
        and all(each.arg in KEYWORDS and ast.unparse(each.value) == "True" for each in node.keywords)
    )


def _fields_of(node: ast.ClassDef) -> tuple[_Field, ...]:
    found, kw_only = [], any(keyword.arg == "kw_only" for keyword in node.keywords)
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            default = each.value
            if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
                default = default.keywords[0].value
            name, annotation = each.target.id, each.annotation
            found.append(_Field(name=name, annotation=annotation, default=default, kw_only=kw_only))
    return tuple(found)


def _plain(node: ast.ClassDef, fields: tuple[_Field, ...], base: str) -> ast.ClassDef:
    given = {keyword.arg for keyword in node.keywords}
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    names = tuple(field.name for field in fields)
    written = [f"class {node.name}{'' if base == STRUCT else f'({base})'}:"]
    written += [f"    __struct_fields__: _ClassVar[tuple[str, ...]] = {names!r}"]
    written += [f"    {field.name}: {ast.unparse(field.annotation)}" for field in _fields_of(node)]
    written += _init(fields, any(each.name == "__post_init__" for each in methods))
    written += _comparisons(node.name, names, frozen="frozen" in given, order="order" in given)
    made = ast.parse("\n".join(written)).body[0]
    assert isinstance(made, ast.ClassDef)
    made.body += methods
    return made


def _init(fields: tuple[_Field, ...], post_init: bool) -> list[str]:
    by_place = [_parameter(field) for field in fields if not field.kw_only]
    by_name = [_parameter(field) for field in fields if field.kw_only]
    parameters = ["self", *by_place, *(["*"] if by_name else []), *by_name]
    return [
        f"    def __init__({', '.join(parameters)}) -> None:",
        *[f"        self.{field.name} = {field.name}" for field in fields],
        *(["        self.__post_init__()"] if post_init else []),
        *(["        pass"] if not fields else []),
    ]


def _parameter(field: _Field) -> str:
    default = "" if field.default is None else f" = {ast.unparse(field.default)}"
    return f"{field.name}: {ast.unparse(field.annotation)}{default}"


def _comparisons(name: str, names: tuple[str, ...], *, frozen: bool, order: bool) -> list[str]:
    same = " and ".join(f"self.{each} == other.{each}" for each in names) or "True"
    mine = f"({''.join(f'self.{each}, ' for each in names)})"
    lines = [
        "    def __eq__(self, other: object) -> bool:",
        f"        return type(other) is {name} and isinstance(other, {name}) and {same}",
    ]
    if frozen:
        lines += ["    def __hash__(self) -> int:", f"        return hash({mine})"]
    if order:
        theirs = mine.replace("self.", "other.")
        lines += [f"    def __lt__(self, other: {name}) -> bool:", f"        return {mine} < {theirs}"]
    return lines
