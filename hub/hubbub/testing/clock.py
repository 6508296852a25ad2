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
        self._wall_behind_us = 0
        self._jumped_us = 0
        self._timers: list[tuple[int, int, _FakeTimer]] = []
        self._order = count()

    def now_us(self) -> int:
        """Return microseconds since the epoch."""
        return self._now_us

    def wall_us(self) -> int:
        """Return what the machine's clock says: the hub's time, unless it was set back."""
        return self._now_us - self._wall_behind_us

    def boot_us(self) -> int:
        """Return microseconds that have passed, whatever the clock was set to."""
        return self._now_us - self._jumped_us

    def jump(self, seconds: float) -> None:
        """Set the machine's clock forward, or back, in no time.

        The hub's time follows forward only. What falls due by it runs with the next `advance`.
        """
        wall_us = self.wall_us() + int(seconds * 1e6)
        ahead_us = max(0, wall_us - self._now_us)
        self._now_us += ahead_us
        self._jumped_us += ahead_us
        self._wall_behind_us = self._now_us - wall_us

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
