"""The router: publishing is the only way in. Ten steps, numbered where they stand.

 1 limits and scope      admission, intake
 2 claim                 claims, only if the caller gave an id or a key
 3 before_route          stamping; nothing when no plugin has it
 4 stamp                 stamping: id, source, time, trace, hops
 5 direct, or a reply    admission: `to`, or where the answered envelope came from
 6 match                 routing
 7 targets               planning
 8 plan                  planning; places reserved in spaces
 9 keep                  engine, when something of it is durable
10 hand over             delivery
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Final

import msgspec
import structlog

from hubbub.admission import Admission, Offer, Ready
from hubbub.claims import Claims, Said, answer_of, with_answers
from hubbub.clock import Ids
from hubbub.delivery import DeliveryRoom
from hubbub.envelope import TASK_RESULT, Envelope
from hubbub.errors import DrainingError, HubError, InvalidError
from hubbub.following import Following, Tap, Taps
from hubbub.intake import Limits
from hubbub.memory import MemoryBudget
from hubbub.observe.metrics import Metrics
from hubbub.observe.tracing import Tracer
from hubbub.planning import Planner
from hubbub.ports import Clock, Engine, Kept, RowsOf
from hubbub.replies import Origins, Waiters
from hubbub.rights import OF_WORK, Rights
from hubbub.routing import RoutingTable
from hubbub.sources import Sources
from hubbub.spaces import Spaces
from hubbub.stamping import BeforeRoute, source_of
from hubbub.store.database import Database
from hubbub.values import Principal, Receipt
from hubbub.workers import Workers

__all__ = ["Router"]

Done = Callable[[Receipt | HubError], None]
"""Told what became of a publish."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


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
        rights: Rights,
        workers: Workers,
        memory: MemoryBudget,
    ) -> None:
        self._engine = engine
        self._room = room
        self._metrics = metrics
        self._claims = Claims(database)
        self._tracer = tracer
        self._taps = Taps()
        self._workers = workers
        self.sources: Final = sources
        self.origins: Final = Origins(memory=memory)
        self.waiters: Final = Waiters()
        self.draining = False
        spaces = Spaces(room)
        self._following = room.follow = Following(
            clock=clock,
            ids=ids,
            table=table,
            planner=planner,
            room=room,
            spaces=spaces,
            taps=self._taps,
            answer=self._publish_answer,
            publish=self._publish_beside,
        )
        self.admission: Final = Admission(
            database=database,
            clock=clock,
            ids=ids,
            planner=planner,
            following=self._following,
            spaces=spaces,
            metrics=metrics,
            limits=limits,
            origins=self.origins,
            waiters=self.waiters,
            rights=rights,
            workers=workers,
            memory=memory,
        )

    @property
    def before_route(self) -> BeforeRoute | None:
        """What plugins do to a stamped envelope; None when none does anything."""
        return self.admission.stamper.before_route

    @before_route.setter
    def before_route(self, before_route: BeforeRoute | None) -> None:
        self.admission.stamper.before_route = before_route

    def limit(self, limits: Limits) -> None:
        """Hold everybody to other limits from now on."""
        self.admission.limits = limits

    def wanted(self, subject: str, envelope_type: str) -> bool:
        """Tell whether a route or somebody live may want an envelope of this subject and type."""
        return self._following.wanted(subject, envelope_type)

    def tap(self, tap: Tap, *, quiet: bool = False) -> Callable[[], None]:
        """Look at every accepted envelope; returns what ends that."""
        return self._taps.add(tap, quiet=quiet)

    # Publishing

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
        guard = self.sources.guard_of(envelopes, principal) if self.sources.active else None
        if guard is not None:
            guard.under_way += 1
        result = principal is not None and envelopes[0].type == TASK_RESULT
        try:
            if self.draining and not result:
                raise DrainingError
            claims = self.admission.check(envelopes, principal, key, guard)
            if result:
                assert principal is not None
                receipts = [await self._take_result(envelopes[0], principal)]
            elif claims:
                admit = partial(self._admit_some, envelopes, principal, rows, claims)
                receipts = await self._claims.publish(claims, len(envelopes), admit)
            else:
                receipts = await self._admit(envelopes, principal, rows, ())
        except HubError as error:
            self._refused(envelopes, principal, error)
            raise
        finally:
            if guard is not None:
                guard.under_way -= 1
        self._metrics.publish_seconds.observe(perf_counter() - began)
        return receipts

    def publish_soon(
        self, envelope: Envelope, *, principal: Principal, done: Done
    ) -> asyncio.Future[None] | asyncio.Future[Kept] | None:
        """Put one envelope into the table as `publish` does, for sockets, which wait for nothing.

        Neither what is volatile nor what is durable costs a task this way.

        Args:
            done: Told the receipt once the envelope is safe, or why it was refused.

        Returns:
            What is under way; None when `done` was told before this returned.
        """
        if self.draining or self.sources.active or _is_special(envelope):
            publish = partial(self.publish, envelope, principal=principal)
            return self._room.spawn(_tell(publish, done))
        began = perf_counter()
        try:
            self.admission.check((envelope,), principal, None, None)
            offer = self.admission.offer(envelope, principal)
            if not self.admission.reserve_at_once(offer):
                return self._room.spawn(_tell(partial(self._publish_later, offer), done))
        except HubError as error:
            self._refused((envelope,), principal, error)
            done(error)
            return None
        one = self.admission.ready(offer)
        if not one.planned.record.envelopes:
            self.accept((one,))
            self._metrics.publish_seconds.observe(perf_counter() - began)
            done(one.planned.receipt)
            return None
        kept = asyncio.ensure_future(
            self._engine.keep(one.planned.record, partial(self._kept, (one,)))
        )
        kept.add_done_callback(partial(self._safe, one, began, done))
        return kept

    def _safe(self, one: Ready, began: float, done: Done, kept: asyncio.Future[Kept]) -> None:
        """Tell a publisher whose envelope is in the store, or was refused by it."""
        if kept.cancelled():
            return
        error = kept.exception()
        if error is None:
            self._metrics.publish_seconds.observe(perf_counter() - began)
            done(one.planned.receipt)
        elif isinstance(error, HubError):
            self._refused((one.envelope,), None, error)
            done(error)
        else:
            raise error

    async def _publish_later(self, offer: Offer) -> Receipt:
        """Go on with what a full mailbox lets wait."""
        try:
            await self.admission.reserve(offer)
            return (await self._keep([self.admission.ready(offer)], ()))[0]
        except HubError as error:
            self._refused((offer.envelope,), None, error)
            raise

    def _publish_answer(self, envelope: Envelope) -> None:
        """Publish what an endpoint answered, if somebody waits for it.

        A refusal is logged: the one who delivered has gone on.
        """
        if self.waiters.waits_for(envelope):
            self._publish_beside(envelope)

    def _publish_beside(self, envelope: Envelope) -> None:
        """Publish what follows from a delivery, without a wait; a refusal is logged."""

        def told(outcome: Receipt | HubError) -> None:
            if isinstance(outcome, HubError):
                log.warning("router.refused", source=envelope.source, error=str(outcome))

        self._room.spawn(_tell(partial(self.publish, envelope), told))

    async def _take_result(self, envelope: Envelope, principal: Principal) -> Receipt:
        """Take the result of a task, however it came: it ends the task, and is not published."""
        by = source_of(envelope, principal)
        return await self._workers.take_result(envelope, by=by, principal=principal)

    # Steps 3 to 10

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
        ready: list[Ready] = []
        alone = len(envelopes) == 1
        try:
            for envelope in envelopes:
                one = await self.admission.admit(envelope, principal, rows, alone=alone)
                ready.append(one)  # what is reserved so far is given back on failure
                self._room.promises.make(one.planned)
        except BaseException as error:
            if isinstance(error, InvalidError):
                error.index = len(ready)
            self._kept(ready, None)
            raise
        return await self._keep(ready, claims)

    async def _keep(self, ready: list[Ready], claims: Sequence[Said]) -> list[Receipt]:
        """Steps 9 and 10."""
        record = ready[0].planned.record
        for other in ready[1:]:
            record.merge(other.planned.record)
        receipts = [one.planned.receipt for one in ready]
        if not (record.envelopes or claims):
            self.accept(ready)
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

    def _kept(self, ready: Sequence[Ready], kept: Kept | None) -> None:
        """The commit is done, or was refused: hand over, or give the places back."""
        if kept is not None and kept.verdict == "kept":
            self.accept(ready)
            return
        for one in ready:
            self._room.endings.release(one.planned)

    def accept(self, ready: Sequence[Ready]) -> None:
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
            self._following.kept(planned)

    def _refused(
        self, envelopes: Sequence[Envelope], principal: Principal | None, error: HubError
    ) -> None:
        source = principal.source if principal else envelopes[0].source if envelopes else "hub"
        self._metrics.envelopes_refused[source.split(".", 1)[0], error.code].inc()


async def _tell(publish: Callable[[], Awaitable[Receipt]], done: Done) -> None:
    try:
        outcome: Receipt | HubError = await publish()  # a task that never began leaves none behind
    except HubError as error:
        outcome = error
    done(outcome)


def _is_special(envelope: Envelope) -> bool:
    """Tell whether an envelope may have come before, answers another one, or is about work."""
    return envelope.type in OF_WORK or bool(
        envelope.id or envelope.idempotency_key or envelope.in_reply_to
    )
