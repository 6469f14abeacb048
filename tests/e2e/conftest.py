"""What every end-to-end test has: an origin, and a place for files where leftovers would show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.origin import Origin


@pytest.fixture(name="origin")
async def run_origin() -> AsyncIterator[Origin]:
    """An origin on loopback, in the test's own loop."""
    async with Origin() as origin:
        yield origin


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory for destinations."""
    made = tmp_path / "place"
    made.mkdir()
    return made
