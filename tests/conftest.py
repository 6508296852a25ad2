"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.core import Core
from hubbub.testing import FakeClock, running_hub


@pytest.fixture
def clock() -> FakeClock:
    """A clock that is moved by hand."""
    return FakeClock()


@pytest.fixture
async def core(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Core]:
    """A hub without sockets, on the fake clock."""
    async with running_hub(tmp_path / "hub", clock=clock) as running:
        yield running
