"""Finds validators: `NAME[:ARG]` -> a Validator.

Plug-ins announce themselves in the entry-point group `nearfetch.validators`; each entry point is a factory
`Callable[[str | None], Validator]` that raises ValidatorArgumentError (or ValueError) for an argument it cannot
use. Our own names are known without any metadata, so they also work in a source tree that is not installed, and no
other package can take them over. Never knows: what a validator does, jobs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from validation.errors import ValidatorArgumentError, ValidatorBroken, ValidatorNotFound
from validation.validator import APPLICATION, ApplicationDecides, Validator, one_line

GROUP = "nearfetch.validators"

BUILT_IN = {
    "sha256": "validation.plugins.checksum:sha256",
    "sha512": "validation.plugins.checksum:sha512",
    "blake2b": "validation.plugins.checksum:blake2b",
    "size": "validation.plugins.size:size",
    "ed25519": "validation.plugins.signature:ed25519",
    "command": "validation.plugins.command:command",
}
"""The same table as in pyproject.toml; a test compares them."""

Factory = Callable[[str | None], Validator]


def names() -> tuple[str, ...]:
    """The names that `find` knows, sorted: ours, `application`, and those of installed plug-ins."""
    return tuple(sorted({APPLICATION, *BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))


def find(spec: str) -> Validator:
    """The validator that `spec`, written `NAME[:ARG]`, stands for. Does not touch any candidate.

    Raises ValidatorNotFound (with near names), ValidatorArgumentError, ValidatorBroken. Imports the plug-in.
    Call it when a job is made, before anything is downloaded.
    """
    name, colon, argument = spec.partition(":")
    if name == APPLICATION:
        if colon:
            raise ValidatorArgumentError(f"the validator {APPLICATION!r} takes no argument")
        return ApplicationDecides()
    return _make(name, _load(_entry_point(name)), argument if colon else None)


def problems() -> tuple[str, ...]:
    """What is wrong with the installed plug-ins, one sentence each. Imports every plug-in."""
    found: list[str] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        if point.name == APPLICATION or BUILT_IN.get(point.name, point.value) != point.value:
            found.append(
                f"validator {point.name!r} of {_package(point)} is ignored: the name is taken by nearfetch"
            )
            continue
        try:
            _load(_entry_point(point.name))
        except ValidatorBroken as error:
            found.append(str(error))
    return tuple(dict.fromkeys(found))


def _entry_point(name: str) -> EntryPoint:
    if name in BUILT_IN:
        return EntryPoint(name=name, value=BUILT_IN[name], group=GROUP)
    points = list(entry_points(group=GROUP, name=name)) if name else []
    if not points:
        near = difflib.get_close_matches(name.lower(), names(), n=3)
        raise ValidatorNotFound(name, tuple(near))
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted(_package(point) for point in points))
        raise ValidatorBroken(f"validator {name!r} is offered by {packages}: remove one of them")
    return points[0]


def _load(point: EntryPoint) -> Factory:
    try:
        factory: object = point.load()
    except (Exception, SystemExit) as error:  # importing runs code of others: any error is its error
        raise ValidatorBroken(
            f"validator {point.name!r} of {_package(point)} cannot be loaded: {_spoken(error)}"
        ) from error
    if not callable(factory):
        raise ValidatorBroken(
            f"validator {point.name!r} of {_package(point)} is no factory: {point.value} is not callable"
        )
    return cast(Factory, factory)


def _make(name: str, factory: Factory, argument: str | None) -> Validator:
    try:
        validator = factory(argument)
    except ValidatorArgumentError:
        raise
    except ValueError as error:
        raise ValidatorArgumentError(f"validator {name!r}: {one_line(str(error), 300)}") from error
    except (Exception, SystemExit) as error:  # as in _load
        raise ValidatorBroken(f"validator {name!r} crashed when it was made: {_spoken(error)}") from error
    if not callable(getattr(validator, "validate", None)):
        raise ValidatorBroken(f"validator {name!r} made a {type(validator).__name__}, which has no validate method")
    return validator


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _spoken(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}", 200)
