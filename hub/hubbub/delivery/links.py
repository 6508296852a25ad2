"""Links: one living attachment of an endpoint, its slots, and what is in flight on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from hubbub.delivery.guarding import EndpointGuard
from hubbub.memory import MemoryAccount
from hubbub.values import Delivery, Endpoint

__all__ = ["EndpointLink"]


class EndpointLink:
    """An endpoint that is here. Closing it never touches a newer link of the same address.

    Attributes:
        in_flight: Deliveries that hold a slot, by id.
        promised: Tasks for which a slot is kept while they are written (`promises.py`), by id.
        overtime: Task deliveries, each with the number of its attempt, that ended without an
            answer (timeout, cancel) and keep their slot until the peer answers or `slot_grace`
            is over; and the tasks they are of.
        pools: Names of the pools it is a member of, in the order in which it came to be so.
        todo: Handed to the couriers and not yet begun, each with the number of its attempt.
        couriers: Tasks that carry, at most one a slot.
        takes_now: Whether its endpoint has a `deliver_now`.
        idle_since_us: When its last slot became free, so that a pool gives work evenly.
        account: What is in flight on it takes.
        pumping: It is being given what waits; what ends meanwhile need not begin that anew.
    """

    __slots__ = (
        "_changed", "_closed", "_guard", "_open", "_slots", "account", "couriers", "endpoint",
        "idle_since_us", "in_flight", "overtime", "pools", "promised", "pumping", "takes_now",
        "todo",
    )  # fmt: skip

    def __init__(
        self,
        endpoint: Endpoint,
        changed: Callable[[EndpointLink, bool], None],
        account: MemoryAccount,
    ) -> None:
        self.endpoint: Final = endpoint
        self.account: Final = account
        self.in_flight: Final[dict[int, Delivery]] = {}
        self.promised: Final[set[int]] = set()
        self.overtime: Final[dict[tuple[int, int], str | None]] = {}
        self.todo: Final[deque[tuple[Delivery, int]]] = deque()
        self.pools: Final[dict[str, None]] = {}
        self.couriers = 0
        own = getattr(endpoint.deliver_now, "__func__", None)
        self.takes_now: Final = own is not Endpoint.deliver_now
        self.idle_since_us = 0
        self.pumping = False
        self._guard: EndpointGuard | None = None
        self._slots = self._open = endpoint.concurrency
        self._changed = changed
        self._closed = False

    @property
    def address(self) -> str:
        """Address of its endpoint."""
        return self.endpoint.address

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return len(self.in_flight) + len(self.overtime) + len(self.promised)

    @property
    def free(self) -> int:
        """Slots in which nothing is; none while it has enough to carry."""
        if self.account.held_bytes >= self.account.limit_bytes:
            return 0
        return self._open - self.busy

    @property
    def guard(self) -> EndpointGuard | None:
        """What guards it; None for most."""
        return self._guard

    @guard.setter
    def guard(self, guard: EndpointGuard | None) -> None:
        self._guard = guard
        self.slots = self._slots

    @property
    def slots(self) -> int:
        """Envelopes it takes at once; 0 pauses it."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = slots
        most = self._guard.rule.concurrency if self._guard is not None else 0
        self._open = min(slots, most) if most else slots
        if not self._closed:
            self._changed(self, False)

    def close(self) -> None:
        """End this attachment; what was in flight on it is tried again."""
        if not self._closed:
            self._closed = True
            self._changed(self, True)
