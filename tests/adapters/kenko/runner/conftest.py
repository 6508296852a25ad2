"""A hub with kenko on a real port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.adapters.kenko.admin.serving import RUNNERS, Kenko, running_kenko


@pytest.fixture
async def kenko(tmp_path: Path) -> AsyncGenerator[Kenko]:
    """A hub that runs no uploaded applications."""
    async with running_kenko(tmp_path / "hub") as running:
        yield running


@pytest.fixture
async def runners(tmp_path: Path) -> AsyncGenerator[Kenko]:
    """A hub that does."""
    async with running_kenko(tmp_path / "hub", RUNNERS) as running:
        yield running
