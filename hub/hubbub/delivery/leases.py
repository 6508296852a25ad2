"""Leases: a task that was handed over is its worker's until the lease ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from hubbub.delivery.links import EndpointLink
from hubbub.errors import CredentialEndedError
from hubbub.ports import Change
from hubbub.tasks import after
from hubbub.values import Attempt, Delivery, DeliveryState

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["CREDENTIAL_ENDED", "Leases"]

CREDENTIAL_ENDED: Final = "credential_ended"
"""Reason of an attempt whose worker lost the credential it had taken the task with."""


class Leases:
    """Gives, watches, and keeps the slot of who has not answered in time."""

    def __init__(self, room: DeliveryRoom) -> None:
        self._room = room
        self._pulled: dict[str, set[int]] = {}
        self._held: dict[int, Callable[[], None]] = {}

    def may_take(self, link: EndpointLink) -> bool:
        """Tell whether a pull endpoint's guard lets a task go; else it is woken when it may."""
        guard = link.guard
        if guard is None:
            return True
        most = guard.rule.concurrency
        if most and len(self._pulled.get(link.address, ())) >= most:
            return False
        return self._room.guards.held(link.address, guard) is None

    def left(self, delivery: Delivery, address: str) -> None:
        """It is in the hand of its worker no more: its guard may let another one go."""
        if delivery.pulled_by is None:
            return
        self._let_go(delivery)
        pulled = self._pulled.get(address, set())
        pulled.discard(delivery.id)
        if not pulled:
            self._pulled.pop(address, None)
        self.wake(address)

    def wake(self, address: str) -> None:
        """Let those who wait for a guarded pull endpoint ask again."""
        link = self._room.link_of(address)
        if link is not None and link.endpoint.pull and link.guard is not None:
            for box in self._room.boxes_of(link):
                box.arrived()

    def lease(
        self, delivery: Delivery, *, for_us: int, worker: str | None, credential: str = ""
    ) -> Change:
        """Return the change that gives a task to an endpoint until its lease ends.

        Args:
            credential: What the worker came with; the lease ends with it at the latest.
        """
        attempt = self.give(delivery, for_us=for_us, worker=worker)
        delivery.credential = credential
        self.begin(delivery)
        return Change(delivery=delivery, task=delivery.task, attempt=attempt)

    def give(self, delivery: Delivery, *, for_us: int, worker: str | None) -> Attempt:
        """Give a task to an endpoint until its lease ends; returns what its history says of it."""
        now_us = self._room.clock.now_us()
        assert delivery.task is not None
        assert delivery.endpoint is not None
        delivery.lease_until_us = now_us + for_us
        delivery.pulled_by = worker
        delivery.task = after(delivery.task, delivery, now_us=now_us)
        return Attempt(
            task_id=delivery.task.id,
            run=delivery.task.run,
            attempt=delivery.attempts,
            endpoint=delivery.endpoint,
            worker=worker,
            started_us=now_us,
        )

    def begin(self, delivery: Delivery) -> None:
        """Look after a task that was given: its result is awaited from here on."""
        assert delivery.task_id is not None
        self._room.in_hand[delivery.task_id] = delivery
        self.watch(delivery)

    def watch(self, delivery: Delivery) -> None:
        """Try a leased delivery again when its lease ends.

        At once where a worker had pulled it and may be gone; one it was pushed to is there, and
        too slow: then the next attempt waits for its time.
        """
        until_us = delivery.lease_until_us
        assert until_us is not None
        if delivery.pulled_by is not None and delivery.endpoint is not None:
            self._pulled.setdefault(delivery.endpoint, set()).add(delivery.id)
            self._hold(delivery)

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

        self._room.timers.at(until_us, over)

    def _hold(self, delivery: Delivery) -> None:
        """Give a lease back when the credential ends that its worker came with."""
        self._let_go(delivery)
        if not delivery.credential:
            return
        give_back = partial(self._give_back, delivery, delivery.attempts)
        try:
            self._held[delivery.id] = self._room.credentials.open(
                delivery.credential, lambda _: give_back()
            )
        except CredentialEndedError:
            self._room.timers.at(0, give_back)

    def _let_go(self, delivery: Delivery) -> None:
        forget = self._held.pop(delivery.id, None)
        if forget is not None:
            forget()

    def _give_back(self, delivery: Delivery, attempt: int) -> None:
        """Let a task wait again; that its worker is trusted no more is no fault of the task."""
        if delivery.state is DeliveryState.IN_FLIGHT and delivery.attempts == attempt:
            delivery.attempts -= 1
            due_us = self._room.clock.now_us()
            self._room.endings.again(delivery, CREDENTIAL_ENDED, due_us=due_us, counted=False)

    def grace(self, delivery: Delivery) -> None:
        """Keep the slot of an endpoint that has not answered, for `slot_grace`."""
        link = self._room.link_of(delivery.endpoint or "")
        if link is None or delivery.id not in link.in_flight:
            return
        slot = (delivery.id, delivery.attempts)
        link.overtime[slot] = delivery.task_id

        self._room.timers.at(
            self._room.clock.now_us() + int(self._room.policy.slot_grace_s * 1e6),
            partial(self._free, link, slot),
        )

    def unseen(self, link: EndpointLink, delivery: Delivery, attempt: int) -> None:
        """An attempt ended before its endpoint saw it: no answer would ever free that slot."""
        ended = self._room.endings.unwritten.get(delivery.id)
        if ended is not None and delivery.attempts == attempt:
            ended.unseen = True
        self._free(link, (delivery.id, attempt))

    def answered(self, task_id: str, address: str) -> None:
        """An endpoint has answered after its time: the slot of its earliest attempt is free.

        Also of an attempt of an earlier run: the peer says the same task id for all of them.
        """
        link = self._room.link_of(address)
        if link is None:
            return
        slots = [slot for slot, of in link.overtime.items() if of == task_id]
        if slots:
            self._free(link, min(slots))

    def _free(self, link: EndpointLink, slot: tuple[int, int]) -> None:
        if slot in link.overtime:
            del link.overtime[slot]
            self._room.pump_link(link)
