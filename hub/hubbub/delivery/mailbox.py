"""One mailbox: what of it is in memory, what is still in the store, and its bound."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from hubbub.delivery.links import EndpointLink
from hubbub.lanes import Line
from hubbub.values import Delivery, Overflow, Requirement

__all__ = ["WINDOW", "Mailbox", "is_pool", "pool_name", "requirement_of"]

WINDOW: Final = 256
"""Durable deliveries of one mailbox kept in memory; refilled from the store at half.

Half of it, at most, counts for those that wait behind busy keys: what is more of them makes room.
"""

SOON_US: Final = 5_000_000
"""What is due later than this waits in the store, not in memory."""

MAX_BUSY_LANES: Final = 64
"""Blocked keys left out of a refill; with more, the mailbox waits for one to be free."""

_POOL: Final = "pool:"


def pool_name(requirement: Requirement) -> str:
    """Return the name of a pool: its requirement, so that a restart finds it again."""
    parts = (
        requirement.patterns,
        requirement.labels,
        requirement.type,
        requirement.task_type,
    )
    return _POOL + msgspec.json.encode(parts).decode()


def is_pool(mailbox: str) -> bool:
    """Tell whether a mailbox is a pool's, and not an endpoint's own."""
    return mailbox.startswith(_POOL)


def requirement_of(mailbox: str) -> Requirement | None:
    """Return what a pool requires; None when the mailbox is an endpoint's own."""
    if not is_pool(mailbox):
        return None
    patterns, labels, envelope_type, task_type = msgspec.json.decode(
        mailbox[len(_POOL) :],
        type=tuple[tuple[str, ...], tuple[tuple[str, str], ...], str, str | None],
    )
    return Requirement(patterns, labels, envelope_type, task_type)


