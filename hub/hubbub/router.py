"""The router: `publish` is the only way in. Ten steps, numbered where they stand.

 1 limits and scope      intake
 2 claim                 claims, only if the caller gave an id or a key
 3 before_route          nothing when no plugin has it
 4 stamp                 id, source, time, trace, hops
 5 direct, or a reply    `to`, or where the answered envelope came from
 6 match                 routing
 7 targets               planning
 8 plan                  planning; places reserved in spaces
 9 keep                  engine, when something of it is durable
10 hand over             delivery
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final

import msgspec
import structlog

from hubbub.claims import Claims, Said, answer_of, said_by, with_answers
from hubbub.clock import Ids
from hubbub.delivery import DeliveryRoom
from hubbub.envelope import TASK_REQUEST, Envelope, encode_json
from hubbub.errors import (
    DeadlineError,
    DrainingError,
    HubError,
    InvalidError,
    NoEndpointError,
    UnavailableError,
)
from hubbub.following import Following, Tap, Taps
from hubbub.intake import Limits, check_envelope, may
from hubbub.observe.metrics import Metrics
from hubbub.observe.tracing import Tracer, parse_traceparent
from hubbub.planning import Plan, Planner
from hubbub.ports import Clock, Engine, Kept, Planned, Record, Row
from hubbub.replies import Origin, Origins, Waiters
from hubbub.routing import RoutingTable
from hubbub.sources import SourceGuard, Sources
from hubbub.spaces import Spaces
from hubbub.store.database import Database
from hubbub.store.reads import envelopes as reads
from hubbub.tasks import TaskRequest, read_request
from hubbub.values import Delivery, DeliveryState, Outcome, Principal, Receipt

__all__ = ["Router", "RowsOf"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

RowsOf = Callable[[Sequence[Delivery]], Iterable[Row]]
"""Rows of an adapter's own for what was planned."""


