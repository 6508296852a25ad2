"""One mailbox: what of it is in memory, what is still in the store, and its bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from hubbub.delivery.links import EndpointLink
from hubbub.lanes import Line
from hubbub.memory import MemoryAccount, MemoryBudget, Shed
from hubbub.values import Delivery, Overflow, Requirement

__all__ = ["WINDOW", "Mailbox", "is_pool", "pool_name", "requirement_of"]

WINDOW: Final = 256
"""Durable deliveries of one mailbox kept in memory; refilled from the store at half.

Half of it, at most, counts for those that wait behind busy keys: what is more of them makes room.
"""

WINDOW_BYTES: Final = 8 * 1024 * 1024
"""Payload of those; what is over it stays in the store, but for one."""

VOLATILE_BYTES: Final = 32 * 1024 * 1024
"""Payload of volatile deliveries that wait in one mailbox; over it the mailbox is full."""

SOON_US: Final = 5_000_000
"""What is due later than this waits in the store, not in memory."""

MAX_BUSY_LANES: Final = 64
"""Blocked keys left out of a refill; with more, the mailbox waits for one to be free."""

_POOL: Final = "pool:"


def pool_name(requirement: Requirement) -> str:
    """Return the name of a pool: its requirement, so that a restart finds it again.

    Whether its members must declare the task type stands in the name only where it is not what
    the patterns say: a task for `>` is for those that do, as names always were.
    """
    parts: tuple[object, ...] = (
        requirement.patterns,
        requirement.labels,
        requirement.type,
        requirement.task_type,
    )
    if requirement.declared != _is_for_anybody(requirement.patterns, requirement.task_type):
        parts = (*parts, requirement.declared)
    return _POOL + msgspec.json.encode(parts).decode()


def is_pool(mailbox: str) -> bool:
    """Tell whether a mailbox is a pool's, and not an endpoint's own."""
    return mailbox.startswith(_POOL)


def requirement_of(mailbox: str) -> Requirement | None:
    """Return what a pool requires; None when the mailbox is an endpoint's own."""
    if not is_pool(mailbox):
        return None
    name = _read_name(mailbox[len(_POOL) :])
    declared = name.declared
    if declared is None:
        declared = _is_for_anybody(name.patterns, name.task_type)
    return Requirement(name.patterns, name.labels, name.type, name.task_type, declared)


class _Name(msgspec.Struct, array_like=True, frozen=True):
    """The parts of a pool's name; `declared` is None where the patterns say it."""

    patterns: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    type: str
    task_type: str | None
    declared: bool | None = None


_read_name: Final = msgspec.json.Decoder(_Name).decode


def _is_for_anybody(patterns: tuple[str, ...], task_type: str | None) -> bool:
    return task_type is not None and patterns == (">",)


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
        "_arrivals", "_memory", "_space", "behind", "depth", "dry", "horizon", "limit", "line",
        "members", "name", "overflow", "pumping", "refilling", "requirement", "stirred",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        limit: int,
        overflow: Overflow,
        memory: MemoryBudget | None = None,
        shed: Callable[[Mailbox, Shed], None] | None = None,
    ) -> None:
        """Begin empty.

        Args:
            shed: Makes it smaller when the hub holds too much: of what is volatile, or durable.
        """
        self._memory = memory = memory or MemoryBudget()

        def account(kind: str, limit_bytes: int, order: Shed) -> MemoryAccount:
            how = None if shed is None else partial(shed, self, order)
            return memory.account(kind, limit_bytes=limit_bytes, shed=how, order=order)

        self.name: Final = name
        self.requirement: Final = requirement_of(name)
        self.limit = limit
        self.overflow: Overflow = overflow
        self.line: Final = Line(
            account("mailbox", VOLATILE_BYTES, Shed.VOLATILE),
            account("window", WINDOW_BYTES, Shed.DURABLE),
        )
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

    def is_full_for(self, delivery: Delivery) -> bool:
        """Whether this one would be over its bounds; what is durable takes no memory for good."""
        if self.depth >= self.limit:
            return True
        return not delivery.durable and not self.line.room_for(delivery)

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
            and (
                not (self._heavy or self._memory.tight)
                or self.line.stored <= self.line.behind_busy()
            )
        )

    @property
    def _heavy(self) -> bool:
        """Whether memory is more than half full by bytes; one more is read if none of it can go."""
        account = self.line.stored_bytes
        return account.held_bytes > account.limit_bytes // 2

    @property
    def room_bytes(self) -> int:
        """How much payload of what the store has may come into memory."""
        free = self._memory.limit_bytes - self._memory.used_bytes
        account = self.line.stored_bytes
        return max(0, min(free, account.limit_bytes - account.held_bytes))

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
        return self.line.blocked(0 if self._heavy else WINDOW // 2)

    def admit(self, delivery: Delivery, *, now_us: int) -> tuple[bool, Sequence[Delivery]]:
        """Take a delivery whose space was reserved into memory, or leave it in the store.

        Returns:
            Whether it is in memory now, and which ones had to make room for it.
        """
        moved: list[Delivery] = []
        if delivery.durable:
            if delivery.due_us > now_us + SOON_US:
                self.behind += 1
                return False, ()
            if self.behind > 0 and (delivery.lane is not None or delivery.rank >= self.horizon):
                self._leave(delivery)
                return False, ()
            while self.line.stored >= WINDOW or not self.line.room_for(delivery):
                last = max((d for d in self.line if _may_move(d)), key=_rank, default=None)
                if last is None or delivery.lane is not None or last.rank <= delivery.rank:
                    if not moved:
                        self.horizon = delivery.rank if last is None else last.rank
                    self._leave(delivery)
                    return False, moved
                self.line.drop(last)
                # It may stand behind others that only the store has: they decide where that begins.
                self.horizon = min(self.horizon, last.rank) if self.behind > 0 else last.rank
                self._leave(last)
                moved.append(last)
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

    def drop_window(self) -> Sequence[Delivery]:
        """Leave to the store what memory has of it; but for those that stand for their keys."""
        gone = self.line.let_go(self.line.stored, room=0)
        self.behind += len(gone)
        moved = [one for one in self.line if _may_move(one)]
        for one in moved:
            self.line.drop(one)
            self.horizon = min(self.horizon, one.rank) if self.behind > 0 else one.rank
            self._leave(one)
        return [*gone, *moved]

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
