"""Many timers on one handle of the clock."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from hubbub.ports import Clock, Timer

__all__ = ["Timers"]


class Timers:
    """Calls back at times of the hub's clock. A timer is not cancelled, its callback checks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._handle: Timer | None = None
        self._handle_us = 0
        self._closed = False

    def at(self, time_us: int, callback: Callable[[], None]) -> None:
        """Call back once that time has come."""
        heappush(self._heap, (time_us, next(self._order), callback))
        if self._handle is None or time_us < self._handle_us:
            self._arm()

    def close(self) -> None:
        """Forget all of them."""
        self._closed = True
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap and not self._closed:
            self._handle_us = self._heap[0][0]
            self._handle = self._clock.call_at(self._handle_us, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now_us = self._clock.now_us()
        heap = self._heap
        while heap and heap[0][0] <= now_us:
            heappop(heap)[2]()
        self._arm()
