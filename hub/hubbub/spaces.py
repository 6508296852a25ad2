"""Places in mailboxes: reserved when an envelope is planned, by the policy of one that is full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubbub.delivery import DeliveryRoom
from hubbub.delivery.mailbox import VOLATILE_BYTES, Mailbox
from hubbub.errors import MailboxFullError
from hubbub.values import Delivery, DeliveryState, Outcome

__all__ = ["Spaces"]


class Spaces:
    """Reserves places; `endings.release` gives them back."""

    def __init__(self, room: DeliveryRoom) -> None:
        self._room = room

    async def reserve(
        self, deliveries: Sequence[Delivery], *, alone: bool, credential: str = ""
    ) -> None:
        """Reserve a place for each delivery that is not done.

        Args:
            alone: The publisher waits for this envelope only, so that it can be told to wait, or
                be refused; where it has several deliveries each mailbox decides for its own.
            credential: What the publisher came with; it waits no longer than that holds.

        Raises:
            MailboxFullError: it is refused.
            CredentialEndedError: so is a publisher who is not trusted any more.
        """
        alone = alone and len(deliveries) == 1
        if alone and deliveries[0].state is not DeliveryState.DONE:
            box = self._room.boxes.get(deliveries[0].mailbox)
            if _lets_wait(box, deliveries[0]):
                async with self._room.credentials.within(credential):
                    while _lets_wait(box, deliveries[0]):
                        await box.wait_for_space()
        self.reserve_now(deliveries, alone=alone)

    def reserve_at_once(self, deliveries: Sequence[Delivery]) -> bool:
        """Reserve places for the deliveries of an envelope that came alone, all or none.

        Returns:
            False when its mailbox lets the publisher wait.

        Raises:
            MailboxFullError: it is refused.
        """
        alone = len(deliveries) == 1
        if alone and deliveries[0].state is not DeliveryState.DONE:
            box = self._room.boxes.get(deliveries[0].mailbox)
            if _lets_wait(box, deliveries[0]):
                return False
        self.reserve_now(deliveries, alone=alone)
        return True

    def reserve_now(self, deliveries: Iterable[Delivery], *, alone: bool = False) -> None:
        """Reserve a place for each delivery that is not done, without waiting."""
        for delivery in deliveries:
            if delivery.state is DeliveryState.DONE:
                continue
            box = self._room.boxes.get(delivery.mailbox)
            if not box.is_full_for(delivery) or self._make_room(box, delivery, alone=alone):
                box.depth += 1

    def _make_room(self, box: Mailbox, delivery: Delivery, *, alone: bool) -> bool:
        """Do what a full mailbox's policy says; False when it is the new delivery that goes."""
        if box.overflow == "drop_oldest":
            while oldest := self._oldest(box):
                by_number = box.full
                self._room.endings.end(oldest, Outcome.DROPPED, "mailbox_full")
                if by_number or box.line.room_for(delivery):
                    return True
        elif box.overflow != "drop_newest" and alone:
            in_bytes = VOLATILE_BYTES if not box.full else None
            raise MailboxFullError(mailbox=box.name, limit=box.limit, limit_bytes=in_bytes)
        lost = delivery.durable and box.overflow in ("refuse", "wait")
        delivery.state = DeliveryState.DONE
        delivery.outcome = Outcome.DEAD if lost else Outcome.DROPPED
        delivery.reason = "mailbox_full"
        return False

    def _oldest(self, box: Mailbox) -> Delivery | None:
        """Return what a full mailbox throws out: what is durable takes no bytes for good."""
        if box.full:
            return box.line.head(now_us=self._room.clock.now_us())
        return next(box.line.volatile(), None)


def _lets_wait(box: Mailbox, delivery: Delivery) -> bool:
    """Tell whether a publisher has to wait for a place in a mailbox."""
    return box.overflow == "wait" and box.is_full_for(delivery)
