"""A hub with KenkoGo on a real port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.adapters.kenko.serving import Kenko, running_kenko


@pytest.fixture
async def kenko(tmp_path: Path) -> AsyncGenerator[Kenko]:
    """The adapter with its defaults, and the relay."""
    relay = "[adapters.relay]\nenabled = true\n"
    async with running_kenko(tmp_path / "hub", more=relay) as running:
        yield running
