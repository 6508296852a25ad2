"""Order inside a mailbox: rank, lanes (one in flight per key), and what is not yet due.

Pure: no clock, no I/O. A `Line` holds only what is in memory of a mailbox; which part of the
store that is, the mailbox knows. What is said here of a key holds where, of each key, memory has
those of lowest rank; of volatile ones that is not sure while the store has more: they are in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from hubbub.memory import MemoryAccount
from hubbub.values import Delivery

__all__ = ["Line", "rank_of"]

STEP_US: Final = 60_000_000
"""One priority step is worth a minute of waiting, so that nothing starves."""

KEYED_PRIORITY: Final = 5
"""Priority gives way to order where there is a key."""


_Entry = tuple[int, int, int, Delivery]


RETRIES_US: Final = 2**60
"""How far behind a retry stands where first attempts go before retries; no time comes near it."""


def _at(time_us: int, delivery: Delivery) -> _Entry:
    """Return an entry of a heap; one read again from the store is another, and never compared."""
    return (time_us, delivery.id, id(delivery), delivery)


def rank_of(*, created_us: int, not_before_us: int, priority: int, keyed: bool) -> int:
    """Return the place in the mailbox, lower first; never changes."""
    step = KEYED_PRIORITY if keyed else priority
    return max(created_us, not_before_us) - STEP_US * step


class _Lane:
    """All of one key: at most one is busy (in flight or waiting for its retry).

    Attributes:
        queue: All others, in a heap.
        stored: How many of those are durable.
    """

    __slots__ = ("busy", "queue", "stored")

    def __init__(self) -> None:
        self.busy: Delivery | None = None
        self.queue: list[_Entry] = []
        self.stored = 0

    def push(self, delivery: Delivery) -> None:
        heappush(self.queue, _at(delivery.rank, delivery))
        self.stored += delivery.durable

    def pop(self) -> None:
        self.stored -= heappop(self.queue)[3].durable

    def remove(self, gone: set[int]) -> None:
        """Take entries out, by the identity of what they hold."""
        self.queue = [entry for entry in self.queue if entry[2] not in gone]
        self.stored = sum(entry[3].durable for entry in self.queue)
        heapify(self.queue)


class Line:
    """Waiting deliveries in the order in which they may be handed over.

    Attributes:
        fresh_first: Of those without a key first attempts go before retries.
        plain: How many of them are no tasks.
        stored: How many of them are durable, so that the store has them too.
        volatile_bytes: What the payloads of those that are not take.
        stored_bytes: What the payloads of durable ones take.
    """

    __slots__ = (
        "_busy", "_doubts", "_here", "_in_doubt", "_lanes", "_later", "_ready", "fresh_first",
        "plain", "stored", "stored_bytes", "volatile_bytes",
    )  # fmt: skip

    def __init__(
        self,
        volatile_bytes: MemoryAccount,
        stored_bytes: MemoryAccount,
    ) -> None:
        # Heaps with lazy removal: an entry counts only while `_here` holds its delivery.
        self._ready: list[_Entry] = []
        self._later: list[_Entry] = []
        self._lanes: dict[str, _Lane] = {}
        self._busy: dict[str, _Lane] = {}
        self._here: dict[int, Delivery] = {}
        self._in_doubt: dict[int, int] = {}
        self._doubts = count()
        self.fresh_first = False
        self.plain = 0
        self.stored = 0
        self.volatile_bytes: Final = volatile_bytes
        self.stored_bytes: Final = stored_bytes

    def __len__(self) -> int:
        return len(self._here)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery.id in self._here

    def get(self, delivery_id: int) -> Delivery | None:
        """Return a delivery that stands in the line."""
        return self._here.get(delivery_id)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(list(self._here.values()))

    def volatile(self) -> Iterator[Delivery]:
        """Yield those that only memory has, as they came in; look no further once one is gone."""
        return (delivery for delivery in self._here.values() if not delivery.durable)

    def busy_lanes(self) -> frozenset[str]:
        """Return the keys whose next must wait for one that is not done."""
        return frozenset(self._busy)

    def room_for(self, delivery: Delivery) -> bool:
        """Tell whether the payload of one more has room among those of its kind."""
        return self._account_of(delivery).room_for(len(delivery.envelope.data))

    def add(self, delivery: Delivery, *, now_us: int, in_doubt: bool = False) -> None:
        """Put a delivery into the line.

        Args:
            in_doubt: The store may have some of its key that go before it: it waits for `sure`.
        """
        self._enter(delivery)
        if in_doubt and delivery.lane is not None:
            self._in_doubt[delivery.id] = next(self._doubts)
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
        self._leave(delivery)
        if self._ready and self._ready[0][3] is delivery:
            heappop(self._ready)
        if delivery.lane is not None:
            lane = self._occupy(delivery.lane, delivery)
            if lane.queue and lane.queue[0][3] is delivery:
                lane.pop()

    def occupy(self, delivery: Delivery) -> None:
        """Note that a delivery that was taken before a restart keeps its lane busy."""
        if delivery.lane is not None:
            self._occupy(delivery.lane, delivery)

    def back(self, delivery: Delivery, *, now_us: int) -> None:
        """Put a delivery back that was taken; its lane stays its own until it is done."""
        self._enter(delivery)
        if delivery.due_us > now_us:
            heappush(self._later, _at(delivery.due_us, delivery))
        else:
            heappush(
                self._ready,
                self._place(delivery) if self.fresh_first else _at(delivery.rank, delivery),
            )

    def free(self, delivery: Delivery) -> None:
        """The delivery is done: the next of its lane may go."""
        key = delivery.lane
        lane = self._lanes.get(key) if key is not None else None
        if key is None or lane is None or lane.busy is not delivery:
            return
        lane.busy = None
        del self._busy[key]
        self._promote(key, lane)

    def drop(self, delivery: Delivery) -> None:
        """Take a delivery out for good (expired, cancelled, thrown out).

        One that led its lane keeps it until `free`: its end may not be written yet.
        """
        if delivery.id not in self._here:
            return
        self._leave(delivery)
        lane = self._lanes.get(delivery.lane) if delivery.lane is not None else None
        if lane is None or lane.busy is delivery:
            return
        if lane.busy is None and lane.queue and lane.queue[0][3] is delivery:
            assert delivery.lane is not None
            self._occupy(delivery.lane, delivery)
        lane.remove({id(delivery)})

    # Memory is bounded: what waits behind busy keys must not be all of it.

    def behind_busy(self) -> int:
        """Return how many durable ones wait behind busy keys."""
        return sum(lane.stored for lane in self._busy.values())

    def blocked(self, room: int) -> frozenset[str]:
        """Return busy keys behind which enough waits here: their part of so many places."""
        crowded, share = self._crowded(room)
        return frozenset(key for key, lane in crowded.items() if lane.stored >= share)

    def surplus(self, room: int) -> int:
        """Return how many durable ones wait behind busy keys beyond their parts of the places."""
        crowded, share = self._crowded(room)
        return sum(max(0, lane.stored - share) for lane in crowded.values())

    def let_go(self, number: int, *, room: int) -> list[Delivery]:
        """Take out durable ones beyond their keys' parts, the last of them; the store has them."""
        crowded, share = self._crowded(room)
        beyond: list[_Entry] = []
        for lane in crowded.values():
            if lane.stored > share:
                beyond += sorted(entry for entry in lane.queue if entry[3].durable)[share:]
        beyond.sort(reverse=True)
        gone = [delivery for _, _, _, delivery in beyond[:number]]
        for delivery in gone:
            self._leave(delivery)
        for key in {delivery.lane for delivery in gone if delivery.lane is not None}:
            mine = [delivery for delivery in gone if delivery.lane == key]
            self._lanes[key].remove({id(delivery) for delivery in mine})
            self.doubt(mine[-1])
        return gone

    def _crowded(self, room: int) -> tuple[dict[str, _Lane], int]:
        """Return busy lanes in which durable ones wait, and the part of each of the places."""
        crowded = {key: lane for key, lane in self._busy.items() if lane.stored}
        return crowded, room // len(crowded) if crowded else 0

    # Volatile ones, while the store alone has some that may be of their key

    def doubt(self, stored: Delivery) -> None:
        """Let those of its key that rank behind a delivery wait: the store alone has that one."""
        if self.stored == len(self._here):
            return
        lane = self._lanes.get(stored.lane) if stored.lane is not None else None
        queue = lane.queue if lane is not None else []
        for _, _, _, one in (*queue, *self._later):
            if (
                one.lane == stored.lane
                and (one.rank, one.id) > (stored.rank, stored.id)
                and not one.durable
                and self._holds(one)
            ):
                self._in_doubt[one.id] = next(self._doubts)

    def doubts(self, *, but: frozenset[str] = frozenset()) -> dict[int, int]:
        """Return what is in doubt now, those of some keys left out, for `sure`."""
        if not self._in_doubt:
            return {}
        return {one: at for one, at in self._in_doubt.items() if self._here[one].lane not in but}

    def sure(self, doubts: dict[int, int], *, up_to: Delivery | None = None) -> None:
        """Let go what was in doubt, and has not been in doubt anew since.

        Args:
            up_to: Memory has all that rank before this one; None for all there are.
        """
        last = None if up_to is None else (up_to.rank, up_to.id)
        for one, at in doubts.items():
            if self._in_doubt.get(one) != at:
                continue
            delivery = self._here[one]
            if last is None or (delivery.rank, delivery.id) < last:
                del self._in_doubt[one]
                if self._leads(delivery):
                    heappush(self._ready, _at(delivery.rank, delivery))

    def has_next(self, key: str) -> bool:
        """Tell whether the next of a key is here: under way, or it may go."""
        lane = self._lanes.get(key)
        if lane is None:
            return False
        return lane.busy is not None or (bool(lane.queue) and self._leads(lane.queue[0][3]))

    def _line_up(self, delivery: Delivery) -> None:
        if delivery.lane is None:
            heappush(
                self._ready,
                self._place(delivery) if self.fresh_first else _at(delivery.rank, delivery),
            )
            return
        lane = self._lanes.setdefault(delivery.lane, _Lane())
        if lane.busy is delivery:
            heappush(self._ready, _at(delivery.rank, delivery))
            return
        lane.push(delivery)
        if self._leads(delivery):
            heappush(self._ready, _at(delivery.rank, delivery))

    def _place(self, delivery: Delivery) -> _Entry:
        """Return where a delivery stands where first attempts go before retries."""
        retry = delivery.attempts > 0 and delivery.lane is None
        return _at(delivery.rank + RETRIES_US if retry else delivery.rank, delivery)

    def _enter(self, delivery: Delivery) -> None:
        self._here[delivery.id] = delivery
        self.plain += not delivery.leased
        self.stored += delivery.durable
        self._account_of(delivery).add(delivery.envelope.data)

    def _leave(self, delivery: Delivery) -> None:
        del self._here[delivery.id]
        self._in_doubt.pop(delivery.id, None)
        self.plain -= not delivery.leased
        self.stored -= delivery.durable
        self._account_of(delivery).release(delivery.envelope.data)

    def _account_of(self, delivery: Delivery) -> MemoryAccount:
        return self.stored_bytes if delivery.durable else self.volatile_bytes

    def _occupy(self, key: str, delivery: Delivery) -> _Lane:
        lane = self._busy[key] = self._lanes.setdefault(key, _Lane())
        lane.busy = delivery
        return lane

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
        if delivery.id in self._in_doubt:
            return False
        return bool(lane.queue) and lane.queue[0][3] is delivery

    def _promote(self, key: str, lane: _Lane) -> None:
        """Let the first of a free lane stand in the line for all of it."""
        while lane.queue and not self._holds(lane.queue[0][3]):
            lane.pop()
        if lane.queue:
            heappush(self._ready, lane.queue[0])
        else:
            del self._lanes[key]
