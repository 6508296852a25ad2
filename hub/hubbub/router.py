"""The router: `publish` is the only way in. Ten steps, numbered where they stand.

 1 limits and scope      intake
 2 claim                 only if the caller gave an id or a key
 3 before_route          nothing when no plugin has it
 4 stamp                 id, source, time, trace, hops
 5 direct, or a reply    `to`, or where the answered envelope came from
 6 match                 routing
 7 targets               planning
 8 plan                  planning, and space reserved here
 9 keep                  engine, when something of it is durable
10 hand over             delivery
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Final

import msgspec

from hubbub.clock import Ids
from hubbub.delivery import DeliveryRoom
from hubbub.delivery.mailbox import Mailbox
from hubbub.envelope import TASK_REQUEST, Envelope, encode_json
from hubbub.errors import (
    DrainingError,
    HubError,
    IdReusedError,
    InvalidError,
    KeyReusedError,
    MailboxFullError,
)
from hubbub.intake import Limits, body_hash, check_envelope, may
from hubbub.observe.metrics import Metrics
from hubbub.observe.tracing import Tracer, parse_traceparent
from hubbub.planning import Plan, Planner
from hubbub.ports import Claim, ClaimKind, Clock, Engine, Kept, Planned, Record, Row, Stored
from hubbub.replies import Origin, Origins
from hubbub.routing import RoutingTable
from hubbub.store.database import Database
from hubbub.store.reads import envelopes as reads
from hubbub.tasks import (
    TaskRequest,
    read_request,
    result_envelope,
    task_subject,
    update_envelope,
)
from hubbub.values import (
    Delivery,
    DeliveryState,
    Outcome,
    Principal,
    Receipt,
    Task,
    TaskState,
)

__all__ = ["Router", "RowsOf", "Tap"]

RowsOf = Callable[[Sequence[Delivery]], Iterable[Row]]
"""Rows of an adapter's own for what was planned."""

Tap = Callable[[Envelope], None]
"""Looks at every envelope that was accepted; it is no endpoint."""

ClaimName = tuple[str, str, str]
Claiming = dict[ClaimName, "asyncio.Future[Claim | None]"]


@dataclass(slots=True)
class _Ready:
    """One envelope after step 8."""

    envelope: Envelope
    planned: Planned
    reserved: list[Mailbox] = field(default_factory=list[Mailbox])


