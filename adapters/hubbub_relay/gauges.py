"""The relay's gauges, read for a scrape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubbub import Hub
from hubbub_relay import events
from hubbub_relay.metrics import RelayMetrics

__all__ = ["Gauges"]

REST: Final = 20
"""After they were read, scrapes show them for so many times as long as that took."""


class Gauges:
    """Reads them from the store, unless that took long and was just done."""

    def __init__(
        self, hub: Hub, metrics: RelayMetrics, *, stale_after_s: float, lag: Callable[[], int]
    ) -> None:
        self._hub = hub
        self._metrics = metrics
        self._stale_us = int(stale_after_s * 1e6)
        self._lag = lag
        self._again_us = 0

    def show(self) -> Callable[[], None]:
        """Read at every scrape from here on; returns what ends that."""
        return self._hub.metrics.on_scrape(self._read)

    async def _read(self) -> None:
        now_us = self._hub.clock.now_us()
        if now_us < self._again_us:
            return
        stale_us = now_us - self._stale_us
        waiting = await self._hub.read(
            lambda session: events.waiting(session, stale_before_us=stale_us)
        )
        self._metrics.show(waiting, now_us=now_us, lag=self._lag)
        done_us = self._hub.clock.now_us()
        self._again_us = done_us + REST * (done_us - now_us)
