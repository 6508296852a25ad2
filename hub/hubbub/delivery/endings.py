"""Again, or the end: what becomes of a delivery that was handed over, or waits no longer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from hubbub.delivery.links import EndpointLink
from hubbub.delivery.mailbox import Mailbox
from hubbub.delivery.rules import NODE_LOST, WITHDRAWN, deadline_of, ended_as, expiry_reason
from hubbub.delivery.spans import retry_record, sent_record, trace_end, trace_retry
from hubbub.ports import Change, Planned
from hubbub.tasks import after
from hubbub.values import Delivery, DeliveryState, Outcome, Task

if TYPE_CHECKING:
    from hubbub.delivery.room import DeliveryRoom

__all__ = ["Endings", "Memory"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Memory:
    """What an end changes of a delivery, so that it can be undone where it is not written.

    Attributes:
        link: Where it was in flight; None where a worker had pulled it, or it waited.
        unseen: The peer was not handed it, and will not be: its courier found that it had ended.
    """

    state: DeliveryState
    endpoint: str | None
    lease_until_us: int | None
    task: Task | None
    link: EndpointLink | None
    unseen: bool = False


class Endings:
    """Ends deliveries, or puts them back into their mailboxes.

    Attributes:
        drained: Resolved once nothing is under way any more; None while the hub runs.
        unwritten: What ended, and is as it was before if that cannot be written; by id.
    """

    def __init__(
        self, room: DeliveryRoom, after_delivery: Callable[[Delivery], None] | None
    ) -> None:
        self._room = room
        self._after_delivery = after_delivery
        self.drained: asyncio.Future[None] | None = None
        self.unwritten: Final[dict[int, Memory]] = {}

    def failed(self, delivery: Delivery, reason: str, *, due_us: int) -> None:
        """An attempt failed by its endpoint: again, or the end.

        The probe of a breaker is no attempt of its delivery. It is due after the next probe, so
        that another one is tried before it: it may be this very message that cannot be taken.
        """
        wait_s = self._room.guards.failed(delivery)
        if wait_s is None:
            self.again(delivery, reason, due_us=due_us)
            return
        delivery.attempts -= 1
        due_us += math.ceil(wait_s * 1e6)
        self.again(delivery, reason, due_us=due_us, counted=False)

    def again(
        self,
        delivery: Delivery,
        reason: str,
        *,
        due_us: int,
        counted: bool = True,
        seen: bool = True,
    ) -> None:
        """Put a delivery that was in flight back into its mailbox, or end it when it had enough.

        Args:
            counted: It was an attempt.
            seen: The endpoint may have done it, so that its result is still welcome.
        """
        delivery.last_error = reason
        if counted and delivery.attempts >= delivery.max_attempts:
            self.end(delivery, Outcome.DEAD, reason)
            return
        endpoint = delivery.endpoint
        adapter = self._leave_hand(delivery)
        if delivery.task_id is not None:
            self._room.in_hand.pop(delivery.task_id, None)
        now_us = self._room.clock.now_us()
        box = self._room.boxes.get(delivery.mailbox)
        delivery.state = DeliveryState.PENDING
        delivery.due_us = due_us
        delivery.lease_until_us = None
        delivery.pulled_by = None
        delivery.credential = ""
        delivery.updated_us = now_us
        delivery.deadline_us = deadline_of(delivery, now_us=now_us)
        if box.requirement is not None and (counted or not seen):
            delivery.endpoint = None
        if delivery.task is not None:
            self._retry_task(delivery, delivery.task, reason, adapter)
        else:
            self._room.metrics.delivery_retries[adapter].inc()
            trace_retry(self._room.tracer, delivery, reason)
            if delivery.durable:
                follows = retry_record(delivery, reason)
                self._room.engine.note(Change(delivery=delivery, follows=follows))
        delivery.sent_us = None
        box.depth += 1
        box.line.back(delivery, now_us=now_us)
        if due_us > now_us:
            self._room.pump_at(due_us, box.name)
        self._work_on(delivery, box, endpoint)

    def _retry_task(self, delivery: Delivery, task: Task, reason: str, adapter: str) -> None:
        """Write that a task waits again; it is counted and told after that commit."""
        queued = delivery.task = after(task, delivery, now_us=delivery.updated_us)
        ended, error = ended_as(reason)
        follows = retry_record(delivery, reason)

        def then(counted: bool) -> None:
            if counted:
                self._room.metrics.delivery_retries[adapter].inc()
                self._room.tell(delivery, queued)

        change = Change(delivery=delivery, task=queued, ended=ended, error=error, follows=follows)
        self._room.engine.note(change, then)

    def expire(self, delivery: Delivery) -> None:
        """End a delivery whose deadline has passed while it waited."""
        if delivery.state is DeliveryState.PENDING:
            self.end(delivery, Outcome.EXPIRED, expiry_reason(delivery))

    def end(self, delivery: Delivery, outcome: Outcome, reason: str | None) -> None:
        """End a delivery that nobody waits for; its outcome goes with the next commit."""
        if delivery.state is DeliveryState.DONE:
            return
        self.forget(delivery)
        now_us = self._room.clock.now_us()
        delivery.state = DeliveryState.DONE
        delivery.outcome = outcome
        delivery.reason = reason
        delivery.lease_until_us = None
        delivery.updated_us = now_us
        if delivery.task is not None:
            self._end_task(delivery, delivery.task, reason)
        else:
            delivery.siblings = ()
            if delivery.durable:
                self._room.engine.note(
                    Change(delivery=delivery, follows=sent_record(delivery)),
                    lambda _: self._room.boxes.written(delivery),
                )
            self.count(delivery)
        self.freed(delivery)

    def _end_task(self, delivery: Delivery, before: Task, reason: str | None) -> None:
        """Write the end of a task; it is counted and its result handed over after that commit."""
        task = delivery.task = after(before, delivery, now_us=delivery.updated_us)
        follow = self._room.follow
        assert follow is not None
        planned = follow.result(task, delivery)

        def then(counted: bool) -> None:
            self._room.boxes.written(delivery)
            if counted:
                self.count(delivery)
                follow.kept(planned)
            else:
                self.release(planned)

        ended, error = ended_as(reason)
        if ended == "rejected":
            error = delivery.last_error
        change = Change(
            delivery=delivery, task=task, ended=ended, error=error, follows=planned.record
        )
        self._room.engine.note(change, then)

    def born_done(self, delivery: Delivery) -> None:
        """Count what was done when it was planned: it could not be, or rows were its taking."""
        self.count(delivery)
        known = self._room.directory.get(delivery.mailbox)
        if delivery.outcome is not Outcome.DELIVERED or known is None:
            return
        try:
            known.endpoint.recorded(delivery.envelope)
        except Exception:
            self._room.metrics.plugin_errors[known.endpoint.adapter, "recorded"].inc()
            log.exception("delivery.recorded_failed", endpoint=known.address)

    def forget(self, delivery: Delivery) -> None:
        """Take a delivery out of wherever it is in memory: its mailbox, a link, a lease."""
        box = self._room.boxes.get(delivery.mailbox)
        if delivery.state is DeliveryState.PENDING:
            if delivery in box.line:
                box.line.drop(delivery)
            elif delivery.durable:
                self._room.engine.hold(delivery)
                self._room.boxes.here[delivery.id] = delivery
                box.not_behind(1)
            box.left()
        else:
            self._leave_hand(delivery)

    def release(self, planned: Planned) -> None:
        """Give back the space of what was planned and not kept."""
        for delivery in planned.deliveries:
            if self._room.promises.break_off(delivery):
                continue  # its place was given back when it was promised
            if delivery.state is not DeliveryState.DONE:
                self._room.boxes.get(delivery.mailbox).left()

    def put_back(self, delivery: Delivery) -> None:
        """Undo `taken`: nobody saw the delivery, the attempt does not count."""
        self._leave_hand(delivery)
        if delivery.task_id is not None:
            self._room.in_hand.pop(delivery.task_id, None)
        box = self._room.boxes.get(delivery.mailbox)
        delivery.state = DeliveryState.PENDING
        delivery.attempts -= 1
        delivery.lease_until_us = None
        delivery.pulled_by = None
        delivery.credential = ""
        if box.requirement is not None:
            delivery.endpoint = None  # else others of its envelope would keep away from there
        if delivery.task is not None:
            delivery.task = after(delivery.task, delivery, now_us=self._room.clock.now_us())
        box.depth += 1
        box.line.back(delivery, now_us=self._room.clock.now_us())

    def suspend(self, delivery: Delivery) -> Memory:
        """Take a delivery out of memory for an end that may not be written."""
        link = self._room.link_of(delivery.endpoint or "")
        memory = self.unwritten[delivery.id] = Memory(
            delivery.state,
            delivery.endpoint,
            delivery.lease_until_us,
            delivery.task,
            link if link is not None and delivery.id in link.in_flight else None,
        )
        self.forget(delivery)
        return memory

    def restore(self, delivery: Delivery) -> None:
        """Undo `suspend` and an end that could not be written: it is as it was.

        What was lost with its link meanwhile, or not handed over, is tried again.
        """
        memory = self.unwritten.pop(delivery.id)
        delivery.state, delivery.endpoint = memory.state, memory.endpoint
        delivery.lease_until_us, delivery.task = memory.lease_until_us, memory.task
        delivery.outcome = delivery.reason = None
        now_us = self._room.clock.now_us()
        link = memory.link
        if delivery.state is DeliveryState.PENDING:
            box = self._room.boxes.get(delivery.mailbox)
            box.depth += 1
            box.line.add(delivery, now_us=now_us)
            self._room.pump(box)  # its time may have come, or a slot, while it was not there
        elif memory.unseen:
            delivery.attempts -= 1
            self.again(delivery, WITHDRAWN, due_us=now_us, counted=False, seen=False)
        elif link is not None and link.closed:
            self.again(delivery, NODE_LOST, due_us=now_us)
        else:
            if link is not None:
                self._room.hands.take(delivery, link.account)
                link.in_flight[delivery.id] = delivery
                link.overtime.pop((delivery.id, delivery.attempts), None)  # one slot, not two
            if delivery.lease_until_us is not None:
                self._room.leases.watch(delivery)

    def freed(self, delivery: Delivery, had: str | None = None) -> None:
        """After an end: let the next of its lane go, and what waits for the slot.

        Args:
            had: The endpoint whose slot is free now, where another one brought the result.
        """
        if delivery.task_id is not None:
            self._room.in_hand.pop(delivery.task_id, None)
        box = self._room.boxes.get(delivery.mailbox)
        box.free(delivery)
        self._work_on(delivery, box, had or delivery.endpoint)

    def _work_on(self, delivery: Delivery, box: Mailbox, endpoint: str | None) -> None:
        """A slot and perhaps a lane are free: hand over what may use them."""
        link = self._room.link_of(endpoint or delivery.mailbox)
        if link is not None:
            self._room.pump_link(link)
        # In a pool the slot has been used; what is free beside it is the lane, for other members.
        if link is None or link.endpoint.pull or (delivery.lane and box.name != endpoint):
            self._room.pump(box)

    def _leave_hand(self, delivery: Delivery) -> str:
        """Free the slot a delivery held; returns the adapter's name for metrics."""
        address = delivery.endpoint or delivery.mailbox
        self._room.hands.leave(delivery)
        self._room.guards.left(delivery)
        self._room.leases.left(delivery, address)
        link = self._room.link_of(address)
        if link is not None:
            link.in_flight.pop(delivery.id, None)
            link.idle_since_us = self._room.clock.now_us()
            self._room.freed(link)
        self.look_drained()  # also where it was lost with its link
        return address.split(".", 1)[0]

    def look_drained(self) -> None:
        """Tell who waits for it that nothing is under way any more."""
        drained = self.drained
        if drained is not None and not drained.done() and not self.under_way():
            drained.set_result(None)

    def under_way(self) -> bool:
        """Tell whether an endpoint has something in hand, or on its way to it."""
        return any(link.in_flight or link.promised for link in self._room.links())

    def count_delivered(self, deliveries: Sequence[Delivery]) -> None:
        """Count what was delivered in one go; mostly one envelope at many endpoints."""
        metrics = self._room.metrics
        first = deliveries[0]
        alike: dict[tuple[str, int], int] = {}
        for delivery in deliveries:
            adapter = delivery.mailbox.split(".", 1)[0]
            key = (adapter, delivery.created_us)
            alike[key] = alike.get(key, 0) + 1
            trace_end(self._room.tracer, delivery)
            if self._after_delivery is not None:
                self._after_delivery(delivery)
        for (adapter, created_us), times in alike.items():
            metrics.deliveries[adapter, Outcome.DELIVERED].inc(times)
            took_s = max(0, first.updated_us - created_us) / 1e6
            metrics.delivery_seconds[adapter].observe(took_s, times=times)

    def count(self, delivery: Delivery) -> None:
        """Count an outcome, and tell the plugins; of a task after the commit that holds it."""
        adapter = (delivery.endpoint or delivery.mailbox).split(".", 1)[0]
        if adapter.startswith("pool:"):
            adapter = "pool"
        assert delivery.outcome is not None
        self._room.metrics.deliveries[adapter, delivery.outcome].inc()
        if delivery.outcome is Outcome.DELIVERED:
            took_s = max(0, delivery.updated_us - delivery.created_us) / 1e6
            self._room.metrics.delivery_seconds[adapter].observe(took_s)
        trace_end(self._room.tracer, delivery)
        if self._after_delivery is not None:
            self._after_delivery(delivery)
