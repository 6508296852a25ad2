"""Steps 1 to 8 of the router: from what a publisher said to what is to be kept, places reserved."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from hubbub.claims import Said, said_by
from hubbub.clock import Ids
from hubbub.envelope import TASK_REQUEST, TASK_UPDATE, Envelope
from hubbub.errors import ForbiddenError, InvalidError
from hubbub.following import Following
from hubbub.intake import Limits, check_envelope, check_stored
from hubbub.observe.metrics import Metrics
from hubbub.planning import Plan, Planner
from hubbub.ports import Clock, Planned, Record, RowsOf
from hubbub.replies import Origin, Origins, Waiters
from hubbub.rights import Rights
from hubbub.sources import SourceGuard
from hubbub.spaces import Spaces
from hubbub.stamping import Stamper, read_task, source_of
from hubbub.store.database import Database
from hubbub.store.reads import deliveries as delivery_reads
from hubbub.store.reads import envelopes as reads
from hubbub.tasks import TaskRequest
from hubbub.values import Principal, Receipt
from hubbub.workers import Workers

__all__ = ["Admission", "Offer", "Ready"]


@dataclass(slots=True)
class Offer:
    """One envelope after step 8, but for the places.

    Attributes:
        plan: None for an answer that somebody waited for: it is there already.
    """

    envelope: Envelope
    seq: int
    plan: Plan | None
    request: TaskRequest | None


@dataclass(slots=True)
class Ready:
    """One envelope after step 8, its places reserved."""

    envelope: Envelope
    planned: Planned


class Admission:
    """Checks, stamps and plans.

    Attributes:
        limits: How large an envelope may be.
    """

    def __init__(  # noqa: PLR0913  # the rooms below it
        self,
        *,
        database: Database,
        clock: Clock,
        ids: Ids,
        planner: Planner,
        following: Following,
        spaces: Spaces,
        metrics: Metrics,
        limits: Limits,
        origins: Origins,
        waiters: Waiters,
        rights: Rights,
        workers: Workers,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._planner = planner
        self._following = following
        self._spaces = spaces
        self._metrics = metrics
        self._origins = origins
        self._waiters = waiters
        self._rights = rights
        self._workers = workers
        self.stamper: Final = Stamper(ids)
        self.limits = limits

    def check(
        self,
        envelopes: Sequence[Envelope],
        principal: Principal | None,
        key: str | None,
        guard: SourceGuard | None,
    ) -> list[Said]:
        """Steps 1 and 2: limits, scope, rate; the names under which this may have come before.

        Args:
            key: Idempotency key of all of them together.

        Raises:
            HubError: the first reason to refuse; `index` says which member.
        """
        named = key is not None
        for index, envelope in enumerate(envelopes):
            try:
                self.check_one(envelope, principal, alone=len(envelopes) == 1)
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

    def check_one(
        self, envelope: Envelope, principal: Principal | None, *, alone: bool = True
    ) -> None:
        """Step 1 for one envelope.

        Args:
            alone: It is no member of a batch.

        Raises:
            HubError: too large, not valid, or not allowed.
        """
        check_envelope(envelope, self.limits)
        if principal is not None:
            self._rights.check(envelope, principal, alone=alone)

    async def admit(
        self,
        envelope: Envelope,
        principal: Principal | None,
        rows: RowsOf | None = None,
        *,
        alone: bool,
    ) -> Ready:
        """Steps 3 to 8 for one envelope.

        Args:
            alone: Its publisher waits for nothing else, so that it can be told to wait for a place.

        Raises:
            HubError: refused; no place is reserved.
        """
        origin = None
        if envelope.in_reply_to is not None:
            if self._waiters.is_over(envelope.in_reply_to):
                self._metrics.replies_late.inc()
            answered = await self._answered(envelope.in_reply_to)
            if answered is not None:
                origin = Origin.of(answered)
                if principal is not None:
                    await self._check_answer(envelope, answered, principal)
        if envelope.type == TASK_UPDATE and principal is not None:
            by = source_of(envelope, principal)
            await self._workers.check_update(envelope, by=by, principal=principal)
        offer = self.offer(envelope, principal, origin)
        if offer.plan is not None:
            if rows is not None:
                offer.plan.rows += rows(offer.plan.deliveries)
            credential = principal.id if principal else ""
            await self._spaces.reserve(offer.plan.deliveries, alone=alone, credential=credential)
        return self.ready(offer)

    def offer(
        self, envelope: Envelope, principal: Principal | None, origin: Origin | None = None
    ) -> Offer:
        """Steps 3 to 8 without the places.

        Raises:
            HubError: refused.
        """
        now_us = self._clock.now_us()
        stamped = self.stamper.stamp(envelope, principal, origin, now_us)
        seq = self._ids.seq(now_us)
        stamped, request = read_task(stamped)
        durable = stamped.durable
        if durable is None:
            durable = principal.durable if principal else True
        if stamped.in_reply_to and self._waiters.answer(stamped):
            return Offer(stamped, seq, None, request)
        if stamped.in_reply_to and not stamped.to and request is None:
            plan = self._reply(stamped, origin, seq, durable=durable)
        else:
            plan = self._planner.plan(
                stamped, seq=seq, durable=durable, request=request, now_us=now_us
            )
        if len(stamped.data) > self.limits.data_bytes and _is_stored(plan):
            check_stored(stamped, self.limits)
        return Offer(stamped, seq, plan, request)

    def reserve_at_once(self, offer: Offer) -> bool:
        """Reserve its places, all or none; False where a mailbox lets its publisher wait.

        Raises:
            MailboxFullError: it is refused.
        """
        return offer.plan is None or self._spaces.reserve_at_once(offer.plan.deliveries)

    async def reserve(self, offer: Offer) -> None:
        """Reserve the places of an envelope that came alone, when there are some.

        Raises:
            MailboxFullError: it is refused.
        """
        if offer.plan is not None:
            await self._spaces.reserve(offer.plan.deliveries, alone=True)

    def ready(self, offer: Offer) -> Ready:
        """Return what steps 9 and 10 are about, places being reserved."""
        envelope = offer.envelope
        if offer.plan is None:
            receipt = Receipt(envelope.id, envelope.trace_id, "accepted", 1)
            return Ready(envelope, Planned(Record(), [], receipt))
        planned = self._following.planned(envelope, offer.seq, offer.plan, offer.request)
        return Ready(envelope, planned)

    async def _answered(self, envelope_id: str) -> Envelope | None:
        """Step 5, first half: what an answer answers."""
        found = self._waiters.asked(envelope_id) or self._origins.find(envelope_id)
        if found is None:
            stored = await self._database.read(lambda session: reads.one(session, envelope_id))
            found = None if stored is None else stored.envelope
        return found

    async def _check_answer(
        self, envelope: Envelope, answered: Envelope, principal: Principal
    ) -> None:
        """Check that whoever answers was given what it answers, or may write there anyway.

        Raises:
            ForbiddenError: neither.
        """
        if envelope.to and not self._waiters.waits_for(envelope):
            return  # it goes where `to` says, and was checked for that
        rights = self._rights
        if rights.may_write(Origin.of(answered).address, principal):
            return
        given: AbstractSet[str]
        if answered.type == TASK_REQUEST:  # of those who might have it, one has
            given = await self._workers.given(answered)
        elif rights.reaches(answered, principal):
            return
        else:
            given = await self._given(answered)
        if not any(rights.is_own(address, principal) for address in given):
            raise ForbiddenError(
                f"{principal.name!r} may not answer {answered.id!r}, which was not given to it; "
                "it needs the scope 'direct:' for where the answer goes"
            )

    async def _given(self, answered: Envelope) -> set[str]:
        """Return who was given an envelope, as an answer itself or as the store knows."""
        given = await self._database.read(
            lambda session: delivery_reads.addresses_of(session, answered.id)
        )
        if answered.in_reply_to is not None and not answered.to:
            before = await self._answered(answered.in_reply_to)
            if before is not None:
                given.add(Origin.of(before).address)
        return given

    def _reply(self, envelope: Envelope, origin: Origin | None, seq: int, *, durable: bool) -> Plan:
        """Step 5, second half: an answer goes to where the question came from."""
        if origin is None:
            return Plan([], [], "no_origin", durable)
        answer = envelope.replace(to=(origin.address,))
        return self._planner.plan(answer, seq=seq, durable=durable)


def _is_stored(plan: Plan) -> bool:
    return plan.durable or any(delivery.durable for delivery in plan.deliveries)
