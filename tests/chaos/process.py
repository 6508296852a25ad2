"""A hub as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["HubProcess"]

READY_S = 60.0
"""Much more than it needs: the machine may have other things to do."""


class HubProcess:
    """`hubbub run` on a data directory; started, killed and started again.

    Attributes:
        url: Where it listens, once it is ready.
        token: Its admin token, once it is ready.
    """

    def __init__(self, data_dir: Path, *, config: Path, settings: Sequence[str] = ()) -> None:
        self._data_dir = data_dir
        self._config = config
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.token = ""

    async def start(self) -> None:
        """Start it and wait until it says ready."""
        arguments = ["--config", str(self._config), "--set", "hub.port=0"]
        arguments += ["--set", f'hub.data_dir="{self._data_dir}"']
        for setting in self._settings:
            arguments += ["--set", setting]
        with (self._data_dir.parent / "hub.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hubbub.cli", "run", *arguments,
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        try:
            async with asyncio.timeout(READY_S):
                ready = await self._ready()
        except TimeoutError:
            await self.kill()
            ready = None
        if ready is None:
            log_text = (self._data_dir.parent / "hub.log").read_text()
            raise AssertionError(f"the hub was not ready in {READY_S:g} s:\n{log_text[-4000:]}")
        self.url = ready.split()[2]
        self.token = (self._data_dir / "admin.token").read_text().strip()

    async def _ready(self) -> str | None:
        """Return the line in which it says that it is ready; None when it ended before."""
        assert self._process is not None
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if " ready " in line:
                return line
        return None

    async def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """Ask it to stop; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(READY_S):
            return await self._process.wait()
