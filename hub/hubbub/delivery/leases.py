"""Leases: a task that was handed over is its worker's until the lease ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.ports import Change
from hubbub.tasks import after
from hubbub.values import Attempt, Delivery, DeliveryState

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Leases"]


class Leases:
    """Gives, watches, and keeps the slot of who has not answered in time."""

    def __init__(self, room: DeliveryRoom) -> None:
        self._room = room

    def lease(self, delivery: Delivery, *, for_us: int, worker: str | None) -> Change:
        """Return the change that gives a task to an endpoint until its lease ends."""
        now_us = self._room.clock.now_us()
        assert delivery.task is not None
        assert delivery.endpoint is not None
        delivery.lease_until_us = now_us + for_us
        delivery.pulled_by = worker
        delivery.task = after(delivery.task, delivery, now_us=now_us)
        self._room.in_hand[delivery.task.id] = delivery
        self.watch(delivery)
        return Change(
            delivery=delivery,
            task=delivery.task,
            attempt=Attempt(
                task_id=delivery.task.id,
                run=delivery.task.run,
                attempt=delivery.attempts,
                endpoint=delivery.endpoint,
                worker=worker,
                started_us=now_us,
            ),
        )

    def watch(self, delivery: Delivery) -> None:
        """Try a leased delivery again when its lease ends.

        At once where a worker had pulled it and may be gone; one it was pushed to is there, and
        too slow: then the next attempt waits for its time.
        """
        until_us = delivery.lease_until_us
        assert until_us is not None

        def over() -> None:
            if (
                delivery.lease_until_us == until_us
                and delivery.state is DeliveryState.IN_FLIGHT
            ):  # fmt: skip
                self.grace(delivery)
                due_us = self._room.clock.now_us()
                if delivery.pulled_by is None:
                    due_us += self._room.backoff_us(delivery)
                    self._room.endings.failed(delivery, "timeout", due_us=due_us)
                else:
                    self._room.endings.again(delivery, "timeout", due_us=due_us)

        self._room.timers.at(until_us, over)

    def grace(self, delivery: Delivery) -> None:
        """Keep the slot of an endpoint that has not answered, for `slot_grace`."""
        link = self._room.link_of(delivery.endpoint or "")
        if link is None or delivery.id not in link.in_flight:
            return
        slot = (delivery.id, delivery.attempts)
        link.overtime.add(slot)

        def over() -> None:
            if slot in link.overtime:
                link.overtime.remove(slot)
                self._room.pump_link(link)

        self._room.timers.at(
            self._room.clock.now_us() + int(self._room.policy.slot_grace_s * 1e6), over
        )

    def answered(self, delivery: Delivery, address: str) -> None:
        """An endpoint has answered after its time: the slot of its earliest attempt is free."""
        link = self._room.link_of(address)
        if link is None:
            return
        slots = [slot for slot in link.overtime if slot[0] == delivery.id]
        if slots:
            link.overtime.remove(min(slots))
            self._room.pump_link(link)
