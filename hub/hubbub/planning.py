"""Steps 5 to 8 of the router: a stamped envelope becomes deliveries. No store, no waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hubbub.clock import Ids
from hubbub.conversion import Conversions
from hubbub.delivery.mailbox import is_pool, pool_name
from hubbub.delivery.rules import deadline_of
from hubbub.directory import Directory, Known, choose_sticky
from hubbub.envelope import MAX_HOPS, Envelope
from hubbub.lanes import rank_of
from hubbub.ports import Clock, Row
from hubbub.preparing import NotForItError, PrepareError, Preparer
from hubbub.routing import CompiledRoute, RoutingTable
from hubbub.subjects import is_pattern
from hubbub.tasks import TaskRequest
from hubbub.times import parse_time
from hubbub.values import Delivery, DeliveryState, Endpoint, Outcome, Requirement, Route

__all__ = ["Plan", "Planner", "TryHard"]

DIRECT: Final = Route(name="direct", match=">", to=("direct",), deliver="all")
ANY_WORKER: Final = Route(name="any worker", match=">", to=(">",), deliver="one", fallback=True)
REPLY: Final = Route(name="reply", match=">", to=("reply",), deliver="all")


@dataclass(frozen=True, slots=True, kw_only=True)
class TryHard:
    """Attempts and times when neither asker, nor route, nor adapter says. Seconds."""

    attempts: int = 5
    timeout_s: float = 30.0
    queue_ttl_s: float = 3600.0


@dataclass(slots=True)
class Plan:
    """What shall become of one envelope."""

    deliveries: list[Delivery]
    rows: list[Row]
    reason: str | None = None
    """Why it is unrouted; None when there is a delivery."""
    _mailboxes: set[str] = field(default_factory=set[str])

    def has(self, mailbox: str) -> bool:
        """Tell whether a mailbox gets it already: at most one delivery each."""
        return mailbox in self._mailboxes

    def add(self, delivery: Delivery) -> None:
        """Take in one delivery more."""
        self.deliveries.append(delivery)
        self._mailboxes.add(delivery.mailbox)


@dataclass(slots=True)
class _Offer:
    """An envelope under way to its plan."""

    envelope: Envelope
    seq: int
    now_us: int
    durable: bool
    plan: Plan


def compiled(route: Route) -> CompiledRoute:
    """Return one of the router's own routes, made ready."""
    return CompiledRoute(route, (9, 0), None, None, labels=())


_DIRECT: Final = compiled(DIRECT)
_ANY_WORKER: Final = compiled(ANY_WORKER)
_REPLY: Final = compiled(REPLY)


