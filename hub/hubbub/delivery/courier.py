"""Couriers: the tasks that carry deliveries to an endpoint, at most one a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import structlog

from hubbub.delivery.links import EndpointLink
from hubbub.envelope import Envelope
from hubbub.errors import Reject, Retry, StoreUnavailableError
from hubbub.preparing import NotForItError, PrepareError, Preparer
from hubbub.values import Delivery, DeliveryState, Endpoint, Outcome

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Couriers", "is_mine"]

WATCH_US: Final = 250_000
"""How exactly the timeout of an attempt is kept."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def is_mine(delivery: Delivery, attempt: int) -> bool:
    """Tell whether a courier still speaks of the attempt that is under way."""
    return delivery.state is DeliveryState.IN_FLIGHT and delivery.attempts == attempt


class Couriers:
    """Hands over, and reports what came of it."""

    def __init__(
        self,
        room: DeliveryRoom,
        preparer: Preparer,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._room = room
        self._preparer = preparer
        self._spawn = spawn
        self._carrying: dict[EndpointLink, set[asyncio.Task[None]]] = {}
        self._under_way: dict[int, tuple[int, asyncio.Timeout]] = {}
        self._watching = False

    def send(self, link: EndpointLink, delivery: Delivery) -> None:
        """Let a courier carry a delivery that was taken for this endpoint."""
        link.todo.append((delivery, delivery.attempts))
        # One may still be at the peer with what was taken back: that slot counts, it is not free.
        if link.couriers < len(link.in_flight) + len(link.overtime):
            link.couriers += 1
            task = self._spawn(self._carry(link))
            self._carrying.setdefault(link, set()).add(task)

    def dismiss(self, link: EndpointLink) -> None:
        """The link is closed: carry nothing more."""
        for courier in self._carrying.pop(link, ()):
            if courier is not asyncio.current_task():
                courier.cancel()
        link.todo.clear()

    async def _carry(self, link: EndpointLink) -> None:
        """Hand over one delivery after the other while there are any."""
        task = asyncio.current_task()
        try:
            while link.todo and not link.closed:
                delivery, attempt = link.todo.popleft()
                if is_mine(delivery, attempt):
                    await self._hand_over(link, delivery, attempt)
                else:
                    self._room.leases.unseen(link, delivery, attempt)
        finally:
            link.couriers -= 1
            carrying = self._carrying.get(link)
            if carrying is not None and task is not None:
                carrying.discard(task)

    async def _hand_over(self, link: EndpointLink, delivery: Delivery, attempt: int) -> None:
        envelope = self._prepared(link.endpoint, delivery)
        if envelope is None or self._too_large(link, delivery, envelope):
            return
        try:
            if not await self._leased(link, delivery, attempt):
                self._room.leases.unseen(link, delivery, attempt)
                return
            answer = await self._deliver(link, delivery, envelope)
        except Reject as signal:
            if is_mine(delivery, attempt):
                self._room.guards.succeeded(delivery)  # it is there, and it answers
                delivery.last_error = signal.reason
                self._room.endings.end(delivery, Outcome.DEAD, "rejected")
        except StoreUnavailableError as error:
            if is_mine(delivery, attempt):
                delivery.attempts -= 1  # the peer has not seen it
                due_us = self._room.clock.now_us() + self._room.backoff_us(delivery)
                self._room.endings.again(delivery, error.code, due_us=due_us)
            else:
                self._room.leases.unseen(link, delivery, attempt)
        except Exception as error:
            reason, after_us = self._reason(link, delivery, error)
            # A task's hand-over is written before the peer sees it: that attempt always counts.
            counted = delivery.leased or not isinstance(error, Retry) or error.counted
            self._failed(delivery, attempt, reason, after_us, counted=counted)
        else:
            if isinstance(answer, Envelope):
                self._room.answered(delivery, answer)
            if not delivery.leased and is_mine(delivery, attempt):
                self._room.guards.succeeded(delivery)
                self._room.endings.end(delivery, Outcome.DELIVERED, None)

    def _reason(
        self, link: EndpointLink, delivery: Delivery, error: Exception
    ) -> tuple[str, int | None]:
        """Return why an attempt failed, and after how many microseconds the next one may be."""
        if isinstance(error, Retry):
            return error.reason, None if error.after_s is None else int(error.after_s * 1e6)
        if isinstance(error, TimeoutError):
            return "timeout", None
        self._room.metrics.plugin_errors[link.endpoint.adapter, "deliver"].inc()
        log.error(
            "delivery.failed", endpoint=link.address, delivery=str(delivery.id), exc_info=error
        )
        return f"error: {type(error).__name__}", None

    def _prepared(self, endpoint: Endpoint, delivery: Delivery) -> Envelope | None:
        """Return the envelope as the endpoint takes it; None when it shall not get it now."""
        room = self._room
        try:
            _check_still_does(endpoint, delivery)
            return self._preparer.prepare(delivery.envelope, delivery.transform, endpoint)
        except NotForItError as end:
            delivery.last_error = end.detail or delivery.last_error
            room.endings.end(delivery, end.outcome, end.reason)
        except PrepareError as error:  # of a plugin: the endpoint has seen nothing of it
            log.warning(
                "delivery.not_prepared",
                endpoint=endpoint.address,
                delivery=str(delivery.id),
                error=error.detail,
            )
            due_us = room.clock.now_us() + room.backoff_us(delivery)
            room.endings.again(delivery, error.reason, due_us=due_us)
        return None

    def _too_large(self, link: EndpointLink, delivery: Delivery, envelope: Envelope) -> bool:
        """Tell whether its guard keeps an envelope of this size from an endpoint; that ends it."""
        excess = link.guard.excess(len(envelope.data)) if link.guard is not None else None
        if excess is None:
            return False
        delivery.last_error = excess
        self._room.endings.end(delivery, Outcome.DEAD, "too_large")
        return True

    async def _leased(self, link: EndpointLink, delivery: Delivery, attempt: int) -> bool:
        """Write a task's hand-over before the peer sees it; False when it has ended meanwhile."""
        if not delivery.leased or delivery.lease_until_us is not None:
            return True  # given in the commit that took it in: `promises.py`
        for_us = delivery.timeout_us or self._room.policy.timeout_us(link.endpoint)
        change = self._room.leases.lease(delivery, for_us=for_us, worker=None)
        counted = (await self._room.engine.settle([change]))[0]
        if counted:
            self._room.tell(delivery)
        return counted and is_mine(delivery, attempt)

    async def _deliver(self, link: EndpointLink, delivery: Delivery, envelope: Envelope) -> object:
        """Give the endpoint its time, by the hub's clock.

        Raises:
            TimeoutError: it took longer.
        """
        scope = asyncio.timeout(None)
        until_us = delivery.lease_until_us or self._room.clock.now_us() + delivery.timeout_us
        self._under_way[delivery.id] = (until_us, scope)
        if not self._watching:
            self._watch()
        try:
            async with scope:
                return await link.endpoint.deliver(envelope)
        finally:
            del self._under_way[delivery.id]

    def _watch(self) -> None:
        """Look from time to time at what takes too long: a timer for each would cost more."""
        now_us = self._room.clock.now_us()
        self._watching = bool(self._under_way)
        if not self._watching:
            return
        for until_us, scope in self._under_way.values():
            if until_us <= now_us and not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())
        self._room.timers.at(now_us + WATCH_US, self._watch)

    def _failed(
        self,
        delivery: Delivery,
        attempt: int,
        reason: str,
        after_us: int | None = None,
        *,
        counted: bool = True,
    ) -> None:
        if not is_mine(delivery, attempt):
            return
        if not counted:
            delivery.attempts -= 1
        if after_us is None:
            after_us = self._room.backoff_us(delivery)
        due_us = self._room.clock.now_us() + after_us
        if counted:
            self._room.endings.failed(delivery, reason, due_us=due_us)
        else:
            self._room.endings.again(delivery, reason, due_us=due_us, counted=False)


def _check_still_does(endpoint: Endpoint, delivery: Delivery) -> None:
    """Check a task that waited for this very endpoint, which may have declared less meanwhile.

    Raises:
        NotForItError: it does not do this type any more.
    """
    task_type = delivery.task_type
    if task_type is None or delivery.mailbox != endpoint.address or endpoint.does(task_type):
        return
    raise NotForItError(
        Outcome.DEAD, "no_converter", f"{endpoint.address} does not do {task_type!r} any more"
    )
