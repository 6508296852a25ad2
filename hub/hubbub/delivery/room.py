"""The delivery room: deliveries into mailboxes, out of them to endpoints, again or to an end.

Plain deliveries end when the peer took the message; leased ones (tasks) when the result is in,
which `work.py` sees to. The tables of states are in docs/concepts.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import structlog

from hubbub.conversion import Conversions
from hubbub.delivery.boxes import Boxes
from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.spans import retry_record, trace_end, trace_retry
from hubbub.delivery.timers import Timers
from hubbub.directory import Directory
from hubbub.envelope import Envelope
from hubbub.errors import Reject, Retry, StoreUnavailableError
from hubbub.observe.metrics import Metrics
from hubbub.observe.tracing import Tracer
from hubbub.ports import Change, Clock, Engine, Planned
from hubbub.tasks import after
from hubbub.values import (
    Attempt,
    Delivery,
    DeliveryState,
    Endpoint,
    Outcome,
    Overflow,
    Task,
)

__all__ = ["DeliveryPolicy", "DeliveryRoom", "Follow"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

OFFLINE: Final = "offline"
NODE_LOST: Final = "node_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How hard to try when nobody says otherwise. Times in seconds."""

    mailbox_limit: int = 100_000
    overflow: Overflow = "refuse"
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    slot_grace_s: float = 60.0


class Follow(Protocol):
    """What the router gives the delivery room, so that results and updates are routed too."""

    def result(self, task: Task, delivery: Delivery) -> Planned:
        """Return the result's envelope, already routed."""
        ...

    def update(self, task: Task, delivery: Delivery) -> None:
        """Tell a change of state to whoever watches."""
        ...

    def rerun(self, task: Task, delivery: Delivery) -> tuple[Planned, Task]:
        """Return a new run of a task that ended, already routed."""
        ...


