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
        self._every_s = every_s
        # What is told is how the machine is in real time, so that is what it goes by.
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(every_s, self._due)

    def stop(self) -> None:
        """Publish nothing any more."""
        self._timer.cancel()

    def _due(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._due)
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
