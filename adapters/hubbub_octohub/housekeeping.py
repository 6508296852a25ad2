"""Housekeeping: what nobody needs any more of the adapter's own tables is removed every hour."""

from __future__ import annotations

from typing import Final

import structlog

from hubbub import Hub
from hubbub.errors import HubError
from hubbub.ports import Timer
from hubbub_octohub import records, remembered
from hubbub_octohub.config import OctohubSettings
from hubbub_octohub.nodes import Nodes

__all__ = ["EVERY_S", "Housekeeping"]

EVERY_S: Final = 3600.0
"""Seconds between two rounds."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Housekeeping:
    """Goes round as long as the adapter runs."""

    def __init__(self, hub: Hub, settings: OctohubSettings, nodes: Nodes) -> None:
        self._hub = hub
        self._settings = settings
        self._nodes = nodes
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Go round in an hour, and every hour from then on."""
        due_us = self._hub.clock.now_us() + int(EVERY_S * 1e6)
        self._timer = self._hub.clock.call_at(due_us, self._due)

    def end(self) -> None:
        """Go round no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self.begin()
        self._hub.spawn(self._round())

    async def _round(self) -> None:
        try:
            await self.sweep()
        except HubError as error:
            log.warning("octohub.not_swept", error=str(error))

    async def sweep(self) -> None:
        """Remove what is too old, and note which nodes are here.

        While the time is not to be trusted all stays, and what is noted of nodes too.

        Raises:
            StoreUnavailableError: nothing was removed.
        """
        hub, settings = self._hub, self._settings
        now_us = hub.clock.now_us()
        if hub.retention_hold is not None:
            return
        once_us = now_us - int(2 * settings.signature_window * 1e6)
        await hub.execute(remembered.forget_once(before_us=once_us), patient=True)
        here = [connection.pc_id for connection in self._nodes]
        if here:
            await hub.execute(*remembered.keep_seen(here, now_us=now_us))
        if not settings.node_retention:
            return
        before_us = now_us - int(settings.node_retention * 1e6)
        unseen = await hub.read(
            lambda session: remembered.unseen_rules(session, before_us=before_us, but=here),
            patient=True,
        )
        await hub.execute(
            remembered.forget_seen(before_us=before_us),
            *map(records.forget_rule, unseen),
            patient=True,
        )
        if unseen:
            await self._nodes.load()
            log.info("octohub.nodes_forgotten", nodes=len(unseen))
