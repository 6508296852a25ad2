"""What a hub finds when it starts: deliveries that waited, and those that were under way."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update
from sqlmodel import Session, col

from hubbub.delivery import DeliveryRoom
from hubbub.engines.local import LocalEngine
from hubbub.store.database import Database
from hubbub.store.journal import Journal
from hubbub.store.reads import deliveries as reads
from hubbub.store.tables import DeliveryRow
from hubbub.values import Delivery, DeliveryState

__all__ = ["recover", "take_up"]


async def recover(
    room: DeliveryRoom, database: Database, engine: LocalEngine, journal: Journal
) -> None:
    """Put mailboxes and leases back as they were; nothing is lost, a push may be repeated.

    A task that a worker pulled stays its own until the lease ends. One that was pushed is tried
    again at once and the attempt counts: whether the peer saw it cannot be known.
    """
    # A key's retry must stay before its followers: after a restart it does not wait for its time.
    not_later = (
        update(DeliveryRow)
        .where(
            col(DeliveryRow.state) != DeliveryState.DONE,
            col(DeliveryRow.due_us) > 0,
            col(DeliveryRow.lane).is_not(None),
            col(DeliveryRow.last_error).is_not(None),  # counted as an attempt or not
        )
        .values(due_us=0)
    )
    await journal.execute((not_later, []))
    for name, count in database.read_now(reads.counts).items():
        box = room.boxes.get(name)
        box.depth = box.behind = count
    for delivery in database.read_now(reads.in_flight):
        engine.hold(delivery)
        room.lifecycle.recovered(delivery)


async def take_up(
    ids: Sequence[int], *, room: DeliveryRoom, database: Database, engine: LocalEngine
) -> None:
    """Take up deliveries that are in the store though who asked for them was told otherwise.

    Raises:
        StoreUnavailableError: they cannot be read; they wait for the next start.
    """

    def find(session: Session) -> list[Delivery]:
        found = (reads.one(session, number) for number in ids)
        return [one for one in found if one is not None and one.state is not DeliveryState.DONE]

    for delivery in await database.read(find):
        if engine.holds(delivery.id):
            continue
        if delivery.state is DeliveryState.IN_FLIGHT:
            engine.hold(delivery)
            room.lifecycle.recovered(delivery)
            continue
        box = room.boxes.get(delivery.mailbox)
        box.unseen(delivery)
        room.pump(box)
