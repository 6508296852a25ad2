"""The engine of one process: the SQL store keeps what waits, callbacks do the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from hubbub.ports import Change, EngineLimits, Kept, Record, Taken
from hubbub.store.database import Database
from hubbub.store.journal import Journal
from hubbub.store.reads import deliveries as reads
from hubbub.values import Delivery, Presence

__all__ = ["LocalEngine"]


class LocalEngine:
    """Keeps deliveries in the store of this process."""

    limits = EngineLimits()

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._held: dict[str, set[int]] = {}
        self._box_of: dict[int, str] = {}
        self._taking = 0
        self._released: list[int] = []

    def keep(
        self, record: Record, then: Callable[[Kept | None], None] | None = None
    ) -> Awaitable[Kept]:
        """Keep a record whole or not at all; safe on return.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        return self._journal.keep(record, then)

    async def take(
        self,
        box: str,
        *,
        limit: int,
        now_us: int,
        skip_keys: frozenset[str] = frozenset(),
        task_types: frozenset[str] | None = None,
        room_bytes: int | None = None,
    ) -> Taken:
        """Return waiting deliveries that are due, lowest rank first, and hold them."""
        self._taking += 1
        try:
            while True:
                query = (
                    reads.waiting
                    if task_types is None
                    else partial(reads.waiting_of, task_types=task_types)
                )
                had = frozenset(self._held.get(box, ()))
                found, more = await self._database.read(
                    partial(
                        query,
                        mailbox=box,
                        limit=limit,
                        now_us=now_us,
                        skip_keys=skip_keys,
                        room_bytes=room_bytes,
                        held=had,
                    )
                )
                # What was held at any time since the query began may be done by now: what is
                # let go meanwhile stays held until here.
                held = self._held.get(box, ())
                fresh = [delivery for delivery in found if delivery.id not in held]
                if len(fresh) == len(found) or not more:
                    break
                # Some of what it found was held meanwhile, and there are others in their place.
            for delivery in fresh:
                self.hold(delivery)
            return Taken(fresh, more)
        finally:
            self._taking -= 1
            if not self._taking:
                released, self._released = self._released, []
                self._release(released)

    def hold(self, delivery: Delivery) -> None:
        """This hub has it in memory: `take` gives it to nobody until it is settled or let go."""
        self._held.setdefault(delivery.mailbox, set()).add(delivery.id)
        self._box_of[delivery.id] = delivery.mailbox

    def holds(self, delivery_id: int) -> bool:
        """Tell whether this hub has a delivery in memory, or its end on the way to the store."""
        return delivery_id in self._box_of

    def let_go(self, delivery: Delivery) -> None:
        """This hub has it no longer in memory; it waits in the store."""
        self.settled((delivery.id,))

    def settled(self, ids: Sequence[int]) -> None:
        """The journal has committed changes of these deliveries."""
        if self._taking:
            self._released += ids
        else:
            self._release(ids)

    async def settle(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Write changes; True for each one that counted.

        Raises:
            StoreUnavailableError: the database cannot be written.
        """
        return await self._journal.settle(changes)

    def note(self, change: Change, then: Callable[[bool], None] | None = None) -> None:
        """Write a change that nobody waits for, with a next commit; kept until that succeeds."""
        self._journal.note(change, then)

    async def flush(self) -> None:
        """Return when all that was handed over before is written.

        Raises:
            StoreUnavailableError: some of it is not.
        """
        await self._journal.flush()

    def on_waiting(self, woken: Callable[[str], None]) -> None:
        """Nothing to do: there is no other hub that could keep something."""

    async def announce(self, presence: Presence) -> None:
        """Nothing to do: there is no other hub to tell."""

    async def directory(self) -> AsyncIterator[Presence]:
        """Yield nothing: there is no other hub."""
        nobody: tuple[Presence, ...] = ()
        for presence in nobody:
            yield presence

    async def pass_on(self, hub: str, frame: bytes) -> bool:
        """Return False: there is no other hub."""
        del hub, frame
        return False

    async def start(self) -> None:
        """Begin to write."""
        self._journal.start()

    async def stop(self) -> None:
        """Write what is left and end."""
        await self._journal.stop()

    def _release(self, ids: Sequence[int]) -> None:
        for delivery_id in ids:
            box = self._box_of.get(delivery_id)
            if box is None:
                continue
            del self._box_of[delivery_id]
            held = self._held[box]
            held.discard(delivery_id)
            if not held:
                del self._held[box]
