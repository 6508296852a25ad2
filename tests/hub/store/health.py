"""Waiting for a store to break, or to be mended."""

from __future__ import annotations

import asyncio

from hubbub.core import Core

__all__ = ["broken", "mended"]


async def mended(core: Core) -> None:
    """Return once the store can be written."""
    await _until(core, broken=False)


async def broken(core: Core) -> None:
    """Return once the hub knows that it cannot."""
    await _until(core, broken=True)


async def _until(core: Core, *, broken: bool) -> None:
    async with asyncio.timeout(20):
        while (core.journal.problem is not None) != broken:  # noqa: ASYNC110  # readyz asks so too
            await asyncio.sleep(0.02)
