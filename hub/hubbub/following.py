"""What the hub itself publishes because of a delivery: results, changes of state, new runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from hubbub.clock import Ids
from hubbub.delivery import DeliveryRoom
from hubbub.envelope import TASK_UPDATE, Envelope
from hubbub.planning import Plan, Planner
from hubbub.ports import Clock, Planned, Record, Stored
from hubbub.routing import RoutingTable
from hubbub.spaces import Spaces
from hubbub.tasks import (
    TaskRequest,
    new_run,
    new_task,
    read_request,
    result_envelope,
    task_subject,
    update_envelope,
)
from hubbub.values import Delivery, DeliveryState, Receipt, Task

__all__ = ["Following", "Tap", "Taps"]

Tap = Callable[[Envelope], None]
"""Looks at every envelope that was accepted; it is no endpoint."""

SOURCE: Final = "hub.tasks"


class Taps:
    """Everybody who watches live."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self._quiet = 0

    def __bool__(self) -> bool:
        return bool(self._taps)

    @property
    def wanting(self) -> bool:
        """Whether anybody watches for whom an envelope is made that nobody else wants."""
        return len(self._taps) > self._quiet

    def add(self, tap: Tap, *, quiet: bool = False) -> Callable[[], None]:
        """Look at every accepted envelope; returns what ends that.

        Args:
            quiet: Only counts; nothing need be published for it.
        """
        self._taps.append(tap)
        self._quiet += quiet

        def forget() -> None:
            self._taps.remove(tap)
            self._quiet -= quiet

        return forget

    def show(self, envelope: Envelope) -> None:
        """Show an envelope to all who watch."""
        for tap in self._taps:
            tap(envelope)


class Following:
    """Plans what follows from deliveries (`delivery.room.Follow`)."""

    def __init__(
        self,
        *,
        clock: Clock,
        ids: Ids,
        table: RoutingTable,
        planner: Planner,
        room: DeliveryRoom,
        spaces: Spaces,
        taps: Taps,
        publish: Callable[[Envelope], None],
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._table = table
        self._planner = planner
        self._room = room
        self._spaces = spaces
        self._taps = taps
        self._publish = publish

    def wanted(self, subject: str, envelope_type: str) -> bool:
        """Tell whether a route or somebody live may want an envelope of this subject and type."""
        return self._taps.wanting or self._table.any_match(subject, envelope_type)

    def planned(
        self,
        envelope: Envelope,
        seq: int,
        plan: Plan,
        request: TaskRequest | None,
        *,
        durable: bool,
    ) -> Planned:
        """Return what step 9 keeps and step 10 hands over, places being reserved."""
        kept = [delivery for delivery in plan.deliveries if delivery.durable]
        record = Record(rows=plan.rows)
        if kept or (durable and not plan.deliveries):
            record.envelopes.append(Stored(envelope, seq, plan.reason))
            record.deliveries = kept
        receipt = Receipt(
            id=envelope.id,
            trace_id=envelope.trace_id,
            outcome="accepted" if plan.deliveries else "unrouted",
            deliveries=len(plan.deliveries),
            reason=plan.reason,
            task_id=request.task_id if request else None,
        )
        deliveries = plan.deliveries
        results: tuple[Envelope, ...] = ()
        if request is not None:
            first = deliveries[0]
            task = new_task(envelope, request, first, seq=seq)
            first.task = task
            record.tasks.append(task)
            if first.state is DeliveryState.DONE:
                failed = self.result(task, first)
                record.merge(failed.record)
                deliveries = [*deliveries, *failed.deliveries]
                results = failed.results
        return Planned(record, deliveries, receipt, results)

    def result(self, task: Task, delivery: Delivery) -> Planned:
        """Return the result's envelope, already routed: to the asker, and by the table."""
        said = result_envelope(task, source=delivery.endpoint or SOURCE)
        envelope = self._stamped(said, delivery)
        seq = self._ids.seq()
        plan = self._planner.plan(envelope, seq=seq, durable=True, reply_to=task.reply_to)
        self._spaces.reserve_now(plan.deliveries)
        planned = self.planned(envelope, seq, plan, None, durable=True)
        if not planned.record.envelopes:
            planned.record.envelopes.append(Stored(envelope, seq, plan.reason))
        planned.results = (envelope,)
        return planned

    def kept(self, planned: Planned) -> None:
        """Show the results that are in the store now, and hand over what was kept with them."""
        for envelope in planned.results:
            self._taps.show(envelope)
        self._room.accept(planned.deliveries)

    def update(self, task: Task, delivery: Delivery) -> None:
        """Tell a change of state, if a route or somebody live wants to know."""
        if task.state.final or not self.wanted(task_subject(task), TASK_UPDATE):
            return
        envelope = self._stamped(update_envelope(task, source=SOURCE), delivery)
        plan = self._planner.plan(envelope, seq=self._ids.seq(), durable=False)
        # Nothing of it is stored, whatever a route says of durability.
        told = [one for one in plan.deliveries if not one.durable]
        self._spaces.reserve_now(told)
        self._taps.show(envelope)
        self._room.accept(told)

    def answer(self, delivery: Delivery, answer: Envelope) -> None:
        """Publish what `deliver` returned, as the answer to what was delivered."""
        asked = delivery.envelope
        durable = delivery.durable if answer.durable is None else answer.durable
        self._publish(answer.replace(in_reply_to=asked.id, to=(), durable=durable))

    def rerun(
        self, task: Task, delivery: Delivery, attempts: int | None
    ) -> tuple[Planned, Task]:  # fmt: skip
        """Return a new run of a task that ended, already routed by the table as it is now."""
        envelope = delivery.envelope
        request = msgspec.structs.replace(read_request(envelope), task_id=task.id)
        plan = self._planner.plan(envelope, seq=delivery.seq, durable=True, request=request)
        again = plan.deliveries[0]
        again.replay_of = delivery.id
        again.max_attempts = attempts or again.max_attempts
        self._spaces.reserve_now([again])
        queued = new_run(task, again, now_us=self._clock.now_us())
        again.task = queued
        record = Record(deliveries=[again], reruns=[queued], rows=plan.rows)
        deliveries = [again]
        results: tuple[Envelope, ...] = ()
        if queued.state.final:  # it ended before it began: this run has its result too
            failed = self.result(queued, again)
            record.merge(failed.record)
            deliveries += failed.deliveries
            results = failed.results
        receipt = Receipt(
            id=envelope.id,
            trace_id=envelope.trace_id,
            outcome="accepted",
            deliveries=1,
            task_id=task.id,
        )
        return Planned(record, deliveries, receipt, results), queued

    def _stamped(self, envelope: Envelope, delivery: Delivery) -> Envelope:
        """Stamp an envelope that the hub itself sends, on the trace of its cause."""
        return msgspec.structs.replace(
            envelope,
            id=self._ids.ulid(),
            time_us=self._clock.now_us(),
            traceparent=f"00-{delivery.envelope.trace_id}-{self._ids.span()}-01",
            hops=delivery.envelope.hops + 1,
        )
