"""A playbook that was never checked proves nothing: its test fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.playbook import UNCHECKED


@pytest.fixture(autouse=True)
def _every_playbook_is_checked() -> Iterator[None]:
    UNCHECKED.clear()
    yield
    forgotten = len(UNCHECKED)
    UNCHECKED.clear()
    assert not forgotten, f"{forgotten} playbook(s) of this test were never checked"
