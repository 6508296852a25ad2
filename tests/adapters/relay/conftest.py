"""A relay on a real port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.relay.serving import SETTINGS, Relay, RunRelay, running_relay


@pytest.fixture
def run_relay(tmp_path: Path) -> RunRelay:
    """Run a relay with other settings: `async with run_relay(toml) as relay`."""

    def run(toml: str = SETTINGS, **how: Any) -> AbstractAsyncContextManager[Relay]:
        return running_relay(tmp_path / "hub", toml, **how)

    return run


@pytest.fixture
async def relay(run_relay: RunRelay) -> AsyncGenerator[Relay]:
    """A relay with the shipped key and a key of the boss."""
    async with run_relay() as running:
        yield running
