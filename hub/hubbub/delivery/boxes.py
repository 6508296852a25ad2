"""All mailboxes: made when first needed, refilled from the store, forgotten when idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog

from hubbub.delivery.mailbox import MAX_BUSY_LANES, Mailbox
from hubbub.directory import Directory
from hubbub.errors import StoreUnavailableError
from hubbub.memory import MemoryBudget, Shed
from hubbub.ports import Clock, Engine
from hubbub.subjects import matches
from hubbub.values import Delivery, DeliveryState, Overflow

__all__ = ["Boxes"]

AGAIN_US: Final = 1_000_000
"""After a read that failed, a mailbox is read again so much later."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Boxes:
    """The mailboxes of one hub, by name.

    Attributes:
        here: Durable deliveries that memory has, waiting or in flight, or whose end is not
            written yet; by id.
    """

    def __init__(  # noqa: PLR0913  # the rooms below it, and what is told
        self,
        *,
        engine: Engine,
        clock: Clock,
        directory: Directory,
        limit: int,
        overflow: Overflow,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        made: Callable[[Mailbox], None],
        filled: Callable[[Mailbox], None],
        memory: MemoryBudget,
        crowded: Callable[[Mailbox], None],
    ) -> None:
        """Begin without any.

        Args:
            crowded: Called to make room in one that holds much that only memory has.
        """
        self._engine = engine
        self._clock = clock
        self._directory = directory
        self._limit = limit
        self._overflow: Overflow = overflow
        self._spawn = spawn
        self._made = made
        self._filled = filled
        self._memory = memory
        self._crowded = crowded
        self._boxes: dict[str, Mailbox] = {}
        self.here: Final[dict[int, Delivery]] = {}
        self._reads: dict[str, list[asyncio.Future[None]]] = {}
        self._reading = 0
        self._left: list[int] = []

    def __iter__(self) -> Iterator[Mailbox]:
        return iter(list(self._boxes.values()))

    def get(self, name: str) -> Mailbox:
        """Return a mailbox, made when it is new."""
        box = self._boxes.get(name)
        if box is None:
            limit, overflow = self._bound_of(name)
            box = self._boxes[name] = Mailbox(
                name, limit=limit, overflow=overflow, memory=self._memory, shed=self._shed
            )
            known = self._directory.get(name)
            box.line.fresh_first = known is not None and known.endpoint.fresh_first
            self._made(box)
        return box

    def waiting(self, pattern: str) -> list[str]:
        """Return the addresses a pattern covers in whose own mailboxes something waits."""
        return [
            name
            for name, box in self._boxes.items()
            if box.depth and box.requirement is None and matches(pattern, name)
        ]

    def _bound_of(self, name: str) -> tuple[int, Overflow]:
        """Return how much a mailbox holds, and what it does with more."""
        known = self._directory.get(name)
        if known is None:
            return self._limit, self._overflow
        endpoint = known.endpoint
        return endpoint.mailbox_limit or self._limit, endpoint.overflow or self._overflow

    def bound(self, limit: int, overflow: Overflow) -> None:
        """Hold to another bound, wherever an endpoint has none of its own."""
        if (limit, overflow) == (self._limit, self._overflow):
            return
        self._limit, self._overflow = limit, overflow
        for box in self:
            box.bound(*self._bound_of(box.name))

    def find(self, name: str) -> Mailbox | None:
        """Return a mailbox if it is there."""
        return self._boxes.get(name)

    def admit(self, delivery: Delivery, *, now_us: int) -> Mailbox:
        """Put a delivery whose space was reserved into its mailbox."""
        box = self.get(delivery.mailbox)
        here, moved = box.admit(delivery, now_us=now_us)
        if delivery.durable and here:
            self.hold(delivery)
        for one in moved:
            self.let_go(one)
        return box

    def _shed(self, box: Mailbox, order: Shed) -> None:
        """The hub holds too much: let a mailbox hold less."""
        if order is Shed.VOLATILE:
            self._crowded(box)
            return
        if not box.refilling:  # else the later of a key could come in, and the earlier go
            for delivery in box.drop_window():
                self.let_go(delivery)

    def hold(self, delivery: Delivery) -> None:
        """Note that memory has a durable delivery: the store gives it to nobody."""
        self._engine.hold(delivery)
        self.here[delivery.id] = delivery

    def let_go(self, delivery: Delivery) -> None:
        """Leave a delivery to the store, which gives it again, or where it never was."""
        # As at its end: siblings hold each other, which only the garbage collector would undo.
        delivery.siblings = ()
        self._engine.let_go(delivery)
        self.here.pop(delivery.id, None)

    @contextmanager
    def reading(self) -> Generator[Mapping[int, Delivery]]:
        """Read deliveries from the store; gives `here`, where what ends meanwhile stays.

        Whoever acts on a delivery it read takes the one of `here` instead, if there is one: the
        store does not know yet what is in flight, or has ended, in memory.
        """
        self._reading += 1
        try:
            yield self.here
        finally:
            self._reading -= 1
            if not self._reading:
                left, self._left = self._left, []
                for delivery_id in left:
                    self.here.pop(delivery_id, None)

    def written(self, delivery: Delivery) -> None:
        """The end of a delivery is in the store."""
        if self._reading:
            self._left.append(delivery.id)
        else:
            self.here.pop(delivery.id, None)

    def _know(self, found: Sequence[Delivery]) -> None:
        """Note that memory has what the store gave."""
        for delivery in found:
            self.here[delivery.id] = delivery
            self._relate(delivery)

    def _relate(self, delivery: Delivery) -> None:
        """Let a delivery from the store and its siblings in memory know each other."""
        siblings = delivery.siblings = tuple(self.here.get(o.id, o) for o in delivery.siblings)
        here = [one for one in siblings if one.id in self.here]
        for one in here:
            if one.state is not DeliveryState.DONE:
                one.siblings = siblings
        known = next((one for one in here if one is not delivery), None)
        if known is not None:  # or memory would have its payload again
            for one in siblings:
                if one is delivery or one.id not in self.here:
                    one.envelope = known.envelope

    def refill(self, box: Mailbox) -> None:
        """Read more of a mailbox from the store, if memory runs low."""
        if box.wants_refill:
            box.refilling = True
            self._spawn(self._refill(box))

    async def read_more(self, box: Mailbox) -> bool:
        """Read more of a mailbox and wait for it; False when there is nothing to read."""
        if box.refilling:  # somebody reads already, for everybody
            await self._read_of(box)
            return True
        if not box.wants_refill:
            return False
        box.refilling = True
        await self._refill(box)
        return True

    async def fetch(self, box: Mailbox, task_types: frozenset[str], *, limit: int) -> bool:
        """Read tasks of some types out of turn, those of lowest rank.

        Returns:
            Whether another look is of use: more may be there now than this one saw.

        Raises:
            StoreUnavailableError: the store cannot be read.
        """
        if box.refilling:
            await self._read_of(box)
            return True
        # Two reads at once could take in the later of a key, and give the earlier one back.
        box.refilling = True
        box.stirred = False
        now_us = self._clock.now_us()
        try:
            with self.reading():
                taken = await self._engine.take(
                    box.name,
                    limit=limit,
                    now_us=now_us,
                    skip_keys=box.line.busy_lanes(),
                    task_types=task_types,
                    room_bytes=box.room_bytes,
                )
                found = taken.deliveries
                self._know(found)
                box.fetched(found, now_us=now_us)
        finally:
            self._was_read(box)
        stirred = box.stirred
        self.refill(box)  # that waited for this
        return stirred

    async def _read_of(self, box: Mailbox) -> None:
        """Wait until the store has been read, by somebody else, for this mailbox."""
        read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reads.setdefault(box.name, []).append(read)
        await read

    def _was_read(self, box: Mailbox) -> None:
        box.refilling = False
        for read in self._reads.pop(box.name, ()):
            if not read.done():
                read.set_result(None)

    def forget_idle(self, *, needed: Callable[[str], bool]) -> set[str]:
        """Forget mailboxes in which nothing is and which nobody needs; returns their names."""
        forgotten = {
            name
            for name, box in self._boxes.items()
            if box.idle and not box.refilling and not needed(name)
        }
        for name in forgotten:
            del self._boxes[name]
        return forgotten

    async def _refill(self, box: Mailbox) -> None:
        blocked = box.blocked
        limit = box.places
        doubts = box.line.doubts(but=blocked)
        now_us = self._clock.now_us()
        box.stirred = False
        try:
            if limit <= 0:
                return  # it has filled meanwhile; it is read again when it runs low
            if len(blocked) > MAX_BUSY_LANES:
                box.dry = True
                return
            with self.reading():
                taken = await self._engine.take(
                    box.name,
                    limit=limit,
                    now_us=now_us,
                    skip_keys=blocked,
                    room_bytes=box.room_bytes,
                )
                found, all_due = taken.deliveries, not taken.more
                self._know(found)
                box.refilled(found, now_us=now_us, all_due=all_due)
                box.line.sure(doubts, up_to=None if all_due else found[-1])
                for delivery in box.make_room():
                    self.let_go(delivery)
        except StoreUnavailableError as error:
            log.warning("mailbox.refill_failed", mailbox=box.name, error=str(error))
            box.dry = True
            self._spawn(self._refill_later(box))
        finally:
            self._was_read(box)
        self._filled(box)

    async def _refill_later(self, box: Mailbox) -> None:
        """The store could not be read: nothing else would make this mailbox try again."""
        passed = asyncio.Event()
        timer = self._clock.call_at(self._clock.now_us() + AGAIN_US, passed.set)
        try:
            await passed.wait()
        finally:
            timer.cancel()
        box.stir()
        self.refill(box)