@dataclass(slots=True)
class _Ready:
    """One envelope after step 8, its places reserved."""

    envelope: Envelope
    planned: Planned


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
        sources: Sources,
    ) -> None:
        self._engine = engine
        self._database = database
        self._clock = clock
        self._ids = ids
        self._planner = planner
        self._room = room
        self._metrics = metrics
        self._limits = limits
        self._claims = Claims(database)
        self._tracer = tracer
        self._taps = Taps()
        self._spaces = Spaces(room)
        self._following = Following(
            clock=clock,
            ids=ids,
            table=table,
            planner=planner,
            room=room,
            spaces=self._spaces,
            taps=self._taps,
            publish=self._publish_soon,
        )
        self.sources: Final = sources
        self.origins: Final = Origins()
        self.waiters: Final = Waiters()
        self.draining = False
        self.before_route: Callable[[Envelope], Envelope] | None = None
        room.follow = self._following

    def _publish_soon(self, envelope: Envelope) -> None:
        """Publish what an endpoint answered, if somebody waits for it.

        A refusal is logged: the one who delivered has gone on.
        """
        if not self.waiters.waits_for(envelope):
            return

        async def publish() -> None:
            try:
                await self.publish(envelope)
            except HubError as error:
                log.warning("router.answer_refused", source=envelope.source, error=str(error))

        self._room.spawn(publish())

    def limit(self, limits: Limits) -> None:
        """Hold everybody to other limits from now on."""
        self._limits = limits

    def wanted(self, subject: str, envelope_type: str) -> bool:
        """Tell whether a route or somebody live may want an envelope of this subject and type."""
        return self._following.wanted(subject, envelope_type)

    def tap(self, tap: Tap, *, quiet: bool = False) -> Callable[[], None]:
        """Look at every accepted envelope; returns what ends that."""
        return self._taps.add(tap, quiet=quiet)

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

    def publish_now(
        self, envelope: Envelope, *, principal: Principal
    ) -> Receipt | Callable[[], Awaitable[Receipt]]:
        """Put one envelope into the table as `publish` does, at once where nothing is waited for.

        Returns:
            The receipt of a volatile envelope, which has been handed over; else what to call, and
            to await, for it.

        Raises:
            HubError: refused.
        """
        durable = principal.durable if envelope.durable is None else envelope.durable
        waits = durable or envelope.type == TASK_REQUEST or _is_named(envelope)
        if waits or self.draining or self.sources.active:
            return partial(self.publish, envelope, principal=principal)
        began = perf_counter()
        try:
            self._checked((envelope,), principal, None, None)
            now_us = self._clock.now_us()
            stamped = self._stamp(envelope, principal, None, now_us)
            if self.before_route is not None:
                stamped = self._hooked(stamped)
            seq = self._ids.seq(now_us)
            plan = self._planner.plan(stamped, seq=seq, durable=False, now_us=now_us)
            if not self._spaces.reserve_at_once(plan.deliveries):
                return partial(self._publish_planned, stamped, seq, plan)
        except HubError as error:
            self._metrics.envelopes_refused[_adapter((), principal), error.code].inc()
            raise
        planned = self._following.planned(stamped, seq, plan, None, durable=False)
        self._accepted((_Ready(stamped, planned),))
        self._metrics.publish_seconds.observe(perf_counter() - began)
        return planned.receipt

    async def _publish_planned(self, envelope: Envelope, seq: int, plan: Plan) -> Receipt:
        """Go on with what a route wants stored, or a mailbox lets wait."""
        try:
            await self._spaces.reserve(plan.deliveries, alone=True)
            planned = self._following.planned(envelope, seq, plan, None, durable=False)
            return (await self._keep([_Ready(envelope, planned)], ()))[0]
        except HubError as error:
            self._metrics.envelopes_refused[envelope.source.split(".", 1)[0], error.code].inc()
            raise

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
        guard = self.sources.guard_of(envelopes, principal) if self.sources.active else None
        if guard is not None:
            guard.under_way += 1
        try:
            if self.draining:
                raise DrainingError
            claims = self._checked(envelopes, principal, key, guard)
            if claims:
                admit = partial(self._admit_some, envelopes, principal, rows, claims)
                receipts = await self._claims.publish(claims, len(envelopes), admit)
            else:
                receipts = await self._admit(envelopes, principal, rows, ())
        except HubError as error:
            self._metrics.envelopes_refused[_adapter(envelopes, principal), error.code].inc()
            raise
        finally:
            if guard is not None:
                guard.under_way -= 1
        self._metrics.publish_seconds.observe(perf_counter() - began)
        return receipts

    async def request(
        self,
        envelope: Envelope,
        *,
        timeout_s: float,
        principal: Principal | None = None,
    ) -> Envelope:
        """Publish and wait for one answer: no store, one hop.

        The answer is an envelope whose `in_reply_to` is the request's id, or what the first
        endpoint's `deliver` returned.

        Raises:
            NoEndpointError: nobody is there to be asked.
            DeadlineError: no answer in time.
            HubError: refused.
        """
        sources = self.sources
        guard = sources.guard_of((envelope,), principal) if sources.active else None
        if guard is None:
            return await self._ask(envelope, timeout_s, principal, None)
        guard.under_way += 1
        try:
            return await self._ask(envelope, timeout_s, principal, guard)
        finally:
            guard.under_way -= 1

    async def _ask(
        self,
        envelope: Envelope,
        timeout_s: float,
        principal: Principal | None,
        guard: SourceGuard | None,
    ) -> Envelope:
        asked = envelope.replace(
            id=envelope.id or self._ids.ulid(),
            durable=False,
            expires_us=self._clock.now_us() + int(timeout_s * 1e6),
        )
        if self.draining:
            raise DrainingError
        check_envelope(asked, self._limits)
        if principal is not None:
            _check_scope(asked, principal)
        if guard is not None:
            guard.check((asked,), now_s=self._clock.now_us() / 1e6)
        answer = self.waiters.open(asked.id)
        timer = self._clock.call_at(asked.expires_us or 0, partial(_give_up, answer, timeout_s))
        try:
            one = await self._ready(asked, principal, None, alone=False)
            if all(delivery.state is DeliveryState.DONE for delivery in one.planned.deliveries):
                raise NoEndpointError(
                    f"nobody is there who takes {asked.subject!r}; `hubbub routes test` shows "
                    "where it would go"
                )
            self._accepted([one])
            if not answer.done():
                _check_handed_over(one)
            return await answer
        finally:
            timer.cancel()
            self.waiters.close(asked.id)

    def _checked(
        self,
        envelopes: Sequence[Envelope],
        principal: Principal | None,
        key: str | None,
        guard: SourceGuard | None,
    ) -> list[Said]:
        """Steps 1 and 2: limits, scope, rate; the names under which this may have come before."""
        named = key is not None
        for index, envelope in enumerate(envelopes):
            try:
                check_envelope(envelope, self._limits)
                if principal is not None:
                    _check_scope(envelope, principal)
            except InvalidError as error:
                error.index = index
                raise
            named = named or bool(envelope.id or envelope.idempotency_key)
        if guard is not None:
            guard.check(envelopes, now_s=self._clock.now_us() / 1e6)
        if not named:
            return []
        who = principal.source if principal else "hub"
        return said_by(envelopes, key=key, principal=who, at_us=self._clock.now_us())

    async def _admit_some(
        self,
        envelopes: Sequence[Envelope],
        principal: Principal | None,
        rows: RowsOf | None,
        claims: Sequence[Said],
        places: Sequence[int],
    ) -> list[Receipt]:
        """Admit the members with these places, and the claims that are about them."""
        if len(places) == len(envelopes):
            return await self._admit(envelopes, principal, rows, claims)
        moved = {place: index for index, place in enumerate(places)}
        about = [
            replace(said, member=moved[said.member]) for said in claims if said.member in moved
        ]
        return await self._admit([envelopes[p] for p in places], principal, rows, about)

    async def _admit(
        self,
        envelopes: Sequence[Envelope],
        principal: Principal | None,
        rows: RowsOf | None,
        claims: Sequence[Said],
    ) -> list[Receipt]:
        """Steps 3 to 8, then the rest."""
        ready: list[_Ready] = []
        try:
            for envelope in envelopes:
                ready.append(  # noqa: PERF401  # what is reserved so far is given back on failure
                    await self._ready(envelope, principal, rows, alone=len(envelopes) == 1)
                )
        except BaseException as error:
            if isinstance(error, InvalidError):
                error.index = len(ready)
            self._kept(ready, None)
            raise
        return await self._keep(ready, claims)

    async def _keep(self, ready: list[_Ready], claims: Sequence[Said]) -> list[Receipt]:
        """Steps 9 and 10."""
        record = ready[0].planned.record
        for other in ready[1:]:
            record.merge(other.planned.record)
        receipts = [one.planned.receipt for one in ready]
        if not (record.envelopes or claims):
            self._accepted(ready)
            return receipts
        if claims:
            record.claims = with_answers(claims, receipts)
        # Told by the journal, not by this coroutine: whoever waits here may be cancelled.
        kept = await self._engine.keep(record, partial(self._kept, ready))
        if kept.claim is not None:
            return answer_of(kept.claim, claims)
        if kept.verdict == "exists":
            return [msgspec.structs.replace(one, duplicate=True) for one in receipts]
        return receipts

    async def _ready(
        self,
        envelope: Envelope,
        principal: Principal | None,
        rows: RowsOf | None,
        *,
        alone: bool,
    ) -> _Ready:
        """Steps 3 to 8 for one envelope."""
        origin = None
        if envelope.in_reply_to is not None:
            if self.waiters.is_over(envelope.in_reply_to):
                self._metrics.replies_late.inc()
            origin = await self._origin(envelope.in_reply_to)
        now_us = self._clock.now_us()
        stamped = self._stamp(envelope, principal, origin, now_us)
        if self.before_route is not None:
            stamped = self._hooked(stamped)
        seq = self._ids.seq(now_us)
        request = None
        if stamped.type == TASK_REQUEST:
            stamped, request = self._request(stamped)
        durable = stamped.durable
        if durable is None:
            durable = principal.durable if principal else True
        if stamped.in_reply_to and self.waiters.answer(stamped):
            return _Ready(stamped, _answered(stamped))
        if stamped.in_reply_to and not stamped.to and request is None:
            plan = self._reply(stamped, origin, seq, durable=durable)
        else:
            plan = self._planner.plan(
                stamped, seq=seq, durable=durable, request=request, now_us=now_us
            )
        if rows is not None:
            plan.rows += rows(plan.deliveries)
        await self._spaces.reserve(plan.deliveries, alone=alone)
        return _Ready(
            stamped, self._following.planned(stamped, seq, plan, request, durable=durable)
        )

    def _kept(self, ready: list[_Ready], kept: Kept | None) -> None:
        """The commit is done, or was refused: hand over, or give the places back."""
        if kept is not None and kept.verdict == "kept":
            self._accepted(ready)
            return
        for one in ready:
            self._room.endings.release(one.planned)

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
            if self._taps:
                self._taps.show(envelope)
            if not planned.record.envelopes:  # else its row tells it
                detail = {
                    "envelope": envelope.id,
                    "subject": envelope.subject,
                    "source": envelope.source,
                }
                self._tracer.step(
                    envelope.trace_id, "envelope.accepted", envelope.time_us, 0, detail
                )
            self._room.accept(planned.deliveries)
            if planned.record.tasks:
                self._room.tell(planned.deliveries[0])

    def _stamp(
        self, envelope: Envelope, principal: Principal | None, origin: Origin | None, now_us: int
    ) -> Envelope:
        """Step 4: what the hub says of an envelope."""
        source = envelope.source
        if principal is not None and not ("admin" in principal.scopes and source):
            source = principal.source
        parent = parse_traceparent(envelope.traceparent) if envelope.traceparent else None
        hops = envelope.hops
        key = envelope.key
        if origin is not None:
            parent = parse_traceparent(origin.traceparent) or parent
            hops = max(hops, origin.hops)
            key = key or origin.key
        trace_id = parent[0] if parent else self._ids.trace()
        return msgspec.structs.replace(
            envelope,
            id=envelope.id or self._ids.ulid(now_us),
            source=source,
            time_us=now_us,
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


def _answered(envelope: Envelope) -> Planned:
    """Return the plan of an answer that somebody waited for: it is there already."""
    receipt = Receipt(envelope.id, envelope.trace_id, "accepted", 1)
    return Planned(Record(), [], receipt)


def _give_up(answer: asyncio.Future[Envelope], timeout_s: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineError(f"no answer came within {timeout_s:g} s"))


def _check_handed_over(one: _Ready) -> None:
    """Tell whoever asks at once that nobody will answer: guards let nothing through just now.

    Raises:
        UnavailableError: with the guards' names.
    """
    dropped = {
        delivery.reason or "" for delivery in one.planned.deliveries
        if delivery.outcome is Outcome.DROPPED
    }  # fmt: skip
    if dropped and all(d.state is DeliveryState.DONE for d in one.planned.deliveries):
        raise UnavailableError(
            f"whoever takes {one.envelope.subject!r} is held back by its guard "
            f"({', '.join(sorted(dropped))}); try again later, `hubbub endpoints` shows the guard"
        )


def _check_scope(envelope: Envelope, principal: Principal) -> None:
    if envelope.to:
        for address in envelope.to:
            may(principal, "direct", address)
    else:
        may(principal, "publish", envelope.subject)


def _is_named(envelope: Envelope) -> bool:
    """Tell whether an envelope may have come before, or answers another one."""
    return bool(envelope.id or envelope.idempotency_key or envelope.in_reply_to)


def _adapter(envelopes: Sequence[Envelope], principal: Principal | None) -> str:
    source = principal.source if principal else envelopes[0].source if envelopes else "hub"
    return source.split(".", 1)[0]