class Router:
    """Puts envelopes into the routing table."""

    def __init__(  # noqa: PLR0913  # the rooms below it, and the seams a test controls
        self,
        *,
        engine: Engine,
        database: Database,
        clock: Clock,
        ids: Ids,
        table: RoutingTable,
        planner: Planner,
        room: DeliveryRoom,
        metrics: Metrics,
        tracer: Tracer,
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._database = database
        self._clock = clock
        self._ids = ids
        self._table = table
        self._planner = planner
        self._room = room
        self._metrics = metrics
        self._tracer = tracer
        self._limits = limits
        self._claiming: Claiming = {}
        self._taps: list[Tap] = []
        self.origins: Final = Origins()
        self.draining = False
        self.before_route: Callable[[Envelope], Envelope] | None = None
        room.follow = self

    # Coming in

    async def publish(
        self,
        envelope: Envelope,
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
    ) -> Receipt:
        """Put one envelope into the table; returns when it is safe.

        Args:
            principal: Who publishes; None for the hub and its adapters, who may do everything.
            rows: Rows to keep in the same commit, given what was planned.

        Raises:
            HubError: refused; nothing was stored that was not acknowledged before.
        """
        return (await self.publish_all((envelope,), principal=principal, rows=rows))[0]

    async def publish_all(
        self,
        envelopes: Sequence[Envelope],
        *,
        principal: Principal | None = None,
        rows: RowsOf | None = None,
        key: str | None = None,
    ) -> list[Receipt]:
        """Put several envelopes into the table, in one commit or not at all.

        Args:
            key: Idempotency key of all of them together.

        Raises:
            HubError: the first reason to refuse; `index` says which member.
        """
        began = perf_counter()
        try:
            if self.draining:
                raise DrainingError
            claims = self._checked(envelopes, principal, key)
            if claims:
                receipts = await self._claimed(claims, envelopes, principal, rows)
            else:
                receipts = await self._admit(envelopes, principal, rows, ())
        except HubError as error:
            self._metrics.envelopes_refused[_adapter(envelopes, principal), error.code].inc()
            raise
        self._metrics.publish_seconds.observe(perf_counter() - began)
        return receipts

    def _checked(
        self, envelopes: Sequence[Envelope], principal: Principal | None, key: str | None
    ) -> list[Claim]:
        """Steps 1 and 2: limits and scope; the names under which this may have come before."""
        claims: list[Claim] = []
        who = principal.name if principal else "hub"
        for index, envelope in enumerate(envelopes):
            try:
                check_envelope(envelope, self._limits)
                if principal is not None:
                    _check_scope(envelope, principal)
                if envelope.id:
                    claims.append(self._claim(who, "id", envelope.id, envelope))
                if envelope.idempotency_key:
                    claims.append(self._claim(who, "key", envelope.idempotency_key, envelope))
                _check_once(claims)
            except InvalidError as error:
                error.index = index
                raise
        if key is not None:
            claims.append(self._claim(who, "key", key, *envelopes))
        return claims

    # Claims: the same id or key is the same act

    def _claim(self, who: str, kind: ClaimKind, name: str, *said: Envelope) -> Claim:
        return Claim(who, kind, name, b"".join(map(body_hash, said)), b"", self._clock.now_us())

    async def _claimed(
        self,
        claims: list[Claim],
        envelopes: Sequence[Envelope],
        principal: Principal | None,
        rows: RowsOf | None,
    ) -> list[Receipt]:
        """Publish under claims; a second arrival waits for the first one and gets its answer."""
        names: list[ClaimName] = [(claim.principal, claim.kind, claim.name) for claim in claims]
        while (busy := next((name for name in names if name in self._claiming), None)) is not None:
            answered = await asyncio.shield(self._claiming[busy])
            if answered is not None:
                return _same_answer(answered, claims[names.index(busy)])
        loop = asyncio.get_running_loop()
        futures: Claiming = {name: loop.create_future() for name in names}
        self._claiming.update(futures)
        answers: list[Claim] = []
        try:
            receipts = await self._admit(envelopes, principal, rows, claims)
            encoded = encode_json(receipts)
            answers = [msgspec.structs.replace(claim, answer=encoded) for claim in claims]
            return receipts
        finally:
            for index, (name, future) in enumerate(futures.items()):
                del self._claiming[name]
                future.set_result(answers[index] if answers else None)

    # Steps 3 to 10

    async def _admit(
        self,
        envelopes: Sequence[Envelope],
        principal: Principal | None,
        rows: RowsOf | None,
        claims: Sequence[Claim],
    ) -> list[Receipt]:
        ready: list[_Ready] = []
        alone = len(envelopes) == 1
        try:
            for envelope in envelopes:
                origin = None
                if envelope.in_reply_to is not None:
                    origin = await self._origin(envelope.in_reply_to)
                one = self._ready(envelope, principal, origin, rows)
                ready.append(one)
                if not self._reserve(one, alone=alone):
                    await self._wait_for_space(one)
        except BaseException:
            self._release(ready)
            raise
        record = ready[0].planned.record
        for other in ready[1:]:
            record.merge(other.planned.record)
        receipts = [one.planned.receipt for one in ready]
        if not (record.envelopes or claims):
            self._accepted(ready)
            return receipts
        if claims:
            answer = encode_json(receipts)
            record.claims = tuple(msgspec.structs.replace(c, answer=answer) for c in claims)
        # Told by the journal, not by this coroutine: whoever waits here may be cancelled.
        kept = await self._engine.keep(record, partial(self._kept, ready))
        if kept.claim is not None:
            return _answer_of(kept.claim, claims)
        if kept.verdict == "exists":
            return [replace(receipt, duplicate=True) for receipt in receipts]
        return receipts

    def _kept(self, ready: list[_Ready], kept: Kept | None) -> None:
        """The commit is done, or was refused: hand over, or give the places back."""
        if kept is not None and kept.verdict == "kept":
            self._accepted(ready)
        else:
            self._release(ready)

    def _ready(
        self,
        envelope: Envelope,
        principal: Principal | None,
        origin: Origin | None,
        rows: RowsOf | None,
    ) -> _Ready:
        """Steps 3 to 8 for one envelope; its places are not reserved yet."""
        stamped = self._stamp(envelope, principal, origin)
        if self.before_route is not None:
            stamped = self._hooked(stamped)
        seq = self._ids.seq()
        request = None
        if stamped.type == TASK_REQUEST:
            stamped, request = self._request(stamped)
        durable = stamped.durable
        if durable is None:
            durable = principal.durable if principal else True
        if stamped.in_reply_to and not stamped.to and request is None:
            plan = self._reply(stamped, origin, seq, durable=durable)
        else:
            plan = self._planner.plan(stamped, seq=seq, durable=durable, request=request)
        planned = self._planned(stamped, seq, plan, request, durable=durable)
        if rows is not None:
            planned.record.rows += rows(plan.deliveries)
        return _Ready(stamped, planned)

    def _stamp(
        self, envelope: Envelope, principal: Principal | None, origin: Origin | None
    ) -> Envelope:
        """Step 4: what the hub says of an envelope."""
        source = envelope.source
        if principal is not None and not ("admin" in principal.scopes and source):
            source = principal.source
        parent = parse_traceparent(envelope.traceparent)
        hops = envelope.hops
        key = envelope.key
        if origin is not None:
            parent = parse_traceparent(origin.traceparent) or parent
            hops = max(hops, origin.hops)
            key = key or origin.key
        trace_id = parent[0] if parent else self._ids.trace()
        return msgspec.structs.replace(
            envelope,
            id=envelope.id or self._ids.ulid(),
            source=source,
            time_us=self._clock.now_us(),
            traceparent=f"00-{trace_id}-{self._ids.span()}-01",
            hops=hops + 1,
            key=key,
        )

    def _hooked(self, envelope: Envelope) -> Envelope:
        """Step 3, on the stamped envelope: plugins see who sent it, and cannot change that."""
        assert self.before_route is not None
        changed = self.before_route(envelope)
        if changed is envelope:
            return envelope
        return msgspec.structs.replace(
            changed,
            id=envelope.id,
            source=envelope.source,
            time_us=envelope.time_us,
            traceparent=envelope.traceparent,
        )

    def _request(self, envelope: Envelope) -> tuple[Envelope, TaskRequest]:
        """Read a task request; one without an id gets one, in its data too."""
        request = read_request(envelope)
        if request.task_id is not None:
            return envelope, request
        task_id = envelope.id
        data = envelope.json()
        assert isinstance(data, dict)
        envelope = envelope.replace(data=encode_json({"task_id": task_id, **data}))
        return envelope, msgspec.structs.replace(request, task_id=task_id)

    async def _origin(self, envelope_id: str) -> Origin | None:
        """Step 5, first half: what an answer answers."""
        found = self.origins.find(envelope_id)
        if found is None:
            stored = await self._database.read(lambda session: reads.one(session, envelope_id))
            found = None if stored is None else Origin.of(stored.envelope)
        return found

    def _reply(self, envelope: Envelope, origin: Origin | None, seq: int, *, durable: bool) -> Plan:
        """Step 5, second half: an answer goes to where the question came from."""
        if origin is None:
            return Plan([], [], "no_origin")
        answer = envelope.replace(to=(origin.address,))
        return self._planner.plan(answer, seq=seq, durable=durable)

    def _reserve(self, one: _Ready, *, alone: bool) -> bool:
        """Step 8, last part: a place in each mailbox, by its policy where it is full.

        Returns:
            False when the publisher has to wait for a place (`wait`, and one delivery only).
        """
        deliveries = one.planned.deliveries
        alone = alone and len(deliveries) == 1
        for delivery in deliveries:
            if delivery.state is DeliveryState.DONE:
                continue
            box = self._room.boxes.get(delivery.mailbox)
            if box.full:
                if alone and box.overflow == "wait":
                    return False
                if not self._make_room(box, delivery, alone=alone):
                    continue
            box.depth += 1
            one.reserved.append(box)
        return True

    async def _wait_for_space(self, one: _Ready) -> None:
        box = self._room.boxes.get(one.planned.deliveries[0].mailbox)
        while box.full:
            await box.wait_for_space()
        box.depth += 1
        one.reserved.append(box)

    def _make_room(self, box: Mailbox, delivery: Delivery, *, alone: bool) -> bool:
        """Do what a full mailbox's policy says; False when it is the new delivery that goes."""
        if box.overflow == "drop_oldest":
            oldest = box.line.head(now_us=self._clock.now_us())
            if oldest is not None:
                self._room.end(oldest, Outcome.DROPPED, "mailbox_full")
                return True
        elif box.overflow != "drop_newest" and alone:
            raise MailboxFullError(mailbox=box.name, limit=box.limit)
        lost = delivery.durable and box.overflow in ("refuse", "wait")
        delivery.state = DeliveryState.DONE
        delivery.outcome = Outcome.DEAD if lost else Outcome.DROPPED
        delivery.reason = "mailbox_full"
        return False

    def _planned(
        self,
        envelope: Envelope,
        seq: int,
        plan: Plan,
        request: TaskRequest | None,
        *,
        durable: bool,
    ) -> Planned:
        """Return what step 9 keeps and step 10 hands over."""
        kept = [delivery for delivery in plan.deliveries if delivery.durable]
        record = Record(rows=plan.rows)
        if kept or (durable and not plan.deliveries):
            record.envelopes.append(Stored(envelope, seq, plan.reason))
            record.deliveries = kept
        deliveries = plan.deliveries
        if request is not None:
            first = deliveries[0]
            task = self._task(envelope, seq, request, first)
            record.tasks.append(task)
            if first.state is DeliveryState.DONE:
                failed = self.result(task, first)
                record.merge(failed.record)
                deliveries = [*deliveries, *failed.deliveries]
        receipt = Receipt(
            id=envelope.id,
            trace_id=envelope.trace_id,
            outcome="accepted" if plan.deliveries else "unrouted",
            deliveries=len(plan.deliveries),
            reason=plan.reason,
            task_id=request.task_id if request else None,
        )
        return Planned(record, deliveries, receipt)

    def _task(self, envelope: Envelope, seq: int, request: TaskRequest, delivery: Delivery) -> Task:
        now_us = envelope.time_us
        dead = delivery.state is DeliveryState.DONE
        task = Task(
            id=request.task_id or envelope.id,
            seq=seq,
            envelope_seq=seq,
            envelope_id=envelope.id,
            task_type=request.task_type,
            asker=envelope.source,
            reply_to=envelope.reply_to,
            state=TaskState.FAILED if dead else TaskState.QUEUED,
            error=delivery.reason if dead else None,
            delivery_id=delivery.id,
            retry_on_failure=request.retry_on_failure,
            trace_id=envelope.trace_id,
            created_us=now_us,
            updated_us=now_us,
            finished_us=now_us if dead else None,
        )
        delivery.task = task
        return task

    def _accepted(self, ready: Sequence[_Ready]) -> None:
        """Step 10, after the commit."""
        for one in ready:
            envelope, planned = one.envelope, one.planned
            adapter = envelope.source.split(".", 1)[0]
            self._metrics.envelopes_accepted[adapter].inc()
            if planned.receipt.outcome == "unrouted":
                self._metrics.envelopes_unrouted[adapter].inc()
            else:
                self.origins.remember(envelope)
            for tap in self._taps:
                tap(envelope)
            self._room.accept(planned.deliveries)
            if planned.record.tasks:
                self._room.tell(planned.deliveries[0])

    def _release(self, ready: Iterable[_Ready]) -> None:
        """Nothing was kept: give the places back."""
        for one in ready:
            for box in one.reserved:
                box.left()
            one.reserved = []

    def wanted(self, subject: str) -> bool:
        """Tell whether a route or somebody live may want an envelope of this subject."""
        return bool(self._taps) or self._table.any_match(subject)

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Look at every accepted envelope; returns what ends that."""
        self._taps.append(tap)
        return lambda: self._taps.remove(tap)

    # What follows from deliveries (delivery.room.Follow)

    def result(self, task: Task, delivery: Delivery) -> Planned:
        """Return the result's envelope, already routed: to the asker, and by the table."""
        envelope = self._following(
            result_envelope(task, source=delivery.endpoint or "hub.tasks"), delivery
        )
        seq = self._ids.seq()
        plan = self._planner.plan(envelope, seq=seq, durable=True, reply_to=task.reply_to)
        self._reserve_now(plan)
        planned = self._planned(envelope, seq, plan, None, durable=True)
        if not planned.record.envelopes:
            planned.record.envelopes.append(Stored(envelope, seq, plan.reason))
        for tap in self._taps:
            tap(envelope)
        return planned

    def update(self, task: Task, delivery: Delivery) -> None:
        """Tell a change of state, if a route or somebody live wants to know."""
        if task.state.final or not self.wanted(task_subject(task)):
            return
        envelope = self._following(update_envelope(task, source="hub.tasks"), delivery)
        plan = self._planner.plan(envelope, seq=self._ids.seq(), durable=False)
        self._reserve_now(plan)
        for tap in self._taps:
            tap(envelope)
        self._room.accept(plan.deliveries)

    def rerun(self, task: Task, delivery: Delivery) -> tuple[Planned, Task]:
        """Return a new run of a task that ended, already routed by the table as it is now."""
        envelope = delivery.envelope
        request = msgspec.structs.replace(read_request(envelope), task_id=task.id)
        plan = self._planner.plan(envelope, seq=delivery.seq, durable=True, request=request)
        again = plan.deliveries[0]
        again.replay_of = delivery.id
        now_us = self._clock.now_us()
        queued = msgspec.structs.replace(
            task,
            state=TaskState.QUEUED,
            run=task.run + 1,
            delivery_id=again.id,
            endpoint=None,
            attempt=0,
            result=None,
            error=None,
            updated_us=now_us,
            finished_us=None,
        )
        if again.state is DeliveryState.DONE:
            queued = msgspec.structs.replace(
                queued, state=TaskState.FAILED, error=again.reason, finished_us=now_us
            )
        again.task = queued
        self._reserve_now(plan)
        record = Record(deliveries=[again], reruns=[queued], rows=plan.rows)
        receipt = Receipt(
            id=envelope.id,
            trace_id=envelope.trace_id,
            outcome="accepted",
            deliveries=1,
            task_id=task.id,
        )
        return Planned(record, [again], receipt), queued

    def _following(self, envelope: Envelope, delivery: Delivery) -> Envelope:
        """Stamp an envelope that the hub itself sends because of a delivery, on its trace."""
        return msgspec.structs.replace(
            envelope,
            id=self._ids.ulid(),
            time_us=self._clock.now_us(),
            traceparent=f"00-{delivery.envelope.trace_id}-{self._ids.span()}-01",
            hops=delivery.envelope.hops + 1,
        )

    def _reserve_now(self, plan: Plan) -> None:
        """Reserve places for what the hub itself sends; it never waits and is never refused."""
        for delivery in plan.deliveries:
            if delivery.state is not DeliveryState.DONE:
                box = self._room.boxes.get(delivery.mailbox)
                if not box.full or self._make_room(box, delivery, alone=False):
                    box.depth += 1


def _check_once(claims: Sequence[Claim]) -> None:
    if len({(claim.kind, claim.name) for claim in claims}) < len(claims):
        raise InvalidError("this id or idempotency key stands in the batch twice")


def _check_scope(envelope: Envelope, principal: Principal) -> None:
    if envelope.to:
        for address in envelope.to:
            may(principal, "direct", address)
    else:
        may(principal, "publish", envelope.subject)


def _adapter(envelopes: Sequence[Envelope], principal: Principal | None) -> str:
    source = principal.source if principal else envelopes[0].source if envelopes else "hub"
    return source.split(".", 1)[0]


_read_receipts = msgspec.json.Decoder(list[Receipt]).decode


def _same_answer(first: Claim, again: Claim) -> list[Receipt]:
    """Return the first one's receipts, if the same was said.

    Raises:
        IdReusedError, KeyReusedError: another body.
    """
    if first.body_hash != again.body_hash:
        raise IdReusedError(envelope_id=first.name) if first.kind == "id" else KeyReusedError()
    return [replace(receipt, duplicate=True) for receipt in _read_receipts(first.answer)]


def _answer_of(found: Claim, claims: Sequence[Claim]) -> list[Receipt]:
    mine = next(c for c in claims if (c.kind, c.name) == (found.kind, found.name))
    return _same_answer(found, mine)
