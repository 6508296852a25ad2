"""The figures as events, every two seconds while a route or somebody live wants them."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from hubbub import Envelope, Hub
from hubbub.errors import HubError
from hubbub_system.figures import read_figures

__all__ = ["SUBJECT", "TYPE", "Ticking"]

SUBJECT: Final = "hub.system"
TYPE: Final = "hubbub.system.v1"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Ticking:
    """Publishes the figures."""

    def __init__(self, hub: Hub, every_s: float) -> None:
        self._hub = hub
        self._every_us = int(every_s * 1e6)
        self._timer = hub.clock.call_at(hub.clock.now_us() + self._every_us, self._due)

    def stop(self) -> None:
        """Publish nothing any more."""
        self._timer.cancel()

    def _due(self) -> None:
        clock = self._hub.clock
        self._timer = clock.call_at(clock.now_us() + self._every_us, self._due)
        if self._hub.wanted(SUBJECT, TYPE):
            self._hub.spawn(self._tell())

    async def _tell(self) -> None:
        figures = await asyncio.to_thread(read_figures)
        try:
            await self._hub.publish(
                Envelope.new(
                    source=SUBJECT, subject=SUBJECT, type=TYPE, data=figures, durable=False
                )
            )
        except HubError as error:
            log.warning("system.untold", error=str(error))
