"""Time that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

__all__ = ["FakeClock", "settle"]


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
