"""Straight to an endpoint that takes without waiting: no task, no future, and many in one call.

What an endpoint does not take this way goes the way of all others: by its mailbox to a courier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from hubbub.conversion import Conversions
from hubbub.delivery.links import EndpointLink
from hubbub.envelope import Envelope
from hubbub.ports import Change
from hubbub.values import Delivery, DeliveryState, Outcome

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["BATCH", "Direct"]

BATCH: Final = 64
"""Envelopes given to an endpoint in one call."""

BATCH_BYTES: Final = 256 * 1024
"""Payload of those, beside one: an endpoint writes all of them at once."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Direct:
    """Gives endpoints what they take at once."""

    def __init__(self, room: DeliveryRoom, conversions: Conversions) -> None:
        self._room = room
        self._conversions = conversions

    def hand_over(self, deliveries: Iterable[Delivery], *, now_us: int) -> list[Delivery]:
        """Hand over what was published just now, past mailboxes in which nothing stands before it.

        Returns:
            Those that are not delivered by that; nothing has happened to them.
        """
        room = self._room
        left: list[Delivery] = []
        taken: list[Delivery] = []
        for delivery in deliveries:
            link = room.link_of(delivery.mailbox)
            if (
                link is not None
                and self._may(link)
                and self._fits(link, delivery)
                and delivery.due_us <= now_us < (delivery.deadline_us or now_us + 1)
                and (box := room.boxes.get(delivery.mailbox)).empty
                and self._given(link, (delivery.envelope,))
            ):
                box.left()
                self._end(link, delivery, now_us)
                taken.append(delivery)
            else:
                left.append(delivery)
        if taken:
            room.endings.count_delivered(taken)
        return left

    def empty(self, link: EndpointLink) -> None:
        """Hand over what waits for an endpoint, batch by batch, while it takes all of it."""
        while self._may(link) and self._pass_batch(link):
            pass

    def _pass_batch(self, link: EndpointLink) -> bool:
        """Hand over one batch; False when nothing is left, or something of it was not taken."""
        room = self._room
        batch: list[Delivery] = []
        size = 0
        while len(batch) < BATCH and (chosen := room.next_for(link)) is not None:
            box, delivery = chosen
            size += len(delivery.envelope.data)
            if not self._fits(link, delivery) or (batch and size > BATCH_BYTES):
                break
            if room.may_begin(delivery):
                room.taken(box, delivery, link.address)
                batch.append(delivery)
        number = self._given(link, [delivery.envelope for delivery in batch]) if batch else 0
        for delivery in batch[:number]:
            room.endings.end(delivery, Outcome.DELIVERED, None)
        for delivery in reversed(batch[number:]):
            room.endings.put_back(delivery)
        return bool(batch) and number == len(batch)

    def _may(self, link: EndpointLink) -> bool:
        """Tell whether an endpoint has a slot, no guard, and nothing that would be overtaken."""
        return (
            link.takes_now
            and link.guard is None
            and not (link.in_flight or link.promised)
            and link.free > 0
            and not link.closed
        )

    def _fits(self, link: EndpointLink, delivery: Delivery) -> bool:
        """Tell whether a delivery needs neither a lease nor a transform nor a conversion."""
        if delivery.leased or delivery.transform or delivery.state is DeliveryState.DONE:
            return False
        accepts = link.endpoint.accepts
        return not accepts or self._conversions.chain(delivery.envelope.type, accepts) == ()

    def _given(self, link: EndpointLink, envelopes: Sequence[Envelope]) -> int:
        """Return how many of them the endpoint took; none when it failed."""
        try:
            number = link.endpoint.deliver_now(envelopes)
        except Exception:
            self._room.metrics.plugin_errors[link.endpoint.adapter, "deliver_now"].inc()
            log.exception("delivery.failed", endpoint=link.address)
            return 0
        return min(max(number, 0), len(envelopes))

    def _end(self, link: EndpointLink, delivery: Delivery, now_us: int) -> None:
        """Note that a delivery which was in no mailbox is delivered: no slot, no lane to free."""
        room = self._room
        delivery.state = DeliveryState.DONE
        delivery.outcome = Outcome.DELIVERED
        delivery.siblings = ()
        delivery.attempts = 1
        delivery.endpoint = delivery.mailbox
        delivery.updated_us = link.idle_since_us = now_us
        if delivery.durable:
            room.boxes.hold(delivery)  # until its row says so, the store would give it again
            room.engine.note(Change(delivery=delivery), lambda _: room.boxes.written(delivery))
