"""`hubbub simulate kenko` against a real hub."""

from __future__ import annotations

import asyncio
import sys

import pytest

from hubbub_kenko.simulate import Application, SimulationError
from tests.adapters.kenko.serving import Kenko


async def test_it_registers_and_answers(kenko: Kenko) -> None:
    """From the command line; it leaves after as many answers as asked for."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hubbub.cli", "simulate", "kenko", "--url", kenko.url,
        "--count", "1", "--ack", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).startswith(b"registered app_")
        assert await process.stdout.readline() == b"start\n"
        said = await kenko.ask("weather?")
        expected = f"message {said['id']} weather?\n".encode()
        assert await process.stdout.readline() == expected
        assert await process.wait() == 0
    assert (await kenko.ended(said["id"]))["outcome"] == "delivered"


async def test_it_says_why_it_failed(kenko: Kenko) -> None:
    """A refused registration, and a hub that is not there."""
    url = kenko.url.replace("http", "ws")
    with pytest.raises(SimulationError, match="invalid_name"):
        await Application(url, name=" ", tell=lambda _: None).run()
    with pytest.raises(SimulationError, match="refuses"):
        await Application(f"{url}/nowhere", name="x", tell=lambda _: None).run()