class DeliveryRoom:
    """Hands over, acknowledges, retries, gives up."""

    def __init__(  # noqa: PLR0913  # the rooms below it, and the seams a test controls
        self,
        *,
        engine: Engine,
        clock: Clock,
        directory: Directory,
        conversions: Conversions,
        metrics: Metrics,
        tracer: Tracer,
        policy: DeliveryPolicy,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        after_delivery: Callable[[Delivery], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.engine: Final = engine
        self.clock: Final = clock
        self.directory: Final = directory
        self.policy: Final = policy
        self.timers: Final = Timers(clock)
        self.tracer: Final = tracer
        self.metrics: Final = metrics
        self.boxes: Final = Boxes(
            engine=engine,
            clock=clock,
            directory=directory,
            limit=policy.mailbox_limit,
            overflow=policy.overflow,
            spawn=spawn,
            made=self._box_made,
            filled=self.pump,
        )
        self.follow: Follow | None = None
        self.in_hand: Final[dict[str, Delivery]] = {}
        self._conversions = conversions
        self._spawn = spawn
        self._after_delivery = after_delivery
        self._chance = chance
        self._links: dict[str, EndpointLink] = {}
        self._drained: asyncio.Future[None] | None = None
        self._couriers: dict[EndpointLink, set[asyncio.Task[None]]] = {}

    # Coming in

    def accept(self, deliveries: Iterable[Delivery]) -> None:
        """Put deliveries that are safe into their mailboxes, and hand over what can go."""
        for delivery in deliveries:
            if delivery.state is DeliveryState.DONE:
                self._count(delivery)
                continue
            box = self.boxes.admit(delivery)
            if delivery.due_us > self.clock.now_us():
                self._pump_at(delivery.due_us, box.name)
            if not delivery.durable and delivery.deadline_us is not None:
                self.timers.at(delivery.deadline_us, partial(self.expire, delivery))
            self.pump(box)

    # Links

    def attach(self, endpoint: Endpoint) -> EndpointLink:
        """Give an endpoint a link; an older one of its address is closed."""
        older = self._links.get(endpoint.address)
        if older is not None:
            older.close()
        link = EndpointLink(endpoint, self._link_changed)
        self._links[endpoint.address] = link
        for box in self.boxes:
            if box.requirement and self.directory.covers(box.requirement, endpoint):
                link.pools.add(box.name)
        self.pump_link(link)
        return link

    def link_of(self, address: str) -> EndpointLink | None:
        """Return the living link of an address."""
        return self._links.get(address)

    def held(self, ids: Iterable[int] | None = None) -> dict[int, Delivery]:
        """Return deliveries that are in flight in memory, by id: of plain ones no row says so.

        Args:
            ids: Only these; None for all.
        """
        wanted = None if ids is None else set(ids)
        if wanted is not None and not wanted:
            return {}
        return {
            number: delivery
            for link in self._links.values()
            for number, delivery in link.in_flight.items()
            if wanted is None or number in wanted
        }

    def _link_changed(self, link: EndpointLink, closed: bool) -> None:
        if not closed:
            self.pump_link(link)
            return
        if self._links.get(link.address) is link:
            del self._links[link.address]
        for courier in self._couriers.pop(link, ()):
            if courier is not asyncio.current_task():
                courier.cancel()
        link.todo.clear()
        lost = list(link.in_flight.values())
        link.in_flight.clear()
        link.overtime.clear()
        for delivery in lost:
            self.again(delivery, NODE_LOST, due_us=self.clock.now_us())

    def _box_made(self, box: Mailbox) -> None:
        """A new pool: note it at the links of its members."""
        if box.requirement is not None:
            for address in self.directory.eligible(box.requirement):
                link = self._links.get(address)
                if link is not None:
                    link.pools.add(box.name)

    # Handing over

    def pump(self, box: Mailbox) -> None:
        """Hand over what can go from one mailbox."""
        if box.requirement is None:
            link = self._links.get(box.name)
            if link is not None:
                self.pump_link(link)
        else:
            while (delivery := box.line.head(now_us=self.clock.now_us())) is not None:
                link = self._member_for(box, delivery)
                if link is None or not self._give(box, delivery, link):
                    break
        if len(box.line):
            box.arrived()
        self.boxes.refill(box)

    def pump_link(self, link: EndpointLink) -> None:
        """Give an endpoint with free slots the lowest rank of its mailbox and its pools."""
        while link.free > 0 and not link.closed:
            best: tuple[int, int] | None = None
            chosen: tuple[Mailbox, Delivery] | None = None
            for box in self.boxes_of(link):
                delivery = self._first_for(link, box)
                if delivery is None:
                    self.boxes.refill(box)
                    continue
                if box.requirement is not None and _has_another(delivery, link.address):
                    continue
                if best is None or (delivery.rank, delivery.id) < best:
                    best = (delivery.rank, delivery.id)
                    chosen = (box, delivery)
            if chosen is None:
                return
            self._give(*chosen, link)

    def _first_for(self, link: EndpointLink, box: Mailbox) -> Delivery | None:
        """Return what is next for an endpoint; tasks of a pull endpoint wait to be taken."""
        now_us = self.clock.now_us()
        if link.endpoint.pull:
            return box.line.find(_plain, now_us=now_us) if box.line.plain else None
        return box.line.head(now_us=now_us)

    def boxes_of(self, link: EndpointLink) -> list[Mailbox]:
        """Return the mailboxes an endpoint takes from: its own and its pools."""
        names = (link.address, *link.pools)
        return [box for name in names if (box := self.boxes.find(name)) is not None]

    def _member_for(self, box: Mailbox, delivery: Delivery) -> EndpointLink | None:
        """Return the member of a pool that shall have this: least in flight, then longest idle."""
        assert box.requirement is not None
        best: EndpointLink | None = None
        eligible = self.directory.eligible(box.requirement)
        others = 0
        for address in eligible:
            if _has_another(delivery, address):
                continue
            others += 1
            link = self._links.get(address)
            if link is None or link.free <= 0 or (link.endpoint.pull and delivery.leased):
                continue
            if best is None or _load(link) < _load(best):
                best = link
        if eligible and not others:
            self.end(delivery, Outcome.FILTERED, "already_delivered")
        return best

    def _give(self, box: Mailbox, delivery: Delivery, link: EndpointLink) -> bool:
        """Take a delivery out of its mailbox for one endpoint."""
        now_us = self.clock.now_us()
        if delivery.deadline_us is not None and delivery.deadline_us <= now_us:
            self.expire(delivery)
            return True
        if delivery.attempts >= delivery.max_attempts:
            self.end(delivery, Outcome.DEAD, delivery.reason or NODE_LOST)
            return True
        self.taken(box, delivery, link.address)
        link.in_flight[delivery.id] = delivery
        link.todo.append((delivery, delivery.attempts))
        if link.couriers < len(link.in_flight):
            link.couriers += 1
            task = self._spawn(self._carry(link))
            self._couriers.setdefault(link, set()).add(task)
        return True

    def taken(self, box: Mailbox, delivery: Delivery, address: str) -> None:
        """Note that a delivery left its mailbox for an endpoint: one attempt more."""
        box.line.take(delivery)
        box.left()
        delivery.state = DeliveryState.IN_FLIGHT
        delivery.attempts += 1
        delivery.endpoint = address
        delivery.due_us = 0
        delivery.updated_us = self.clock.now_us()
        self.boxes.refill(box)

    async def _carry(self, link: EndpointLink) -> None:
        """Hand over one delivery after the other while there are any."""
        task = asyncio.current_task()
        try:
            while link.todo and not link.closed:
                delivery, attempt = link.todo.popleft()
                if self._mine(delivery, attempt):
                    await self._hand_over(link, delivery, attempt)
        finally:
            link.couriers -= 1
            carrying = self._couriers.get(link)
            if carrying is not None and task is not None:
                carrying.discard(task)

    async def _hand_over(self, link: EndpointLink, delivery: Delivery, attempt: int) -> None:
        try:
            envelope = self._prepared(link.endpoint, delivery)
            if envelope is None:
                return
            if delivery.leased and not (
                await self._lease(delivery) and self._mine(delivery, attempt)
            ):
                return
            async with asyncio.timeout(delivery.timeout_us / 1e6 or None):
                await link.endpoint.deliver(envelope)
        except Retry as signal:
            due = None if signal.after_s is None else int(signal.after_s * 1e6)
            self._failed(delivery, attempt, signal.reason, due)
        except Reject as signal:
            if self._mine(delivery, attempt):
                delivery.last_error = signal.reason
                self.end(delivery, Outcome.DEAD, "rejected")
        except TimeoutError:
            self._failed(delivery, attempt, "timeout")
        except StoreUnavailableError as error:
            if self._mine(delivery, attempt):
                delivery.attempts -= 1
                self._failed(delivery, attempt - 1, error.code)
        except Exception as error:
            self.metrics.plugin_errors[link.endpoint.adapter, "deliver"].inc()
            log.exception("delivery.failed", endpoint=link.address, delivery=str(delivery.id))
            self._failed(delivery, attempt, f"error: {type(error).__name__}")
        else:
            if not delivery.leased and self._mine(delivery, attempt):
                self.end(delivery, Outcome.DELIVERED, None)

    def _prepared(self, endpoint: Endpoint, delivery: Delivery) -> Envelope | None:
        """Convert the envelope to a type the endpoint takes; None when that ended the delivery."""
        envelope = delivery.envelope
        chain = self._conversions.chain(envelope.type, endpoint.accepts)
        if chain is None:
            self.end(delivery, Outcome.DEAD, "no_converter")
            return None
        for converter in chain:
            converted = converter.function(envelope)
            if converted is None:
                self.end(delivery, Outcome.FILTERED, "converter")
                return None
            envelope = converted
        return envelope

    async def _lease(self, delivery: Delivery) -> bool:
        """Write a task's hand-over, before the peer sees it; False when it has ended meanwhile."""
        change = self.leased(delivery, for_us=delivery.timeout_us, worker=None)
        counted = await self.engine.settle([change])
        if counted[0]:
            self.tell(delivery)
        return counted[0]

    def tell(self, delivery: Delivery) -> None:
        """Tell whoever watches how the task of this delivery is now."""
        if delivery.task is not None and self.follow is not None:
            self.follow.update(delivery.task, delivery)

    def leased(self, delivery: Delivery, *, for_us: int, worker: str | None) -> Change:
        """Return the change that gives a task to an endpoint until its lease ends."""
        now_us = self.clock.now_us()
        assert delivery.task is not None
        assert delivery.endpoint is not None
        delivery.lease_until_us = now_us + for_us
        delivery.pulled_by = worker
        delivery.task = after(delivery.task, delivery, now_us=now_us)
        self.in_hand[delivery.task.id] = delivery
        self.watch_lease(delivery)
        return Change(
            delivery=delivery,
            task=delivery.task,
            attempt=Attempt(
                task_id=delivery.task.id,
                run=delivery.task.run,
                attempt=delivery.attempts,
                endpoint=delivery.endpoint,
                worker=worker,
                started_us=now_us,
            ),
        )

    def watch_lease(self, delivery: Delivery) -> None:
        """Try a leased delivery again when its lease ends."""
        until_us = delivery.lease_until_us
        assert until_us is not None

        def over() -> None:
            if (
                delivery.lease_until_us == until_us
                and delivery.state is DeliveryState.IN_FLIGHT
            ):  # fmt: skip
                self.grace(delivery)
                self.again(delivery, "timeout", due_us=self.clock.now_us())

        self.timers.at(until_us, over)

    def grace(self, delivery: Delivery) -> None:
        """Keep the slot of an endpoint that has not answered, for `slot_grace`."""
        link = self._links.get(delivery.endpoint or "")
        if link is None or delivery.id not in link.in_flight:
            return
        link.overtime[delivery.id] = delivery

        def over() -> None:
            if link.overtime.pop(delivery.id, None) is not None:
                self.pump_link(link)

        self.timers.at(self.clock.now_us() + int(self.policy.slot_grace_s * 1e6), over)

    def recovered(self, delivery: Delivery) -> None:
        """Take in a task that was handed over before a restart."""
        box = self.boxes.get(delivery.mailbox)
        self.boxes.here[delivery.id] = delivery
        if delivery.lane is not None:
            box.line.occupy(delivery)
        if delivery.pulled_by is None:
            self.again(delivery, NODE_LOST, due_us=self.clock.now_us())
        elif delivery.task_id is not None:
            self.in_hand[delivery.task_id] = delivery
            self.watch_lease(delivery)

    def gone(self, address: str) -> None:
        """An endpoint is gone: what waits in its own mailbox is dead."""
        box = self.boxes.find(address)
        if box is not None:
            self._spawn(self._bury(box))

    async def _bury(self, box: Mailbox) -> None:
        while True:
            for delivery in box.line:
                self.end(delivery, Outcome.DEAD, "endpoint_gone")
            box.dry = False
            if not await self.boxes.read_more(box) or not len(box.line):
                return

    async def drain(self, timeout_s: float) -> None:
        """Give nothing out any more; wait for what is under way; give the rest back uncounted."""
        for link in self._links.values():
            link.slots = 0
        pushed = [d for link in self._links.values() for d in link.in_flight.values()]
        if pushed:
            done = asyncio.get_running_loop().create_future()
            self._drained = done
            timer = self.clock.call_at(
                self.clock.now_us() + int(timeout_s * 1e6),
                lambda: None if done.done() else done.set_result(None),
            )
            await done
            timer.cancel()
        for link in list(self._links.values()):
            for delivery in list(link.in_flight.values()):
                delivery.attempts -= 1
                self.again(delivery, "drained", due_us=self.clock.now_us(), counted=False)

    # Again, or the end

    def _mine(self, delivery: Delivery, attempt: int) -> bool:
        """Tell whether a courier still speaks of the attempt that is under way."""
        return delivery.state is DeliveryState.IN_FLIGHT and delivery.attempts == attempt

    def _failed(
        self, delivery: Delivery, attempt: int, reason: str, after_us: int | None = None
    ) -> None:
        if not self._mine(delivery, attempt):
            return
        if after_us is None:
            after_us = self.backoff_us(delivery.attempts)
        self.again(delivery, reason, due_us=self.clock.now_us() + after_us)

    def backoff_us(self, attempts: int) -> int:
        """Return how long to wait before the next attempt: doubling, with jitter, bounded."""
        doubled = self.policy.backoff_s * 2 ** min(attempts - 1, 30)
        spread = 0.5 + self._chance() / 2
        return int(min(self.policy.backoff_max_s, doubled) * spread * 1e6)

    def again(self, delivery: Delivery, reason: str, *, due_us: int, counted: bool = True) -> None:
        """Put a delivery that was in flight back into its mailbox, or end it when it had enough."""
        delivery.last_error = reason
        if counted and delivery.attempts >= delivery.max_attempts:
            self.end(delivery, Outcome.DEAD, reason)
            return
        endpoint = delivery.endpoint
        adapter = self._leave_hand(delivery)
        now_us = self.clock.now_us()
        box = self.boxes.get(delivery.mailbox)
        delivery.state = DeliveryState.PENDING
        delivery.due_us = due_us
        delivery.lease_until_us = None
        delivery.pulled_by = None
        delivery.updated_us = now_us
        delivery.deadline_us = deadline_of(delivery, now_us=now_us)
        if box.requirement is not None:
            delivery.endpoint = None
        self.metrics.delivery_retries[adapter].inc()
        trace_retry(self.tracer, delivery, reason)
        if delivery.durable:
            if delivery.task is not None:
                delivery.task = after(delivery.task, delivery, now_us=now_us)
            self.engine.note(
                Change(
                    delivery=delivery,
                    task=delivery.task,
                    ended=reason,
                    follows=retry_record(delivery, reason),
                )
            )
            self.tell(delivery)
        box.depth += 1
        box.line.back(delivery, now_us=now_us)
        if due_us > now_us:
            self._pump_at(due_us, box.name)
        self._work_on(delivery, box, endpoint)

    def _pump_at(self, time_us: int, mailbox: str) -> None:
        def due() -> None:
            box = self.boxes.find(mailbox)
            if box is not None:
                self.pump(box)

        self.timers.at(time_us, due)

    def expire(self, delivery: Delivery) -> None:
        """End a delivery whose deadline has passed while it waited."""
        if delivery.state is DeliveryState.PENDING:
            self.end(delivery, Outcome.EXPIRED, expiry_reason(delivery))

    def end(self, delivery: Delivery, outcome: Outcome, reason: str | None) -> None:
        """End a delivery that nobody waits for; its outcome goes with the next commit."""
        if delivery.state is DeliveryState.DONE:
            return
        self.forget(delivery)
        now_us = self.clock.now_us()
        delivery.state = DeliveryState.DONE
        delivery.outcome = outcome
        delivery.reason = reason
        delivery.lease_until_us = None
        delivery.updated_us = now_us
        if delivery.task is not None:
            self._end_task(delivery, reason)
        elif delivery.durable:
            self.engine.note(Change(delivery=delivery), lambda _: self.boxes.written(delivery))
        self.done(delivery)

    def _end_task(self, delivery: Delivery, reason: str | None) -> None:
        assert delivery.task is not None
        task = after(delivery.task, delivery, now_us=delivery.updated_us)
        delivery.task = task
        assert self.follow is not None
        planned = self.follow.result(task, delivery)

        def then(counted: bool) -> None:
            self.boxes.written(delivery)
            if counted:
                self.accept(planned.deliveries)
                self.tell(delivery)
            else:
                self.release(planned)

        change = Change(
            delivery=delivery, task=task, ended=reason or "ended", follows=planned.record
        )
        self.engine.note(change, then)

    def forget(self, delivery: Delivery) -> None:
        """Take a delivery out of wherever it is in memory: its mailbox, a link, a lease."""
        box = self.boxes.get(delivery.mailbox)
        if delivery.state is DeliveryState.PENDING:
            if delivery in box.line:
                box.line.drop(delivery)
            elif delivery.durable:
                self.engine.hold(delivery)
                self.boxes.here[delivery.id] = delivery
                box.behind = max(0, box.behind - 1)
            box.left()
        else:
            self._leave_hand(delivery)

    def release(self, planned: Planned) -> None:
        """Give back the space of what was planned and not kept."""
        for delivery in planned.deliveries:
            if delivery.state is not DeliveryState.DONE:
                self.boxes.get(delivery.mailbox).left()

    def put_back(self, delivery: Delivery) -> None:
        """Undo `taken`: nobody saw the delivery, the attempt does not count."""
        self._leave_hand(delivery)
        if delivery.task_id is not None:
            self.in_hand.pop(delivery.task_id, None)
        box = self.boxes.get(delivery.mailbox)
        delivery.state = DeliveryState.PENDING
        delivery.attempts -= 1
        delivery.lease_until_us = None
        delivery.pulled_by = None
        if delivery.task is not None:
            delivery.task = after(delivery.task, delivery, now_us=self.clock.now_us())
        box.depth += 1
        box.line.back(delivery, now_us=self.clock.now_us())

    def restore(
        self,
        delivery: Delivery,
        memory: tuple[DeliveryState, str | None, int | None, Task | None],
    ) -> None:
        """Undo `forget` and an end that could not be written: it is as it was."""
        delivery.state, delivery.endpoint, delivery.lease_until_us, delivery.task = memory
        delivery.outcome = delivery.reason = None
        if delivery.state is DeliveryState.PENDING:
            box = self.boxes.get(delivery.mailbox)
            box.depth += 1
            box.line.add(delivery, now_us=self.clock.now_us())
            return
        link = self._links.get(delivery.endpoint or "")
        if link is not None and not link.endpoint.pull:
            link.in_flight[delivery.id] = delivery
        if delivery.lease_until_us is not None:
            self.watch_lease(delivery)

    def done(self, delivery: Delivery, had: str | None = None) -> None:
        """After an end: count it, let the next of its lane go, tell the plugins.

        Args:
            had: The endpoint whose slot is free now, where another one brought the result.
        """
        if delivery.task_id is not None:
            self.in_hand.pop(delivery.task_id, None)
        box = self.boxes.get(delivery.mailbox)
        box.line.free(delivery)
        if delivery.lane is not None:
            box.stir()  # the next of its key may be in the store only
        self._count(delivery)
        self._work_on(delivery, box, had or delivery.endpoint)

    def _work_on(self, delivery: Delivery, box: Mailbox, endpoint: str | None) -> None:
        """A slot and perhaps a lane are free: hand over what may use them."""
        link = self._links.get(endpoint or delivery.mailbox)
        if link is not None:
            self.pump_link(link)
        if link is None or link.endpoint.pull or box.name != endpoint:
            self.pump(box)

    def _leave_hand(self, delivery: Delivery) -> str:
        """Free the slot a delivery held; returns the adapter's name for metrics."""
        address = delivery.endpoint or delivery.mailbox
        link = self._links.get(address)
        if link is not None:
            link.in_flight.pop(delivery.id, None)
            link.overtime.pop(delivery.id, None) if delivery.state is DeliveryState.DONE else None
            link.idle_since_us = self.clock.now_us()
            drained = self._drained
            if drained is not None and not drained.done() and not self._under_way():
                drained.set_result(None)
        return address.split(".", 1)[0]

    def _under_way(self) -> bool:
        return any(link.in_flight for link in self._links.values())

    def _count(self, delivery: Delivery) -> None:
        adapter = (delivery.endpoint or delivery.mailbox).split(".", 1)[0]
        if adapter.startswith("pool:"):
            adapter = "pool"
        assert delivery.outcome is not None
        self.metrics.deliveries[adapter, delivery.outcome].inc()
        if delivery.outcome is Outcome.DELIVERED:
            took_s = max(0, delivery.updated_us - delivery.created_us) / 1e6
            self.metrics.delivery_seconds[adapter].observe(took_s)
        trace_end(self.tracer, delivery)
        if self._after_delivery is not None:
            self._after_delivery(delivery)


def deadline_of(delivery: Delivery, *, now_us: int) -> int | None:
    """Return until when it may wait: the envelope's expiry, or its wait in the queue from now."""
    expires_us = delivery.envelope.expires_us
    if not delivery.wait_us:
        return expires_us
    waited_us = now_us + delivery.wait_us
    return waited_us if expires_us is None else min(expires_us, waited_us)


def expiry_reason(delivery: Delivery) -> str:
    """Return why a deadline ended a delivery."""
    expires_us = delivery.envelope.expires_us
    if expires_us is not None and delivery.deadline_us == expires_us:
        return "expires"
    return "no_eligible_node" if delivery.leased else "hold"


def _has_another(delivery: Delivery, address: str) -> bool:
    """Tell whether an endpoint has, or had, the same envelope by another delivery."""
    return any(
        other is not delivery and address in (other.endpoint, other.mailbox)
        for other in delivery.siblings
    )


def _plain(delivery: Delivery) -> bool:
    return not delivery.leased


def _load(link: EndpointLink) -> tuple[int, int]:
    return (len(link.in_flight) + len(link.overtime), link.idle_since_us)
