"""Memory as one budget: what waits in queues, by queue and for the whole hub.

Pure: no clock, no I/O. Only payloads are counted, in the bytes that they came in. A payload that
several queues hold counts once for the hub, by its identity, and once for each of the queues. A
queue whose limit is smaller than a payload takes it all the same while nothing else is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Final

from hubbub.errors import MemoryFullError

__all__ = ["DEFAULT_BYTES", "MemoryAccount", "MemoryBudget", "Shed"]

DEFAULT_BYTES: Final = 512 * 1024 * 1024
"""`hub.memory`, where half of what the container may use is not less."""

RELIEF: Final = 8
"""Over its limit the hub sheds until one part in so many is free, so as not to begin anew with
every message."""


class Shed(IntEnum):
    """Who gives way first when the hub is over its limit, lowest first."""

    REMEMBERED = 0
    """What is kept only to be quick, or kind; nobody waits for it."""

    VOLATILE = 1
    """Readers that may miss something: they are told so, or closed."""

    DURABLE = 2
    """What the store has as well, and gives again."""


class MemoryAccount:
    """What one queue holds. Its owner says what comes and goes; it asks first, where it may refuse.

    Attributes:
        kind: What the queue is, for metrics.
        limit_bytes: Its own limit.
        held_bytes: What it holds.
    """

    __slots__ = ("_budget", "_shed", "held_bytes", "kind", "limit_bytes", "order")

    def __init__(
        self,
        budget: MemoryBudget,
        kind: str,
        *,
        limit_bytes: int,
        shed: Callable[[], None] | None,
        order: Shed,
    ) -> None:
        self.kind: Final = kind
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.order: Final = order
        self._budget = budget
        self._shed = shed

    def room_for(self, size_bytes: int) -> bool:
        """Tell whether so much more is within its own limit; an empty one takes anything."""
        return not self.held_bytes or self.held_bytes + size_bytes <= self.limit_bytes

    def add(self, payload: bytes) -> None:
        """Note that it holds a payload, which other queues may hold as well."""
        size = len(payload)
        if not size:
            return
        budget = self._budget
        holders = budget.holders
        key = id(payload)
        number = holders.get(key, 0)
        holders[key] = number + 1
        self._grow(size, size if not number else 0)

    def release(self, payload: bytes) -> None:
        """Note that it holds a payload no more, which was added once for this; keep it until then.

        It is known by its identity, which another object could have after it.
        """
        size = len(payload)
        if not size:
            return
        holders = self._budget.holders
        key = id(payload)
        number = holders[key] - 1
        if number:
            holders[key] = number
            self._shrink(size, 0)
        else:
            del holders[key]
            self._shrink(size, size)

    def add_bytes(self, size_bytes: int) -> None:
        """Note that it holds so much more that no other queue has."""
        self._grow(size_bytes, size_bytes)

    def release_bytes(self, size_bytes: int) -> None:
        """Note that it holds so much less of what no other queue has."""
        self._shrink(size_bytes, size_bytes)

    @property
    def can_shed(self) -> bool:
        """Whether its owner can give something up."""
        return self._shed is not None

    def shed(self) -> None:
        """Have its owner give up what it can."""
        if self._shed is not None:
            self._shed()

    def _grow(self, size: int, new: int) -> None:
        budget = self._budget
        if not self.held_bytes and size:
            budget.holding[self] = None
        self.held_bytes += size
        if new:
            budget.grow(new)

    def _shrink(self, size: int, gone: int) -> None:
        budget = self._budget
        self.held_bytes -= size
        budget.used_bytes -= gone
        if self.held_bytes <= 0:
            budget.holding.pop(self, None)


class MemoryBudget:
    """What all queues of one hub hold together, and its limit.

    Attributes:
        limit_bytes: `hub.memory`.
        used_bytes: What all hold, each payload once.
        holders: How many times each payload is held, by its identity.
        holding: The accounts in which something is.
    """

    def __init__(
        self,
        limit_bytes: int = DEFAULT_BYTES,
        *,
        pressed: Callable[[], None] = lambda: None,
        gave_way: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin empty.

        Args:
            pressed: Called when something takes the hub over its limit: to call `relieve` soon,
                as who adds may be in the middle of what it does.
            gave_way: Called with the kind of each queue that had to.
        """
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.holders: Final[dict[int, int]] = {}
        self.holding: Final[dict[MemoryAccount, None]] = {}
        self._pressed = pressed
        self._gave_way = gave_way
        self._told = False

    def account(
        self,
        kind: str,
        *,
        limit_bytes: int,
        shed: Callable[[], None] | None = None,
        order: Shed = Shed.VOLATILE,
    ) -> MemoryAccount:
        """Open an account for one queue.

        Args:
            limit_bytes: What the queue alone may hold.
            shed: Makes it hold less, when the hub is over its limit; None where it cannot.
            order: Who gives way before it.
        """
        return MemoryAccount(self, kind, limit_bytes=limit_bytes, shed=shed, order=order)

    @property
    def over(self) -> bool:
        """Whether more is held than may be."""
        return self.used_bytes > self.limit_bytes

    @property
    def tight(self) -> bool:
        """Whether nothing should be taken into memory that can wait elsewhere."""
        return self.used_bytes > self.limit_bytes - self.limit_bytes // RELIEF

    def room_for(self, size_bytes: int) -> bool:
        """Tell whether so much more is within the limit; an empty hub takes anything."""
        return not self.used_bytes or self.used_bytes + size_bytes <= self.limit_bytes

    def admit(self, size_bytes: int) -> None:
        """Make room for what is about to come in from outside. Nothing is reserved by that.

        Raises:
            MemoryFullError: there is no room, and nobody left to give way.
        """
        if self.room_for(size_bytes):
            return
        self.relieve(size_bytes)
        if not self.room_for(size_bytes):
            raise MemoryFullError(limit_bytes=self.limit_bytes)

    def relieve(self, size_bytes: int = 0) -> None:
        """Have queues give way until there is room again: by their order, the fullest first."""
        self._told = False
        if self.room_for(size_bytes) and not self.over:
            return
        goal = max(0, self.limit_bytes - max(self.limit_bytes // RELIEF, size_bytes))
        queues = [each for each in self.holding if each.can_shed]
        queues.sort(key=lambda each: (each.order, -each.held_bytes))
        for queue in queues:
            if self.used_bytes <= goal:
                break
            if queue.held_bytes > 0:
                self._gave_way(queue.kind)
                queue.shed()

    def grow(self, size_bytes: int) -> None:
        """Count more; for accounts."""
        self.used_bytes += size_bytes
        if self.used_bytes > self.limit_bytes and not self._told:
            self._told = True
            self._pressed()

    def by_kind(self) -> Mapping[str, int]:
        """Return what the queues of each kind hold; what several hold counts in each."""
        held: Counter[str] = Counter()
        for account in self.holding:
            held[account.kind] += account.held_bytes
        return held