class Mailbox:
    """A named line of waiting deliveries, of one endpoint or of a pool of them.

    Attributes:
        requirement: What a pool asks of its members; None for an endpoint's own mailbox.
        depth: Deliveries that wait, in memory and in the store, and those space is reserved for.
        behind: Of these, how many are in the store only. One less for a moment, where a read gave
            what is written and not yet admitted.
        horizon: Highest rank in memory when some are behind; what ranks above stays there.
        dry: What is behind is not due yet, or its lanes are busy.
        pumping: It is being handed out; what ends meanwhile need not begin that anew.
        refilling: A read of the store is under way.
        stirred: Since it began, something came to be that it may not have seen.
        members: Links of a pool that may have a free slot, those that had one longest first.
    """

    __slots__ = (
        "_arrivals", "_space", "behind", "depth", "dry", "horizon", "limit", "line", "members",
        "name", "overflow", "pumping", "refilling", "requirement", "stirred",
    )  # fmt: skip

    def __init__(self, name: str, *, limit: int, overflow: Overflow) -> None:
        self.name: Final = name
        self.requirement: Final = requirement_of(name)
        self.limit = limit
        self.overflow: Overflow = overflow
        self.line: Final = Line()
        self.depth = 0
        self.behind = 0
        self.dry = False
        self.horizon = 0
        self.pumping = False
        self.refilling = False
        self.stirred = False
        self.members: Final[dict[EndpointLink, None]] = {}
        self._arrivals: list[asyncio.Future[None]] = []
        self._space: list[asyncio.Future[None]] = []

    @property
    def full(self) -> bool:
        """Whether one more would be over its bound."""
        return self.depth >= self.limit

    @property
    def empty(self) -> bool:
        """Whether nothing waits in it, in memory or in the store; places may be reserved."""
        return self.behind <= 0 and not len(self.line)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for space."""
        return bool(self._space)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nobody waits for it, and no key has something under way."""
        return not (
            self.depth or len(self.line) or self._arrivals or self._space or self.line.busy_lanes()
        )

    @property
    def wants_refill(self) -> bool:
        """Whether memory has run half empty while the store has more."""
        return (
            self.behind > 0
            and not self.dry
            and not self.refilling
            and self.places >= WINDOW - WINDOW // 2
        )

    @property
    def places(self) -> int:
        """How many more of what the store has may come into memory."""
        stored = self.line.stored
        if stored <= WINDOW // 2:
            return WINDOW - stored
        return WINDOW - stored + self.line.surplus(WINDOW // 2)

    @property
    def blocked(self) -> frozenset[str]:
        """Busy keys of which memory has enough: they are left out of a refill."""
        return self.line.blocked(WINDOW // 2)

    def admit(self, delivery: Delivery, *, now_us: int) -> tuple[bool, Delivery | None]:
        """Take a delivery whose space was reserved into memory, or leave it in the store.

        Returns:
            Whether it is in memory now, and which one had to make room for it.
        """
        moved: Delivery | None = None
        if delivery.durable:
            if delivery.due_us > now_us + SOON_US:
                self.behind += 1
                return False, None
            if self.behind > 0 and (delivery.lane is not None or delivery.rank >= self.horizon):
                self._leave(delivery)
                return False, None
            if self.line.stored >= WINDOW:
                moved = max((d for d in self.line if _may_move(d)), key=_rank, default=None)
                if moved is None or delivery.lane is not None or moved.rank <= delivery.rank:
                    self.horizon = delivery.rank if moved is None else moved.rank
                    self._leave(delivery)
                    return False, None
                self.line.drop(moved)
                # It may stand behind others that only the store has: they decide where that begins.
                self.horizon = min(self.horizon, moved.rank) if self.behind > 0 else moved.rank
                self._leave(moved)
        in_doubt = delivery.lane is not None and not delivery.durable and self.behind > 0
        self.line.add(delivery, now_us=now_us, in_doubt=in_doubt)
        if in_doubt:
            self.stir()
        return True, moved

    def refilled(self, deliveries: Sequence[Delivery], *, now_us: int, all_due: bool) -> None:
        """Take in what the store gave.

        Args:
            all_due: It gave everything that is due, so that asking again is of no use before
                something else is.
        """
        for delivery in deliveries:
            self.line.add(delivery, now_us=now_us)
            self.horizon = max(self.horizon, delivery.rank)
        self.not_behind(len(deliveries))
        self.dry = all_due and not self.stirred

    def fetched(self, deliveries: Sequence[Delivery], *, now_us: int) -> None:
        """Take in what the store gave out of turn; others of lower rank may be there still."""
        for delivery in deliveries:
            self.line.add(delivery, now_us=now_us)
        self.not_behind(len(deliveries))

    def not_behind(self, number: int) -> None:
        """So many of those in the store only are so no longer."""
        self.behind -= number
        if self.behind <= 0:
            self.line.sure(self.line.doubts())

    def make_room(self) -> Sequence[Delivery]:
        """Leave to the store what waits behind busy keys, where memory has more than it should."""
        number = self.line.stored - WINDOW
        if number <= 0:
            return ()
        gone = self.line.let_go(number, room=WINDOW // 2)
        self.behind += len(gone)
        return gone

    def stir(self) -> None:
        """What is behind may be handed over now: it is new, due, or its lane is free."""
        self.dry = False
        self.stirred = True

    def free(self, delivery: Delivery) -> None:
        """A delivery is done: the next of its key may go, or be read, if only the store has it."""
        self.line.free(delivery)
        if delivery.lane is not None and not self.line.has_next(delivery.lane):
            self.stir()

    def unseen(self, delivery: Delivery) -> None:
        """Only the store has it, and nobody knew that."""
        self.depth += 1
        self.horizon = min(self.horizon, delivery.rank) if self.behind > 0 else delivery.rank
        self._leave(delivery)
        self.stir()

    def _leave(self, delivery: Delivery) -> None:
        self.behind += 1
        self.line.doubt(delivery)
        if delivery.lane is None or not self.line.has_next(delivery.lane):
            self.stir()

    def arrived(self) -> None:
        """Wake those who wait for something to take."""
        waiting, self._arrivals = self._arrivals, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def wait_for_arrival(self, future: asyncio.Future[None]) -> None:
        """Resolve the future when something arrives."""
        self._arrivals.append(future)

    def stop_waiting(self, future: asyncio.Future[None]) -> None:
        """The waiter has gone."""
        if future in self._arrivals:
            self._arrivals.remove(future)

    async def wait_for_space(self) -> None:
        """Return when something has left; another may have taken that place by then."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._space.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in self._space:
                self._space.remove(future)
            else:  # it was told of a place that it does not take: that is for the next
                self._tell_of_space()
            raise

    def bound(self, limit: int, overflow: Overflow) -> None:
        """Hold to another bound from here on; what is over it stays, and those who wait look."""
        self.limit, self.overflow = limit, overflow
        waiting, self._space = self._space, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def left(self) -> None:
        """One delivery waits no more."""
        self.depth -= 1
        self._tell_of_space()

    def _tell_of_space(self) -> None:
        """Wake one who waits for a place, if there is one."""
        while self._space and not self.full:
            future = self._space.pop(0)
            if not future.done():  # one that was cancelled needs no space
                future.set_result(None)
                return


def _may_move(delivery: Delivery) -> bool:
    return delivery.durable and delivery.lane is None and delivery.attempts == 0


def _rank(delivery: Delivery) -> int:
    return delivery.rank
