"""Test kit for plugin authors: a hub without sockets, a clock that is moved by hand, recorders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any

from hubbub.config import load_config
from hubbub.core import Core
from hubbub.envelope import Envelope
from hubbub.ports import Clock
from hubbub.values import Endpoint

__all__ = ["FakeClock", "RecordingEndpoint", "running_hub"]


class _FakeTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start_us: int = 1_767_323_045_000_000) -> None:
        self._now_us = start_us
        self._timers: list[tuple[int, int, _FakeTimer]] = []
        self._order = count()

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        return self._now_us

    def call_at(self, time_us: int, callback: Callable[[], None]) -> _FakeTimer:
        """Call back once the clock was moved to that time."""
        timer = _FakeTimer(callback)
        heappush(self._timers, (time_us, next(self._order), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Move the clock, and run what falls due on the way, in order."""
        end_us = self._now_us + int(seconds * 1e6)
        await settle()
        while self._timers and self._timers[0][0] <= end_us:
            due_us, _, timer = heappop(self._timers)
            self._now_us = max(self._now_us, due_us)
            if timer.callback is not None:
                timer.callback()
                await settle()
        self._now_us = end_us
        await settle()


async def settle(turns: int = 20) -> None:
    """Let everything run that can run now, work on other threads included."""
    for _ in range(turns):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: None)
    for _ in range(turns):
        await asyncio.sleep(0)


class RecordingEndpoint(Endpoint):
    """Takes envelopes and keeps them; `answers` says what happens instead, one at a time.

    Attributes:
        taken: Envelopes in order of hand-over.
        answers: Exceptions to raise, or None to take it; used up from the front.
    """

    def __init__(self, address: str, **how: Any) -> None:  # noqa: ANN401  # as Endpoint
        super().__init__(address=address, **how)
        self.taken: list[Envelope] = []
        self.answers: list[Exception | None] = []
        self._arrived = asyncio.Condition()

    async def deliver(self, envelope: Envelope) -> None:
        """Take one envelope, or do what the next answer says."""
        async with self._arrived:
            self.taken.append(envelope)
            self._arrived.notify_all()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    async def wait_for(self, number: int, timeout_s: float = 10.0) -> list[Envelope]:
        """Return what was taken once it is that many.

        Raises:
            TimeoutError: they did not come.
        """
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.taken) >= number)
        return self.taken


def _written(data_dir: Path, toml: str) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "hub.toml"
    path.write_text(toml, encoding="utf-8")
    return path


@asynccontextmanager
async def running_hub(
    data_dir: Path,
    toml: str = "",
    *,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    plugins: Mapping[str, object] | None = None,
) -> AsyncGenerator[Core]:
    """Run a hub without sockets on a SQLite file in `data_dir`; its hub.toml is `toml`.

    Args:
        plugins: Plugin objects to load beside those that are installed, by name.
    """
    path = _written(data_dir, toml)
    config = load_config(path, overrides=[f'hub.data_dir="{data_dir}"'], environ=environ or {})
    core = Core(config, clock=clock, environ=environ or {})
    for name, plugin in (plugins or {}).items():
        core.plugins.add(name, plugin)
    await core.start()
    try:
        yield core
    finally:
        await core.stop()
