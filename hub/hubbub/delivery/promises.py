"""Promises: a new task for which somebody is free is given to him in the commit that takes it in.

So a task costs one commit less, and waits for one less. Between plan and commit the link keeps a
slot and the key its lane, and nobody changes the delivery: the journal's thread may be reading it.
What happened meanwhile is looked at when the commit is done; a peer sees a task only after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.delivery.courier import is_mine
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.rules import NODE_LOST, WITHDRAWN
from hubbub.ports import Planned
from hubbub.values import Delivery, DeliveryState, Outcome, Task

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Promises"]


class Promises:
    """Slots that are kept for tasks on their way to the store."""

    def __init__(self, room: DeliveryRoom) -> None:
        self._room = room
        self._made: dict[int, tuple[EndpointLink, Task]] = {}

    def make(self, planned: Planned) -> None:
        """Give a new task to who would get it if it were written by now; mostly nobody is free.

        Its place is reserved, and nothing is waited for until the record is handed over.
        """
        record = planned.record
        if not record.tasks:
            return
        delivery, queued = planned.deliveries[0], record.tasks[0]
        room = self._room
        box = room.boxes.get(delivery.mailbox)
        link = self._taker(box, delivery)
        if link is None:
            return
        box.left()
        box.line.occupy(delivery)
        room.boxes.hold(delivery)
        room.given(delivery, link.address)
        if link.guard is not None:
            room.guards.begun(link.guard, delivery)
        link.promised.add(delivery.id)
        room.taken_slot(link)
        self._made[delivery.id] = (link, queued)
        for_us = delivery.timeout_us or room.policy.timeout_us(link.endpoint)
        record.attempts.append(room.leases.give(delivery, for_us=for_us, worker=None))
        assert delivery.task is not None
        record.tasks[0] = delivery.task

    def _taker(self, box: Mailbox, delivery: Delivery) -> EndpointLink | None:
        """Return who shall have a task that nothing stands before; None when it has to wait."""
        room = self._room
        now_us = room.clock.now_us()
        if (
            delivery.state is not DeliveryState.PENDING
            or box.depth != 1  # its own place
            or not delivery.due_us <= now_us < (delivery.deadline_us or now_us + 1)
            or (delivery.lane is not None and delivery.lane in box.line.busy_lanes())
        ):
            return None
        if box.requirement is not None:
            link = room.member_for(box, delivery)
        else:
            link = room.link_of(box.name)
        return link if link is not None and self._may(link, box) else None

    def _may(self, link: EndpointLink, box: Mailbox) -> bool:
        """Tell whether an endpoint has a slot for which nothing else waits, or is on its way."""
        if link.endpoint.pull or link.free <= 0:
            return False
        most = link.endpoint.queue_size
        if most is not None and link.busy >= most:
            return False  # it is told of each that is one too many, by the way of all others
        guard = link.guard
        if guard is not None and (guard.wary or self._room.guards.held(link.address, guard)):
            return False
        return all(other is box or not other.depth for other in self._room.boxes_of(link))

    def has(self, delivery: Delivery) -> bool:
        """Tell whether a delivery is promised, its commit not known to be done."""
        return delivery.id in self._made

    def fulfil(self, delivery: Delivery) -> bool:
        """The commit is done: hand over what was promised; False for what was not."""
        made = self._made.pop(delivery.id, None)
        if made is None:
            return False
        link, queued = made
        link.promised.discard(delivery.id)
        if self._room.follow is not None:
            self._room.follow.update(queued, delivery)
        if not is_mine(delivery, 1):  # somebody read it in the store, and was quicker
            self._room.leases.unseen(link, delivery, 1)
            self._free(link)
        elif self._holds(link, delivery):
            link.in_flight[delivery.id] = delivery
            self._room.leases.begin(delivery)
            self._room.tell(delivery, delivery.task)
            self._room.couriers.send(link, delivery)
        else:
            self._take_back(link, delivery)
        return True

    def _holds(self, link: EndpointLink, delivery: Delivery) -> bool:
        """Tell whether an endpoint is still there, and takes it, and it is still in time."""
        now_us = self._room.clock.now_us()
        until_us = min(delivery.lease_until_us or 0, delivery.deadline_us or now_us + 1)
        return (
            not link.closed
            and link.free > 0
            and delivery.mailbox in (link.address, *link.pools)
            and now_us < until_us
        )

    def _take_back(self, link: EndpointLink, delivery: Delivery) -> None:
        """Let it wait for somebody else: nobody has seen it, so the attempt does not count."""
        room = self._room
        delivery.attempts -= 1
        reason = NODE_LOST if link.closed else WITHDRAWN
        now_us = room.clock.now_us()
        room.endings.again(delivery, reason, due_us=now_us, counted=False, seen=False)
        box = room.boxes.get(delivery.mailbox)
        if box.requirement is None and room.directory.get(box.name) is None:
            room.endings.end(delivery, Outcome.DEAD, "endpoint_gone")
        self._free(link)
        room.pump(box)

    def break_off(self, delivery: Delivery) -> bool:
        """It was not written: give back slot and lane; False for what was not promised."""
        made = self._made.pop(delivery.id, None)
        if made is None:
            return False
        link, _ = made
        link.promised.discard(delivery.id)
        room = self._room
        room.boxes.let_go(delivery)
        room.hands.leave(delivery)
        room.guards.left(delivery)
        box = room.boxes.get(delivery.mailbox)
        box.free(delivery)
        self._free(link)
        room.pump(box)
        return True

    def _free(self, link: EndpointLink) -> None:
        """A slot is free that nobody has used."""
        if not link.closed:
            self._room.freed(link)
            self._room.pump_link(link)
        self._room.endings.look_drained()
