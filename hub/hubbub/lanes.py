"""Order inside a mailbox: rank, lanes (one in flight per key), and what is not yet due.

Pure: no clock, no I/O. A `Line` holds only what is in memory of a mailbox; which part of the
store that is, the mailbox knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from hubbub.values import Delivery

__all__ = ["Line", "rank_of"]

STEP_US: Final = 60_000_000
"""One priority step is worth a minute of waiting, so that nothing starves."""

KEYED_PRIORITY: Final = 5
"""Priority gives way to order where there is a key."""


_Entry = tuple[int, int, int, Delivery]


def _at(time_us: int, delivery: Delivery) -> _Entry:
    """Return an entry of a heap; one read again from the store is another, and never compared."""
    return (time_us, delivery.id, id(delivery), delivery)


def rank_of(*, created_us: int, not_before_us: int, priority: int, keyed: bool) -> int:
    """Return the place in the mailbox, lower first; never changes."""
    step = KEYED_PRIORITY if keyed else priority
    return max(created_us, not_before_us) - STEP_US * step


class _Lane:
    """All of one key: at most one is busy (in flight or waiting for its retry)."""

    __slots__ = ("busy", "queue")

    def __init__(self) -> None:
        self.busy: Delivery | None = None
        self.queue: list[_Entry] = []


class Line:
    """Waiting deliveries in the order in which they may be handed over.

    Attributes:
        plain: How many of them are no tasks.
    """

    __slots__ = ("_here", "_lanes", "_later", "_ready", "plain")

    def __init__(self) -> None:
        # Heaps with lazy removal: an entry counts only while `_here` holds its delivery.
        self._ready: list[_Entry] = []
        self._later: list[_Entry] = []
        self._lanes: dict[str, _Lane] = {}
        self._here: dict[int, Delivery] = {}
        self.plain = 0

    def __len__(self) -> int:
        return len(self._here)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery.id in self._here

    def get(self, delivery_id: int) -> Delivery | None:
        """Return a delivery that stands in the line."""
        return self._here.get(delivery_id)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(list(self._here.values()))

    @property
    def next_due_us(self) -> int | None:
        """When the first of those that are not yet due will be; None when there is none."""
        later = self._later
        while later and not self._holds(later[0][3]):
            heappop(later)
        return later[0][0] if later else None

    def busy_lanes(self) -> frozenset[str]:
        """Return the keys whose next must wait for one that is not done."""
        return frozenset(key for key, lane in self._lanes.items() if lane.busy is not None)

    def add(self, delivery: Delivery, *, now_us: int) -> None:
        """Put a delivery into the line."""
        self._here[delivery.id] = delivery
        self.plain += not delivery.leased
        if delivery.due_us > now_us:
            heappush(self._later, _at(delivery.due_us, delivery))
        else:
            self._line_up(delivery)

    def head(self, *, now_us: int) -> Delivery | None:
        """Return the delivery that is next, without taking it."""
        if self._later and self._later[0][0] <= now_us:
            self._wake(now_us)
        ready = self._ready
        while ready:
            delivery = ready[0][3]
            if self._may_go(delivery, now_us):
                return delivery
            heappop(ready)
        return None

    def find(self, wanted: Callable[[Delivery], bool], *, now_us: int) -> Delivery | None:
        """Return the first that may go now and is wanted; looks at everything in memory."""
        first = self.head(now_us=now_us)
        if first is None or wanted(first):
            return first
        for _, _, _, delivery in sorted(self._ready):
            if self._may_go(delivery, now_us) and wanted(delivery):
                return delivery
        return None

    def leads(self, delivery: Delivery) -> bool:
        """Tell whether a delivery is here, and no other of its lane before it."""
        return self._holds(delivery) and self._leads(delivery)

    def take(self, delivery: Delivery) -> None:
        """Take a delivery out to be handed over; its lane is busy until `free`."""
        del self._here[delivery.id]
        self.plain -= not delivery.leased
        if self._ready and self._ready[0][3] is delivery:
            heappop(self._ready)
        if delivery.lane is not None:
            lane = self._lanes.setdefault(delivery.lane, _Lane())
            lane.busy = delivery
            if lane.queue and lane.queue[0][3] is delivery:
                heappop(lane.queue)

    def occupy(self, delivery: Delivery) -> None:
        """Note that a delivery that was taken before a restart keeps its lane busy."""
        if delivery.lane is not None:
            self._lanes.setdefault(delivery.lane, _Lane()).busy = delivery

    def back(self, delivery: Delivery, *, now_us: int) -> None:
        """Put a delivery back that was taken; its lane stays its own until it is done."""
        self._here[delivery.id] = delivery
        self.plain += not delivery.leased
        if delivery.due_us > now_us:
            heappush(self._later, _at(delivery.due_us, delivery))
        else:
            heappush(self._ready, _at(delivery.rank, delivery))

    def free(self, delivery: Delivery) -> None:
        """The delivery is done: the next of its lane may go."""
        key = delivery.lane
        lane = self._lanes.get(key) if key is not None else None
        if key is None or lane is None or lane.busy is not delivery:
            return
        lane.busy = None
        self._promote(key, lane)

    def drop(self, delivery: Delivery) -> None:
        """Take a delivery out for good (expired, cancelled, thrown out).

        One that led its lane keeps it until `free`: its end may not be written yet.
        """
        if self._here.pop(delivery.id, None) is None:
            return
        self.plain -= not delivery.leased
        lane = self._lanes.get(delivery.lane) if delivery.lane is not None else None
        if lane is None or lane.busy is delivery:
            return
        if lane.busy is None and lane.queue and lane.queue[0][3] is delivery:
            lane.busy = delivery
        lane.queue = [entry for entry in lane.queue if entry[3] is not delivery]
        heapify(lane.queue)

    def _line_up(self, delivery: Delivery) -> None:
        if delivery.lane is None:
            heappush(self._ready, _at(delivery.rank, delivery))
            return
        lane = self._lanes.setdefault(delivery.lane, _Lane())
        if lane.busy is delivery:
            heappush(self._ready, _at(delivery.rank, delivery))
            return
        heappush(lane.queue, _at(delivery.rank, delivery))
        if lane.busy is None and lane.queue[0][3] is delivery:
            heappush(self._ready, _at(delivery.rank, delivery))

    def _holds(self, delivery: Delivery) -> bool:
        return self._here.get(delivery.id) is delivery

    def _may_go(self, delivery: Delivery, now_us: int) -> bool:
        """Tell whether an entry still counts: one taken out of turn may be back, not yet due."""
        return self._holds(delivery) and delivery.due_us <= now_us and self._leads(delivery)

    def _wake(self, now_us: int) -> None:
        later = self._later
        while later and later[0][0] <= now_us:
            delivery = heappop(later)[3]
            if self._holds(delivery):
                self._line_up(delivery)

    def _leads(self, delivery: Delivery) -> bool:
        """Tell whether no other of its lane stands before it."""
        if delivery.lane is None:
            return True
        lane = self._lanes.get(delivery.lane)
        if lane is None:
            return True
        if lane.busy is not None:
            return lane.busy is delivery
        return bool(lane.queue) and lane.queue[0][3] is delivery

    def _promote(self, key: str, lane: _Lane) -> None:
        """Let the first of a free lane stand in the line for all of it."""
        while lane.queue and not self._holds(lane.queue[0][3]):
            heappop(lane.queue)
        if lane.queue:
            heappush(self._ready, lane.queue[0])
        else:
            del self._lanes[key]
