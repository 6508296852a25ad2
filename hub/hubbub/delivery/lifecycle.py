"""Beginnings and ends of the delivery room: after a restart, when an endpoint goes, at a stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.rules import NODE_LOST
from hubbub.errors import StoreUnavailableError
from hubbub.values import Delivery, Outcome

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Lifecycle"]


class Lifecycle:
    """What happens to deliveries when something around them begins or ends."""

    def __init__(self, room: DeliveryRoom) -> None:
        self._room = room

    def recovered(self, delivery: Delivery) -> None:
        """Take in a task that was handed over before a restart."""
        box = self._room.boxes.get(delivery.mailbox)
        self._room.boxes.here[delivery.id] = delivery
        if delivery.lane is not None:
            box.line.occupy(delivery)
        if delivery.pulled_by is None:
            self._room.endings.again(delivery, NODE_LOST, due_us=self._room.clock.now_us())
        elif delivery.task_id is not None:
            self._room.in_hand[delivery.task_id] = delivery
            self._room.leases.watch(delivery)

    async def bury(self, address: str) -> int:
        """Let all die that waits in the mailbox of an endpoint that is gone.

        Returns:
            How many of them are kept as dead letters.
        """
        self._room.guards.forget(address)
        box = self._room.boxes.find(address)
        return 0 if box is None else await self._bury(box)

    async def _bury(self, box: Mailbox) -> int:
        kept = 0
        while True:
            durable = box.line.stored
            for delivery in box.line:
                self._room.endings.end(delivery, Outcome.DEAD, "endpoint_gone")
            kept += durable
            if durable and box.behind > 0:  # else all of it would be in memory until it is written
                with suppress(StoreUnavailableError):
                    await self._room.engine.flush()
            box.dry = False
            if not await self._room.boxes.read_more(box) or not len(box.line):
                return kept

    async def drain(self, timeout_s: float) -> None:
        """Give nothing out any more; wait for what is under way; give the rest back uncounted."""
        for link in self._room.links():
            link.slots = 0
        if self._room.endings.under_way():
            done = asyncio.get_running_loop().create_future()
            self._room.endings.drained = done
            timer = self._room.clock.call_at(
                self._room.clock.now_us() + int(timeout_s * 1e6),
                lambda: None if done.done() else done.set_result(None),
            )
            await done
            timer.cancel()
        for link in list(self._room.links()):
            for delivery in list(link.in_flight.values()):
                delivery.attempts -= 1
                self._room.endings.again(
                    delivery, "drained", due_us=self._room.clock.now_us(), counted=False
                )
