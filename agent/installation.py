"""What of nearfetch is installed here, and whether it is one piece.

The names of our packages are common words: another distribution may bring an `agent` or a `peer` of its own.
Never knows: the configuration.
"""

from __future__ import annotations

import os
from importlib import util
from pathlib import Path

from agent.errors import ConfigError

PACKAGES = ("agent", "peer", "validation")


def installed_version() -> str:
    """Of the distribution `nearfetch`; `unknown` when it was not installed."""
    from importlib import metadata  # 30 ms

    try:
        return metadata.version("nearfetch")
    except metadata.PackageNotFoundError:
        return "unknown"


def package_places() -> set[Path]:
    """Where our packages would be imported from. One place is right."""
    places = set()
    for name in PACKAGES:
        spec = util.find_spec(name)
        origin = None if spec is None else spec.origin
        places.add(Path(os.path.realpath(origin)).parent.parent if origin else Path(f"(no package {name})"))
    return places


def check_one_piece() -> None:
    """Raises ConfigError when the packages come from different places."""
    places = package_places()
    if len(places) != 1:
        listed = ", ".join(sorted(map(str, places)))
        raise ConfigError(
            f"the packages {', '.join(PACKAGES)} lie in different places: {listed}; "
            "install nearfetch into an environment of its own, for example with pipx"
        )