class Planner:
    """Decides who gets an envelope, by which mailbox, and how hard to try."""

    def __init__(
        self,
        *,
        table: RoutingTable,
        directory: Directory,
        conversions: Conversions,
        preparer: Preparer,
        clock: Clock,
        ids: Ids,
        defaults: TryHard,
    ) -> None:
        self._table = table
        self._directory = directory
        self._conversions = conversions
        self._preparer = preparer
        self._clock = clock
        self._ids = ids
        self.defaults = defaults
        self.task_defaults: Final[dict[str, TryHard]] = {}
        """Of adapters, by name: for tasks that only their endpoints may have."""

    def plan(
        self,
        envelope: Envelope,
        *,
        seq: int,
        durable: bool,
        request: TaskRequest | None = None,
        reply_to: str | None = None,
        now_us: int | None = None,
    ) -> Plan:
        """Return the deliveries of an envelope, and rows that are some of them.

        Args:
            now_us: The time, where it was read just now.
            durable: What holds where no route says otherwise.
            request: What the hub reads of a task request; such an envelope goes to one worker.
            reply_to: An address that gets it beside the table's (the result of a task).
        """
        routes = self._routes(envelope, request)
        plan = Plan([], [])
        if now_us is None:
            now_us = self._clock.now_us()
        offer = _Offer(envelope, seq, now_us, durable, plan)
        if request is not None:
            self._plan_task(offer, routes[0], request)
            return plan
        for route in routes:
            self._follow(offer, route)
        if reply_to is not None:
            self._to_address(offer, _REPLY, reply_to)
        if len(plan.deliveries) > 1:
            # Only who is chosen from a pool asks who else has it; a ring of all would be left to
            # the garbage collector, a thousand deliveries of one message at a time.
            for delivery in plan.deliveries:
                if is_pool(delivery.mailbox):
                    delivery.siblings = tuple(plan.deliveries)
        if not plan.deliveries:
            plan.reason = "no_endpoint" if routes else "no_route"
        return plan

    def _routes(self, envelope: Envelope, request: TaskRequest | None) -> Sequence[CompiledRoute]:
        if envelope.to:
            return (_DIRECT,)
        found = self._table.match(envelope)
        if request is not None and not found:
            return (_ANY_WORKER,)
        return found

    # Plain envelopes

    def _follow(self, offer: _Offer, route: CompiledRoute) -> None:
        """Add the deliveries of one route."""
        targets = (
            offer.envelope.to if route is _DIRECT else tuple(route.targets(offer.envelope))
        )  # fmt: skip
        one = len(targets) == 1 and not is_pattern(targets[0])
        deliver = route.route.deliver
        if deliver == "all":
            found = self._to_all(offer, route, targets)
        elif deliver == "sticky":
            found = self._to_sticky(offer, route, targets)
        elif one:
            found = self._to_address(offer, route, targets[0])
        else:
            found = self._to_pool(offer, route, targets)
        if not found and route.route.hold_s and targets:
            self._hold(offer, route, targets)

    def _to_all(self, offer: _Offer, route: CompiledRoute, targets: Sequence[str]) -> bool:
        requirement = Requirement((), route.labels, offer.envelope.type)
        found = False
        for target in targets:
            if not is_pattern(target):
                found |= self._to_address(offer, route, target)
                continue
            # What nobody asked for by name does not come back to who said it.
            but = offer.envelope.source if route.route.fallback else None
            for known in list(self._directory.members(target)):
                if known.address != but and self._directory.able(known.endpoint, requirement):
                    self._to_known(offer, route, known)
                    found = True
        return found

    def _to_address(self, offer: _Offer, route: CompiledRoute, address: str) -> bool:
        """Add the delivery to a literal address; one that cannot take the type is dead at once."""
        known = self._directory.get(address)
        if known is None:
            return False
        # What a transform makes of it is known when it has run.
        if route.route.transform or self._conversions.accepts(
            offer.envelope.type, known.endpoint.accepts
        ):
            self._to_known(offer, route, known)
        elif not offer.plan.has(address):
            delivery = self._delivery(offer, address, route, known.endpoint)
            offer.plan.add(_ended(delivery, Outcome.DEAD, "no_converter"))
        return True

    def _to_known(self, offer: _Offer, route: CompiledRoute, known: Known) -> None:
        """Add the delivery to one endpoint's own mailbox, unless it has one already."""
        plan, address = offer.plan, known.address
        if plan.has(address):
            return
        delivery = self._delivery(offer, address, route, known.endpoint)
        plan.add(delivery)
        if delivery.state is DeliveryState.DONE:
            return
        rows = self._recorded(known.endpoint, delivery) if known.records else None
        if rows is not None:
            plan.rows += rows
            delivery.durable = True
            delivery.endpoint = address
            delivery.attempts = 1
            _ended(delivery, Outcome.DELIVERED, None)
        elif not (delivery.durable or known.present):
            _ended(delivery, Outcome.DROPPED, "offline")

    def _recorded(self, endpoint: Endpoint, delivery: Delivery) -> Sequence[Row] | None:
        """Return the rows that are an endpoint's taking of this delivery, as it takes it."""
        try:
            prepared = self._preparer.prepare(delivery.envelope, delivery.transform, endpoint)
        except (NotForItError, PrepareError):  # a courier will find the same, and end it by that
            return None
        return endpoint.record(prepared)

    def _to_pool(self, offer: _Offer, route: CompiledRoute, targets: tuple[str, ...]) -> bool:
        requirement = Requirement(targets, route.labels, offer.envelope.type)
        members = self._directory.eligible(requirement)
        if not members:
            return False
        some = next(iter(members.values())).endpoint
        delivery = self._delivery(offer, pool_name(requirement), route, some)
        offer.plan.add(delivery)
        if not delivery.durable and not any(known.present for known in members.values()):
            _ended(delivery, Outcome.DROPPED, "offline")
        return True

    def _to_sticky(self, offer: _Offer, route: CompiledRoute, targets: tuple[str, ...]) -> bool:
        requirement = Requirement(targets, route.labels, offer.envelope.type)
        members = self._directory.eligible(requirement)
        chosen = choose_sticky(route.key_of(offer.envelope) or "", members)
        if chosen is None:
            return False
        self._to_known(offer, route, members[chosen])
        return True

    def _hold(self, offer: _Offer, route: CompiledRoute, targets: tuple[str, ...]) -> None:
        """Keep it until an endpoint is known."""
        name = pool_name(Requirement(targets, route.labels, offer.envelope.type))
        delivery = self._delivery(offer, name, route, None)
        if not delivery.durable:
            return
        if delivery.state is DeliveryState.PENDING:
            delivery.hold = True
            delivery.wait_us = int(route.route.hold_s * 1e6)
            delivery.deadline_us = deadline_of(delivery, now_us=delivery.created_us)
        offer.plan.add(delivery)

    # Tasks

    def _plan_task(self, offer: _Offer, route: CompiledRoute, request: TaskRequest) -> None:
        """Add the one delivery of a task, for one worker or for a pool of them."""
        envelope, plan = offer.envelope, offer.plan
        targets = tuple(envelope.to if route is _DIRECT else route.targets(envelope)) or (">",)
        pinned = route is _DIRECT and len(targets) == 1 and not is_pattern(targets[0])
        labels = () if pinned else route.labels
        if request.labels and not pinned:
            labels = tuple(sorted({**dict(labels), **request.labels}.items()))
        requirement = Requirement(targets, labels, envelope.type, request.task_type)
        known = self._worker(route, targets, requirement, envelope)
        name = pool_name(requirement) if known is None else known.address
        endpoint = known.endpoint if known is not None else None
        adapter = self._adapter_of(targets)
        defaults = self.task_defaults.get(adapter, self.defaults)
        delivery = self._delivery(offer, name, route, endpoint, defaults)
        ttl_s = endpoint.queue_ttl_s if endpoint is not None else None
        ttl_s = defaults.queue_ttl_s if ttl_s is None else ttl_s
        delivery.wait_us = int((route.route.hold_s or ttl_s) * 1e6)
        if not (adapter or route.route.timeout_s):
            delivery.timeout_us = 0  # whoever takes it says
        self._as_task(delivery, request)
        plan.add(delivery)
        if delivery.state is DeliveryState.DONE or known is None:
            return
        if self._directory.able(known.endpoint, requirement):
            if known.records:
                plan.rows += self._recorded(known.endpoint, delivery) or ()
        else:
            _ended(delivery, Outcome.DEAD, "no_converter")

    def _adapter_of(self, targets: tuple[str, ...]) -> str:
        """Return whose endpoints these are, known or still to come; empty for several adapters'."""
        adapters = {target.split(".", 1)[0] for target in targets}
        only = adapters.pop() if len(adapters) == 1 else ""
        return "" if is_pattern(only) else only

    def _worker(
        self,
        route: CompiledRoute,
        targets: tuple[str, ...],
        requirement: Requirement,
        envelope: Envelope,
    ) -> Known | None:
        """Return the one worker a task is for; None when a pool of them decides later."""
        if len(targets) == 1 and not is_pattern(targets[0]):
            return self._directory.get(targets[0])
        if route.route.deliver == "sticky":
            members = self._directory.eligible(requirement)
            chosen = choose_sticky(route.key_of(envelope) or "", members)
            return None if chosen is None else members[chosen]
        return None

    def _as_task(self, delivery: Delivery, request: TaskRequest) -> None:
        """Make a delivery leased, and give it what the asker of the task said."""
        delivery.leased = True
        delivery.durable = True
        delivery.task_id = request.task_id
        delivery.task_type = request.task_type
        if request.max_attempts is not None:
            delivery.max_attempts = request.max_attempts
        if request.timeout_s is not None:
            delivery.timeout_us = int(request.timeout_s * 1e6)
        now_us = delivery.created_us
        if request.not_before is not None:
            delivery.due_us = parse_time(request.not_before, what="not_before")
            now_us = max(now_us, delivery.due_us)
            delivery.rank = rank_of(
                created_us=delivery.created_us,
                not_before_us=delivery.due_us,
                priority=delivery.envelope.priority,
                keyed=delivery.lane is not None,
            )
        delivery.deadline_us = deadline_of(delivery, now_us=now_us)

    # One delivery

    def _delivery(
        self,
        offer: _Offer,
        mailbox: str,
        route: CompiledRoute,
        endpoint: Endpoint | None,
        defaults: TryHard | None = None,
    ) -> Delivery:
        """Return a delivery for one mailbox; how hard to try: route, else adapter, else core."""
        rule, envelope, durable = route.route, offer.envelope, offer.durable
        lane, now_us = route.key_of(envelope), offer.now_us
        defaults = defaults or self.defaults
        attempts = rule.attempts or (endpoint and endpoint.attempts) or defaults.attempts
        if endpoint is not None and endpoint.max_attempts is not None:
            attempts = min(attempts, endpoint.max_attempts)
        timeout_s = rule.timeout_s or (endpoint and endpoint.timeout_s) or defaults.timeout_s
        if rule.durable is not None:
            durable = rule.durable
        elif envelope.durable is not None:
            durable = envelope.durable
        delivery = Delivery(
            id=self._ids.seq(now_us),
            envelope=envelope,
            seq=offer.seq,
            mailbox=mailbox,
            route=rule.name,
            durable=durable,
            rank=rank_of(
                created_us=now_us,
                not_before_us=0,
                priority=envelope.priority,
                keyed=lane is not None,
            ),
            lane=lane,
            max_attempts=attempts,
            timeout_us=int(timeout_s * 1e6),
            created_us=now_us,
            updated_us=now_us,
            transform=rule.transform,
            deadline_us=envelope.expires_us,
        )
        if envelope.hops >= MAX_HOPS:
            return _ended(delivery, Outcome.DEAD, "loop")
        if envelope.expires_us is not None and envelope.expires_us <= now_us:
            return _ended(delivery, Outcome.EXPIRED, "expires")
        return delivery


def _ended(delivery: Delivery, outcome: Outcome, reason: str | None) -> Delivery:
    delivery.state = DeliveryState.DONE
    delivery.outcome = outcome
    delivery.reason = reason
    return delivery
